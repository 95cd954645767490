package command

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// leaky opens a descriptor the way heartbeat leaves its own: without close-on-exec.
func leaky(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	return fd
}

func closesOnExec(t *testing.T, fd int) bool {
	t.Helper()
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	require.Zero(t, errno)
	return flags&syscall.FD_CLOEXEC != 0
}

func TestRunGivesAChildNoDescriptorThatTheCallerLeaked(t *testing.T) {
	fd := leaky(t)
	require.False(t, closesOnExec(t, fd))
	res, err := Runner{}.Run(t.Context(), "ls", "/proc/self/fd")
	require.NoError(t, err)
	require.NotContains(t, strings.Fields(string(res.Stdout)), strconv.Itoa(fd))
	require.True(t, closesOnExec(t, fd))
}

func TestMarkOneByOneMarksWhatTheListedDirectoryNames(t *testing.T) {
	fd := leaky(t)
	dir := t.TempDir()
	for _, name := range []string{strconv.Itoa(fd), "0", "nonsense"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	markOneByOne(dir)
	require.True(t, closesOnExec(t, fd))
	require.False(t, closesOnExec(t, 0), "standard input stays as it is")
}

func TestMarkOneByOneLeavesEverythingWhereTheListCannotBeRead(t *testing.T) {
	fd := leaky(t)
	markOneByOne(filepath.Join(t.TempDir(), "missing"))
	require.False(t, closesOnExec(t, fd))
}
