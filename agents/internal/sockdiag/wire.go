package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Message types of include/uapi/linux/sock_diag.h.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
)

// Sizes and numbers of include/uapi/linux/inet_diag.h:
//
//	struct inet_diag_sockid {
//		__be16	idiag_sport;		/*  0 */
//		__be16	idiag_dport;		/*  2 */
//		__be32	idiag_src[4];		/*  4 */
//		__be32	idiag_dst[4];		/* 20 */
//		__u32	idiag_if;		/* 36 */
//		__u32	idiag_cookie[2];	/* 40 */
//	};
//	struct inet_diag_req_v2 {
//		__u8	sdiag_family, sdiag_protocol, idiag_ext, pad;
//		__u32	idiag_states;
//		struct inet_diag_sockid id;	/*  8 */
//	};
//	struct inet_diag_msg {
//		__u8	idiag_family, idiag_state, idiag_timer, idiag_retrans;
//		struct inet_diag_sockid id;	/*  4 */
//		__u32	idiag_expires, idiag_rqueue, idiag_wqueue;
//		__u32	idiag_uid;		/* 64 */
//		__u32	idiag_inode;		/* 68 */
//	};
const (
	sockidLen = 48
	reqLen    = 8 + sockidLen
	msgLen    = 4 + sockidLen + 20

	reqBytecode = 1 // INET_DIAG_REQ_BYTECODE
	bcSrcCond   = 7 // INET_DIAG_BC_S_COND
)

// marshalList builds the dump request: inet_diag_req_v2, and the address and
// port as bytecode, so that the kernel of a busy server does not copy tens of
// thousands of foreign sockets.
func marshalList(family uint8, f Filter) []byte {
	b := make([]byte, reqLen)
	b[0], b[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], uint32(f.states()))
	if !f.Local.IsValid() && f.Port == 0 {
		return b
	}
	code := marshalCondition(f)
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(code)))
	b = binary.NativeEndian.AppendUint16(b, reqBytecode)
	return slices.Concat(b, code)
}

// marshalCondition builds a program of one instruction:
//
//	struct inet_diag_bc_op { unsigned char code, yes; unsigned short no; };
//	struct inet_diag_hostcond { __u8 family, prefix_len; int port; __be32 addr[]; };
//
// yes and no are jump distances; one that ends exactly behind the program
// accepts, one that ends 4 behind it rejects (net/ipv4/inet_diag.c,
// inet_diag_bc_run). A condition of family AF_INET also matches the mapped
// addresses of AF_INET6 sockets there, and one of AF_UNSPEC any address.
func marshalCondition(f Filter) []byte {
	family, addr := uint8(unix.AF_UNSPEC), []byte(nil)
	if f.Local.IsValid() {
		local := f.Local.Unmap()
		addr = local.AsSlice()
		family = unix.AF_INET6
		if local.Is4() {
			family = unix.AF_INET
		}
	}
	n := 4 + 8 + len(addr)
	b := make([]byte, n)
	b[0], b[1] = bcSrcCond, uint8(n)
	binary.NativeEndian.PutUint16(b[2:], uint16(n+4))
	b[4], b[5] = family, uint8(8*len(addr))
	port := int32(-1) // any
	if f.Port != 0 {
		port = int32(f.Port)
	}
	binary.NativeEndian.PutUint32(b[8:], uint32(port))
	copy(b[12:], addr)
	return b
}

// marshalDestroy names one socket by addresses, interface and cookie.
func marshalDestroy(s Socket) []byte {
	b := make([]byte, reqLen)
	b[0], b[1] = s.Family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<s.State)
	copy(b[8:], s.id[:])
	return b
}

// parseSocket reads one inet_diag_msg; attributes behind it are skipped.
func parseSocket(b []byte) (Socket, error) {
	if len(b) < msgLen {
		return Socket{}, fmt.Errorf("answer of %d bytes, expected at least %d (struct inet_diag_msg)", len(b), msgLen)
	}
	s := Socket{
		Family:    b[0],
		State:     State(b[1]),
		Interface: binary.NativeEndian.Uint32(b[4+36:]),
		UID:       binary.NativeEndian.Uint32(b[64:]),
		Inode:     binary.NativeEndian.Uint32(b[68:]),
	}
	copy(s.id[:], b[4:4+sockidLen])
	local, err := parseAddr(s.Family, b[4+4:])
	if err != nil {
		return Socket{}, err
	}
	remote, err := parseAddr(s.Family, b[4+20:])
	if err != nil {
		return Socket{}, err
	}
	s.Local = netip.AddrPortFrom(local, binary.BigEndian.Uint16(b[4:]))
	s.Remote = netip.AddrPortFrom(remote, binary.BigEndian.Uint16(b[6:]))
	return s, nil
}

func parseAddr(family uint8, b []byte) (netip.Addr, error) {
	switch family {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(b)), nil
	case unix.AF_INET6:
		return netip.AddrFrom16([16]byte(b)).Unmap(), nil
	}
	return netip.Addr{}, fmt.Errorf("socket of address family %d, expected %d (AF_INET) or %d (AF_INET6)", family, unix.AF_INET, unix.AF_INET6)
}
