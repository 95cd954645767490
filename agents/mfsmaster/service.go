package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"time"

	"baton/agents/internal/command"
	"baton/agents/internal/mfsmeta"
	"baton/agents/internal/process"
	"baton/ocf"
)

// step is how often the state is looked at while something is waited for. A master answers a few
// milliseconds after it has begun to listen, and an address is moved in tens.
const step = 20 * time.Millisecond

// pause waits a step; false means that ctx has ended.
func pause(ctx context.Context) bool {
	t := time.NewTimer(step)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// launch starts the master's program and returns when its parent process has: that proves nothing,
// since it exits with 0 also when the daemon was killed or its user does not exist.
func (a *agent) launch(ctx context.Context, how method, recovering bool) error {
	args := []string{"-c", a.config.Path, "-t", lockWait(ctx)}
	if recovering && how == methodAuto {
		args = append(args, "-a")
	}
	a.call.Waiting("mfsmaster to load the metadata of %s", a.dataDir)
	defer a.call.Waiting("")
	done := a.spend(&a.spent.loading)
	_, err := a.run.Run(ctx, a.call.Params.String("binary"), append(args, "start")...)
	done()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return &ocf.Error{Kind: ocf.NotInstalled, Object: a.call.Params.String("binary"), Err: err, Do: "install moosefs-master on this node"}
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return &ocf.Error{Object: a.dataDir, Found: "mfsmaster did not start: " + lastWords(err), Err: err, Do: "see the log of mfsmaster"}
}

// lockWait is -t of mfsmaster: how long it waits for its lock. Its default, half an hour, is longer
// than any action.
func lockWait(ctx context.Context) string {
	wait := 60 * time.Second
	if until, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(until)/2)
	}
	return strconv.Itoa(max(1, int(wait/time.Second)))
}

// lastWords finds the line with the cause in what mfsmaster said: its last line only says that
// starting failed.
func lastWords(err error) string {
	var e *command.Error
	if !errors.As(err, &e) {
		return "no words"
	}
	return cause(string(e.Stderr))
}

// awaitAnswer waits until our master answers its protocol.
func (a *agent) awaitAnswer(ctx context.Context) (sighting, error) {
	a.call.Waiting("mfsmaster to answer on %s", a.address)
	defer a.call.Waiting("")
	gone := 0
	for {
		s, err := a.look(ctx, a.patience())
		if err != nil {
			return s, err
		}
		v, why := judge(s, a.dataDir)
		switch v {
		case serving:
			return s, nil
		case foreign:
			return s, a.fail(ocf.Failed, why, "our own master on "+a.address, "stop what occupies the port")
		case absent:
			// Between the end of the starting process and the daemon's lock nobody may be seen.
			if gone++; gone > 50 {
				return s, a.fail(ocf.Failed, "mfsmaster ended while starting", "a running master", "see its log; the kernel's out-of-memory killer (dmesg) or WORKING_USER are usual reasons")
			}
		default:
			gone = 0
		}
		if !pause(ctx) {
			return s, a.fail(ocf.Failed, why, "an answer on "+a.address+" before the deadline", "raise the timeout of the action if it is loading; else see the log of mfsmaster")
		}
	}
}

// patience is how long one answer may take.
func (a *agent) patience() time.Duration { return a.call.Params.Seconds("info_timeout") }

// shutDown ends the master and everything of it that holds the data directory, and returns when
// that is verified. The order is what saves data: the master first, which writes its metadata and
// ends its children itself; then what is left of a dead one, the dump that was going on before the
// data writer, because the writer still has changes to write and ends when nobody can send it more.
func (a *agent) shutDown(ctx context.Context) error {
	a.call.Waiting("mfsmaster to save its metadata and end")
	defer a.call.Waiting("")
	for {
		l, err := a.living()
		if err != nil {
			return err
		}
		switch {
		case len(l.masters) > 0:
			err = a.end(ctx, a.termPatience(ctx), l.masters)
		case len(l.helpers) > 0:
			err = a.end(ctx, helperPatience, l.helpers)
		case len(l.writers) > 0:
			err = a.endWriters(ctx, l.writers)
		default:
			return a.verifyGone(ctx)
		}
		if err != nil {
			return err
		}
	}
}

const (
	// helperPatience: a dump that is not finished is of no use to anybody.
	helperPatience = time.Second
	// writerPatience is for writing what the pipe still holds (64 KiB) to a slow disk.
	writerPatience = 10 * time.Second
)

// end makes processes end, all of them or an error.
func (a *agent) end(ctx context.Context, patience time.Duration, list []process.Process) error {
	names := listed(list)
	a.call.Log.Info("ending " + names)
	begin := time.Now()
	err := a.processes.End(ctx, patience, ids(list)...)
	if err == nil && patience > 0 && time.Since(begin) >= patience {
		a.call.Log.Warn(fmt.Sprintf("%s did not end within %v and was killed; the next start recovers from its changelogs", names, patience.Round(time.Second)))
	}
	return a.notEnded(err)
}

