package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/rpc"
)

// lockClient is a client's port mapper and statd, in one socket.
type lockClient struct {
	port uint16

	mu      sync.Mutex
	notices []notice
}

type notice struct {
	from, name string
	state      uint32
}

func newLockClient(t *testing.T) *lockClient {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	c := &lockClient{port: netip.MustParseAddrPort(conn.LocalAddr().String()).Port()}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(c.answer(buf[:n], from.Addr()), from)
		}
	}()
	return c
}

func (c *lockClient) answer(call []byte, from netip.Addr) []byte {
	reply := append([]byte{}, call[:4]...)
	for _, w := range []uint32{1, 0, 0, 0, 0} {
		reply = binary.BigEndian.AppendUint32(reply, w)
	}
	if binary.BigEndian.Uint32(call[12:]) == rpc.Portmapper {
		return binary.BigEndian.AppendUint32(reply, uint32(c.port))
	}
	args := call[40:]
	size := binary.BigEndian.Uint32(args)
	name := string(args[4 : 4+size])
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notices = append(c.notices, notice{from: from.String(), name: name, state: binary.BigEndian.Uint32(args[4+(size+3)/4*4:])})
	return reply
}

// heard is whether the client was told from the address, by this name.
func (c *lockClient) heard(from string, state uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.notices {
		if n == (notice{from, from, state}) {
			return true
		}
	}
	return false
}

func TestLockClientsAreToldFromEachAddressAndThoseNotToldStayOnTheList(t *testing.T) {
	m := newMachine(t)
	client := newLockClient(t)
	second := make(chan struct{})
	s := system{root: m.root, mapper: client.port, up: func(ip netip.Addr) bool {
		if ip == netip.MustParseAddr("127.0.0.2") {
			return true
		}
		select {
		case <-second:
			return true
		default:
			return false
		}
	}}
	lists := filepath.Join(m.root, "data/.nfs/statd")
	m.write("data/.nfs/statd/sm.bak/127.0.0.1", "record\n")
	m.write("data/.nfs/statd/sm.bak/127.0.0.9", "nobody answers there\n")
	m.write("data/.nfs/statd/sm/127.0.0.7", "came after the start\n")
	m.write("data/.nfs/statd/state", "\x07\x00\x00\x00")

	a := s.agentFor(callWith(t, m), "/data/.nfs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan error, 1)
	go func() {
		over <- a.notifyClients(ctx, duty{
			Lists: lists, Notify: true, Retry: 1, Sources: []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")},
		})
	}()
	eventually := func(what string, f func() bool) {
		t.Helper()
		require.Eventually(t, f, 20*time.Second, 5*time.Millisecond, what)
	}
	eventually("a notice from the first address", func() bool { return client.heard("127.0.0.2", 7) })
	require.FileExists(t, filepath.Join(lists, "sm.bak/127.0.0.1"), "it may know the server by the other address")
	require.False(t, client.heard("127.0.0.3", 7), "which is not up yet")
	close(second)
	eventually("a notice from the second address", func() bool { return client.heard("127.0.0.3", 7) })
	eventually("the list without the client", func() bool {
		_, err := os.Lstat(filepath.Join(lists, "sm.bak/127.0.0.1"))
		return errors.Is(err, fs.ErrNotExist)
	})
	cancel() // as stop does
	require.NoError(t, <-over)
	require.FileExists(t, filepath.Join(lists, "sm.bak/127.0.0.9"))
	require.FileExists(t, filepath.Join(lists, "sm/127.0.0.7"))
}

func TestTheListsAreRetiredBeforeStatdStarts(t *testing.T) {
	for _, c := range []struct {
		name, before, after string
	}{
		{"up before", "\x05\x00\x00\x00", "\x07\x00\x00\x00"},
		{"down before", "\x06\x00\x00\x00", "\x07\x00\x00\x00"},
		{"torn", "\x06", "\x01\x00\x00\x00"},
		{"none", "", "\x01\x00\x00\x00"},
	} {
		m := newMachine(t)
		a, w := stateAgent(t, m)
		w.notify = true
		if c.before != "" {
			m.write("data/.nfs/statd/state", c.before)
		}
		m.write("data/.nfs/statd/sm/192.0.2.24", "newest\n")
		m.write("data/.nfs/statd/sm/192.0.2.25.new", "not written in full\n")
		m.write("data/.nfs/statd/sm.bak/192.0.2.24", "older\n")
		m.write("data/.nfs/statd/sm.bak/192.0.2.22", "not told yet\n")
		require.NoError(t, a.prepareLocking(w))
		require.Equal(t, "newest\n", m.read("data/.nfs/statd/sm.bak/192.0.2.24"))
		require.NoFileExists(t, filepath.Join(m.root, "data/.nfs/statd/sm/192.0.2.24"), "statd shall not know it")
		require.Equal(t, c.after, m.read("data/.nfs/statd/state"), c.name)
		hosts, err := a.lockClients(w)
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"192.0.2.24", "192.0.2.22"}, hosts)
	}
}

func TestWithoutNoticesTheListsStayAsTheyAre(t *testing.T) {
	m := newMachine(t)
	a, w := stateAgent(t, m) // notify is false
	m.write("data/.nfs/statd/sm/192.0.2.24", "record\n")
	m.write("data/.nfs/statd/state", "\x05\x00\x00\x00")
	require.NoError(t, a.prepareLocking(w))
	require.Equal(t, "record\n", m.read("data/.nfs/statd/sm/192.0.2.24"))
	require.Equal(t, "\x05\x00\x00\x00", m.read("data/.nfs/statd/state"))
}

func TestTheHelperMarksWhatItStarts(t *testing.T) {
	a := system{root: t.TempDir()}.agentFor(callWith(t, newMachine(t), "nfs_shared_infodir="), "/data/.nfs")
	require.Contains(t, a.runner.Env, ourMark[:len(ourMark)-1])
}
