package mfsmeta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// metadataFile is a whole metadata file of MooseFS 3 with the given sections.
func metadataFile(version, id uint64, sections ...string) []byte {
	b := []byte("MFSM 2.0")
	b = binary.BigEndian.AppendUint64(b, version)
	b = binary.BigEndian.AppendUint64(b, id)
	for _, s := range sections {
		b = append(b, "NODE 1.4"...)
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	return append(b, "[MFS EOF MARKER]"...)
}

func legacyFile(format string, version uint64) []byte {
	b := append([]byte("MFSM "), format...)
	b = binary.BigEndian.AppendUint32(b, 100)
	b = binary.BigEndian.AppendUint64(b, version)
	return binary.BigEndian.AppendUint32(b, 7)
}

func TestHeadersOfAllFormatsAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		want Header
	}{
		"new":                  {[]byte("MFSM NEW"), Header{New: true, Version: 1}},
		"3.0":                  {metadataFile(8403, 7, "some nodes", "some edges"), Header{Format: "2.0", Version: 8403, MetaID: 7}},
		"3.0 without sections": {metadataFile(2, 1<<63), Header{Format: "2.0", Version: 2, MetaID: 1 << 63}},
		"1.6 with sections":    {append(legacyFile("1.7", 55), "[MFS EOF MARKER]"...), Header{Format: "1.7", Version: 55}},
		"1.6":                  {append(legacyFile("1.5", 55), "body"...), Header{Format: "1.5", Version: 55}},
	} {
		h, err := parseMetadata(bytes.NewReader(c.data), int64(len(c.data)))
		require.NoError(t, err, name)
		require.Equal(t, c.want, h, name)
	}
}

func TestDamagedMetadataFilesAreNamedAsSuch(t *testing.T) {
	whole := metadataFile(8403, 7, "some nodes")
	lying := bytes.Clone(whole)
	binary.BigEndian.PutUint64(lying[32:], 1<<63)
	overlong := bytes.Clone(whole)
	binary.BigEndian.PutUint64(overlong[32:], uint64(len(whole)))
	for name, data := range map[string][]byte{
		"empty":              nil,
		"one byte":           []byte("M"),
		"signature cut":      whole[:7],
		"header cut":         whole[:20],
		"header alone":       whole[:24],
		"section cut":        whole[:45],
		"marker cut":         whole[:len(whole)-1],
		"bytes behind":       append(bytes.Clone(whole), 0),
		"NULs":               make([]byte, 4096),
		"NULs behind header": append(bytes.Clone(whole[:24]), make([]byte, 4096)...),
		"another signature":  append([]byte("LIZM 2.0"), whole[8:]...),
		"unknown format":     append([]byte("MFSM 9.9"), whole[8:]...),
		"new with more":      []byte("MFSM NEW!"),
		"huge section":       lying,
		"section beyond end": overlong,
		"version zero":       metadataFile(0, 7),
		"text":               []byte(strings.Repeat("no metadata at all\n", 100)),
	} {
		_, err := parseMetadata(bytes.NewReader(data), int64(len(data)))
		require.ErrorIs(t, err, ErrDamaged, name)
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add(metadataFile(8403, 7, "some nodes"))
	f.Add([]byte("MFSM NEW"))
	f.Add(legacyFile("1.5", 9))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseMetadata(bytes.NewReader(data), int64(len(data)))
		if err == nil && h.Version == 0 {
			t.Fatal("version 0 accepted")
		}
	})
}

func TestMetadataIsNeverReadThroughASymbolicLink(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	require.NoError(t, os.WriteFile(real, metadataFile(5, 7), 0o644))
	link := filepath.Join(dir, "metadata.mfs")
	require.NoError(t, os.Symlink(real, link))
	_, err := ReadHeader(link)
	require.True(t, IsLink(err), "%v", err)
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "metadata.mfs.back"), 0o644))
	_, err = ReadHeader(filepath.Join(dir, "metadata.mfs.back"))
	require.ErrorContains(t, err, "not a regular file")
	inv, err := List(dir)
	require.NoError(t, err)
	require.Len(t, inv.Bases, 2)
	require.Error(t, inv.Unreadable())
}

