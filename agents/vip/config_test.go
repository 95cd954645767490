package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/addresses"
	"baton/agents/internal/sockdiag"
	"baton/ocf"
)

// ask runs validate-all at check level 0, which looks at the values alone, and gives code and reason.
func ask(params ...string) (code int, reason string) {
	var out, errs bytes.Buffer
	env := []string{
		"OCF_ROOT=/usr/lib/ocf", "OCF_RESOURCE_INSTANCE=vip", "OCF_CHECK_LEVEL=0", "OCF_RESKEY_CRM_meta_timeout=20000",
	}
	for _, p := range params {
		env = append(env, "OCF_RESKEY_"+p)
	}
	code = ocf.RunOn(program(), ocf.Host{Argv0: "vip", Args: []string{"validate-all"}, Environ: env, Stdout: &out, Stderr: &errs})
	return code, result{stderr: errs.String()}.reason()
}

func TestGoodValues(t *testing.T) {
	t.Parallel()
	for _, params := range [][]string{
		{"ip=192.0.2.50"},
		{"ip=2001:db8::50"},
		{"ip=2001:DB8:0::50", "cidr_netmask=128"},
		{"ip=127.0.0.3"},
		{"ip=fe80::50", "nic=eth0"},
		{"ip=192.0.2.50", "nic=eth0", "cidr_netmask=24", "broadcast=+"},
		{"ip=192.0.2.50", "nic=eth0:web"},
		{"ip=192.0.2.50", "nic=bond0.100:web"},
		{"ip=192.0.2.50", "netmask=255.255.255.252", "broadcast=-"},
		{"ip=192.0.2.50", "netmask=255.255.255.255"},
		{"ip=192.0.2.50", "proto=kernel"},
		{"ip=192.0.2.50", "proto=17"},
		{"ip=2001:db8::50", "preferred_lft=0", "nodad=yes", "noprefixroute=ja"},
		{"ip=2001:db8::50", "iflabel=much-too-long-but-without-meaning-for-ipv6"},
		{"ip=192.0.2.50", "lvs_support=false", "lvs_ipv6_addrlabel=no", "unique_clone_address=0", "flush_routes=true"},
		{"ip=192.0.2.50", "arp_sender=iputils_arping", "send_arp_opts=-A"},
		{"ip=192.0.2.50", "tickle_dir=/data/tickle/"},
		{"ip=192.0.2.50", "network_namespace=blue"},
		{"ip=192.0.2.50", "CRM_meta_clone_max=1"},
		{"ip=192.0.2.50", "CRM_meta_clone_max=3", "nic=lo"},
	} {
		code, reason := ask(params...)
		require.Equal(t, 0, code, "%q: %s", params, reason)
	}
}

