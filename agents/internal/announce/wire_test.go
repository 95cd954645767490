package announce

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/agents/internal/netnstest"
)

// on names eth0 of the namespace.
func on(t *testing.T, ns *netnstest.NS) Interface {
	t.Helper()
	var i Interface
	ns.Do(t, func() {
		l, err := netlink.LinkByName("eth0")
		require.NoError(t, err)
		i = Interface{Index: l.Attrs().Index, HardwareAddr: l.Attrs().HardwareAddr}
	})
	return i
}

// lan is a switch with two servers and a client.
func lan(t *testing.T) (a, b, client *netnstest.NS) {
	t.Helper()
	sw := netnstest.New(t, "switch")
	a, b, client = netnstest.New(t, "a"), netnstest.New(t, "b"), netnstest.New(t, "client")
	for name, ns := range map[string]*netnstest.NS{"pa": a, "pb": b, "pc": client} {
		sw.Veth(t, name, ns, "eth0")
	}
	sw.Bridge(t, "br0", "pa", "pb", "pc")
	return a, b, client
}

func TestAnnouncementsArriveAsBuiltAndMoveTheNeighborsEntry(t *testing.T) {
	for _, c := range []struct {
		name, vip, own string
		family         int
	}{
		{"IPv4", "192.0.2.50", "192.0.2.7/24", netlink.FAMILY_V4},
		{"IPv6", "2001:db8::50", "2001:db8::7/64", netlink.FAMILY_V6},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _, client := lan(t)
			client.AddAddr(t, "eth0", c.own)
			ip := netip.MustParseAddr(c.vip)
			stale := &netlink.Neigh{IP: ip.AsSlice(), HardwareAddr: net.HardwareAddr(otherMAC[:]), State: netlink.NUD_REACHABLE, Family: c.family}
			client.Do(t, func() {
				stale.LinkIndex = on(t, client).Index
				require.NoError(t, netlink.NeighAdd(stale), "the entry of the node that had the address before")
			})
			seen := client.Capture(t, "eth0")
			want := announcements([6]byte(on(t, a).HardwareAddr), ip, false)

			a.Do(t, func() {
				ann, err := NewAnnouncer(on(t, a), ip, false)
				require.NoError(t, err)
				defer ann.Close()
				require.NoError(t, ann.Announce())
			})

			mine := func(f netnstest.Frame) bool { return f.Source.String() == a.MAC(t, "eth0") && isAnnouncement(f) }
			netnstest.Eventually(t, "all packets arrived", func() bool { return len(seen.Frames(mine)) == len(want) })
			for i, f := range seen.Frames(mine) {
				require.Equal(t, want[i].ethertype, f.Ethertype)
				require.True(t, bytes.Equal(want[i].payload, f.Payload[:len(want[i].payload)]), "packet %d: % x", i, f.Payload)
			}
			client.Do(t, func() {
				netnstest.Eventually(t, "the client's entry has the new hardware address", func() bool {
					list, err := netlink.NeighList(stale.LinkIndex, c.family)
					require.NoError(t, err)
					for _, n := range list {
						if n.IP.Equal(stale.IP) {
							return n.HardwareAddr.String() == a.MAC(t, "eth0")
						}
					}
					return false
				})
			})
		})
	}
}

// isAnnouncement leaves out what the kernels say by themselves on a new link.
func isAnnouncement(f netnstest.Frame) bool {
	return f.Ethertype == unix.ETH_P_ARP ||
		f.Ethertype == unix.ETH_P_IPV6 && len(f.Payload) >= ipv6HeaderLen+ndLen && f.Payload[6] == icmp6 &&
			f.Payload[ipv6HeaderLen] == neighborAdvert && bytes.Equal(f.Payload[ipv6HeaderLen+8:ipv6HeaderLen+24], ip6.AsSlice())
}

var quick = Timing{Count: 3, Wait: 2 * time.Second}

func TestProbeNamesTheHolderAtOnce(t *testing.T) {
	for _, c := range []struct{ name, vip, cidr string }{
		{"IPv4", "192.0.2.50", "192.0.2.50/24"},
		{"IPv6", "2001:db8::50", "2001:db8::50/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, _ := lan(t)
			b.AddAddr(t, "eth0", c.cidr)
			a.Do(t, func() {
				begin := time.Now()
				got, err := Probe(t.Context(), on(t, a), netip.MustParseAddr(c.vip), quick)
				require.NoError(t, err)
				require.NotNil(t, got)
				require.Equal(t, b.MAC(t, "eth0"), got.HardwareAddr.String())
				require.False(t, got.Probing)
				require.Less(t, time.Since(begin), quick.Wait, "an answer ends the wait")
			})
		})
	}
}

