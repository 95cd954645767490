package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/tests/lab/internal/qmp"
)

// Process is a running QEMU.
type Process struct {
	cfg  Config
	cmd  *exec.Cmd
	qmp  *qmp.Client
	said *bytes.Buffer // QEMU's own standard error; read only after exited
	gone chan struct{} // closed when the process has been reaped
	err  error         // how it ended; read only after gone
}

// Start runs QEMU with the configuration. links are the machine's ends of the
// cables, one for each of cfg.Links; Start closes them. The process is killed
// by the kernel when this one dies, however it dies. onEvent may be nil.
func Start(ctx context.Context, cfg Config, links []*os.File, onEvent func(qmp.Event)) (*Process, error) {
	defer func() {
		for _, l := range links {
			l.Close()
		}
	}()
	if len(links) != len(cfg.Links) {
		return nil, fmt.Errorf("qemu %s: %d cables for %d links", cfg.Name, len(links), len(cfg.Links))
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("qemu %s: socketpair: %w", cfg.Name, err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "qmp")
	ours := os.NewFile(uintptr(fds[0]), "qmp")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("qemu %s: %w", cfg.Name, err)
	}

	p := &Process{cfg: cfg, said: &bytes.Buffer{}, gone: make(chan struct{})}
	p.cmd = exec.Command("qemu-system-x86_64", cfg.Args()...)
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	p.cmd.ExtraFiles = append([]*os.File{theirs}, links...)
	// An own process group, so that Ctrl-C in a terminal reaches only the test
	// or demo, which then ends its machines in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = startOnLastingThread(p.cmd)
	theirs.Close()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("qemu %s: %w", cfg.Name, err)
	}
	// The cluster's timeouts run on the host's clock: the machines go before
	// whatever else runs here, where that is allowed.
	_ = unix.Setpriority(unix.PRIO_PROCESS, p.cmd.Process.Pid, -5)
	go func() {
		p.err = p.cmd.Wait()
		close(p.gone)
	}()

	p.qmp, err = qmp.New(ctx, conn, onEvent)
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("qemu %s: %w; it said: %s", cfg.Name, err, strings.TrimSpace(p.said.String()))
	}
	return p, nil
}

// spawner is the goroutine that starts every QEMU. Pdeathsig strikes when the
// thread that forked ends (prctl(2), PR_SET_PDEATHSIG), and Go ends threads as
// it likes; this one is locked to its goroutine, which never returns.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startOnLastingThread(cmd *exec.Cmd) error {
	done := make(chan error)
	spawner() <- func() { done <- cmd.Start() }
	return <-done
}

// QMP is the machine's control connection.
func (p *Process) QMP() *qmp.Client { return p.qmp }

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Gone is closed when the process has ended.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Kill ends the process at once and waits until it is reaped. What QEMU itself
// had cached of a qcow2 file may be lost: use Quit where the disk lives on.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// Quit takes the power away: the machine stops between two instructions, and
// what it had handed to its disks is in the host's files. It returns when the
// process has ended.
func (p *Process) Quit(ctx context.Context) error {
	err := p.qmp.Execute(ctx, "quit", nil, nil)
	if err != nil && !errors.Is(err, qmp.ErrClosed) {
		p.Kill()
		return err
	}
	select {
	case <-p.gone:
		return nil
	case <-time.After(20 * time.Second):
		p.Kill()
		return fmt.Errorf("qemu %s: did not end within 20 s of quit; killed", p.cfg.Name)
	}
}

// SetLink takes the carrier of a link away (up false) or gives it back.
func (p *Process) SetLink(ctx context.Context, id string, up bool) error {
	return p.qmp.Execute(ctx, "set_link", map[string]any{"name": "nic-" + id, "up": up}, nil)
}

// Freeze stops the machine's processor; Thaw lets it go on. The world's time
// passes meanwhile, its own does not.
func (p *Process) Freeze(ctx context.Context) error { return p.qmp.Execute(ctx, "stop", nil, nil) }

// Thaw ends Freeze.
func (p *Process) Thaw(ctx context.Context) error { return p.qmp.Execute(ctx, "cont", nil, nil) }

// Reset is the reset button.
func (p *Process) Reset(ctx context.Context) error {
	return p.qmp.Execute(ctx, "system_reset", nil, nil)
}

// Save writes the state of a frozen machine to a file: devices and, unless the
// memory is a shared file that keeps it already, memory.
func (p *Process) Save(ctx context.Context, file string) error {
	if err := p.capabilities(ctx); err != nil {
		return err
	}
	if err := p.qmp.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(8) << 30}, nil); err != nil {
		return err
	}
	if err := p.qmp.Execute(ctx, "migrate", map[string]any{"uri": "exec:cat >" + file}, nil); err != nil {
		return err
	}
	return p.migrated(ctx, "save")
}

// Load reads the state of a machine started with Config.Incoming. The machine
// stays frozen until Thaw.
func (p *Process) Load(ctx context.Context, file string) error {
	if err := p.capabilities(ctx); err != nil {
		return err
	}
	if err := p.qmp.Execute(ctx, "migrate-incoming", map[string]any{"uri": "exec:cat " + file}, nil); err != nil {
		return err
	}
	return p.migrated(ctx, "load")
}

// capabilities: x-ignore-shared leaves a shared memory file out of the stream,
// so that a saved machine is a few MB and its memory is mapped, not copied.
func (p *Process) capabilities(ctx context.Context) error {
	return p.qmp.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": []any{
		map[string]any{"capability": "x-ignore-shared", "state": true},
		map[string]any{"capability": "events", "state": true},
	}}, nil)
}

func (p *Process) migrated(ctx context.Context, what string) error {
	for {
		var info struct {
			Status string          `json:"status"`
			Error  string          `json:"error-desc"`
			RAM    json.RawMessage `json:"ram"`
		}
		if err := p.qmp.Execute(ctx, "query-migrate", nil, &info); err != nil {
			return fmt.Errorf("qemu %s: %s: %w", p.cfg.Name, what, err)
		}
		switch info.Status {
		case "completed":
			return nil
		case "setup", "active", "device", "pre-switchover", "none", "":
		default: // failed, or given up
			return fmt.Errorf("qemu %s: %s: %s %s", p.cfg.Name, what, info.Status, info.Error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("qemu %s: %s: still %s: %w", p.cfg.Name, what, info.Status, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Said is what QEMU wrote to its standard error, once it has ended.
func (p *Process) Said() string {
	select {
	case <-p.gone:
		return strings.TrimSpace(p.said.String())
	default:
		return ""
	}
}
