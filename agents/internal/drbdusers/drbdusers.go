// Package drbdusers finds what inside the kernel keeps a block device open: file systems mounted
// from it (in any mount namespace, and exported by NFS or not), swap, device mapper and other
// stacked devices, loop devices. These have no process whose open files would show them.
//
// Sources: proc(5) (mountinfo, swaps), sysfs-block (holders), Documentation/ABI/testing/sysfs-block-loop,
// exports(5) for /var/lib/nfs/etab.
package drbdusers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Kind is the way in which the kernel uses a device.
type Kind string

// The ways that are looked for.
const (
	Mount   Kind = "mount"
	Stacked Kind = "stacked device"
	Swap    Kind = "swap"
	Loop    Kind = "loop device"
)

// User is one user of a device.
type User struct {
	Kind Kind
	// Name is the mount point, or the name of the stacked, swap or loop device.
	Name string
	// Detail is what else is known: the file system, the process whose mount namespace it is, the
	// NFS export.
	Detail string
}

func (u User) String() string {
	text := ""
	switch u.Kind {
	case Mount:
		text = "mounted on " + u.Name
	case Stacked:
		text = "used by " + u.Name
	case Swap:
		text = "swap on " + u.Name
	case Loop:
		text = "behind " + u.Name
	}
	if u.Detail != "" {
		text += " (" + u.Detail + ")"
	}
	return text
}

// Finder looks below a root directory, "/" in life.
type Finder struct{ Root string }

// Device is a block device as /sys/block names it.
type Device struct {
	Name         string // drbd0
	Major, Minor int
}

// Users lists all users found. Parts that could not be read are reported as the error, beside
// what was found elsewhere.
func (f Finder) Users(d Device) ([]User, error) {
	var users []User
	var errs []error
	for _, look := range []func(Device) ([]User, error){f.mounts, f.holders, f.swaps, f.loops} {
		found, err := look(d)
		users = append(users, found...)
		errs = append(errs, err)
	}
	return users, errors.Join(errs...)
}

func (f Finder) path(p ...string) string { return filepath.Join(append([]string{f.Root}, p...)...) }

// mounts looks into the mount table of every mount namespace that a process lives in: a service
// with PrivateMounts, or a container, can hold a mount that the host no longer has.
func (f Finder) mounts(d Device) ([]User, error) {
	tables, err := f.tables()
	if err != nil {
		return nil, err
	}
	exports := f.exports()
	var users []User
	for _, t := range tables {
		file, err := os.Open(f.path("proc", strconv.Itoa(t.pid), "mountinfo"))
		if err != nil {
			continue // the process has ended, and with it perhaps its namespace
		}
		found, err := mountinfo.GetMountsFromReader(file, func(i *mountinfo.Info) (skip, stop bool) {
			return i.Major != d.Major || i.Minor != d.Minor, false
		})
		file.Close()
		if err != nil {
			return users, fmt.Errorf("mount table of pid %d: %w", t.pid, err)
		}
		for _, m := range found {
			detail := m.FSType
			if !t.own {
				detail += fmt.Sprintf(", in the mount namespace of pid %d %s", t.pid, f.comm(t.pid))
			}
			if slices.ContainsFunc(exports, func(e string) bool { return within(m.Mountpoint, e) }) {
				detail += ", exported by NFS"
			}
			users = append(users, User{Mount, m.Mountpoint, detail})
		}
	}
	return users, nil
}

type table struct {
	pid int
	own bool // the mount namespace of pid 1, where the cluster's mounts are
}

// tables names one process for each mount namespace.
func (f Finder) tables() ([]table, error) {
	entries, err := os.ReadDir(f.path("proc"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	sort.Ints(pids)
	self, _ := os.Readlink(f.path("proc/self/ns/mnt"))
	seen := map[string]bool{}
	var tables []table
	for _, pid := range pids {
		ns, err := os.Readlink(f.path("proc", strconv.Itoa(pid), "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		tables = append(tables, table{pid, ns == self})
	}
	return tables, nil
}

func (f Finder) comm(pid int) string {
	name, err := os.ReadFile(f.path("proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// exports lists the directories in /var/lib/nfs/etab, one per line before the first tab. A
// machine without NFS has none.
func (f Finder) exports() []string {
	data, err := os.ReadFile(f.path("var/lib/nfs/etab"))
	if err != nil {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		if dir, _, ok := strings.Cut(line, "\t"); ok && strings.HasPrefix(dir, "/") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func within(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// holders lists /sys/block/DEVICE/holders: device mapper, md, bcache and DRBD stacked on it. A
// device mapper device is named by its dm/name.
func (f Finder) holders(d Device) ([]User, error) {
	entries, err := os.ReadDir(f.path("sys/block", d.Name, "holders"))
	if err != nil {
		return nil, absent(err)
	}
	var users []User
	for _, e := range entries {
		u := User{Kind: Stacked, Name: "/dev/" + e.Name()}
		if name, err := os.ReadFile(f.path("sys/block", e.Name(), "dm/name")); err == nil {
			u.Detail = "device mapper " + strings.TrimSpace(string(name))
		}
		users = append(users, u)
	}
	return users, nil
}

// swaps reads /proc/swaps: a title line, then "NAME type size used priority" with blanks in NAME
// as \040.
func (f Finder) swaps(d Device) ([]User, error) {
	data, err := os.ReadFile(f.path("proc/swaps"))
	if err != nil {
		return nil, absent(err)
	}
	var users []User
	for line := range strings.Lines(string(data)) {
		if name, _, _ := strings.Cut(line, " "); name == "/dev/"+d.Name {
			users = append(users, User{Kind: Swap, Name: name})
		}
	}
	return users, nil
}

// loops reads /sys/block/loop*/loop/backing_file, which exists while a loop device is bound.
func (f Finder) loops(d Device) ([]User, error) {
	files, err := filepath.Glob(f.path("sys/block/loop*/loop/backing_file"))
	if err != nil {
		return nil, err
	}
	var users []User
	for _, file := range files {
		back, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(back)) == "/dev/"+d.Name {
			users = append(users, User{Kind: Loop, Name: "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file)))})
		}
	}
	return users, nil
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
