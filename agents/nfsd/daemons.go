package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/nfsexports"
	"baton/agents/internal/process"
	"baton/ocf"
)

// launch runs a daemon, which returns when its child in the background is ready.
func (a *agent) launch(ctx context.Context, name string, args ...string) error {
	ctx, cancel := within(ctx, 20*time.Second)
	defer cancel()
	if _, err := a.runner.Run(ctx, name, args...); err != nil {
		return &ocf.Error{Object: name, Found: "does not start", Err: err, Do: "see the log for " + name}
	}
	return nil
}

// startTracker starts nfsdcld on the shared database. The kernel makes the pipe only when its
// threads start, and waits a second for nfsdcld to open it; so nfsdcld is given the time until it
// has the database open and watches the place of the pipe.
func (a *agent) startTracker(ctx context.Context, w settings) error {
	if err := a.launch(ctx, "nfsdcld", "-p", w.pipefs, "-s", w.stateDir(trackerDir)); err != nil {
		return err
	}
	database := w.stateDir(trackerDir, "main.sqlite")
	err := a.opened(ctx, "nfsdcld", &a.tracker, func(files []string) bool {
		// The pipe itself is there already if an earlier server of the kernel left it.
		watches := slices.Contains(files, "anon_inode:inotify") || slices.ContainsFunc(files, isPipe)
		return watches && slices.Contains(files, database)
	})
	if err != nil {
		return &ocf.Error{
			Object: "nfsdcld", Found: "did not open its database " + database, Err: err,
			Do: "see the log for nfsdcld",
		}
	}
	return nil
}

// startMountd starts rpc.mountd, which tells the kernel of exports when it asks. Without NFSv3
// it opens no port.
func (a *agent) startMountd(ctx context.Context, w settings) error {
	var args []string
	if w.v3() {
		args = append(args, "-V", "3", "-N", "2")
		if w.mountd > 0 {
			args = append(args, "-p", strconv.Itoa(w.mountd))
		}
	} else {
		args = append(args, "-N", "2", "-N", "3")
	}
	if w.v4() {
		args = append(args, "-V", "4")
	} else {
		args = append(args, "-N", "4")
	}
	if err := a.launch(ctx, "rpc.mountd", args...); err != nil {
		return err
	}
	var daemon process.Process
	err := a.opened(ctx, "rpc.mountd", &daemon, func(files []string) bool {
		// It reads the kernel's questions from these channels (cache_open in support/export/cache.c).
		return slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, "/nfsd.fh/channel") })
	})
	if err != nil {
		return &ocf.Error{Object: "rpc.mountd", Found: "did not begin to listen to the kernel", Err: err, Do: "see the log for rpc.mountd"}
	}
	return nil
}

// opened waits until our daemon of that name has its files open. daemon is the process, if it is
// known already, and is set where it is found: to look for it costs a look at each process.
func (a *agent) opened(ctx context.Context, name string, daemon *process.Process, ready func(files []string) bool) error {
	ctx, cancel := within(ctx, 10*time.Second)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		if daemon.PID == 0 {
			h, err := a.household()
			if err != nil {
				return false, err
			}
			*daemon, _ = h.find(h.ours, name)
		}
		files, err := a.kernel.OpenFiles(daemon.PID)
		if err == nil {
			return ready(files), nil
		}
		*daemon = process.Process{} // it was the parent, which has made room for the child
		return false, nil
	})
}

// export puts the exports into exportfs's table, and nothing else: what an earlier boot or a
// server of the distribution left there is dropped first, while nothing serves it.
func (a *agent) export(ctx context.Context, w settings) error {
	if err := a.clearTable(w); err != nil {
		return err
	}
	return a.exportfs(ctx, w.exports)
}

func (a *agent) clearTable(w settings) error {
	file := a.path(w.tabDir, "etab")
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		// exportfs fails where there is none.
		if err = os.MkdirAll(a.path(w.tabDir), 0o755); err == nil {
			err = os.WriteFile(file, nil, 0o644)
		}
	case err == nil && info.Size() > 0:
		// Nobody reads it now, and should a power cut bring it back, the next start empties it again.
		err = os.Truncate(file, 0)
	}
	if err != nil {
		return &ocf.Error{Object: "table of exports", Found: "cannot be emptied", Err: err, Do: "repair " + w.tabDir}
	}
	return nil
}

// exportfs calls the tool once for each set of options.
func (a *agent) exportfs(ctx context.Context, list []nfsexports.Export) error {
	var order []string
	byOptions := map[string][]string{}
	for _, e := range list {
		opts := strings.Join(e.Options, ",")
		if _, ok := byOptions[opts]; !ok {
			order = append(order, opts)
		}
		byOptions[opts] = append(byOptions[opts], e.Argument())
	}
	ctx, cancel := within(ctx, 20*time.Second)
	defer cancel()
	for _, opts := range order {
		args := append([]string{"-i", "-o", opts, "--"}, byOptions[opts]...)
		res, err := a.runner.Run(ctx, "exportfs", args...)
		if err != nil {
			return &ocf.Error{
				Object: "exportfs", Found: "refuses " + strings.Join(byOptions[opts], " ") + " (" + opts + ")", Err: err,
				Do: "correct the export",
			}
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(res.Stderr)), "\n") {
			if _, name, ok := strings.Cut(line, ": Failed to resolve "); ok {
				a.unresolved = append(a.unresolved, name)
				a.Log.Info(line) // settle tells what it means
			} else if line != "" {
				a.Log.Warn(line)
			}
		}
	}
	return nil
}

