package addresses

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Wait calls check until it says done or fails, once at the start and then
// after each change of a link or an IPv6 address of this host: the kernel's
// notifications wake it, no clock does. It returns check's error, or ctx's when
// that ends first.
//
// The notifications are only a sign to look again. Their content is not used,
// so that nothing is missed when the kernel had to drop some (ENOBUFS).
func Wait(ctx context.Context, check func() (done bool, err error)) error {
	// Listening begins before the first look, so that no change falls between.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return &Error{Op: "listen for changes", Err: os.NewSyscallError("socket", err)}
	}
	file := os.NewFile(uintptr(fd), "netlink") // non-blocking, so that Read obeys a deadline
	defer file.Close()
	groups := uint32(1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1))
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return &Error{Op: "listen for changes", Err: os.NewSyscallError("bind", err)}
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	buf := make([]byte, 1<<16)
	for {
		done, err := check()
		if done || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err = file.Read(buf)
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS):
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ctx.Err()
		default:
			return &Error{Op: "listen for changes", Err: err}
		}
	}
}
