package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"baton/agents/internal/rpc"
	"baton/ocf"
)

// startLocking starts what NFSv3 needs beside the server: a port mapper, if none answers, and
// statd on the shared lists. statd does not notify by itself: the service address is not up yet.
func (a *agent) startLocking(ctx context.Context, w settings) error {
	if err := a.startPortmapper(ctx); err != nil {
		return err
	}
	args := []string{"--no-notify", "-P", w.stateDir(statdDir)}
	if w.statd > 0 {
		args = append(args, "-p", strconv.Itoa(w.statd))
	}
	if w.statdOut > 0 {
		args = append(args, "-o", strconv.Itoa(w.statdOut))
	}
	return a.launch(ctx, "rpc.statd", args...)
}

// startPortmapper starts rpcbind unless one answers. A socket that systemd listens on answers too:
// it starts rpcbind for us.
func (a *agent) startPortmapper(ctx context.Context) error {
	mapper := rpc.Target{Network: "tcp", Address: "127.0.0.1:111", Program: rpc.Portmapper, Version: 2}
	step, cancel := within(ctx, 5*time.Second)
	err := rpc.Null(step, mapper)
	cancel()
	if err == nil {
		return nil
	}
	if err := a.launch(ctx, "rpcbind", "-w"); err != nil {
		return err
	}
	a.Waiting("rpcbind to answer")
	defer a.Waiting("")
	step, cancel = within(ctx, 10*time.Second)
	defer cancel()
	return poll(step, func() (bool, error) { return rpc.Null(step, mapper) == nil, nil })
}

// attendAction is the name under which start calls the agent again, to stay behind for a while.
const attendAction = "attend"

// duty is what the helper is to do; it gets no parameters of its own.
type duty struct {
	State    string // nfs_shared_infodir, by which the agent's own things are marked and recorded
	Lists    string // statd's directory
	V3, V4   bool
	MaxGrace time.Duration
	Notify   bool // lock clients of NFSv3
	Retry    int  // minutes
	Out      int  // port to notify from; 0: any
	Sources  []netip.Addr
}

// afterStart does what remains once the server answers, and leaves a helper behind where
// something has to be done later. Nothing here delays the start.
func (a *agent) afterStart(w settings) error {
	d := duty{State: a.state, Lists: w.stateDir(statdDir), V3: w.v3(), V4: w.v4(), MaxGrace: w.maxGrace, Retry: w.retry, Out: w.statdOut, Sources: w.ips}
	if d.V3 {
		hosts, err := a.lockClients(w)
		if err != nil {
			return err
		}
		if len(hosts) == 0 {
			// Nobody has locks to reclaim; without this all new locks wait, those of NFSv4 too.
			if err := a.kernel.EndLockdGrace(); err != nil {
				a.Log.Warn("lockd's grace period could not be ended: " + err.Error())
			}
		}
		d.Notify = w.notify && len(hosts) > 0
	}
	if !d.Notify && (w.maxGrace == 0 || !a.inGrace(d)) {
		return nil
	}
	return a.leaveHelper(d)
}

// inGrace reports whether any grace period runs; one that cannot be read counts as running.
func (a *agent) inGrace(d duty) bool {
	if d.V4 {
		if over, err := a.kernel.GraceEnded(); err != nil || !over {
			return true
		}
	}
	if d.V3 {
		if over, err := a.kernel.LockdGraceEnded(); err != nil || !over {
			return true
		}
	}
	return false
}

func (a *agent) leaveHelper(d duty) error {
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err == nil {
		_, err = a.runner.Detach(self, attendAction, string(text))
	}
	if err != nil {
		// Monitors end the grace period too, a little later.
		a.Log.Warn("the helper that ends the grace period in time could not be started: " + err.Error())
	}
	return nil
}

// attend is the helper: it ends a grace period when max_grace is over, to the tenth of a second
// and not at the next monitor, and notifies the lock clients of NFSv3 as soon as the service address
// is up. It ends by itself; stop ends it first of all.
func (s system) attend(ctx context.Context, c *ocf.Call, args []string) error {
	var d duty
	if len(args) != 1 {
		return fmt.Errorf("%s is called by start alone", attendAction)
	}
	if err := json.Unmarshal([]byte(args[0]), &d); err != nil {
		return err
	}
	a := s.agentFor(c, d.State)
	notified := make(chan error, 1)
	go func() { notified <- a.notifyClients(ctx, d) }()
	a.outlastGrace(ctx, d)
	return <-notified
}

func (a *agent) outlastGrace(ctx context.Context, d duty) {
	h, err := a.household()
	if d.MaxGrace <= 0 || err != nil {
		return
	}
	w := settings{maxGrace: d.MaxGrace, versions: map[string]bool{"3": d.V3, "4.0": d.V4}, ips: d.Sources}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for len(h.threads) > 0 && a.inGrace(d) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		reached, err := a.reachableFor(w.ips, startOf(a.readRecord(), h.threads))
		if err != nil || reached < d.MaxGrace {
			continue
		}
		// Taken anew: had the server been stopped and started meanwhile, the time would be another's.
		if h, err = a.household(); err == nil {
			a.limitGrace(w, startOf(a.readRecord(), h.threads))
		}
	}
}