// settle makes the exports those that exportfs has taken. It passes over a client whose name does
// not resolve, makes one entry of two names of one host, and succeeds: expected later, they would
// look as if somebody had withdrawn them, and the server be restarted for ever. One client must not
// take the service from the others; a directory that nobody can mount is no service.
func (a *agent) settle(w *settings) error {
	table, err := a.exported(w.tabDir)
	if err != nil {
		return &ocf.Error{Object: "table of exports", Found: "cannot be read", Err: err, Do: "repair " + w.tabDir}
	}
	shown, missing, _ := nfsexports.Compare(w.exports, table, a.unresolved...)
	have := nfsexports.Dirs(shown)
	for _, dir := range nfsexports.Dirs(missing) {
		if slices.Contains(have, dir) {
			continue
		}
		var clients []string
		for _, e := range missing {
			if e.Dir == dir {
				clients = append(clients, e.Client)
			}
		}
		return &ocf.Error{
			Object: "export of " + dir, Found: "exportfs took none of its clients: " + strings.Join(clients, ", "),
			Expected: "names that resolve on this node", Do: "see getent hosts NAME; put the names into /etc/hosts, or give addresses",
		}
	}
	for _, e := range missing {
		why := "it is the same host as another client of the directory, or its name does not resolve"
		do := "give each host once for a directory, by a name that resolves"
		if slices.Contains(a.unresolved, e.Client) {
			why = "its name does not resolve"
			do = "put it into /etc/hosts or repair the DNS, then reload-agent or a restart; or remove it"
		}
		a.Log.Warn(fmt.Sprintf("%s is not exported to %s: exportfs did not take it, for %s; %s", e.Dir, e.Client, why, do))
	}
	w.exports = shown
	return nil
}

// reload puts changed exports into effect without touching the clients of the others.
func (s system) reload(ctx context.Context, c *ocf.Call) error {
	a := s.agent(c)
	w, err := a.settings()
	if err != nil {
		return err
	}
	f, err := a.facts(w.tabDir)
	if err != nil {
		return err
	}
	if f.threads == 0 || !a.serving(f) {
		return &ocf.Error{Object: "NFS server", Found: "does not run", Expected: "a running server", Do: "start it"}
	}
	had, err := a.recorded(f)
	if err != nil {
		return err
	}
	if a.Env.Caller == ocf.Hand {
		w.local = w.local || had.Local
	}
	if err := a.exports(&w); err != nil {
		return err
	}
	if err := a.haveDirectories(w); err != nil {
		return err
	}
	if err := a.exportfs(ctx, w.exports); err != nil {
		return err
	}
	wanted := w.exports
	if err := a.settle(&w); err != nil {
		return err // what was exported before still is
	}
	if err := a.withdraw(ctx, &w, wanted, had.Exports); err != nil {
		return err
	}
	if err := a.kernel.FlushExports(time.Now().Unix()); err != nil {
		return &ocf.Error{Object: "export caches", Found: "cannot be flushed", Err: err}
	}
	a.Log.Info(fmt.Sprintf("%d exports in effect", len(w.exports)))
	had.Exports, had.FromFiles, had.Local = w.exports, w.fromFiles, w.local
	return a.writeRecord(had)
}

// withdraw takes back what was exported and is wanted no more.
func (a *agent) withdraw(ctx context.Context, w *settings, wanted, had []nfsexports.Export) error {
	table, err := a.exported(w.tabDir)
	if err != nil {
		return unreadable(err)
	}
	var surplus []nfsexports.Export
	for _, e := range had {
		if !slices.ContainsFunc(wanted, func(n nfsexports.Export) bool { return n.Dir == e.Dir && n.Client == e.Client }) {
			surplus = append(surplus, e)
		}
	}
	// exportfs has dropped those whose names do not resolve any more, and refuses to withdraw them.
	_, _, other := nfsexports.Compare(w.exports, table)
	surplus, _, _ = nfsexports.Compare(surplus, other, a.unresolved...)
	for _, e := range surplus {
		if _, err := a.runner.Run(ctx, "exportfs", "-u", "--", e.Argument()); err != nil {
			return &ocf.Error{Object: "exportfs", Found: "does not withdraw " + e.Argument(), Err: err}
		}
	}
	return nil
}

// recorded is what the server was started with. A call by hand that names no exports means the
// files; it must not put them in the place of exports that the resource's parameters give.
func (a *agent) recorded(f facts) (record, error) {
	if f.record == nil {
		a.Log.Warn("there is no record of what was exported before: what is exported no more stays so until a restart")
		return record{Versions: f.versions, Ports: f.ports}, nil
	}
	_, given, _ := paramExports(a.Params)
	if a.Env.Caller == ocf.Hand && !given && !f.record.FromFiles && len(f.record.Exports) > 0 {
		return record{}, &ocf.Error{
			Object: "exports", Found: "are given by the parameters of the resource, and not by /etc/exports",
			Do: "change the parameters, which the cluster puts into effect itself",
		}
	}
	return *f.record, nil
}

// patience is how long a daemon may take to end on SIGTERM before it is killed; all of them end
// in milliseconds unless the disk hangs.
const patience = 5 * time.Second

// endDaemons ends exactly our own processes.
func (a *agent) endDaemons(ctx context.Context, list []process.Process) error {
	if len(list) == 0 {
		return nil
	}
	var names []string
	for _, p := range list {
		names = append(names, identify(p))
	}
	a.Waiting("the end of %s", strings.Join(names, ", "))
	defer a.Waiting("")
	err := a.table.End(ctx, patience, ids(list)...)
	if err != nil {
		return &ocf.Error{Object: "NFS daemons", Found: "do not end", Err: err, Do: "see whether the disk below " + a.state + " answers"}
	}
	return nil
}
