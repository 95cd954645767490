package rpc

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func mapperAnswer(call []byte) []byte {
	xid, version := binary.BigEndian.Uint32(call), binary.BigEndian.Uint32(call[16:])
	reply := words(xid, 1, 0, 0, 0, 0)
	if version == 2 {
		return append(reply, words(600)...)
	}
	return append(reply, String("2001:db8::9.2.88")...)
}

func TestASocketAsksManyServersAtOnceFromOneAddress(t *testing.T) {
	s, err := Listen(netip.MustParseAddr("127.0.0.2"), 0)
	require.NoError(t, err)
	defer s.Close()
	var group sync.WaitGroup
	for n := range 20 {
		server := netip.MustParseAddrPort(udpServer(t, n%2, func(call []byte) []byte { // every second one loses a datagram
			return append(words(binary.BigEndian.Uint32(call), 1, 0, 0, 0, 0), words(uint32(n))...)
		}).Address)
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			res, err := s.Call(ctx, server, Status, 1, 6, String("name"))
			if err != nil || len(res) != 4 || binary.BigEndian.Uint32(res) != uint32(n) {
				t.Errorf("server %d: %v %v", n, res, err)
			}
		})
	}
	group.Wait()

	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer nobody.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.Call(ctx, netip.MustParseAddrPort(nobody.LocalAddr().String()), Status, 1, 6, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	buf := make([]byte, 100)
	_, from, err := nobody.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.2", netip.MustParseAddrPort(from.String()).Addr().String())
}

func TestThePortMapperIsAskedInTheVersionOfTheAddressFamily(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Logf("no %s here: %v", host, err)
			continue
		}
		defer conn.Close()
		go func() {
			buf := make([]byte, 400)
			for {
				n, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo(mapperAnswer(buf[:n]), from)
			}
		}()
		s, err := Listen(netip.Addr{}, 0)
		require.NoError(t, err)
		defer s.Close()
		addr := netip.MustParseAddrPort(conn.LocalAddr().String())
		s.Mapper = addr.Port()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		port, err := s.Port(ctx, addr.Addr(), Status, 1)
		require.NoError(t, err)
		require.Equal(t, 600, port)
	}
}

func TestUniversalAddresses(t *testing.T) {
	for text, want := range map[string]int{"": 0, "::1.0.111": 111, "192.0.2.9.2.88": 600, "::.255.255": 65535} {
		got, err := parseUniversal(String(text))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"nonsense", "::1.256.1", "::1.1.-1", "1.2"} {
		_, err := parseUniversal(String(text))
		require.ErrorIs(t, err, ErrMalformed, text)
	}
	for _, b := range [][]byte{nil, words(4), words(1 << 31)} {
		_, err := parseUniversal(b)
		require.ErrorIs(t, err, ErrMalformed)
	}
}
