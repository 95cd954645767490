// Package atomicfile replaces small files so that a reader, and the machine
// after a power cut, sees either the whole old content or the whole new one.
//
// The steps are those of open(2), fsync(2) and rename(2): write a temporary
// file in the same directory, fsync it, rename it over the old one, fsync the
// directory. Without the first fsync a file system with delayed allocation may
// keep a renamed but empty file; without the second the rename itself may be
// lost.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Error is what each function of this package returns when it fails.
type Error struct {
	// Op is the step that failed: create, write, chmod, chown, sync, rename,
	// sync directory, read.
	Op string
	// Path is the file that was to be replaced, or its directory.
	Path string
	// Err is the cause, with the errno inside.
	Err error
}

// Error names the step and the file.
func (e *Error) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err) }

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// keepOwner as uid or gid means: whoever creates the file owns it.
const keepOwner = -1

// Write replaces path with data and mode (mode is exact: the umask does not
// apply). When it returns nil, the new content is on the disk; on an error the
// old file is untouched, except when the last step (sync directory) failed:
// then the new content is in place but might not survive a power cut.
//
// A symbolic link at path is replaced, not followed. The directory must exist.
func Write(path string, data []byte, mode fs.FileMode) error {
	return WriteOwned(path, data, mode, keepOwner, keepOwner)
}

// WriteOwned is Write for a file that belongs to uid and gid; -1 keeps the
// creator's. The file never appears at path with another owner or mode.
func WriteOwned(path string, data []byte, mode fs.FileMode, uid, gid int) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	tmp, err := os.CreateTemp(dir, "."+base+".new-*")
	if err != nil {
		return &Error{Op: "create", Path: path, Err: cause(err)}
	}
	if err := fill(tmp, data, mode, uid, gid); err != nil {
		_ = tmp.Close()
		_ = os.Remove(tmp.Name())
		err.Path = path
		return err
	}
	if err := tmp.Close(); err != nil {
		_ = os.Remove(tmp.Name())
		return &Error{Op: "close", Path: path, Err: cause(err)}
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		_ = os.Remove(tmp.Name())
		return &Error{Op: "rename", Path: path, Err: cause(err)}
	}
	return SyncDir(dir)
}

// fill gives the temporary file its content, owner and mode, and puts it on
// the disk. Owner before mode: chown clears set-id bits.
func fill(f *os.File, data []byte, mode fs.FileMode, uid, gid int) *Error {
	if _, err := f.Write(data); err != nil {
		return &Error{Op: "write", Err: cause(err)}
	}
	if uid != keepOwner || gid != keepOwner {
		if err := f.Chown(uid, gid); err != nil {
			return &Error{Op: "chown", Err: cause(err)}
		}
	}
	if err := f.Chmod(mode); err != nil {
		return &Error{Op: "chmod", Err: cause(err)}
	}
	if err := f.Sync(); err != nil {
		return &Error{Op: "sync", Err: cause(err)}
	}
	return nil
}

// WriteIfChanged writes like Write, but only when the file is absent or its
// content differs; changed tells which. A monitor that keeps a record calls
// this, so that an idle service costs no disk write. What is no regular file (a
// symbolic link, a pipe) differs: it is replaced, and never read.
func WriteIfChanged(path string, data []byte, mode fs.FileMode) (changed bool, err error) {
	same, err := holds(path, data)
	if err != nil {
		return false, &Error{Op: "read", Path: path, Err: cause(err)}
	}
	if same {
		return false, nil
	}
	return true, Write(path, data, mode)
}

// holds tells whether path is a regular file with exactly this content.
func holds(path string, data []byte) (bool, error) {
	// Without O_NONBLOCK, opening a pipe would wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO):
		return false, nil // absent, a link, a socket
	case err != nil:
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(data)) {
		return false, err
	}
	old := make([]byte, len(data))
	if _, err := f.ReadAt(old, 0); err != nil {
		return false, err
	}
	return bytes.Equal(old, data), nil
}

// SyncDir puts the names in dir on the disk: call it after creating, renaming
// or removing files there by other means. File systems that cannot sync a
// directory (EINVAL, ENOTSUP) have nothing to lose there and are no error.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return &Error{Op: "sync directory", Path: dir, Err: cause(err)}
	}
	defer func() { _ = d.Close() }()
	err = d.Sync()
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return &Error{Op: "sync directory", Path: dir, Err: cause(err)}
	}
	return nil
}

// cause drops the operation and path that os has put around an errno, because
// Error carries both and the path of the temporary file helps nobody.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}
