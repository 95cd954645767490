package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/agents/internal/mounts"
	"baton/agents/internal/nfsexports"
	"baton/agents/internal/nfsproc"
	"baton/agents/internal/nfsscope"
	"baton/agents/internal/process"
	"baton/agents/internal/rpc"
	"baton/ocf"
)

// start brings the server up: the database of clients first, then the exports, then the threads.
// It returns when the server answers.
func (s system) start(ctx context.Context, c *ocf.Call) error {
	a := s.agent(c)
	w, err := a.settings()
	if err != nil {
		return err
	}
	if err := a.exports(&w); err != nil {
		return err
	}
	f, err := a.facts(w.tabDir)
	if err != nil {
		return err
	}
	if left := a.left(f); left != "" {
		now := w
		a.expect(&now, f)
		if judge(f, now, left).state == ocf.Running {
			a.Log.Info("already running")
			return nil
		}
		// What is half there (a daemon has died, an earlier start was cut off) is taken away first.
		a.Log.Warn("not all of the server runs, so it is started anew; there is " + left)
		if err := a.takeDown(ctx, w, f); err != nil {
			return err
		}
		if f, err = a.facts(w.tabDir); err != nil {
			return err
		}
	}
	if err := a.mayStart(ctx, w, f); err != nil {
		return err
	}
	for _, p := range a.cautions(w) {
		a.Log.Warn(p.Error())
	}
	if err := a.bringUp(ctx, w); err != nil {
		a.undo(w)
		return err
	}
	return nil
}

// undo takes away what a start that failed has left. The action's time may be over: the driver
// waits a moment longer, and a stop follows in any case.
func (a *agent) undo(w settings) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f, err := a.facts(w.tabDir)
	if err == nil {
		err = a.takeDown(ctx, w, f)
	}
	if err != nil {
		a.Log.Warn("what the failed start left could not be taken away: " + err.Error())
	}
}

// mayStart refuses what must not be started here, before anything is touched.
func (a *agent) mayStart(ctx context.Context, w settings, f facts) error {
	if f.threads > 0 || !f.mounted && len(f.household.threads) > 0 {
		return a.foreignServer(ctx, f)
	}
	if err := a.foreignDaemons(w, f); err != nil {
		return err
	}
	if err := a.haveTools(w); err != nil {
		return err
	}
	if err := a.stateDevice(w); err != nil {
		return err
	}
	return a.haveDirectories(w)
}

func (a *agent) foreignServer(ctx context.Context, f facts) error {
	e := &ocf.Error{
		Object: "NFS server", Found: "runs on this node already, not started by this resource",
		Do: "systemctl disable --now nfs-server.service",
	}
	for _, p := range f.foreign {
		if mark, ok := a.kernel.Environ(p.PID, markName); ok {
			e.Found = "runs on this node already for another instance, with the state in " + mark
			e.Expected = "one NFS server a node"
			e.Do = "keep the two apart by a colocation with a negative score, or use one instance with several exports"
			return e
		}
	}
	if units := a.runningUnits(ctx); len(units) > 0 {
		e.Do = "systemctl disable --now " + strings.Join(units, " ")
	}
	return e
}

// foreignDaemons refuses to start beside daemons that answer the kernel in the place of ours, and
// with another database.
func (a *agent) foreignDaemons(w settings, f facts) error {
	unit := map[string]string{
		"nfsdcld": "nfsdcld.service", "rpc.mountd": "nfs-mountd.service",
		"rpc.statd": "rpc-statd.service",
	}
	for _, p := range f.foreign {
		rival := p.Comm == "nfsdcld" || p.Comm == "rpc.mountd" || w.v3() && p.Comm == "rpc.statd"
		if !rival {
			continue
		}
		e := &ocf.Error{
			Object: p.Comm, Found: fmt.Sprintf("runs on this node already (%v), not started by this resource", p.ID),
			Do: "systemctl disable --now nfs-server.service; systemctl stop " + unit[p.Comm],
		}
		if mark, ok := a.kernel.Environ(p.PID, markName); ok {
			e.Found = fmt.Sprintf("runs on this node already (%v) for another instance, with the state in %s", p.ID, mark)
			e.Do = "one NFS server a node: stop the other instance first"
		}
		return e
	}
	return nil
}

