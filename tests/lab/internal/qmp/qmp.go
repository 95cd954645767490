// Package qmp speaks the QEMU Machine Protocol: the lab's fault injector.
//
// The wire format (QEMU docs/interop/qmp-spec): one JSON object per line.
// The server opens with
//
//	{"QMP": {"version": {…}, "capabilities": […]}}
//
// and obeys nothing before {"execute": "qmp_capabilities"}. After that each
// command {"execute": NAME, "arguments": {…}, "id": ID} is answered by
// {"return": …, "id": ID} or {"error": {"class": …, "desc": …}, "id": ID};
// events {"event": NAME, "data": {…}, "timestamp": {…}} come in between at any
// time.
package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
)

// ErrClosed says that the connection ended before the answer came: QEMU quit
// or was killed.
var ErrClosed = errors.New("qmp: connection closed")

// Error is QEMU's own refusal of a command.
type Error struct {
	Command string // the command that was refused
	Class   string // QEMU's error class, for example GenericError
	Desc    string // QEMU's words
}

func (e *Error) Error() string {
	return fmt.Sprintf("qmp %s: %s: %s", e.Command, e.Class, e.Desc)
}

// Event is something that QEMU told without being asked.
type Event struct {
	Name string
	Data json.RawMessage
}

// Client is one QMP connection. It may be used by several goroutines.
type Client struct {
	conn    io.ReadWriteCloser
	onEvent func(Event)

	mu      sync.Mutex // guards what follows, and the order of writes
	nextID  uint64
	waiting map[string]chan message
	err     error
	done    chan struct{}
}

// message is every shape that the server sends, folded into one.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
	ID    string          `json:"id"`
}

type request struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        string `json:"id"`
}

// New reads the greeting from conn and leaves the negotiation mode. onEvent,
// if not nil, is called for each event from the reading goroutine and must not
// block. The client owns conn from here on, also when New fails.
func New(ctx context.Context, conn io.ReadWriteCloser, onEvent func(Event)) (*Client, error) {
	c := &Client{conn: conn, onEvent: onEvent, waiting: map[string]chan message{}, done: make(chan struct{})}
	greeted := make(chan struct{})
	go c.read(greeted)

	select {
	case <-greeted:
	case <-c.done:
		return nil, fmt.Errorf("qmp: no greeting: %w", c.failure())
	case <-ctx.Done():
		conn.Close()
		return nil, fmt.Errorf("qmp: waiting for the greeting: %w", ctx.Err())
	}
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Execute runs one command and decodes its return value into result unless
// that is nil. A refusal by QEMU is an *Error; a connection that ends before
// the answer is ErrClosed.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	answer := make(chan message, 1)

	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return fmt.Errorf("qmp %s: %w", command, c.err)
	}
	c.nextID++
	id := strconv.FormatUint(c.nextID, 10)
	line, err := json.Marshal(request{Execute: command, Arguments: args, ID: id})
	if err != nil {
		c.mu.Unlock()
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	c.waiting[id] = answer
	_, err = c.conn.Write(append(line, '\n'))
	c.mu.Unlock()

	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	if err != nil {
		return fmt.Errorf("qmp %s: %w: %w", command, ErrClosed, err)
	}

	select {
	case m := <-answer:
		if m.Error != nil {
			return &Error{Command: command, Class: m.Error.Class, Desc: m.Error.Desc}
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(m.Return, result); err != nil {
			return fmt.Errorf("qmp %s: answer %s: %w", command, m.Return, err)
		}
		return nil
	case <-c.done:
		return fmt.Errorf("qmp %s: %w", command, c.failure())
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: no answer: %w", command, ctx.Err())
	}
}

// Close ends the connection; commands that wait get ErrClosed.
func (c *Client) Close() error { return c.conn.Close() }

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// read hands each message to whom it belongs until the stream ends. A message
// of unknown shape or with an id that nobody waits for is skipped: newer QEMUs
// may say more than we know.
func (c *Client) read(greeted chan<- struct{}) {
	decoder := json.NewDecoder(c.conn)
	for {
		var m message
		if err := decoder.Decode(&m); err != nil {
			c.mu.Lock()
			c.err = ErrClosed
			if !errors.Is(err, io.EOF) {
				c.err = fmt.Errorf("%w: %w", ErrClosed, err)
			}
			c.mu.Unlock()
			close(c.done)
			return
		}
		switch {
		case m.Greeting != nil && greeted != nil:
			close(greeted)
			greeted = nil
		case m.Event != "":
			if c.onEvent != nil {
				c.onEvent(Event{Name: m.Event, Data: m.Data})
			}
		case m.ID != "":
			c.mu.Lock()
			if answer, ok := c.waiting[m.ID]; ok {
				answer <- m
				delete(c.waiting, m.ID)
			}
			c.mu.Unlock()
		}
	}
}