func (a *agent) notEnded(err error) error {
	var stuck *process.StuckError
	if errors.As(err, &stuck) {
		return a.fail(ocf.Failed, stuck.Error(), "no process of mfsmaster", "it cannot be killed: its disk hangs (dmesg); fencing frees the data")
	}
	if err != nil {
		return a.unreadable(err)
	}
	return nil
}

// endWriters waits for the data writer to end by itself before it signals.
func (a *agent) endWriters(ctx context.Context, list []process.Process) error {
	for _, p := range list {
		if p.State != process.Halted {
			continue
		}
		if err := a.processes.Signal(p.ID, syscall.SIGCONT); err != nil && !errors.Is(err, process.ErrGone) {
			return a.unreadable(err)
		}
	}
	soft, cancel := context.WithTimeout(ctx, min(writerPatience, a.termPatience(ctx)/2))
	err := a.processes.Wait(soft, ids(list)...)
	cancel()
	if err == nil {
		return nil
	}
	return a.end(ctx, helperPatience, list)
}

func ids(list []process.Process) []process.ID {
	var all []process.ID
	for _, p := range list {
		all = append(all, p.ID)
	}
	return all
}

func listed(list []process.Process) string {
	var names []string
	for _, p := range list {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}

// termPatience leaves a reserve of the action's time for SIGKILL and what follows.
func (a *agent) termPatience(ctx context.Context) time.Duration {
	until, ok := ctx.Deadline()
	if !ok {
		return 10 * time.Minute
	}
	left := time.Until(until)
	reserve := min(max(left/10, 2*time.Second), 15*time.Second)
	return max(left-reserve, 0)
}

// life is what lives of this master.
type life struct{ masters, helpers, writers []process.Process }

// living finds the processes of this master: the owners of its locks, everything of MooseFS in the
// data directory, and masters that were started with our configuration file.
func (a *agent) living() (life, error) {
	found := map[process.ID]process.Process{}
	master, writer, err := a.locks()
	if err != nil {
		// A disk that has failed does not open them any more. The master can be ended all the same:
		// the process table tells who works in the directory.
		a.call.Log.Warn(err.Error())
	}
	for _, pid := range []int{master, writer} {
		if pid <= 0 {
			continue
		}
		if p, err := a.processes.Get(pid); err == nil && isMaster(p) {
			found[p.ID] = p
		}
	}
	ours, _, err := a.holders()
	if err != nil {
		return life{}, a.unreadable(err)
	}
	for _, h := range ours {
		found[h.ID] = h.Process
	}
	strays, err := a.strays()
	if err != nil {
		return life{}, a.unreadable(err)
	}
	for _, p := range strays {
		found[p.ID] = p
	}
	var l life
	for _, p := range found {
		switch title := p.Title(); {
		case p.State.Ended():
		case p.PID == writer || strings.HasPrefix(title, titleWriter):
			l.writers = append(l.writers, p)
		case p.PID != master && strings.HasPrefix(title, titleHelper):
			l.helpers = append(l.helpers, p)
		default:
			l.masters = append(l.masters, p)
		}
	}
	return l, nil
}

// locks are the owners of the locks in the data directory, 0 also where one cannot be read.
func (a *agent) locks() (master, writer int, err error) {
	master, err1 := mfsmeta.LockOwner(a.dataDir, mfsmeta.MasterLock)
	writer, err2 := mfsmeta.LockOwner(a.dataDir, mfsmeta.WriterLock)
	return master, writer, errors.Join(err1, err2)
}

// The titles of mfsmaster's children: "mfsmaster (data writer)", "mfsmaster (metadata saver)".
const (
	titleHelper = "mfsmaster ("
	titleWriter = "mfsmaster (data writer)"
)

// verifyGone waits until the kernel has released both locks: after SIGKILL that takes as long as
// freeing the memory of the process.
func (a *agent) verifyGone(ctx context.Context) error {
	for {
		// Locks that cannot be read hold nobody up where no process is left that could hold them.
		master, writer, lockErr := a.locks()
		ours, others, err := a.holders()
		if err != nil {
			return a.unreadable(err)
		}
		if errors.Is(lockErr, fs.ErrPermission) {
			return a.unreadable(lockErr)
		}
		strays, err := a.strays()
		if err != nil {
			return a.unreadable(err)
		}
		if master == 0 && writer == 0 && len(ours) == 0 && len(strays) == 0 {
			if lockErr != nil {
				a.call.Log.Warn(fmt.Sprintf("%v; no process of mfsmaster is left", lockErr))
			}
			for _, h := range others {
				a.call.Log.Warn(fmt.Sprintf("%s is still held by %v, which is not the master's", a.dataDir, h))
			}
			return nil
		}
		if !pause(ctx) {
			return a.fail(ocf.Failed, fmt.Sprintf("locks are still held (master %d, writer %d) and %d processes in the directory", master, writer, len(ours)), "none", "look with fuser -v "+a.dataDir)
		}
	}
}
