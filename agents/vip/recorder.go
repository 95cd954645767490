package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"baton/agents/internal/atomicfile"
	"baton/ocf"
)

// The record lies on storage that may hang: DRBD freezes it while a lost peer is being fenced. A
// thread that waits for such storage is beyond SIGKILL, and a process with one such thread does not
// end, whatever its others do; Pacemaker would see an action that timed out. So a process of its
// own touches the storage, the recorder: detached as the announcer is, with no pipe of the caller's,
// awaited for saveWait and then left behind. One at a time is at work, or a hang would pile them up
// and the first of them might have the last word.

// The actions that the recorder is started with.
const (
	storeAction = "record-store"
	fetchAction = "record-fetch"
)

// saveWait is how long a record may take to be written or read. The address
// matters more than the record of its connections, whose storage may hang.
const saveWait = 3 * time.Second

// errand is what a recorder is told.
type errand struct {
	action string
	// record is the file on the storage that moves with the address.
	record string
	// lock is the file to hold a lock on, and to leave word in of what went wrong.
	lock string
	// now says that the record must be on the disk when the recorder ends.
	now bool
}

// local is where content passes between agent and recorder: on this node, beside the lock.
func (e errand) local() string { return e.lock + ".peers" }

// args and parseErrand are the command line of the recorder, after the action.
func (e errand) args() []string {
	return []string{e.record, e.lock, strconv.FormatBool(e.now)}
}

func parseErrand(action string, args []string) (e errand, err error) {
	if len(args) != 3 {
		return e, fmt.Errorf("%d arguments, expected 3: record, lock file, true or false", len(args))
	}
	e = errand{action: action, record: args[0], lock: args[1]}
	e.now, err = strconv.ParseBool(args[2])
	return e, err
}

// pending is an errand under way.
type pending struct {
	done   chan error
	ctx    context.Context
	cancel context.CancelFunc
	errand errand
}

// send starts a recorder, beside what the caller goes on with. content is what it is to write.
func (a agent) send(ctx context.Context, c *ocf.Call, cfg config, e errand, content []byte) *pending {
	p := &pending{done: make(chan error, 1), errand: e}
	p.ctx, p.cancel = context.WithTimeout(ctx, saveWait)
	p.errand.record = filepath.Join(cfg.tickleDir, cfg.ip.String())
	dir, err := c.Records()
	if err != nil {
		p.done <- err
		return p
	}
	p.errand.lock = helperFile(dir, cfg, "recorder")
	go func() { p.done <- a.carry(p.ctx, p.errand, content) }()
	return p
}

// wait gives what became of the errand. What has not ended by then is left behind.
func (p *pending) wait(c *ocf.Call) error {
	defer p.cancel()
	select {
	case err := <-p.done:
		return err
	default:
	}
	c.Waiting("storage: %s", p.errand.record)
	defer c.Waiting("")
	select {
	case err := <-p.done:
		return err
	case <-p.ctx.Done():
		return p.errand.unanswered()
	}
}

func (e errand) unanswered() error {
	return fmt.Errorf("%s has not answered for %v", filepath.Dir(e.record), saveWait)
}

// carry runs one recorder. It touches no storage but this node's own.
func (a agent) carry(ctx context.Context, e errand, content []byte) error {
	if e.action == storeAction && knownToHold(e.record, content) {
		return nil
	}
	if err := e.vacant(ctx); err != nil {
		return err
	}
	_ = os.Remove(e.local()) // else what an earlier one has fetched would pass for this one's
	if e.action == storeAction {
		if err := atomicfile.Write(e.local(), content, 0o600); err != nil {
			return err
		}
	}
	pid, err := a.detach(append([]string{e.action}, e.args()...)...)
	if err != nil {
		return err
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("wait4", err)
		}
	}
	word, err := os.ReadFile(e.lock)
	switch {
	case len(word) > 0:
		return errors.New(string(word))
	case status.Signaled():
		return fmt.Errorf("its recorder was ended by signal %v", status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Errorf("its recorder ended with exit code %d", status.ExitStatus())
	}
	return err
}

// vacant waits until no recorder of the address is at work.
func (e errand) vacant(ctx context.Context) error {
	f, err := os.OpenFile(e.lock, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, errNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		holder, err := lockHolder(f)
		if err != nil || holder == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return e.unanswered()
		}
	}
}

// recorder is the detached process. What goes wrong it leaves word of for whoever awaits it.
func (a agent) recorder(action string) func(context.Context, *ocf.Call, []string) error {
	return func(_ context.Context, _ *ocf.Call, args []string) error {
		e, err := parseErrand(action, args)
		if err != nil {
			return err
		}
		lock, err := takeLock(e.lock)
		if err != nil {
			return err
		}
		defer lock.Close()
		if err := lock.Truncate(0); err != nil {
			return err
		}
		if err := e.run(); err != nil {
			_, err = lock.WriteString(err.Error())
			return err
		}
		return nil
	}
}

func (e errand) run() error {
	if e.action == fetchAction {
		data, err := readRecord(e.record)
		if errors.Is(err, errNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return atomicfile.Write(e.local(), data, 0o600)
	}
	content, err := os.ReadFile(e.local())
	if err != nil {
		return err
	}
	_ = os.Remove(e.local())
	if err := makeTickleDir(filepath.Dir(e.record)); err != nil {
		return err
	}
	if e.now {
		_, err = atomicfile.WriteIfChanged(e.record, content, 0o600)
		return err
	}
	return replace(e.record, content)
}

// replace is atomicfile.Write without the two waits for the disk.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*") // of mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// resolveCached is RESOLVE_CACHED of include/uapi/linux/openat2.h, Linux 5.12.
const resolveCached = 0x20

// knownToHold tells whether the kernel knows without asking the storage that the file has exactly
// this content: a monitor that finds nothing changed needs no recorder. Path, size and content must
// all be in memory, and O_NOATIME keeps the reading from being written down. Where any of it is not
// to be had so (an older kernel, a file not read for long) the answer is no, which costs a process.
func knownToHold(path string, content []byte) bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_CLOEXEC,
		Resolve: resolveCached,
	})
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_SIZE, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != uint64(len(content)) {
		return false
	}
	if len(content) == 0 {
		return true
	}
	held := make([]byte, len(content))
	n, err := unix.Preadv2(fd, [][]byte{held}, 0, unix.RWF_NOWAIT)
	return err == nil && bytes.Equal(held[:n], content)
}
