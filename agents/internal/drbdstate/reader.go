package drbdstate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNoModule says that the DRBD driver is not loaded: nothing of DRBD runs on this node.
var ErrNoModule = errors.New("the drbd module is not loaded")

// ErrUnknownVersion says that the loaded driver is neither 8.4 nor 9.
var ErrUnknownVersion = errors.New("unknown DRBD version")

// Reader reads the state of resources from the running kernel.
type Reader struct {
	// Root is the root directory, "/" in life.
	Root string
	// Events runs `drbdsetup events2 --now` with further arguments and returns its output. It is
	// only called while the module is loaded, since drbdsetup loads it by itself otherwise.
	Events func(ctx context.Context, args ...string) ([]byte, error)
	// Record is a file for remembering which minor belongs to which resource, on a file system
	// that does not survive a reboot; empty for none.
	Record string
	// Boot is the kernel's boot id; a record of another boot is ignored.
	Boot string
}

// Version reads the driver's version. It is ErrNoModule where /proc/drbd does not exist, and
// wraps ErrUnknownVersion where the driver is one that this package does not know.
func (r Reader) Version() (Version, error) {
	p, err := r.proc()
	return p.Version, err
}

func (r Reader) proc() (Proc, error) {
	data, err := os.ReadFile(filepath.Join(r.Root, "proc/drbd"))
	if errors.Is(err, fs.ErrNotExist) {
		return Proc{}, ErrNoModule
	}
	if err != nil {
		return Proc{}, err
	}
	p, err := ParseProc(data)
	if err == nil && !p.Version.Known() {
		err = fmt.Errorf("%w: /proc/drbd says %s, expected 8.4 or 9", ErrUnknownVersion, p.Version)
	}
	return p, err
}

// Read reads the state of one resource. found is false only where the kernel certainly has no
// resource of this name: the module is not loaded, or all minors belong to others. Whatever could
// not be read is an error.
//
// On 9 it starts one child (drbdsetup). On 8.4 it starts none, except where it must first learn
// which minors belong to the resource and neither debugfs nor the record tells.
func (r Reader) Read(ctx context.Context, name string) (res Resource, found bool, err error) {
	p, err := r.proc()
	switch {
	case errors.Is(err, ErrNoModule):
		return Resource{Name: name}, false, nil
	case err != nil:
		return Resource{Name: name}, false, err
	case p.Version.Legacy():
		return r.readLegacy(ctx, name, p)
	}
	e, err := r.events(ctx, p.Version, name)
	if err != nil {
		return Resource{Name: name, Version: p.Version}, false, err
	}
	res, found = e.Resource(name)
	if !found {
		res = Resource{Name: name, Version: p.Version}
	}
	return res, found, nil
}

func (r Reader) events(ctx context.Context, v Version, name string) (Events, error) {
	args := []string{"--statistics"}
	if name != "" {
		args = append(args, name)
	}
	out, err := r.Events(ctx, args...)
	if err != nil && name != "" && ctx.Err() == nil {
		// A drbdsetup that refuses the name of a resource that is down still lists all others.
		out, err = r.Events(ctx, "--statistics")
	}
	if err != nil {
		return Events{}, err
	}
	return ParseEvents(out, v)
}

// owner is the resource and volume that a minor belongs to.
type owner struct {
	Resource string `json:"resource"`
	Volume   int    `json:"volume"`
}

// errMoved says that the driver's lists did not fit together: a device came or went between them.
var errMoved = errors.New("the lists of devices differ")

const (
	// looks is how often the driver's lists are read until they agree. A resource that another
	// agent takes down or brings up is for a moment in one and not in the other: drbd_delete_device
	// (drbd_main.c) removes a minor from debugfs before it leaves /proc/drbd.
	looks = 5
	// lookAgain is the pause between two looks.
	lookAgain = 50 * time.Millisecond
)

