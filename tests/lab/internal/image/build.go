package image

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Image is a built image in the cache. Its files are never written again.
type Image struct {
	Key     string // of the recipe
	Dir     string
	Root    string // raw ext4 image
	Kernel  string
	Initrd  string
	User    ssh.Signer    // root's key in the machines
	HostKey ssh.PublicKey // of every machine
}

// HostPackages is what the host needs to build images and to run machines,
// by the program that shows whether it is there.
func HostPackages() map[string]string {
	return map[string]string{
		"qemu-system-x86_64": "qemu-system-x86",
		"qemu-img":           "qemu-utils",
		"mmdebstrap":         "mmdebstrap",
		"mke2fs":             "e2fsprogs",
		"tar":                "tar",
	}
}

// PrepareHost installs what is missing on the host, with apt-get, and says so
// through log. It changes nothing when everything is there.
func PrepareHost(ctx context.Context, log func(string, ...any)) error {
	var missing []string
	for program, pkg := range HostPackages() {
		if _, err := look(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	if _, err := look("apt-get"); err != nil {
		return fmt.Errorf("lab: missing on this host: %s; expected a Debian host, or these programs installed by hand", strings.Join(missing, " "))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("lab: missing on this host: %[1]s; run as root: apt-get install %[1]s", strings.Join(missing, " "))
	}
	log("installing on this host: apt-get install %s", strings.Join(missing, " "))
	if err := run(ctx, nil, "apt-get", "update", "-qq"); err != nil {
		return err
	}
	args := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)
	return run(ctx, []string{"DEBIAN_FRONTEND=noninteractive"}, "apt-get", args...)
}

// Ensure returns the image of the recipe from the cache directory, building it
// first if it is not there. Several processes may ask at once: one builds, the
// others wait.
func Ensure(ctx context.Context, cache string, r Recipe, log func(string, ...any)) (*Image, error) {
	dir := filepath.Join(cache, "image-"+r.Key())
	if img, err := open(dir, r); err == nil {
		return img, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("lab: cache: %w", err)
	}
	unlock, err := Lock(ctx, dir+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if img, err := open(dir, r); err == nil {
		return img, nil
	}

	if err := PrepareHost(ctx, log); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("lab: building the machines' image needs root (mmdebstrap keeps owners and devices); run as root once, the cache serves every user afterwards")
	}
	began := time.Now()
	log("building the machines' image %s from Debian %s packages (once; about two minutes)", r.Key(), r.Suite)
	tmp, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return nil, fmt.Errorf("lab: cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := build(ctx, tmp, r, log); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(tmp, "out"), dir); err != nil {
		return nil, err
	}
	log("image %s built in %s", r.Key(), time.Since(began).Round(time.Second))
	return open(dir, r)
}

// Lock takes an exclusive lock on a file, made if missing, waiting for whoever
// holds it, until ctx ends. The lock dies with the process.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lab: lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lab: lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lab: waiting for %s, which another run holds: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func open(dir string, r Recipe) (*Image, error) {
	img := &Image{
		Key: r.Key(), Dir: dir,
		Root:   filepath.Join(dir, "root.img"),
		Kernel: filepath.Join(dir, "vmlinuz"),
		Initrd: filepath.Join(dir, "initrd"),
	}
	for _, path := range []string{img.Root, img.Kernel, img.Initrd} {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "id_ed25519"))
	if err != nil {
		return nil, err
	}
	if img.User, err = ssh.ParsePrivateKey(key); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", dir, err)
	}
	host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		return nil, err
	}
	if img.HostKey, _, _, _, err = ssh.ParseAuthorizedKey(host); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", dir, err)
	}
	return img, nil
}

