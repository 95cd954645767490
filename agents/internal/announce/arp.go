package announce

import (
	"encoding/binary"
	"net/netip"
)

// An ARP packet for IPv4 over Ethernet (RFC 826):
//
//	 0  hardware type   1, Ethernet
//	 2  protocol type   0x0800, IPv4
//	 4  hardware size   6
//	 5  protocol size   4
//	 6  operation       1 request, 2 reply
//	 8  sender hardware address
//	14  sender protocol address
//	18  target hardware address
//	24  target protocol address
const (
	arpLen     = 28
	arpRequest = 1
	arpReply   = 2
)

func arpPacket(op uint16, senderMAC [6]byte, sender [4]byte, targetMAC [6]byte, target [4]byte) []byte {
	b := make([]byte, 0, arpLen)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, 0x0800)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(b, senderMAC[:]...)
	b = append(b, sender[:]...)
	b = append(b, targetMAC[:]...)
	return append(b, target[:]...)
}

// arpAnnouncement is a gratuitous ARP: sender and target protocol address are
// both the announced one. A request leaves the target hardware address zero
// (RFC 5227, 2.3). A reply repeats the sender's there: Linux takes a reply for
// gratuitous, and so believes it at once, only then (net/ipv4/arp.c,
// arp_is_garp).
func arpAnnouncement(op uint16, mac [6]byte, ip [4]byte) []byte {
	var target [6]byte
	if op == arpReply {
		target = mac
	}
	return arpPacket(op, mac, ip, target, ip)
}

// arpProbe asks for an address without claiming it: its sender protocol
// address is 0.0.0.0, so that nobody learns anything from it (RFC 5227, 2.1.1).
func arpProbe(mac [6]byte, ip [4]byte) []byte {
	return arpPacket(arpRequest, mac, [4]byte{}, [6]byte{}, ip)
}

// judgeARP tells whether a received packet shows that another host has ip or is
// about to take it (RFC 5227, 2.1.1): any packet that carries ip as sender
// address, or a probe for it, from a hardware address that is not ours.
func judgeARP(b []byte, own [6]byte, ip netip.Addr) *Conflict {
	if len(b) < arpLen || binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return nil
	}
	op := binary.BigEndian.Uint16(b[6:])
	sender, target := netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	c := &Conflict{HardwareAddr: append([]byte(nil), b[8:14]...)}
	switch {
	case [6]byte(b[8:]) == own:
		return nil
	case sender == ip:
		return c
	case op == arpRequest && sender.IsUnspecified() && target == ip:
		c.Probing = true
		return c
	}
	return nil
}
