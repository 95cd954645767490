package announce

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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

var (
	testMAC  = [6]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	otherMAC = [6]byte{0x52, 0x54, 0, 0xaa, 0xbb, 0xcc}
	ip4      = netip.MustParseAddr("192.0.2.50")
	ip6      = netip.MustParseAddr("2001:db8::50")
)

func equalHex(t *testing.T, want string, got []byte) {
	t.Helper()
	require.Equal(t, hex.EncodeToString(unhex(t, want)), hex.EncodeToString(got))
}

func TestGratuitousARPIsRequestAndReplyGolden(t *testing.T) {
	frames := announcements(testMAC, ip4, false)
	require.Len(t, frames, 2)
	for _, f := range frames {
		require.Equal(t, broadcast, f.to)
		require.Equal(t, uint16(0x0806), f.ethertype)
	}
	equalHex(t, `0001 0800 06 04 0001     // Ethernet, IPv4, sizes, request
		525400123456 c0000232         // sender
		000000000000 c0000232         // target: hardware address zero`, frames[0].payload)
	equalHex(t, `0001 0800 06 04 0002     // reply
		525400123456 c0000232
		525400123456 c0000232         // target: the sender again`, frames[1].payload)
}

func TestARPProbeClaimsNothingGolden(t *testing.T) {
	f := probe(testMAC, ip4)
	require.Equal(t, broadcast, f.to)
	equalHex(t, `0001 0800 06 04 0001 525400123456 00000000 000000000000 c0000232`, f.payload)
}

func TestUnsolicitedNeighborAdvertisementGolden(t *testing.T) {
	frames := announcements(testMAC, ip6, false)
	require.Len(t, frames, 1)
	require.Equal(t, [6]byte{0x33, 0x33, 0, 0, 0, 1}, frames[0].to)
	equalHex(t, `60000000 0020 3a ff                // IPv6, 32 bytes, ICMPv6, hop limit 255
		20010db8 00000000 00000000 00000050      // from the address itself
		ff020000 00000000 00000000 00000001      // to all nodes
		88 00 73d1 20 000000                     // advertisement, checksum, override
		20010db8 00000000 00000000 00000050      // target
		02 01 525400123456                       // target link-layer address`, frames[0].payload)
	require.Zero(t, verify(frames[0].payload))

	router := announcements(testMAC, ip6, true)[0].payload
	require.Equal(t, byte(flagRouter|flagOverride), router[ipv6HeaderLen+4], "a router must not lose its bit")
	require.Zero(t, verify(router))
}

func TestNeighborProbeGolden(t *testing.T) {
	f := probe(testMAC, ip6)
	require.Equal(t, [6]byte{0x33, 0x33, 0xff, 0, 0, 0x50}, f.to)
	equalHex(t, `60000000 0018 3a ff
		00000000 00000000 00000000 00000000      // from the unspecified address
		ff020000 00000000 00000001 ff000050      // to the solicited-node group
		87 00 4c4f 00000000
		20010db8 00000000 00000000 00000050`, f.payload)
	require.Zero(t, verify(f.payload))
}

func TestTickleGolden(t *testing.T) {
	b := tickle(netip.AddrPortFrom(ip4, 2049), netip.MustParseAddrPort("198.51.100.7:812"))
	equalHex(t, `45 00 0028 0000 4000 40 06 0000   // 40 bytes, do not fragment, TCP
		c0000232 c6336407
		0801 032c                                // 2049 to 812
		00000000 00000000                        // sequence, acknowledgment
		50 10 0400 b43a 0000                     // ACK, window 1024, checksum`, b)
	require.Zero(t, verify(b))

	b = tickle(netip.AddrPortFrom(ip6, 2049), netip.MustParseAddrPort("[2001:db8::7]:812"))
	equalHex(t, `60000000 0014 06 40
		20010db8 00000000 00000000 00000050
		20010db8 00000000 00000000 00000007
		0801 032c
		00000000 00000000
		50 10 0400 44df 0000`, b)
	require.Zero(t, verify(b))
}

