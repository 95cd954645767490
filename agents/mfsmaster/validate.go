package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// validate looks at everything that a start depends on, and changes nothing.
func validate(ctx context.Context, c *ocf.Call) []ocf.Problem {
	a, err := newAgent(c)
	if err != nil {
		return []ocf.Problem{problem("config", err)}
	}
	var found []ocf.Problem
	add := func(param string, err error) {
		if err != nil {
			found = append(found, problem(param, err))
		}
	}
	warn := func(param, what, expected, do string) {
		found = append(found, ocf.Problem{Param: param, Warning: true, Found: what, Expected: expected, Do: do})
	}
	_, err = a.method(ctx)
	add("binary", err)
	if a.mode == modeMetaloggers {
		if _, err := a.run.Look(c.Params.String("metalogger_binary")); err != nil {
			add("metalogger_binary", &ocf.Error{Kind: ocf.NotInstalled, Found: err.Error(), Do: "install moosefs-metalogger"})
		}
	}
	_, err = a.owner()
	add("config", err)
	add("durability", a.checkDurability())
	exports := a.config.Get("EXPORTS_FILENAME", "/etc/mfs/mfsexports.cfg")
	if _, err := os.Stat(exports); err != nil {
		add("config", &ocf.Error{Kind: ocf.NotInstalled, Object: exports, Err: err, Expected: "the exports, without which mfsmaster does not start", Do: "create it on this node"})
	}
	for _, line := range a.config.Ignored {
		warn("config", fmt.Sprintf("MooseFS ignores the line %q", line), "NAME = VALUE", "correct it")
	}
	if err := a.onItsMount(); err != nil {
		// Not to have the device at the moment is the normal state of the node that does not serve.
		warn("data_dir", err.Error(), "", "")
	} else if err := a.usable(a.dataDir); err != nil {
		add("data_dir", err)
	}
	if a.unitEnabled() {
		warn("", "the unit moosefs-master is enabled", "only the cluster to start the master", "systemctl disable --now moosefs-master on all nodes")
	}
	if inv, err := mfsmeta.List(a.dataDir); err == nil {
		if _, ok := inv.Base("metadata.mfs.empty"); ok {
			warn("data_dir", "it holds the package's metadata.mfs.empty", "no file from which mfsmaster -a would start an empty file system", "remove it")
		}
	}
	return found
}

func problem(param string, err error) ocf.Problem {
	p := ocf.Problem{Param: param, Found: err.Error()}
	var e *ocf.Error
	if errors.As(err, &e) {
		p = ocf.Problem{Param: param, Kind: e.Kind, Found: e.Found, Expected: e.Expected, Do: e.Do}
		if e.Object != "" {
			p.Found = e.Object + ": " + e.Found
		}
		if e.Err != nil {
			p.Found += ": " + e.Err.Error()
		}
	}
	return p
}

// unitEnabled looks for the link by which systemd starts Debian's or upstream's unit at boot.
func (a *agent) unitEnabled() bool {
	links, err := filepath.Glob(filepath.Join(a.root, "etc/systemd/system/*.wants/moosefs-master*.service"))
	return err == nil && len(links) > 0
}
