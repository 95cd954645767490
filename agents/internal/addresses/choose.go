package addresses

import (
	"errors"
	"fmt"
	"net/netip"
)

// Wanted is an address to be placed, with what the operator said about where.
type Wanted struct {
	IP netip.Addr
	// Index is the interface, 0 where it was not given.
	Index int
	// Bits is the prefix length, 0 where it was not given.
	Bits int
	// Broadcast says which broadcast address the entry gets.
	Broadcast Broadcast
	// Protocol restricts the routes that count to one protocol (RTPROT_), 0 for all.
	Protocol uint8
}

// Broadcast is the operator's choice of a broadcast address.
type Broadcast struct {
	// Mode is how to find it.
	Mode BroadcastMode
	// Addr is the address for BroadcastFixed.
	Addr netip.Addr
}

// BroadcastMode is how a broadcast address is found.
type BroadcastMode int

const (
	// BroadcastFromHost takes it from the host's own address in the network, if that has one.
	BroadcastFromHost BroadcastMode = iota
	// BroadcastNone sets none ("-").
	BroadcastNone
	// BroadcastComputed sets all host bits of the prefix ("+").
	BroadcastComputed
	// BroadcastFixed takes the given address.
	BroadcastFixed
)

// ErrNoNetwork says that no network of this host contains the address.
var ErrNoNetwork = errors.New("no directly connected network contains the address")

// Choose completes an address from the routing table and the host's own
// addresses, by the rules of IPaddr2's findif: with interface and prefix given
// nothing is looked up; else the most specific on-link route decides that
// contains the address (with the given prefix length, if there is one, so that
// a wider prefix than the network's finds nothing). Of several equally specific
// routes those with a live link win, then the lower metric, then the lower
// interface number: IPaddr2 takes the last one listed, which changes with the
// order in which interfaces came up.
//
// The error wraps ErrNoNetwork when there is no such route.
func Choose(w Wanted, routes []Route, addrs []Addr) (Addr, error) {
	a := Addr{IP: w.IP, Index: w.Index, Bits: w.Bits, Preferred: Forever, Valid: Forever}
	route, found := bestRoute(w, routes)
	if w.Index == 0 || w.Bits == 0 {
		if !found {
			return Addr{}, &Error{Op: "find the network of", Object: w.object(), Err: ErrNoNetwork}
		}
		a.Index = route.Index
		if w.Bits == 0 {
			a.Bits = route.Dst.Bits()
		}
	}
	if found && !route.Local && route.Index == a.Index {
		a.Metric = route.Metric
	}
	if w.IP.Is4() {
		a.Broadcast = chooseBroadcast(w.Broadcast, a, addrs)
		// A /31 or /32 has no room for one.
		if a.Bits >= 31 && w.Broadcast.Mode != BroadcastFixed {
			a.Broadcast = netip.Addr{}
		}
	}
	if w.IP.IsLoopback() {
		a.Scope = scopeHost
	} else if w.IP.Is6() && w.IP.IsLinkLocalUnicast() {
		a.Scope = scopeLink
	}
	return a, nil
}

// Scopes of include/uapi/linux/rtnetlink.h.
const (
	scopeLink = 253
	scopeHost = 254
)

func (w Wanted) object() string {
	if w.Bits == 0 {
		return w.IP.String()
	}
	return fmt.Sprintf("%v/%d", w.IP, w.Bits)
}

func bestRoute(w Wanted, routes []Route) (best Route, found bool) {
	for _, r := range routes {
		switch {
		case r.Local && (!w.IP.IsLoopback() || r.Dst.IsSingleIP()):
			// Of the local table only 127.0.0.0/8 describes a network.
			continue
		case !r.Dst.Contains(w.IP), w.Index != 0 && r.Index != w.Index, w.Bits != 0 && w.Bits < r.Dst.Bits(),
			w.Protocol != 0 && r.Protocol != w.Protocol:
			continue
		}
		if !found || better(r, best) {
			best, found = r, true
		}
	}
	return best, found
}

func better(a, b Route) bool {
	switch {
	case a.Dst.Bits() != b.Dst.Bits():
		return a.Dst.Bits() > b.Dst.Bits()
	case a.Dead != b.Dead:
		return b.Dead
	case a.Metric != b.Metric:
		return a.Metric < b.Metric
	}
	return a.Index < b.Index
}

func chooseBroadcast(b Broadcast, a Addr, addrs []Addr) netip.Addr {
	switch b.Mode {
	case BroadcastFixed:
		return b.Addr
	case BroadcastComputed:
		return lastOf(a.Prefix())
	case BroadcastFromHost:
		for _, own := range addrs {
			if own.Index == a.Index && own.IP != a.IP && own.Prefix() == a.Prefix() {
				return own.Broadcast
			}
		}
	case BroadcastNone:
	}
	return netip.Addr{}
}

// lastOf is the address of an IPv4 prefix with all host bits set.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}
