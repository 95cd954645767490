package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

func meta(version, id uint64) string {
	b := []byte("MFSM 2.0")
	b = binary.BigEndian.AppendUint64(b, version)
	b = binary.BigEndian.AppendUint64(b, id)
	return string(b) + "[MFS EOF MARKER]"
}

func changes(from, to int) string {
	var b strings.Builder
	for id := from; id <= to; id++ {
		fmt.Fprintf(&b, "%d: 1795261298|CREATE(1,f%d,1,420,0,0,0,0):%d\n", id, id, id+1)
	}
	return b.String()
}

type files map[string]string

// linked stands for the text of a file that is a symbolic link.
const linked = "-> elsewhere"

func inventory(t *testing.T, list files) mfsmeta.Inventory {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		if text == linked {
			require.NoError(t, os.Symlink("elsewhere", filepath.Join(dir, name)))
			continue
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	inv, err := mfsmeta.List(dir)
	require.NoError(t, err)
	return inv
}

// decideOn runs both halves of the decision over real files.
func decideOn(t *testing.T, m material) (plan, *refusal) {
	t.Helper()
	ap, r := choose(m)
	if r != nil {
		return plan{}, r
	}
	scan, err := mfsmeta.ScanLogs(m.own.Dir, ap.logs, ap.base.Version)
	require.NoError(t, err)
	return decide(m, ap, scan)
}

func TestTheStateTableOfTheData(t *testing.T) {
	const empty = "MFSM NEW"
	known := history{MetaID: 7, Version: 100, property: "mfsmaster-x"}
	type want struct {
		row     row
		version uint64
		restore bool
		trim    int
		merge   int
		aside   int
		after   int
		refused string // part of what is found
		do      string
		kind    ocf.Kind
	}
	for name, c := range map[string]struct {
		own, logger files
		m           material
		want        want
	}{
		"D1 stopped cleanly": {
			own:  files{"metadata.mfs": meta(101, 7), "metadata.mfs.back.1": meta(50, 7), "changelog.1.mfs": changes(50, 100)},
			want: want{row: rowClean, version: 101},
		},
		"D1 with a record that it meets": {
			own: files{"metadata.mfs": meta(101, 7)}, m: material{known: known}, want: want{row: rowClean, version: 101},
		},
		"D1 with a torn old changelog": {
			own:  files{"metadata.mfs": meta(101, 7), "changelog.0.mfs": changes(50, 100) + "101: 1"},
			want: want{row: rowTorn, version: 101, trim: 1},
		},
		"D2 crashed": {
			own:  files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			want: want{row: rowCrashed, version: 101, restore: true},
		},
		"D2 crashed before the first change": {
			own: files{"metadata.mfs.back": meta(50, 7)}, want: want{row: rowCrashed, version: 50, restore: true},
		},
		"D2 a new file system crashed before its first dump": {
			own:  files{"metadata.mfs.back": empty, "changelog.0.mfs": "1: 1|SETMETAID(7)\n" + changes(2, 9)},
			want: want{row: rowCrashed, version: 10, restore: true},
		},
		"D3 torn tail": {
			own:  files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100) + strings.Repeat("\x00", 616)},
			want: want{row: rowTorn, version: 101, restore: true, trim: 1},
		},
		"D4 empty .back after a power cut during the dump": {
			own:  files{"metadata.mfs.back": "", "metadata.mfs.back.1": meta(50, 7), "changelog.0.mfs": changes(80, 100), "changelog.1.mfs": changes(50, 79)},
			want: want{row: rowOlderBase, version: 101, restore: true, aside: 1},
		},
		"D4 an unfinished dump": {
			own:  files{"metadata.mfs.back": meta(50, 7), "metadata.mfs.back.tmp": meta(90, 7)[:30], "changelog.0.mfs": changes(50, 100)},
			want: want{row: rowCrashed, version: 101, restore: true, aside: 1},
		},
		"D4 nothing usable": {
			own:  files{"metadata.mfs.back": meta(50, 7)[:30], "changelog.0.mfs": changes(50, 100)},
			want: want{row: rowOlderBase, refused: "no usable metadata file: metadata.mfs.back damaged", do: "copy metadata_ml.mfs.back"},
		},
		"D5 hole": {
			own:  files{"metadata.mfs.back": meta(50, 7), "changelog.1.mfs": changes(50, 70), "changelog.0.mfs": changes(75, 100)},
			want: want{row: rowBroken, refused: "changes 71 to 74 missing", do: "version 71"},
		},
		"D5 base older than the first change": {
			own:  files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(60, 100)},
			want: want{row: rowBroken, refused: "changes 50 to 59 missing"},
		},
		"D5 hole that the metalogger fills": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.1.mfs": changes(50, 70), "changelog.0.mfs": changes(75, 100)},
			logger: files{"changelog_ml.0.mfs": changes(60, 105)},
			want:   want{row: rowMerge, version: 106, restore: true, merge: 1},
		},
		"D5 damage between changes": {
			own:  files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 70) + "\x00\n" + changes(71, 80)},
			want: want{row: rowBroken, refused: "unreadable bytes between changes in changelog.0.mfs"},
		},
		"D6 nothing": {
			want: want{row: rowEmpty, refused: "no metadata", do: "initialize=true"},
		},
		"D6 only what the package ships": {
			own: files{"metadata.mfs.empty": empty}, want: want{row: rowEmpty, refused: "no metadata"},
		},
		"D6 metadata.mfs made by hand": {
			own: files{"metadata.mfs": empty}, want: want{row: rowEmpty, refused: "no metadata"},
		},
		"D6 initialize": {
			m: material{initialize: true}, want: want{row: rowEmpty, version: 1},
		},
		"D6 initialize where the cluster knows a file system": {
			m: material{initialize: true, known: known}, want: want{row: rowEmpty, refused: "the cluster knows a file system"},
		},
		"D6 initialize a second time": {
			m: material{initialize: true, initialized: true}, want: want{row: rowEmpty, refused: "made here before (.baton-initialized)", do: "/.baton-initialized"},
		},
		"D6 initialize over changelogs": {
			own: files{"changelog.0.mfs": changes(50, 60)}, m: material{initialize: true},
			want: want{row: rowEmpty, refused: "changelog.0.mfs"},
		},
		"D7 two file systems": {
			own:  files{"metadata.mfs": meta(101, 7), "metadata.mfs.back.2": meta(300, 8)},
			want: want{row: rowTwoIDs, refused: "two file systems", do: "mfsmetadump"},
		},
		"D7 not the cluster's file system": {
			own: files{"metadata.mfs": meta(101, 8)}, m: material{known: known},
			want: want{row: rowTwoIDs, refused: "another file system", do: "crm_attribute --type crm_config --name mfsmaster-x --delete"},
		},
		"D8 metalogger's files copied in by hand": {
			own:  files{"metadata_ml.mfs.back": meta(50, 7), "changelog_ml.0.mfs": changes(50, 100)},
			want: want{row: rowLeftLogs, version: 101, restore: true, after: 2},
		},
		"D8 left over beside clean metadata": {
			own:  files{"metadata.mfs": meta(101, 7), "changelog_ml.0.mfs": changes(50, 100)},
			want: want{row: rowClean, version: 101, after: 1},
		},
		"D9 metadata.mfs is there, changelogs go on": {
			own:  files{"metadata.mfs": meta(51, 7), "changelog.0.mfs": changes(50, 100)},
			want: want{row: rowNewer, version: 101, restore: true},
		},
		"D10 older than the cluster knows": {
			own: files{"metadata.mfs": meta(90, 7)}, m: material{known: known},
			want: want{row: rowOlder, refused: "only version 90 can be recovered, 10 changes less", do: "older_metadata=accept"},
		},
		"D10 accepted": {
			own: files{"metadata.mfs": meta(90, 7)}, m: material{known: known, accept: true}, want: want{row: rowClean, version: 90},
		},
		"D12 metalogger ahead": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100) + "101: 179"},
			logger: files{"metadata_ml.mfs.back": meta(40, 7), "changelog_ml.1.mfs": changes(40, 60), "changelog_ml.0.mfs": changes(61, 120) + "12"},
			want:   want{row: rowMerge, version: 121, restore: true, trim: 1, merge: 1},
		},
		"D12 metalogger ahead of a clean copy": {
			own:    files{"metadata.mfs": meta(101, 7), "changelog.1.mfs": changes(50, 100)},
			logger: files{"changelog_ml.0.mfs": changes(61, 120)},
			want:   want{row: rowMerge, version: 121, restore: true, merge: 1},
		},
		"D12 metalogger not ahead": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			logger: files{"changelog_ml.0.mfs": changes(61, 100)},
			want:   want{row: rowCrashed, version: 101, restore: true},
		},
		"D12 metalogger ahead by another history": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			logger: files{"changelog_ml.0.mfs": changes(50, 89) + strings.ReplaceAll(changes(90, 120), "f9", "x9")},
			want:   want{row: rowBroken, refused: "two histories: change 90"},
		},
		"D12 metalogger ahead, nothing in common": {
			own:    files{"metadata.mfs": meta(101, 7)},
			logger: files{"changelog_ml.0.mfs": changes(101, 120)},
			want:   want{row: rowMerge, refused: "no change that both have"},
		},
		"D12 nothing in common, accepted without it": {
			own:    files{"metadata.mfs": meta(101, 7)},
			logger: files{"changelog_ml.0.mfs": changes(101, 120)},
			m:      material{accept: true},
			want:   want{row: rowClean, version: 101},
		},
		"D12 metalogger of another file system": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			logger: files{"metadata_ml.mfs.back": meta(40, 9), "changelog_ml.0.mfs": changes(40, 120)},
			want:   want{row: rowCrashed, version: 101, restore: true},
		},
		"D12 metalogger ahead, with an old file of another file system": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			logger: files{"metadata_ml.mfs.back": meta(40, 7), "metadata_ml.mfs.back.1": meta(900, 9), "changelog_ml.0.mfs": changes(40, 120)},
			want:   want{row: rowMerge, version: 121, restore: true, merge: 1},
		},
		"D12 metalogger ahead, its own metadata damaged, an old file of another file system": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			logger: files{"metadata_ml.mfs.back": meta(40, 7)[:20], "metadata_ml.mfs.back.1": meta(900, 9), "changelog_ml.0.mfs": changes(40, 120)},
			want:   want{row: rowMerge, version: 121, restore: true, merge: 1},
		},
		"D12 metalogger ahead, a link among its metadata": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			logger: files{"metadata_ml.mfs.back.1": linked, "changelog_ml.0.mfs": changes(61, 120)},
			want:   want{row: rowMerge, version: 121, restore: true, merge: 1},
		},
		"D12 metalogger with an unreadable changelog": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			logger: files{"changelog_ml.1.mfs": changes(61, 90), "changelog_ml.0.mfs": linked},
			want:   want{row: rowAccess, refused: "changelog_ml.0.mfs", do: "older_metadata=accept"},
		},
		"D12 metalogger with an unreadable changelog, accepted": {
			own:    files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)},
			logger: files{"changelog_ml.0.mfs": linked},
			m:      material{accept: true},
			want:   want{row: rowCrashed, version: 101, restore: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.m
			m.own = inventory(t, c.own)
			if c.logger != nil {
				inv := inventory(t, c.logger)
				m.logger = &inv
			}
			p, r := decideOn(t, m)
			if c.want.refused != "" {
				require.NotNil(t, r, "planned %+v", p)
				require.Equal(t, c.want.row, r.row)
				require.Contains(t, r.found, c.want.refused)
				require.Contains(t, r.do, c.want.do)
				require.NotEmpty(t, r.do, "the operator is told what to do")
				require.NotEmpty(t, r.expected)
				require.Equal(t, c.want.kind, r.kind)
				return
			}
			require.Nil(t, r, "%+v", r)
			got := want{row: p.row, version: p.version, restore: p.restore, trim: len(p.trim), merge: len(p.merge), aside: len(p.aside), after: len(p.after)}
			require.Equal(t, c.want, got)
		})
	}
}

