package announce

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Tickler sends tickle ACKs: TCP segments that belong to no connection of this
// host, in the name of an address it has taken over, to peers that believe to
// be connected with it.
//
// The peer answers an acknowledgment out of its window with one of its own
// (RFC 9293, 3.10.7.4), this host has no such connection and answers that with
// a reset, and the peer, which would have waited for its next retransmission,
// reconnects at once. A peer without that connection answers with a reset that
// nobody misses, and a new connection between the same ports is not harmed: its
// peer merely repeats its acknowledgment.
type Tickler struct {
	fd    int
	local netip.Addr
	index int
}

// NewTickler prepares to tickle the peers of local, which must be an address of
// this host. index is the interface of a link-local address, else 0.
func NewTickler(local netip.Addr, index int) (*Tickler, error) {
	fail := func(call string, err error) (*Tickler, error) {
		return nil, &Error{Op: "tickle the peers of", Object: local.String(), Err: os.NewSyscallError(call, err)}
	}
	domain := unix.AF_INET6
	if local.Is4() {
		domain = unix.AF_INET
	}
	// IPPROTO_RAW: the headers are ours, and nothing is received (raw(7)).
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fail("socket", err)
	}
	t := &Tickler{fd: fd, local: local, index: index}
	// Bound, so that routing rules by source address hold.
	if err := unix.Bind(fd, t.sockaddr(local)); err != nil {
		_ = unix.Close(fd)
		return fail("bind", err)
	}
	return t, nil
}

// Tickle sends one ACK for the connection between the local port and remote.
func (t *Tickler) Tickle(localPort uint16, remote netip.AddrPort) error {
	local := netip.AddrPortFrom(t.local, localPort)
	err := unix.Sendto(t.fd, tickle(local, remote), 0, t.sockaddr(remote.Addr()))
	if err != nil {
		return &Error{Op: "tickle", Object: local.String() + " " + remote.String(), Err: os.NewSyscallError("sendto", err)}
	}
	return nil
}

// Close releases the socket.
func (t *Tickler) Close() { _ = unix.Close(t.fd) }

// sockaddr has port 0: raw(7) wants none.
func (t *Tickler) sockaddr(ip netip.Addr) unix.Sockaddr {
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4()}
	}
	to := &unix.SockaddrInet6{Addr: ip.As16()}
	if ip.IsLinkLocalUnicast() {
		to.ZoneId = uint32(t.index)
	}
	return to
}

// A TCP header (RFC 9293, 3.1):
//
//	 0  source port, destination port
//	 4  sequence number
//	 8  acknowledgment number
//	12  data offset in 32-bit words << 4
//	13  flags; 0x10 is ACK
//	14  window
//	16  checksum
//	18  urgent pointer
const (
	tcpLen        = 20
	flagACK       = 0x10
	ipv4HeaderLen = 20
	hopLimit      = 64
)

// tickle is the whole packet. Sequence and acknowledgment numbers are zero,
// which is out of the window of any but one connection in tens of thousands.
func tickle(local, remote netip.AddrPort) []byte {
	tcp := make([]byte, tcpLen)
	binary.BigEndian.PutUint16(tcp[0:], local.Port())
	binary.BigEndian.PutUint16(tcp[2:], remote.Port())
	tcp[12], tcp[13] = tcpLen/4<<4, flagACK
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	if local.Addr().Is6() {
		return ipv6Packet(unix.IPPROTO_TCP, hopLimit, local.Addr().As16(), remote.Addr().As16(), tcp, 16)
	}
	from, to := local.Addr().As4(), remote.Addr().As4()
	addresses := append(append([]byte(nil), from[:]...), to[:]...)
	binary.BigEndian.PutUint16(tcp[16:], checksum(addresses, unix.IPPROTO_TCP, tcp))
	// An IPv4 header (RFC 791); the kernel fills in length, identification and
	// checksum (raw(7), IP_HDRINCL). The fields are set for who reads the packet.
	b := make([]byte, 0, ipv4HeaderLen+tcpLen)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, ipv4HeaderLen+tcpLen)
	b = append(b, 0, 0, 0x40, 0, hopLimit, unix.IPPROTO_TCP, 0, 0) // do not fragment
	b = append(b, addresses...)
	return append(b, tcp...)
}