// packages name where a missing tool comes from.
const packages = "install nfs-kernel-server (Debian) or nfs-utils (RHEL)"

func (a *agent) haveTools(w settings) error {
	tools := []string{"exportfs", "rpc.mountd"}
	if w.v4() {
		tools = append(tools, "nfsdcld")
	}
	if w.v3() {
		tools = append(tools, "rpc.statd", "rpcbind")
	}
	for _, tool := range tools {
		if _, err := a.runner.Look(tool); err != nil {
			return &ocf.Error{Kind: ocf.NotInstalled, Object: tool, Found: "is not installed", Do: packages}
		}
	}
	return nil
}

func (a *agent) haveDirectories(w settings) error {
	for _, dir := range nfsexports.Dirs(w.exports) {
		a.Waiting("the file system of %s to answer", dir)
		info, err := os.Stat(a.path(dir))
		if err == nil && !info.IsDir() {
			err = errors.New("is no directory")
		}
		if err != nil {
			return &ocf.Error{
				Kind: ocf.NotInstalled, Object: "exported directory " + dir, Found: reason(err),
				Expected: "a directory on the mounted device", Do: "mount it before this resource (order, group), or make it",
			}
		}
		if err := a.ownDisk(w, dir); err != nil {
			return err
		}
	}
	a.Waiting("")
	return nil
}

// ownDisk refuses a directory on the node's own disk, where that of the state is mounted: clients
// would find an empty mount point in the place of their files, and write there.
func (a *agent) ownDisk(w settings, dir string) error {
	if w.local {
		return nil
	}
	if _, own, err := a.deviceOf(w.state); !own || err != nil {
		return err
	}
	on, own, err := a.deviceOf(dir)
	if own || err != nil {
		return err
	}
	return &ocf.Error{
		Kind: ocf.NotInstalled, Object: "exported directory " + dir, Found: "lies on the node's own disk, " + on.String() + ": is its file system mounted?",
		Expected: "a mounted device", Do: "mount it before this resource (order, group); local_exports=true if it is meant to lie there",
	}
}

// deviceOf is the mount that the path lies on, and whether that is a mounted device of its own.
func (a *agent) deviceOf(path string) (on mounts.Mount, own bool, err error) {
	real, err := resolve(a.path(path))
	if err != nil {
		return mounts.Mount{}, false, &ocf.Error{Object: path, Found: "cannot be reached", Err: err}
	}
	on, err = a.mounts.OwnDevice(real)
	var local *mounts.LocalError
	if errors.As(err, &local) {
		return on, false, nil
	}
	return on, err == nil, err
}

