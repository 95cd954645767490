// Package addresses reads and changes the addresses of this host's interfaces
// over rtnetlink(7), and answers the question an operator leaves open who names
// only an address: which interface, which prefix, which broadcast.
//
// Everything happens in the network namespace of the calling thread. Errors
// are *Error with the errno inside; a dump that the kernel interrupted because
// something changed meanwhile is repeated, never returned half.
package addresses

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// Error is what the functions of this package return when the kernel refuses.
type Error struct {
	// Op is what was tried: "list addresses", "add", "remove".
	Op string
	// Object is what it was tried on: "192.0.2.50/24 on eth0".
	Object string
	// Err is the errno, or what was wrong with the answer.
	Err error
}

// Error names operation and object.
func (e *Error) Error() string {
	if e.Object == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Object, e.Err)
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// errShort says that a message ends before its header does.
var errShort = errors.New("message shorter than its header")

// attributes walks the attributes behind a message's header:
//
//	struct rtattr { unsigned short rta_len, rta_type; /* data, padded to 4 */ };
//
// A length that does not fit ends the walk. The flag bits of nested and
// network-order attributes are taken off the type.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) & typeMask
			if !yield(kind, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// typeMask is NLA_TYPE_MASK of include/uapi/linux/netlink.h.
const typeMask = 0x3fff

// attribute appends one attribute to a message.
func attribute(msg []byte, kind uint16, value []byte) []byte {
	msg = binary.NativeEndian.AppendUint16(msg, uint16(unix.SizeofRtAttr+len(value)))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = append(msg, value...)
	for len(msg)%4 != 0 {
		msg = append(msg, 0)
	}
	return msg
}

// number reads a 32-bit attribute; a shorter one counts as absent.
func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// text reads a zero-terminated string.
func text(b []byte) string { return unix.ByteSliceToString(b) }
