// Package ether is the lab's Ethernet switch: it runs inside the test process
// and carries frames between virtual machines over socket pairs, so that
// nothing ever reaches a real interface, no port number is taken, and the
// whole network is gone when the process is.
//
// Compared with QEMU's multicast netdev it does not hand a machine its own
// broadcasts back (which duplicate address detection would take for another
// host), it can lose frames without taking the carrier away, and it shows each
// frame to observers with the host's clock.
package ether

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headerLen = 14      // destination, source, EtherType (IEEE 802.3 clause 3)
	maxFrame  = 1 << 16 // more than any frame a virtio NIC sends without offloads
	queueLen  = 2048    // frames a port holds for a machine that does not read
)

// MAC is a hardware address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// group tells broadcast and multicast addresses: the lowest bit of the first
// octet (IEEE 802 section 8.2.2).
func (m MAC) group() bool { return m[0]&1 != 0 }

// Observer sees each frame that enters the switch: when, from which port, and
// whether the switch lost it on purpose. It must not keep or change frame.
type Observer func(at time.Time, port string, frame []byte, lost bool)

// Switch is a learning switch. Make one with New.
type Switch struct {
	mu        sync.RWMutex
	ports     map[string]*port
	table     map[MAC]*port
	observers []Observer
	closed    bool
}

type port struct {
	name    string
	conn    net.Conn
	queue   chan []byte
	blocked bool // guarded by Switch.mu: frames in either direction are lost
	drops   atomic.Uint64
}

// New makes a switch with no ports.
func New() *Switch {
	return &Switch{ports: map[string]*port{}, table: map[MAC]*port{}}
}

// Plug adds a port, or replaces the one of that name (a machine that was
// powered off and comes back), and returns the machine's end of the cable: a
// datagram socket, one frame per message. The caller closes its copy after it
// has handed it to the child process.
func (s *Switch) Plug(name string) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("ether: socketpair: %w", err)
	}
	guest := os.NewFile(uintptr(fds[1]), "ether:"+name)
	host := os.NewFile(uintptr(fds[0]), "ether:"+name)
	conn, err := net.FileConn(host)
	host.Close()
	if err != nil {
		guest.Close()
		return nil, fmt.Errorf("ether: port %s: %w", name, err)
	}

	p := &port{name: name, conn: conn, queue: make(chan []byte, queueLen)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		guest.Close()
		return nil, errors.New("ether: switch is closed")
	}
	if old := s.ports[name]; old != nil {
		p.blocked = old.blocked
		s.unplugLocked(old)
	}
	s.ports[name] = p
	go s.receive(p)
	go p.send()
	return guest, nil
}

// Block loses every frame to and from the port while on, with the carrier
// left up: a broken switch or cable further away, which the machine itself
// cannot see.
func (s *Switch) Block(name string, on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil {
		return fmt.Errorf("ether: no port %q", name)
	}
	p.blocked = on
	return nil
}

// Observe adds an observer for all frames from now on.
func (s *Switch) Observe(o Observer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observers = append(s.observers, o)
}

// Close unplugs everything.
func (s *Switch) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.ports {
		s.unplugLocked(p)
	}
}

func (s *Switch) unplugLocked(p *port) {
	p.conn.Close()
	close(p.queue)
	if s.ports[p.name] == p {
		delete(s.ports, p.name)
	}
	for mac, q := range s.table {
		if q == p {
			delete(s.table, mac)
		}
	}
}

// receive forwards what the machine sends until the port is unplugged.
func (s *Switch) receive(p *port) {
	buf := make([]byte, maxFrame)
	for {
		n, err := p.conn.Read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// The machine is gone (ECONNRESET) but its port is still ours;
			// whoever starts it again plugs it anew.
			s.mu.Lock()
			if s.ports[p.name] == p {
				s.unplugLocked(p)
			}
			s.mu.Unlock()
			return
		case n < headerLen:
			continue
		}
		s.forward(p, append([]byte(nil), buf[:n]...))
	}
}

func (s *Switch) forward(from *port, frame []byte) {
	now := time.Now()
	to, src := MAC(frame[0:6]), MAC(frame[6:12])

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports[from.name] != from {
		return
	}
	for _, o := range s.observers {
		o(now, from.name, frame, from.blocked)
	}
	if from.blocked {
		return
	}
	if !src.group() {
		s.table[src] = from
	}
	if dst := s.table[to]; dst != nil && !to.group() {
		if dst != from {
			dst.offer(frame)
		}
		return
	}
	for _, p := range s.ports {
		if p != from {
			p.offer(frame)
		}
	}
}

// offer queues a frame for the machine. One that does not read, because it is
// stopped or busy, loses frames as behind a real switch; it never holds up
// the others.
func (p *port) offer(frame []byte) {
	if p.blocked {
		return
	}
	select {
	case p.queue <- frame:
	default:
		p.drops.Add(1)
	}
}

func (p *port) send() {
	for frame := range p.queue {
		if _, err := p.conn.Write(frame); err != nil {
			p.drops.Add(1)
		}
	}
}
