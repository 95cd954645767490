package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// freeBind lets a socket be bound to an address that is not here (yet):
// IP_FREEBIND of ip(7), which works for IPv6 sockets too.
func freeBind(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	}); e != nil {
		return e
	}
	return err
}
