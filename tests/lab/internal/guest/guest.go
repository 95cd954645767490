// Package guest runs commands in a machine over one ssh connection.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Result is how a command ended.
type Result struct {
	Stdout string
	Stderr string
	Code   int // exit status; -1 when a signal ended it
}

// ExitError is a command that ended with anything but 0.
type ExitError struct {
	Machine string
	Command string
	Result
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %s: exit %d\n%s%s", e.Machine, e.Command, e.Code, tail(e.Stdout, 2000), tail(e.Stderr, 2000))
}

func tail(s string, n int) string {
	s = strings.TrimRight(s, "\n")
	if len(s) > n {
		s = "…" + s[len(s)-n:]
	}
	if s != "" {
		s += "\n"
	}
	return s
}

// Client is a connection to one machine. Many commands may run at once.
type Client struct {
	machine string
	ssh     *ssh.Client
}

// Dial connects, trying again until the machine answers or ctx ends: a
// machine that boots refuses for a while.
func Dial(ctx context.Context, machine, address string, user ssh.Signer, host ssh.PublicKey) (*Client, error) {
	config := &ssh.ClientConfig{
		User:            "root",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(user)},
		HostKeyCallback: ssh.FixedHostKey(host),
		// ChaCha20 needs no special instructions: the cheapest under emulation.
		Config: ssh.Config{Ciphers: []string{"chacha20-poly1305@openssh.com", "aes128-ctr"}, KeyExchanges: []string{"curve25519-sha256"}},
	}
	var last error
	for {
		c, err := dial(ctx, address, config)
		if err == nil {
			client := &Client{machine: machine, ssh: c}
			go client.keepAlive()
			return client, nil
		}
		last = err
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: no ssh: %w (last try: %w)", machine, ctx.Err(), last)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func dial(ctx context.Context, address string, config *ssh.ClientConfig) (*ssh.Client, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	// QEMU accepts at once; the machine may take long to say anything.
	deadline := time.Now().Add(20 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, address, config)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// keepAlive exists so that QEMU's user network never sees an idle flow.
func (c *Client) keepAlive() {
	for range time.Tick(15 * time.Second) {
		if _, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			return
		}
	}
}

// Close ends the connection and with it every command's session.
func (c *Client) Close() error { return c.ssh.Close() }

// Run runs a shell command line. A command that ends with another status than
// 0 is an *ExitError with its Result; one that outlives ctx gets its session
// closed, which does not end the process in the machine.
func (c *Client) Run(ctx context.Context, command string, stdin io.Reader) (Result, error) {
	session, err := c.ssh.NewSession()
	if err != nil {
		return Result{}, fmt.Errorf("%s: %s: %w", c.machine, command, err)
	}
	defer session.Close()
	var stdout, stderr bytes.Buffer
	session.Stdout, session.Stderr, session.Stdin = &stdout, &stderr, stdin

	done := make(chan error, 1)
	if err := session.Start(command); err != nil {
		return Result{}, fmt.Errorf("%s: %s: %w", c.machine, command, err)
	}
	go func() { done <- session.Wait() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		// The copying goroutines still write to the buffers: they are not
		// touched again.
		return Result{}, fmt.Errorf("%s: %s: %w", c.machine, command, context.Cause(ctx))
	}
	result := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *ssh.ExitError
	switch {
	case errors.As(err, &exit):
		result.Code = exit.ExitStatus()
		if exit.Signal() != "" {
			result.Code = -1
		}
		return result, &ExitError{Machine: c.machine, Command: command, Result: result}
	case err != nil:
		return result, fmt.Errorf("%s: %s: %w", c.machine, command, err)
	}
	return result, nil
}

// SetClock sets the machine's clock to the host's. The time is sent when the
// command that takes it already runs, so that it is off by one exec of date and
// not by the setting up of a session.
func (c *Client) SetClock(ctx context.Context) error {
	session, err := c.ssh.NewSession()
	if err != nil {
		return fmt.Errorf("%s: clock: %w", c.machine, err)
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	stdin, err := session.StdinPipe()
	if err != nil {
		return fmt.Errorf("%s: clock: %w", c.machine, err)
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return fmt.Errorf("%s: clock: %w", c.machine, err)
	}
	if err := session.Start("date >/dev/null; echo ready; read t; exec date -s @$t"); err != nil {
		return fmt.Errorf("%s: clock: %w", c.machine, err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		return fmt.Errorf("%s: clock: %w", c.machine, err)
	}
	now := time.Now()
	if _, err := fmt.Fprintf(stdin, "%d.%09d\n", now.Unix(), now.Nanosecond()); err != nil {
		return fmt.Errorf("%s: clock: %w", c.machine, err)
	}
	go io.Copy(io.Discard, stdout) //nolint:errcheck // date prints the time it set
	if err := session.Wait(); err != nil {
		return fmt.Errorf("%s: clock: %w", c.machine, err)
	}
	return nil
}

// Upload writes a file, replacing what was there in one step.
func (c *Client) Upload(ctx context.Context, path string, mode uint32, content []byte) error {
	quoted := Quote(path)
	_, err := c.Run(ctx, fmt.Sprintf("mkdir -p $(dirname %[1]s) && cat >%[1]s.new && chmod %[2]o %[1]s.new && sync %[1]s.new && mv %[1]s.new %[1]s", quoted, mode), bytes.NewReader(content))
	return err
}

// Quote makes one word of a POSIX shell command line of s.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
