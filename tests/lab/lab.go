package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/tests/lab/internal/ether"
	"baton/tests/lab/internal/image"
)

// Network is one of the lab's Ethernet segments.
type Network string

const (
	// LAN is the service network: eth0, 192.0.2.0/24 and 2001:db8::/64. The
	// client is on it, addresses move on it, corosync has its first ring on it.
	LAN Network = "lan"
	// Repl is the replication network between the nodes: eth1,
	// 198.51.100.0/24; DRBD and corosync's second ring.
	Repl Network = "repl"
)

// Spec says what a machine is made of.
type Spec struct {
	Name      string
	MemoryMiB int
	LAN       []string // addresses with prefix on eth0
	Repl      []string // addresses with prefix on eth1; no such NIC when empty
	DataMiB   int      // size of /dev/vdb; no such disk when 0
	Watchdog  bool     // an i6300esb at /dev/watchdog (modprobe i6300esb)
	SharedMiB int      // size of the disk that all machines with SharedMiB > 0 write to at once; the last virtio disk
}

// Machines returns the usual three: the nodes n1 and n2, which have a data
// disk /dev/vdb, a small shared disk /dev/vdc and a watchdog, and the client c1.
func Machines() []Spec {
	return []Spec{
		{Name: "n1", MemoryMiB: 1024, LAN: []string{"192.0.2.11/24", "2001:db8::11/64"}, Repl: []string{"198.51.100.11/24"}, DataMiB: 1024, SharedMiB: 16, Watchdog: true},
		{Name: "n2", MemoryMiB: 1024, LAN: []string{"192.0.2.12/24", "2001:db8::12/64"}, Repl: []string{"198.51.100.12/24"}, DataMiB: 1024, SharedMiB: 16, Watchdog: true},
		{Name: "c1", MemoryMiB: 768, LAN: []string{"192.0.2.21/24", "2001:db8::21/64"}, DataMiB: 1024},
	}
}

// Lab is a set of running machines and the networks between them.
type Lab struct {
	N1, N2, C1 *Machine   // those of Machines(); nil if the stage has none of that name
	Machines   []*Machine // all, in the order of the stage's Specs
	Nets       map[Network]*ether.Switch
	Timeline   *Timeline

	image    *image.Image
	kvm      bool
	dir      string // of this run; removed by Close
	log      func(string, ...any)
	saveable bool // memory in files, so that the lab can be frozen into a stage
	dirLock  func()
	slot     func()
	once     sync.Once
}

// Machine returns the machine of that name, or nil.
func (l *Lab) Machine(name string) *Machine {
	for _, m := range l.Machines {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Other returns the other one of the two nodes n1 and n2.
func (l *Lab) Other(m *Machine) *Machine {
	if m == l.N1 {
		return l.N2
	}
	return l.N1
}

// Cache is the directory that holds images, stages and running labs:
// LAB_CACHE, or baton-lab below XDG_CACHE_HOME or /var/cache.
func Cache() string {
	if dir := os.Getenv("LAB_CACHE"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "baton-lab")
	}
	if os.Geteuid() != 0 {
		if dir, err := os.UserCacheDir(); err == nil {
			return filepath.Join(dir, "baton-lab")
		}
	}
	return "/var/cache/baton-lab"
}

// BuildImage makes sure that the machines' disk image is in the cache and
// returns its directory.
func BuildImage(ctx context.Context, log func(string, ...any)) (string, error) {
	img, err := image.Ensure(ctx, Cache(), image.Default(), log)
	if err != nil {
		return "", err
	}
	return img.Dir, nil
}

// newLab prepares a lab without machines in a directory of its own.
func (h *host) newLab() (*Lab, error) {
	cache := Cache()
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("lab: cache: %w", err)
	}
	sweep(cache)
	prune(cache)
	dir, err := os.MkdirTemp(cache, "run-")
	if err != nil {
		return nil, fmt.Errorf("lab: cache: %w", err)
	}
	unlock, err := image.Lock(context.Background(), filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	l := &Lab{
		image: h.img, kvm: h.kvm, dir: dir, log: h.log, dirLock: unlock,
		Nets:     map[Network]*ether.Switch{LAN: ether.New(), Repl: ether.New()},
		Timeline: NewTimeline(time.Now()),
	}
	return l, nil
}

func (l *Lab) add(spec Spec, index int) {
	m := &Machine{Spec: spec, lab: l, index: index, dir: filepath.Join(l.dir, spec.Name)}
	l.Machines = append(l.Machines, m)
	switch spec.Name {
	case "n1":
		l.N1 = m
	case "n2":
		l.N2 = m
	case "c1":
		l.C1 = m
	}
}

// sweep removes the directories of runs that were killed: their locks are free.
func sweep(cache string) {
	for _, pattern := range []string{"run-*", "freeze-*"} {
		dirs, _ := filepath.Glob(filepath.Join(cache, pattern))
		for _, dir := range dirs {
			f, err := os.Open(filepath.Join(dir, "lock"))
			if err != nil {
				// Made a moment ago by another process, or half removed.
				if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
					os.RemoveAll(dir)
				}
				continue
			}
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				os.RemoveAll(dir)
			}
			f.Close()
		}
	}
}

// unused is how long a part of the cache is kept after its last use.
const unused = 14 * 24 * time.Hour

// used marks a part of the cache as in use now.
func used(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now) // somebody else's cache: it serves all the same
}

// prune removes what nobody has used for long: images and stages of older
// recipes, which nothing else would ever remove.
func prune(cache string) {
	for _, pattern := range []string{"image-*", "stage-*", "crm-*.xml", "kvm-*"} {
		paths, _ := filepath.Glob(filepath.Join(cache, pattern))
		for _, path := range paths {
			if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > unused {
				_ = os.RemoveAll(path)
			}
		}
	}
}

// each does f for all machines at once and joins the errors.
func (l *Lab) each(f func(*Machine) error) error {
	errs := make([]error, len(l.Machines))
	var wg sync.WaitGroup
	for i, m := range l.Machines {
		wg.Go(func() { errs[i] = f(m) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close ends all machines and removes everything that belongs to this run,
// unless LAB_KEEP is set.
func (l *Lab) Close() {
	l.once.Do(func() {
		_ = l.each(func(m *Machine) error { m.kill(); return nil })
		for _, s := range l.Nets {
			s.Close()
		}
		if os.Getenv("LAB_KEEP") == "" {
			os.RemoveAll(l.dir)
		} else {
			l.log("kept: %s", l.dir)
		}
		l.dirLock()
		if l.slot != nil {
			l.slot()
		}
	})
}