func TestChangelogLines(t *testing.T) {
	for line, id := range map[string]uint64{
		"1: 1795261298|SETMETAID(7710588564285173315)": 1,
		"2: 1795261301|CREATE(1,name,1,420,0,0,0,0):5": 2,
		"18446744073709: 0|ACCESS(1)":                  18446744073709,
		"3: 1|SYMLINK(1,a%28b,c%0A):9":                 3,
		"4: 1|SNAPSHOT(1,2,(x),3)":                     4,
	} {
		got, ok := lineID([]byte(line))
		require.True(t, ok, line)
		require.Equal(t, id, got, line)
	}
	for _, line := range []string{
		"", "1", "1:", "1: ", "1: 2", "1: 2|", "1: 2|X", "1: 2|X(", "1: 2|x(1)", ": 2|X(1)", "a: 2|X(1)", "1:2|X(1)",
		"1: |X(1)", "0: 2|X(1)", "1: 2|X)1(", "-1: 2|X(1)", " 1: 2|X(1)", "1: 2|X(\x00)", "\x00\x00\x00", "1: 2|CREATE(1,na",
	} {
		_, ok := lineID([]byte(line))
		require.False(t, ok, "%q", line)
	}
}

func change(id int) string {
	return fmt.Sprintf("%d: 1795261298|CREATE(1,f%d,1,420,0,0,0,0):%d\n", id, id, id+1)
}

func changes(from, to int) string {
	var b strings.Builder
	for id := from; id <= to; id++ {
		b.WriteString(change(id))
	}
	return b.String()
}

func TestEveryKindOfTailIsTold(t *testing.T) {
	good := changes(1, 3)
	for name, c := range map[string]struct {
		text    string
		lines   int
		good    int
		resumed bool
	}{
		"whole":              {good, 3, len(good), false},
		"empty":              {"", 0, 0, false},
		"half a line":        {good + "4: 179", 3, len(good), false},
		"no line break":      {good + strings.TrimSuffix(change(4), "\n"), 3, len(good), false},
		"NULs":               {good + strings.Repeat("\x00", 616), 3, len(good), false},
		"many NULs":          {good + strings.Repeat("\x00", 3*maxLine), 3, len(good), false},
		"NULs and a break":   {good + "\x00\x00\n", 3, len(good), false},
		"only NULs":          {strings.Repeat("\x00", 100), 0, 0, false},
		"damage inside":      {good + "\x00\x00\n" + change(4), 4, len(good) + 3 + len(change(4)), true},
		"overlong line":      {good + "4: 1|X(" + strings.Repeat("a", 2*maxLine) + ")\n" + change(5), 4, len(good) + 2*maxLine + 9 + len(change(5)), true},
		"damage at the head": {"\x00\n" + good, 3, 2 + len(good), true},
	} {
		l := newLines(name, strings.NewReader(c.text))
		n := 0
		for {
			_, _, err := l.next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, name)
			n++
		}
		require.Equal(t, c.lines, n, name)
		require.EqualValues(t, c.good, l.good, name)
		require.EqualValues(t, len(c.text), l.at, name)
		require.Equal(t, c.resumed, l.resumed, name)
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(changes(1, 3)), 10)
	f.Add([]byte(changes(1, 2)+"3: 1\x00\x00"), 3)
	f.Fuzz(func(t *testing.T, data []byte, _ int) {
		l := newLines("fuzz", bytes.NewReader(data))
		count := 0
		for {
			id, line, err := l.next()
			if err != nil {
				break
			}
			if id == 0 || bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, 0) >= 0 {
				t.Fatalf("line %q accepted with id %d", line, id)
			}
			count++
		}
		if l.at != int64(len(data)) || l.good > l.at {
			t.Fatalf("read %d of %d bytes, good up to %d", l.at, len(data), l.good)
		}
		// What is kept of a torn file must read the same, without a tear.
		if !l.resumed {
			again := newLines("again", bytes.NewReader(data[:l.good]))
			for {
				if _, _, err := again.next(); err != nil {
					break
				}
				count--
			}
			if count != 0 || again.bad >= 0 {
				t.Fatalf("cutting at %d changed what is read", l.good)
			}
		}
	})
}

