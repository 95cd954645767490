package main

import (
	"context"
	"errors"
	"fmt"

	"baton/agents/internal/addresses"
	"baton/agents/internal/sockdiag"
	"baton/ocf"
)

// stop takes the address off, closes its connections, and then looks whether it
// is gone.
func (a agent) stop(ctx context.Context, c *ocf.Call) error {
	// First of all: after this nobody says any more that the address is here.
	if err := a.endAnnouncer(ctx, c); err != nil {
		return err
	}
	cfg, err := a.enter(c)
	if errors.Is(err, errNotExist) {
		c.Log.Info("nothing to stop: there is no network namespace " + cfg.namespace)
		return nil
	}
	if err != nil {
		return asFailed(err)
	}
	h, err := look(cfg)
	if err != nil {
		return kernelError(cfg, err)
	}
	if left := strays(cfg, h); len(left) > 0 && announcedHere(c, cfg) {
		// Not taken off either: it may be a person's, on an interface that was never this resource's.
		// Where it was never started in this boot, it is: nic is a slip of the pen then, and no reason
		// to have the node fenced.
		e := left[0]
		return &ocf.Error{
			Object: cfg.ip.String(), Found: "interface " + cfg.nic + " does not exist on this node, and " + e.where() + " is there",
			Expected: "the address on " + cfg.nic + " or nowhere",
			Do:       "give " + e.link.Name + " its name back or correct nic; or: ip address del " + e.String() + " dev " + e.link.Name,
		}
	}
	own := ownEntries(cfg, h)
	var stored *pending
	if len(own) > 0 && cfg.tickleDir != "" {
		// While the address is still here and its connections are whole. What follows a stop is the
		// unmounting, which puts all on the disk at once, so here nothing waits for the disk.
		sockets, err := list(cfg)
		if err == nil {
			stored = a.send(ctx, c, cfg, errand{action: storeAction}, content(cfg, sockets))
			defer stored.cancel()
		}
		notRecorded(c, err)
	}
	for _, e := range own {
		if err := (addresses.Remover{Sysctl: a.sysctl}).Remove(e.Addr); err != nil {
			return kernelError(cfg, err)
		}
		c.Log.Info("removed " + e.where())
	}
	if h, err = look(cfg); err != nil {
		return kernelError(cfg, err)
	}
	if left := ownEntries(cfg, h); len(left) > 0 {
		return &ocf.Error{
			Object: cfg.ip.String(), Found: left[0].where() + " is back after its removal", Expected: "it to be gone",
			Do: "look for another program that manages the interface",
		}
	}
	if len(h.entries) > 0 {
		c.Log.Warn(h.entries[0].where() + " is not this resource's and stays")
	} else {
		closeConnections(c, cfg)
	}
	if stored != nil {
		notRecorded(c, stored.wait(c))
	}
	return nil
}

// closeConnections ends what the address has left behind: neither peers nor the
// server here shall hold a half of a connection when the address comes back.
// Without the address no reset reaches the peers; they notice at the next node,
// where a service answers again. It cannot fail a stop: the address is gone.
func closeConnections(c *ocf.Call, cfg config) {
	n, err := sockdiag.DestroyAll(sockdiag.Filter{Local: cfg.ip})
	if n > 0 {
		c.Log.Info(fmt.Sprintf("closed %d TCP connections of %v", n, cfg.ip))
	}
	if err != nil {
		c.Log.Warn("TCP connections of the address may remain until they time out: " + err.Error())
	}
}

// reload puts into effect what is kept outside the parameters: the lifetime of
// the address. The other reloadable parameters are read at each action.
func (a agent) reload(_ context.Context, c *ocf.Call) error {
	cfg, err := a.enter(c)
	if err != nil {
		return err
	}
	h, err := look(cfg)
	if err != nil {
		return kernelError(cfg, err)
	}
	v, e := judge(cfg, h)
	if v != served {
		found, expected := describe(cfg, h, v, e)
		return &ocf.Error{Op: "reload-agent", Found: found, Expected: expected, Do: "start the resource first"}
	}
	if cfg.ip.Is4() || e.Preferred == cfg.preferred {
		return nil
	}
	e.Preferred, e.Valid = cfg.preferred, addresses.Forever
	e.Flags &= addresses.FlagNoDAD | addresses.FlagNoPrefixRoute
	if err := addresses.Update(e.Addr); err != nil {
		return kernelError(cfg, err)
	}
	return nil
}
