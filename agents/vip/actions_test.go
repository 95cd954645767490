package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"baton/agents/internal/netnstest"
)

func TestLifeOfAnAddress(t *testing.T) {
	t.Parallel()
	for _, f := range bothFamilies {
		t.Run(f.name, func(t *testing.T) {
			n, _ := single(t)
			before := n.Addrs(t, "eth0", false)
			n.want(7, "probe", f.param)
			n.want(0, "stop", f.param)
			n.want(0, "start", f.param)
			require.Contains(t, strings.Join(n.Addrs(t, "eth0", false), "\n"), f.cidr)
			n.want(0, "probe", f.param)
			n.want(0, "monitor", f.param)
			n.want(0, "start", f.param)
			n.want(0, "monitor", f.param)
			n.want(0, "stop", f.param)
			n.want(7, "probe", f.param)
			n.want(0, "stop", f.param)
			require.Equal(t, before, n.Addrs(t, "eth0", false), "nothing else may have changed")
		})
	}
}

func TestStartFindsInterfacePrefixAndBroadcast(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		params []string
		nic    string
		shown  string
	}{
		{"address only", []string{"ip=192.0.2.50"}, "eth0", "192.0.2.50/24 eth0 secondary"},
		{"other network, other interface", []string{"ip=198.51.100.50"}, "eth1", "198.51.100.50/25 eth1 secondary"},
		{"prefix given", []string{"ip=192.0.2.50", "cidr_netmask=32"}, "eth0", "192.0.2.50/32 eth0"},
		{"netmask given by its alias", []string{"ip=192.0.2.50", "netmask=255.255.255.0"}, "eth0", "192.0.2.50/24 eth0 secondary"},
		{"foreign address on a given place", []string{"ip=203.0.113.5", "nic=eth1", "cidr_netmask=28"}, "eth1", "203.0.113.5/28 eth1"},
		{"label", []string{"ip=192.0.2.50", "iflabel=web"}, "eth0", "192.0.2.50/24 eth0:web secondary"},
		{"label in nic", []string{"ip=192.0.2.50", "nic=eth0:web"}, "eth0", "192.0.2.50/24 eth0:web secondary"},
		{"loopback", []string{"ip=127.0.0.3"}, "lo", "127.0.0.3/8 lo secondary"},
		{"IPv6", []string{"ip=2001:db8::50"}, "eth0", "2001:db8::50/64"},
		{"IPv6 written long", []string{"ip=2001:0DB8:0:0:0:0:0:0050"}, "eth0", "2001:db8::50/64"},
		{"IPv6 without preference", []string{"ip=2001:db8::50", "preferred_lft=0", "nodad=true"}, "eth0", "2001:db8::50/64 deprecated"},
		{"alternative name", []string{"ip=192.0.2.50", "nic=lan"}, "eth0", "192.0.2.50/24 eth0 secondary"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, peer := single(t)
			n.Veth(t, "eth1", peer, "eth1")
			n.AddAddr(t, "eth1", "198.51.100.1/25")
			n.AltName(t, "eth0", "lan")
			n.want(0, "start", c.params...)
			require.Contains(t, n.Addrs(t, c.nic, false), c.shown)
			n.want(0, "monitor", c.params...)
			n.want(0, "stop", c.params...)
			require.NotContains(t, n.Addrs(t, c.nic, false), c.shown)
		})
	}
}

func TestStopAndMonitorDoWithoutTheNetworkThatStartWasFoundBy(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	n.Sysctl(t, "ipv4/conf/eth0/promote_secondaries", "1")
	n.want(0, "start", vip4)
	n.DelAddr(t, "eth0", "192.0.2.1/24") // IPaddr2 finds no interface any more and leaves the address
	n.want(0, "monitor", vip4)
	n.want(0, "start", vip4)
	n.want(0, "stop", vip4)
	require.Empty(t, n.Addrs(t, "eth0", false)[1:], "only the IPv6 address is left")
}