// dirWith makes a directory with these files.
func dirWith(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

func TestInventoryListsWhatRecoveryCouldUse(t *testing.T) {
	dir := dirWith(t, map[string]string{
		"metadata.mfs.back":       string(metadataFile(100, 7)),
		"metadata.mfs.back.1":     string(metadataFile(50, 7)),
		"metadata.mfs":            string(metadataFile(120, 7))[:39],
		"metadata.mfs.empty":      "MFSM NEW",
		"metadata.crc":            "HEAD1234",
		"metadata.mfs.back.tmp":   "half",
		"metadata_ml.mfs.back":    string(metadataFile(70, 7)),
		"changelog.0.mfs":         changes(100, 110) + "111: 1",
		"changelog.1.mfs":         changes(50, 99),
		"changelog.10.mfs":        changes(1, 49),
		"changelog_ml.0.mfs":      changes(70, 120),
		"changelog_ml_back.1.mfs": "",
		"changelog.01.mfs":        changes(1, 1),
		"changelog.x.mfs":         changes(1, 1),
		"changelog.0.mfs.old":     changes(1, 1),
		"stats.mfs":               "",
	})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "metadata.dir"), 0o755))
	inv, err := List(dir)
	require.NoError(t, err)
	var bases, logs []string
	for _, b := range inv.Bases {
		bases = append(bases, b.Name())
	}
	for _, l := range inv.Logs {
		logs = append(logs, fmt.Sprintf("%s %d-%d %v", l.Name(), l.First, l.Last, l.Torn))
	}
	require.Equal(t, []string{"metadata.mfs.back", "metadata_ml.mfs.back", "metadata.mfs.back.1", "metadata.mfs", "metadata.mfs.empty"}, bases)
	require.Equal(t, []string{
		"changelog.10.mfs 1-49 false", "changelog.1.mfs 50-99 false", "changelog.0.mfs 100-110 true",
		"changelog_ml.0.mfs 70-120 false", "changelog_ml_back.1.mfs 0-0 false",
	}, logs)
	require.Equal(t, []uint64{7}, inv.MetaIDs())
	require.Equal(t, []string{filepath.Join(dir, "metadata.mfs.back.tmp")}, inv.Unfinished)
	require.EqualValues(t, 110, inv.Last(Master))
	require.NoError(t, inv.Unreadable())
}

func scanDirs(t *testing.T, from uint64, own map[string]string, other map[string]string) (Scan, string, string) {
	t.Helper()
	a, b := dirWith(t, own), dirWith(t, other)
	var logs []Log
	for _, dir := range []string{a, b} {
		inv, err := List(dir)
		require.NoError(t, err)
		logs = append(logs, inv.Logs...)
	}
	s, err := ScanLogs(a, logs, from)
	require.NoError(t, err)
	return s, a, b
}

func TestScanFollowsTheIdsOverAllFiles(t *testing.T) {
	s, _, _ := scanDirs(t, 40, map[string]string{
		"changelog.2.mfs": changes(1, 49), "changelog.1.mfs": changes(50, 60), "changelog.0.mfs": changes(61, 70),
	}, nil)
	require.True(t, s.Clean())
	require.EqualValues(t, 71, s.Next)
	require.EqualValues(t, 71, s.Own)
	require.EqualValues(t, 70, s.Lines)
}

