package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/command"
	"baton/agents/internal/drbdstate"
	"baton/agents/internal/pacemaker"
	"baton/ocf"
)

// system is the machine that the agent works on.
type system struct {
	root string // "/" in life
}

// agent is one call at work on one DRBD resource.
type agent struct {
	*ocf.Call
	sys    system
	name   string // the DRBD resource
	runner command.Runner
	reader drbdstate.Reader
	scores scores
	tools  pacemaker.Tools
	ledger pacemaker.Ledger
	asked  time.Duration // what the cluster's answers took so far, see ask
	dir    string        // for records; empty where there is none
}

// agent prepares a call. It cannot fail: a directory for records that cannot be made costs
// children, not the action.
func (s system) agent(c *ocf.Call) *agent {
	a := &agent{
		Call: c, sys: s, name: c.Params.String(parResource),
		runner: command.Runner{Env: []string{
			// drbdadm and drbdsetup look at these: no HTTP request to count users, no warning
			// about versions among the output.
			"INIT_VERSION=baton", "DRBD_DONT_WARN_ON_VERSION_MISMATCH=1",
		}},
	}
	a.scores, _ = parseScores(c.Params.String(parScores)) // checked before, or the default
	boot, err := pacemaker.BootID(s.root)
	if err != nil {
		c.Log.Debug("no boot id, so records are not believed: " + err.Error())
	}
	a.reader = drbdstate.Reader{Root: s.root, Events: a.events, Boot: boot}
	a.tools = pacemaker.Tools{Runner: a.runner, Instance: c.Env.Instance, Node: c.Env.Node}
	a.ledger = pacemaker.Ledger{Boot: boot, Now: time.Now()}
	if executor, err := pacemaker.Executor("/", os.Getppid()); err == nil {
		a.ledger.Executor = executor
	}
	a.dir, err = c.Records()
	if err != nil {
		c.Log.Warn(err.Error())
		return a
	}
	if boot != "" {
		a.reader.Record = filepath.Join(a.dir, "drbd-minors")
	}
	// The ledger is the cluster's. A call by hand has the same instance by default, and would make
	// it void: the cluster's next monitor would no longer know what it told and asked for.
	if a.clustered() {
		a.ledger.File = filepath.Join(a.dir, "drbd-"+fileName(c.Env.Instance))
		if a.ledger.Taken("/") {
			a.ledger.File = ""
		}
	}
	return a
}

// fileName makes a file name of a resource instance, which may hold a slash only by malice.
func fileName(instance string) string { return strings.ReplaceAll(instance, "/", "_") }

// parseScores reads adjust_master_score: four whole numbers, none lower than the one before.
func parseScores(text string) (scores, error) {
	words := strings.Fields(text)
	var n [4]int
	if len(words) != len(n) {
		return scores{}, fmt.Errorf("%d numbers", len(words))
	}
	for i, word := range words {
		v, err := strconv.Atoi(word)
		if err != nil || v < 0 || v > 1000000 || i > 0 && v < n[i-1] {
			return scores{}, fmt.Errorf("%q in place %d", word, i+1)
		}
		n[i] = v
	}
	return scores{n[0], n[1], n[2], n[3]}, nil
}

// fail makes the error of this call about this resource.
func (a *agent) fail(kind ocf.Kind, found, expected, do string) *ocf.Error {
	return &ocf.Error{Kind: kind, Op: a.Env.Action, Object: a.name, Found: found, Expected: expected, Do: do}
}

// read reads the state from the kernel. An error means that nothing is known.
func (a *agent) read(ctx context.Context) (drbdstate.Resource, bool, error) {
	r, found, err := a.reader.Read(ctx, a.name)
	switch {
	case err == nil:
		return r, found, nil
	case errors.Is(err, drbdstate.ErrUnknownVersion):
		return r, false, a.fail(ocf.NotInstalled, err.Error(), "", "load a drbd module that this agent knows")
	}
	e := a.fail(ocf.Failed, "the state cannot be read", "", "look at /proc/drbd and drbdsetup status")
	e.Err = err
	return r, false, e
}

// events runs drbdsetup events2 --now. A drbdsetup that hangs in the kernel cannot be killed, so
// as long as one of an earlier call is still there no other is started beside it.
func (a *agent) events(ctx context.Context, args ...string) ([]byte, error) {
	done, err := a.single(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	res, err := a.runner.Run(ctx, "drbdsetup", append([]string{"events2", "--now"}, args...)...)
	return res.Stdout, err
}

// drbdsetup runs a command that changes the kernel's state, without any configuration file.
func (a *agent) drbdsetup(ctx context.Context, args ...string) error {
	_, err := a.runner.Run(ctx, "drbdsetup", args...)
	return err
}

// drbdadm runs a command by the configuration files.
func (a *agent) drbdadm(ctx context.Context, args ...string) error {
	_, err := a.runner.Run(ctx, "drbdadm", append([]string{"-c", a.Params.String(parConf)}, args...)...)
	return err
}

// interval is how often a wait looks again. On 8.4 a look costs a read of /proc/drbd, on 9 a child.
func interval(v drbdstate.Version) time.Duration {
	if v.Legacy() {
		return 50 * time.Millisecond
	}
	return 250 * time.Millisecond
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// atMost bounds a wait that must not fail the action: half of the time that is left.
func (a *agent) atMost(ctx context.Context, d time.Duration) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(end)/2)
	}
	return d
}

// await reads the state until enough says so or the time is over; either way the last state is
// returned. An error is one of reading, or ctx's.
func (a *agent) await(ctx context.Context, limit time.Duration, enough func(drbdstate.Resource, bool) bool) (drbdstate.Resource, bool, error) {
	end := time.Now().Add(limit)
	for {
		r, found, err := a.read(ctx)
		if err != nil || enough(r, found) || !time.Now().Before(end) {
			return r, found, err
		}
		if err := pause(ctx, interval(r.Version)); err != nil {
			return r, found, err
		}
	}
}
