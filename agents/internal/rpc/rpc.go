// Package rpc asks servers of ONC RPC (RFC 5531) whether they answer: it makes calls of
// procedure 0, which every program has and which does nothing, and asks a port mapper (RFC 1833)
// for a program's port. A Socket makes other calls, to many servers at once.
package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Numbers of programs (rpc(5), RFC 1833, RFC 8881, RFC 1813).
const (
	Portmapper  = 100000
	NFS         = 100003
	Mount       = 100005
	LockManager = 100021
	Status      = 100024
)

// Target is one version of one program behind an address.
type Target struct {
	Network string // "tcp" or "udp"
	Address string // host:port
	Program uint32
	Version uint32
}

func (t Target) String() string {
	return fmt.Sprintf("program %d version %d at %s/%s", t.Program, t.Version, t.Address, t.Network)
}

// Error says how a call failed. It wraps syscall.ECONNREFUSED where nothing listens,
// os.ErrDeadlineExceeded or the context's error where no answer came, and ErrRejected or
// ErrMalformed where the answer was not the expected one.
type Error struct {
	Target Target
	Err    error
}

func (e *Error) Error() string { return e.Target.String() + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

var (
	// ErrRejected means that a server answered that it does not do what was asked.
	ErrRejected = errors.New("the call was rejected")
	// ErrMalformed means that the answer is no reply of ONC RPC to this call.
	ErrMalformed = errors.New("malformed answer")
)

// Null calls procedure 0 and returns nil when the server answered it with success.
func Null(ctx context.Context, t Target) error {
	_, err := call(ctx, t, 0, nil)
	return err
}

// GetPort asks the port mapper at host for the port of a program; 0 means: not registered. It
// speaks version 2, which every rpcbind has: 4 words program, version, protocol (6 TCP, 17 UDP), 0.
func GetPort(ctx context.Context, host string, program, version uint32, network string) (int, error) {
	const getPort = 3
	protocol := uint32(6)
	if network == "udp" {
		protocol = 17
	}
	args := words(program, version, protocol, 0)
	t := Target{Network: "tcp", Address: net.JoinHostPort(host, "111"), Program: Portmapper, Version: 2}
	return getPortAt(ctx, t, getPort, args)
}

func getPortAt(ctx context.Context, t Target, procedure uint32, args []byte) (int, error) {
	res, err := call(ctx, t, procedure, args)
	if err != nil {
		return 0, err
	}
	if len(res) < 4 || binary.BigEndian.Uint32(res) > 65535 {
		return 0, &Error{Target: t, Err: ErrMalformed}
	}
	return int(binary.BigEndian.Uint32(res)), nil
}

func words(list ...uint32) []byte {
	var b []byte
	for _, w := range list {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// udpRetry is the time after which a datagram without an answer is sent again.
const udpRetry = 500 * time.Millisecond

// message is a call (RFC 5531, 9): xid, 0 (call), 2 (RPC version), program, version, procedure,
// credentials and verifier; each of the latter is flavor 0 (none) and length 0.
func message(xid, program, version, procedure uint32, args []byte) []byte {
	return append(words(xid, 0, 2, program, version, procedure, 0, 0, 0, 0), args...)
}

// call sends one call and returns the results behind the reply's header.
func call(ctx context.Context, t Target, procedure uint32, args []byte) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, &Error{Target: t, Err: err}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	xid := uint32(time.Now().UnixNano())
	msg := message(xid, t.Program, t.Version, procedure, args)
	exchange := overTCP
	if t.Network == "udp" {
		exchange = overUDP
	}
	reply, err := exchange(ctx, conn, xid, msg)
	if err != nil {
		return fail(err)
	}
	res, err := parseReply(xid, reply)
	if err != nil {
		return fail(err)
	}
	return res, nil
}

// maxReply is far above any answer that is asked for here.
const maxReply = 4096

// lastFragment marks the last fragment of a record; the other 31 bits are the fragment's length
// (RFC 5531, 11: record marking).
const lastFragment = 1 << 31

func overTCP(_ context.Context, conn net.Conn, _ uint32, msg []byte) ([]byte, error) {
	if _, err := conn.Write(append(words(lastFragment|uint32(len(msg))), msg...)); err != nil {
		return nil, err
	}
	var reply []byte
	for {
		var mark [4]byte
		if _, err := io.ReadFull(conn, mark[:]); err != nil {
			return nil, err
		}
		m := binary.BigEndian.Uint32(mark[:])
		n := int(m &^ lastFragment)
		if len(reply)+n > maxReply {
			return nil, ErrMalformed
		}
		at := len(reply)
		reply = append(reply, make([]byte, n)...)
		if _, err := io.ReadFull(conn, reply[at:]); err != nil {
			return nil, err
		}
		if m&lastFragment != 0 {
			return reply, nil
		}
		if n == 0 {
			return nil, ErrMalformed // an endless row of empty fragments is no answer
		}
	}
}

func overUDP(ctx context.Context, conn net.Conn, xid uint32, msg []byte) ([]byte, error) {
	buf := make([]byte, maxReply)
	for {
		if _, err := conn.Write(msg); err != nil {
			return nil, err
		}
		if err := conn.SetReadDeadline(time.Now().Add(udpRetry)); err != nil {
			return nil, err
		}
		for {
			n, err := conn.Read(buf)
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() && ctx.Err() == nil {
				break
			}
			if err != nil {
				return nil, err
			}
			if n >= 4 && binary.BigEndian.Uint32(buf) == xid {
				return buf[:n], nil
			}
		}
	}
}

// parseReply checks the reply's header (RFC 5531, 9): xid, 1 (reply), then
// 0 (accepted), verifier (flavor, length, bytes), status 0 (success), results; or 1 (denied).
func parseReply(xid uint32, b []byte) ([]byte, error) {
	next := func() (uint32, bool) {
		if len(b) < 4 {
			return 0, false
		}
		w := binary.BigEndian.Uint32(b)
		b = b[4:]
		return w, true
	}
	var head [5]uint32
	for i := range head {
		w, ok := next()
		if !ok {
			return nil, ErrMalformed
		}
		head[i] = w
		if i == 2 && w == 1 && head[0] == xid && head[1] == 1 {
			return nil, fmt.Errorf("%w: denied", ErrRejected)
		}
	}
	if head[0] != xid || head[1] != 1 || head[2] != 0 {
		return nil, ErrMalformed
	}
	verifier := (int64(head[4]) + 3) &^ 3
	if verifier > int64(len(b)) {
		return nil, ErrMalformed
	}
	b = b[verifier:]
	status, ok := next()
	if !ok {
		return nil, ErrMalformed
	}
	switch status {
	case 0:
		return b, nil
	case 1:
		return nil, fmt.Errorf("%w: this program is not served there", ErrRejected)
	case 2:
		low, _ := next()
		high, _ := next()
		return nil, fmt.Errorf("%w: versions %d to %d are served", ErrRejected, low, high)
	case 3:
		return nil, fmt.Errorf("%w: no such procedure", ErrRejected)
	case 4:
		return nil, fmt.Errorf("%w: the server could not read the call", ErrRejected)
	case 5:
		return nil, fmt.Errorf("%w: internal error of the server", ErrRejected)
	}
	return nil, ErrMalformed
}
