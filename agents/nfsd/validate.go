package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"baton/agents/internal/nfsconf"
	"baton/agents/internal/nfsexports"
	"baton/ocf"
)

// rivals are the units of Debian and of the RHEL family that start something of the server, or
// mount its file systems, without the cluster.
var rivals = []string{
	"nfs-server.service", "nfs-kernel-server.service", "nfs.service", "nfs-common.service",
	"nfsdcld.service", "nfs-mountd.service", "rpc-statd.service", "nfsv4-server.service", "nfsv4-exportd.service",
}

// runningUnits are those of the rivals that run.
func (a *agent) runningUnits(ctx context.Context) []string {
	if !a.systemd.Present() {
		return nil
	}
	units, err := a.systemd.Show(ctx, rivals...)
	if err != nil {
		a.Log.Warn(err.Error())
		return nil
	}
	var names []string
	for _, u := range units {
		if u.Exists() && u.Running() {
			names = append(names, u.Name)
		}
	}
	return names
}

// validate looks at this host, and changes nothing.
func (s system) validate(ctx context.Context, c *ocf.Call) []ocf.Problem {
	a := s.agent(c)
	var found []ocf.Problem
	add := func(err error, warning bool) {
		if err == nil {
			return
		}
		p := ocf.Problem{Found: err.Error(), Warning: warning}
		var e *ocf.Error
		if errors.As(err, &e) {
			p = ocf.Problem{
				Param: e.Object, Kind: e.Kind, Warning: warning, Found: e.Found, Expected: e.Expected, Do: e.Do,
			}
			if e.Err != nil {
				p.Found = strings.TrimPrefix(p.Found+": "+e.Err.Error(), ": ")
			}
		}
		found = append(found, p)
	}
	w, err := a.settings()
	add(err, false)
	add(a.haveTools(w), false)
	if err := a.exports(&w); err != nil {
		add(err, false)
	} else {
		// The device may be on the other node just now.
		add(a.haveDirectories(w), true)
	}
	add(a.stateDevice(w), true)
	found = append(found, a.unitProblems(ctx)...)
	found = append(found, a.confProblems()...)
	found = append(found, a.moduleProblem()...)
	found = append(found, a.cautions(w)...)
	return append(found, exportProblems(w)...)
}

func (a *agent) unitProblems(ctx context.Context) []ocf.Problem {
	var found []ocf.Problem
	boot, err := a.systemd.StartedAtBoot(rivals...)
	if err != nil {
		a.Log.Warn(err.Error())
	}
	for _, unit := range boot {
		found = append(found, ocf.Problem{
			Param: unit, Warning: true, Found: "is started by the boot", Expected: "NFS started by the cluster alone",
			Do: "systemctl disable --now " + unit,
		})
	}
	for _, unit := range a.runningUnits(ctx) {
		if !slices.Contains(boot, unit) {
			found = append(found, ocf.Problem{
				Param: unit, Warning: true, Found: "runs", Expected: "NFS started by the cluster alone",
				Do: "systemctl stop " + unit,
			})
		}
	}
	return found
}

// moduleProblem warns of a kernel module that the first start would have to load while clients
// wait. /proc/filesystems lists the types that the kernel has at this moment: "nodev	nfsd".
func (a *agent) moduleProblem() []ocf.Problem {
	text, err := os.ReadFile(a.path("proc/filesystems"))
	if err != nil || strings.Contains(string(text), "\tnfsd\n") {
		return nil
	}
	return []ocf.Problem{{
		Param: "kernel module nfsd", Warning: true, Found: "is not loaded, so the first start on this node takes longer",
		Do: "echo nfsd >/etc/modules-load.d/nfsd.conf; modprobe nfsd",
	}}
}