// readLegacy looks again where the lists differ: what becomes of another resource must not make
// this one's state unknown.
func (r Reader) readLegacy(ctx context.Context, name string, p Proc) (res Resource, found bool, err error) {
	for look := 1; ; look++ {
		res, found, err = r.lookLegacy(ctx, name, p)
		if look == looks || !errors.Is(err, errMoved) {
			return res, found, err
		}
		t := time.NewTimer(lookAgain)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return res, found, err
		}
		if p, err = r.proc(); errors.Is(err, ErrNoModule) {
			return res, false, nil
		} else if err != nil {
			return res, false, err
		}
		if !p.Version.Legacy() {
			return res, false, fmt.Errorf("%w: the driver became %s meanwhile", errMoved, p.Version)
		}
	}
}

func (r Reader) lookLegacy(ctx context.Context, name string, p Proc) (Resource, bool, error) {
	absent := Resource{Name: name, Version: p.Version}
	if len(p.Devices) == 0 {
		return absent, false, nil
	}
	owners, err := r.owners(ctx, p)
	if err != nil {
		return absent, false, fmt.Errorf("which minors belong to %s: %w", name, err)
	}
	volumes := map[int]int{}
	for minor, o := range owners {
		if o.Resource == name {
			volumes[o.Volume] = minor
		}
	}
	if len(volumes) == 0 {
		return absent, false, nil
	}
	for number, minor := range volumes {
		if _, ok := p.Device(minor); !ok {
			return absent, false, fmt.Errorf("%w: minor %d of %s volume %d is not in /proc/drbd", errMoved, minor, name, number)
		}
	}
	res, err := p.Assemble(name, volumes)
	return res, err == nil, err
}

// owners says for every minor in /proc/drbd whose it is. The 8.4 driver prints minors without
// names, and the links in /dev/drbd/by-res are udev's: they vanish with udev's database, they
// outlive a device when udev is stopped, and one link of two says nothing of the other. So they
// are not used. Only an answer that covers every existing minor counts, because only that can
// say "this resource does not exist here":
//
//  1. debugfs, which the driver itself keeps (no child process);
//  2. the record of an earlier answer, as long as each minor is still the same block device by
//     its sequence number (no child process; for kernels that lock debugfs down);
//  3. drbdsetup, which asks the driver over netlink. Its answer is recorded.
//
// None of them reads DRBD's configuration.
func (r Reader) owners(ctx context.Context, p Proc) (map[int]owner, error) {
	if found, ok := r.fromDebugfs(p); ok {
		return found, nil
	}
	if found, ok := r.fromRecord(p); ok {
		return found, nil
	}
	e, err := r.events(ctx, p.Version, "")
	if err != nil {
		return nil, err
	}
	found := map[int]owner{}
	for _, res := range e.Resources {
		for _, v := range res.Volumes {
			found[v.Minor] = owner{res.Name, v.Number}
		}
	}
	if !covers(found, p) {
		return nil, fmt.Errorf("%w: drbdsetup names the minors %v, /proc/drbd has %s", errMoved, keys(found), p.minors())
	}
	r.record(found)
	return found, nil
}

// fromDebugfs reads the links that drbd_debugfs_device_add (drbd_debugfs.c) makes:
// drbd/minors/MINOR -> ../resources/NAME/volumes/VOLUME.
func (r Reader) fromDebugfs(p Proc) (map[int]owner, bool) {
	found := map[int]owner{}
	for _, d := range p.Devices {
		link, err := os.Readlink(filepath.Join(r.Root, "sys/kernel/debug/drbd/minors", strconv.Itoa(d.Minor)))
		if err != nil {
			return nil, false
		}
		rest, ok := strings.CutPrefix(link, "../resources/")
		name, volume, isVolume := strings.Cut(rest, "/volumes/")
		number, err := strconv.Atoi(volume)
		if !ok || !isVolume || name == "" || err != nil {
			return nil, false
		}
		found[d.Minor] = owner{name, number}
	}
	return found, true
}

// recordFile is the content of Reader.Record.
type recordFile struct {
	Boot   string           `json:"boot"`
	Minors map[int]recorded `json:"minors"`
}

type recorded struct {
	owner
	Identity string `json:"identity"`
}

