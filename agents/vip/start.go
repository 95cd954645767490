package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"baton/agents/internal/addresses"
	"baton/agents/internal/announce"
	"baton/ocf"
)

var errNotExist = fs.ErrNotExist

func (a agent) start(ctx context.Context, c *ocf.Call) error {
	cfg, err := a.enter(c)
	if err != nil {
		return err
	}
	h, err := look(cfg)
	if err != nil {
		return kernelError(cfg, err)
	}
	v, e := judge(cfg, h)
	if v == served && e.Flags&addresses.FlagDADFailed == 0 {
		return a.startAgain(ctx, c, cfg, e)
	}
	addr, link, err := place(cfg, h)
	if err != nil {
		return err
	}
	if v == elsewhere && !e.link.IsLoopback() {
		return &ocf.Error{
			Object: cfg.ip.String(), Found: "is already on " + e.link.Name + " of this node (" + e.String() + ")",
			Expected: "the address on " + link.Name + " or nowhere", Do: "correct nic, or: ip address del " + e.String() + " dev " + e.link.Name,
		}
	}
	var fetched *pending
	if cfg.tickleDir != "" { // while the network is asked
		fetched = a.send(ctx, c, cfg, errand{action: fetchAction}, nil)
		defer fetched.cancel()
	}
	link, err = waitForLink(ctx, c, cfg, link)
	if err != nil {
		return err
	}
	if err := a.clear(c, cfg, h); err != nil {
		return err
	}
	if err := askForHolder(ctx, c, cfg, link); err != nil {
		return err
	}
	if err := a.add(ctx, c, cfg, addr, link); err != nil {
		return err
	}
	placed := entry{Addr: addr, link: link}
	c.Log.Info("added " + placed.where())
	return a.tell(ctx, c, cfg, placed, fetched)
}

// startAgain is a start of what is there already: it must be fit to serve.
func (a agent) startAgain(ctx context.Context, c *ocf.Call, cfg config, e entry) error {
	link, err := waitForLink(ctx, c, cfg, e.link)
	if err != nil {
		return err
	}
	e.link = link
	if err := waitForDAD(ctx, c, cfg, e); err != nil {
		return err
	}
	c.Log.Info(e.where() + " is there already")
	if !e.link.CanAnnounce() {
		return nil
	}
	if err := announceNow(e, 1); err != nil {
		c.Log.Warn("the address was not announced: " + err.Error())
	}
	return nil
}

// carrierWait is how long a start waits for a link that has just been set up.
// A failed start bans the resource from the node by default, and negotiation of
// a copper link takes one to three seconds.
const carrierWait = 4 * time.Second

// waitForLink waits for the interface's carrier, woken by the kernel's events.
func waitForLink(ctx context.Context, c *ocf.Call, cfg config, link addresses.Link) (addresses.Link, error) {
	bad := linkError(cfg, link)
	if bad == nil {
		return link, nil
	}
	if link.Flags&unix.IFF_UP == 0 {
		return link, bad // nobody is about to bring it up
	}
	c.Waiting("the carrier of %s", link.Name)
	defer c.Waiting("")
	limited, cancel := context.WithTimeout(ctx, carrierWait)
	defer cancel()
	err := addresses.Wait(limited, func() (bool, error) {
		now, err := addresses.LinkByIndex(link.Index)
		if err != nil {
			return false, err
		}
		link = now
		bad = linkError(cfg, link)
		return bad == nil, nil
	})
	switch {
	case err == nil:
		return link, nil
	case errors.Is(err, context.DeadlineExceeded) && bad != nil:
		return link, bad
	}
	return link, kernelError(cfg, err)
}

// clear takes off this resource's interface what stands in the way of the
// address: itself in another form, or after a failed duplicate address detection.
func (a agent) clear(c *ocf.Call, cfg config, h host) error {
	for _, e := range ownEntries(cfg, h) {
		c.Log.Warn("replaced: " + e.where() + ", which is not as configured")
		if err := (addresses.Remover{Sysctl: a.sysctl}).Remove(e.Addr); err != nil {
			return kernelError(cfg, err)
		}
	}
	return nil
}

// askForHolder refuses the address when another host answers for it. Where the
// kernel's duplicate address detection will ask, it is left to that.
func askForHolder(ctx context.Context, c *ocf.Call, cfg config, link addresses.Link) error {
	if !cfg.probe || !link.CanAnnounce() || link.Trouble() != "" || cfg.ip.Is6() && !cfg.nodad {
		return nil
	}
	c.Waiting("an answer of another holder of %v on %s", cfg.ip, link.Name)
	defer c.Waiting("")
	timing := announce.Timing{Count: 3, Wait: cfg.conflictWait}
	conflict, err := announce.Probe(ctx, announceOn(link), cfg.ip, timing)
	if err != nil {
		return kernelError(cfg, err)
	}
	if conflict != nil {
		return conflictError(cfg, link, conflict)
	}
	return nil
}

