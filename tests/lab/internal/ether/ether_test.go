package ether

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// host is a machine's end of a cable.
type host struct {
	t *testing.T
	net.Conn
}

func plug(t *testing.T, s *Switch, name string) host {
	t.Helper()
	f, err := s.Plug(name)
	require.NoError(t, err)
	conn, err := net.FileConn(f)
	require.NoError(t, err)
	f.Close()
	t.Cleanup(func() { conn.Close() })
	return host{t, conn}
}

func (h host) send(frame []byte) {
	h.t.Helper()
	_, err := h.Write(frame)
	require.NoError(h.t, err)
}

// got is the payload of the next frame, or "" when none comes within wait.
func (h host) got(wait time.Duration) string {
	h.t.Helper()
	require.NoError(h.t, h.SetReadDeadline(time.Now().Add(wait)))
	buf := make([]byte, maxFrame)
	n, err := h.Read(buf)
	if err != nil {
		require.ErrorIs(h.t, err, os.ErrDeadlineExceeded)
		return ""
	}
	return string(buf[headerLen:n])
}

const (
	soon  = 5 * time.Second
	never = 50 * time.Millisecond
)

var (
	macA      = MAC{2, 0, 0, 0, 0, 0xa}
	macB      = MAC{2, 0, 0, 0, 0, 0xb}
	broadcast = MAC{255, 255, 255, 255, 255, 255}
)

func frame(to, from MAC, payload string) []byte {
	out := append(append([]byte{}, to[:]...), from[:]...)
	return append(append(out, 0x88, 0xb5), payload...)
}

func TestBroadcastReachesAllButTheSender(t *testing.T) {
	s := New()
	defer s.Close()
	a, b, c := plug(t, s, "a"), plug(t, s, "b"), plug(t, s, "c")

	a.send(frame(broadcast, macA, "who has"))
	require.Equal(t, "who has", b.got(soon))
	require.Equal(t, "who has", c.got(soon))
	require.Empty(t, a.got(never), "a real switch returns no frame to its sender")
}

func TestUnicastFollowsTheAddressWhenItMoves(t *testing.T) {
	s := New()
	defer s.Close()
	a, b, c := plug(t, s, "a"), plug(t, s, "b"), plug(t, s, "c")

	b.send(frame(broadcast, macB, "learn"))
	require.Equal(t, "learn", a.got(soon))
	require.Equal(t, "learn", c.got(soon))
	a.send(frame(macB, macA, "one"))
	require.Equal(t, "one", b.got(soon))
	require.Empty(t, c.got(never), "a learned address is not flooded")

	c.send(frame(broadcast, macB, "moved"))
	require.Equal(t, "moved", a.got(soon))
	require.Equal(t, "moved", b.got(soon))
	a.send(frame(macB, macA, "two"))
	require.Equal(t, "two", c.got(soon))
	require.Empty(t, b.got(never))
}

func TestBlockedPortIsSilentBothWaysAndObserved(t *testing.T) {
	s := New()
	defer s.Close()
	lost := make(chan bool, 8)
	s.Observe(func(_ time.Time, port string, _ []byte, l bool) { lost <- l })
	a, b := plug(t, s, "a"), plug(t, s, "b")

	require.NoError(t, s.Block("b", true))
	a.send(frame(broadcast, macA, "in"))
	require.False(t, <-lost)
	b.send(frame(broadcast, macB, "out"))
	require.True(t, <-lost)
	require.Empty(t, a.got(never))
	require.Empty(t, b.got(never))

	require.NoError(t, s.Block("b", false))
	b.send(frame(broadcast, macB, "again"))
	require.Equal(t, "again", a.got(soon))
	require.Error(t, s.Block("nobody", true))
}

func TestMachineThatDoesNotReadHoldsUpNobody(t *testing.T) {
	s := New()
	defer s.Close()
	a, _, c := plug(t, s, "a"), plug(t, s, "stopped"), plug(t, s, "c")

	for range 2 * queueLen {
		a.send(frame(broadcast, macA, "x"))
		require.Equal(t, "x", c.got(soon))
	}
}

func TestPortPluggedAnewReplacesTheDeadMachine(t *testing.T) {
	s := New()
	defer s.Close()
	a := plug(t, s, "a")
	plug(t, s, "b").Close()
	b := plug(t, s, "b")

	a.send(frame(broadcast, macA, "hello"))
	require.Equal(t, "hello", b.got(soon))
}

func TestRuntFramesAreSkipped(t *testing.T) {
	s := New()
	defer s.Close()
	a, b := plug(t, s, "a"), plug(t, s, "b")
	a.send([]byte{1, 2, 3})
	a.send(frame(broadcast, macA, "whole"))
	require.Equal(t, "whole", b.got(soon))
}