func TestBadValuesAreNamedWithWhatWasExpected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		params []string
		reason string // its beginning
	}{
		{nil, `ip: no value given`},
		{[]string{"ip=not_ip"}, `ip: "not_ip"; expected the IPv4 or IPv6 address of one host`},
		{[]string{"ip=192.0.2.50/24"}, `ip: "192.0.2.50/24"; expected`},
		{[]string{"ip=192.0.2.500"}, `ip: "192.0.2.500"; expected`},
		{[]string{"ip=192.0.02.50"}, `ip: "192.0.02.50"; expected`},
		{[]string{"ip=0.0.0.0"}, `ip: "0.0.0.0"; expected`},
		{[]string{"ip=224.0.0.1"}, `ip: "224.0.0.1"; expected`},
		{[]string{"ip=255.255.255.255"}, `ip: "255.255.255.255"; expected`},
		{[]string{"ip=ff02::1"}, `ip: "ff02::1"; expected`},
		{[]string{"ip=fe80::5%eth0"}, `ip: "fe80::5%eth0"; expected the IPv4 or IPv6 address of one host, without prefix and without %zone`},
		{[]string{"ip=::ffff:192.0.2.50"}, `ip: "::ffff:192.0.2.50"; expected the IPv4 address itself, 192.0.2.50`},
		{[]string{"ip=$(reboot)"}, `ip: "$(reboot)"; expected`},
		{[]string{"ip=fe80::5"}, `nic: no value given, and ip fe80::5 is link-local`},
		{[]string{vip4, "nic=eth 0"}, `nic: "eth 0"; expected the name of a network interface`},
		{[]string{vip4, "nic=../eth0"}, `nic: "../eth0"; expected`},
		{[]string{vip4, "nic=:web"}, `nic: ":web"; expected`},
		{[]string{vip4, "nic=" + strings.Repeat("x", 128)}, `nic: "xxx`},
		{[]string{vip4, "cidr_netmask=99"}, `cidr_netmask: "99"; expected a prefix length from 1 to 32, or a netmask`},
		{[]string{vip4, "cidr_netmask=0"}, `cidr_netmask: "0"; expected`},
		{[]string{vip4, "cidr_netmask=abc"}, `cidr_netmask: "abc"; expected`},
		{[]string{vip4, "cidr_netmask=255.0.255.0"}, `cidr_netmask: "255.0.255.0"; expected`},
		{[]string{vip4, "netmask=0.0.0.0"}, `cidr_netmask: "0.0.0.0"; expected`},
		{[]string{vip6, "cidr_netmask=129"}, `cidr_netmask: "129"; expected a prefix length from 1 to 128`},
		{[]string{vip6, "cidr_netmask=255.255.255.0"}, `cidr_netmask: "255.255.255.0"; expected`},
		{[]string{vip4, "broadcast=foo"}, `broadcast: "foo"; expected an IPv4 address, + or -`},
		{[]string{vip4, "broadcast=2001:db8::1"}, `broadcast: "2001:db8::1"; expected`},
		{[]string{vip4, "nic=eth0", "iflabel=a-label-too-long"}, `iflabel: "a-label-too-long"; expected interface, colon and label of 15 characters together at most, not 21`},
		{[]string{vip4, "nic=eth0:a-label-too-long"}, `nic: "eth0:a-label-too-long"; expected`},
		{[]string{vip4, "iflabel=a b"}, `iflabel: "a b"; expected a label without blanks`},
		{[]string{vip4, "nic=eth0:a:b"}, `nic: "eth0:a:b"; expected a label`},
		{[]string{vip4, "proto=0"}, `proto: "0"; expected a routing protocol`},
		{[]string{vip4, "proto=256"}, `proto: "256"; expected`},
		{[]string{vip4, "proto=nonsense"}, `proto: "nonsense"; expected`},
		{[]string{vip4, "arp_count=0"}, `arp_count: "0"; expected a whole number from 1`},
		{[]string{vip4, "arp_count=x"}, `arp_count: "x"; expected`},
		{[]string{vip4, "arp_interval=0"}, `arp_interval: "0"; expected`},
		{[]string{vip4, "conflict_wait=-1"}, `conflict_wait: "-1"; expected`},
		{[]string{vip4, "nodad=maybe"}, `nodad: "maybe"; expected true or false`},
		{[]string{vip6, "preferred_lft=-1"}, `preferred_lft: "-1"; expected forever, or seconds`},
		{[]string{vip6, "preferred_lft=4294967296"}, `preferred_lft: "4294967296"; expected`},
		{[]string{vip4, "network_namespace=../../etc"}, `network_namespace: "../../etc"; expected a name that ip netns list shows`},
		{[]string{vip4, "network_namespace=.."}, `network_namespace: ".."; expected`},
		{[]string{vip4, "tickle_dir=data"}, `tickle_dir: "data"; expected an absolute path`},
		{[]string{vip4, "tickle_dir=//"}, `tickle_dir: "//"; expected`},
	} {
		code, reason := ask(c.params...)
		require.Equal(t, 6, code, "%q: %s", c.params, reason)
		require.True(t, strings.HasPrefix(reason, c.reason), "%q: %s", c.params, reason)
	}
}

func TestWhatIsNotTakenOverFromIPaddr2IsRefusedWithTheWayOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		param, wayOut string
	}{
		{"clusterip_hash=sourceip", "use a load balancer"},
		{"mac=01:02:03:04:05:06", "use a load balancer"},
		{"unique_clone_address=true", "one vip resource for each address"},
		{"lvs_support=true", "keep the address on lo of the real servers"},
		{"lvs_ipv6_addrlabel=yes", "set preferred_lft=0"},
		{"arp_sender=ipoibarping", "InfiniBand"},
		{"arp_sender=foo", "the agent sends announcements by itself"},
		{"send_arp_opts=-I eth1", "no helper program"},
		{"CRM_meta_clone_max=2", "remove the clone"},
	} {
		code, reason := ask(vip4, c.param)
		require.Equal(t, 6, code, "%s: %s", c.param, reason)
		require.Contains(t, reason, c.wayOut)
	}
}

