// Package announce tells a network that an address has moved to this host, asks
// before that whether another host still has it, and wakes up the peers of TCP
// connections that the previous holder of the address has left behind.
//
// Packets are built by pure functions and sent through packet(7) and raw(7)
// sockets, in the network namespace of the calling thread.
package announce

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Interface is where to send.
type Interface struct {
	// Index is the interface's number.
	Index int
	// HardwareAddr is its MAC address; only Ethernet's 6 bytes are supported.
	HardwareAddr net.HardwareAddr
}

// Error is what the functions of this package return when the kernel refuses.
type Error struct {
	// Op is what was tried: "announce", "probe", "tickle", "open".
	Op string
	// Object is the address or connection.
	Object string
	// Err is the cause, with the errno inside.
	Err error
}

// Error names operation and object.
func (e *Error) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Object, e.Err) }

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// frame is a packet with the link-layer destination it goes to.
type frame struct {
	to        [6]byte
	ethertype uint16
	payload   []byte
}

var broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Announcer sends announcements of one address.
type Announcer struct {
	fd     int
	index  int
	ip     netip.Addr
	frames []frame
}

// NewAnnouncer prepares announcements of ip on the interface. router says that
// this host forwards IPv6 packets: a neighbor advertisement without that bit
// would make hosts drop it as their router (RFC 4861, 7.2.5).
func NewAnnouncer(on Interface, ip netip.Addr, router bool) (*Announcer, error) {
	mac, err := mac(on)
	if err != nil {
		return nil, &Error{Op: "announce", Object: ip.String(), Err: err}
	}
	// Protocol 0: this socket only sends.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "announce", Object: ip.String(), Err: os.NewSyscallError("socket", err)}
	}
	return &Announcer{fd: fd, index: on.Index, ip: ip, frames: announcements(mac, ip, router)}, nil
}

// announcements are the packets of one announcement. For IPv4 these are a
// request and a reply, because some switches and hosts learn from one only and
// some from the other.
func announcements(mac [6]byte, ip netip.Addr, router bool) []frame {
	if ip.Is4() {
		return []frame{
			{broadcast, unix.ETH_P_ARP, arpAnnouncement(arpRequest, mac, ip.As4())},
			{broadcast, unix.ETH_P_ARP, arpAnnouncement(arpReply, mac, ip.As4())},
		}
	}
	return []frame{{multicastMAC(allNodes), unix.ETH_P_IPV6, neighborAdvertisement(mac, ip, router)}}
}

// Announce sends one announcement: a gratuitous ARP request and reply, or an
// unsolicited neighbor advertisement.
func (a *Announcer) Announce() error {
	for _, f := range a.frames {
		if err := send(a.fd, a.index, f); err != nil {
			return &Error{Op: "announce", Object: a.ip.String(), Err: err}
		}
	}
	return nil
}

// Close releases the socket.
func (a *Announcer) Close() { _ = unix.Close(a.fd) }

func send(fd, index int, f frame) error {
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(f.ethertype), Ifindex: index, Halen: 6}
	copy(to.Addr[:], f.to[:])
	for {
		err := unix.Sendto(fd, f.payload, 0, to)
		if err != unix.EINTR {
			return os.NewSyscallError("sendto", err)
		}
	}
}

// networkOrder gives the number whose bytes in memory are n's in network order.
func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

func mac(on Interface) (mac [6]byte, err error) {
	if len(on.HardwareAddr) != len(mac) {
		return mac, fmt.Errorf("hardware address of %d bytes, expected the 6 of Ethernet", len(on.HardwareAddr))
	}
	return [6]byte(on.HardwareAddr), nil
}
