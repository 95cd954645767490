package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// server plays QEMU: it greets, and answers each command with what script says
// for it; an empty answer closes the connection. "ID" in an answer stands for
// the request's id.
func server(t *testing.T, greeting string, script map[string]string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		if _, err := theirs.Write([]byte(greeting)); err != nil {
			return
		}
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			var r struct {
				Execute string `json:"execute"`
				ID      string `json:"id"`
			}
			if json.Unmarshal(lines.Bytes(), &r) != nil {
				return
			}
			answer, known := script[r.Execute]
			if r.Execute == "qmp_capabilities" && !known {
				answer = `{"return": {}, "id": "ID"}`
			}
			if answer == "" {
				theirs.Close()
				return
			}
			out := []byte{}
			for i := 0; i < len(answer); i++ {
				if i+2 < len(answer) && answer[i:i+4] == `"ID"` {
					out = append(out, '"')
					out = append(out, r.ID...)
					out = append(out, '"')
					i += 3
					continue
				}
				out = append(out, answer[i])
			}
			if _, err := theirs.Write(append(out, '\n')); err != nil {
				return
			}
		}
	}()
	return ours
}

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}` + "\r\n"

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAnswersReachTheirCommandPastEventsAndStrangers(t *testing.T) {
	events := make(chan string, 8)
	conn := server(t, greeting, map[string]string{
		"query-status": `{"event": "STOP", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}` +
			`{"return": {"status": "not yours"}, "id": "unknown"}` + `{"newthing": 1}` +
			`{"return": {"status": "paused"}, "id": "ID"}`,
	})
	c, err := New(testContext(t), conn, func(e Event) { events <- e.Name })
	require.NoError(t, err)

	var status struct{ Status string }
	require.NoError(t, c.Execute(testContext(t), "query-status", nil, &status))
	require.Equal(t, "paused", status.Status)
	require.Equal(t, "STOP", <-events)
}

func TestRefusalIsATypedError(t *testing.T) {
	conn := server(t, greeting, map[string]string{
		"set_link": `{"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}, "id": "ID"}`,
	})
	c, err := New(testContext(t), conn, nil)
	require.NoError(t, err)

	err = c.Execute(testContext(t), "set_link", map[string]any{"name": "x", "up": false}, nil)
	var refused *Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, &Error{Command: "set_link", Class: "DeviceNotFound", Desc: "Device 'x' not found"}, refused)
}

func TestEndOfQEMUIsErrClosedForTheWaitingAndTheLater(t *testing.T) {
	c, err := New(testContext(t), server(t, greeting, map[string]string{"quit": ""}), nil)
	require.NoError(t, err)

	require.ErrorIs(t, c.Execute(testContext(t), "quit", nil, nil), ErrClosed)
	<-c.Done()
	require.ErrorIs(t, c.Execute(testContext(t), "cont", nil, nil), ErrClosed)
}

func TestNewFailsWithoutAGreeting(t *testing.T) {
	for name, first := range map[string]string{
		"garbage": "qemu-system-x86_64: could not open disk\n",
		"nothing": "",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := New(ctx, server(t, first, nil), nil)
			require.Error(t, err)
		})
	}
}
