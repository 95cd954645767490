package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"baton/agents/internal/drbdstate"
	"baton/ocf"
)

const (
	// demotePatience is how long a demotion waits for a device that is held open: what probes
	// devices (udev, multipath, lvm) lets go within a second or two, and an unmount that is still
	// on its way within some more. A failed demotion is followed by a stop, which waits longer.
	demotePatience = 20 * time.Second
	// noLimit leaves the end to the action's deadline: a failed stop gets the node fenced.
	noLimit = 24 * time.Hour
)

// demote makes this node Secondary and does nothing else: it stays connected.
func (s system) demote(ctx context.Context, c *ocf.Call) error {
	a := s.agent(c)
	r, found, err := a.read(ctx)
	if err != nil {
		return err
	}
	if stateOf(r, found) == ocf.Stopped {
		if c.Env.Caller == ocf.Heartbeat {
			return nil // stop of what does not run
		}
		return a.fail(ocf.Failed, "not started", "a promoted or unpromoted resource", "")
	}
	if !r.AnyPrimary() {
		return nil
	}
	r, err = a.toSecondary(ctx, demotePatience)
	if err != nil {
		return err
	}
	a.publish(ctx, r, false)
	return nil
}

// toSecondary demotes by the kernel's state alone, and verifies it.
func (a *agent) toSecondary(ctx context.Context, patience time.Duration) (drbdstate.Resource, error) {
	end := time.Now().Add(patience)
	wait := 50 * time.Millisecond
	var before error // the last answer of the kernel, which says more than a deadline does
	for {
		r, found, err := a.read(ctx)
		if err != nil {
			if ocf.KindOf(err) == ocf.NotInstalled || !time.Now().Before(end) || pause(ctx, wait) != nil {
				return r, err
			}
			wait = min(2*wait, time.Second)
			continue
		}
		if !found || !r.AnyPrimary() {
			return r, nil
		}
		err = a.secondary(ctx, r)
		if err == nil {
			continue // the next look must find it Secondary
		}
		if ended(ctx, err) {
			return r, a.refused(r, cmp.Or(before, err))
		}
		before = err
		if v, _ := judge(err); v != passing && v != heldOpen || !time.Now().Before(end) {
			return r, a.refused(r, err)
		}
		a.Waiting("%s", a.holdup(r))
		if pause(ctx, wait) != nil {
			return r, a.refused(r, err)
		}
		wait = min(2*wait, time.Second)
	}
}

func (a *agent) secondary(ctx context.Context, r drbdstate.Resource) error {
	if !r.Version.Legacy() {
		return a.drbdsetup(ctx, "secondary", a.name)
	}
	for _, v := range r.Volumes {
		if v.Role != drbdstate.Primary {
			continue
		}
		if err := a.drbdsetup(ctx, "secondary", strconv.Itoa(v.Minor)); err != nil {
			return err
		}
	}
	return nil
}

// refused is the error of a demotion or stop that the kernel refuses, with the holder's name
// first: Pacemaker shows 128 characters.
func (a *agent) refused(r drbdstate.Resource, err error) error {
	v, words := judge(err)
	if v == heldOpen {
		return a.fail(ocf.Failed, a.holdup(r), "a device that nothing uses", "end it; DRBD says: "+words)
	}
	e := a.fail(ocf.Failed, words, "Secondary", "look at drbdsetup status and the kernel's log")
	if v == unclear {
		e.Found, e.Err = "drbdsetup did not finish", err
	}
	return e
}

// stop takes the resource out of the kernel and succeeds only when it is gone.
func (s system) stop(ctx context.Context, c *ocf.Call) error {
	a := s.agent(c)
	r, found, err := a.read(ctx)
	switch {
	case err != nil && ocf.KindOf(err) == ocf.NotInstalled:
		return err
	case err == nil && !found:
		a.sweep(ctx)
		a.gone(ctx)
		return nil
	case err == nil && r.AnyPrimary():
		if r, err = a.toSecondary(ctx, noLimit); err != nil {
			return err
		}
	}
	// The cluster is told meanwhile: both take most of their time waiting, and what is being stopped
	// is no candidate any more, whatever comes of it.
	told := make(chan struct{})
	go func() {
		defer close(told)
		a.gone(ctx)
	}()
	// Where the state could not be read, "down" is still right: the kernel refuses it as long as
	// anything uses the device, and afterwards the state must be readable and say that it is gone.
	err = a.down(ctx, r)
	<-told
	return err
}

// gone takes back what the cluster was told of the resource. What is known of its link goes too: a
// stopped resource has none, and the next start finds out anew.
func (a *agent) gone(ctx context.Context) {
	a.keepScore(ctx, 0, "stopped", true)
	a.keepAttribute(ctx, "")
}

// sweep removes what a start that failed early can leave behind: a resource without volumes, which
// /proc/drbd does not show. Where there is none, drbdsetup says so, and nothing is wrong.
func (a *agent) sweep(ctx context.Context) {
	if _, err := a.reader.Version(); err != nil {
		return // without the module drbdsetup would load it
	}
	if err := a.drbdsetup(ctx, "down", a.name); err != nil {
		a.Log.Debug(err.Error())
	}
}

func (a *agent) down(ctx context.Context, r drbdstate.Resource) error {
	wait := 50 * time.Millisecond
	var before error // as in toSecondary
	var unread error // why the state was not known at the last look
	for {
		a.Waiting("drbdsetup down %s", a.name)
		err := a.drbdsetup(ctx, "down", a.name)
		if ended(ctx, err) {
			if unread != nil {
				return unread
			}
			return a.refused(r, cmp.Or(before, err))
		}
		before = err
		now, found, rerr := a.read(ctx)
		unread = rerr
		switch {
		case rerr != nil && ocf.KindOf(rerr) == ocf.NotInstalled:
			return rerr
		case rerr != nil:
			// A failed stop gets the node fenced; what hinders a look may pass before that.
			a.Waiting("the state of %s to be readable: %v", a.name, rerr)
			if pause(ctx, wait) != nil {
				return rerr
			}
			wait = min(2*wait, time.Second)
			continue
		case !found:
			return nil
		case err == nil:
			err = fmt.Errorf("still there after drbdsetup down: %v", now)
		}
		if v, _ := judge(err); v == permanent {
			return a.refused(now, err)
		}
		a.Waiting("%s", a.holdup(now))
		if pause(ctx, wait) != nil {
			return a.refused(now, err)
		}
		wait = min(2*wait, time.Second)
	}
}
