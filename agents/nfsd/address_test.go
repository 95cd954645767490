package main

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/addresses"
	"baton/agents/internal/netnstest"
)

func TestAnAddressThatCanBeBoundIsNotAlwaysHere(t *testing.T) {
	node := netnstest.New(t, "node")
	node.Sysctl(t, "ipv4/ip_nonlocal_bind", "1") // as haproxy and keepalived want it
	a := system{root: t.TempDir()}.agent(callWith(t, newMachine(t)))
	service := netip.MustParseAddr("192.0.2.50")
	tentative := netip.MustParseAddr("2001:db8::50")
	node.Do(t, func() {
		conn, err := net.ListenPacket("udp", "192.0.2.50:0")
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.False(t, a.hasAddress(service))

		require.NoError(t, addresses.Add(addresses.Addr{IP: service, Bits: 24, Index: 1, Preferred: addresses.Forever, Valid: addresses.Forever}))
		require.True(t, a.hasAddress(service))
		require.True(t, a.hasAddress(netip.MustParseAddr("::ffff:192.0.2.50")))
	})
	peer := netnstest.New(t, "peer")
	node.Veth(t, "eth0", peer, "eth0")
	node.Sysctl(t, "ipv6/conf/eth0/dad_transmits", "20") // 20 s
	node.Do(t, func() {
		link, err := net.InterfaceByName("eth0")
		require.NoError(t, err)
		require.NoError(t, addresses.Add(addresses.Addr{IP: tentative, Bits: 64, Index: link.Index, Preferred: addresses.Forever, Valid: addresses.Forever}))
		require.False(t, a.hasAddress(tentative), "duplicate address detection is not over")
	})
}
