package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Socket makes calls over UDP to many servers at once, all from one address and port: a server
// that knows the caller by its address, or a firewall that knows it by its port, sees them.
type Socket struct {
	// Mapper is the port of the servers' port mappers; 0 means 111.
	Mapper uint16
	conn   *net.UDPConn

	mu      sync.Mutex
	next    uint32
	waiting map[uint32]chan []byte // by xid
}

// Listen opens the socket on a local address, or on all if it is not valid; port 0 is any.
func Listen(local netip.Addr, port int) (*Socket, error) {
	addr := &net.UDPAddr{Port: port}
	if local.IsValid() {
		addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, uint16(port)))
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, err
	}
	s := &Socket{conn: conn, next: rand.Uint32(), waiting: map[uint32]chan []byte{}}
	go s.read()
	return s, nil
}

// Close ends the socket; calls that still wait go on waiting until their context ends.
func (s *Socket) Close() error { return s.conn.Close() }

// read hands each answer to the call that waits for it. It ends with the socket: any other error
// of a socket that is not connected speaks of one datagram alone.
func (s *Socket) read() {
	buf := make([]byte, maxReply)
	for {
		n, _, err := s.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 4 {
			continue
		}
		s.mu.Lock()
		answer := s.waiting[binary.BigEndian.Uint32(buf)]
		s.mu.Unlock()
		if answer == nil {
			continue
		}
		select {
		case answer <- append([]byte{}, buf[:n]...):
		default: // it has one already
		}
	}
}

// Call sends one call, again and again, until an answer comes or ctx ends, and returns the results.
func (s *Socket) Call(ctx context.Context, to netip.AddrPort, program, version, procedure uint32, args []byte) ([]byte, error) {
	t := Target{Network: "udp", Address: to.String(), Program: program, Version: version}
	answer := make(chan []byte, 1)
	s.mu.Lock()
	s.next++
	xid := s.next
	s.waiting[xid] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, xid)
		s.mu.Unlock()
	}()
	msg := message(xid, program, version, procedure, args)
	again := time.NewTicker(udpRetry)
	defer again.Stop()
	for {
		if _, err := s.conn.WriteToUDPAddrPort(msg, to); err != nil {
			return nil, &Error{Target: t, Err: err}
		}
		select {
		case reply := <-answer:
			res, err := parseReply(xid, reply)
			if err != nil {
				return nil, &Error{Target: t, Err: err}
			}
			return res, nil
		case <-again.C:
		case <-ctx.Done():
			return nil, &Error{Target: t, Err: ctx.Err()}
		}
	}
}

// Port asks the port mapper at host for a program's UDP port; 0 means: not registered. The second
// version of its protocol knows IPv4 alone; over IPv6 the fourth is asked (RFC 1833, 2.2.1).
func (s *Socket) Port(ctx context.Context, host netip.Addr, program, version uint32) (int, error) {
	const udp, getPort, getAddr = 17, 3, 3
	mapper := netip.AddrPortFrom(host, s.Mapper)
	if s.Mapper == 0 {
		mapper = netip.AddrPortFrom(host, 111)
	}
	if host.Is4() {
		res, err := s.Call(ctx, mapper, Portmapper, 2, getPort, words(program, version, udp, 0))
		if err != nil {
			return 0, err
		}
		if len(res) < 4 || binary.BigEndian.Uint32(res) > 65535 {
			return 0, ErrMalformed
		}
		return int(binary.BigEndian.Uint32(res)), nil
	}
	args := words(program, version)
	for _, text := range []string{"udp6", "", ""} { // netid, address, owner
		args = append(args, String(text)...)
	}
	res, err := s.Call(ctx, mapper, Portmapper, 4, getAddr, args)
	if err != nil {
		return 0, err
	}
	return parseUniversal(res)
}

// parseUniversal takes the port from a universal address (RFC 5665, 5.2.3.4): a string that ends
// in the two bytes of the port, "2001:db8::9.2.88" for port 600. An empty one is port 0.
func parseUniversal(b []byte) (int, error) {
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return 0, ErrMalformed
	}
	text := string(b[4 : 4+binary.BigEndian.Uint32(b)])
	if text == "" {
		return 0, nil
	}
	parts := strings.Split(text, ".")
	if len(parts) < 3 {
		return 0, fmt.Errorf("%w: universal address %q", ErrMalformed, text)
	}
	high, err1 := strconv.ParseUint(parts[len(parts)-2], 10, 8)
	low, err2 := strconv.ParseUint(parts[len(parts)-1], 10, 8)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("%w: universal address %q", ErrMalformed, text)
	}
	return int(high<<8 | low), nil
}

// String is a string in XDR (RFC 4506, 4.11): its length, and its bytes filled up to a multiple of 4.
func String(text string) []byte {
	b := append(words(uint32(len(text))), text...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Uint32 is a number in XDR.
func Uint32(n uint32) []byte { return words(n) }
