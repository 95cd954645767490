package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/mfsmeta"
	"baton/agents/internal/process"
)

// proc builds a proc tree of masters with the given command lines and pids, by namespace.
func proc(t *testing.T, masters map[string][2]string) process.System {
	t.Helper()
	root := t.TempDir()
	write := func(pid, name, text string) {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Join(root, pid, "fd"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, pid, name), []byte(text), 0o644))
	}
	write("self", "status", "Name:\tmfsmaster\nNSpid:\t4711\n")
	for pid, m := range masters {
		write(pid, "stat", pid+" (mfsmaster) S 1"+strings.Repeat(" 0", 17)+" 99 0 0\n")
		write(pid, "cmdline", strings.ReplaceAll(m[0], " ", "\x00")+"\x00")
		write(pid, "status", "Name:\tmfsmaster\nNSpid:\t"+m[1]+"\n")
	}
	return process.System{Proc: root}
}

func TestAMasterInAContainerIsNotOurs(t *testing.T) {
	sys := proc(t, map[string][2]string{
		"10": {"mfsmaster -c /etc/mfs/mfsmaster.cfg start", "10"},
		"20": {"mfsmaster -c /etc/mfs/mfsmaster.cfg start", "20\t1"},
		"30": {"mfsmaster -c /etc/mfs/other.cfg start", "30"},
	})
	dir := t.TempDir()
	for _, pid := range []string{"10", "20"} {
		require.NoError(t, os.Symlink(dir, filepath.Join(sys.Proc, pid, "cwd")))
	}
	a := &agent{processes: sys, dataDir: dir, config: mfsmeta.Config{Path: "/etc/mfs/mfsmaster.cfg"}}
	strays, err := a.strays()
	require.NoError(t, err)
	require.Len(t, strays, 1)
	require.Equal(t, 10, strays[0].PID)

	ours, others, err := a.holders()
	require.NoError(t, err)
	require.Len(t, ours, 1)
	require.Equal(t, 10, ours[0].PID)
	require.Len(t, others, 1, "it is named, and left alone")
}
