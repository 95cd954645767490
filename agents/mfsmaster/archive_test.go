package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhatACallHasArchivedIsNotPrunedByIt(t *testing.T) {
	root, data := filepath.Join(t.TempDir(), "archive"), t.TempDir()
	clock := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	keep := func(made *[]string, name string) string {
		t.Helper()
		path := filepath.Join(data, name)
		require.NoError(t, os.WriteFile(path, []byte(name), 0o644))
		v := &archive{root: root, keep: 2, why: "test", need: 1 << 62, now: clock, made: made}
		require.NoError(t, v.take(path))
		require.NoError(t, v.prune())
		return v.dir
	}
	var before []string
	for range 3 {
		clock = clock.Add(time.Hour)
		before = append(before, keep(new([]string), "old"))
	}
	require.NoDirExists(t, before[0], "the oldest of three")

	// A power cut has set the clock back to the year in which the board was made.
	clock = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	made := new([]string)
	first := keep(made, "first")
	require.NoDirExists(t, before[1])
	require.FileExists(t, filepath.Join(first, "first"))
	clock = clock.Add(time.Second)
	second, third := keep(made, "second"), keep(made, "third")
	require.NoDirExists(t, before[2])
	require.FileExists(t, filepath.Join(first, "first"), "kept a moment ago for the same start")
	require.FileExists(t, filepath.Join(second, "second"))
	require.FileExists(t, filepath.Join(third, "third"))
}

// A master that crashes every few minutes makes an archive each time; what was kept because it exists
// nowhere else outlives them.
func TestManyRecoveriesDoNotPushOutWhatExistsNowhereElse(t *testing.T) {
	root, data := filepath.Join(t.TempDir(), "archive"), t.TempDir()
	clock := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	next := func(need uint64, keep func(v *archive, path string) error, name string) string {
		t.Helper()
		clock = clock.Add(time.Minute)
		path := filepath.Join(data, name)
		require.NoError(t, os.WriteFile(path, []byte(name), 0o644))
		v := &archive{root: root, keep: 2, why: "D2 not stopped cleanly, recovery: of a version", need: need, now: clock, made: new([]string)}
		require.NoError(t, keep(v, path))
		require.NoError(t, v.prune())
		return v.dir
	}
	count := func() int {
		t.Helper()
		list, err := os.ReadDir(root)
		require.NoError(t, err)
		return len(list)
	}
	retired := next(0, (*archive).take, "changelog.0.mfs")
	saved := next(0, (*archive).link, "changelog_ml.0.mfs")
	for range 20 {
		next(0, (*archive).link, "metadata.mfs.back")
	}
	require.DirExists(t, retired)
	require.DirExists(t, saved)
	require.Equal(t, 2+2, count(), "recoveries are limited by their own number")

	third := next(0, (*archive).take, "metadata.mfs")
	require.DirExists(t, retired, "young, and there is room")
	fourth := next(1<<62, (*archive).take, "metadata.mfs")
	require.NoDirExists(t, retired, "there is none")
	require.NoDirExists(t, saved)
	require.DirExists(t, third)
	require.DirExists(t, fourth)
	clock = clock.Add(8 * 24 * time.Hour)
	next(0, (*archive).take, "metadata.mfs")
	require.NoDirExists(t, third, "old")
}