func TestSecondAddressInTheSamePrefixSurvivesTheFirst(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ name, first, second string }{
		{"IPv4", "192.0.2.50", "192.0.2.51"},
		{"IPv6", "2001:db8::50", "2001:db8::51"},
	} {
		t.Run(f.name, func(t *testing.T) {
			n, peer := newNode(t, "node"), netnstest.New(t, "peer")
			n.Veth(t, "eth0", peer, "eth0")
			bits := map[string]string{"IPv4": "24", "IPv6": "64"}[f.name]
			one := []string{"ip=" + f.first, "nic=eth0", "cidr_netmask=" + bits}
			two := []string{"ip=" + f.second, "nic=eth0", "cidr_netmask=" + bits, "iflabel=two"}
			n.want(0, "start", one...) // the primary: the interface has no address of its own
			n.want(0, "start", two...)
			n.want(0, "stop", one...)
			n.want(7, "probe", one...)
			n.want(0, "monitor", two...)
			n.want(0, "stop", two...)
			require.Empty(t, n.Addrs(t, "eth0", false))
		})
	}
}

func TestMonitorSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, param string
		spoil       func(t *testing.T, n *node, peer *netnstest.NS)
		code        int
		probe       int
		reason      string
	}{
		{"address removed", vip4, func(t *testing.T, n *node, _ *netnstest.NS) { n.DelAddr(t, "eth0", "192.0.2.50/24") }, 7, 7, "192.0.2.50 is not on eth0"},
		{"IPv6 address removed", vip6, func(t *testing.T, n *node, _ *netnstest.NS) { n.DelAddr(t, "eth0", "2001:db8::50/64") }, 7, 7, "2001:db8::50 is not on eth0"},
		{"no carrier", vip4, func(t *testing.T, n *node, peer *netnstest.NS) { peer.Down(t, "eth0"); awaitTrouble(t, n) }, 1, 1, "interface eth0 has no carrier"},
		{"interface down", vip4, func(t *testing.T, n *node, _ *netnstest.NS) { n.Down(t, "eth0") }, 1, 1, "interface eth0 is down"},
		{"interface vanished", vip4, func(t *testing.T, n *node, _ *netnstest.NS) { n.Delete(t, "eth0") }, 1, 7, "interface eth0 does not exist on this node"},
		{"another prefix", vip4, func(t *testing.T, n *node, _ *netnstest.NS) {
			n.DelAddr(t, "eth0", "192.0.2.50/24")
			n.AddAddr(t, "eth0", "192.0.2.50/32")
		}, 1, 1, "192.0.2.50/32 on eth0; expected prefix length 24"},
		{"on another interface", vip4, func(t *testing.T, n *node, peer *netnstest.NS) {
			n.DelAddr(t, "eth0", "192.0.2.50/24")
			n.Veth(t, "eth1", peer, "eth1")
			n.AddAddr(t, "eth1", "192.0.2.50/24")
		}, 7, 7, "192.0.2.50/24 on eth1, expected the address on eth0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, peer := single(t)
			params := []string{c.param, "nic=eth0", "cidr_netmask=24"}
			if c.param == vip6 {
				params[2] = "cidr_netmask=64"
			}
			n.want(0, "start", params...)
			c.spoil(t, n, peer)
			r := n.want(c.code, "monitor", params...)
			require.Contains(t, r.reason(), c.reason)
			n.want(c.probe, "probe", params...)
			n.want(0, "stop", params...)
			n.want(7, "probe", params...)
		})
	}
}

func TestStopDoesNotSayDoneOfAnAddressWhoseInterfaceHasAnotherName(t *testing.T) {
	t.Parallel()
	for _, f := range bothFamilies {
		t.Run(f.name, func(t *testing.T) {
			n, _ := single(t)
			n.want(0, "start", f.param, "nic=eth0")
			r := n.want(1, "stop", f.param, "nic=lan")
			require.Contains(t, r.reason(), f.ip+": interface lan does not exist on this node, and "+f.cidr+" on eth0 is there")
			require.Contains(t, strings.Join(n.Addrs(t, "eth0", false), "\n"), f.cidr, "whose it is cannot be known")
			n.AltName(t, "eth0", "lan")
			n.want(0, "stop", f.param, "nic=lan")
			require.NotContains(t, strings.Join(n.Addrs(t, "eth0", false), "\n"), f.cidr)
		})
	}
	t.Run("nowhere", func(t *testing.T) {
		n, _ := single(t)
		n.want(0, "stop", vip4, "nic=lan")
	})
	for name, c := range map[string]struct{ nic, cidr string }{
		"never started here, nic is a slip": {"eth0", "192.0.2.50/24"},
		"a real server's, on lo":            {"lo", "192.0.2.50/32"},
		"of another prefix":                 {"eth0", "192.0.2.50/32"},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := single(t)
			n.AddAddr(t, c.nic, c.cidr)
			n.want(0, "stop", vip4, "nic=lan", "cidr_netmask=24")
			require.Contains(t, strings.Join(n.Addrs(t, c.nic, false), "\n"), c.cidr)
		})
	}
	t.Run("on lo, without a prefix", func(t *testing.T) {
		n, _ := single(t)
		n.AddAddr(t, "lo", "192.0.2.50/32")
		n.want(0, "stop", vip4, "nic=lan")
		require.Contains(t, strings.Join(n.Addrs(t, "lo", false), "\n"), "192.0.2.50/32")
	})
}

