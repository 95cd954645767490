package addresses

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"baton/agents/internal/netnstest"
)

// pair is a host with eth0 and a neighbor with eth0 at the other end.
func pair(t *testing.T) (host, peer *netnstest.NS) {
	t.Helper()
	host, peer = netnstest.New(t, "host"), netnstest.New(t, "peer")
	host.Veth(t, "eth0", peer, "eth0")
	return host, peer
}

func index(t *testing.T, name string) int {
	t.Helper()
	l, err := LinkByName(name)
	require.NoError(t, err)
	return l.Index
}

func TestLinksAreFoundByNameAlternativeNameAndIndex(t *testing.T) {
	host, _ := pair(t)
	host.Do(t, func() {
		l, err := LinkByName("eth0")
		require.NoError(t, err)
		require.Equal(t, host.MAC(t, "eth0"), l.HardwareAddr.String())
		require.True(t, l.CanAnnounce())
		byIndex, err := LinkByIndex(l.Index)
		require.NoError(t, err)
		require.Equal(t, l.Name, byIndex.Name)
		lo, err := LinkByName("lo")
		require.NoError(t, err)
		require.True(t, lo.IsLoopback())
		require.Empty(t, lo.Trouble())
		require.False(t, lo.CanAnnounce())
	})
}

func TestMissingLinksAreErrNoLinkWhateverTheirNames(t *testing.T) {
	host, _ := pair(t)
	host.Do(t, func() {
		for _, name := range []string{"eth1", "", "../eth0", "a name with blanks and more than sixteen characters", string(make([]byte, 300)), "eth0\x00"} {
			_, err := LinkByName(name)
			if name == "eth0\x00" {
				continue // the kernel ends the name there
			}
			require.ErrorIs(t, err, ErrNoLink, "%q", name)
		}
		_, err := LinkByIndex(4711)
		require.ErrorIs(t, err, ErrNoLink)
	})
}

func TestLinkLosesAndRegainsItsCarrierAndWaitWakesUp(t *testing.T) {
	host, peer := pair(t)
	host.Do(t, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		waitFor := func(trouble string) {
			t.Helper()
			require.NoError(t, Wait(ctx, func() (bool, error) {
				l, err := LinkByName("eth0")
				return err == nil && l.Trouble() == trouble, err
			}))
		}
		waitFor("")
		go peer.Down(t, "eth0")
		waitFor("has no carrier")
		go peer.Up(t, "eth0")
		waitFor("")
		go host.Down(t, "eth0")
		waitFor("is down")
	})
}

func TestWaitEndsWithItsContextAndWithTheCheck(t *testing.T) {
	host := netnstest.New(t, "host")
	host.Do(t, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, Wait(ctx, func() (bool, error) { return false, nil }), context.DeadlineExceeded)
		wrong := errors.New("wrong")
		require.ErrorIs(t, Wait(t.Context(), func() (bool, error) { return false, wrong }), wrong)
		require.NoError(t, Wait(t.Context(), func() (bool, error) { return true, nil }))
	})
}

func TestAddFindUpdateRemove(t *testing.T) {
	for _, c := range []struct {
		name  string
		addr  Addr
		shown []string
	}{
		{"IPv4", Addr{IP: ip("192.0.2.50"), Bits: 24, Label: "eth0", Broadcast: ip("192.0.2.255"), Preferred: Forever, Valid: Forever}, []string{"192.0.2.50/24 eth0"}},
		{"IPv4 with a label", Addr{IP: ip("192.0.2.50"), Bits: 24, Label: "eth0:vip", Preferred: Forever, Valid: Forever}, []string{"192.0.2.50/24 eth0:vip"}},
		{"IPv6", Addr{IP: ip("2001:db8::50"), Bits: 64, Flags: FlagNoDAD | FlagNoPrefixRoute, Preferred: Forever, Valid: Forever}, []string{"2001:db8::50/64"}},
		{"IPv6, deprecated", Addr{IP: ip("2001:db8::50"), Bits: 64, Flags: FlagNoDAD, Valid: Forever}, []string{"2001:db8::50/64 deprecated"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, _ := pair(t)
			host.Do(t, func() {
				a := c.addr
				a.Index = index(t, "eth0")
				require.NoError(t, Add(a))
				require.Equal(t, c.shown, host.Addrs(t, "eth0", false))
				require.ErrorIs(t, Add(a), unix.EEXIST)

				found, err := Find(a.IP)
				require.NoError(t, err)
				require.Len(t, found, 1)
				require.Equal(t, a.String(), found[0].String())
				require.Equal(t, a.Index, found[0].Index)
				require.Equal(t, a.Flags&FlagNoPrefixRoute, found[0].Flags&FlagNoPrefixRoute)
				require.Equal(t, a.Broadcast, found[0].Broadcast)
				require.Equal(t, a.Preferred, found[0].Preferred)

				require.NoError(t, Remover{}.Remove(found[0]))
				require.NoError(t, Remover{}.Remove(found[0]), "gone already")
				require.Empty(t, host.Addrs(t, "eth0", false))
			})
		})
	}
}

