package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/tests/lab/internal/image"
	"baton/tests/lab/internal/qemu"
)

// Stage is a state of the whole lab that is reached once, frozen into the
// cache, and thawed by each test that starts from it: a restore takes a few
// seconds where booting and building takes minutes.
//
// Nothing of the project under test belongs into a stage: the agents are
// installed anew into each test's lab, so that a stage never holds old ones.
type Stage struct {
	Name  string
	Base  *Stage // what Build starts from; nil: the machines of Specs, just booted
	Specs []Spec // with Base nil: the machines; Machines() when empty
	// Key is everything that Build puts into the lab: change it, or put the
	// text of the configuration itself into it, when Build changes.
	Key string
	// Build brings the lab from Base to this stage. It may be nil.
	Build func(ctx context.Context, l *Lab) error
}

// Booted is the three machines with ssh answering and no service started.
var Booted = &Stage{Name: "booted", Key: "1"}

// format changes when a saved stage of an older lab can no longer be used.
const format = "3"

func (s *Stage) specs() []Spec {
	switch {
	case s.Base != nil:
		return s.Base.specs()
	case len(s.Specs) > 0:
		return s.Specs
	}
	return Machines()
}

// hash names the frozen stage by everything that it depends on.
func (s *Stage) hash(imageKey, host string) string {
	base := ""
	if s.Base != nil {
		base = s.Base.hash(imageKey, host)
	}
	specs, err := json.Marshal(s.specs())
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{format, imageKey, host, base, string(specs), s.Name, s.Key}, "\x00")))
	return hex.EncodeToString(sum[:6])
}

// dir is where the frozen stage lies.
func (s *Stage) dir(imageKey, host string) string {
	return filepath.Join(Cache(), fmt.Sprintf("stage-%s-%s", s.Name, s.hash(imageKey, host)))
}

// frozen is what a stage's directory says about itself.
type frozen struct {
	Name  string
	Specs []Spec
	At    time.Time // the host's clock when it was frozen
}

// hostKey is what of the host a frozen machine depends on: a saved state fits
// the same QEMU with the same devices and the same way of running.
func hostKey(ctx context.Context, kvm bool) (string, error) {
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("lab: qemu-system-x86_64: %w", err)
	}
	version, _, _ := strings.Cut(string(out), "\n")
	return version + " " + strings.Join(qemu.Config{KVM: kvm, Watchdog: true}.Args(), " "), nil
}

// Open starts a lab from a stage, building image and stage first if they are
// not in the cache. The caller closes the lab. Tests use Start instead.
func Open(ctx context.Context, s *Stage, log func(string, ...any)) (*Lab, error) {
	if err := image.PrepareHost(ctx, log); err != nil {
		return nil, err
	}
	slot, err := takeSlot(ctx, log)
	if err != nil {
		return nil, err
	}
	img, err := image.Ensure(ctx, Cache(), image.Default(), log)
	if err != nil {
		slot()
		return nil, err
	}
	kvm, err := useKVM(ctx, img, log)
	if err != nil {
		slot()
		return nil, err
	}
	h := &host{img: img, kvm: kvm, log: log}
	l, err := h.open(ctx, s, false)
	if err != nil {
		slot()
		return nil, err
	}
	l.slot = slot
	return l, nil
}

// host is what all labs of this host have in common.
type host struct {
	img *image.Image
	kvm bool
	log func(string, ...any)
}

// open gives a lab in the state of the stage, or with saveable one that can be
// brought further and frozen again.
func (h *host) open(ctx context.Context, s *Stage, saveable bool) (*Lab, error) {
	key, err := hostKey(ctx, h.kvm)
	if err != nil {
		return nil, err
	}
	dir := s.dir(h.img.Key, key)
	if _, err := os.Stat(filepath.Join(dir, "stage.json")); err != nil {
		if err := h.freeze(ctx, s, dir); err != nil {
			return nil, fmt.Errorf("lab: stage %s: %w", s.Name, err)
		}
	}
	// The disks of a stage lie over those of the stages below.
	used(h.img.Dir)
	for below := s; below != nil; below = below.Base {
		used(below.dir(h.img.Key, key))
	}
	began := time.Now()
	l, err := h.thaw(ctx, dir, saveable)
	if err != nil {
		return nil, fmt.Errorf("lab: restore of stage %s from %s: %w", s.Name, dir, err)
	}
	h.log("stage %s restored in %.1f s", s.Name, time.Since(began).Seconds())
	l.Timeline = NewTimeline(time.Now())
	return l, nil
}

// freeze builds the stage and leaves it in dir.
func (h *host) freeze(ctx context.Context, s *Stage, dir string) error {
	unlock, err := image.Lock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, "stage.json")); err == nil {
		return nil
	}

	began := time.Now()
	var l *Lab
	if s.Base != nil {
		l, err = h.open(ctx, s.Base, true)
	} else {
		l, err = h.bootAll(ctx, s.specs())
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if s.Build != nil {
		h.log("building stage %s", s.Name)
		if err := s.Build(ctx, l); err != nil {
			h.log("stage %s failed:\n%s", s.Name, l.Dump(context.WithoutCancel(ctx)))
			return err
		}
	}
	if err := l.save(ctx, s, dir); err != nil {
		return err
	}
	h.log("stage %s built in %s", s.Name, time.Since(began).Round(100*time.Millisecond))
	return nil
}

