package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/mfsmeta"
)

// Masters follow each other faster than their metadata are downloaded: what a node has whole stays,
// however many unfinished downloads follow.
func TestAnUnfinishedDownloadDoesNotReplaceTheLastWholeCopy(t *testing.T) {
	complete := files{"metadata_ml.mfs.back": meta(50, 7), "changelog_ml_back.0.mfs": changes(50, 60), "changelog_ml.0.mfs": changes(58, 100) + "101: 1"}
	dir := t.TempDir()
	a := local(t, "one", t.TempDir(), t.TempDir())
	a.logger = &metalogger{dataDir: dir}
	aside := func(list files) {
		t.Helper()
		for name, text := range list {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
		require.NoError(t, a.setLoggerAside())
		inv, err := mfsmeta.List(dir)
		require.NoError(t, err)
		require.Empty(t, filesOf(inv), "nothing of an ended epoch stays where the next one is downloaded")
	}
	kept := func() copyOf {
		t.Helper()
		inv, err := mfsmeta.List(filepath.Join(dir, previousDir))
		require.NoError(t, err)
		return summarize(inv)
	}
	aside(complete)
	require.Equal(t, copyOf{exists: true, metaID: 7, version: 101}, kept())
	for _, fragments := range []files{
		{"metadata_ml.tmp": meta(90, 7)[:20], "changelog_ml.0.mfs": changes(101, 103)},
		{"metadata_ml.mfs.back": meta(90, 7), "changelog_ml.0.mfs": changes(102, 103)}, // what lies between comes last
	} {
		aside(fragments)
		require.Equal(t, copyOf{exists: true, metaID: 7, version: 101}, kept())
		for name, text := range fragments {
			data, err := os.ReadFile(filepath.Join(dir, fragmentsDir, name))
			require.NoError(t, err)
			require.Equal(t, text, string(data))
		}
	}
	aside(files{"metadata_ml.mfs.back": meta(120, 7), "changelog_ml.0.mfs": changes(120, 130)})
	require.Equal(t, copyOf{exists: true, metaID: 7, version: 131}, kept(), "the next whole one does")
	// And the earlier one is not gone.
	archives, err := filepath.Glob(filepath.Join(dir, "baton-archive", "*"))
	require.NoError(t, err)
	var versions []uint64
	for _, d := range archives {
		inv, err := mfsmeta.List(d)
		require.NoError(t, err)
		if whole(inv) {
			versions = append(versions, summarize(inv).version)
		}
	}
	require.Contains(t, versions, uint64(101))
}
