package addresses

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func ip(s string) netip.Addr        { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix  { return netip.MustParsePrefix(s) }
func route(dst string, i int) Route { return Route{Dst: prefix(dst), Index: i, Protocol: 2} }

// own is an address as List shows it, on interface i.
func own(cidr string, i int, flags uint32) Addr {
	p := prefix(cidr)
	a := Addr{IP: p.Addr(), Bits: p.Bits(), Index: i, Flags: flags}
	if p.Addr().Is4() && p.Bits() < 31 {
		a.Broadcast = lastOf(p.Masked())
	}
	return a
}

func TestChooseFindsInterfacePrefixAndBroadcastAsFindifDoes(t *testing.T) {
	const eth0, eth1, lo = 2, 3, 1
	host := []Addr{
		own("192.168.144.1/24", eth0, 0),
		own("10.0.0.1/8", eth1, 0),
		{IP: ip("127.0.0.1"), Bits: 8, Index: lo}, // lo has no broadcast address
	}
	routes := []Route{
		route("192.168.144.0/24", eth0),
		route("10.0.0.0/8", eth1),
		{Dst: prefix("127.0.0.0/8"), Index: lo, Local: true},
		{Dst: prefix("127.0.0.1/32"), Index: lo, Local: true},
		{Dst: prefix("192.168.144.1/32"), Index: eth0, Local: true},
		route("fe80::/64", eth0),
		route("fe80::/64", eth1),
		route("2001:db8:1234::/64", eth0),
		{Dst: prefix("2001:db8:1234:0:1::/80"), Index: eth1, Protocol: 2, Metric: 100},
	}
	for _, c := range []struct {
		name string
		want Wanted
		addr string // "IP/bits index broadcast metric"; "" for none
	}{
		{"address only", Wanted{IP: ip("192.168.144.50")}, "192.168.144.50/24 2 192.168.144.255 0"},
		{"most specific network wins", Wanted{IP: ip("10.1.2.3")}, "10.1.2.3/8 3 10.255.255.255 0"},
		{"interface given", Wanted{IP: ip("192.168.144.50"), Index: eth0}, "192.168.144.50/24 2 192.168.144.255 0"},
		{"network on another interface", Wanted{IP: ip("192.168.144.50"), Index: eth1}, ""},
		{"prefix as the network's", Wanted{IP: ip("192.168.144.50"), Bits: 24}, "192.168.144.50/24 2 192.168.144.255 0"},
		{"narrower prefix than the network's", Wanted{IP: ip("192.168.144.50"), Bits: 25}, "192.168.144.50/25 2 none 0"},
		{"wider prefix than the network's", Wanted{IP: ip("192.168.144.50"), Bits: 16}, ""},
		{"interface and prefix are taken as given", Wanted{IP: ip("203.0.113.9"), Index: eth1, Bits: 28}, "203.0.113.9/28 3 none 0"},
		{"no network", Wanted{IP: ip("203.0.113.9")}, ""},
		{"broadcast computed", Wanted{IP: ip("203.0.113.9"), Index: eth1, Bits: 28, Broadcast: Broadcast{Mode: BroadcastComputed}}, "203.0.113.9/28 3 203.0.113.15 0"},
		{"broadcast given", Wanted{IP: ip("192.168.144.50"), Broadcast: Broadcast{Mode: BroadcastFixed, Addr: ip("192.168.144.254")}}, "192.168.144.50/24 2 192.168.144.254 0"},
		{"broadcast refused", Wanted{IP: ip("192.168.144.50"), Broadcast: Broadcast{Mode: BroadcastNone}}, "192.168.144.50/24 2 none 0"},
		{"host prefix has no broadcast", Wanted{IP: ip("192.168.144.50"), Bits: 32, Broadcast: Broadcast{Mode: BroadcastComputed}}, "192.168.144.50/32 2 none 0"},
		{"loopback by the local table", Wanted{IP: ip("127.0.0.3")}, "127.0.0.3/8 1 none 0"},
		{"own address is no network", Wanted{IP: ip("192.168.144.1"), Bits: 32}, "192.168.144.1/32 2 none 0"},
		{"route protocol that does not match", Wanted{IP: ip("192.168.144.50"), Protocol: 4}, ""},
		{"IPv6", Wanted{IP: ip("2001:db8:1234::50")}, "2001:db8:1234::50/64 2 none 0"},
		{"IPv6, more specific, with its metric", Wanted{IP: ip("2001:db8:1234:0:1::5")}, "2001:db8:1234:0:1::5/80 3 none 100"},
		{"link-local with its interface", Wanted{IP: ip("fe80::50"), Index: eth1}, "fe80::50/64 3 none 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := Choose(c.want, routes, host)
			if c.addr == "" {
				require.ErrorIs(t, err, ErrNoNetwork)
				require.ErrorContains(t, err, c.want.IP.String())
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.addr, show(a))
			require.Equal(t, []uint32{Forever, Forever}, []uint32{a.Preferred, a.Valid})
		})
	}
}

