package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"baton/agents/internal/process"
	"baton/ocf"
)

// hungAfter is how long all threads must stand in the kernel without a single step before they
// count as waiting: a slow disk makes steps.
const hungAfter = 3 * time.Second

// hang are server threads that all wait in the kernel (state D).
type hang struct {
	threads int
	steps   uint64 // context switches of all of them together
	in      string // the function of the kernel in which one of them waits
	// moving: they make steps, but the server does not answer. A thread that may write no more
	// into the page cache wakes up several times a second to see whether it may
	// (balance_dirty_pages in mm/page-writeback.c).
	moving bool
}

// stuck tells a server whose threads all wait in the kernel for something that does not come from
// one that is merely busy; nil where they do not. free says that one of them was seen not to wait.
// It costs time only if all of them are found in D, and only the first time.
func (a *agent) stuck(ctx context.Context, threads []process.Process) (h *hang, free bool) {
	before, all := a.waiting(threads)
	if !all {
		return nil, true
	}
	if seen, ok := a.readSighting(); ok && seen.Steps == before.steps {
		return &before, false
	}
	a.Waiting("server threads that wait in the kernel")
	defer a.Waiting("")
	ctx, cancel := within(ctx, hungAfter)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		now, all := a.waiting(threads)
		free = !all
		return !all || now.steps != before.steps, nil
	})
	if err == nil {
		return nil, free
	}
	return &before, false
}

// stuckUnanswered is for a server that has not answered: then it is enough that all threads are
// found in D at one moment.
func (a *agent) stuckUnanswered(ctx context.Context, threads []process.Process) *hang {
	ctx, cancel := within(ctx, time.Second)
	defer cancel()
	var h hang
	err := poll(ctx, func() (all bool, err error) {
		h, all = a.waiting(threads)
		return all, nil
	})
	if err != nil {
		return nil
	}
	h.moving = true
	return &h
}

// waiting sums the steps that the threads have made, and tells whether all of them wait in D.
func (a *agent) waiting(threads []process.Process) (h hang, all bool) {
	for _, t := range threads {
		p, err := a.table.Lookup(t.ID)
		if err != nil || p.State != process.Uninterruptible {
			return hang{}, false
		}
		act, err := a.kernel.Activity(t.PID)
		if err != nil {
			return hang{}, false
		}
		h.steps, h.in = h.steps+act.Switches, act.In
		h.threads++
	}
	// Without threads another kernel may name them otherwise; their number has been read already.
	return h, len(threads) > 0
}

// suspended answers for threads that all wait in the kernel. A disk that is frozen thaws again:
// DRBD with "fencing resource-and-stonith" holds back all writes from the moment at which it has
// lost its peer until the handler says that the peer is fenced. A restart would help nobody
// meanwhile, for stop waits for the same threads; it would make stop fail, and have the only good
// copy fenced. So it is told as degraded, and as a failure once it has lasted hang_timeout.
func (a *agent) suspended(w settings, h hang) (ocf.State, error) {
	lasted, err := a.suspendedFor(h)
	if err != nil {
		a.Log.Warn("since when the server's threads wait cannot be kept: " + err.Error())
	}
	if w.hangTimeout > 0 && lasted >= w.hangTimeout {
		return ocf.Stopped, &ocf.Error{
			Object: "NFS server",
			Found:  fmt.Sprintf("hangs: all %d threads wait in the kernel (%s) for %v", h.threads, h.in, lasted.Round(time.Second)),
			Do:     "see whether the disk below the exports answers",
		}
	}
	a.Note("all %d threads wait in the kernel (%s) for %v: the disk below does not answer; see /proc/drbd, dmesg",
		h.threads, h.in, lasted.Round(time.Second))
	return ocf.DegradedRunning, nil
}

// sighting is what is kept of the first monitor that found all threads waiting.
type sighting struct {
	Boot  string
	Since time.Duration // since the boot
	Steps uint64
}

// suspendedFor is for how long the threads have been waiting, and keeps the moment at which that
// was seen first. Where it cannot be kept it stays 0: a restart is never made on a guess.
func (a *agent) suspendedFor(h hang) (time.Duration, error) {
	now, err := a.uptime()
	if err != nil {
		return 0, err
	}
	if seen, ok := a.readSighting(); ok && seen.Since <= now && (h.moving || seen.Steps == h.steps) {
		return now - seen.Since, nil
	}
	if !a.recurring() {
		return 0, nil
	}
	text, err := json.Marshal(sighting{Boot: a.bootID(), Since: now, Steps: h.steps})
	if err != nil {
		return 0, err
	}
	return 0, os.WriteFile(a.waitingSince, text, 0o600)
}

func (a *agent) readSighting() (sighting, bool) {
	var s sighting
	text, err := os.ReadFile(a.waitingSince)
	if err != nil || json.Unmarshal(text, &s) != nil {
		return sighting{}, false
	}
	return s, s.Boot == a.bootID()
}

// forgetSighting: the server works.
func (a *agent) forgetSighting() {
	if !a.recurring() {
		return
	}
	if err := os.Remove(a.waitingSince); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.Log.Warn(err.Error())
	}
}