func TestAFileOfTheMetaloggerIsNotLookedForInTheMastersDirectory(t *testing.T) {
	logger := inventory(t, files{"changelog_ml.0.mfs": changes(50, 90) + changes(80, 120)})
	_, r := decideOn(t, material{own: inventory(t, files{"metadata.mfs": meta(101, 7), "changelog.1.mfs": changes(50, 100)}), logger: &logger})
	require.NotNil(t, r)
	require.Contains(t, r.found, "ids that repeat or go back in "+logger.Dir+"/changelog_ml.0.mfs")
	require.Contains(t, r.do, "out of "+logger.Dir)

	logger = inventory(t, files{"changelog_ml.0.mfs": changes(50, 90) + "91: 17\x00\n" + changes(91, 120)})
	_, r = decideOn(t, material{own: inventory(t, files{"metadata.mfs": meta(101, 7), "changelog.1.mfs": changes(50, 100)}), logger: &logger})
	require.NotNil(t, r)
	require.Contains(t, r.found, "in "+logger.Dir+"/changelog_ml.0.mfs")
}

func TestABaseThatFailedIsNotTriedAgainAndMayCostNothing(t *testing.T) {
	own := inventory(t, files{"metadata.mfs": meta(101, 7), "metadata.mfs.back.1": meta(50, 7), "changelog.1.mfs": changes(50, 100)})
	m := material{own: own, failed: []string{filepath.Join(own.Dir, "metadata.mfs")}, known: history{MetaID: 7, Version: 101}}
	p, r := decideOn(t, m)
	require.Nil(t, r)
	require.Equal(t, rowOlderBase, p.row)
	require.EqualValues(t, 101, p.version)
	require.Equal(t, []string{filepath.Join(own.Dir, "metadata.mfs")}, p.aside)

	own = inventory(t, files{"metadata.mfs": meta(101, 7), "metadata.mfs.back.1": meta(50, 7), "changelog.1.mfs": changes(50, 90)})
	m.own, m.failed = own, []string{filepath.Join(own.Dir, "metadata.mfs")}
	_, r = decideOn(t, m)
	require.NotNil(t, r, "the older file leads to less")
	require.Equal(t, rowOlder, r.row)
}

