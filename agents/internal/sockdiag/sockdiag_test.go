package sockdiag

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sort"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"baton/agents/internal/netnstest"
)

// pair is a server and a client namespace with the address on the server's side.
func pair(t *testing.T, addrs ...string) (server, client *netnstest.NS) {
	t.Helper()
	server, client = netnstest.New(t, "server"), netnstest.New(t, "client")
	server.Veth(t, "eth0", client, "eth0")
	for _, a := range addrs {
		server.AddAddr(t, "eth0", a)
	}
	client.AddAddr(t, "eth0", "192.0.2.7/24")
	client.AddAddr(t, "eth0", "2001:db8::7/64")
	return server, client
}

// listen opens a listener in the namespace; network is tcp4, tcp6 or tcp (dual stack).
func listen(t *testing.T, ns *netnstest.NS, network, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	ns.Do(t, func() {
		var err error
		l, err = net.Listen(network, addr)
		require.NoError(t, err)
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial connects and returns both ends.
func dial(t *testing.T, client *netnstest.NS, l net.Listener, to string) (near, far net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
		close(accepted)
	}()
	client.Do(t, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var err error
		near, err = (&net.Dialer{}).DialContext(ctx, "tcp", to)
		require.NoError(t, err)
	})
	far = <-accepted
	require.NotNil(t, far)
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

// list is List inside a namespace, as sorted strings.
func list(t *testing.T, ns *netnstest.NS, f Filter) (found []string) {
	t.Helper()
	ns.Do(t, func() {
		sockets, err := List(f)
		require.NoError(t, err)
		for _, s := range sockets {
			found = append(found, s.String())
		}
	})
	sort.Strings(found)
	return found
}

func TestListFindsTheConnectionsOfOneAddressInBothFamilies(t *testing.T) {
	server, client := pair(t, "192.0.2.50/24", "192.0.2.51/24", "2001:db8::50/64")
	dual := listen(t, server, "tcp", ":2049") // shows IPv4 as ::ffff:…
	v4 := listen(t, server, "tcp4", "192.0.2.50:80")
	a, _ := dial(t, client, dual, "192.0.2.50:2049")
	b, _ := dial(t, client, v4, "192.0.2.50:80")
	_, _ = dial(t, client, dual, "192.0.2.51:2049")
	d, _ := dial(t, client, dual, "[2001:db8::50]:2049")

	want := []string{
		"ESTAB 192.0.2.50:2049 " + a.LocalAddr().String(),
		"ESTAB 192.0.2.50:80 " + b.LocalAddr().String(),
	}
	sort.Strings(want)
	require.Equal(t, want, list(t, server, Filter{Local: netip.MustParseAddr("192.0.2.50")}))
	require.Equal(t, []string{"ESTAB [2001:db8::50]:2049 " + d.LocalAddr().String()},
		list(t, server, Filter{Local: netip.MustParseAddr("2001:db8::50")}))
	require.Equal(t, []string{"ESTAB 192.0.2.50:80 " + b.LocalAddr().String()},
		list(t, server, Filter{Local: netip.MustParseAddr("192.0.2.50"), Port: 80}))
	require.Empty(t, list(t, server, Filter{Local: netip.MustParseAddr("192.0.2.99")}))
	require.Equal(t, []string{"LISTEN [::]:2049 [::]:0"}, list(t, server, Filter{Port: 2049, States: Set(Listen)}))
	require.Len(t, list(t, server, Filter{}), 4, "no filter, all connections")
}

func TestDestroyAllEndsConnectionsAtBothEndsAndSparesListenersAndOthers(t *testing.T) {
	for _, c := range []struct{ name, network, listen, vip, cidr, other string }{
		{"IPv4", "tcp4", "192.0.2.50:80", "192.0.2.50", "192.0.2.50/24", "192.0.2.51"},
		{"IPv4 on a dual-stack socket", "tcp", ":80", "192.0.2.50", "192.0.2.50/24", "192.0.2.51"},
		{"IPv6", "tcp6", "[2001:db8::50]:80", "2001:db8::50", "2001:db8::50/64", "2001:db8::51"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, client := pair(t, c.cidr, "192.0.2.51/24", "2001:db8::51/64")
			l := listen(t, server, c.network, c.listen)
			near, far := dial(t, client, l, net.JoinHostPort(c.vip, "80"))
			other := listen(t, server, "tcp", ":81")
			otherNear, otherFar := dial(t, client, other, net.JoinHostPort(c.other, "81"))

			server.Do(t, func() {
				n, err := DestroyAll(Filter{Local: netip.MustParseAddr(c.vip)})
				require.NoError(t, err)
				require.Equal(t, 1, n)
			})

			require.NoError(t, far.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err := far.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNABORTED, "the server's end")
			require.NoError(t, near.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err = near.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET, "the client's end, while the address still exists")
			require.Empty(t, list(t, server, Filter{Local: netip.MustParseAddr(c.vip)}))

			_, err = otherNear.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, otherFar.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err = otherFar.Read(make([]byte, 1))
			require.NoError(t, err, "a connection of another address must live on")
			_, _ = dial(t, client, l, net.JoinHostPort(c.vip, "80")) // the listener lives on
		})
	}
}

func TestDestroyOfASocketThatHasGoneIsNoError(t *testing.T) {
	server, client := pair(t, "192.0.2.50/24")
	l := listen(t, server, "tcp4", ":80")
	dial(t, client, l, "192.0.2.50:80")
	server.Do(t, func() {
		sockets, err := List(Filter{Local: netip.MustParseAddr("192.0.2.50")})
		require.NoError(t, err)
		require.Len(t, sockets, 1)
		require.NoError(t, Destroy(sockets[0]))
		require.NoError(t, Destroy(sockets[0]))
	})
}

func TestConnectionsOfAnAddressThatHasGoneAreStillFoundAndEnded(t *testing.T) {
	server, client := pair(t, "192.0.2.50/24", "192.0.2.51/24")
	l := listen(t, server, "tcp4", ":80")
	_, far := dial(t, client, l, "192.0.2.50:80")
	server.Sysctl(t, "ipv4/conf/eth0/promote_secondaries", "1")
	server.DelAddr(t, "eth0", "192.0.2.50/24")

	server.Do(t, func() {
		n, err := DestroyAll(Filter{Local: netip.MustParseAddr("192.0.2.50")})
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
	require.NoError(t, far.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err := far.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNABORTED)
}

func TestErrorsNameOperationAndObjectAndUnwrap(t *testing.T) {
	err := error(&Error{Op: "destroy", Object: "ESTAB 192.0.2.50:80 192.0.2.7:1234", Err: errors.Join(ErrUnsupported, unix.EOPNOTSUPP)})
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorIs(t, err, unix.EOPNOTSUPP)
	require.ErrorContains(t, err, "destroy tcp sockets ESTAB 192.0.2.50:80 192.0.2.7:1234")
}

func TestDestroyWithoutPrivilegeSaysSo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to have something to give up")
	}
	server, client := pair(t, "192.0.2.50/24")
	l := listen(t, server, "tcp4", ":80")
	dial(t, client, l, "192.0.2.50:80")
	server.Do(t, func() {
		sockets, err := List(Filter{Local: netip.MustParseAddr("192.0.2.50")})
		require.NoError(t, err)
		require.Len(t, sockets, 1)
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var before, none [2]unix.CapUserData
		require.NoError(t, unix.Capget(&hdr, &before[0])) // of this thread only
		none = before
		none[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		require.NoError(t, unix.Capset(&hdr, &none[0]))
		err = Destroy(sockets[0])
		require.NoError(t, unix.Capset(&hdr, &before[0]))
		require.ErrorIs(t, err, unix.EPERM)
	})
}