// build leaves the finished image in tmp/out.
func build(ctx context.Context, tmp string, r Recipe, log func(string, ...any)) error {
	tree, out := filepath.Join(tmp, "tree"), filepath.Join(tmp, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	// A directory rather than a tar: mke2fs -d reads it as it is.
	err := run(ctx, []string{"DEBIAN_FRONTEND=noninteractive"}, "mmdebstrap", "--variant=minbase", "--mode=root", "--format=directory",
		"--aptopt=Acquire::Retries \"3\"",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include="+strings.Join(r.Packages, ","), r.Suite, tree)
	if err != nil {
		return err
	}
	log("packages are in; customizing")
	if err := customize(ctx, tree, out, r); err != nil {
		return err
	}
	kernels, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("lab: found %d kernels in the image; expected one", len(kernels))
	}
	version := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	if err := run(ctx, nil, "chroot", tree, "mkinitramfs", "-o", "/boot/initrd.lab", version); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(tree, "boot/initrd.lab"), filepath.Join(out, "initrd")); err != nil {
		return err
	}
	if err := os.Rename(kernels[0], filepath.Join(out, "vmlinuz")); err != nil {
		return err
	}
	os.Remove(filepath.Join(tree, "boot/initrd.img-"+version))

	// The journal stays on: power loss is one of the tests.
	return run(ctx, nil, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-m", "0",
		"-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", "-J", "size=32",
		"-d", tree, filepath.Join(out, "root.img"), fmt.Sprintf("%dM", r.SizeMiB))
}

// customize lays the recipe's files, keys and unit states into the tree.
func customize(ctx context.Context, tree, out string, r Recipe) error {
	for _, f := range r.Files {
		if err := lay(tree, f); err != nil {
			return err
		}
	}
	modules := File{Path: "/etc/initramfs-tools/modules", Mode: 0o644, Text: strings.Join(r.Modules, "\n") + "\n"}
	if err := lay(tree, modules); err != nil {
		return err
	}
	if err := keys(tree, out); err != nil {
		return err
	}
	if err := run(ctx, nil, "chroot", append([]string{tree, "systemctl", "--quiet", "disable"}, r.Disable...)...); err != nil {
		return err
	}
	if err := run(ctx, nil, "chroot", append([]string{tree, "systemctl", "--quiet", "mask"}, r.Mask...)...); err != nil {
		return err
	}
	return run(ctx, nil, "chroot", tree, "systemctl", "--quiet", "enable", "lab-net.service", "ssh.service")
}

func lay(tree string, f File) error {
	path := filepath.Join(tree, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// A link, such as resolv.conf's, is replaced, not followed out of the tree.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path, []byte(f.Text), f.Mode); err != nil {
		return err
	}
	return os.Chmod(path, f.Mode)
}

// keys makes root's and the machines' ssh keys. All machines share one host
// key: they are told apart by their ports.
func keys(tree, out string) error {
	userPub, userKey, err := keyPair("root of the lab's machines")
	if err != nil {
		return err
	}
	hostPub, hostKey, err := keyPair("the lab's machines")
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(tree, "etc/ssh/ssh_host_*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for _, f := range []File{
		{"/root/.ssh/authorized_keys", 0o600, string(userPub)},
		{"/etc/ssh/ssh_host_ed25519_key", 0o600, string(hostKey)},
		{"/etc/ssh/ssh_host_ed25519_key.pub", 0o644, string(hostPub)},
	} {
		if err := lay(tree, f); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(tree, "root/.ssh"), 0o700); err != nil {
		return err
	}
	// Readable by every user of the cache, as the machines are theirs too;
	// only this host can reach them.
	if err := os.WriteFile(filepath.Join(out, "id_ed25519"), userKey, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "host.pub"), hostPub, 0o644)
}

func keyPair(comment string) (public, private []byte, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return nil, nil, err
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, nil, err
	}
	return ssh.MarshalAuthorizedKey(sshPub), pem.EncodeToMemory(block), nil
}

// look finds a program also where an ordinary user's PATH does not lead.
func look(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// run runs a tool of the host; its error holds the end of what the tool said.
func run(ctx context.Context, env []string, name string, args ...string) error {
	path, err := look(name)
	if err != nil {
		return fmt.Errorf("lab: %s: %w", name, err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(append(os.Environ(), "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		text := said.String()
		if len(text) > 4000 {
			text = "…" + text[len(text)-4000:]
		}
		return fmt.Errorf("lab: %s %s: %w\n%s", name, strings.Join(args, " "), err, text)
	}
	return nil
}
