package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab/internal/guest"
	"baton/tests/lab/internal/qemu"
	"baton/tests/lab/internal/qmp"
)

// Result is how a command in a machine ended.
type Result = guest.Result

// ExitError is a command in a machine that ended with another status than 0.
type ExitError = guest.ExitError

// commandTimeout bounds a command whose caller set no deadline. Emulated
// machines start a Python program such as crm in several seconds.
const commandTimeout = 2 * time.Minute

// Machine is one virtual machine.
type Machine struct {
	Spec

	lab   *Lab
	index int    // its place in the stage; gives MAC addresses
	dir   string // its disks, console and journal

	mu      sync.Mutex
	process *qemu.Process
	client  *guest.Client
	port    int
}

// Run runs a shell command line as root and returns its standard output, which
// is given also when the command fails. A status other than 0 is an *ExitError.
// The command is a format only when there are args.
func (m *Machine) Run(ctx context.Context, format string, args ...any) (string, error) {
	result, err := m.Exec(ctx, nil, command(format, args))
	return result.Stdout, err
}

// Exec runs a shell command line as root with the given standard input (which
// may be nil). Without a deadline in ctx it is bounded to two minutes; a
// command that outlives the deadline is left behind in the machine.
func (m *Machine) Exec(ctx context.Context, stdin io.Reader, command string) (Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, commandTimeout, errors.New("the lab's two minutes for one command are over"))
		defer cancel()
	}
	c, err := m.connect(ctx)
	if err != nil {
		return Result{}, err
	}
	result, err := c.Run(ctx, command, stdin)
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		// The connection broke (a reboot, a restore): the next call dials anew.
		m.disconnect()
	}
	return result, err
}

// Sh runs a shell command line and fails the test unless it ends with 0.
func (m *Machine) Sh(t testing.TB, format string, args ...any) string {
	t.Helper()
	out, err := m.Run(t.Context(), format, args...)
	require.NoError(t, err)
	return strings.TrimRight(out, "\n")
}

// Upload writes a file, making its directory and replacing it in one step.
func (m *Machine) Upload(ctx context.Context, path string, mode os.FileMode, content []byte) error {
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	return c.Upload(ctx, path, uint32(mode.Perm()), content)
}

// Quote makes one word of a shell command line of s.
func Quote(s string) string { return guest.Quote(s) }

func command(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}

// connect returns the one connection, making it if needed.
func (m *Machine) connect(ctx context.Context) (*guest.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil, fmt.Errorf("%s: is powered off", m.Name)
	}
	if m.client != nil {
		return m.client, nil
	}
	// A machine that dies while we wait will not answer any more.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func(gone <-chan struct{}) {
		select {
		case <-gone:
			cancel(fmt.Errorf("%s: QEMU has ended", m.Name))
		case <-ctx.Done():
		}
	}(m.process.Gone())
	c, err := guest.Dial(ctx, m.Name, fmt.Sprintf("127.0.0.1:%d", m.port), m.lab.image.User, m.lab.image.HostKey)
	if err != nil {
		return nil, err
	}
	m.client = c
	return c, nil
}

func (m *Machine) disconnect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		m.client.Close()
		m.client = nil
	}
}

// On tells whether the machine has power.
func (m *Machine) On() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process != nil
}

// Pid is the id of the machine's QEMU process, 0 when it is off.
func (m *Machine) Pid() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return 0
	}
	return m.process.Pid()
}

// PowerOff takes the power away in the middle of whatever the machine does.
// What it had not written and flushed to its disks is lost.
func (m *Machine) PowerOff(ctx context.Context) error {
	m.mu.Lock()
	p := m.process
	m.process = nil
	if m.client != nil {
		m.client.Close()
		m.client = nil
	}
	m.mu.Unlock()
	if p == nil {
		return nil
	}
	m.lab.Timeline.Add("%s: power off", m.Name)
	return p.Quit(ctx)
}

