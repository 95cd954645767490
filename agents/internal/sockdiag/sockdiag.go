// Package sockdiag lists the TCP sockets of a local address and closes them,
// through the kernel's sock_diag(7) netlink family.
//
// It exists because of addresses that move between machines: a connection
// whose local address has gone keeps living in the kernel, retransmits for
// minutes, and would answer with stale sequence numbers when the address
// comes back. SOCK_DESTROY ends it at once.
package sockdiag

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// State is a TCP state as the kernel numbers it (include/net/tcp_states.h).
type State uint8

// The TCP states.
const (
	Established State = 1 + iota
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv
)

// String gives the name that ss(8) uses.
func (s State) String() string {
	names := [...]string{
		"UNKNOWN", "ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT",
		"UNCONN", "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING", "NEW-SYN-RECV",
	}
	if int(s) >= len(names) {
		return fmt.Sprintf("UNKNOWN-%d", uint8(s))
	}
	return names[s]
}

// States is a set of TCP states.
type States uint32

// Set makes a set of the given states.
func Set(states ...State) States {
	var set States
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has tells whether s is in the set.
func (set States) Has(s State) bool { return set&(1<<s) != 0 }

// Connections are all states in which a socket has a peer: everything but a
// listener and an unconnected socket.
const Connections States = 1<<Established | 1<<SynSent | 1<<SynRecv | 1<<FinWait1 | 1<<FinWait2 |
	1<<TimeWait | 1<<CloseWait | 1<<LastAck | 1<<Closing | 1<<NewSynRecv

// Socket is one TCP socket.
type Socket struct {
	// Family is unix.AF_INET or unix.AF_INET6: the family of the socket, which
	// for an IPv4 connection of a dual-stack server is AF_INET6.
	Family uint8
	State  State
	// Local and Remote are unmapped: an IPv4 connection shows IPv4 addresses
	// whatever the socket's family. Remote is 0.0.0.0:0 or [::]:0 for a listener.
	Local, Remote netip.AddrPort
	// Interface is the index of the interface the socket is bound to, 0 for none.
	Interface uint32
	// UID is the owner; Inode is the socket's inode as in /proc/PID/fd (0 for
	// sockets without a file, such as TIME-WAIT and those of the kernel).
	UID, Inode uint32

	id [sockidLen]byte // as the kernel gave it, with the cookie: names exactly this socket
}

// String shows state, local and remote.
func (s Socket) String() string { return fmt.Sprintf("%v %v %v", s.State, s.Local, s.Remote) }

// Filter chooses sockets; its zero value chooses all connections.
type Filter struct {
	// Local is the local address. An IPv4 address also finds the dual-stack
	// sockets that carry it as ::ffff:a.b.c.d. A zone is ignored. The zero Addr
	// means any address.
	Local netip.Addr
	// Port is the local port, 0 for any.
	Port uint16
	// States chooses by state; zero means Connections.
	States States
}

// match repeats in this process what the kernel was asked to do, so that an
// old kernel that ignores the filter cannot widen what Destroy hits.
func (f Filter) match(s Socket) bool {
	return (!f.Local.IsValid() || f.Local.Unmap().WithZone("") == s.Local.Addr()) &&
		(f.Port == 0 || f.Port == s.Local.Port()) &&
		f.states().Has(s.State)
}

func (f Filter) states() States {
	if f.States == 0 {
		return Connections
	}
	return f.States
}

// ErrUnsupported says that the running kernel cannot do it: no tcp_diag module
// for List, or built without CONFIG_INET_DIAG_DESTROY for Destroy.
var ErrUnsupported = errors.New("not supported by this kernel")

// Error is what each function of this package returns when it fails.
type Error struct {
	// Op is "list" or "destroy".
	Op string
	// Object is the filter's address or the socket.
	Object string
	// Err is the cause: an errno, ErrUnsupported, or a malformed answer.
	Err error
}

// Error names the operation and its object.
func (e *Error) Error() string { return fmt.Sprintf("%s tcp sockets %s: %v", e.Op, e.Object, e.Err) }

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// dumpTries bounds the repetitions of a dump that the kernel interrupted
// because sockets came and went meanwhile.
const dumpTries = 5

// List gives the TCP sockets that match f, in the network namespace of the
// calling thread. The order is the kernel's.
func List(f Filter) ([]Socket, error) {
	families := []uint8{unix.AF_INET, unix.AF_INET6}
	if f.Local.IsValid() && !f.Local.Unmap().Is4() {
		families = families[1:]
	}
	var found []Socket
	for _, family := range families {
		msgs, err := dump(family, f)
		if family == unix.AF_INET6 && errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel without IPv6 has no such sockets
		}
		if err != nil {
			return nil, &Error{Op: "list", Object: f.object(), Err: err}
		}
		for _, m := range msgs {
			s, err := parseSocket(m)
			if err != nil {
				return nil, &Error{Op: "list", Object: f.object(), Err: err}
			}
			if f.match(s) {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

func (f Filter) object() string {
	if !f.Local.IsValid() {
		return "of any address"
	}
	return "of " + f.Local.String()
}

// dump asks the kernel for one family.
func dump(family uint8, f Filter) (msgs [][]byte, err error) {
	for range dumpTries {
		req := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
		req.AddRawData(marshalList(family, f))
		msgs, err = req.Execute(unix.NETLINK_SOCK_DIAG, 0)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) {
		// net/core/sock_diag.c: no handler for the family, and none could be loaded.
		return nil, fmt.Errorf("%w (module tcp_diag): %w", ErrUnsupported, err)
	}
	return msgs, err
}

// Destroy closes exactly the socket that List has shown: the kernel compares
// its cookie, so that a new socket with the same addresses is left alone. The
// owner sees ECONNABORTED; the peer gets a reset if the local address still
// exists, and otherwise nothing. A socket that has gone meanwhile is no error.
func Destroy(s Socket) error {
	req := nl.NewNetlinkRequest(sockDestroy, unix.NLM_F_ACK)
	req.AddRawData(marshalDestroy(s))
	_, err := req.Execute(unix.NETLINK_SOCK_DIAG, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		err = fmt.Errorf("%w (CONFIG_INET_DIAG_DESTROY): %w", ErrUnsupported, err)
	}
	return &Error{Op: "destroy", Object: s.String(), Err: err}
}

// DestroyAll closes every socket that matches f and gives how many it closed
// and the errors of the others. Sockets in TIME-WAIT that an old kernel cannot
// destroy are no error: they answer nothing but a repeated FIN.
func DestroyAll(f Filter) (closed int, err error) {
	sockets, err := List(f)
	if err != nil {
		return 0, err
	}
	var failed []error
	for _, s := range sockets {
		err := Destroy(s)
		switch {
		case err == nil:
			closed++
		case s.State == TimeWait && errors.Is(err, unix.EOPNOTSUPP):
		case errors.Is(err, ErrUnsupported):
			return closed, err // the next one would fail the same way
		default:
			failed = append(failed, err)
		}
	}
	return closed, errors.Join(failed...)
}
