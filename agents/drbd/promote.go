package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"baton/agents/internal/drbdstate"
	"baton/ocf"
)

const (
	// promotePatience is how long refusals that can pass by themselves are retried. The kernel
	// itself pings a peer that still looks Primary and waits for it (drbd_set_role: 0.6 s twice);
	// 10 s is one ping-int, after which a dead peer is known to be dead.
	promotePatience = 10 * time.Second
	// agreePatience is how long the nodes that are left may take to agree that they lost nothing with
	// a Primary (DRBD 9); drbd_set_role waits for the same.
	agreePatience = 3 * time.Second
	// retryAfter is the pause between two tries.
	retryAfter = 300 * time.Millisecond
)

// promote makes this node Primary by a plain "primary". Nothing is ever forced: what the kernel
// refuses for want of good data fails at once, so that the cluster can try another node. The score,
// which has just been followed, is left to the monitor that the cluster runs next: a change of it in
// the middle of a move costs a process and a new calculation of the cluster while clients wait.
func (s system) promote(ctx context.Context, c *ocf.Call) error {
	return s.agent(c).toPrimary(ctx)
}

func (a *agent) toPrimary(ctx context.Context) error {
	end := time.Now().Add(promotePatience)
	agreement := time.Now().Add(agreePatience)
	for tries := 1; ; tries++ {
		a.Waiting("the disks of %s to settle", a.name)
		r, found, err := a.await(ctx, time.Until(end), func(r drbdstate.Resource, found bool) bool {
			agreeing := !r.Version.Legacy() && undecided(r) && time.Now().Before(agreement)
			return !found || r.AllPrimary() || !settling(r) && !agreeing
		})
		switch {
		case err != nil:
			return err
		case stateOf(r, found) == ocf.Stopped:
			return a.fail(ocf.Failed, "not started", "an unpromoted resource", "start it first")
		case r.AllPrimary():
			return nil
		}
		a.learn(r)
		t := trust{doubts: a.doubts()}
		t.fenced = (anyAlone(r) || len(t.doubts) > 0) && a.fenced(ctx, r)
		if why := refusal(r, a.scores.consistent > 0, t); why != "" {
			do := `see docs/drbd.md, "A promotion is refused"`
			if len(t.doubts) > 0 {
				do = a.decide(r)
			}
			return a.fail(ocf.Failed, why, "UpToDate data", do)
		}
		a.Waiting("drbdsetup primary; DRBD's fence-peer handler runs inside it")
		err = a.primary(ctx, r)
		if err == nil {
			return a.promoted(ctx)
		}
		if ended(ctx, err) {
			return err
		}
		v, words := judge(err)
		early := a.Params.Bool(parEarly) && r.AnyPeer(func(p drbdstate.Peer) bool { return p.Role == drbdstate.Primary })
		if v != passing || early || !time.Now().Before(end) {
			return a.fail(ocf.Failed, words, "UpToDate data and no other Primary",
				fmt.Sprintf("DRBD refused %d times; state: %v", tries, r))
		}
		a.Log.Debug(fmt.Sprintf("try %d: %s", tries, words))
		if err := pause(ctx, retryAfter); err != nil {
			return err
		}
	}
}

// primary asks for the role. In 8.4 each volume has a role of its own: where one is refused, those
// that this call promoted go back, so that a refused promotion leaves nothing behind.
func (a *agent) primary(ctx context.Context, r drbdstate.Resource) error {
	if !r.Version.Legacy() {
		return a.drbdsetup(ctx, "primary", a.name)
	}
	var done []int
	for _, v := range r.Volumes {
		if v.Role == drbdstate.Primary {
			continue
		}
		if err := a.drbdsetup(ctx, "primary", strconv.Itoa(v.Minor)); err != nil {
			for _, minor := range done {
				if undo := a.drbdsetup(ctx, "secondary", strconv.Itoa(minor)); undo != nil {
					a.Log.Warn(fmt.Sprintf("minor %d stays Primary after a refused promotion: %v", minor, undo))
				}
			}
			return err
		}
		done = append(done, v.Minor)
	}
	return nil
}

// promoted verifies what drbdsetup said.
func (a *agent) promoted(ctx context.Context) error {
	r, found, err := a.await(ctx, time.Second, func(r drbdstate.Resource, _ bool) bool { return r.AllPrimary() })
	if err != nil {
		return err
	}
	if !found || !r.AllPrimary() {
		return a.fail(ocf.Failed, "not Primary after a successful drbdsetup primary: "+r.String(), "Primary", "look at the kernel's log")
	}
	return nil
}

// heartbeatStart is the start of haresources: up, and promoted.
//
// A device that the boot brought up has followed its peer until the peer was lost. One that was down
// until now has missed whatever was written meanwhile, but without fencing DRBD takes its copy for
// up to date. So it is promoted only after it has met its peer, or where DRBD knows better of it. A
// refused device stays up. heartbeat asks again by itself (hb_standby after a failed start, half a
// minute later), so that this call was not the first says nothing: the doubt stays until the peer
// was met or a person takes it away.
func (s system) heartbeatStart(ctx context.Context, c *ocf.Call) error {
	a := s.agent(c)
	r, found, err := a.read(ctx)
	if err != nil {
		return err
	}
	if stateOf(r, found) == ocf.Stopped {
		a.Log.Warn(a.name + ": was down and is brought up only now; under heartbeat the boot does that: systemctl enable drbd.service")
		if r, err = a.up(ctx); err != nil {
			return err
		}
		a.doubting(r, doubtDown)
		if err = a.met(ctx, r); err != nil {
			return err
		}
	}
	return a.toPrimary(ctx)
}

// met waits for the peer of a device that was down. By default that is 15 s: nodes that look for each
// other try every ten (connect-int).
func (a *agent) met(ctx context.Context, r drbdstate.Resource) error {
	if !anyUnknown(r) || a.fenced(ctx, r) {
		return nil
	}
	a.Waiting("the peer of %s, which was down here, to connect", a.name)
	patience := a.atMost(ctx, max(3*a.Params.Seconds(parWait), time.Second))
	_, _, err := a.await(ctx, patience, func(r drbdstate.Resource, found bool) bool {
		return !found || alone(r) || !anyUnknown(r)
	})
	return err
}
