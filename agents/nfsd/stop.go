package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/mounts"
	"baton/agents/internal/nfsexports"
	"baton/agents/internal/process"
	"baton/agents/internal/sockdiag"
	"baton/ocf"
)

// stop takes the server down and returns when nothing of NFS holds the file systems any more.
func (s system) stop(ctx context.Context, c *ocf.Call) error {
	a := s.agent(c)
	w, err := a.settings()
	if err != nil {
		c.Log.Warn(err.Error()) // a broken nfs.conf must not keep a server from stopping
	}
	f, err := a.facts(w.tabDir)
	if err != nil {
		return err
	}
	if a.left(f) == "" && f.record == nil {
		return nil
	}
	return a.takeDown(ctx, w, f)
}

// takeDown is the work of stop. The order: the threads first, for they hold the clients' open
// files; then the daemons, nfsdcld among them, whose database lies on the disk; the exports last,
// for an answer of mountd that comes after the kernel's caches were flushed would hold the file
// system again. Nor does mountd go with the threads: one that waits for its answer would wait for
// five seconds more (thread_wait of svc_recv in net/sunrpc/svc_xprt.c).
func (a *agent) takeDown(ctx context.Context, w settings, f facts) error {
	dirs := nfsexports.Dirs(f.table)
	if err := a.endHelper(ctx, f); err != nil {
		return err
	}
	// What runs counts here, and not what is configured by now.
	w.versions = f.versions
	if f.mounted {
		a.keepMountList(w)
		if err := a.endThreads(ctx, f); err != nil {
			return err
		}
	}
	a.closeConnections(f)
	if err := a.endDaemons(ctx, f.ours); err != nil {
		return err
	}
	if err := a.unexport(ctx, w, dirs); err != nil {
		return err
	}
	a.released(ctx, append(dirs, a.state))
	return a.gone(w)
}

// keepMountList copies mountd's list of NFSv3 mounts, which it keeps on the local disk, to the
// state directory. It serves showmount alone, so that a failure is only told, and no monitor does
// it: one that writes to the device hangs while DRBD holds back all writes.
func (a *agent) keepMountList(w settings) {
	if !w.v3() {
		return
	}
	a.Waiting("the file system of %s to answer", w.state)
	defer a.Waiting("")
	text, err := os.ReadFile(a.path(w.tabDir, "rmtab"))
	if err == nil {
		_, err = atomicfile.WriteIfChanged(a.path(w.stateDir("rmtab")), text, 0o644)
	}
	if err != nil {
		a.Log.Warn("the list of mounts (rmtab) was not kept: " + err.Error())
	}
}

// gone looks once more: a stop that is believed must be true.
func (a *agent) gone(w settings) error {
	f, err := a.facts(w.tabDir)
	if err != nil {
		return err
	}
	f.record = nil
	if left := a.left(f); left != "" {
		return &ocf.Error{Object: "NFS server", Found: "is still there: " + left, Do: "see the log for who started it"}
	}
	if err := a.dropRecord(); err != nil {
		return &ocf.Error{Object: "record", Found: "cannot be removed", Err: err, Do: "repair HA_RSCTMP"}
	}
	return nil
}

// endHelper ends our own helper before the server, so that it cannot act on a server that stops.
func (a *agent) endHelper(ctx context.Context, f facts) error {
	var helpers []process.Process
	for _, p := range f.ours {
		if p.Comm == "nfsd" {
			helpers = append(helpers, p)
		}
	}
	return a.endDaemons(ctx, helpers)
}

// endThreads ends the server. The kernel closes its sockets, drops all opens, locks and
// delegations, and keeps the database: that is what the clients reclaim from.
func (a *agent) endThreads(ctx context.Context, f facts) error {
	a.Waiting("%d server threads to end", f.threads)
	done := make(chan error, 1)
	// Also without threads: an earlier start may have left sockets, which this closes.
	go func() { done <- a.kernel.SetThreads(0) }()
	select {
	case err := <-done:
		if err != nil {
			return &ocf.Error{Object: "NFS server", Found: "the kernel does not stop it", Err: err, Do: "see the kernel's log"}
		}
	case <-ctx.Done():
		return a.stuckThreads(f)
	}
	a.Waiting("")
	n, err := a.kernel.Threads()
	if err != nil {
		return unreadable(err)
	}
	if n > 0 {
		return &ocf.Error{Object: "NFS server", Found: fmt.Sprintf("has %d threads again", n), Do: "systemctl disable --now nfs-server.service"}
	}
	return nil
}

// stuckThreads names what the threads wait for.
func (a *agent) stuckThreads(f facts) error {
	var list []string
	for _, t := range f.household.threads {
		p, err := a.table.Lookup(t.ID)
		if err != nil {
			continue
		}
		in := ""
		if act, err := a.kernel.Activity(t.PID); err == nil && act.In != "" && act.In != "0" {
			in = " in " + act.In
		}
		list = append(list, fmt.Sprintf("%v %v%s", p.ID, p.State, in))
		if len(list) == 3 {
			break
		}
	}
	return &ocf.Error{
		Object: "NFS server", Found: "its threads do not end: " + strings.Join(list, "; "),
		Do: "see whether the disk below the exports answers",
	}
}