func announceOn(link addresses.Link) announce.Interface {
	return announce.Interface{Index: link.Index, HardwareAddr: link.HardwareAddr}
}

func conflictError(cfg config, link addresses.Link, conflict *announce.Conflict) error {
	e := &ocf.Error{
		Object: cfg.ip.String(), Expected: "no other host with it",
		Do: "find that host (a lost node that still runs, or a wrong configuration); run_arping=false skips the question",
	}
	switch {
	case conflict == nil:
		e.Found = "another host on " + link.Name + " has it (duplicate address detection)"
	case conflict.Probing:
		e.Found = fmt.Sprintf("host %v on %s is taking it at this moment", conflict.HardwareAddr, link.Name)
	default:
		e.Found = fmt.Sprintf("host %v on %s has it already", conflict.HardwareAddr, link.Name)
	}
	if cfg.ip.Is6() && !cfg.nodad {
		e.Do = "find that host (a lost node that still runs, or a wrong configuration)"
	}
	return e
}

// add puts the address on the interface and returns when it is usable.
func (a agent) add(ctx context.Context, c *ocf.Call, cfg config, addr addresses.Addr, link addresses.Link) error {
	var watch *announce.Watch
	if addr.IP.Is6() && !cfg.nodad && link.CanAnnounce() {
		// The kernel tells that detection failed, but not who has the address.
		var err error
		if watch, err = announce.NewWatch(announceOn(link), addr.IP); err != nil {
			return kernelError(cfg, err)
		}
		defer watch.Close()
	}
	// Named before the address is there: whoever ends this call from then on reads what it was at.
	c.Waiting("duplicate address detection of %s", entry{Addr: addr, link: link}.where())
	defer c.Waiting("")
	if err := addresses.Add(addr); err != nil && !errors.Is(err, unix.EEXIST) {
		if errors.Is(err, unix.EACCES) && addr.IP.Is6() {
			// net/ipv6/addrconf.c: IPv6 is switched off on the interface.
			return &ocf.Error{
				Object: addr.String(), Found: "IPv6 is disabled on " + link.Name, Err: err,
				Do: "sysctl net.ipv6.conf." + link.Name + ".disable_ipv6=0",
			}
		}
		return kernelError(cfg, err)
	}
	err := waitForDAD(ctx, c, cfg, entry{Addr: addr, link: link})
	var dad *dadError
	if !errors.As(err, &dad) {
		return err
	}
	if err := (addresses.Remover{Sysctl: a.sysctl}).Remove(addr); err != nil {
		return kernelError(cfg, err)
	}
	var conflict *announce.Conflict
	if watch != nil {
		// The packet that made detection fail has arrived; it need only be read.
		timer := time.NewTimer(200 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-watch.Done():
		case <-timer.C:
		}
		conflict = watch.Conflict()
	}
	return conflictError(cfg, link, conflict)
}

// dadError is a failed duplicate address detection.
type dadError struct{ where string }

func (e *dadError) Error() string {
	return e.where + ": duplicate address detection failed; expected no other host with the address"
}

// waitForDAD waits until the address is not tentative any more, woken by the
// kernel's events. IPv4 addresses are usable at once.
func waitForDAD(ctx context.Context, c *ocf.Call, cfg config, e entry) error {
	c.Waiting("duplicate address detection of %s", e.where())
	defer c.Waiting("")
	err := addresses.Wait(ctx, func() (bool, error) {
		found, err := addresses.Find(e.IP)
		if err != nil {
			return false, err
		}
		for _, a := range found {
			if a.Index != e.Index || a.Bits != e.Bits {
				continue
			}
			if a.Flags&addresses.FlagDADFailed != 0 {
				return false, &dadError{e.where()}
			}
			return !a.IP.Is6() || a.Flags&addresses.FlagTentative == 0, nil
		}
		return false, &ocf.Error{
			Object: e.where(), Found: "the address has vanished again", Expected: "it to stay",
			Do: "look for another program that manages the interface",
		}
	})
	var own *ocf.Error
	var dad *dadError
	if err == nil || errors.As(err, &own) || errors.As(err, &dad) || ctx.Err() != nil {
		return err
	}
	return kernelError(cfg, err)
}
