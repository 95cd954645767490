package addresses

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A netlink message (include/uapi/linux/netlink.h):
//
//	struct nlmsghdr {
//		__u32	nlmsg_len;	/* with this header */
//		__u16	nlmsg_type;
//		__u16	nlmsg_flags;
//		__u32	nlmsg_seq;
//		__u32	nlmsg_pid;
//	};
//
// Answers come as one or several datagrams of one or several messages each. An
// answer to a dump, and an acknowledgment, end with NLMSG_DONE or NLMSG_ERROR,
// whose payload begins with a negative errno or zero.
//
// The sockets here block. A monitor is started every few seconds on every node,
// for ever: the runtime's poller, and a thread to wait in it, would be a third
// of its cost, for answers that the kernel gives at once.

const (
	// sequence is the number of the one request that a socket here sends.
	sequence = 1
	// answerWait bounds the wait for an answer. The kernel answers at once, but for
	// its lock on the network configuration, which a hanging driver may hold.
	answerWait = 15
	// bufferLen is what the kernel fills at most in one piece of a dump
	// (net/netlink/af_netlink.c, netlink_dump).
	bufferLen = 32 << 10
	// dumpTries bounds how often an interrupted dump is repeated. One is
	// interrupted only when it spans several messages and an address, link or
	// route changes between two of them.
	dumpTries = 20
)

// errInterrupted says that a dump may be incomplete (NLM_F_DUMP_INTR).
var errInterrupted = errors.New("interrupted by a change")

// dump sends a dump request and gives the answers of the wanted type, in the
// kernel's order.
func dump(kind, answer uint16, header []byte) (msgs [][]byte, err error) {
	for range dumpTries {
		msgs, err = execute(kind, unix.NLM_F_DUMP, header, answer)
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return msgs, nil
}

// change sends a request that the kernel acknowledges.
func change(kind, flags uint16, payload []byte) error {
	_, err := execute(kind, flags|unix.NLM_F_ACK, payload, 0)
	return err
}

// request sends a request that is no dump and gives its answer.
func request(kind, answer uint16, payload []byte) ([][]byte, error) {
	return execute(kind, 0, payload, answer)
}

// execute sends one request on a socket of its own and collects the payloads of
// the answers of the wanted type.
func execute(kind, flags uint16, payload []byte, answer uint16) ([][]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerWait}); err != nil {
		return nil, os.NewSyscallError("SO_RCVTIMEO", err)
	}
	msg := make([]byte, 0, unix.NLMSG_HDRLEN+len(payload))
	msg = binary.NativeEndian.AppendUint32(msg, uint32(unix.NLMSG_HDRLEN+len(payload)))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = binary.NativeEndian.AppendUint16(msg, flags|unix.NLM_F_REQUEST)
	msg = binary.NativeEndian.AppendUint32(msg, sequence)
	msg = binary.NativeEndian.AppendUint32(msg, 0)
	msg = append(msg, payload...)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	return collect(answer, func(buf []byte) (int, error) { return receive(fd, buf) })
}

// receive reads one datagram of the kernel.
func receive(fd int, buf []byte) (int, error) {
	for {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, fmt.Errorf("no answer of the kernel in %d s: %w", answerWait, unix.ETIMEDOUT)
		case err != nil:
			return 0, os.NewSyscallError("recvfrom", err)
		case n > len(buf):
			return 0, fmt.Errorf("an answer of %d bytes, expected %d at most", n, len(buf))
		}
		if nl, ok := from.(*unix.SockaddrNetlink); ok && nl.Pid == 0 {
			return n, nil
		}
		// Another process may send to our socket; only the kernel has number 0.
	}
}

// collect reads datagrams until the answer is complete.
func collect(answer uint16, next func([]byte) (int, error)) ([][]byte, error) {
	var msgs [][]byte
	interrupted := false
	buf := make([]byte, bufferLen)
	for {
		n, err := next(buf)
		if err != nil {
			return nil, err
		}
		more, err := split(buf[:n], func(kind, flags uint16, payload []byte) error {
			interrupted = interrupted || flags&unix.NLM_F_DUMP_INTR != 0
			if kind == answer && answer != 0 {
				msgs = append(msgs, append([]byte(nil), payload...))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	if interrupted {
		return nil, errInterrupted
	}
	return msgs, nil
}

// split walks the messages of a datagram. more is true when the answer goes on
// in the next one.
func split(b []byte, each func(kind, flags uint16, payload []byte) error) (more bool, err error) {
	more = true
	for len(b) >= unix.NLMSG_HDRLEN {
		n := int(binary.NativeEndian.Uint32(b))
		kind, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		seq := binary.NativeEndian.Uint32(b[8:])
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return false, fmt.Errorf("a message of %d bytes in %d", n, len(b))
		}
		payload := b[unix.NLMSG_HDRLEN:n]
		b = b[min((n+3)&^3, len(b)):]
		if seq != sequence {
			continue
		}
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			// The last word on a dump carries its flags, the interruption among them.
			if err := each(kind, flags, nil); err != nil {
				return false, err
			}
			if len(payload) >= 4 {
				if errno := int32(binary.NativeEndian.Uint32(payload)); errno < 0 {
					return false, unix.Errno(-errno)
				}
			}
			return false, nil
		case unix.NLMSG_NOOP, unix.NLMSG_OVERRUN:
			continue
		}
		if err := each(kind, flags, payload); err != nil {
			return false, err
		}
		if flags&unix.NLM_F_MULTI == 0 {
			more = false
		}
	}
	return more, nil
}
