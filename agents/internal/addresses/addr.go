package addresses

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Forever is the lifetime of an address that does not expire
// (INFINITY_LIFE_TIME of net/addrconf.h).
const Forever uint32 = 0xffffffff

// Flags of an address, from include/uapi/linux/if_addr.h.
const (
	FlagSecondary     = unix.IFA_F_SECONDARY // IPv4 only; the bit means temporary for IPv6
	FlagNoDAD         = unix.IFA_F_NODAD
	FlagDADFailed     = unix.IFA_F_DADFAILED
	FlagDeprecated    = unix.IFA_F_DEPRECATED
	FlagTentative     = unix.IFA_F_TENTATIVE
	FlagPermanent     = unix.IFA_F_PERMANENT
	FlagNoPrefixRoute = unix.IFA_F_NOPREFIXROUTE
)

// Addr is one address of one interface.
type Addr struct {
	IP netip.Addr
	// Bits is the prefix length.
	Bits int
	// Index is the interface's number.
	Index int
	// Label is "eth0" or "eth0:name"; IPv6 addresses have none.
	Label string
	// Broadcast is the broadcast address; not valid for none and for IPv6.
	Broadcast netip.Addr
	// Peer is the other end of a point-to-point address; not valid for none.
	Peer netip.Addr
	// Scope is RT_SCOPE_UNIVERSE (0), _LINK, _HOST.
	Scope uint8
	Flags uint32
	// Preferred and Valid are the lifetimes in seconds left; Forever for permanent ones.
	Preferred, Valid uint32
	// Metric is the priority of the address's prefix route, 0 for the kernel's default.
	Metric uint32
}

// String is the address as ip(8) writes it: 192.0.2.50/24.
func (a Addr) String() string { return fmt.Sprintf("%v/%d", a.IP, a.Bits) }

// Prefix is the network of the address.
func (a Addr) Prefix() netip.Prefix { return netip.PrefixFrom(a.IP, a.Bits).Masked() }

// Secondary tells whether the address goes when the first of its prefix goes.
func (a Addr) Secondary() bool { return a.IP.Is4() && a.Flags&FlagSecondary != 0 }

// Family is unix.AF_INET or unix.AF_INET6.
func family(ip netip.Addr) uint8 {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// List gives all addresses of the family of like, of all interfaces.
func List(like netip.Addr) ([]Addr, error) {
	header := make([]byte, unix.SizeofIfAddrmsg)
	header[0] = family(like)
	msgs, err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, header)
	if err != nil {
		return nil, &Error{Op: "list addresses", Err: err}
	}
	list := make([]Addr, 0, len(msgs))
	for _, m := range msgs {
		a, err := parseAddr(m)
		if err != nil {
			return nil, &Error{Op: "list addresses", Err: err}
		}
		// A kernel without IPv6 answers a request for its addresses with all it has.
		if a.IP.IsValid() && a.IP.Is4() == like.Is4() {
			list = append(list, a)
		}
	}
	return list, nil
}

// Find gives the entries of ip, on whatever interface and with whatever prefix.
func Find(ip netip.Addr) ([]Addr, error) {
	list, err := List(ip)
	if err != nil {
		return nil, err
	}
	var found []Addr
	for _, a := range list {
		if a.IP == ip {
			found = append(found, a)
		}
	}
	return found, nil
}

// Add gives the interface the address. The error wraps unix.EEXIST when it has
// it already (for IPv6: with any prefix).
func Add(a Addr) error {
	return addrError("add", a, change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, marshalAddr(a)))
}

// Update changes lifetimes and flags of an address that is there, in place.
func Update(a Addr) error {
	return addrError("update", a, change(unix.RTM_NEWADDR, unix.NLM_F_REPLACE, marshalAddr(a)))
}

// remove takes exactly this entry off the interface; one that is not there,
// or whose interface has gone, is no error.
func remove(a Addr) error {
	// The kernel compares what it is told: local address, label, prefix and peer.
	msg := marshalAddr(Addr{IP: a.IP, Bits: a.Bits, Index: a.Index, Label: a.Label, Peer: a.Peer, Scope: a.Scope})
	err := change(unix.RTM_DELADDR, 0, msg)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return addrError("remove", a, err)
}

func addrError(op string, a Addr, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Object: a.String(), Err: err}
}

// The messages RTM_NEWADDR and RTM_DELADDR:
//
//	struct ifaddrmsg {
//		__u8	ifa_family, ifa_prefixlen, ifa_flags, ifa_scope;
//		__u32	ifa_index;
//	};
//
// IFA_ADDRESS is the prefix's address, which on point-to-point links is the
// peer's; IFA_LOCAL is the interface's own. IFA_FLAGS is the 32-bit form of
// ifa_flags.
func marshalAddr(a Addr) []byte {
	msg := []byte{family(a.IP), uint8(a.Bits), uint8(a.Flags), a.Scope}
	msg = binary.NativeEndian.AppendUint32(msg, uint32(a.Index))
	msg = attribute(msg, unix.IFA_LOCAL, a.IP.AsSlice())
	peer := a.IP
	if a.Peer.IsValid() {
		peer = a.Peer
	}
	msg = attribute(msg, unix.IFA_ADDRESS, peer.AsSlice())
	if a.Flags > 0xff {
		msg = attribute(msg, unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, a.Flags))
	}
	if a.Broadcast.IsValid() {
		msg = attribute(msg, unix.IFA_BROADCAST, a.Broadcast.AsSlice())
	}
	if a.Label != "" {
		msg = attribute(msg, unix.IFA_LABEL, append([]byte(a.Label), 0))
	}
	if a.Metric != 0 {
		msg = attribute(msg, unix.IFA_RT_PRIORITY, binary.NativeEndian.AppendUint32(nil, a.Metric))
	}
	if a.Valid != 0 {
		// struct ifa_cacheinfo: preferred and valid lifetime, two timestamps; each a __u32.
		info := binary.NativeEndian.AppendUint32(nil, a.Preferred)
		info = binary.NativeEndian.AppendUint32(info, a.Valid)
		msg = attribute(msg, unix.IFA_CACHEINFO, append(info, make([]byte, 8)...))
	}
	return msg
}

func parseAddr(b []byte) (Addr, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return Addr{}, errShort
	}
	a := Addr{Bits: int(b[1]), Flags: uint32(b[2]), Scope: b[3], Index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	var local, address netip.Addr
	for kind, value := range attributes(b[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(value)
		case unix.IFA_BROADCAST:
			a.Broadcast, _ = netip.AddrFromSlice(value)
		case unix.IFA_LABEL:
			a.Label = text(value)
		case unix.IFA_FLAGS:
			a.Flags = number(value)
		case unix.IFA_RT_PRIORITY:
			a.Metric = number(value)
		case unix.IFA_CACHEINFO:
			if len(value) >= 8 {
				a.Preferred, a.Valid = number(value), number(value[4:])
			}
		}
	}
	a.IP = local
	if !local.IsValid() {
		a.IP = address // IPv6 sends IFA_LOCAL only for point-to-point addresses
	} else if address.IsValid() && address != local {
		a.Peer = address
	}
	return a, nil
}