// verify sums a whole packet as a receiver does: zero means correct. It is
// written apart from checksum, over a pseudo header laid out as in RFC 8200,
// 8.1, and RFC 9293, 3.1.
func verify(packet []byte) uint16 {
	var pseudo, payload []byte
	if packet[0]>>4 == 6 {
		payload = packet[40:]
		pseudo = append(pseudo, packet[8:40]...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(payload)))
		pseudo = append(pseudo, 0, 0, 0, packet[6])
	} else {
		payload = packet[20:]
		pseudo = append(pseudo, packet[12:20]...)
		pseudo = append(pseudo, 0, packet[9])
		pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(payload)))
	}
	var sum uint64
	for _, b := range [][]byte{pseudo, payload} {
		for i := 0; i < len(b); i += 2 {
			sum += uint64(b[i]) << 8
			if i+1 < len(b) {
				sum += uint64(b[i+1])
			}
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func TestChecksumOfOddLengthCountsTheLastByte(t *testing.T) {
	require.Equal(t, checksum(nil, 6, []byte{1, 2, 3, 0})+1, checksum(nil, 6, []byte{1, 2, 3}), "they differ by the length only")
	require.NotEqual(t, checksum(nil, 6, []byte{1, 2, 3}), checksum(nil, 6, []byte{1, 2, 4}))
}

func TestJudgeARPTellsWhoHasTheAddress(t *testing.T) {
	other4 := [4]byte{192, 0, 2, 51}
	mine := ip4.As4()
	for _, c := range []struct {
		name    string
		packet  []byte
		holder  string // "" for no conflict
		probing bool
	}{
		{"reply", arpPacket(arpReply, otherMAC, mine, testMAC, [4]byte{}), "52:54:00:aa:bb:cc", false},
		{"gratuitous request", arpAnnouncement(arpRequest, otherMAC, mine), "52:54:00:aa:bb:cc", false},
		{"gratuitous reply", arpAnnouncement(arpReply, otherMAC, mine), "52:54:00:aa:bb:cc", false},
		{"the holder asks for somebody", arpPacket(arpRequest, otherMAC, mine, [6]byte{}, other4), "52:54:00:aa:bb:cc", false},
		{"another probe for it", arpProbe(otherMAC, mine), "52:54:00:aa:bb:cc", true},
		{"somebody asks for it", arpPacket(arpRequest, otherMAC, other4, [6]byte{}, mine), "", false},
		{"another address", arpPacket(arpReply, otherMAC, other4, testMAC, mine), "", false},
		{"a probe for another address", arpProbe(otherMAC, other4), "", false},
		{"our own, come back over a bridge", arpAnnouncement(arpReply, testMAC, mine), "", false},
		{"our own probe", arpProbe(testMAC, mine), "", false},
		{"cut", arpAnnouncement(arpReply, otherMAC, mine)[:27], "", false},
		{"empty", nil, "", false},
		{"not Ethernet", append([]byte{0, 32}, arpAnnouncement(arpReply, otherMAC, mine)[2:]...), "", false},
		{"padded to the Ethernet minimum", append(arpAnnouncement(arpReply, otherMAC, mine), make([]byte, 18)...), "52:54:00:aa:bb:cc", false},
	} {
		check(t, c.name, judge(c.packet, otherMAC, testMAC, ip4), c.holder, c.probing)
	}
}

func check(t *testing.T, name string, got *Conflict, holder string, probing bool) {
	t.Helper()
	if holder == "" {
		require.Nil(t, got, name)
		return
	}
	require.NotNil(t, got, name)
	require.Equal(t, holder, got.HardwareAddr.String(), name)
	require.Equal(t, probing, got.Probing, name)
}

func TestJudgeNDPTellsWhoHasTheAddress(t *testing.T) {
	change := func(b []byte, at int, value ...byte) []byte {
		copy(b[at:], value)
		return b
	}
	advert := func() []byte { return neighborAdvertisement(otherMAC, ip6, false) }
	router := [6]byte{2, 0, 0, 0, 0, 9}
	for _, c := range []struct {
		name    string
		packet  []byte
		from    [6]byte
		holder  string
		probing bool
	}{
		{"advertisement", advert(), otherMAC, "52:54:00:aa:bb:cc", false},
		{"advertisement whose option names the holder", advert(), router, "52:54:00:aa:bb:cc", false},
		{"advertisement without option", advert()[:ipv6HeaderLen+ndLen], otherMAC, "52:54:00:aa:bb:cc", false},
		{"option of length zero", change(advert(), ipv6HeaderLen+ndLen+1, 0), otherMAC, "52:54:00:aa:bb:cc", false},
		{"option longer than the packet", change(advert(), ipv6HeaderLen+ndLen, 14, 200), otherMAC, "52:54:00:aa:bb:cc", false},
		{"another's duplicate address detection", neighborProbe(ip6), otherMAC, "52:54:00:aa:bb:cc", true},
		{"our own detection come back", neighborProbe(ip6), testMAC, "", false},
		{"our own advertisement by way of a router", neighborAdvertisement(testMAC, ip6, false), router, "", false},
		{"somebody asks for it", change(neighborProbe(ip6), 8, 0x20, 1), otherMAC, "", false},
		{"another address", neighborAdvertisement(otherMAC, netip.MustParseAddr("2001:db8::51"), false), otherMAC, "", false},
		{"forged from afar: hop limit", change(advert(), 7, 254), otherMAC, "", false},
		{"not ICMPv6", change(advert(), 6, 17), otherMAC, "", false},
		{"IPv4", change(advert(), 0, 0x45), otherMAC, "", false},
		{"echo request", change(advert(), ipv6HeaderLen, 128), otherMAC, "", false},
		{"cut", advert()[:ipv6HeaderLen+ndLen-1], otherMAC, "", false},
		{"empty", nil, otherMAC, "", false},
	} {
		check(t, c.name, judge(c.packet, c.from, testMAC, ip6), c.holder, c.probing)
	}
}

func FuzzJudge(f *testing.F) {
	f.Add(arpAnnouncement(arpReply, otherMAC, ip4.As4()))
	f.Add(neighborAdvertisement(otherMAC, ip6, true))
	f.Add(neighborProbe(ip6))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, ip := range []netip.Addr{ip4, ip6} {
			if c := judge(b, otherMAC, testMAC, ip); c != nil && len(c.HardwareAddr) != 6 {
				t.Fatalf("a conflict without a hardware address: %v", c)
			}
			if c := judge(b, testMAC, testMAC, ip); c != nil && c.HardwareAddr.String() == "52:54:00:12:34:56" {
				t.Fatal("in conflict with ourselves")
			}
		}
	})
}

func TestOnlyEthernetAddressesAreAnnounced(t *testing.T) {
	for _, hw := range [][]byte{nil, make([]byte, 20)} {
		_, err := NewAnnouncer(Interface{Index: 1, HardwareAddr: hw}, ip4, false)
		require.ErrorContains(t, err, "expected the 6 of Ethernet")
		_, err = NewWatch(Interface{Index: 1, HardwareAddr: hw}, ip4)
		require.ErrorContains(t, err, "expected the 6 of Ethernet")
	}
	require.Equal(t, [2]byte{0x08, 0x06}, [2]byte(binary.NativeEndian.AppendUint16(nil, networkOrder(unix.ETH_P_ARP))))
}