// confProblems tells what nfs.conf says to the tools that contradicts what the agent does.
func (a *agent) confProblems() []ocf.Problem {
	conf, err := nfsconf.Read(a.sys.root)
	if err != nil {
		return nil // told already
	}
	var found []ocf.Problem
	for _, key := range []struct{ section, key, why string }{
		{"nfsdcld", "storagedir", "is overridden: the agent keeps the database in nfs_shared_infodir"},
		{"statd", "state-directory-path", "is overridden: the agent keeps statd's lists in nfs_shared_infodir"},
		{"nfsd", "host", "is passed over: the agent listens on every address"},
		{"nfsd", "rdma", "is passed over: the agent serves TCP and UDP"},
		{"nfsd", "scope", "is passed over: the agent uses nfs_server_scope, or the scope kept in nfs_shared_infodir"},
	} {
		if v, ok := conf.Get(key.section, key.key); ok && v != "" && v != "n" {
			found = append(found, ocf.Problem{
				Param: fmt.Sprintf("nfs.conf [%s] %s", key.section, key.key), Warning: true, Found: key.why, Do: "remove it",
			})
		}
	}
	return found
}

// cautions are what start logs as well.
func (a *agent) cautions(w settings) []ocf.Problem {
	return append(a.kerberosProblems(w), a.stateProblems(w)...)
}

// kerberosProblems warns of exports that nobody can use: mounts with Kerberos wait for a daemon
// that answers the kernel, which this agent does not start.
func (a *agent) kerberosProblems(w settings) []ocf.Problem {
	i := slices.IndexFunc(w.exports, kerberos)
	if i < 0 {
		return nil
	}
	if pids, err := a.kernel.Named("rpc.svcgssd", "gssproxy"); err != nil || len(pids) > 0 {
		return nil
	}
	return []ocf.Problem{{
		Param: "export of " + w.exports[i].Dir, Warning: true, Found: "asks for Kerberos, and neither rpc.svcgssd nor gssproxy runs on this node",
		Expected: "one of them on every node", Do: "see Kerberos in docs/nfs.md",
	}}
}

func kerberos(e nfsexports.Export) bool {
	return strings.HasPrefix(e.Client, "gss/krb5") || slices.ContainsFunc(e.Options, func(o string) bool {
		flavors, ok := strings.CutPrefix(o, "sec=")
		return ok && slices.ContainsFunc(strings.Split(flavors, ":"), func(f string) bool { return strings.HasPrefix(f, "krb5") })
	})
}

// stateProblems warns of a state directory that clients reach.
func (a *agent) stateProblems(w settings) []ocf.Problem {
	for _, dir := range nfsexports.Dirs(w.exports) {
		if !a.holds(dir, w.state) {
			continue
		}
		return []ocf.Problem{{
			Param: parState, Warning: true, Found: "lies in the exported directory " + dir + ": clients see it, and with no_root_squash their root can remove it",
			Expected: "a place beside what is exported", Do: "export directories beside it, such as /mnt/data/share beside /mnt/data/.nfs",
		}}
	}
	return nil
}

// holds reports whether the path is the directory or lies below it, by name or behind links.
func (a *agent) holds(dir, path string) bool {
	if within, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(within) {
		return true
	}
	dir, err := resolve(a.path(dir))
	if err != nil {
		return false
	}
	if path, err = resolve(a.path(path)); err != nil {
		return false
	}
	within, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(within)
}

// exportProblems warns of options that lose data or service at a move.
func exportProblems(w settings) []ocf.Problem {
	var found []ocf.Problem
	for _, e := range w.exports {
		if slices.Contains(e.Options, "async") {
			found = append(found, ocf.Problem{
				Param: "export of " + e.Dir, Warning: true, Found: "has the option async", Expected: "sync",
				Do: "remove it: writes that clients believe to be safe are lost when the service moves",
			})
		}
	}
	if w.fromFiles {
		found = append(found, ocf.Problem{
			Param: "/etc/exports", Warning: true, Found: fmt.Sprintf("%d exports are read from this node's file", len(nfsexports.Dirs(w.exports))),
			Expected: "the same on every node", Do: "keep the files equal, or use the parameter exports",
		})
	}
	if host, err := os.Hostname(); err == nil && w.scope == host {
		found = append(found, ocf.Problem{
			Param: parScope, Warning: true, Found: "is this node's name", Expected: "the same value on every node",
			Do: "name the service, not the node",
		})
	}
	if w.maxGrace == 0 {
		found = append(found, ocf.Problem{
			Param: parMaxGrace, Warning: true, Found: "0: one dead client makes all others wait for the whole grace time after a move",
			Expected: "a few seconds", Do: "leave it at its default",
		})
	}
	return found
}
