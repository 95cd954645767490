package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"baton/agents/internal/process"
)

// single makes sure that only one drbdsetup at a time asks for this resource on behalf of this
// agent. DRBD's netlink interface can block behind a stuck command for minutes (an uninterruptible
// sleep, which no signal ends); one more hanging process per monitor would not help anyone. A mark
// is left while the question is asked; where an earlier call left its mark, its child is looked
// for. done takes the mark away.
func (a *agent) single(ctx context.Context) (done func(), err error) {
	if a.dir == "" {
		return func() {}, nil
	}
	mark := filepath.Join(a.dir, "drbd-asking-"+fileName(a.name))
	f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case err == nil:
		f.Close()
	case errors.Is(err, fs.ErrExist):
		if stuck, ok := a.hanging(ctx); ok {
			return nil, fmt.Errorf("%v of an earlier call still hangs (%v)", stuck, stuck.State)
		}
	default:
		a.Log.Debug("no mark for drbdsetup: " + err.Error())
	}
	return func() { _ = os.Remove(mark) }, nil
}

// hanging finds a drbdsetup in uninterruptible sleep that asks for the state. One that merely
// runs is another call's, and will end; so is one that sleeps only for a moment.
func (a *agent) hanging(ctx context.Context) (process.Process, bool) {
	asleep := func(also process.Process) (process.Process, bool) {
		list, err := process.System{Proc: filepath.Join(a.sys.root, "proc")}.Find(func(p process.Process) bool {
			asks := slices.Contains(p.Args, "events2") || slices.Contains(p.Args, "show") && slices.Contains(p.Args, a.name)
			return p.State == process.Uninterruptible && asks && (also.PID == 0 || p.ID == also.ID)
		})
		if err != nil || len(list) == 0 {
			return process.Process{}, false
		}
		return list[0], true
	}
	first, ok := asleep(process.Process{})
	if !ok {
		return first, false
	}
	if pause(ctx, aMoment) != nil {
		return first, true
	}
	return asleep(first)
}

// aMoment is longer than a page fault or a lock of the kernel that somebody holds, on a disk that
// answers.
const aMoment = 500 * time.Millisecond
