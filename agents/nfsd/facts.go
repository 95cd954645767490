package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"baton/agents/internal/nfsexports"
	"baton/agents/internal/nfsproc"
	"baton/agents/internal/process"
	"baton/ocf"
)

// facts are what this machine shows of the server at one moment, read without a child process.
type facts struct {
	household
	// mounted says that the nfsd file system can be read; without it nothing below can.
	mounted  bool
	threads  int
	versions nfsproc.Versions
	ports    []nfsproc.Port
	table    []nfsexports.Export // exportfs's table
	held     []string            // paths in the kernel's export caches
	pipe     bool                // our nfsdcld has the kernel's pipe open
	readOnly string              // the state directory's mount, where nothing can be written to it
	record   *record
}

func (a *agent) facts(tabDir string) (facts, error) {
	var f facts
	var err error
	if f.household, err = a.household(); err != nil {
		return f, err
	}
	f.record = a.readRecord()
	f.readOnly = a.readOnlyHome(f.record)
	if f.mounted, err = a.kernel.Available(); err != nil {
		return f, unreadable(err)
	}
	if f.table, err = a.exported(tabDir); err != nil {
		return f, unreadable(err)
	}
	if f.held, err = a.kernel.Held(); err != nil {
		return f, unreadable(err)
	}
	if cld, ok := f.find(f.ours, "nfsdcld"); ok {
		f.pipe = a.hasPipe(cld)
	}
	if !f.mounted {
		return f, nil
	}
	if f.threads, err = a.kernel.Threads(); err != nil {
		return f, unreadable(err)
	}
	if f.versions, err = a.kernel.Versions(); err != nil {
		return f, unreadable(err)
	}
	if f.ports, err = a.kernel.Ports(); err != nil {
		return f, unreadable(err)
	}
	return f, nil
}

func unreadable(err error) error {
	return &ocf.Error{
		Object: "NFS server", Found: "its state cannot be read", Err: err,
		Do: "look at /proc/fs/nfsd and the kernel's log",
	}
}

// exported reads exportfs's table; a missing one is empty.
func (a *agent) exported(dir string) ([]nfsexports.Export, error) {
	text, err := os.ReadFile(a.path(dir, "etab"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nfsexports.ParseTab(string(text)), nil
}

// hasPipe reports whether nfsdcld holds the pipe by which the kernel tells it of clients:
// PIPEFS/nfsd/cld. The kernel removes it again when it falls back to another way of tracking
// clients (nfsd4_cld_tracking_init in fs/nfsd/nfs4recover.c), so that an open and undeleted one
// proves that the shared database is in use.
func (a *agent) hasPipe(p process.Process) bool {
	files, err := a.kernel.OpenFiles(p.PID)
	return err == nil && slices.ContainsFunc(files, isPipe)
}

func isPipe(file string) bool { return strings.HasSuffix(file, "/nfsd/cld") }

// serving reports whether the running threads are ours: by the record of this boot, by a daemon
// that is marked, or, where the record was lost and every daemon killed, because the server
// exports a directory on the device of our state and has no daemons of anybody else.
func (a *agent) serving(f facts) bool {
	if f.record != nil || len(f.ours) > 0 {
		return true
	}
	if f.threads == 0 || owned(f.foreign) {
		return false
	}
	home, err := a.mounts.Of(a.state)
	if err != nil || home.Point == "/" {
		return false
	}
	for _, dir := range append(nfsexports.Dirs(f.table), f.held...) {
		if m, err := a.mounts.Of(dir); err == nil && m.SameDevice(home) {
			return true
		}
	}
	return false
}

// owned reports whether one of the processes makes a running server somebody else's.
func owned(list []process.Process) bool {
	return slices.ContainsFunc(list, func(p process.Process) bool { return p.Comm == "nfsdcld" || p.Comm == "rpc.mountd" })
}

// left are the things that are ours and still there, in words; empty means: stopped.
func (a *agent) left(f facts) string {
	if !a.serving(f) {
		return ""
	}
	var parts []string
	if f.threads > 0 {
		parts = append(parts, fmt.Sprintf("%d server threads", f.threads))
	} else if !f.mounted && len(f.household.threads) > 0 {
		parts = append(parts, fmt.Sprintf("%d server threads", len(f.household.threads)))
	}
	for _, p := range f.ours {
		parts = append(parts, p.Comm+" ("+p.ID.String()+")")
	}
	return strings.Join(parts, ", ")
}

// needed are the daemons that a server with these versions cannot do without.
func needed(v nfsproc.Versions) []string {
	list := []string{"rpc.mountd"}
	if v["4.0"] || v["4.1"] || v["4.2"] {
		list = append(list, "nfsdcld")
	}
	if v["3"] {
		list = append(list, "rpc.statd")
	}
	return list
}

// verdict is what a monitor makes of the facts.
type verdict struct {
	state ocf.State
	fault string // in words; empty for a server in order, or a stopped one
	do    string
}

const doRestart = ocf.Recovered + "; see the log for the cause"

// judge decides what the facts mean for the server that is wanted. It is called only for a
// server of ours; left is what there is of it.
func judge(f facts, w settings, left string) verdict {
	failed := func(format string, args ...any) verdict {
		return verdict{state: ocf.Stopped, fault: fmt.Sprintf(format, args...), do: doRestart}
	}
	if left == "" {
		return verdict{state: ocf.Stopped}
	}
	if f.threads == 0 {
		return failed("the server threads have ended, but there still is %s", left)
	}
	if f.readOnly != "" {
		v := failed("its state directory cannot be written any more: %s is read-only", f.readOnly)
		v.do = doDisk + ", then crm_resource --cleanup"
		return v
	}
	for _, name := range needed(w.versions) {
		p, ok := f.find(f.ours, name)
		if !ok {
			return failed("%s has ended", name)
		}
		if p.State == process.Halted || p.State == process.Traced {
			return failed("%s (%v) hangs: %v", name, p.ID, p.State)
		}
	}
	for _, v := range []string{"3", "4.0", "4.1", "4.2"} {
		if on := f.versions[v]; on != w.versions[v] {
			return failed("NFSv%s is %s, expected %s", v, onOff(on), onOff(w.versions[v]))
		}
	}
	for _, p := range w.ports {
		if !slices.Contains(f.ports, p) {
			return failed("the server does not listen on %s port %d", p.Transport, p.Number)
		}
	}
	if missing := nfsexports.Missing(w.exports, f.table); len(missing) > 0 {
		v := failed("not exported any more: %s", strings.Join(missing, ", "))
		v.do = "somebody ran exportfs -u; " + doRestart
		return v
	}
	if w.v4() && !f.pipe {
		return verdict{
			state: ocf.DegradedRunning, fault: "the kernel does not keep its clients in the shared database",
			do: "clients lose their locks at the next move: restart the resource while nobody needs a lock",
		}
	}
	return verdict{state: ocf.Running}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// stateDir is the path of a file below the state directory.
func (w settings) stateDir(parts ...string) string {
	return filepath.Join(append([]string{w.state}, parts...)...)
}