func TestPositionalIsTheFormOfIPaddr(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arg  string
		want map[string]string
	}{
		{"192.0.2.50", map[string]string{"ip": "192.0.2.50"}},
		{"192.0.2.50/24", map[string]string{"ip": "192.0.2.50", "cidr_netmask": "24"}},
		{"192.0.2.50/24/eth0", map[string]string{"ip": "192.0.2.50", "cidr_netmask": "24", "nic": "eth0"}},
		{"192.0.2.50/24/eth0:web", map[string]string{"ip": "192.0.2.50", "cidr_netmask": "24", "nic": "eth0:web"}},
		{"192.0.2.50/24/eth0/192.0.2.255", map[string]string{"ip": "192.0.2.50", "cidr_netmask": "24", "nic": "eth0", "broadcast": "192.0.2.255"}},
		{"192.0.2.50/24/192.0.2.255", map[string]string{"ip": "192.0.2.50", "cidr_netmask": "24", "broadcast": "192.0.2.255"}},
		{"192.0.2.50//eth0", map[string]string{"ip": "192.0.2.50", "nic": "eth0"}},
		{"192.0.2.50/255.255.255.0", map[string]string{"ip": "192.0.2.50", "cidr_netmask": "255.255.255.0"}},
		{"2001:db8::50/64/eth0", map[string]string{"ip": "2001:db8::50", "cidr_netmask": "64", "nic": "eth0"}},
	} {
		got, err := positional([]string{c.arg})
		require.NoError(t, err, c.arg)
		require.Equal(t, c.want, got, c.arg)
	}
	got, err := positional([]string{"2001:db8", "50/64/eth0"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"ip": "2001:db8::50", "cidr_netmask": "64", "nic": "eth0"}, got, "heartbeat splits at ::")
	for _, args := range [][]string{
		{""},
		{"2001:db8", "1", "50/64"},
		{"/24/eth0"},
		{"192.0.2.50/24/eth0/192.0.2.255/x"},
		{"192.0.2.50/24/192.0.2.255/eth0"},
		{"192.0.2.50", "24"},
	} {
		_, err := positional(args)
		require.ErrorContains(t, err, "expected", "%q", args)
	}
}

func FuzzPositional(f *testing.F) {
	for _, s := range []string{"192.0.2.50/24/eth0:web/192.0.2.255", "2001:db8::50/64", "///", "a/b/1/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		values, err := positional([]string{arg})
		if err != nil {
			return
		}
		if values["ip"] == "" {
			t.Fatalf("%q gives no address", arg)
		}
		n := 0
		for name, v := range values {
			if v == "" || strings.Contains(v, "/") {
				t.Fatalf("%q gives %s=%q", arg, name, v)
			}
			n += len(v)
		}
		if n > len(arg) {
			t.Fatalf("%q gives more than it has: %q", arg, values)
		}
	})
}

func TestJudgeKnowsItsOwnEntry(t *testing.T) {
	t.Parallel()
	eth0, eth1 := addresses.Link{Index: 2, Name: "eth0"}, addresses.Link{Index: 3, Name: "eth1"}
	lo := addresses.Link{Index: 1, Name: "lo", Flags: 0x8}
	ip := netip.MustParseAddr("192.0.2.50")
	on := func(l addresses.Link, bits int, label string) entry {
		return entry{addresses.Addr{IP: ip, Bits: bits, Index: l.Index, Label: label}, l}
	}
	named := config{ip: ip, nic: "eth0", bits: 24}
	free := config{ip: ip}
	for _, c := range []struct {
		name    string
		cfg     config
		nic     *addresses.Link
		entries []entry
		want    verdict
		own     int
	}{
		{"nowhere", named, &eth0, nil, absent, 0},
		{"as configured", named, &eth0, []entry{on(eth0, 24, "eth0")}, served, 1},
		{"another interface", named, &eth0, []entry{on(eth1, 24, "eth1")}, elsewhere, 0},
		{"both", named, &eth0, []entry{on(eth1, 24, "eth1"), on(eth0, 24, "eth0")}, served, 1},
		{"another prefix", named, &eth0, []entry{on(eth0, 32, "eth0")}, otherPrefix, 1},
		{"another prefix first, the right one second", named, &eth0, []entry{on(eth0, 32, "eth0"), on(eth0, 24, "eth0")}, served, 2},
		{"interface vanished", named, nil, []entry{on(eth1, 24, "eth1")}, elsewhere, 0},
		{"label lost", config{ip: ip, nic: "eth0", label: "web"}, &eth0, []entry{on(eth0, 24, "eth0")}, otherLabel, 1},
		{"label there", config{ip: ip, nic: "eth0", label: "web"}, &eth0, []entry{on(eth0, 24, "eth0:web")}, served, 1},
		{"label nobody asked for", named, &eth0, []entry{on(eth0, 24, "eth0:web")}, served, 1},
		{"interface not given", free, nil, []entry{on(eth1, 25, "eth1")}, served, 1},
		{"interface not given, on lo only", free, nil, []entry{on(lo, 32, "lo")}, elsewhere, 0},
		{"lo given", config{ip: ip, nic: "lo"}, &lo, []entry{on(lo, 32, "lo")}, served, 1},
	} {
		h := host{nic: c.nic, entries: c.entries}
		v, e := judge(c.cfg, h)
		require.Equal(t, c.want, v, c.name)
		require.Len(t, ownEntries(c.cfg, h), c.own, c.name)
		found, _ := describe(c.cfg, h, v, e)
		require.NotEmpty(t, found, c.name)
	}
	loop := netip.MustParseAddr("127.0.0.3")
	v, _ := judge(config{ip: loop}, host{entries: []entry{{addresses.Addr{IP: loop, Bits: 8, Index: 1}, lo}}})
	require.Equal(t, served, v, "a loopback address belongs on lo")
}