// A full disk: the dying master's metadata went to another device, and nobody has served since.
func TestEmergencyFilesOfADyingMasterAreUsed(t *testing.T) {
	tmp := inventory(t, files{"metadata.mfs.emergency": meta(120, 7)})
	m := material{own: inventory(t, files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100) + "101: 1"}), emergency: tmp.Bases, continues: true}
	p, r := decideOn(t, m)
	require.Nil(t, r)
	require.True(t, p.restore)
	require.EqualValues(t, 120, p.version)
	require.Equal(t, rowEmergency, p.row)
	require.Contains(t, strings.Join(p.warnings, "\n"), tmp.Bases[0].Path)
	require.Equal(t, []string{tmp.Bases[0].Path}, p.after, "it is not used twice")
	require.Empty(t, p.retire)
}

// A master of another node went on from what was on the replicated device; its history may not be
// replaced by, nor mixed with, that of the file that was left on the disk of this node.
func TestEmergencyFilesOfAnotherHistoryAreNotUsed(t *testing.T) {
	crashed := files{"metadata.mfs.back": meta(50, 7), "changelog.0.mfs": changes(50, 100)}
	clean := files{"metadata.mfs": meta(101, 7), "changelog.1.mfs": changes(50, 100)}
	for name, c := range map[string]struct {
		own               files
		emergency         uint64
		continues, accept bool
		refused, do       string
		retired           int
	}{
		"newer by number":                       {own: crashed, emergency: 120, refused: "two histories: ", do: "/metadata.mfs.emergency /root/;"},
		"newer than what was stopped cleanly":   {own: clean, emergency: 120, continues: true, refused: "two histories: ", do: "/metadata.mfs.back;"},
		"older than the changelogs' end":        {own: crashed, emergency: 90, retired: 1},
		"older than what was stopped cleanly":   {own: clean, emergency: 90, retired: 1},
		"newer, and nothing here can be used":   {own: files{"metadata.mfs.back": ""}, emergency: 120, refused: "nothing shows that", do: "copy metadata_ml.mfs.back"},
		"newer, and the older one is asked for": {own: crashed, emergency: 120, accept: true, retired: 1},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := inventory(t, files{"metadata.mfs.emergency": meta(c.emergency, 7)})
			p, r := decideOn(t, material{own: inventory(t, c.own), emergency: tmp.Bases, continues: c.continues, accept: c.accept})
			if c.refused != "" {
				require.NotNil(t, r, "planned %+v", p)
				require.Equal(t, rowEmergency, r.row)
				require.Contains(t, r.found, c.refused)
				require.Contains(t, r.found, tmp.Bases[0].Path)
				require.Contains(t, r.do, c.do)
				return
			}
			require.Nil(t, r, "%+v", r)
			require.EqualValues(t, 101, p.version)
			require.NotEqual(t, tmp.Bases[0].Path, p.base.Path)
			require.Len(t, p.retire, c.retired, "mfsmaster would begin with it")
		})
	}
}

