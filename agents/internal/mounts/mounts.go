// Package mounts answers questions about the mount table by reading it, never by touching what is
// mounted: stat(2) on a dead NFS or FUSE mount, or on one whose disk is gone, may never return.
package mounts

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mount is one line of /proc/self/mountinfo (proc_pid_mountinfo(5)):
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//	(1)(2)(3)   (4)   (5)      (6)     (7)    (8) (9)   (10)         (11)
type Mount struct {
	ID, Parent int    // (1) and (2)
	Major      int    // (3) of the file system's device; 0 for file systems without one
	Minor      int    //
	Root       string // (4) what of the file system is mounted; not "/" for a bind mount
	Point      string // (5) where it is mounted
	Options    string // (6) options of this mount
	FSType     string // (9) "ext4"
	Source     string // (10) "/dev/drbd0"; anything at all for virtual file systems
	Super      string // (11) options of the file system
}

// ReadOnly reports whether writing is refused, by this mount or by the file system as a whole:
// ext4 with errors=remount-ro shows up only in the latter.
func (m Mount) ReadOnly() bool {
	return slices.Contains(strings.Split(m.Options, ","), "ro") ||
		slices.Contains(strings.Split(m.Super, ","), "ro")
}

// SameDevice reports whether both show the same file system.
func (m Mount) SameDevice(o Mount) bool { return m.Major == o.Major && m.Minor == o.Minor }

// String is for messages: "/data (ext4 on /dev/drbd0)".
func (m Mount) String() string {
	return fmt.Sprintf("%s (%s on %s)", m.Point, m.FSType, m.Source)
}

// Table is the mount table of this process's mount namespace.
type Table struct {
	// Proc is the mount point of procfs; empty means /proc.
	Proc string
}

// read returns the mounts that the filter keeps, in the kernel's order: later ones lie on top.
func (t Table) read(filter mountinfo.FilterFunc) ([]Mount, error) {
	proc := t.Proc
	if proc == "" {
		proc = "/proc"
	}
	f, err := os.Open(filepath.Join(proc, "self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	defer f.Close()
	infos, err := mountinfo.GetMountsFromReader(f, filter)
	if err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	list := make([]Mount, 0, len(infos))
	for _, i := range infos {
		list = append(list, Mount{
			ID: i.ID, Parent: i.Parent, Major: i.Major, Minor: i.Minor, Root: i.Root,
			Point: i.Mountpoint, Options: i.Options, FSType: i.FSType, Source: i.Source, Super: i.VFSOptions,
		})
	}
	return list, nil
}

// All is the whole table.
func (t Table) All() ([]Mount, error) { return t.read(nil) }

// At is the topmost mount exactly at path; ok is false where nothing is mounted there.
// path is absolute and has no symbolic links.
func (t Table) At(path string) (m Mount, ok bool, err error) {
	path = filepath.Clean(path)
	list, err := t.read(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false })
	if err != nil || len(list) == 0 {
		return Mount{}, false, err
	}
	return list[len(list)-1], true, nil
}

// Of is the mount that path lies on, judged by the text of the path alone: it is absolute, has no
// symbolic links, and need not exist. The error wraps fs.ErrNotExist where the table has no mount
// for it (a chroot without a mounted root).
func (t Table) Of(path string) (Mount, error) {
	path = filepath.Clean(path)
	list, err := t.read(mountinfo.ParentsFilter(path))
	if err != nil {
		return Mount{}, err
	}
	var best Mount
	for _, m := range list {
		// A later mount at the same point hides the earlier one.
		if len(m.Point) >= len(best.Point) {
			best = m
		}
	}
	if best.Point == "" {
		return Mount{}, fmt.Errorf("mount table: %w: no mount holds %s", fs.ErrNotExist, path)
	}
	return best, nil
}

// Below are the mounts strictly below path.
func (t Table) Below(path string) ([]Mount, error) {
	path = filepath.Clean(path)
	return t.read(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Mountpoint == path || !below(path, i.Mountpoint), false
	})
}

func below(dir, path string) bool {
	return dir == "/" || strings.HasPrefix(path, dir+"/")
}

// volatile are file systems whose content ends with the boot or lies in memory alone.
var volatile = []string{"tmpfs", "ramfs", "devtmpfs", "proc", "sysfs", "rootfs"}

// LocalError says that a path which must lie on a mounted device of its own does not.
type LocalError struct {
	Path string
	On   Mount
}

func (e *LocalError) Error() string {
	if slices.Contains(volatile, e.On.FSType) {
		return fmt.Sprintf("%s lies on %s, which is memory", e.Path, e.On)
	}
	return fmt.Sprintf("%s lies on the device of the root file system, %s", e.Path, e.On)
}

// OwnDevice is the mount that path lies on, and a *LocalError where that is the root's device or
// memory: a directory meant for a replicated disk whose mount has been forgotten looks like that.
func (t Table) OwnDevice(path string) (Mount, error) {
	m, err := t.Of(path)
	if err != nil {
		return Mount{}, err
	}
	root, err := t.Of("/")
	if err != nil {
		return Mount{}, err
	}
	if m.Point == "/" || m.SameDevice(root) || slices.Contains(volatile, m.FSType) {
		return m, &LocalError{Path: path, On: m}
	}
	return m, nil
}

// Busy reports whether anything but the mount table itself holds the mount at point: an open
// file, a working directory, a kernel user such as an NFS export, a mount below it. It asks
// umount2(2) with MNT_EXPIRE, which answers EBUSY for a mount in use and EAGAIN for an idle one,
// which it then marks; a second such call in a row would unmount. The mark is taken away before
// and after by using the mount (mntput in fs/namespace.c clears it), so that nothing is ever unmounted here.
func Busy(point string) (bool, error) {
	if err := touch(point); err != nil {
		return false, err
	}
	err := unix.Unmount(point, unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW)
	switch err {
	case unix.EBUSY:
		return true, nil
	case unix.EAGAIN:
		return false, touch(point)
	case nil:
		return false, &os.PathError{Op: "unmount", Path: point, Err: fmt.Errorf("an idle mount was expired by somebody else at the same moment")}
	}
	return false, &os.PathError{Op: "umount2", Path: point, Err: err}
}

func touch(point string) error {
	fd, err := unix.Open(point, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: point, Err: err}
	}
	return unix.Close(fd)
}

// MountVirtual mounts a file system that needs no device, such as nfsd or rpc_pipefs; the kernel
// loads its module by itself. The source is a free text that the table shows, by which a caller
// can tell its own mounts later. The error wraps unix.ENODEV where the kernel has no such type.
func MountVirtual(fstype, source, point string) error {
	if err := unix.Mount(source, point, fstype, 0, ""); err != nil {
		return &os.PathError{Op: "mount " + fstype, Path: point, Err: err}
	}
	return nil
}

// Unmount unmounts without force. The error wraps unix.EBUSY while somebody uses it.
func Unmount(point string) error {
	if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "unmount", Path: point, Err: err}
	}
	return nil
}
