package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/addresses"
	"baton/agents/internal/process"
	"baton/agents/internal/rpc"
	"baton/ocf"
)

// monitor looks at the server without a child process. It changes nothing of the service, apart
// from a recurring one, which ends a grace period that has lasted max_grace.
func (s system) monitor(ctx context.Context, c *ocf.Call) (ocf.State, error) {
	a := s.agent(c)
	w, err := a.settings()
	if err != nil {
		c.Log.Warn(err.Error())
	}
	f, err := a.facts(w.tabDir)
	if err != nil {
		return ocf.Stopped, err
	}
	return a.watch(ctx, w, f)
}

func (a *agent) watch(ctx context.Context, w settings, f facts) (ocf.State, error) {
	left := a.left(f)
	if left == "" {
		a.noteStopped(f)
		return ocf.Stopped, nil
	}
	if !f.mounted {
		return ocf.Stopped, unreadable(fmt.Errorf("%s is not mounted, but there is %s", a.kernel.Mountpoint(), left))
	}
	a.expect(&w, f)
	v := judge(f, w, left)
	if v.state == ocf.Stopped {
		return ocf.Stopped, &ocf.Error{Object: "NFS server", Found: v.fault, Do: v.do}
	}
	if state, err := a.works(ctx, w, f.household.threads); err != nil || state != ocf.Running {
		return state, err
	}
	if v.state == ocf.DegradedRunning {
		a.Note("%s; %s", v.fault, v.do)
		a.Log.Warn(v.fault)
		return ocf.DegradedRunning, nil
	}
	if a.recurring() {
		a.limitGrace(w, startOf(f.record, f.household.threads))
		if f.record != nil && a.tellReadOnly(f.record) {
			if err := a.writeRecord(*f.record); err != nil {
				a.Log.Warn(err.Error())
			}
		}
	}
	a.Note("%d threads, %d exports", f.threads, len(w.exports))
	return ocf.Running, nil
}

// works asks whether the threads serve, or all wait for a disk.
func (a *agent) works(ctx context.Context, w settings, threads []process.Process) (ocf.State, error) {
	h, free := a.stuck(ctx, threads)
	if h != nil {
		return a.suspended(w, *h)
	}
	if a.Env.CheckLevel >= 10 {
		if err := a.ask(ctx, w); err != nil {
			if h := a.stuckUnanswered(ctx, threads); h != nil {
				return a.suspended(w, *h)
			}
			return ocf.Stopped, err
		}
		free = true
	}
	if free {
		a.forgetSighting()
	}
	return ocf.Running, nil
}

// recurring tells the monitor that the cluster repeats, or heartbeat's status, from a call by hand
// and a probe. Those know neither all parameters (max_grace, nfs_ip) nor whether the server is in
// use, so that they only look.
func (a *agent) recurring() bool { return !a.Env.Probe || a.Env.Caller == ocf.Heartbeat }

// expect fills in what should be served and exported: what start recorded, else what the
// parameters and nfs.conf say. An edit of a file becomes effective by a restart or reload, and is
// no fault of the server that runs.
func (a *agent) expect(w *settings, f facts) {
	if f.record != nil && len(f.record.Versions) > 0 {
		w.versions, w.ports = f.record.Versions, f.record.Ports
	}
	if f.record != nil && len(f.record.Exports) > 0 {
		w.exports = f.record.Exports
		return
	}
	if list, given, err := paramExports(a.Params); err == nil && given {
		w.exports = list
		if err := a.exports(w); err != nil {
			a.Log.Warn(err.Error())
		}
	}
}

// noteStopped says what a recurring monitor or a person wants to know of a server that is not there.
func (a *agent) noteStopped(f facts) {
	switch {
	case f.threads > 0:
		a.Note("not running; an NFS server of somebody else runs on this node: systemctl disable --now nfs-server.service")
		if a.Env.Probe {
			a.Log.Warn("an NFS server that this resource has not started runs on this node; systemctl disable --now nfs-server.service")
		}
	default:
		a.Note("the NFS server does not run: no threads, no daemons of ours")
	}
}

// ask makes a NULL call to everything that the server is to serve, over the wire.
func (a *agent) ask(ctx context.Context, w settings) error {
	for _, t := range a.targets(w) {
		a.Waiting("an answer of %v", t)
		step, cancel := within(ctx, 10*time.Second)
		err := rpc.Null(step, t)
		cancel()
		if err != nil {
			return &ocf.Error{
				Object: "NFS server", Found: "does not answer", Err: err, Expected: "an answer to a NULL call",
				Do: doRestart,
			}
		}
	}
	a.Waiting("")
	return nil
}