func TestACopysReachFollowsTheEndsOfItsFiles(t *testing.T) {
	for name, c := range map[string]struct {
		list files
		want copyOf
	}{
		"nothing":              {nil, copyOf{broken: "no usable metadata file"}},
		"only the package's":   {files{"metadata.mfs.empty": "MFSM NEW"}, copyOf{broken: "no usable metadata file"}},
		"following":            {files{"metadata_ml.mfs.back": meta(50, 7), "changelog_ml_back.0.mfs": changes(50, 60), "changelog_ml.0.mfs": changes(58, 100)}, copyOf{exists: true, metaID: 7, version: 101}},
		"still downloading":    {files{"metadata_ml.mfs.back": meta(50, 7), "changelog_ml.0.mfs": changes(90, 100)}, copyOf{exists: true, metaID: 7, version: 50}},
		"changelogs alone":     {files{"changelog_ml.0.mfs": changes(90, 100)}, copyOf{exists: true, broken: "no usable metadata file"}},
		"a torn last line":     {files{"metadata_ml.mfs.back": meta(50, 7), "changelog_ml.0.mfs": changes(50, 100) + "101: 17"}, copyOf{exists: true, metaID: 7, version: 101}},
		"a clean master":       {files{"metadata.mfs": meta(101, 7), "changelog.1.mfs": changes(50, 100)}, copyOf{exists: true, metaID: 7, version: 101}},
		"two file systems":     {files{"metadata.mfs": meta(101, 7), "metadata.mfs.back": meta(90, 8)}, copyOf{exists: true, metaID: 7, version: 101, broken: "files of two file systems"}},
		"a new one, following": {files{"metadata.mfs.back": "MFSM NEW", "changelog.0.mfs": changes(1, 5)}, copyOf{exists: true, version: 6}},
	} {
		require.Equal(t, c.want, summarize(inventory(t, c.list)), name)
	}
}
