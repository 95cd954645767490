package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// names lists what is in dir, so that a forgotten temporary file shows.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestWriteCreatesAndReplacesWithExactMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	old := unix.Umask(0o077)
	defer unix.Umask(old)

	require.NoError(t, Write(path, []byte("one\n"), 0o644))
	require.NoError(t, Write(path, []byte("two\n"), 0o640))

	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "two\n", string(got))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode().Perm(), "the umask must not apply")
	require.Equal(t, []string{"record"}, names(t, dir), "no temporary file may stay")
}

func TestWriteReplacesASymlinkAndLeavesItsTargetAlone(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	require.NoError(t, os.WriteFile(target, []byte("keep"), 0o600))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(target, link))

	require.NoError(t, Write(link, []byte("new"), 0o600))

	kept, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "keep", string(kept))
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
}

func TestWriteOwnedSetsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away")
	}
	path := filepath.Join(t.TempDir(), "owned")
	require.NoError(t, WriteOwned(path, []byte("x"), 0o600, 65534, 65533))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	require.Equal(t, []uint32{65534, 65533}, []uint32{st.Uid, st.Gid})
}

func TestFailuresNameTheStepTheFileAndTheErrnoAndLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	full := filepath.Join(dir, "directory-in-the-way")
	require.NoError(t, os.MkdirAll(filepath.Join(full, "child"), 0o755))

	for _, c := range []struct {
		name, path, op string
		errno          error
	}{
		{"directory missing", filepath.Join(dir, "missing", "f"), "create", unix.ENOENT},
		{"a file where the directory should be", "/proc/version/f", "create", unix.ENOTDIR},
		{"a directory where the file should be", full, "rename", unix.EEXIST},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Write(c.path, []byte("x"), 0o600)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, c.op, e.Op)
			require.Equal(t, c.path, e.Path)
			// rename(2) onto a directory answers EISDIR or EEXIST by kernel and file system.
			if !errors.Is(err, c.errno) && !errors.Is(err, unix.EISDIR) {
				t.Fatalf("want errno %v, got %v", c.errno, err)
			}
		})
	}
	require.Equal(t, []string{"directory-in-the-way"}, names(t, dir))
}

func TestWriteOnAFullFileSystemKeepsTheOldContent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	path := filepath.Join(dir, "record")
	require.NoError(t, Write(path, []byte("old"), 0o600))

	err := Write(path, make([]byte, 1<<20), 0o600)

	require.ErrorIs(t, err, unix.ENOSPC)
	kept, rerr := os.ReadFile(path)
	require.NoError(t, rerr)
	require.Equal(t, "old", string(kept))
	require.Equal(t, []string{"record"}, names(t, dir))
}

func TestWriteIfChangedWritesOnlyChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	inode := func() uint64 {
		var st unix.Stat_t
		require.NoError(t, unix.Stat(path, &st))
		return st.Ino
	}

	changed, err := WriteIfChanged(path, []byte("a"), 0o600)
	require.NoError(t, err)
	require.True(t, changed, "absent file")
	first := inode()

	changed, err = WriteIfChanged(path, []byte("a"), 0o600)
	require.NoError(t, err)
	require.False(t, changed, "same content")
	require.Equal(t, first, inode(), "same content must not touch the file")

	changed, err = WriteIfChanged(path, []byte("b"), 0o600)
	require.NoError(t, err)
	require.True(t, changed, "other content")

	changed, err = WriteIfChanged(path, nil, 0o600)
	require.NoError(t, err)
	require.True(t, changed, "emptied")
	changed, err = WriteIfChanged(path, nil, 0o600)
	require.NoError(t, err)
	require.False(t, changed, "empty already")

	_, err = WriteIfChanged("/proc/version/f", []byte("b"), 0o600)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "read", e.Op)
}

func TestWriteIfChangedReplacesWhatIsNoRegularFileWithoutReadingIt(t *testing.T) {
	dir := t.TempDir()
	for name, put := range map[string]func(path string) error{
		"a pipe, whose opening would wait":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link to something without an end": func(path string) error { return os.Symlink("/dev/zero", path) },
		"a link to nowhere":                  func(path string) error { return os.Symlink("/nowhere", path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "record")
			require.NoError(t, put(path))
			changed, err := WriteIfChanged(path, []byte("x"), 0o600)
			require.NoError(t, err)
			require.True(t, changed)
			info, err := os.Lstat(path)
			require.NoError(t, err)
			require.True(t, info.Mode().IsRegular())
			require.NoError(t, os.Remove(path))
		})
	}
	changed, err := WriteIfChanged(dir, []byte("x"), 0o600)
	require.True(t, changed)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "rename", e.Op, "a directory is not replaced")
}

func TestConcurrentWritersLeaveOneWholeContent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			data := make([]byte, 4096)
			for j := range data {
				data[j] = byte('a' + i)
			}
			require.NoError(t, Write(path, data, 0o600))
		})
	}
	wg.Wait()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, got, 4096)
	for _, b := range got {
		require.Equal(t, got[0], b, "contents of two writers are mixed")
	}
	require.Equal(t, []string{"record"}, names(t, dir))
}
