package nfsscope

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func hostname(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	require.NoError(t, unix.Uname(&u))
	return unix.ByteSliceToString(u.Nodename[:])
}

func TestUnderHidesTheNameFromTheRestOfTheMachine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a UTS namespace")
	}
	before := hostname(t)
	var inside string
	require.NoError(t, Under("one-service", func() error { inside = hostname(t); return nil }))
	require.Equal(t, "one-service", inside)
	require.Equal(t, before, hostname(t))

	boom := errors.New("boom")
	require.ErrorIs(t, Under("x", func() error { return boom }), boom)
}

func TestUnderRefusesNamesThatTheKernelWouldCut(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("x", MaxLen+1)} {
		require.ErrorContains(t, Under(name, func() error { t.Error("called"); return nil }), "1 to 64")
	}
}