// PowerOn boots a machine that is off, from the disks as they are, and returns
// when it answers ssh.
func (m *Machine) PowerOn(ctx context.Context) error {
	m.lab.Timeline.Add("%s: power on", m.Name)
	if err := m.start(ctx, boot{}); err != nil {
		return err
	}
	return m.WaitSSH(ctx)
}

// bootTimeout bounds a boot: half a minute alone on a host, minutes on one that
// is overloaded.
const bootTimeout = 6 * time.Minute

// WaitSSH waits until the machine answers, for as long as a boot may take.
func (m *Machine) WaitSSH(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	_, err := m.connect(ctx)
	return err
}

// Reset pushes the reset button; the machine boots again from its disks.
func (m *Machine) Reset(ctx context.Context) error {
	p, err := m.running()
	if err != nil {
		return err
	}
	m.lab.Timeline.Add("%s: reset", m.Name)
	m.disconnect()
	return p.Reset(ctx)
}

// Freeze stops the machine's processor without telling it; Thaw lets it go on.
func (m *Machine) Freeze(ctx context.Context) error {
	p, err := m.running()
	if err != nil {
		return err
	}
	m.lab.Timeline.Add("%s: frozen", m.Name)
	return p.Freeze(ctx)
}

// Thaw ends Freeze.
func (m *Machine) Thaw(ctx context.Context) error {
	p, err := m.running()
	if err != nil {
		return err
	}
	m.lab.Timeline.Add("%s: goes on", m.Name)
	return p.Thaw(ctx)
}

// Cut pulls the network cable: the machine sees its carrier go. Mend puts it
// back.
func (m *Machine) Cut(ctx context.Context, n Network) error { return m.setLink(ctx, n, false) }

// Mend ends Cut.
func (m *Machine) Mend(ctx context.Context, n Network) error { return m.setLink(ctx, n, true) }

func (m *Machine) setLink(ctx context.Context, n Network, up bool) error {
	p, err := m.running()
	if err != nil {
		return err
	}
	m.lab.Timeline.Add("%s: %s %s", m.Name, n, map[bool]string{true: "cable back", false: "cable pulled"}[up])
	return p.SetLink(ctx, string(n), up)
}

// Silence loses every frame between the machine and the network while on, with
// the carrier up: a fault further away, which the machine cannot see.
func (m *Machine) Silence(n Network, on bool) error {
	m.lab.Timeline.Add("%s: %s %s", m.Name, n, map[bool]string{true: "loses all frames", false: "carries frames again"}[on])
	return m.lab.Nets[n].Block(m.Name, on)
}

// QMP sends any other command to the machine's QEMU.
func (m *Machine) QMP(ctx context.Context, command string, args, result any) error {
	p, err := m.running()
	if err != nil {
		return err
	}
	return p.QMP().Execute(ctx, command, args, result)
}

func (m *Machine) running() (*qemu.Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil, fmt.Errorf("%s: is powered off", m.Name)
	}
	return m.process, nil
}

func (m *Machine) kill() {
	m.disconnect()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil {
		m.process.Kill()
		m.process = nil
	}
}

// boot says how a machine comes to life.
type boot struct {
	ram    string // memory file; anonymous memory when empty
	shared bool   // write to the memory file
	state  string // saved state to load; boots when empty
}

// start runs QEMU. With a state the machine is left frozen.
func (m *Machine) start(ctx context.Context, b boot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil {
		return fmt.Errorf("%s: is on already", m.Name)
	}
	for try := 0; ; try++ {
		p, port, err := m.launch(ctx, b)
		if err == nil {
			m.process, m.port = p, port
			break
		}
		// Another process may have taken the free port in between.
		if try == 3 || !strings.Contains(err.Error(), "host forwarding") {
			return err
		}
	}
	if b.state == "" {
		return nil
	}
	if err := m.process.Load(ctx, b.state); err != nil {
		m.process.Kill()
		err = fmt.Errorf("%w; it said: %s", err, m.process.Said())
		m.process = nil
		return err
	}
	return nil
}