func awaitTrouble(t *testing.T, n *node) {
	t.Helper()
	netnstest.Eventually(t, "eth0 has lost its carrier", func() bool {
		return n.run("monitor", vip4, "nic=eth0").code != 0
	})
}

func TestCheckLinkStatusFalseServesWithoutCarrier(t *testing.T) {
	t.Parallel()
	n, peer := single(t)
	peer.Down(t, "eth0")
	off := []string{vip4, "nic=eth0", "check_link_status=false"}
	n.want(0, "start", off...)
	n.want(0, "monitor", off...)
	n.want(0, "stop", off...)
}

func TestStartRefusesALinkThatIsDownAndWaitsForOneThatComesUp(t *testing.T) {
	t.Parallel()
	n, peer := single(t)
	n.Down(t, "eth0")
	r := n.want(1, "start", vip4, "nic=eth0", "cidr_netmask=24")
	require.Contains(t, r.reason(), "192.0.2.50: interface eth0 is down")
	require.Contains(t, r.reason(), "ip link set eth0 up")
	require.Less(t, r.took, carrierWait, "nobody is about to bring it up")
	n.Up(t, "eth0")

	peer.Down(t, "eth0")
	r = n.want(1, "start", vip4, "nic=eth0", "cidr_netmask=24")
	require.Contains(t, r.reason(), "interface eth0 has no carrier")
	n.want(7, "probe", vip4)

	time.AfterFunc(300*time.Millisecond, func() { peer.Up(t, "eth0") })
	r = n.want(0, "start", vip4, "nic=eth0", "cidr_netmask=24")
	require.Greater(t, r.took, 200*time.Millisecond)
}

func TestStartRefusesAnAddressThatAnotherHostHasAndNamesItsMAC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, param, cidr, extra string }{
		{"IPv4, ARP probe", vip4, "192.0.2.50/24", ""},
		{"IPv6, duplicate address detection", vip6, "2001:db8::50/64", ""},
		{"IPv6 with nodad, own solicitation", vip6, "2001:db8::50/64", "nodad=true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newCluster(t)
			l.b.AddAddr(t, "eth0", c.cidr)
			before := l.a.Addrs(t, "eth0", false)
			params := []string{c.param}
			if c.extra != "" {
				params = append(params, c.extra)
			}
			r := l.a.want(1, "start", params...)
			require.Contains(t, r.reason()[:128], "host "+l.b.MAC(t, "eth0")+" on eth0 has it already")
			require.Equal(t, before, l.a.Addrs(t, "eth0", false), "nothing may be left behind")
			l.a.want(7, "probe", params...)

			l.b.DelAddr(t, "eth0", c.cidr)
			l.a.want(0, "start", params...)
		})
	}
}

func TestRunArpingFalseTakesTheAddressAllTheSame(t *testing.T) {
	t.Parallel()
	l := newCluster(t)
	l.b.AddAddr(t, "eth0", "192.0.2.50/24")
	l.a.want(0, "start", vip4, "run_arping=false")
}

func TestMonitorSeesAFailedDuplicateAddressDetection(t *testing.T) {
	t.Parallel()
	l := newCluster(t)
	l.a.want(0, "start", vip6)
	// The kernel repeats the detection when the link comes back; meanwhile another host took it.
	l.a.Down(t, "eth0")
	l.b.AddAddr(t, "eth0", "2001:db8::50/64")
	l.a.Sysctl(t, "ipv6/conf/eth0/keep_addr_on_down", "1")
	l.a.want(7, "probe", vip6) // the kernel drops IPv6 addresses with the link
	l.a.Up(t, "eth0")
	l.a.AddTentative(t, "eth0", "2001:db8::50/64")
	netnstest.Eventually(t, "detection failed", func() bool {
		return strings.Contains(strings.Join(l.a.Addrs(t, "eth0", false), "\n"), "2001:db8::50/64 tentative dadfailed")
	})
	r := l.a.want(1, "monitor", vip6)
	require.Contains(t, r.reason(), "duplicate address detection failed: another host has the address")
	l.b.DelAddr(t, "eth0", "2001:db8::50/64")
	l.a.want(0, "start", vip6) // takes it anew
	l.a.want(0, "monitor", vip6)
}

