package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/tests/lab/internal/image"
	"baton/tests/lab/internal/qemu"
)

// kvmTrial bounds the trial boot. Where KVM works, the kernel hands over to
// the init of the initramfs in less than three seconds.
const kvmTrial = 8 * time.Second

// useKVM tells whether machines run under KVM here. That /dev/kvm opens proves
// nothing: under some hypervisors it creates machines whose kernels die or
// spin. So the lab boots its kernel once, bounded, and keeps the verdict for
// this host in the cache. LAB_ACCEL=kvm or tcg decides without a trial.
func useKVM(ctx context.Context, img *image.Image, log func(string, ...any)) (bool, error) {
	switch accel := os.Getenv("LAB_ACCEL"); accel {
	case "kvm":
		return true, nil
	case "tcg":
		return false, nil
	case "":
	default:
		return false, fmt.Errorf("lab: LAB_ACCEL is %q; expected kvm, tcg or nothing", accel)
	}
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil {
		return false, nil
	}
	path := filepath.Join(Cache(), "kvm-"+hostHash(img))
	if verdict, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(verdict)) == "works", nil
	}
	unlock, err := image.Lock(ctx, path+".lock")
	if err != nil {
		return false, err
	}
	defer unlock()
	if verdict, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(verdict)) == "works", nil
	}

	verdict := "works"
	if err := tryKVM(ctx, img); err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		verdict = "does not work"
		log("KVM does not work here (%v): machines are emulated", err)
	} else {
		log("KVM works here")
	}
	return verdict == "works", os.WriteFile(path, []byte(verdict+"\n"), 0o644)
}

// hostHash names this host, its kernel and the image that is tried on it.
func hostHash(img *image.Image) string {
	var uts unix.Utsname
	_ = unix.Uname(&uts) // cannot fail with a valid address
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	model, _, _ := bytes.Cut(cpu[max(0, bytes.Index(cpu, []byte("model name"))):], []byte("\n"))
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %s", uts.Release, model, img.Key))
	return hex.EncodeToString(sum[:6])
}

// tryKVM boots the kernel with the initramfs and no disk, and waits until the
// initramfs speaks: userspace runs.
func tryKVM(ctx context.Context, img *image.Image) error {
	dir, err := os.MkdirTemp(Cache(), "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	console := filepath.Join(dir, "console")
	ctx, cancel := context.WithTimeout(ctx, kvmTrial)
	defer cancel()
	port, err := freePort()
	if err != nil {
		return err
	}
	p, err := qemu.Start(ctx, qemu.Config{
		Name: "kvm-trial", KVM: true, MemoryMiB: 512,
		Kernel: img.Kernel, Initrd: img.Initrd, Append: "console=ttyS0 root=/dev/none rootdelay=1 panic=1",
		MgmtMAC: "52:54:00:ba:ff:00", SSHPort: port,
		Console: console, Journal: filepath.Join(dir, "journal"),
	}, nil, nil)
	if err != nil {
		return err
	}
	defer p.Kill()
	_, err = Poll(ctx, kvmTrial, "a kernel under KVM to reach userspace", func(context.Context) (bool, string) {
		text, err := os.ReadFile(console)
		if err != nil {
			return false, err.Error()
		}
		said := clean(string(text))
		return strings.Contains(said, "Begin: "), "console: " + said[max(0, len(said)-200):]
	})
	return err
}
