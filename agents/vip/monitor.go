package main

import (
	"context"
	"errors"

	"baton/agents/internal/addresses"
	"baton/ocf"
)

// monitor answers from two or three netlink messages. A recurring one also keeps
// the record of connections and, if asked to, announces the address again;
// neither decides the answer.
func (a agent) monitor(ctx context.Context, c *ocf.Call) (ocf.State, error) {
	cfg, err := a.enter(c)
	if err != nil {
		// Without the namespace there is no address in it.
		if errors.Is(err, errNotExist) && c.Env.Probe {
			return ocf.Stopped, nil
		}
		return ocf.Stopped, asFailed(err)
	}
	h, err := look(cfg)
	if err != nil {
		return ocf.Stopped, kernelError(cfg, err)
	}
	v, e := judge(cfg, h)
	found, expected := describe(cfg, h, v, e)
	switch v {
	case absent, elsewhere:
		if cfg.nic != "" && h.nic == nil && !c.Env.Probe {
			// 1, as IPaddr2 answers: the cluster sees an error here, not a missing address.
			return ocf.Stopped, &ocf.Error{
				Object: cfg.ip.String(), Found: found, Expected: expected, Do: "check the hardware and its driver, or correct nic",
			}
		}
		c.Note("%s, expected %s", found, expected)
		return ocf.Stopped, nil
	case otherPrefix, otherLabel:
		return ocf.Stopped, &ocf.Error{Found: found, Expected: expected, Do: "a restart of the resource puts it right"}
	case served:
	}
	if e := unfit(cfg, e); e != nil {
		return ocf.Stopped, e
	}
	c.Note("%s", e.where())
	if !c.Env.Probe && cfg.refresh > 0 {
		if err := announceNow(e, cfg.refresh); err != nil {
			c.Log.Warn("the address was not announced again: " + err.Error())
		}
	}
	// heartbeat knows no recurring monitor; there, status keeps the record.
	if !c.Env.Probe || c.Env.Caller == ocf.Heartbeat {
		a.record(ctx, cfg, c)
	}
	return ocf.Running, nil
}

// unfit says why an address that is there does not serve, nil if it does.
func unfit(cfg config, e entry) error {
	if e.Flags&addresses.FlagDADFailed != 0 {
		return &ocf.Error{
			Object: e.where(), Found: "duplicate address detection failed: another host has the address",
			Expected: "this node to be the only one that has it", Do: "find the other host; is a lost node still running?",
		}
	}
	if err := linkError(cfg, e.link); err != nil {
		return err
	}
	return nil
}

// asFailed keeps an error of a monitor soft: a hard code there bans the resource
// from nodes where nothing is wrong.
func asFailed(err error) error {
	var e *ocf.Error
	if errors.As(err, &e) {
		soft := *e
		soft.Kind = ocf.Failed
		return &soft
	}
	return err
}