func TestStartReplacesTheAddressInAnotherForm(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	n.AddAddr(t, "eth0", "192.0.2.50/32")
	n.want(0, "start", vip4, "nic=eth0", "cidr_netmask=24", "iflabel=web")
	require.Contains(t, n.Addrs(t, "eth0", false), "192.0.2.50/24 eth0:web secondary")
	require.NotContains(t, n.Addrs(t, "eth0", false), "192.0.2.50/32 eth0")
	n.want(0, "monitor", vip4, "nic=eth0", "cidr_netmask=24", "iflabel=web")
	r := n.want(1, "monitor", vip4, "nic=eth0", "iflabel=other")
	require.Contains(t, r.reason(), "192.0.2.50/24 on eth0 has label eth0:web; expected label eth0:other")
}

func TestStartRefusesAnAddressOnAnotherInterfaceOfThisNode(t *testing.T) {
	t.Parallel()
	n, peer := single(t)
	n.Veth(t, "eth1", peer, "eth1")
	n.AddAddr(t, "eth1", "192.0.2.50/24")
	r := n.want(1, "start", vip4, "nic=eth0")
	require.Contains(t, r.reason(), "192.0.2.50: is already on eth1 of this node")
	n.want(7, "probe", vip4, "nic=eth0")
	n.want(0, "stop", vip4, "nic=eth0")
	require.Contains(t, n.Addrs(t, "eth1", false), "192.0.2.50/24 eth1", "it is not this resource's")
}

func TestAddressOnLoOfABalancedServerIsNotThisResources(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	n.AddAddr(t, "lo", "192.0.2.50/32")
	n.want(7, "probe", vip4)
	n.want(0, "start", vip4)
	n.want(0, "stop", vip4)
	require.Contains(t, n.Addrs(t, "lo", false), "192.0.2.50/32 lo")
}

func TestSIGTERMInTheMiddleOfStartLeavesAStateThatStopCleans(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, param, wait string }{
		{"while it waits for another holder", vip4, "conflict_wait=10000"},
		{"during duplicate address detection", vip6, "conflict_wait=200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newCluster(t)
			cmd, _, stderr := l.a.command(t.Context(), "start", c.param, c.wait)
			seen := l.client.Capture(t, "eth0")
			l.a.Do(t, func() { require.NoError(t, cmd.Start()) })
			netnstest.Eventually(t, "start has asked the network", func() bool { return len(seen.Frames(isQuestion)) > 0 })
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			require.Error(t, cmd.Wait())
			require.Equal(t, 1, cmd.ProcessState.ExitCode(), stderr.String())
			require.Contains(t, stderr.String(), "ocf-exit-reason:start: ended by signal terminated, waiting for")
			l.a.want(0, "stop", c.param)
			l.a.want(7, "probe", c.param)
		})
	}
}

// isQuestion: an ARP probe, or a neighbor solicitation from the unspecified address for the vip.
func isQuestion(f netnstest.Frame) bool {
	p := f.Payload
	return f.Ethertype == unix.ETH_P_ARP && len(p) >= 28 && p[27] == 50 ||
		f.Ethertype == unix.ETH_P_IPV6 && len(p) >= 64 && p[6] == 58 && p[40] == 135 && p[63] == 0x50
}

func TestStopClosesTheConnectionsOfTheAddressAndOnlyThose(t *testing.T) {
	t.Parallel()
	for _, f := range bothFamilies {
		t.Run(f.name, func(t *testing.T) {
			l := newCluster(t)
			l.a.want(0, "start", f.param)
			own := map[string]string{"IPv4": "192.0.2.1", "IPv6": "2001:db8::1"}[f.name]
			server := listenIn(t, l.a.NS, ":2049")
			_, far := connect(t, l.client, server, net.JoinHostPort(f.ip, "2049"))
			other, otherFar := connect(t, l.client, server, net.JoinHostPort(own, "2049"))

			l.a.want(0, "stop", f.param)

			require.NoError(t, far.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err := far.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNABORTED, "the server must not keep half of it")
			_, err = other.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, otherFar.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err = otherFar.Read(make([]byte, 1))
			require.NoError(t, err, "the node's own address keeps its connections")

			l.a.want(0, "start", f.param)
			connect(t, l.client, server, net.JoinHostPort(f.ip, "2049")) // the listener lives on
		})
	}
}

