package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is a process that keeps a directory or a device busy, and by what.
type Holder struct {
	Process
	// By is what holds it, for messages: "working directory /data/mfs", "open file /data/mfs/x".
	By string
}

// HiddenError lists the processes that could not be looked into. For root these are processes
// that a security module or a container's boundary protects; they cannot be daemons of the kind
// that root starts and ends, so that an agent may log them and go on.
type HiddenError struct {
	PIDs []int
	Err  error // of the last of them
}

func (e *HiddenError) Error() string {
	return fmt.Sprintf("%d processes could not be looked into, such as pid %d: %v",
		len(e.PIDs), e.PIDs[len(e.PIDs)-1], e.Err)
}

// Unwrap gives the cause, which wraps fs.ErrPermission.
func (e *HiddenError) Unwrap() error { return e.Err }

func (h Holder) String() string { return h.Process.String() + " by its " + h.By }

// deleted is what the kernel appends to the path of a file that has been unlinked (d_path).
const deleted = " (deleted)"

// Holders are the live processes that keep the file system below dir busy: by their working
// directory, root, program or an open file at or below it. dir is an absolute path without
// symbolic links. Each process is listed once.
//
// Where some processes may not be looked into, the result is what could be seen, together with a
// *HiddenError: for a caller that is not root, it is then no proof that nobody holds it.
func (s System) Holders(dir string) ([]Holder, error) {
	dir = filepath.Clean(dir)
	return s.holders(func(pid, link string) (string, bool, error) {
		target, err := os.Readlink(s.path(pid, link))
		if err != nil {
			return "", false, err
		}
		return target, Below(dir, target), nil
	}, "cwd", "root", "exe")
}

// DeviceHolders are the live processes that have the block device open. Kernel users of a device
// (a mount, device mapper, an export) are no processes and do not show here.
func (s System) DeviceHolders(major, minor uint32) ([]Holder, error) {
	return s.holders(func(pid, link string) (string, bool, error) {
		file := s.path(pid, link)
		var st unix.Statx_t
		// DONT_SYNC: what is cached will do, so that a file on a dead NFS server cannot hold us.
		err := unix.Statx(unix.AT_FDCWD, file, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
		if err != nil {
			return "", false, &os.PathError{Op: "statx", Path: file, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev_major != major || st.Rdev_minor != minor {
			return "", false, nil
		}
		target, err := os.Readlink(file)
		return target, true, err
	})
}

// holders asks about each of the named links and each open file of each process.
func (s System) holders(ask func(pid, link string) (string, bool, error), links ...string) ([]Holder, error) {
	pids, err := s.pids()
	if err != nil {
		return nil, err
	}
	var found []Holder
	var hidden HiddenError
	for _, pid := range pids {
		by, err := s.holds(strconv.Itoa(pid), ask, links)
		if err != nil {
			hidden.PIDs, hidden.Err = append(hidden.PIDs, pid), err
		}
		if by == "" {
			continue
		}
		p, err := s.Get(pid)
		switch {
		case errors.Is(err, ErrGone) || err == nil && p.State.Ended():
		case err != nil:
			return found, err
		default:
			found = append(found, Holder{Process: p, By: by})
		}
	}
	if len(hidden.PIDs) > 0 {
		return found, &hidden
	}
	return found, nil
}

// holds asks about one process and says by what it holds the thing, or "". Its error is always
// one of permission: everything else means that the process or its file has just gone.
func (s System) holds(pid string, ask func(pid, link string) (string, bool, error), links []string) (string, error) {
	var hidden error
	try := func(link, what string) string {
		target, yes, err := ask(pid, link)
		if errors.Is(err, fs.ErrPermission) {
			hidden = err
		}
		if err != nil || !yes {
			return ""
		}
		return what + " " + target
	}
	names := map[string]string{"cwd": "working directory", "root": "root directory", "exe": "program"}
	for _, link := range links {
		if by := try(link, names[link]); by != "" {
			return by, nil
		}
	}
	files, err := os.ReadDir(s.path(pid, "fd"))
	if errors.Is(err, fs.ErrPermission) {
		return "", err
	}
	for _, f := range files {
		if by := try(filepath.Join("fd", f.Name()), "open file"); by != "" {
			return by, nil
		}
	}
	return "", hidden
}

// Below reports whether path is dir itself or lies below it, by whole path components.
func Below(dir, path string) bool {
	path = strings.TrimSuffix(path, deleted)
	if dir == "/" {
		return strings.HasPrefix(path, "/")
	}
	return path == dir || strings.HasPrefix(path, dir+"/")
}
