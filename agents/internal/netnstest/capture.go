package netnstest

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Frame is one captured packet.
type Frame struct {
	// At is when the kernel saw it, however late the test came to read it.
	At time.Time
	// Source is the hardware address of the sender.
	Source net.HardwareAddr
	// Ethertype is 0x0806 for ARP, 0x0800 for IPv4, 0x86dd for IPv6.
	Ethertype uint16
	// Payload is everything behind the Ethernet header, with the padding cut
	// off that short frames carry only on a real wire.
	Payload []byte
}

// Capture collects the packets that arrive at an interface.
type Capture struct {
	mu     sync.Mutex
	frames []Frame
	file   *os.File
	done   chan struct{}
}

// Capture starts to collect what arrives at the interface (not what leaves it)
// until the test ends.
func (n *NS) Capture(t testing.TB, name string) *Capture {
	t.Helper()
	c := &Capture{done: make(chan struct{})}
	n.Do(t, func() {
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: n.link(t, name).Attrs().Index})
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			t.Fatal(err)
		}
		c.file = os.NewFile(uintptr(fd), "capture "+name)
	})
	go c.read()
	t.Cleanup(c.stop)
	return c
}

func (c *Capture) read() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	buf, control := make([]byte, 65536), make([]byte, 128)
	for {
		var (
			n, oob int
			from   unix.Sockaddr
			rerr   error
		)
		err := raw.Read(func(fd uintptr) bool {
			n, oob, _, from, rerr = unix.Recvmsg(int(fd), buf, control, 0)
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil {
			return // closed
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if rerr != nil || !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		f := Frame{
			At:        stamp(control[:oob]),
			Source:    append(net.HardwareAddr(nil), ll.Addr[:ll.Halen]...),
			Ethertype: binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, ll.Protocol)),
			Payload:   append([]byte(nil), buf[:n]...),
		}
		c.mu.Lock()
		c.frames = append(c.frames, f)
		c.mu.Unlock()
	}
}

// stamp reads SCM_TIMESTAMPNS, a struct timespec of two 64-bit numbers (socket(7)).
func stamp(control []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(control)
	if err == nil {
		for _, m := range msgs {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
				return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now()
}

func (c *Capture) stop() {
	_ = c.file.Close()
	<-c.done
}

// Frames gives what has been seen so far and matches; a nil match means all.
func (c *Capture) Frames(match func(Frame) bool) []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Frame
	for _, f := range c.frames {
		if match == nil || match(f) {
			list = append(list, f)
		}
	}
	return list
}