// listenIn opens a dual-stack listener in the namespace.
func listenIn(t *testing.T, ns *netnstest.NS, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	ns.Do(t, func() {
		var err error
		l, err = net.Listen("tcp", addr)
		require.NoError(t, err)
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func connect(t *testing.T, from *netnstest.NS, l net.Listener, to string) (near, far net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
		close(accepted)
	}()
	from.Do(t, func() {
		var err error
		near, err = net.DialTimeout("tcp", to, 5*time.Second)
		require.NoError(t, err)
	})
	far = <-accepted
	require.NotNil(t, far)
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

func TestNetworkNamespaceByName(t *testing.T) {
	t.Parallel()
	n, peer := single(t)
	const name = "baton-vip-test"
	n.Bind(t, filepath.Join("/run/netns", name))
	outside := &node{NS: peer, t: t, rsctmp: t.TempDir()}
	t.Cleanup(outside.endAnnouncers)
	params := []string{vip4, "network_namespace=" + name}
	outside.want(0, "validate-all", params...)
	outside.want(0, "start", params...)
	require.Contains(t, n.Addrs(t, "eth0", false), "192.0.2.50/24 eth0 secondary")
	outside.want(0, "monitor", params...)
	outside.want(7, "probe", vip4, "nic=eth0") // not in its own
	outside.want(0, "stop", params...)

	missing := []string{vip4, "network_namespace=baton-vip-missing"}
	r := outside.want(5, "start", missing...)
	require.Contains(t, r.reason(), "ip netns add baton-vip-missing")
	outside.want(7, "probe", missing...)
	outside.want(1, "monitor", missing...)
	outside.want(0, "stop", missing...)
}

func TestWithoutPrivilegeStartSaysSoAndMonitorWorks(t *testing.T) {
	t.Parallel()
	isRoot(t)
	n, _ := single(t)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(binary), 0o755))
	as := func(action string, params ...string) (int, string) {
		cmd, _, stderr := n.command(t.Context(), action, params...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		n.Do(t, func() { _ = cmd.Run() })
		return cmd.ProcessState.ExitCode(), stderr.String()
	}
	code, said := as("start", vip4)
	require.Equal(t, 4, code, said)
	require.Contains(t, said, "run it as root")
	n.want(0, "start", vip4)
	code, said = as("monitor", vip4)
	require.Equal(t, 0, code, said)
	code, said = as("stop", vip4)
	require.NotZero(t, code, "an address that is still there is not stopped: %s", said)
	n.want(0, "monitor", vip4)
}

func TestReloadAgentChangesThePreferredLifetimeInPlace(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	n.want(0, "start", vip6, "nodad=true")
	n.want(0, "reload-agent", vip6, "nodad=true", "preferred_lft=0")
	require.Contains(t, n.Addrs(t, "eth0", false), "2001:db8::50/64 deprecated")
	n.want(0, "reload-agent", vip6, "nodad=true")
	require.Contains(t, n.Addrs(t, "eth0", false), "2001:db8::50/64")
	n.want(0, "stop", vip6)
	r := n.want(1, "reload-agent", vip6)
	require.Contains(t, r.reason(), "start the resource first")
	n.want(6, "reload-agent", vip6, "preferred_lft=soon")
}

func TestMonitorStartsNoProcessAndTouchesNoFile(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	n.want(0, "start", vip4, "arp_bg=false", "arp_count=1")
	before := tree(t, n.rsctmp)
	cmd, _, _ := n.command(t.Context(), "monitor", vip4, "CRM_meta_interval=10000")
	n.Do(t, func() { require.NoError(t, cmd.Run()) })
	require.Equal(t, before, tree(t, n.rsctmp))
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	require.True(t, ok)
	require.Zero(t, usage.Oublock, "no disk write")
}

func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil {
			info, ierr := d.Info()
			if ierr != nil {
				return ierr
			}
			list = append(list, fmt.Sprint(path, info.Size(), info.ModTime()))
		}
		return err
	}))
	return list
}