func TestScanMergesWhatContinuesTheSameHistory(t *testing.T) {
	s, dir, _ := scanDirs(t, 10,
		map[string]string{"changelog.0.mfs": changes(5, 60) + "61: 17"},
		map[string]string{"changelog_ml.1.mfs": changes(1, 50), "changelog_ml.0.mfs": changes(51, 80) + "\x00\x00", "changelog_ml_back.0.mfs": changes(40, 55)})
	require.True(t, s.Clean())
	require.EqualValues(t, 81, s.Next)
	require.EqualValues(t, 61, s.Own)
	require.EqualValues(t, 56, s.Overlap)
	require.Len(t, s.Tears, 2)
	require.Equal(t, Tear{Path: filepath.Join(dir, "changelog.0.mfs"), Keep: int64(len(changes(5, 60))), Size: int64(len(changes(5, 60)) + 6)}, s.Tears[0])
}

func TestScanFindsWhereHistoriesPart(t *testing.T) {
	s, a, b := scanDirs(t, 1,
		map[string]string{"changelog.0.mfs": changes(1, 60)},
		map[string]string{"changelog_ml.0.mfs": changes(1, 30) + strings.ReplaceAll(changes(31, 80), "CREATE", "UNLINK")})
	require.Equal(t, &Fork{ID: 31, A: filepath.Join(a, "changelog.0.mfs"), B: filepath.Join(b, "changelog_ml.0.mfs")}, s.Fork)
	require.False(t, s.Clean())
}

func TestScanSeesASingleDifferentByte(t *testing.T) {
	s, _, _ := scanDirs(t, 1,
		map[string]string{"changelog.0.mfs": changes(1, 60)},
		map[string]string{"changelog_ml.0.mfs": changes(1, 59) + strings.Replace(change(60), "420", "421", 1)})
	require.EqualValues(t, 60, s.Fork.ID)
}

func TestScanNamesHolesDamageAndDisorder(t *testing.T) {
	s, _, _ := scanDirs(t, 1, map[string]string{"changelog.0.mfs": changes(1, 10) + changes(15, 20)}, nil)
	require.Equal(t, &Hole{From: 11, To: 14}, s.Hole)
	require.EqualValues(t, 11, s.Next)
	require.EqualValues(t, 20, s.Highest)

	s, _, _ = scanDirs(t, 1, map[string]string{"changelog.0.mfs": changes(1, 10) + changes(15, 20)},
		map[string]string{"changelog_ml.0.mfs": changes(9, 16)})
	require.Nil(t, s.Hole, "the metalogger has what is missing")
	require.EqualValues(t, 21, s.Next)

	s, dir, _ := scanDirs(t, 1, map[string]string{"changelog.0.mfs": changes(1, 5) + "\x00\x00\n" + changes(6, 9)}, nil)
	require.Equal(t, []string{filepath.Join(dir, "changelog.0.mfs")}, s.Damaged)

	s, dir, _ = scanDirs(t, 1, map[string]string{"changelog.1.mfs": changes(1, 9), "changelog.0.mfs": changes(5, 12)}, nil)
	require.Equal(t, []string{filepath.Join(dir, "changelog.0.mfs")}, s.Disordered)

	s, _, _ = scanDirs(t, 30, map[string]string{"changelog.0.mfs": changes(1, 10)}, nil)
	require.Nil(t, s.Hole, "changes before the base are of no interest")
	require.EqualValues(t, 30, s.Next)
}

func TestScanReadsTheMetaID(t *testing.T) {
	s, _, _ := scanDirs(t, 1, map[string]string{"changelog.0.mfs": "1: 1795261298|SETMETAID(18446744073709551615)\n" + change(2)}, nil)
	require.EqualValues(t, uint64(1<<64-1), s.MetaID)
}

func TestSelectLeavesOutWhatEndsBeforeTheBase(t *testing.T) {
	logs := []Log{
		{Path: "a", Size: 9, First: 1, Last: 9},
		{Path: "b", Size: 9, First: 10, Last: 19},
		{Path: "c", Size: 9, First: 20, Last: 29, Torn: true},
		{Path: "d", Size: 9},
		{Path: "e"},
		{Path: "f", Size: 3, First: 1, Last: 2, Torn: true},
	}
	var selected []string
	for _, l := range Select(logs, 15) {
		selected = append(selected, l.Path)
	}
	require.Equal(t, []string{"b", "c", "d", "f"}, selected, "torn files are always read: their tails have to be cut")
}

