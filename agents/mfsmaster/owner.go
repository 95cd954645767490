package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// owner is the user that the master runs as.
type owner struct {
	uid, gid int
	home     string
}

// owner looks up WORKING_USER. MooseFS starts with exit code 0 and nothing running if there is no
// such user.
func (a *agent) owner() (owner, error) {
	name := a.user
	u, err := user.Lookup(name)
	if err != nil && strings.HasPrefix(name, "#") { // MooseFS takes #UID for a number
		u, err = user.LookupId(name[1:])
	}
	if err != nil {
		return owner{}, &ocf.Error{
			Kind: ocf.NotInstalled, Object: a.config.Path, Found: "WORKING_USER " + strconv.Quote(name) + " does not exist", Err: err,
			Expected: "a user of this node", Do: "create the user, with the same number on all nodes, or correct WORKING_USER",
		}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return owner{}, &ocf.Error{Kind: ocf.NotInstalled, Object: name, Found: err.Error()}
	}
	return owner{uid: uid, gid: gid, home: u.HomeDir}, nil
}

func sameFile(path, other string) bool {
	one, err1 := os.Lstat(path)
	two, err2 := os.Lstat(other)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

func uidOf(path string) (int, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s: no owner", path)
	}
	return int(st.Uid), nil
}

// onItsMount checks that the data directory lies where it belongs. It creates nothing: an empty
// directory in the place of a forgotten mount is how empty file systems come to be.
func (a *agent) onItsMount() error {
	if point := a.call.Params.String("mountpoint"); point != "" {
		m, ok, err := a.mounts.At(point)
		if err != nil {
			return a.unreadable(err)
		}
		if !ok {
			return a.fail(ocf.Failed, point+" is not mounted", "the file system of the data directory there", "mount it; in a group the Filesystem has to come before mfsmaster")
		}
		on, err := a.mounts.Of(a.dataDir)
		if err != nil || on.ID != m.ID {
			return a.fail(ocf.BadConfig, "does not lie on the mount point "+point, "a data directory below it", "correct mountpoint or DATA_PATH")
		}
	}
	if a.mode == modeStorage && a.call.Params.Bool("require_mount") {
		if _, err := a.mounts.OwnDevice(a.dataDir); err != nil {
			return a.fail(ocf.Failed, "not on a device of its own: "+err.Error(), "the mounted replicated device",
				"mount it (in a group the Filesystem comes before mfsmaster), or set require_mount=false if it shall lie here")
		}
	}
	info, err := os.Lstat(a.dataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a.fail(ocf.Failed, "the data directory does not exist", "the directory with the metadata", "mount its device, or create it for a new file system: install -d -o "+a.user+" "+a.dataDir)
	case err != nil:
		return a.unreadable(err)
	case info.Mode()&fs.ModeSymlink != 0:
		return a.fail(ocf.BadConfig, "is a symbolic link", "the directory itself", "set DATA_PATH to the place where it leads")
	case !info.IsDir():
		return a.fail(ocf.BadConfig, "is not a directory", "a directory", "correct DATA_PATH")
	}
	return nil
}

// usable checks that the master's user can work with what the directory holds, and repairs owners
// if it is told to. Only the directory and MooseFS's files right in it are looked at, by their own
// names: symbolic links are refused, never followed.
func (a *agent) usable(dir string) error {
	o, err := a.owner()
	if err != nil {
		return err
	}
	if m, err := a.mounts.Of(dir); err == nil && m.ReadOnly() {
		return a.fail(ocf.Failed, "mounted read-only: "+m.String(), "a writable file system", "look for disk errors (dmesg) and check the file system")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return a.unreadable(err)
	}
	names := []string{"."}
	for _, e := range entries {
		if mooseFile(e.Name()) {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		if err := a.usableFile(filepath.Join(dir, name), o); err != nil {
			return err
		}
	}
	return a.enoughSpace(dir)
}

// mooseFile: the files that a master or metalogger opens by itself.
func mooseFile(name string) bool {
	if _, _, ok := mfsmeta.LogName(name); ok {
		return true
	}
	switch name {
	case mfsmeta.MasterLock, mfsmeta.WriterLock, mfsmeta.MetaloggerLock, "stats.mfs":
		return true
	}
	return strings.HasPrefix(name, "metadata.") && name != "metadata.mfs.empty"
}

func (a *agent) usableFile(path string, o owner) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return a.unreadable(err)
	}
	if info.Mode()&fs.ModeSymlink != 0 || !info.IsDir() && !info.Mode().IsRegular() {
		return &ocf.Error{
			Object: path, Found: "is a " + info.Mode().Type().String() + ", not a regular file",
			Expected: "no links or special files among metadata", Do: "replace it by the file itself",
		}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	need := fs.FileMode(0o600)
	if info.IsDir() {
		need = 0o700
	}
	// Files of root that everybody can read are read and replaced, never written in place.
	replaced := st != nil && st.Uid == 0 && info.Mode().IsRegular() && info.Mode()&0o004 != 0 && strings.HasPrefix(info.Name(), "metadata.")
	if ok && (int(st.Uid) == o.uid && info.Mode()&need == need || replaced || o.uid == 0) {
		return nil
	}
	if !a.call.Params.Bool("repair_permissions") {
		return &ocf.Error{
			Kind: ocf.NoPermission, Object: path, Found: fmt.Sprintf("owner %d, mode %04o", st.Uid, info.Mode().Perm()),
			Expected: fmt.Sprintf("owner %s (%d) and mode %04o at least", a.user, o.uid, need),
			Do:       fmt.Sprintf("chown %s %s, or set repair_permissions=true", a.user, path),
		}
	}
	return a.repairFile(path, info, o, need)
}

// repairFile changes exactly the file that was looked at.
func (a *agent) repairFile(path string, seen fs.FileInfo, o owner, need fs.FileMode) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return a.unreadable(&os.PathError{Op: "open", Path: path, Err: err})
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	now, err := f.Stat()
	if err == nil && !os.SameFile(now, seen) {
		err = errors.New("replaced meanwhile")
	}
	if err == nil {
		err = f.Chown(o.uid, o.gid)
	}
	if err == nil {
		err = f.Chmod(now.Mode().Perm() | need)
	}
	if err != nil {
		return &ocf.Error{Kind: ocf.NoPermission, Object: path, Found: "owner or mode cannot be changed", Err: err, Do: "chown " + a.user + " " + path}
	}
	a.call.Log.Warn(fmt.Sprintf("%s: given to %s, as repair_permissions says", path, a.user))
	return nil
}

// A master that cannot write its metadata when it stops never stops: room for one dump, and for
// some minutes of changelogs, has to be there before it starts.
const spareSpace = 16 << 20

func (a *agent) enoughSpace(dir string) error {
	free, inodes, err := mfsmeta.Space(dir)
	if err != nil {
		return a.unreadable(err)
	}
	need := a.dumpSize(dir) + spareSpace
	if free < need || inodes > 0 && inodes < 16 {
		return a.fail(ocf.Failed, fmt.Sprintf("%d MiB and %d inodes are free", free>>20, inodes), fmt.Sprintf("%d MiB for the next dump of the metadata", need>>20),
			"make room: move archives in "+a.archiveDir+" to another place or lower BACK_LOGS and BACK_META_KEEP_PREVIOUS")
	}
	return nil
}

// dumpSize is the size of the largest metadata file, which the next one will about have.
func (a *agent) dumpSize(dir string) uint64 {
	inv, err := mfsmeta.List(dir)
	if err != nil {
		return 0
	}
	var most int64
	for _, b := range inv.Bases {
		most = max(most, b.Size)
	}
	return uint64(most)
}