// unexport empties exportfs's table and the kernel's caches, and waits until these have let go.
func (a *agent) unexport(ctx context.Context, w settings, dirs []string) error {
	if len(dirs) > 0 {
		if w.v3() {
			for _, dir := range dirs {
				// Locks of NFSv3 that lockd keeps because this node is a client of its own as well.
				if err := a.kernel.UnlockFilesystem(dir); err != nil {
					a.Log.Debug(fmt.Sprintf("unlock %s: %v", dir, err))
				}
			}
		}
		if err := a.clearTable(w); err != nil {
			return err
		}
	}
	a.Waiting("the kernel to let go of its exports")
	defer a.Waiting("")
	var held []string
	ctx, cancel := within(ctx, 10*time.Second)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		// Each time anew: what came in meanwhile is not flushed by what was done before.
		if err := a.kernel.FlushExports(time.Now().Unix()); err != nil {
			return false, &ocf.Error{Object: "export caches", Found: "cannot be flushed", Err: err}
		}
		var err error
		held, err = a.kernel.Held()
		return len(held) == 0, err
	})
	var refused *ocf.Error
	if errors.As(err, &refused) {
		return refused
	}
	if err != nil {
		return &ocf.Error{Object: "export caches", Found: "still hold " + strings.Join(held, ", "), Err: err, Do: "exportfs -f"}
	}
	return nil
}

// closeConnections resets the server's TCP connections that outlive it. Those that still had
// data under way would linger, and meet the clients again with stale numbers when the service
// address comes back to this node.
func (a *agent) closeConnections(f facts) {
	ports := map[int]bool{}
	for _, p := range f.ports {
		if p.Transport == "tcp" {
			ports[p.Number] = true
		}
	}
	for port := range ports {
		n, err := sockdiag.DestroyAll(sockdiag.Filter{Port: uint16(port)})
		switch {
		case err != nil:
			a.Log.Warn(fmt.Sprintf("connections of port %d could not be closed: %v", port, err))
		case n > 0:
			a.Log.Info(fmt.Sprintf("%d connections of port %d closed", n, port))
		}
	}
}

// released waits until the mounts that held exports and state are held by nothing of NFS. The
// kernel closes the last files a moment after the threads have ended (delayed fput, RCU). What a
// process of somebody else holds is the affair of the Filesystem resource, which ends it.
func (a *agent) released(ctx context.Context, dirs []string) {
	points := map[string]bool{}
	for _, dir := range dirs {
		m, err := a.mounts.Of(dir)
		if err != nil || m.Point == "/" {
			continue
		}
		points[m.Point] = true
	}
	for point := range points {
		a.releasedMount(ctx, point)
	}
}

// fputTime is for how long a busy mount is taken for the kernel's own delay, before all open files
// of all processes are looked at for another reason.
const fputTime = 200 * time.Millisecond

func (a *agent) releasedMount(ctx context.Context, point string) {
	a.Waiting("the kernel to let go of %s", point)
	defer a.Waiting("")
	ctx, cancel := within(ctx, 5*time.Second)
	defer cancel()
	explained := ""
	began := time.Now()
	err := poll(ctx, func() (bool, error) {
		busy, err := mounts.Busy(a.path(point))
		if err != nil || !busy {
			return true, err
		}
		if time.Since(began) < fputTime {
			return false, nil
		}
		explained = a.otherHolders(point)
		return explained != "", nil
	})
	switch {
	case err == nil && explained != "":
		a.Log.Info(fmt.Sprintf("%s is free of NFS, but in use by %s", point, explained))
	case errors.Is(err, context.DeadlineExceeded):
		// No thread, no export, no daemon of ours is left, nor any process: the holder is another
		// part of the kernel (a loop device, a swap file, a mount elsewhere).
		a.Log.Warn(point + " is free of NFS, but in use by something that is no process, such as a loop device or swap file")
	case err != nil:
		a.Log.Warn(fmt.Sprintf("whether %s is in use cannot be told: %v", point, err))
	}
}

// otherHolders names a process or a mount that keeps the mount busy and is not ours.
func (a *agent) otherHolders(point string) string {
	if below, err := a.mounts.Below(point); err == nil && len(below) > 0 {
		return "the mount " + below[0].String()
	}
	holders, err := a.table.Holders(point)
	var hidden *process.HiddenError
	if err != nil && !errors.As(err, &hidden) {
		a.Log.Debug(err.Error())
	}
	for _, h := range holders {
		if mark, ok := a.kernel.Environ(h.PID, markName); !ok || mark != a.state {
			return h.String()
		}
	}
	return ""
}