// reason is the errno's text alone, where there is one: the path has been named already.
func reason(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// bringUp does the work of start on a machine that may and can.
func (a *agent) bringUp(ctx context.Context, w settings) error {
	if err := a.mountVirtual(w); err != nil {
		return err
	}
	scope, err := a.prepareState(&w)
	if err != nil {
		return err
	}
	// Before the first daemon: a call that is killed from here on leaves something to stop.
	if err := a.writeRecord(w.record()); err != nil {
		return err
	}
	if err := a.startHelpers(ctx, w); err != nil {
		return err
	}
	if err := a.settle(&w); err != nil {
		return err
	}
	if err := a.prepareKernel(ctx, w); err != nil {
		return err
	}
	if err := a.startThreads(ctx, w, scope); err != nil {
		return err
	}
	if err := a.recordStarted(w); err != nil {
		return err
	}
	if err := a.answers(ctx, w); err != nil {
		return err
	}
	if err := a.afterStart(w); err != nil {
		return err
	}
	a.logStart(w, scope)
	return nil
}

// recordStarted keeps when the server came up: max_grace counts from there.
func (a *agent) recordStarted(w settings) error {
	r := w.record()
	now, err := a.uptime()
	if err != nil {
		a.Log.Warn("when the server was started cannot be told: " + err.Error())
	}
	r.Started = now
	a.tellReadOnly(&r)
	return a.writeRecord(r)
}

func (a *agent) logStart(w settings, scope string) {
	over, err := a.kernel.GraceEnded()
	grace := "a grace period runs until all clients have reclaimed"
	if err == nil && over {
		grace = "no client had state, so there is no grace period"
	}
	a.Log.Info(fmt.Sprintf("serving %s as %q; %s", strings.Join(nfsexports.Dirs(w.exports), ", "), scope, grace))
}

// mountVirtual mounts the kernel's two file systems where nobody has. Mounting loads the module.
// They stay when the server stops: they hold nothing, and the next start is quicker.
func (a *agent) mountVirtual(w settings) error {
	for _, m := range []struct{ fstype, point string }{
		{"nfsd", a.kernel.Mountpoint()},
		{"rpc_pipefs", a.path(w.pipefs)},
	} {
		on, ok, err := a.mounts.At(m.point)
		if err != nil {
			return err
		}
		if ok && on.FSType == m.fstype {
			continue
		}
		if m.fstype == "rpc_pipefs" {
			if err := os.MkdirAll(m.point, 0o755); err != nil {
				return &ocf.Error{Object: m.point, Found: "cannot be made", Err: err}
			}
		}
		a.Waiting("the kernel to load the module of %s", m.fstype)
		if err := mounts.MountVirtual(m.fstype, mountSource, m.point); err != nil {
			return a.noModule(m.fstype, err)
		}
	}
	a.Waiting("")
	return nil
}

func (a *agent) noModule(fstype string, err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return &ocf.Error{
			Kind: ocf.NotInstalled, Object: "kernel module " + fstype, Found: "this kernel has no NFS server",
			Do: "install the kernel's modules (modprobe nfsd shows why it cannot be loaded)",
		}
	}
	return &ocf.Error{Object: fstype, Found: "cannot be mounted", Err: err}
}