func TestUpdateChangesTheLifetimeInPlace(t *testing.T) {
	host, _ := pair(t)
	host.Do(t, func() {
		a := Addr{IP: ip("2001:db8::50"), Bits: 64, Index: index(t, "eth0"), Flags: FlagNoDAD, Preferred: Forever, Valid: Forever}
		require.NoError(t, Add(a))
		a.Preferred = 0
		require.NoError(t, Update(a))
		require.Equal(t, []string{"2001:db8::50/64 deprecated"}, host.Addrs(t, "eth0", false))
		a.Preferred = Forever
		require.NoError(t, Update(a))
		require.Equal(t, []string{"2001:db8::50/64"}, host.Addrs(t, "eth0", false))
	})
}

func TestRemoveOfAnAddressWhoseInterfaceVanishedIsDone(t *testing.T) {
	host, _ := pair(t)
	host.Do(t, func() {
		a := Addr{IP: ip("192.0.2.50"), Bits: 24, Index: index(t, "eth0")}
		require.NoError(t, Add(a))
		host.Delete(t, "eth0")
		require.NoError(t, Remover{}.Remove(a))
	})
}

func TestRemoveOfAPrimaryKeepsItsSecondaries(t *testing.T) {
	sysctl := "/proc/sys/net/ipv4/conf/eth0/promote_secondaries"
	for _, c := range []struct{ name, setting, root string }{
		{"promotion off", "0", ""},
		{"promotion on", "1", ""},
		{"settings read-only: what is lost is put back", "0", "/proc/none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, _ := pair(t)
			host.Sysctl(t, "ipv4/conf/eth0/promote_secondaries", c.setting)
			host.Do(t, func() {
				i := index(t, "eth0")
				vip := Addr{IP: ip("192.0.2.50"), Bits: 24, Index: i, Label: "eth0"}
				require.NoError(t, Add(vip)) // first, so it is primary
				require.NoError(t, Add(Addr{IP: ip("192.0.2.1"), Bits: 24, Index: i, Label: "eth0", Broadcast: ip("192.0.2.255")}))
				require.NoError(t, Add(Addr{IP: ip("192.0.2.51"), Bits: 24, Index: i, Label: "eth0:two"}))
				require.NoError(t, Add(Addr{IP: ip("198.51.100.1"), Bits: 24, Index: i, Label: "eth0"}))

				require.NoError(t, Remover{Sysctl: c.root}.Remove(vip))

				require.ElementsMatch(t, []string{
					"198.51.100.1/24 eth0", "192.0.2.1/24 eth0", "192.0.2.51/24 eth0:two secondary",
				}, host.Addrs(t, "eth0", false))
				routes, err := OnLink(vip.IP)
				require.NoError(t, err)
				found, err := Choose(Wanted{IP: ip("192.0.2.99")}, routes, nil)
				require.NoError(t, err, "the route of the network must live on")
				require.Equal(t, i, found.Index)
				now, err := os.ReadFile(sysctl)
				require.NoError(t, err)
				require.Equal(t, c.setting+"\n", string(now), "the setting must be as before")
			})
		})
	}
}

