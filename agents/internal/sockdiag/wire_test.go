package sockdiag

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// unhex reads hex digits with blanks and // comments between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "//")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	require.NoError(t, err)
	return b
}

// littleEndian skips the goldens elsewhere: netlink is in host byte order.
func littleEndian(t *testing.T) {
	t.Helper()
	if cpu.IsBigEndian {
		t.Skip("the golden bytes are those of a little-endian machine")
	}
}

func TestMarshalListGolden(t *testing.T) {
	littleEndian(t)
	for _, c := range []struct {
		name   string
		family uint8
		filter Filter
		want   string
	}{
		{
			"everything", unix.AF_INET,
			Filter{},
			`02 06 00 00  7e 1b 00 00          // AF_INET, TCP, all states but CLOSE and LISTEN
			 ` + strings.Repeat("00", 48),
		},
		{
			"IPv4 address", unix.AF_INET6,
			Filter{Local: netip.MustParseAddr("192.0.2.50"), States: Set(Established)},
			`0a 06 00 00  02 00 00 00
			 ` + strings.Repeat("00", 48) + `
			 14 00 01 00                       // rtattr: 20 bytes, INET_DIAG_REQ_BYTECODE
			 07 10 14 00                       // S_COND, yes: 16, the end; no: 20, behind it
			 02 20 00 00  ffffffff          // AF_INET, 32 bits, any port
			 c0 00 02 32`,
		},
		{
			"mapped address is IPv4", unix.AF_INET,
			Filter{Local: netip.MustParseAddr("::ffff:192.0.2.50"), Port: 2049, States: Set(Listen)},
			`02 06 00 00  00 04 00 00
			 ` + strings.Repeat("00", 48) + `
			 14 00 01 00
			 07 10 14 00
			 02 20 00 00  01 08 00 00
			 c0 00 02 32`,
		},
		{
			"IPv6 address", unix.AF_INET6,
			Filter{Local: netip.MustParseAddr("fe80::5%eth0"), States: Set(Established)},
			`0a 06 00 00  02 00 00 00
			 ` + strings.Repeat("00", 48) + `
			 20 00 01 00
			 07 1c 20 00
			 0a 80 00 00  ffffffff
			 fe80 0000 0000 0000 0000 0000 0000 0005`,
		},
		{
			"port of any address", unix.AF_INET,
			Filter{Port: 22, States: Set(Established)},
			`02 06 00 00  02 00 00 00
			 ` + strings.Repeat("00", 48) + `
			 10 00 01 00
			 07 0c 10 00
			 00 00 00 00  16 00 00 00`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, hex.EncodeToString(unhex(t, c.want)), hex.EncodeToString(marshalList(c.family, c.filter)))
		})
	}
}

// inet6Answer is an inet_diag_msg of an IPv4 connection on a dual-stack socket.
const inet6Answer = `
	0a 01 00 00                              // AF_INET6, ESTABLISHED
	08 01  03 2c                             // ports 2049, 812
	0000 0000 0000 0000 0000 ffff c000 0232  // 192.0.2.50
	0000 0000 0000 0000 0000 ffff c633 6407  // 198.51.100.7
	03 00 00 00                              // interface
	11 22 33 44 55 66 77 88                  // cookie
	00 00 00 00 00 00 00 00 00 00 00 00
	e8 03 00 00  39 30 00 00                 // uid 1000, inode 12345
	05 00 08 00 00 00 00 00                  // an attribute`

func TestParseSocketReadsAMappedConnectionAndDestroyNamesItByCookie(t *testing.T) {
	littleEndian(t)
	answer := unhex(t, inet6Answer)
	s, err := parseSocket(answer)
	require.NoError(t, err)

	require.Equal(t, "ESTAB 192.0.2.50:2049 198.51.100.7:812", s.String())
	require.Equal(t, uint8(unix.AF_INET6), s.Family)
	require.Equal(t, []uint32{3, 1000, 12345}, []uint32{s.Interface, s.UID, s.Inode})
	req := marshalDestroy(s)
	require.Equal(t, "0a06000002000000", hex.EncodeToString(req[:8]))
	require.True(t, bytes.Equal(answer[4:4+sockidLen], req[8:]), "the id must go back unchanged, mapped addresses and cookie included")
}

func TestParseSocketRefusesWhatIsNoInetDiagMsg(t *testing.T) {
	whole := unhex(t, inet6Answer)
	for name, b := range map[string][]byte{
		"empty":            nil,
		"cut":              whole[:msgLen-1],
		"not an IP family": append([]byte{unix.AF_UNIX}, whole[1:]...),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseSocket(b)
			require.ErrorContains(t, err, "expected")
		})
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add(unhex(f, inet6Answer))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSocket(b)
		if err != nil {
			return
		}
		if !s.Local.IsValid() || !s.Remote.IsValid() || s.Local.Addr().Is4In6() {
			t.Fatalf("accepted without usable addresses: %v", s)
		}
		if s.State.String() == "" {
			t.Fatal("a state without a name")
		}
	})
}

func TestStatesNameThemselvesAndSetsHold(t *testing.T) {
	require.Equal(t, "UNKNOWN-77", State(77).String())
	require.Equal(t, "TIME-WAIT", TimeWait.String())
	require.True(t, Connections.Has(SynRecv))
	require.False(t, Connections.Has(Listen), "a listener must survive: its daemon goes on without the address")
	require.False(t, Connections.Has(Close))
}