func TestRecordOfConnectionsComesBackSortedAndOnce(t *testing.T) {
	t.Parallel()
	c := func(local, remote string) connection {
		return connection{netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)}
	}
	four := []connection{c("192.0.2.50:2049", "198.51.100.7:812"), c("192.0.2.50:2049", "192.0.2.3:999"), c("192.0.2.50:2049", "198.51.100.7:812")}
	text := render(four)
	require.Equal(t, "192.0.2.50:2049\t192.0.2.3:999\n192.0.2.50:2049\t198.51.100.7:812\n", string(text))
	require.Equal(t, []connection{four[1], four[0]}, parseConnections(text, netip.MustParseAddr("192.0.2.50")))

	six := []connection{c("[2001:db8::50]:2049", "[2001:db8::7]:812")}
	require.Equal(t, "[2001:db8::50]:2049\t[2001:db8::7]:812\n", string(render(six)))
	require.Equal(t, six, parseConnections(render(six), netip.MustParseAddr("2001:db8::50")))
	require.Empty(t, render(nil))
}

// hostileRecord holds one good line among lines that must neither be tickled nor keep it from being.
const hostileRecord = `192.0.2.51:2049	198.51.100.7:1
192.0.2.50:2049	192.0.2.50:2
192.0.2.50:2049	127.0.0.1:3
192.0.2.50:2049	224.0.0.1:4
192.0.2.50:2049	255.255.255.255:5
192.0.2.50:2049	0.0.0.0:6
192.0.2.50:2049	[2001:db8::7]:7
192.0.2.50:2049	[::ffff:198.51.100.7]:8
192.0.2.50:2049	198.51.100.7:0
192.0.2.50:0	198.51.100.7:9
192.0.2.50	198.51.100.7
192.0.2.50:2049 198.51.100.7:10 198.51.100.7:11
192.0.2.50:99999	198.51.100.7:12
192.0.2.50:2049
  192.0.2.50:2049    198.51.100.7:13
192.0.2.50:2049	198.51.10`

func TestRecordSkipsWhatIsNoPeer(t *testing.T) {
	t.Parallel()
	got := parseConnections([]byte(hostileRecord), netip.MustParseAddr("192.0.2.50"))
	require.Len(t, got, 1)
	require.Equal(t, "198.51.100.7:13", got[0].remote.String(), "portblock separates by blanks as well; the last line is torn")
}

func FuzzConnections(f *testing.F) {
	f.Add([]byte(hostileRecord))
	f.Add([]byte("[2001:db8::50]:2049\t[fe80::7%eth0]:812\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, ip := range []netip.Addr{netip.MustParseAddr("192.0.2.50"), netip.MustParseAddr("2001:db8::50")} {
			list := parseConnections(data, ip)
			for _, c := range list {
				peer := c.remote.Addr()
				if c.local.Addr() != ip || peer == ip || peer.Is4() != ip.Is4() || peer.IsLoopback() || peer.IsMulticast() || peer.IsUnspecified() {
					t.Fatalf("%v must not be tickled", c)
				}
			}
			if again := parseConnections(render(list), ip); len(again) > len(list) {
				t.Fatal("a record grows when it is read and written")
			}
		}
	})
}

func TestHalfOpenStatesAreThoseWhosePeerBelievesToBeConnected(t *testing.T) {
	t.Parallel()
	set := sockdiag.States(halfOpen)
	require.True(t, set.Has(sockdiag.Established))
	require.True(t, set.Has(sockdiag.CloseWait))
	require.False(t, set.Has(sockdiag.Listen))
	require.False(t, set.Has(sockdiag.TimeWait))
}
