package main

import (
	"context"
	"fmt"
	"time"

	"baton/agents/internal/drbdstate"
	"baton/agents/internal/pacemaker"
	"baton/ocf"
)

// monitor reads the kernel's state and changes nothing of it. It also keeps the promotion score
// and the node attribute, which are the cluster's records of this state.
func (s system) monitor(ctx context.Context, c *ocf.Call) (ocf.State, error) {
	a := s.agent(c)
	r, found, err := a.read(ctx)
	if err != nil {
		// Unknown is neither stopped nor unpromoted, and must not be a candidate for promotion.
		if !c.Env.Probe {
			a.keepScore(ctx, 0, "the state cannot be read", false)
		}
		return ocf.Stopped, err
	}
	state := stateOf(r, found)
	switch state {
	case ocf.Stopped:
		c.Note("%s: not configured in the kernel; expected a running resource", a.name)
		if !c.Env.Probe { // a probe that finds nothing leaves the score alone: it may be another's start
			a.keepScore(ctx, 0, "stopped", false)
		}
		return state, nil
	case ocf.FailedPromoted:
		c.Note("%s: promoted without access to good data: %v; expected an UpToDate disk here or at a connected peer; "+
			"look for disk errors in the kernel's log", a.name, r)
	case ocf.Running, ocf.Promoted, ocf.DegradedRunning, ocf.DegradedPromoted:
		c.Note("%v", r)
	}
	if r, err = a.agreed(ctx, r); err != nil {
		return ocf.Stopped, err
	}
	a.learn(r)
	a.publish(ctx, r, c.Env.Probe)
	return state, a.watchSplit(ctx, r)
}

// heartbeatMonitor answers status of haresources: held means promoted here.
func (s system) heartbeatMonitor(ctx context.Context, c *ocf.Call) (ocf.State, error) {
	a := s.agent(c)
	r, found, err := a.read(ctx)
	if err != nil {
		return ocf.Stopped, err
	}
	a.learn(r)
	if state := stateOf(r, found); state == ocf.Promoted || state == ocf.FailedPromoted {
		return state, nil
	}
	return ocf.Stopped, nil
}

// publish sets the promotion score by a state that was read.
func (a *agent) publish(ctx context.Context, r drbdstate.Resource, force bool) {
	if !a.clustered() {
		return
	}
	t := trust{doubts: a.doubts()}
	n, why := score(r, a.scores, t)
	t.fenced = true
	if with, words := score(r, a.scores, t); with != n && a.fenced(ctx, r) {
		n, why = with, words
	}
	a.keepScore(ctx, n, why, force)
}

// clustered: only a cluster's call speaks of a resource that has a promotion score.
func (a *agent) clustered() bool { return a.Env.Caller == ocf.Cluster }

// agreed waits a moment for DRBD 9 to find out that it lost nothing with a Primary, rather than take
// the score away in the middle of that.
func (a *agent) agreed(ctx context.Context, r drbdstate.Resource) (drbdstate.Resource, error) {
	if r.Version.Legacy() || !undecided(r) {
		return r, nil
	}
	r, _, err := a.await(ctx, a.atMost(ctx, time.Second), func(r drbdstate.Resource, _ bool) bool { return !undecided(r) })
	return r, err
}

// fenced asks the driver whether it makes sure of its peers before it promotes without them, by a
// fence-peer handler or by quorum. What cannot be found out counts as no, also where the driver
// hangs: its answer is not worth a monitor.
func (a *agent) fenced(ctx context.Context, r drbdstate.Resource) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	done, err := a.single(ctx)
	if err != nil {
		a.Log.Warn("fencing policy not known, taken as none: " + err.Error())
		return false
	}
	defer done()
	res, err := a.runner.Run(ctx, "drbdsetup", "show", a.name)
	if err != nil {
		a.Log.Warn("fencing policy not known, taken as none: " + err.Error())
		return false
	}
	return drbdstate.ParseFencing(res.Stdout) != "dont-care" ||
		guards(drbdstate.ParseQuorum(res.Stdout), len(r.Peers)+1)
}

// keepScore brings the score into the cluster. It never fails the action: a cluster that does not
// answer is logged, and the next call tries again.
func (a *agent) keepScore(ctx context.Context, n int, why string, force bool) {
	if !a.clustered() {
		return
	}
	ctx, tools, done := a.ask(ctx)
	written, err := tools.KeepScore(ctx, a.ledger, n, force)
	done()
	switch {
	case pacemaker.NoCluster(err):
		a.Log.Debug("no promotion score: " + err.Error())
	case err != nil:
		a.Log.Warn(fmt.Sprintf("promotion score %d (%s) may not be set: %v", n, why, err))
	case written:
		a.Log.Info(fmt.Sprintf("%s: promotion score %d (%s)", a.name, n, why))
	}
}

// ask gives what a question to the cluster needs. All of one action's share a limit, so that a
// cluster that hangs delays the action by it once: at most a third of the time that is left. What
// comes after the limit was used up still gets a moment: where it fails, the ledger knows.
func (a *agent) ask(ctx context.Context) (asking context.Context, tools pacemaker.Tools, done func()) {
	const least = 100 * time.Millisecond
	limit := pacemaker.DefaultLimit
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)/3)
	}
	limit = max(limit-a.asked, least)
	begin := time.Now()
	asking, cancel := context.WithTimeout(ctx, limit)
	tools = a.tools
	tools.Limit = limit
	return asking, tools, func() {
		cancel()
		a.asked += time.Since(begin)
	}
}
