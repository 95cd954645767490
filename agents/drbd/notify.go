package main

import (
	"context"
	"slices"

	"baton/agents/internal/drbdstate"
	"baton/ocf"
)

// notify is told of what happens to the other instances. Its answer is ignored by the cluster, so
// it only does what helps and can lose nothing: it keeps the score up to date, and after another
// node has started it makes the link again where this node gave it up. That is a plain connect;
// with DRBD's default policies (after-sb-*: disconnect) a split brain stays a split brain by it.
func (s system) notify(ctx context.Context, c *ocf.Call, n ocf.Notification) error {
	if n.Type != "post" {
		return nil
	}
	a := s.agent(c)
	r, found, err := a.read(ctx)
	if err != nil {
		return err
	}
	if stateOf(r, found) == ocf.Stopped {
		return nil
	}
	if n.Operation == "start" {
		a.learn(r) // before the link is made again, which hides that it was given up
		if anyAlone(r) && otherStarted(n, c.Env.Node) {
			r = a.reconnect(ctx, r)
			a.learn(r)
		}
	}
	// The start of another node is told even by a node that is to be promoted: that node's score comes
	// between, and the cluster calculates anew, by the scores of both.
	if n.Operation == "start" || !promotes(n, c.Env.Node) {
		a.publish(ctx, r, false)
	}
	return nil
}

// promotes: the cluster has decided for this node already; see promote about its score.
func promotes(n ocf.Notification, here string) bool {
	return slices.ContainsFunc(n.Promote, func(i ocf.Instance) bool { return i.Node == here })
}

// otherStarted: this node's own start connects by itself.
func otherStarted(n ocf.Notification, here string) bool {
	return slices.ContainsFunc(n.Start, func(i ocf.Instance) bool { return i.Node != here })
}

// reconnect makes the link again, without giving up anything.
func (a *agent) reconnect(ctx context.Context, r drbdstate.Resource) drbdstate.Resource {
	a.Log.Info(a.name + ": StandAlone, and the peer has started: connecting again")
	if err := a.drbdadm(ctx, "connect", a.name); err != nil {
		a.Log.Warn(a.name + ": drbdadm connect: " + complaint(err))
		return r
	}
	a.Waiting("the peer of %s to connect", a.name)
	after, found, err := a.await(ctx, a.atMost(ctx, a.Params.Seconds(parWait)), func(r drbdstate.Resource, _ bool) bool {
		return alone(r) || linked(r) && !settling(r)
	})
	if err != nil || !found {
		return r
	}
	return after
}