func TestTwoRemovalsAtOnceKeepTheOthersAndTheSetting(t *testing.T) {
	host, _ := pair(t)
	host.Do(t, func() {
		i := index(t, "eth0")
		a := Addr{IP: ip("192.0.2.50"), Bits: 24, Index: i, Label: "eth0"}
		b := Addr{IP: ip("198.51.100.50"), Bits: 24, Index: i, Label: "eth0"}
		for _, x := range []Addr{a, b} {
			require.NoError(t, Add(x))
		}
		require.NoError(t, Add(Addr{IP: ip("192.0.2.1"), Bits: 24, Index: i, Label: "eth0"}))
		require.NoError(t, Add(Addr{IP: ip("198.51.100.1"), Bits: 24, Index: i, Label: "eth0"}))
		var wg sync.WaitGroup
		for _, x := range []Addr{a, b} {
			wg.Go(func() {
				host.Do(t, func() {
					if err := (Remover{}).Remove(x); err != nil {
						t.Error(err)
					}
				})
			})
		}
		wg.Wait()
		require.ElementsMatch(t, []string{"192.0.2.1/24 eth0", "198.51.100.1/24 eth0"}, host.Addrs(t, "eth0", false))
		now, err := os.ReadFile("/proc/sys/net/ipv4/conf/eth0/promote_secondaries")
		require.NoError(t, err)
		require.Equal(t, "0\n", string(now))
	})
}

func TestDuplicateAddressDetectionIsSeenByEvents(t *testing.T) {
	host, peer := pair(t)
	peer.AddAddr(t, "eth0", "2001:db8::51/64")
	host.Do(t, func() {
		i := index(t, "eth0")
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		require.NoError(t, Wait(ctx, func() (bool, error) {
			l, err := LinkByName("eth0")
			return err == nil && l.Trouble() == "", err
		}))
		outcome := func(s string) uint32 {
			require.NoError(t, Add(Addr{IP: ip(s), Bits: 64, Index: i, Preferred: Forever, Valid: Forever}))
			var flags uint32
			require.NoError(t, Wait(ctx, func() (bool, error) {
				found, err := Find(ip(s))
				if err != nil || len(found) != 1 {
					return false, err
				}
				flags = found[0].Flags
				return flags&FlagTentative == 0 || flags&FlagDADFailed != 0, nil
			}))
			return flags & (FlagTentative | FlagDADFailed)
		}
		require.Equal(t, uint32(0), outcome("2001:db8::50"))
		require.NotZero(t, outcome("2001:db8::51")&FlagDADFailed, "the peer has it")
	})
}

func TestOnLinkShowsTheNetworksOfBothFamilies(t *testing.T) {
	host, _ := pair(t)
	host.AddAddr(t, "eth0", "192.0.2.1/24")
	host.AddAddr(t, "eth0", "2001:db8::1/64")
	host.Do(t, func() {
		i := index(t, "eth0")
		for _, c := range []struct{ vip, want string }{{"192.0.2.50", "192.0.2.50/24"}, {"2001:db8::50", "2001:db8::50/64"}, {"127.0.0.3", "127.0.0.3/8"}} {
			routes, err := OnLink(ip(c.vip))
			require.NoError(t, err)
			a, err := Choose(Wanted{IP: ip(c.vip)}, routes, nil)
			require.NoError(t, err)
			require.Equal(t, c.want, a.String())
			if c.vip != "127.0.0.3" {
				require.Equal(t, i, a.Index)
			}
		}
	})
}

func TestEnterNamespaceMovesOnlyTheCallingGoroutine(t *testing.T) {
	host, _ := pair(t)
	dir := t.TempDir()
	host.Bind(t, filepath.Join(dir, "blue"))
	type answer struct {
		err  error
		name string
	}
	done := make(chan answer)
	go func() {
		err := EnterNamespace(dir, "blue")
		l, lerr := LinkByName("eth0")
		done <- answer{errors.Join(err, lerr), l.HardwareAddr.String()}
	}()
	got := <-done
	require.NoError(t, got.err)
	require.Equal(t, host.MAC(t, "eth0"), got.name)
	require.ErrorIs(t, EnterNamespace(dir, "red"), os.ErrNotExist)
	require.Error(t, EnterNamespace("/proc/self", "environ"), "a file that is no namespace")
}
