package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"baton/tests/lab/internal/record"
)

func tcpProbe(f *flag.FlagSet) func(context.Context, *logger) error {
	to := f.String("to", "", "HOST:PORT of an echo server, or with -connect of any server")
	every := f.Duration("every", 100*time.Millisecond, "pause between tries")
	timeout := f.Duration("timeout", 500*time.Millisecond, "for one try")
	only := f.Bool("connect", false, "only connect, do not ask")
	return func(ctx context.Context, out *logger) error {
		paced(ctx, *every, func(seq uint64) {
			out.result(seq, askOnce(ctx, *to, *timeout, !*only), "")
		})
		return nil
	}
}

func askOnce(ctx context.Context, to string, timeout time.Duration, ask bool) error {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if !ask {
		return nil
	}
	return exchange(conn, 1, timeout)
}

// exchange sends 8 bytes and wants them back.
func exchange(conn net.Conn, seq uint64, timeout time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	sent := binary.BigEndian.AppendUint64(nil, seq)
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("echo: sent %x, got %x", sent, got)
	}
	return nil
}

func holdTCP(f *flag.FlagSet) func(context.Context, *logger) error {
	to := f.String("to", "", "HOST:PORT of an echo server")
	every := f.Duration("every", 100*time.Millisecond, "pause between two uses of the connection")
	patience := f.Duration("patience", 2*time.Minute, "how long one exchange may take: the kernel retransmits meanwhile")
	return func(ctx context.Context, out *logger) error {
		var conn net.Conn
		defer func() {
			if conn != nil {
				conn.Close()
			}
		}()
		go func() {
			<-ctx.Done() // an exchange in flight must not hold up the end
			out.end()
			os.Exit(0)
		}()
		paced(ctx, *every, func(seq uint64) {
			if conn == nil {
				d := net.Dialer{Timeout: time.Second}
				var err error
				if conn, err = d.DialContext(ctx, "tcp", *to); err != nil {
					conn = nil
					out.add(record.Fail, seq, "connect: %v", err)
					return
				}
				out.add(record.Note, seq, "connected from %s", conn.LocalAddr())
			}
			err := exchange(conn, seq, *patience)
			out.result(seq, err, "")
			if err != nil {
				out.add(record.Note, seq, "connection lost: %v", err)
				conn.Close()
				conn = nil
			}
		})
		return nil
	}
}

func echoServer(f *flag.FlagSet) func(context.Context, *logger) error {
	listen := f.String("listen", ":7", "[HOST]:PORT")
	return func(ctx context.Context, out *logger) error {
		// An address that moves here later is served too: the socket is bound
		// to no address, or to one that need not be here yet.
		lc := net.ListenConfig{Control: freeBind}
		l, err := lc.Listen(ctx, "tcp", *listen)
		if err != nil {
			return err
		}
		out.add(record.Note, 0, "listening on %s", l.Addr())
		go func() { <-ctx.Done(); l.Close() }()
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				out.add(record.Note, 0, "accept: %v", err)
				continue
			}
			go func() {
				defer conn.Close()
				_, err := io.Copy(conn, conn)
				out.add(record.Note, 0, "%s ended: %v", conn.RemoteAddr(), err)
			}()
		}
	}
}

func pingProbe(f *flag.FlagSet) func(context.Context, *logger) error {
	to := f.String("to", "", "address")
	every := f.Duration("every", 100*time.Millisecond, "pause between requests")
	return func(ctx context.Context, out *logger) error {
		addr, err := netip.ParseAddr(*to)
		if err != nil {
			return err
		}
		network, request, reply := "ip4:icmp", byte(8), byte(0) // RFC 792
		if addr.Is6() {
			network, request, reply = "ip6:ipv6-icmp", 128, 129 // RFC 4443 section 4
		}
		conn, err := net.ListenPacket(network, "")
		if err != nil {
			return err
		}
		defer conn.Close()
		id := uint16(os.Getpid())
		go func() { <-ctx.Done(); conn.Close() }()
		go func() {
			buf := make([]byte, 1500)
			for {
				n, from, err := conn.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil || n < 8 || buf[0] != reply || binary.BigEndian.Uint16(buf[4:]) != id {
					continue
				}
				if ip, ok := from.(*net.IPAddr); !ok || ip.IP.String() != addr.String() {
					continue
				}
				out.add(record.OK, uint64(binary.BigEndian.Uint16(buf[6:])), "")
			}
		}()
		paced(ctx, *every, func(seq uint64) {
			packet := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), byte(seq >> 8), byte(seq)}
			if addr.Is4() { // for IPv6 the kernel does it
				binary.BigEndian.PutUint16(packet[2:], checksum(packet))
			}
			if _, err := conn.WriteTo(packet, &net.IPAddr{IP: addr.AsSlice()}); err != nil && ctx.Err() == nil {
				out.add(record.Fail, seq, "%v", err)
				return
			}
			out.add(record.Note, seq, "sent")
		})
		return nil
	}
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