func show(a Addr) string {
	brd := "none"
	if a.Broadcast.IsValid() {
		brd = a.Broadcast.String()
	}
	return fmt.Sprintf("%v %d %s %d", a, a.Index, brd, a.Metric)
}

func TestChooseAmongEqualRoutesIsStable(t *testing.T) {
	w := Wanted{IP: ip("192.0.2.50")}
	dead := Route{Dst: prefix("192.0.2.0/24"), Index: 2, Dead: true}
	dear := Route{Dst: prefix("192.0.2.0/24"), Index: 3, Metric: 200}
	a, b := Route{Dst: prefix("192.0.2.0/24"), Index: 4, Metric: 100}, Route{Dst: prefix("192.0.2.0/24"), Index: 5, Metric: 100}
	for _, routes := range [][]Route{{dead, dear, a, b}, {b, a, dear, dead}, {dear, b, dead, a}} {
		got, err := Choose(w, routes, nil)
		require.NoError(t, err)
		require.Equal(t, 4, got.Index, "a live link, then the lower metric, then the lower number, in any order")
	}
	got, err := Choose(w, []Route{dead}, nil)
	require.NoError(t, err)
	require.Equal(t, 2, got.Index, "a dead link is better than none: the start says what is wrong with it")
}

func TestChooseScopes(t *testing.T) {
	for _, c := range []struct {
		ip    string
		bits  int
		scope uint8
	}{{"192.0.2.1", 24, 0}, {"127.0.0.3", 8, scopeHost}, {"fe80::1", 64, scopeLink}, {"169.254.1.1", 16, 0}, {"2001:db8::1", 64, 0}} {
		a, err := Choose(Wanted{IP: ip(c.ip), Index: 1, Bits: c.bits}, nil, nil)
		require.NoError(t, err)
		require.Equal(t, c.scope, a.Scope, c.ip)
	}
}

func TestDependentsAreWhatTheKernelDropsWithAPrimary(t *testing.T) {
	all := []Addr{
		own("192.0.2.50/24", 2, FlagPermanent),
		own("198.51.100.1/24", 2, FlagPermanent),
		own("192.0.2.51/24", 2, FlagPermanent|FlagSecondary),
		own("192.0.2.52/25", 2, FlagPermanent|FlagSecondary), // another mask
		own("192.0.2.53/24", 3, FlagPermanent|FlagSecondary), // another interface
		own("192.0.2.54/24", 2, FlagPermanent|FlagSecondary),
	}
	names := func(a Addr) (list []string) {
		for _, d := range dependents(a, all) {
			list = append(list, d.String())
		}
		return list
	}
	require.Equal(t, []string{"192.0.2.51/24", "192.0.2.54/24"}, names(all[0]), "the primary takes its secondaries with it")
	require.Empty(t, names(all[1]), "alone in its network")
	require.Empty(t, names(all[2]), "a secondary takes nobody with it")
	require.Empty(t, names(own("192.0.2.99/24", 2, 0)), "not there")
}
