package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/command"
	"baton/agents/internal/mounts"
	"baton/agents/internal/nfsexports"
	"baton/agents/internal/nfsproc"
	"baton/agents/internal/process"
	"baton/agents/internal/systemd"
	"baton/ocf"
)

type internalAction = func(ctx context.Context, c *ocf.Call, args []string) error

// system is the machine that the agent works on.
type system struct {
	root string // "/" in life
	// mapper is the port of the clients' port mappers; 0 in life, which means 111.
	mapper uint16
	// up tells in the place of the kernel whether an address is up; nil in life.
	up func(netip.Addr) bool
}

// agent is one call at work on the server.
type agent struct {
	*ocf.Call
	sys     system
	state   string // nfs_shared_infodir
	kernel  nfsproc.Server
	table   process.System
	mounts  mounts.Table
	runner  command.Runner
	systemd systemd.Manager
	// reached is the file that holds when, since the boot, the service address was first seen up.
	reached string
	// waitingSince is the file that holds since when all server threads wait in the kernel.
	waitingSince string
	// tracker is the nfsdcld that this start has started.
	tracker process.Process
	// unresolved are the names of clients that exportfs could not resolve.
	unresolved []string
}

// markName is the environment variable that every daemon we start carries; its value is the
// state directory. A pid can be lost and used again, the environment a process was started with
// stays with it and with what it forks.
const markName = "BATON_NFSD"

// mountSource is the source of the virtual file systems that we mount, for people who read the
// table of mounts.
const mountSource = "baton-nfsd"

func (s system) agent(c *ocf.Call) *agent { return s.agentFor(c, c.Params.String(parState)) }

// agentFor is for the helper, which gets no parameters: with the state directory come the mark of
// what it starts, and the place of the records.
func (s system) agentFor(c *ocf.Call, state string) *agent {
	a := &agent{Call: c, sys: s, state: state}
	proc := filepath.Join(s.root, "proc")
	a.kernel = nfsproc.Server{Proc: proc}
	a.table = process.System{Proc: proc}
	a.mounts = mounts.Table{Proc: proc}
	a.runner = command.Runner{Env: []string{markName + "=" + a.state}}
	a.systemd = systemd.Manager{Root: s.root}
	if file, err := a.recordFile(); err == nil {
		a.reached, a.waitingSince = file+".reached", file+".waiting"
	}
	return a
}

func (a *agent) path(parts ...string) string {
	return filepath.Join(append([]string{a.sys.root}, parts...)...)
}

// record is what start leaves behind for the other actions of this boot.
type record struct {
	Boot  string
	State string
	// Exports are what start or reload-agent exported, so that a monitor does not take an edited
	// file that nobody has put into effect yet for a fault. FromFiles: /etc/exports held them.
	Exports   []nfsexports.Export
	FromFiles bool
	// Local is local_exports, which a reload by hand need not know.
	Local bool
	// Versions and Ports are what start set, for the same reason: nfs.conf may have been edited.
	Versions nfsproc.Versions
	Ports    []nfsproc.Port
	// Home is the real path of the state directory: a monitor must not touch the disk to follow links.
	Home string
	// ReadOnly are the exported directories of which it was told that nobody can write there.
	ReadOnly []string
	// Started is when the threads ran, since the boot; 0 as long as they do not.
	Started time.Duration
}

func (a *agent) recordFile() (string, error) {
	dir, err := a.Records()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, recordName(a.state)), nil
}

// recordName is made of the state directory and not of the resource's name, which a call by hand
// does not know. The longest name of a file is 255 bytes (NAME_MAX); temporary ones are longer.
func recordName(state string) string {
	name := "nfsd-" + strings.NewReplacer("%", "%25", "/", "%2F").Replace(strings.TrimPrefix(state, "/"))
	const most = 180
	if len(name) > most {
		name = fmt.Sprintf("%s-%x", name[:most], sha256.Sum256([]byte(state)))[:most+17]
	}
	return name
}

