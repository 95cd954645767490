package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/mfsmeta"
	"baton/agents/internal/mfsproto"
	"baton/ocf"
)

// Changes that do not reach a full disk are in the memory of the master alone: monitor says so, and does
// not have it restarted. The same on a disk with room is a failure.
func TestOnAFullDiskTheMasterIsDegradedAndNotFailed(t *testing.T) {
	const plenty = 1 << 40
	for _, c := range []struct {
		mode   string
		free   uint64
		state  ocf.State
		failed bool
	}{
		{modeStorage, 0, ocf.DegradedRunning, false},
		{modeStorage, 1 << 20, ocf.DegradedRunning, false},
		{modeStorage, plenty, ocf.Stopped, true},
		{modeMetaloggers, 0, ocf.FailedPromoted, false},
	} {
		data := t.TempDir()
		a := local(t, "", data, t.TempDir())
		a.mode = c.mode
		a.call.Env.Probe, a.call.Env.CheckLevel = false, 10
		require.NoError(t, os.WriteFile(filepath.Join(data, "changelog.0.mfs"), []byte(changes(50, 100)), 0o644))
		s := sighting{master: 1, reply: answered, dataPath: data, free: c.free}
		s.info = mfsproto.Info{MetaVersion: 5000, HasMetaVersion: true}
		s.module.MetaID = 7
		a.lookedDeep(s) // 5000 was served a look ago, and the changelog ends at 100
		state, err := a.monitorServing(t.Context(), s)
		require.Equal(t, c.state, state, "%+v", c)
		require.Equal(t, c.failed, err != nil, "%+v: %v", c, err)
	}
}

func TestTheReserveGrowsWithTheMetadataAndIsGivenBack(t *testing.T) {
	data := t.TempDir()
	a := local(t, "", data, t.TempDir())
	path := filepath.Join(data, reserveName)
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(path)
		require.NoError(t, err)
		return info.Size()
	}
	if free, _, err := mfsmeta.Space(data); err != nil || free < 256<<20 {
		t.Skip("no room to set aside")
	}
	require.NoError(t, os.WriteFile(filepath.Join(data, "metadata.mfs.back"), []byte(meta(50, 7)), 0o644))
	a.keepReserve()
	first := size()
	require.Greater(t, first, int64(spareSpace/2))
	require.NoError(t, os.Truncate(filepath.Join(data, "metadata.mfs.back"), 8<<20))
	a.keepReserve()
	require.EqualValues(t, 8<<20+spareSpace/2, size())

	// What cannot be had does not cost what there is.
	require.NoError(t, os.Truncate(filepath.Join(data, "metadata.mfs.back"), 1<<40))
	a.keepReserve()
	require.EqualValues(t, 8<<20+spareSpace/2, size())

	// How much the last dump needs is not known: stop gives back all of it, on any disk.
	require.NoError(t, os.Truncate(filepath.Join(data, "metadata.mfs.back"), 100))
	a.releaseReserve()
	require.NoFileExists(t, path)
	a.releaseReserve()
}
