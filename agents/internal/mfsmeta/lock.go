package mfsmeta

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The lock files of MooseFS in DATA_PATH. They stay when their owner has gone; only the POSIX lock
// on them means something.
const (
	// MasterLock is held by mfsmaster itself as long as it lives.
	MasterLock = ".mfsmaster.lock"
	// WriterLock is held by its child "mfsmaster (data writer)".
	WriterLock = ".bgwriter.lock"
	// MetaloggerLock is held by mfsmetalogger.
	MetaloggerLock = ".mfsmetalogger.lock"
)

// LockOwner is the pid that holds a write lock on the file, or 0: nobody does, also when there is
// no such file. It asks the kernel (F_GETLK), takes no lock and needs only read permission.
// A pid of -1 is an owner that this process cannot see: a process of another pid namespace, or an
// open file description lock.
func LockOwner(dir, name string) (pid int, err error) {
	path := filepath.Join(dir, name)
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	for {
		err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return 0, &os.PathError{Op: "fcntl F_GETLK", Path: path, Err: err}
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	if lock.Pid <= 0 {
		return -1, nil
	}
	return int(lock.Pid), nil
}

// Sync writes everything of the file system that holds dir to its device (syncfs), and waits.
func Sync(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", dir, err)
	}
	return nil
}

// Space is what is left for the files of unprivileged users, in bytes and inodes.
func Space(dir string) (bytes, inodes uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Bavail * uint64(st.Bsize), st.Ffree, nil
}