// bootAll boots the machines with their memory in files.
func (h *host) bootAll(ctx context.Context, specs []Spec) (*Lab, error) {
	l, err := h.newLab()
	if err != nil {
		return nil, err
	}
	l.saveable = true
	for i, spec := range specs {
		l.add(spec, i)
	}
	began := time.Now()
	h.log("booting %d machines", len(specs))
	err = l.each(func(m *Machine) error {
		if err := os.Mkdir(m.dir, 0o755); err != nil {
			return err
		}
		if err := qemuImg(ctx, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", h.img.Root, filepath.Join(m.dir, "root.qcow2")); err != nil {
			return err
		}
		if m.DataMiB > 0 {
			if err := qemuImg(ctx, "create", "-q", "-f", "qcow2", filepath.Join(m.dir, "data.qcow2"), fmt.Sprintf("%dM", m.DataMiB)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = l.makeShared()
	}
	if err == nil {
		err = l.each(func(m *Machine) error {
			if err := m.start(ctx, boot{ram: filepath.Join(m.dir, "ram"), shared: true}); err != nil {
				return err
			}
			if err := m.WaitSSH(ctx); err != nil {
				return fmt.Errorf("%w\n%s", err, m.consoleTail(40))
			}
			return m.waitBooted(ctx)
		})
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	h.log("%d machines up in %s", len(specs), time.Since(began).Round(100*time.Millisecond))
	return l, nil
}

// waitBooted waits until systemd has finished: a stage must not be frozen with
// half of a boot still to come.
func (m *Machine) waitBooted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	out, err := m.Run(ctx, "systemctl is-system-running --wait")
	state := strings.TrimSpace(out)
	if state == "running" {
		return nil
	}
	failed, _ := m.Run(ctx, "systemctl --failed --no-legend --plain")
	return fmt.Errorf("%s: after the boot systemd is %q; expected running; failed: %s (%w)", m.Name, state, failed, err)
}

func (l *Lab) makeShared() error {
	size := 0
	for _, m := range l.Machines {
		size = max(size, m.SharedMiB)
	}
	if size == 0 {
		return nil
	}
	f, err := os.Create(filepath.Join(l.dir, "shared.img"))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(int64(size) << 20)
}

// save freezes all machines at one moment, writes their states, and moves
// everything to dir. The lab is over after that.
func (l *Lab) save(ctx context.Context, s *Stage, dir string) error {
	err := l.each(func(m *Machine) error {
		// Written pages would otherwise be flushed again in every restored lab.
		_, err := m.Run(ctx, "sync")
		m.disconnect()
		return err
	})
	if err != nil {
		return err
	}
	if err := l.each(func(m *Machine) error { return m.Freeze(ctx) }); err != nil {
		return err
	}
	at := time.Now()
	err = l.each(func(m *Machine) error {
		p, err := m.running()
		if err != nil {
			return err
		}
		if err := p.Save(ctx, filepath.Join(m.dir, "state")); err != nil {
			return err
		}
		return m.PowerOff(ctx)
	})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(frozen{Name: s.Name, Specs: s.specs(), At: at}, "", "\t")
	if err != nil {
		return err
	}
	// The description goes last into a directory that gets its name last: what
	// bears the name is whole.
	tmp, err := os.MkdirTemp(Cache(), "freeze-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, m := range l.Machines {
		if err := os.Rename(m.dir, filepath.Join(tmp, m.Name)); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(l.dir, "shared.img"), filepath.Join(tmp, "shared.img")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "stage.json"), text, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// thaw starts the machines of a frozen stage over fresh overlays of its disks.
func (h *host) thaw(ctx context.Context, dir string, saveable bool) (*Lab, error) {
	text, err := os.ReadFile(filepath.Join(dir, "stage.json"))
	if err != nil {
		return nil, err
	}
	var f frozen
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	l, err := h.newLab()
	if err != nil {
		return nil, err
	}
	l.saveable = saveable
	for i, spec := range f.Specs {
		l.add(spec, i)
	}
	err = copySparse(filepath.Join(dir, "shared.img"), filepath.Join(l.dir, "shared.img"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = l.each(func(m *Machine) error { return m.thaw(ctx, filepath.Join(dir, m.Name), saveable) })
	}
	// All go on at the same moment, or the cluster would see a node die.
	if err == nil {
		err = l.each(func(m *Machine) error { return m.process.Thaw(ctx) })
	}
	if err == nil {
		err = l.each(func(m *Machine) error { return m.setClock(ctx) })
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (m *Machine) thaw(ctx context.Context, from string, saveable bool) error {
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return err
	}
	for _, disk := range []string{"root.qcow2", "data.qcow2"} {
		base := filepath.Join(from, disk)
		if _, err := os.Stat(base); err != nil {
			continue
		}
		if err := qemuImg(ctx, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, filepath.Join(m.dir, disk)); err != nil {
			return err
		}
	}
	b := boot{ram: filepath.Join(from, "ram"), state: filepath.Join(from, "state")}
	if saveable {
		b.ram, b.shared = filepath.Join(m.dir, "ram"), true
		if err := copySparse(filepath.Join(from, "ram"), b.ram); err != nil {
			return err
		}
	}
	return m.start(ctx, b)
}

// setClock sets the machine's clock, which stood still while it was frozen, to
// the host's.
func (m *Machine) setClock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	return c.SetClock(ctx)
}

// copySparse copies a file without its holes.
func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for offset := int64(0); ; {
		start, err := unix.Seek(int(in.Fd()), offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data after offset
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		if _, err := in.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, end-start); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
		offset = end
	}
	return out.Close()
}
