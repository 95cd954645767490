package addresses

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// unhex reads hex digits with blanks and // comments between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "//")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	require.NoError(t, err)
	return b
}

func littleEndian(t *testing.T) {
	t.Helper()
	if cpu.IsBigEndian {
		t.Skip("the golden bytes are those of a little-endian machine")
	}
}

func TestMarshalAddrGolden(t *testing.T) {
	littleEndian(t)
	for _, c := range []struct {
		name string
		addr Addr
		want string
	}{
		{
			"IPv4 with label and broadcast",
			Addr{
				IP: ip("192.0.2.50"), Bits: 24, Index: 3, Label: "eth0:vip", Broadcast: ip("192.0.2.255"),
				Preferred: Forever, Valid: Forever, Metric: 100,
			},
			`02 18 00 00 03000000            // AF_INET /24, universe, interface 3
			 0800 0200 c0000232              // IFA_LOCAL
			 0800 0100 c0000232              // IFA_ADDRESS
			 0800 0400 c00002ff              // IFA_BROADCAST
			 0d00 0300 657468303a76697000 000000 // IFA_LABEL, padded
			 0800 0900 64000000              // IFA_RT_PRIORITY
			 1400 0600 ffffffffffffffff 0000000000000000 // IFA_CACHEINFO`,
		},
		{
			"IPv6, deprecated, no prefix route, no DAD",
			Addr{
				IP: ip("2001:db8::50"), Bits: 64, Index: 3, Flags: FlagNoPrefixRoute | FlagNoDAD,
				Preferred: 0, Valid: Forever,
			},
			`0a 40 02 00 03000000
			 1400 0200 20010db8 00000000 00000000 00000050
			 1400 0100 20010db8 00000000 00000000 00000050
			 0800 0800 02020000              // IFA_FLAGS
			 1400 0600 00000000 ffffffff 00000000 00000000`,
		},
		{
			"point-to-point, as remove names it",
			Addr{IP: ip("192.0.2.1"), Bits: 32, Index: 7, Peer: ip("192.0.2.2")},
			`02 20 00 00 07000000
			 0800 0200 c0000201
			 0800 0100 c0000202`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, hex.EncodeToString(unhex(t, c.want)), hex.EncodeToString(marshalAddr(c.addr)))
			back, err := parseAddr(marshalAddr(c.addr))
			require.NoError(t, err)
			require.Equal(t, c.addr, back, "what was written must be read back")
		})
	}
}

func TestParseAddrSkipsWhatItDoesNotKnowAndSurvivesTornAttributes(t *testing.T) {
	littleEndian(t)
	whole := unhex(t, `0a 40 40 00 03000000
		0800 6300 aabbccdd
		1400 0100 20010db8 00000000 00000000 00000050
		0800 0800 c0000000`)
	a, err := parseAddr(whole)
	require.NoError(t, err)
	require.Equal(t, "2001:db8::50/64", a.String())
	require.Equal(t, uint32(FlagPermanent|FlagTentative), a.Flags)

	for name, b := range map[string][]byte{
		"length beyond the end": append(append([]byte(nil), whole[:8]...), 0xff, 0x00, 0x01, 0x00, 1, 2),
		"length below a header": append(append([]byte(nil), whole[:8]...), 2, 0, 1, 0, 1, 2, 3, 4),
		"header only":           whole[:8],
	} {
		got, err := parseAddr(b)
		require.NoError(t, err, name)
		require.False(t, got.IP.IsValid(), name)
	}
	_, err = parseAddr(whole[:7])
	require.ErrorIs(t, err, errShort)
}

func TestParseLinkReadsStateCarrierAndAlternativeNames(t *testing.T) {
	littleEndian(t)
	l, err := parseLink(unhex(t, `00 00 0100 03000000 43100100 00000000
		0900 0300 6574683000 000000             // IFLA_IFNAME eth0
		0a00 0100 525400123456 0000             // IFLA_ADDRESS
		0500 1000 06 000000                     // IFLA_OPERSTATE up
		0500 2100 01 000000                     // IFLA_CARRIER
		0800 0a00 09000000                      // IFLA_MASTER
		1400 3480 0f00 3500 656e70307331303000 0000 00 // IFLA_PROP_LIST, nested: enp0s100`))
	require.NoError(t, err)
	require.Equal(t, "eth0", l.Name)
	require.Equal(t, "52:54:00:12:34:56", l.HardwareAddr.String())
	require.Equal(t, []string{"enp0s100"}, l.AltNames)
	require.Equal(t, 9, l.Master)
	require.Empty(t, l.Trouble())
	require.True(t, l.CanAnnounce())
	_, err = parseLink(make([]byte, unix.SizeofIfInfomsg-1))
	require.ErrorIs(t, err, errShort)
}