func TestConfigurationGrammar(t *testing.T) {
	c := parseConfig([]byte("# DATA_PATH = /commented\nDATA_PATH = /first\n  DATA_PATH =\t/second # not a comment \r\n" +
		"WORKING_USER=nobody\nno equals sign\nTWO WORDS = x\n= x\n\n   \nMATOCL_LISTEN_PORT = 19421\nEMPTY =\ndata_path = /other\nCHANGELOG_SAVE_MODE = zwei\nN = 5x\n"))
	require.Equal(t, "/second # not a comment", c.Get("DATA_PATH", ""))
	require.Equal(t, "nobody", c.User())
	require.Equal(t, "/other", c.Get("data_path", ""))
	require.Equal(t, []string{"no equals sign", "TWO WORDS = x", "= x"}, c.Ignored)
	require.True(t, c.IsSet("EMPTY"))
	require.Equal(t, "", c.Get("EMPTY", "x"))
	require.Equal(t, "x", c.Get("ABSENT", "x"))
	n, err := c.Number("MATOCL_LISTEN_PORT", 1)
	require.NoError(t, err)
	require.Equal(t, 19421, n)
	for _, name := range []string{"CHANGELOG_SAVE_MODE", "N"} {
		_, err = c.Number(name, 0)
		require.Error(t, err, name)
	}
	require.Equal(t, DefaultDataPath, parseConfig(nil).DataPath())
	require.Equal(t, "/a/b", parseConfig([]byte("DATA_PATH = /a//b/\n")).DataPath())
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("A = b\n#c\n= \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := parseConfig(data)
		for name := range c.values {
			if name == "" || strings.ContainsAny(name, " \t\n") {
				t.Fatalf("name %q", name)
			}
		}
	})
}

func TestAMissingConfigurationIsAnError(t *testing.T) {
	_, err := ReadConfig(filepath.Join(t.TempDir(), "mfsmaster.cfg"))
	require.True(t, Absent(err))
	_, err = ReadConfig(t.TempDir())
	require.Error(t, err)
}

func TestLockOwnerNamesWhoHoldsTheLock(t *testing.T) {
	dir := dirWith(t, map[string]string{MasterLock: "99999\n"})
	pid, err := LockOwner(dir, MasterLock)
	require.NoError(t, err)
	require.Zero(t, pid, "the pid in the file means nothing")
	pid, err = LockOwner(dir, WriterLock)
	require.NoError(t, err)
	require.Zero(t, pid, "no file, no owner")
	pid, err = LockOwner(filepath.Join(dir, "nowhere"), MasterLock)
	require.NoError(t, err)
	require.Zero(t, pid)
	// An open file description lock conflicts also within one process; its owner has no pid.
	f, err := os.OpenFile(filepath.Join(dir, MasterLock), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	pid, err = LockOwner(dir, MasterLock)
	require.NoError(t, err)
	require.Equal(t, -1, pid)
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(dir, WriterLock)))
	_, err = LockOwner(dir, WriterLock)
	require.Error(t, err, "a symbolic link is not followed")
}

func TestEmergencyFilesOfTheSameFileSystemAreFound(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"tmp", "var", "home/mfs"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	write := func(name string, data []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), data, 0o644))
	}
	write("tmp/metadata.mfs.emergency", metadataFile(500, 7))
	write("var/metadata.mfs.emergency", metadataFile(600, 8))
	write("home/mfs/metadata.mfs.emergency", metadataFile(500, 7)[:30])
	found := Emergency(root, "/home/mfs", 7)
	require.Len(t, found, 2)
	require.ErrorIs(t, found[0].Err, ErrDamaged)
	require.EqualValues(t, 500, found[1].Version)
}
