package rpc

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// answer makes a server's answer to a call, or nothing.
type answer func(call []byte) []byte

// served answers program 100003 version 4 as nfsd does.
func served(call []byte) []byte {
	xid := binary.BigEndian.Uint32(call)
	if binary.BigEndian.Uint32(call[12:]) != NFS {
		return words(xid, 1, 0, 0, 0, 1)
	}
	if v := binary.BigEndian.Uint32(call[16:]); v != 4 {
		return words(xid, 1, 0, 0, 0, 2, 4, 4)
	}
	return words(xid, 1, 0, 0, 0, 0)
}

// tcpServer splits its answers into fragments of the given size.
func tcpServer(t *testing.T, fragment int, f answer) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var mark [4]byte
				if _, err := io.ReadFull(conn, mark[:]); err != nil {
					return
				}
				call := make([]byte, binary.BigEndian.Uint32(mark[:])&^lastFragment)
				if _, err := io.ReadFull(conn, call); err != nil {
					return
				}
				reply := f(call)
				for len(reply) > fragment {
					_, _ = conn.Write(append(words(uint32(fragment)), reply[:fragment]...))
					reply = reply[fragment:]
				}
				if reply != nil {
					_, _ = conn.Write(append(words(lastFragment|uint32(len(reply))), reply...))
				}
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return Target{Network: "tcp", Address: l.Addr().String(), Program: NFS, Version: 4}
}

// udpServer loses the first datagrams.
func udpServer(t *testing.T, lose int, f answer) Target {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1024)
		for i := 0; ; i++ {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if i < lose {
				continue
			}
			// An answer to somebody else's call must be passed over.
			_, _ = conn.WriteTo(words(1, 1, 0, 0, 0, 0), from)
			_, _ = conn.WriteTo(f(buf[:n]), from)
		}
	}()
	return Target{Network: "udp", Address: conn.LocalAddr().String(), Program: NFS, Version: 4}
}

func bounded(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestNullIsAnsweredOverTCPInAnyFragments(t *testing.T) {
	for _, fragment := range []int{3, 4, 23, 4000} {
		require.NoError(t, Null(bounded(t, 10*time.Second), tcpServer(t, fragment, served)))
	}
}

func TestNullIsSentAgainOverUDP(t *testing.T) {
	require.NoError(t, Null(bounded(t, 10*time.Second), udpServer(t, 1, served)))
}

func TestNullTellsRefusalsApart(t *testing.T) {
	target := tcpServer(t, 4000, served)
	other := target
	other.Version = 3
	err := Null(bounded(t, 10*time.Second), other)
	require.ErrorIs(t, err, ErrRejected)
	require.ErrorContains(t, err, "versions 4 to 4 are served")

	other = target
	other.Program = Mount
	require.ErrorContains(t, Null(bounded(t, 10*time.Second), other), "this program is not served there")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	other.Address = l.Addr().String()
	require.NoError(t, l.Close())
	require.ErrorIs(t, Null(bounded(t, 10*time.Second), other), syscall.ECONNREFUSED)
}

func TestASilentServerIsGivenUpAtTheDeadline(t *testing.T) {
	silent := func([]byte) []byte { return nil }
	err := Null(bounded(t, 50*time.Millisecond), tcpServer(t, 4000, silent))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	err = Null(bounded(t, 50*time.Millisecond), udpServer(t, 1000, silent))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAnswersThatAreNoAnswer(t *testing.T) {
	for name, f := range map[string]answer{
		"empty":            func([]byte) []byte { return []byte{} },
		"another call's":   func([]byte) []byte { return words(1, 1, 0, 0, 0, 0) },
		"a call":           func(c []byte) []byte { return c },
		"cut":              func(c []byte) []byte { return served(c)[:22] },
		"verifier too big": func(c []byte) []byte { return words(binary.BigEndian.Uint32(c), 1, 0, 0, 0xfffffffd, 0) },
		"unknown status":   func(c []byte) []byte { return words(binary.BigEndian.Uint32(c), 1, 0, 0, 0, 9) },
		"enormous":         func([]byte) []byte { return make([]byte, maxReply+1) },
	} {
		require.ErrorIs(t, Null(bounded(t, 10*time.Second), tcpServer(t, 1<<20, f)), ErrMalformed, name)
	}
	denied := func(c []byte) []byte { return words(binary.BigEndian.Uint32(c), 1, 1, 0, 2, 2) }
	require.ErrorIs(t, Null(bounded(t, 10*time.Second), tcpServer(t, 1<<20, denied)), ErrRejected)
}

func TestGetPortReadsTheMappersAnswer(t *testing.T) {
	mapper := tcpServer(t, 4000, func(call []byte) []byte {
		xid := binary.BigEndian.Uint32(call)
		args := call[40:]
		if binary.BigEndian.Uint32(args) == Mount && binary.BigEndian.Uint32(args[8:]) == 6 {
			return words(xid, 1, 0, 0, 0, 0, 20048)
		}
		return words(xid, 1, 0, 0, 0, 0, 0)
	})
	port, err := getPortAt(bounded(t, 10*time.Second), mapper, 3, words(Mount, 3, 6, 0))
	require.NoError(t, err)
	require.Equal(t, 20048, port)
	port, err = getPortAt(bounded(t, 10*time.Second), mapper, 3, words(Status, 1, 6, 0))
	require.NoError(t, err)
	require.Zero(t, port)
}

func FuzzParseReply(f *testing.F) {
	f.Add(uint32(7), words(7, 1, 0, 0, 0, 0))
	f.Add(uint32(7), words(7, 1, 0, 0, 5, 0, 0, 0))
	f.Fuzz(func(_ *testing.T, xid uint32, b []byte) { _, _ = parseReply(xid, b) })
}
