package nfsproc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// backlog is rpc.nfsd's (NFSD_BACKLOG in nfs-utils utils/nfsd/nfssvc.c); the kernel's own socket
// code raises it as threads allow.
const backlog = 64

// ListenError says which socket could not be opened for the server.
type ListenError struct {
	Port Port
	IPv6 bool
	Err  error // wraps unix.EADDRINUSE where somebody has the port
}

func (e *ListenError) Error() string {
	family := "IPv4"
	if e.IPv6 {
		family = "IPv6"
	}
	return fmt.Sprintf("%s port %d (%s): %v", e.Port.Transport, e.Port.Number, family, e.Err)
}

// Unwrap gives the errno.
func (e *ListenError) Unwrap() error { return e.Err }

// Listen opens the port for both address families, on every address, and hands the sockets to
// the server; it does not start it. A machine without IPv6 gets IPv4 alone. The sockets come from
// here and not from the kernel's default, which is IPv4 only, so that a port in use is found
// before anything starts, and so that NFSv3 is registered with rpcbind.
func (s Server) Listen(ports ...Port) error {
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			_ = f.Close() // the server has its own reference by now
		}
	}()
	// All are opened before the first is handed over: then a port in use leaves nothing behind.
	for _, p := range ports {
		for _, v6 := range []bool{false, true} {
			fd, err := open(p, v6)
			if v6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
				continue
			}
			if err != nil {
				return &ListenError{Port: p, IPv6: v6, Err: err}
			}
			opened = append(opened, os.NewFile(uintptr(fd), p.Transport))
		}
	}
	for _, f := range opened {
		if err := s.write("fs/nfsd/portlist", strconv.Itoa(int(f.Fd()))+"\n"); err != nil {
			return fmt.Errorf("the kernel does not take the %s socket: %w", f.Name(), err)
		}
	}
	return nil
}

// open makes a bound and, for TCP, listening socket. The error is a bare errno.
func open(p Port, v6 bool) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	var addr unix.Sockaddr = &unix.SockaddrInet4{Port: p.Number}
	if v6 {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: p.Number}
	}
	if p.Transport == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = prepare(fd, p, v6, addr); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func prepare(fd int, p Port, v6 bool, addr unix.Sockaddr) error {
	if v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if p.Transport == "udp" {
		return unix.Bind(fd, addr)
	}
	// Connections of a server that ended a moment ago linger in TIME_WAIT on the port.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, addr); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

// PortInodes are the inodes of the sockets that are bound to the port, by which /proc/PID/fd shows
// whose they are; a socket of the kernel has inode 0, which is left out.
func (s Server) PortInodes(p Port) ([]uint64, error) {
	var inodes []uint64
	for _, family := range []string{"", "6"} {
		text, err := os.ReadFile(s.proc("net", p.Transport+family))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		inodes = append(inodes, parseSockets(string(text), p)...)
	}
	return inodes, nil
}

// parseSockets reads /proc/net/tcp, udp and their twins for IPv6 (proc_net(5)); of TCP, only
// listening sockets (state 0A) count:
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
//	 0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15306 1 …
func parseSockets(text string, p Port) []uint64 {
	var inodes []uint64
	for line := range strings.SplitSeq(text, "\n") {
		words := strings.Fields(line)
		if len(words) < 10 || p.Transport == "tcp" && words[3] != "0A" {
			continue
		}
		_, hex, ok := strings.Cut(words[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if !ok || err != nil || int(port) != p.Number {
			continue
		}
		if inode, err := strconv.ParseUint(words[9], 10, 64); err == nil && inode > 0 {
			inodes = append(inodes, inode)
		}
	}
	return inodes
}