func (a *agent) bootID() string {
	id, err := os.ReadFile(a.path("proc/sys/kernel/random/boot_id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// writeRecord says that the server is ours. It is written before the threads start: should all
// our daemons be killed, stop still knows whose threads these are.
func (a *agent) writeRecord(r record) error {
	file, err := a.recordFile()
	if err != nil {
		return err
	}
	r.Boot, r.State = a.bootID(), a.state
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(file, text, 0o600); err != nil {
		return &ocf.Error{Object: "record", Found: "cannot be written", Err: err, Do: "make room on or repair HA_RSCTMP"}
	}
	return nil
}

// readRecord returns the record of this boot for this state directory, or nil. One that cannot
// be understood counts as absent: the daemons' marks tell the same.
func (a *agent) readRecord() *record {
	file, err := a.recordFile()
	if err != nil {
		a.Log.Warn(err.Error())
		return nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r record
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		a.Log.Warn(fmt.Sprintf("record %s cannot be read and is passed over: %v", file, err))
		return nil
	}
	if r.Boot != a.bootID() || r.State != a.state {
		return nil
	}
	return &r
}

func (a *agent) dropRecord() error {
	file, err := a.recordFile()
	if err != nil {
		return err
	}
	for _, f := range []string{file, a.reached, a.waitingSince} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// daemons are the kernel's names (at most 15 bytes) of what may belong to an NFS server. Our own
// helper has the agent's name.
var daemons = []string{"nfsdcld", "rpc.mountd", "rpc.statd", "rpcbind", "nfsd"}

// household are the processes of NFS on this machine.
type household struct {
	ours    []process.Process // marked with our state directory
	foreign []process.Process // of nobody, or of another instance; of our network namespace
	threads []process.Process // kernel threads of the server
}

func (h household) find(list []process.Process, name string) (process.Process, bool) {
	for _, p := range list {
		if p.Comm == name {
			return p, true
		}
	}
	return process.Process{}, false
}

func (a *agent) household() (household, error) {
	var h household
	pids, err := a.kernel.Named(daemons...)
	if err != nil {
		return h, &ocf.Error{Object: "process table", Found: "cannot be read", Err: err}
	}
	for _, pid := range pids {
		p, err := a.table.Get(pid)
		if errors.Is(err, process.ErrGone) || err == nil && p.State.Ended() {
			continue
		}
		if err != nil {
			return h, &ocf.Error{Object: "process table", Found: "cannot be read", Err: err}
		}
		if len(p.Args) == 0 {
			if p.Comm == "nfsd" && p.Parent == kthreadd {
				h.threads = append(h.threads, p)
			}
			continue
		}
		mark, marked := a.kernel.Environ(p.PID, markName)
		switch {
		case marked && mark == a.state:
			if p.PID != os.Getpid() {
				h.ours = append(h.ours, p)
			}
		case p.Comm != "nfsd" && a.kernel.SameNetwork(p.PID):
			h.foreign = append(h.foreign, p)
		}
	}
	return h, nil
}

// kthreadd is the parent of all threads of the kernel (rest_init in init/main.c).
const kthreadd = 2

func ids(list []process.Process) []process.ID {
	var out []process.ID
	for _, p := range list {
		out = append(out, p.ID)
	}
	return out
}

// within bounds a step of an action: half of what is left of the action's time, at most d.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if until, ok := ctx.Deadline(); ok {
		d = min(d, max(time.Until(until)/2, 100*time.Millisecond))
	}
	return context.WithTimeout(ctx, d)
}

// pollEvery is how often a state that tells nobody when it changes is looked at.
const pollEvery = 20 * time.Millisecond

// poll asks until the answer is yes, an error, or the end of ctx.
func poll(ctx context.Context, ask func() (bool, error)) error { return pollEach(ctx, pollEvery, ask) }

func pollEach(ctx context.Context, every time.Duration, ask func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		yes, err := ask()
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
