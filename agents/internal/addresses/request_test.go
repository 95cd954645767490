package addresses

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// message builds one netlink message as the kernel sends it.
func message(kind, flags uint16, seq uint32, payload ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 4711)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func errno(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

// datagrams gives collect one slice after the other.
func datagrams(list ...[]byte) func([]byte) (int, error) {
	return func(buf []byte) (int, error) {
		if len(list) == 0 {
			return 0, errors.New("no further datagram")
		}
		n := copy(buf, list[0])
		list = list[1:]
		return n, nil
	}
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func TestCollectPutsAnswersTogether(t *testing.T) {
	const wanted, other = unix.RTM_NEWADDR, unix.RTM_NEWLINK
	multi := uint16(unix.NLM_F_MULTI)
	for _, c := range []struct {
		name  string
		next  func([]byte) (int, error)
		want  [][]byte
		fails string
	}{
		{"one answer", datagrams(message(wanted, 0, sequence, 1, 2, 3)), [][]byte{{1, 2, 3}}, ""},
		{"acknowledgment", datagrams(message(unix.NLMSG_ERROR, 0, sequence, errno(0)...)), nil, ""},
		{"refusal", datagrams(message(unix.NLMSG_ERROR, 0, sequence, errno(-17)...)), nil, "file exists"},
		{
			"a dump in two datagrams",
			datagrams(
				join(message(wanted, multi, sequence, 1), message(other, multi, sequence, 9), message(wanted, multi, sequence, 2)),
				join(message(wanted, multi, sequence, 3), message(unix.NLMSG_DONE, multi, sequence, errno(0)...)),
			),
			[][]byte{{1}, {2}, {3}},
			"",
		},
		{"a dump that fails at its end", datagrams(message(wanted, multi, sequence, 1), message(unix.NLMSG_DONE, multi, sequence, errno(-12)...)), nil, "cannot allocate memory"},
		{"an empty dump of old kernels", datagrams(message(unix.NLMSG_DONE, multi, sequence)), nil, ""},
		{"interrupted in the middle", datagrams(message(wanted, multi|unix.NLM_F_DUMP_INTR, sequence, 1), message(unix.NLMSG_DONE, multi, sequence, errno(0)...)), nil, errInterrupted.Error()},
		{"interrupted at the end", datagrams(message(wanted, multi, sequence, 1), message(unix.NLMSG_DONE, multi|unix.NLM_F_DUMP_INTR, sequence, errno(0)...)), nil, errInterrupted.Error()},
		{"an answer to somebody else's question before ours", datagrams(join(message(wanted, 0, 77, 9), message(wanted, 0, sequence, 1))), [][]byte{{1}}, ""},
		{"nothing comes", datagrams(), nil, "no further datagram"},
		{"length beyond the end", datagrams(message(wanted, 0, sequence, 1, 2, 3, 4)[:18]), nil, "a message of 20 bytes in 18"},
		{"length below a header", datagrams(append([]byte{3, 0, 0, 0}, make([]byte, 12)...)), nil, "a message of"},
	} {
		got, err := collect(wanted, c.next)
		if c.fails != "" {
			require.ErrorContains(t, err, c.fails, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, got, c.name)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(message(unix.RTM_NEWADDR, unix.NLM_F_MULTI, sequence, 1, 2, 3))
	f.Add(join(message(unix.RTM_NEWLINK, 0, 2), message(unix.NLMSG_ERROR, 0, sequence, errno(-1)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		_, err := split(b, func(_, _ uint16, payload []byte) error {
			total += len(payload)
			return nil
		})
		if err == nil && total > len(b) {
			t.Fatalf("%d bytes of payload in %d", total, len(b))
		}
	})
}