// startHelpers starts the daemons and exports the directories; what does not need one another
// goes on at the same time.
func (a *agent) startHelpers(ctx context.Context, w settings) error {
	a.Waiting("the daemons of the NFS server to start")
	defer a.Waiting("")
	var steps []func() error
	if w.v4() {
		steps = append(steps, func() error { return a.startTracker(ctx, w) })
	}
	steps = append(steps,
		func() error { return a.export(ctx, w) },
		func() error {
			if w.v3() { // mountd registers with the port mapper
				if err := a.startLocking(ctx, w); err != nil {
					return err
				}
			}
			return a.startMountd(ctx, w)
		})
	results := make(chan error, len(steps))
	for _, step := range steps {
		go func() { results <- step() }()
	}
	var failed error
	for range steps {
		if err := <-results; err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

// prepareKernel writes what the kernel takes only before it has sockets and threads.
func (a *agent) prepareKernel(ctx context.Context, w settings) error {
	set := func(what string, err error) error {
		if err == nil {
			return nil
		}
		return &ocf.Error{Object: "NFS server", Found: what + " cannot be set", Err: err}
	}
	if err := set("versions", a.kernel.SetVersions(w.versions)); err != nil {
		return err
	}
	if w.v4() && w.lease > 0 {
		if err := set("lease time", a.kernel.SetLeaseTime(w.lease)); err != nil {
			return err
		}
	}
	if w.v4() && w.grace > 0 {
		if err := set("grace time", a.kernel.SetGraceTime(w.grace)); err != nil {
			return err
		}
	}
	if w.v3() {
		if err := set("ports of lockd", a.kernel.LockdPorts(w.lockdTCP, w.lockdUDP)); err != nil {
			return err
		}
	}
	return a.listen(ctx, w)
}

// listen opens the server's ports. Without sockets of ours the kernel would open its own, for
// IPv4 alone.
func (a *agent) listen(_ context.Context, w settings) error {
	err := a.kernel.Listen(w.ports...)
	var taken *nfsproc.ListenError
	if !errors.As(err, &taken) {
		if err != nil {
			return &ocf.Error{Object: "NFS server", Found: "cannot listen", Err: err, Do: "see the kernel's log; NFSv3 needs rpcbind"}
		}
		return nil
	}
	e := &ocf.Error{Object: fmt.Sprintf("%s port %d", taken.Port.Transport, taken.Port.Number), Found: "cannot be opened", Err: taken.Err}
	if errors.Is(err, unix.EADDRINUSE) {
		e.Err, e.Found = nil, "is in use"
		if who := a.portHolder(taken.Port); who != "" {
			e.Found += " by " + who
		}
		e.Do = "stop that program, or set port"
	}
	return e
}

// portHolder names the program that has the port open.
func (a *agent) portHolder(p nfsproc.Port) string {
	inodes, err := a.kernel.PortInodes(p)
	if err != nil || len(inodes) == 0 {
		return ""
	}
	all, err := a.table.All()
	if err != nil {
		return ""
	}
	for _, proc := range all {
		files, err := a.kernel.OpenFiles(proc.PID)
		if err != nil {
			continue
		}
		for _, inode := range inodes {
			if slices.Contains(files, fmt.Sprintf("socket:[%d]", inode)) {
				return identify(proc)
			}
		}
	}
	return "the kernel, or a program of another container"
}

// startThreads starts the server under the name of its scope, and makes sure that the kernel
// tracks its clients in the shared database.
func (a *agent) startThreads(ctx context.Context, w settings, scope string) error {
	a.Waiting("the kernel to start the server threads")
	defer a.Waiting("")
	started := make(chan error, 1)
	go func() { started <- nfsscope.Under(scope, func() error { return a.kernel.SetThreads(w.threads) }) }()
	select {
	case err := <-started:
		if err != nil {
			return &ocf.Error{Object: "NFS server", Found: "the kernel does not start it", Err: err, Do: "see the kernel's log"}
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if n, err := a.kernel.Threads(); err != nil || n == 0 {
		return &ocf.Error{Object: "NFS server", Found: "has no threads after its start", Err: err, Do: "see the kernel's log"}
	}
	if !w.v4() {
		return nil
	}
	return a.tracked(ctx)
}

// tracked waits until nfsdcld holds the kernel's pipe. The kernel gives it a second to open the
// pipe and then falls back to a way that forgets the clients at each move.
func (a *agent) tracked(ctx context.Context) error {
	err := a.opened(ctx, "nfsdcld", &a.tracker, func(files []string) bool { return slices.ContainsFunc(files, isPipe) })
	if err == nil {
		return nil
	}
	return &ocf.Error{
		Object: "nfsdcld", Found: "the kernel does not use it, so clients would lose their locks at the next move",
		Do: "see the log for nfsdcld, and whether rpc_pipefs is mounted where it looks (pipefs-directory in /etc/nfs.conf)",
	}
}

// answers waits until each version answers a NULL call on each transport.
func (a *agent) answers(ctx context.Context, w settings) error {
	loop := w
	loop.ips = nil // the service address comes after us
	targets := a.targets(loop)
	if w.v3() {
		port, err := rpc.GetPort(ctx, "127.0.0.1", rpc.Mount, 3, "tcp")
		if err != nil || port == 0 {
			return &ocf.Error{Object: "rpc.mountd", Found: "is not registered with rpcbind", Err: err, Do: "see the log"}
		}
		targets = append(targets, rpc.Target{Network: "tcp", Address: fmt.Sprintf("127.0.0.1:%d", port), Program: rpc.Mount, Version: 3})
	}
	for _, t := range targets {
		a.Waiting("an answer of %v", t)
		if err := rpc.Null(ctx, t); err != nil {
			return &ocf.Error{Object: "NFS server", Found: "does not answer after its start", Err: err, Do: "see the kernel's log"}
		}
	}
	a.Waiting("")
	return nil
}

// identify is the process in words for messages.
func identify(p process.Process) string { return fmt.Sprintf("%s (%v)", p.Comm, p.ID) }