func TestTroubleNamesWhatKeepsALinkFromCarryingTraffic(t *testing.T) {
	const up = unix.IFF_UP
	for _, c := range []struct {
		name string
		link Link
		want string
	}{
		{"up", Link{Flags: up | unix.IFF_LOWER_UP, OperState: 6, Carrier: true}, ""},
		{"set down", Link{Flags: 0, OperState: operDown}, "is down"},
		{"cable out", Link{Flags: up, OperState: operDown}, "has no carrier"},
		{"lower layer down", Link{Flags: up, OperState: operLowerLayerDown}, "has no carrier"},
		{"hardware gone", Link{Flags: up, OperState: operNotPresent}, "is not present"},
		{"lo and tun have state unknown", Link{Flags: up | unix.IFF_LOWER_UP, OperState: operUnknown, Carrier: true}, ""},
		{"old driver without state, cable out", Link{Flags: up, OperState: operUnknown}, "has no carrier"},
		{"dormant (802.1X, wireless) still counts", Link{Flags: up | unix.IFF_LOWER_UP, OperState: 5, Carrier: true}, ""},
	} {
		require.Equal(t, c.want, c.link.Trouble(), c.name)
	}
}

func TestCanAnnounceOnlyWhereNeighborsResolveAddresses(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	require.True(t, Link{Hardware: unix.ARPHRD_ETHER, HardwareAddr: mac}.CanAnnounce())
	require.False(t, Link{Hardware: unix.ARPHRD_ETHER, HardwareAddr: mac, Flags: unix.IFF_NOARP}.CanAnnounce())
	require.False(t, Link{Hardware: unix.ARPHRD_LOOPBACK, HardwareAddr: make([]byte, 6)}.CanAnnounce())
	require.False(t, Link{Hardware: unix.ARPHRD_INFINIBAND, HardwareAddr: make([]byte, 20)}.CanAnnounce())
	require.False(t, Link{Hardware: unix.ARPHRD_NONE}.CanAnnounce(), "tun")
}

func TestParseRouteKeepsNetworksAndLeavesGatewaysAndDefaultsOut(t *testing.T) {
	littleEndian(t)
	for _, c := range []struct {
		name, hex string
		want      string // "" when it does not count
	}{
		{"network", `02 18 00 00 fe 02 fd 01 00000000  0800 0100 c0000200  0800 0400 03000000  0800 0700 c0000201  0800 0600 64000000`, "192.0.2.0/24"},
		{"default", `02 00 00 00 fe 03 00 01 00000000  0800 0500 c0000201  0800 0400 03000000`, ""},
		{"through a gateway", `02 18 00 00 fe 03 00 01 00000000  0800 0100 c6336400  0800 0500 c0000201  0800 0400 03000000`, ""},
		{"blackhole", `02 18 00 00 fe 03 00 06 00000000  0800 0100 c6336400  0800 0400 03000000`, ""},
		{"another table", `02 18 00 00 64 03 fd 01 00000000  0800 0100 c6336400  0800 0400 03000000`, ""},
		{"own address", `02 20 00 00 ff 02 fe 02 00000000  0800 0100 c0000201  0800 0400 03000000`, "192.0.2.1/32"},
		{"impossible prefix", `02 40 00 00 fe 02 fd 01 00000000  0800 0100 c0000200  0800 0400 03000000`, ""},
		{"destination of odd size", `02 18 00 00 fe 02 fd 01 00000000  0700 0100 c00002 00  0800 0400 03000000`, ""},
	} {
		r, ok, err := parseRoute(unhex(t, c.hex))
		require.NoError(t, err, c.name)
		if require.Equal(t, c.want != "", ok, c.name); ok {
			require.Equal(t, c.want, r.Dst.String(), c.name)
			require.Equal(t, 3, r.Index, c.name)
		}
	}
	r, _, err := parseRoute(unhex(t, `02 18 00 00 fe 02 fd 01 10000000  0800 0100 c0000200  0800 0400 03000000  0800 0700 c0000201  0800 0600 64000000`))
	require.NoError(t, err)
	require.Equal(t, Route{
		Dst: netip.MustParsePrefix("192.0.2.0/24"), Index: 3, Source: ip("192.0.2.1"), Metric: 100, Protocol: 2, Dead: true,
	}, r, "RTNH_F_LINKDOWN marks it dead")
	_, _, err = parseRoute(nil)
	require.ErrorIs(t, err, errShort)
}

func FuzzParse(f *testing.F) {
	f.Add(marshalAddr(Addr{IP: ip("192.0.2.50"), Bits: 24, Index: 3, Label: "eth0:vip", Valid: 1}))
	f.Add(marshalAddr(Addr{IP: ip("2001:db8::50"), Bits: 64, Index: 3, Flags: FlagNoPrefixRoute}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := parseAddr(b); err == nil {
			_ = a.String()
			_ = a.Prefix()
			_ = dependents(a, []Addr{a})
		}
		if l, err := parseLink(b); err == nil {
			_ = l.Trouble()
		}
		if r, ok, err := parseRoute(b); err == nil && ok && !r.Dst.IsValid() {
			t.Fatalf("a route without a valid destination counts: %v", r)
		}
	})
}