func TestProbeFindsNobodyAndTeachesNobody(t *testing.T) {
	for _, vip := range []string{"192.0.2.50", "2001:db8::50"} {
		a, b, client := lan(t)
		b.AddAddr(t, "eth0", "192.0.2.51/24")
		client.AddAddr(t, "eth0", "192.0.2.7/24")
		ip := netip.MustParseAddr(vip)
		seen := client.Capture(t, "eth0")
		want := probe([6]byte(on(t, a).HardwareAddr), ip).payload
		a.Do(t, func() {
			got, err := Probe(t.Context(), on(t, a), ip, Timing{Count: 3, Wait: 90 * time.Millisecond})
			require.NoError(t, err)
			require.Nil(t, got)
		})
		questions := func(f netnstest.Frame) bool { return bytes.HasPrefix(f.Payload, want) }
		netnstest.Eventually(t, "three questions", func() bool { return len(seen.Frames(questions)) == 3 })
		client.Do(t, func() {
			list, err := netlink.NeighList(on(t, client).Index, netlink.FAMILY_ALL)
			require.NoError(t, err)
			for _, n := range list {
				require.False(t, n.IP.Equal(ip.AsSlice()), "a probe must not claim the address")
			}
		})
	}
}

func TestTwoHostsThatProbeAtOnceSeeEachOther(t *testing.T) {
	for _, vip := range []string{"192.0.2.50", "2001:db8::50"} {
		a, b, _ := lan(t)
		ip := netip.MustParseAddr(vip)
		var (
			wg    sync.WaitGroup
			found [2]*Conflict
		)
		for i, ns := range []*netnstest.NS{a, b} {
			wg.Go(func() {
				ns.Do(t, func() {
					var err error
					if found[i], err = Probe(t.Context(), on(t, ns), ip, quick); err != nil {
						t.Error(err)
					}
				})
			})
		}
		wg.Wait()
		require.False(t, found[0] == nil && found[1] == nil, "%s: at least the one that asked first sees the other", vip)
		for i, c := range found {
			if c != nil {
				require.True(t, c.Probing)
				require.Equal(t, []*netnstest.NS{b, a}[i].MAC(t, "eth0"), c.HardwareAddr.String())
			}
		}
	}
}

func TestProbeObeysItsContextAndSaysWhenTheInterfaceIsDown(t *testing.T) {
	a, _, _ := lan(t)
	a.Do(t, func() {
		i := on(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Probe(ctx, i, ip4, quick)
		require.ErrorIs(t, err, context.Canceled)
		a.Down(t, "eth0")
		_, err = Probe(t.Context(), i, ip4, quick)
		require.ErrorIs(t, err, unix.ENETDOWN)
		ann, err := NewAnnouncer(i, ip4, false)
		require.NoError(t, err)
		defer ann.Close()
		require.ErrorIs(t, ann.Announce(), unix.ENETDOWN)
	})
}

func TestTickleMakesAStrandedPeerNoticeAtOnce(t *testing.T) {
	for _, c := range []struct{ name, vip, cidr, own string }{
		{"IPv4", "192.0.2.50", "192.0.2.50/24", "192.0.2.7/24"},
		{"IPv6", "2001:db8::50", "2001:db8::50/64", "2001:db8::7/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, client := lan(t)
			client.AddAddr(t, "eth0", c.own)
			a.AddAddr(t, "eth0", c.cidr)
			vip := netip.MustParseAddr(c.vip)
			var near net.Conn
			a.Do(t, func() {
				l, err := net.Listen("tcp", net.JoinHostPort(c.vip, "2049"))
				require.NoError(t, err)
				t.Cleanup(func() { _ = l.Close() })
			})
			client.Do(t, func() {
				var err error
				near, err = net.DialTimeout("tcp", net.JoinHostPort(c.vip, "2049"), 5*time.Second)
				require.NoError(t, err)
				t.Cleanup(func() { _ = near.Close() })
			})

			a.Down(t, "eth0") // the node dies without a word
			b.AddAddr(t, "eth0", c.cidr)
			b.Do(t, func() {
				ann, err := NewAnnouncer(on(t, b), vip, false)
				require.NoError(t, err)
				defer ann.Close()
				require.NoError(t, ann.Announce())
				tickler, err := NewTickler(vip, 0)
				require.NoError(t, err)
				defer tickler.Close()
				require.NoError(t, tickler.Tickle(2049, near.LocalAddr().(*net.TCPAddr).AddrPort()))
			})

			// The client sends nothing by itself: without the tickle it would wait for ever.
			require.NoError(t, near.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err := near.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET)
		})
	}
}

func TestTicklerNeedsTheAddressHere(t *testing.T) {
	a, _, _ := lan(t)
	a.Do(t, func() {
		for _, ip := range []netip.Addr{ip4, ip6} {
			_, err := NewTickler(ip, 0)
			require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
			require.ErrorContains(t, err, ip.String())
		}
	})
}
