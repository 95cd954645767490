package announce

import (
	"encoding/binary"
	"net/netip"
)

// ICMPv6 of neighbor discovery (RFC 4861, 4.3 and 4.4), behind an IPv6 header
// with hop limit 255:
//
//	 0  type      135 neighbor solicitation, 136 neighbor advertisement
//	 1  code      0
//	 2  checksum
//	 4  flags     of an advertisement: 0x80 router, 0x40 solicited, 0x20 override
//	 8  target address
//	24  options   type, length in units of 8 bytes, value;
//	              1 source link-layer address, 2 target link-layer address
const (
	ipv6HeaderLen          = 40
	icmp6                  = 58
	neighborSolicit        = 135
	neighborAdvert         = 136
	ndLen                  = 24
	flagRouter             = 0x80
	flagOverride           = 0x20
	optionTargetLinkLayer  = 2
	neighborDiscoveryLimit = 255
)

var allNodes = [16]byte{0: 0xff, 1: 0x02, 15: 0x01}

// multicastMAC is the Ethernet address of an IPv6 multicast group (RFC 2464, 7).
func multicastMAC(group [16]byte) [6]byte {
	return [6]byte{0x33, 0x33, group[12], group[13], group[14], group[15]}
}

// solicitedNode is the group that the holder of ip listens to (RFC 4291, 2.7.1).
func solicitedNode(ip [16]byte) [16]byte {
	return [16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: ip[13], 14: ip[14], 15: ip[15]}
}

// neighborAdvertisement is the unsolicited one of RFC 4861, 7.2.6: to all
// nodes, override set, solicited clear, with the new hardware address.
func neighborAdvertisement(mac [6]byte, ip netip.Addr, router bool) []byte {
	flags := byte(flagOverride)
	if router {
		flags |= flagRouter
	}
	target := ip.As16()
	msg := []byte{neighborAdvert, 0, 0, 0, flags, 0, 0, 0}
	msg = append(msg, target[:]...)
	msg = append(msg, optionTargetLinkLayer, 1)
	msg = append(msg, mac[:]...)
	return ipv6Packet(icmp6, neighborDiscoveryLimit, target, allNodes, msg, 2)
}

// neighborProbe is the solicitation of duplicate address detection (RFC 4862,
// 5.4.2): from the unspecified address, so that nobody learns anything from it.
func neighborProbe(ip netip.Addr) []byte {
	target := ip.As16()
	msg := append([]byte{neighborSolicit, 0, 0, 0, 0, 0, 0, 0}, target[:]...)
	return ipv6Packet(icmp6, neighborDiscoveryLimit, [16]byte{}, solicitedNode(target), msg, 2)
}

// judgeNDP tells whether a received IPv6 packet shows that another host has ip,
// by advertising it, or is about to take it, by a solicitation from the
// unspecified address. from is the hardware address the frame came from.
func judgeNDP(b []byte, from, own [6]byte, ip netip.Addr) *Conflict {
	if len(b) < ipv6HeaderLen+ndLen || b[0]>>4 != 6 || b[6] != icmp6 || b[7] != neighborDiscoveryLimit {
		return nil
	}
	source := netip.AddrFrom16([16]byte(b[8:]))
	msg := b[ipv6HeaderLen:]
	if netip.AddrFrom16([16]byte(msg[8:])) != ip.WithZone("") || from == own {
		return nil
	}
	switch msg[0] {
	case neighborAdvert:
		holder := from
		for opt := msg[ndLen:]; len(opt) >= 8 && opt[1] != 0; opt = opt[min(8*int(opt[1]), len(opt)):] {
			if opt[0] == optionTargetLinkLayer && opt[1] == 1 {
				holder = [6]byte(opt[2:])
			}
		}
		if holder == own {
			return nil
		}
		return &Conflict{HardwareAddr: holder[:]}
	case neighborSolicit:
		if source.IsUnspecified() {
			return &Conflict{HardwareAddr: from[:], Probing: true}
		}
	}
	return nil
}

// ipv6Packet puts an IPv6 header (RFC 8200) before a payload and its checksum
// into the payload, at the given offset.
func ipv6Packet(protocol, hopLimit uint8, from, to [16]byte, payload []byte, checksumAt int) []byte {
	b := make([]byte, 0, ipv6HeaderLen+len(payload))
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, protocol, hopLimit)
	b = append(b, from[:]...)
	b = append(b, to[:]...)
	b = append(b, payload...)
	pseudo := append(append([]byte(nil), from[:]...), to[:]...)
	sum := checksum(pseudo, protocol, payload)
	binary.BigEndian.PutUint16(b[ipv6HeaderLen+checksumAt:], sum)
	return b
}

// checksum is the Internet checksum (RFC 1071) over a pseudo header, which is
// the addresses, the length and the protocol, and the payload, whose own
// checksum field must be zero. The pseudo headers of IPv4 and IPv6 differ in
// zero bytes only, which do not count.
func checksum(addresses []byte, protocol uint8, payload []byte) uint16 {
	sum := uint32(protocol) + uint32(len(payload))
	for _, part := range [][]byte{addresses, payload} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
		if len(part)%2 == 1 {
			sum += uint32(part[len(part)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