// targets are what the server must answer: each version over each transport.
func (a *agent) targets(w settings) []rpc.Target {
	host := a.listeningAddress(w)
	var list []rpc.Target
	for _, p := range w.ports {
		addr := net.JoinHostPort(host, strconv.Itoa(p.Number))
		if w.v4() && p.Transport == "tcp" {
			list = append(list, rpc.Target{Network: p.Transport, Address: addr, Program: rpc.NFS, Version: 4})
		}
		if w.v3() {
			list = append(list, rpc.Target{Network: p.Transport, Address: addr, Program: rpc.NFS, Version: 3})
		}
	}
	return list
}

// listeningAddress is a service address where it is up, else the loopback address.
func (a *agent) listeningAddress(w settings) string {
	for _, ip := range w.ips {
		if a.hasAddress(ip) {
			return ip.String()
		}
	}
	return "127.0.0.1"
}

// hasAddress reports whether the address is on an interface of this machine and ready for use. It
// asks for it by name: with net.ipv4.ip_nonlocal_bind=1 (haproxy, keepalived) every address of the
// world can be bound.
func (a *agent) hasAddress(ip netip.Addr) bool {
	if a.sys.up != nil {
		return a.sys.up(ip)
	}
	entries, err := addresses.Find(ip.Unmap().WithZone(""))
	if err != nil {
		a.Log.Warn(fmt.Sprintf("whether %v is up cannot be told: %v", ip, err))
		return false
	}
	return slices.ContainsFunc(entries, func(e addresses.Addr) bool {
		return e.Flags&(addresses.FlagTentative|addresses.FlagDADFailed) == 0
	})
}

// graceEnds decides whether a grace period must be ended now, by what is known of it.
func graceEnds(ended bool, reached, longest time.Duration) bool {
	return !ended && longest > 0 && reached >= longest
}

// limitGrace ends a grace period that has lasted longer than max_grace: a client that has died
// keeps it open for everybody. It must never fail a monitor.
func (a *agent) limitGrace(w settings, started time.Duration) {
	reached, err := a.reachableFor(w.ips, started)
	if err != nil {
		a.Log.Warn("how long the server has been reachable cannot be told: " + err.Error())
		return
	}
	if w.v4() {
		a.endGrace(w, reached, "NFSv4", a.kernel.GraceEnded, a.kernel.EndGrace)
	}
	if w.v3() {
		a.endGrace(w, reached, "NFSv3 (lockd)", a.kernel.LockdGraceEnded, a.kernel.EndLockdGrace)
	}
}

func (a *agent) endGrace(w settings, reached time.Duration, what string, ended func() (bool, error), end func() error) {
	over, err := ended()
	if err != nil {
		a.Log.Warn(fmt.Sprintf("whether the grace period of %s is over cannot be told: %v", what, err))
		return
	}
	if !graceEnds(over, reached, w.maxGrace) {
		return
	}
	if err := end(); err != nil {
		a.Log.Warn(fmt.Sprintf("the grace period of %s could not be ended: %v", what, err))
		return
	}
	a.Log.Warn(fmt.Sprintf("the grace period of %s was ended after %v: a client that had locks before the move has not come back "+
		"(or speaks NFSv4.0 or 3); what it had not reclaimed is lost", what, reached.Round(time.Second)))
}

// reachableFor is how long clients have been able to reach the server: since its address was
// first seen up after the start, or since the threads were started where no address is known.
// The clock of max_grace begins there: a client cannot reclaim before.
func (a *agent) reachableFor(ips []netip.Addr, started time.Duration) (time.Duration, error) {
	if started == 0 {
		return 0, nil
	}
	now, err := a.uptime()
	if err != nil {
		return 0, err
	}
	if len(ips) == 0 {
		return now - started, nil
	}
	if seen, ok := a.readReached(); ok && seen >= started && seen <= now {
		return now - seen, nil
	}
	for _, ip := range ips {
		if a.hasAddress(ip) {
			return 0, os.WriteFile(a.reached, []byte(now.String()), 0o600)
		}
	}
	return 0, nil
}

func (a *agent) readReached() (time.Duration, bool) {
	text, err := os.ReadFile(a.reached)
	if err != nil {
		return 0, false
	}
	seen, err := time.ParseDuration(string(text))
	return seen, err == nil
}

// startOf is when the server was started, since the boot: what start recorded, else when the newest
// thread was. Threads of the kernel belong to no network namespace, so that those of a container's
// server may be among them, and be older. 0: it is not known. /proc/PID/stat counts in ticks of
// 1/100 s (USER_HZ, the same on all machines that Linux serves NFS on).
func startOf(r *record, threads []process.Process) time.Duration {
	if r != nil && r.Started > 0 {
		return r.Started
	}
	var newest uint64
	for _, t := range threads {
		newest = max(newest, t.Start)
	}
	return time.Duration(newest) * (time.Second / 100)
}

// uptime is the time since the boot, from /proc/uptime: "12345.67 23456.78".
func (a *agent) uptime() (time.Duration, error) {
	text, err := os.ReadFile(a.path("proc/uptime"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	up, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("uptime: %w", err)
	}
	return time.Duration(up * float64(time.Second)), nil
}
