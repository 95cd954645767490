package announce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Conflict is another host that has the address, or wants it.
type Conflict struct {
	// HardwareAddr is that host's MAC address.
	HardwareAddr net.HardwareAddr
	// Probing says that the other host does not have the address yet, but asks
	// for it in order to take it, as this one does.
	Probing bool
}

// Watch listens on an interface for signs that another host has an address.
type Watch struct {
	file *os.File
	done chan struct{}

	mu    sync.Mutex
	found *Conflict
}

// NewWatch begins to listen.
func NewWatch(on Interface, ip netip.Addr) (*Watch, error) {
	own, err := mac(on)
	if err != nil {
		return nil, &Error{Op: "probe", Object: ip.String(), Err: err}
	}
	file, err := openReceiver(on.Index, ip)
	if err != nil {
		return nil, &Error{Op: "probe", Object: ip.String(), Err: err}
	}
	w := &Watch{file: file, done: make(chan struct{})}
	go w.read(own, ip)
	return w, nil
}

// Conflict is what has been seen so far, nil for nothing.
func (w *Watch) Conflict() *Conflict {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.found
}

// Done is closed when a conflict was seen, or when the watch cannot go on.
func (w *Watch) Done() <-chan struct{} { return w.done }

// Close ends the watch.
func (w *Watch) Close() {
	_ = w.file.Close()
	<-w.done
}

// openReceiver opens a packet socket that gets ARP, or neighbor discovery only.
func openReceiver(index int, ip netip.Addr) (*os.File, error) {
	// With protocol 0 nothing is received before bind names the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	ethertype := uint16(unix.ETH_P_ARP)
	if ip.Is6() {
		ethertype = unix.ETH_P_IPV6
		err = receiveDiscovery(fd, index, ip)
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(ethertype), Ifindex: index}))
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// receiveDiscovery keeps the other IPv6 traffic of a busy host away by a filter
// in the kernel, and makes the network card let through the solicitations of
// others for ip, whose group this host has not joined yet.
func receiveDiscovery(fd, index int, ip netip.Addr) error {
	const ldb, jeq, ret = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: ldb, K: 6},                            // next header
		{Code: jeq, K: icmp6, Jf: 4},                 // else drop
		{Code: ldb, K: ipv6HeaderLen},                // ICMPv6 type
		{Code: jeq, K: neighborSolicit, Jt: 1},       // take
		{Code: jeq, K: neighborAdvert, Jt: 0, Jf: 1}, // take, else drop
		{Code: ret, K: 0xffff},
		{Code: ret, K: 0},
	}
	program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program); err != nil {
		return os.NewSyscallError("SO_ATTACH_FILTER", err)
	}
	group := multicastMAC(solicitedNode(ip.As16()))
	member := &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_MULTICAST, Alen: 6}
	copy(member.Address[:], group[:])
	return os.NewSyscallError("PACKET_ADD_MEMBERSHIP", unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, member))
}

func (w *Watch) read(own [6]byte, ip netip.Addr) {
	defer close(w.done)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 2048)
	for {
		var (
			n    int
			from unix.Sockaddr
			rerr error
		)
		err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil {
			return // closed
		}
		if errors.Is(rerr, unix.EINTR) || errors.Is(rerr, unix.ENETDOWN) {
			continue
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if rerr != nil || !ok {
			return
		}
		if ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if c := judge(buf[:n], [6]byte(ll.Addr[:6]), own, ip); c != nil {
			w.mu.Lock()
			w.found = c
			w.mu.Unlock()
			return
		}
	}
}

func judge(b []byte, from, own [6]byte, ip netip.Addr) *Conflict {
	if ip.Is4() {
		return judgeARP(b, own, ip)
	}
	return judgeNDP(b, from, own, ip)
}

// Timing is how a probe asks.
type Timing struct {
	// Count is how many questions are sent.
	Count int
	// Wait is how long answers are awaited in all; the questions are spread over
	// its first two thirds.
	Wait time.Duration
}

// Probe asks whether another host has ip, by ARP probes (RFC 5227) or by
// solicitations as of duplicate address detection, and gives the first that
// answers or asks itself, nil for none. It returns as soon as it knows, else
// after t.Wait, which RFC 5227 wants to be seconds, for links of any kind;
// hosts of one switched network answer within a millisecond.
func Probe(ctx context.Context, on Interface, ip netip.Addr, t Timing) (*Conflict, error) {
	w, err := NewWatch(on, ip)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	own, err := mac(on)
	if err != nil {
		return nil, &Error{Op: "probe", Object: ip.String(), Err: err}
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "probe", Object: ip.String(), Err: os.NewSyscallError("socket", err)}
	}
	defer func() { _ = unix.Close(fd) }()

	question := probe(own, ip)
	pause := t.Wait * 2 / 3 / time.Duration(max(t.Count-1, 1))
	left := t.Wait
	for i := range t.Count {
		if err := send(fd, on.Index, question); err != nil {
			return nil, &Error{Op: "probe", Object: ip.String(), Err: err}
		}
		wait := pause
		if i == t.Count-1 {
			wait = left
		}
		left -= wait
		if err := sleep(ctx, w.Done(), wait); err != nil {
			return nil, &Error{Op: "probe", Object: ip.String(), Err: err}
		}
		if c := w.Conflict(); c != nil {
			return c, nil
		}
		select {
		case <-w.Done():
			return nil, &Error{Op: "probe", Object: ip.String(), Err: fmt.Errorf("interface %d does not receive", on.Index)}
		default:
		}
	}
	return nil, nil
}

func probe(own [6]byte, ip netip.Addr) frame {
	if ip.Is4() {
		return frame{broadcast, unix.ETH_P_ARP, arpProbe(own, ip.As4())}
	}
	return frame{multicastMAC(solicitedNode(ip.As16())), unix.ETH_P_IPV6, neighborProbe(ip)}
}

// sleep waits until d has passed, done is closed, or ctx has ended, which alone
// is an error.
func sleep(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