func (r Reader) fromRecord(p Proc) (map[int]owner, bool) {
	if r.Record == "" || r.Boot == "" {
		return nil, false
	}
	data, err := os.ReadFile(r.Record)
	if err != nil {
		return nil, false
	}
	var f recordFile
	if json.Unmarshal(data, &f) != nil || f.Boot != r.Boot {
		return nil, false
	}
	found := map[int]owner{}
	for _, d := range p.Devices {
		rec, ok := f.Minors[d.Minor]
		identity, known := r.identity(d.Minor)
		if !ok || !known || rec.Identity != identity || rec.Resource == "" {
			return nil, false
		}
		found[d.Minor] = rec.owner
	}
	return found, true
}

// record remembers an answer. A record that cannot be written costs a child next time, no more.
func (r Reader) record(found map[int]owner) {
	if r.Record == "" || r.Boot == "" {
		return
	}
	f := recordFile{Boot: r.Boot, Minors: map[int]recorded{}}
	for minor, o := range found {
		if identity, known := r.identity(minor); known {
			f.Minors[minor] = recorded{o, identity}
		}
	}
	data, err := json.Marshal(f)
	if err != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(r.Record), filepath.Base(r.Record)+".*")
	if err != nil {
		return
	}
	_, err = tmp.Write(data)
	if errors.Join(err, tmp.Close()) != nil || os.Rename(tmp.Name(), r.Record) != nil {
		_ = os.Remove(tmp.Name())
	}
}

// identity tells a block device from a later one with the same minor: diskseq counts every disk
// the kernel ever made (5.15 and newer, sysfs-block); before that, sysfs's inode number does.
func (r Reader) identity(minor int) (string, bool) {
	dir := filepath.Join(r.Root, "sys/block", "drbd"+strconv.Itoa(minor))
	if seq, err := os.ReadFile(filepath.Join(dir, "diskseq")); err == nil {
		return "diskseq " + strings.TrimSpace(string(seq)), true
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return "inode " + strconv.FormatUint(stat.Ino, 10), true
}

func covers(found map[int]owner, p Proc) bool {
	for _, d := range p.Devices {
		if _, ok := found[d.Minor]; !ok {
			return false
		}
	}
	return true
}

func keys(found map[int]owner) []int {
	list := make([]int, 0, len(found))
	for minor := range found {
		list = append(list, minor)
	}
	sortByNumber(list, func(n int) int { return n })
	return list
}

func (p Proc) minors() string {
	list := make([]int, 0, len(p.Devices))
	for _, d := range p.Devices {
		list = append(list, d.Minor)
	}
	return fmt.Sprint(list)
}

// SplitBrainLogged looks through the kernel's log (text of /dev/kmsg or dmesg) for what drbd last
// said of why it dropped the link of the resource:
//
//	block drbd0: Split-Brain detected but unresolved, dropping connection!       (8.4, by minor)
//	drbd r0/0 drbd0 n2: Split-Brain detected but unresolved, dropping connection! (9)
//	block drbd0: Unrelated data, aborting!
//	drbd r0: conn( Connected -> Disconnecting )                             (an administrator did it)
//
// The last of them counts. But DRBD drops the link itself right after it detected the split brain,
// and with an agreed protocol below 117 the 9 driver logs that as conn( Connected -> Disconnecting )
// too: so that line only counts where the link was up, or looked for, again since the detection.
// A log that was overwritten says nothing: false.
func SplitBrainLogged(kmsg []byte, name string, minors []int) bool {
	prefixes := []string{"drbd " + name + ":", "drbd " + name + " ", "drbd " + name + "/"}
	for _, m := range minors {
		prefixes = append(prefixes, "block drbd"+strconv.Itoa(m)+":")
	}
	split, again := false, true
	for line := range strings.Lines(string(kmsg)) {
		ours := false
		for _, prefix := range prefixes {
			ours = ours || strings.Contains(line, prefix)
		}
		switch {
		case !ours:
		case strings.Contains(line, "Split-Brain detected but unresolved"):
			split, again = true, false
		case strings.Contains(line, "-> Connected"), strings.Contains(line, "Unrelated data"):
			split, again = false, true
		case strings.Contains(line, "-> Connecting"), strings.Contains(line, "-> WFConnection"):
			again = true
		case strings.Contains(line, "conn( Connected -> Disconnecting"), strings.Contains(line, "conn( WFConnection -> Disconnecting"):
			split = split && !again
		}
	}
	return split
}
