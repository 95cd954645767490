package addresses

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Route is a route that leads directly onto a link.
type Route struct {
	Dst   netip.Prefix
	Index int
	// Source is the preferred source address; not valid for none.
	Source netip.Addr
	Metric uint32
	// Protocol is who made it: RTPROT_KERNEL (2), _BOOT, _STATIC, _RA, _DHCP …
	Protocol uint8
	// Local marks routes of the local table: addresses of this host.
	Local bool
	// Dead marks a route whose link is down or has no carrier.
	Dead bool
}

// OnLink gives the routes of the family of like that lead onto a link without
// a gateway: those of the main table, which describe the networks this host is
// in, and those of the local table, which describe its own addresses. Default
// routes are left out.
func OnLink(like netip.Addr) ([]Route, error) {
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family(like)
	msgs, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, header)
	if err != nil {
		return nil, &Error{Op: "list routes", Err: err}
	}
	var list []Route
	for _, m := range msgs {
		r, ok, err := parseRoute(m)
		if err != nil {
			return nil, &Error{Op: "list routes", Err: err}
		}
		if ok && r.Dst.Addr().Is4() == like.Is4() {
			list = append(list, r)
		}
	}
	return list, nil
}

// attrNexthopID is RTA_NH_ID of include/uapi/linux/rtnetlink.h.
const attrNexthopID = 30

// parseRoute reads one RTM_NEWROUTE and says whether it is one of OnLink's:
//
//	struct rtmsg {
//		unsigned char rtm_family, rtm_dst_len, rtm_src_len, rtm_tos,
//		              rtm_table, rtm_protocol, rtm_scope, rtm_type;
//		unsigned      rtm_flags;
//	};
func parseRoute(b []byte) (r Route, onLink bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return Route{}, false, errShort
	}
	bits, table, kind := int(b[1]), uint32(b[4]), b[7]
	flags := binary.NativeEndian.Uint32(b[8:])
	r = Route{Protocol: b[5], Dead: flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0}
	var dst netip.Addr
	gateway := false
	for attr, value := range attributes(b[unix.SizeofRtMsg:]) {
		switch attr {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case unix.RTA_OIF:
			r.Index = int(number(value))
		case unix.RTA_PREFSRC:
			r.Source, _ = netip.AddrFromSlice(value)
		case unix.RTA_PRIORITY:
			r.Metric = number(value)
		case unix.RTA_TABLE:
			table = number(value)
		case unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH, attrNexthopID:
			gateway = true
		}
	}
	switch {
	case gateway, r.Index == 0, bits == 0, !dst.IsValid():
		return r, false, nil
	case table == unix.RT_TABLE_MAIN && kind == unix.RTN_UNICAST:
	case table == unix.RT_TABLE_LOCAL && kind == unix.RTN_LOCAL:
		r.Local = true
	default:
		return r, false, nil
	}
	r.Dst = netip.PrefixFrom(dst, bits)
	return r, r.Dst.IsValid(), nil
}
