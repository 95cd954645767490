package main

import (
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// local is an agent of a node over directories of the test's own.
func local(t *testing.T, node, dataDir, root string, params ...string) *agent {
	t.Helper()
	u, err := user.Current()
	require.NoError(t, err)
	return &agent{
		call: callOn(t, node, params...), mode: modeStorage, dataDir: dataDir, user: u.Username,
		archiveDir: filepath.Join(dataDir, "baton-archive"), root: root, now: time.Now,
	}
}

// callOn is a call with these parameters, taken from the driver itself.
func callOn(t *testing.T, node string, params ...string) *ocf.Call {
	t.Helper()
	var got *ocf.Call
	p := program()
	p.Check = func(c *ocf.Call) []ocf.Problem { got = c; return nil }
	env := []string{
		"OCF_ROOT=/x", "OCF_RESOURCE_INSTANCE=mfs", "OCF_RESKEY_config=" + filepath.Join(t.TempDir(), "none.cfg"),
		"OCF_RESKEY_CRM_meta_on_node=" + node, "HA_RSCTMP=" + t.TempDir(), "HA_LOGFACILITY=none",
	}
	for _, kv := range params {
		env = append(env, "OCF_RESKEY_"+kv)
	}
	ocf.RunOn(p, ocf.Host{Argv0: "mfsmaster", Args: []string{"monitor"}, Environ: env, Stdout: &strings.Builder{}, Stderr: &strings.Builder{}})
	require.NotNil(t, got)
	got.Log = slog.New(slog.DiscardHandler)
	return got
}

func TestAnEmergencyFileIsOfTheMasterThatServedHereLast(t *testing.T) {
	data, tmp := t.TempDir(), t.TempDir()
	one, two := local(t, "one", data, tmp), local(t, "two", data, t.TempDir())
	file := filepath.Join(tmp, "tmp", "metadata.mfs.emergency")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	write := func(path string, version uint64) {
		t.Helper()
		require.NoError(t, os.WriteFile(path, []byte(meta(version, 7)), 0o644))
	}
	write(file, 900)
	write(filepath.Join(data, "metadata.mfs.back"), 500)
	known := history{MetaID: 7}
	genuine := func(a *agent, known history) bool {
		t.Helper()
		m, err := a.gather(known)
		require.NoError(t, err)
		require.Len(t, m.emergency, 1)
		return m.continues
	}
	require.False(t, genuine(one, known), "nobody knows who served")
	require.NoError(t, one.markServed(known))
	require.True(t, genuine(one, known))
	require.NoError(t, two.markServed(known))
	require.False(t, genuine(one, known), "the other node has served since")

	// Over metaloggers the directories are two; the epoch tells of the other one's masters.
	known.Epoch = 3
	require.NoError(t, one.markServed(known))
	require.True(t, genuine(one, history{MetaID: 7, Epoch: 3}))
	require.True(t, genuine(one, history{MetaID: 7, Epoch: 4}), "promoted again")
	require.False(t, genuine(one, history{MetaID: 7, Epoch: 5}), "another was promoted between")
	require.False(t, genuine(one, history{MetaID: 7, Epoch: 1}), "the record began anew")

	// What lies in the data directory itself goes with it, and is one of its own files.
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.Remove(filepath.Dir(file)))
	require.NoError(t, os.Symlink(data, filepath.Dir(file)))
	write(filepath.Join(data, "metadata.mfs.emergency"), 900)
	m, err := one.gather(known)
	require.NoError(t, err)
	require.Empty(t, m.emergency)
	require.Equal(t, "metadata.mfs.emergency", m.own.Bases[0].Name())
}

func TestAUsedEmergencyFileIsNotFoundAgain(t *testing.T) {
	data, tmp := t.TempDir(), t.TempDir()
	a := local(t, "one", data, tmp)
	file := filepath.Join(tmp, "metadata.mfs.emergency")
	require.NoError(t, os.WriteFile(file, []byte(meta(900, 7)), 0o644))
	p := plan{row: rowEmergency, version: 900, after: []string{file}, restore: true}
	left, err := a.carryOut(t.Context(), p, methodAuto)
	require.NoError(t, err)
	require.Equal(t, []string{file}, left, "mfsmaster -a has yet to read it")
	require.FileExists(t, file)
	p.restore = false
	left, err = a.carryOut(t.Context(), p, methodRestore)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Empty(t, mfsmeta.Emergency(tmp, "", 7))
	kept, err := filepath.Glob(filepath.Join(tmp, "baton-kept-*"))
	require.NoError(t, err)
	require.Len(t, kept, 1)
	data2, err := os.ReadFile(kept[0])
	require.NoError(t, err)
	require.Equal(t, meta(900, 7), string(data2))
}
