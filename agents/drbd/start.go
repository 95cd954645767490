package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"baton/agents/internal/drbdstate"
	"baton/agents/internal/pacemaker"
	"baton/ocf"
)

// settleLimit is how long a disk may take to attach: the driver reads its activity log and bitmap.
const settleLimit = 60 * time.Second

// start brings the resource up as unpromoted and waits for its peer, so that a promotion that may
// follow at once knows whose data is newer.
func (s system) start(ctx context.Context, c *ocf.Call) error {
	a := s.agent(c)
	r, err := a.up(ctx)
	if err != nil {
		return err
	}
	if a.Params.String(parSplit) == splitDiscard {
		r = a.recover(ctx, r)
	}
	a.learn(r)
	a.publish(ctx, r, true)
	if err := a.watchSplit(ctx, r); err != nil {
		a.Log.Warn(err.Error()) // what a monitor would fail for is no reason to refuse a start
	}
	return nil
}

// up is start without its words to the cluster.
func (a *agent) up(ctx context.Context) (drbdstate.Resource, error) {
	none := drbdstate.Resource{Name: a.name}
	if err := a.module(ctx); err != nil {
		return none, err
	}
	r, found, err := a.read(ctx)
	if err != nil {
		return none, err
	}
	if found && r.AnyPrimary() {
		// Nobody starts what is promoted; after a start the cluster relies on unpromoted.
		if r, err = a.toSecondary(ctx, demotePatience); err != nil {
			return none, err
		}
	}
	if what := startPlan(r, found); what != nothing {
		if err := a.configure(ctx, what, r); err != nil {
			return none, err
		}
	}
	return a.settled(ctx)
}

// module loads the driver if it is missing and checks its version.
func (a *agent) module(ctx context.Context) error {
	version, err := a.reader.Version()
	if errors.Is(err, drbdstate.ErrNoModule) {
		a.Waiting("modprobe drbd")
		if _, merr := a.runner.Run(ctx, "modprobe", "-s", "drbd"); merr != nil {
			e := a.fail(ocf.NotInstalled, "the drbd module cannot be loaded", "", "install the module for the running kernel")
			e.Err = merr
			return e
		}
		version, err = a.reader.Version()
	}
	switch {
	case errors.Is(err, drbdstate.ErrUnknownVersion):
		return a.fail(ocf.NotInstalled, err.Error(), "", "load a drbd module that this agent knows")
	case err != nil:
		e := a.fail(ocf.Failed, "/proc/drbd cannot be read", "", "")
		e.Err = err
		return e
	}
	least, lerr := drbdstate.ParseVersion(a.Params.String(parVersionGE))
	below, berr := drbdstate.ParseVersion(a.Params.String(parVersionLT))
	if lerr == nil && berr == nil && (version.Compare(least) < 0 || version.Compare(below) >= 0) {
		return a.fail(ocf.NotInstalled, "the drbd module is "+version.String(),
			fmt.Sprintf("at least %v and below %v", least, below), "load another module or change "+parVersionGE+"/"+parVersionLT)
	}
	return nil
}

// configure lets drbdadm bring the kernel to what the configuration files say. It only runs while
// this node is Secondary.
//
// On a machine under load a child of drbdadm can outlast drbdadm's own alarm of five seconds: the
// kernel goes on with what it was asked, while drbdadm gives up. So the kernel is looked at again,
// and what is still missing is asked for again, until the deadline.
func (a *agent) configure(ctx context.Context, what plan, r drbdstate.Resource) error {
	conf := a.Params.String(parConf)
	if _, err := os.Stat(filepath.Join(a.sys.root, conf)); errors.Is(err, fs.ErrNotExist) {
		return a.fail(ocf.NotInstalled, conf+" does not exist", "DRBD's configuration", "install it on this node or correct "+parConf)
	}
	for what != nothing {
		verb := "up"
		if what == adjust {
			verb = "adjust"
			a.Log.Info(fmt.Sprintf("%s: only partly up, adjusting: %v", a.name, r))
		}
		a.Waiting("drbdadm %s %s", verb, a.name)
		err := a.drbdadm(ctx, verb, a.name)
		switch {
		case err == nil:
			return nil
		case ended(ctx, err):
			return err
		case !alarmed(err):
			return a.fail(ocf.Failed, "drbdadm "+verb+": "+complaint(err), "", "correct it (drbdadm -d adjust "+a.name+" must be silent)"+a.again())
		}
		a.Log.Warn(a.name + ": drbdadm " + verb + ": " + complaint(err) + "; looking again")
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		var found bool
		if r, found, err = a.read(ctx); err != nil {
			return err
		}
		what = startPlan(r, found)
	}
	return nil
}

// settled waits until the local disks have attached, which they must, and until the peer is
// connected, for which wfc_timeout is allowed.
func (a *agent) settled(ctx context.Context) (drbdstate.Resource, error) {
	a.Waiting("the local disk of %s to attach", a.name)
	r, found, err := a.await(ctx, settleLimit, func(r drbdstate.Resource, found bool) bool {
		return !found || !attaching(r)
	})
	if err != nil {
		return r, err
	}
	if !found || !r.Configured() {
		return r, a.fail(ocf.Failed, "not in the kernel after drbdadm up", "a configured resource", "look at the kernel's log")
	}
	for _, v := range r.Volumes {
		if v.Disk == drbdstate.Diskless && !v.Client || v.Disk == drbdstate.FailedDisk || attachingDisk(v.Disk) {
			return r, a.fail(ocf.Failed, fmt.Sprintf("the disk of volume %d is %s after attaching it", v.Number, v.Disk),
				"a disk with data", "look for disk errors in the kernel's log and mend the disk"+a.again())
		}
	}
	wait := a.atMost(ctx, a.Params.Seconds(parWait))
	if wait <= 0 {
		return r, nil
	}
	a.Waiting("the peer of %s to connect", a.name)
	r, _, err = a.await(ctx, wait, func(r drbdstate.Resource, _ bool) bool {
		return alone(r) || linked(r) && !settling(r)
	})
	return r, err
}

// again is how a start that failed is tried once more: the cluster has stopped what was left of it,
// and starts it here no more before that.
func (a *agent) again() string {
	if !a.clustered() {
		return ", and start it again"
	}
	return ", then: crm_resource --cleanup --resource " + pacemaker.BaseName(a.Env.Instance) + " --node " + a.Env.Node
}

// attaching: a disk in Negotiating waits for the peer, which the second wait is for.
func attaching(r drbdstate.Resource) bool {
	for _, v := range r.Volumes {
		if attachingDisk(v.Disk) {
			return true
		}
	}
	return false
}

func attachingDisk(d drbdstate.Disk) bool { return d == drbdstate.Attaching }

// reload puts changed scores and the like into effect. It never adjusts the resource.
func (s system) reload(ctx context.Context, c *ocf.Call) error {
	a := s.agent(c)
	r, found, err := a.read(ctx)
	if err != nil {
		return err
	}
	if stateOf(r, found) != ocf.Stopped {
		a.publish(ctx, r, true)
	}
	return nil
}