func (m *Machine) launch(ctx context.Context, b boot) (*qemu.Process, int, error) {
	port, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	cfg := m.config(b)
	cfg.SSHPort = port
	var cables []*os.File
	for _, link := range cfg.Links {
		cable, err := m.lab.Nets[Network(link.ID)].Plug(m.Name)
		if err != nil {
			for _, c := range cables {
				c.Close()
			}
			return nil, 0, err
		}
		cables = append(cables, cable)
	}
	p, err := qemu.Start(ctx, cfg, cables, func(e qmp.Event) {
		switch e.Name {
		case "WATCHDOG", "GUEST_PANICKED", "RESET", "SHUTDOWN":
			m.lab.Timeline.Add("%s: QEMU says %s %s", m.Name, e.Name, e.Data)
		}
	})
	return p, port, err
}

func (m *Machine) config(b boot) qemu.Config {
	line := []string{
		"root=/dev/vda", "rw", "console=ttyS0", "quiet", "systemd.show_status=0", "loglevel=4",
		"net.ifnames=0", "mitigations=off", "nokaslr", "audit=0", "apparmor=0", "nowatchdog", "no_timer_check",
		// A kernel that boots on a busy host measures the TSC wrongly, and its
		// clock then runs many times too fast; the PM timer has a fixed rate.
		"tsc=unstable", "clocksource=acpi_pm",
		"random.trust_cpu=on", "cryptomgr.notests", "panic=5", "fsck.mode=skip",
		"systemd.hostname=" + m.Name, fmt.Sprintf("systemd.machine_id=ba7000000000000000000000000000%02x", m.index+1),
	}
	cfg := qemu.Config{
		Name: m.Name, KVM: m.lab.kvm, MemoryMiB: m.MemoryMiB, RAMFile: b.ram, RAMShared: b.shared,
		Kernel: m.lab.image.Kernel, Initrd: m.lab.image.Initrd,
		Disks:   []qemu.Disk{{File: filepath.Join(m.dir, "root.qcow2"), Format: "qcow2"}},
		MgmtMAC: m.mac(9), Console: filepath.Join(m.dir, "console"), Journal: filepath.Join(m.dir, "journal"),
		Watchdog: m.Watchdog, Incoming: b.state != "",
	}
	eth := 0
	for _, n := range []Network{LAN, Repl} {
		addresses := m.LAN
		if n == Repl {
			addresses = m.Repl
		}
		if len(addresses) == 0 {
			continue
		}
		cfg.Links = append(cfg.Links, qemu.Link{ID: string(n), MAC: m.mac(eth)})
		for _, a := range addresses {
			line = append(line, fmt.Sprintf("lab.ip=eth%d,%s", eth, a))
		}
		eth++
	}
	// QEMU's user network gives the machine 10.0.2.15; the host is 10.0.2.2.
	line = append(line, fmt.Sprintf("lab.ip=eth%d,10.0.2.15/24", eth))
	if m.DataMiB > 0 {
		cfg.Disks = append(cfg.Disks, qemu.Disk{File: filepath.Join(m.dir, "data.qcow2"), Format: "qcow2"})
	}
	if m.SharedMiB > 0 {
		cfg.Disks = append(cfg.Disks, qemu.Disk{File: filepath.Join(m.lab.dir, "shared.img"), Format: "raw", Shared: true})
	}
	cfg.Append = strings.Join(line, " ")
	return cfg
}

// MAC is the hardware address of the machine's NIC on a network.
func (m *Machine) MAC(n Network) string {
	if n == Repl {
		return m.mac(1)
	}
	return m.mac(0)
}

// mac: locally administered, the machine's number and the NIC's.
func (m *Machine) mac(nic int) string { return fmt.Sprintf("52:54:00:ba:%02x:%02x", m.index+1, nic) }

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("lab: free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// qemuImg runs qemu-img on the host.
func qemuImg(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "qemu-img", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab: qemu-img %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
