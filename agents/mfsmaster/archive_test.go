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
		v := &archive{root: root, keep: 2, why: "test", now: clock, made: made}
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
