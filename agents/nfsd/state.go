package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/mounts"
	"baton/agents/internal/nfsscope"
	"baton/ocf"
)

// The names in the state directory. ocf:heartbeat:nfsserver mounts its directory over
// /var/lib/nfs, so that the database lies at the same place there.
const (
	trackerDir = "nfsdcld"
	statdDir   = "statd"
	scopeFile  = "server-scope"
)

// stateDevice refuses a state directory that would not travel: a mount has been forgotten.
func (a *agent) stateDevice(w settings) error {
	a.Waiting("the file system of %s to answer", w.state)
	defer a.Waiting("")
	dir, err := resolve(a.path(w.state))
	if err != nil {
		return &ocf.Error{Object: w.state, Found: "cannot be reached", Err: err}
	}
	on, err := a.mounts.OwnDevice(dir)
	var local *mounts.LocalError
	if errors.As(err, &local) {
		return &ocf.Error{
			Kind: ocf.NotInstalled, Object: parState, Found: err.Error(), Expected: "a mounted replicated device",
			Do: "mount it before this resource (order, group)",
		}
	}
	if err != nil {
		return err
	}
	if readOnly(on) {
		return &ocf.Error{
			Object: parState, Found: fmt.Sprintf("%s is mounted read-only", on), Expected: "a writable file system",
			Do: doDisk,
		}
	}
	return nil
}

const doDisk = "see the kernel's log for errors of the disk"

// readOnly reports whether nothing can be written there, by the mount's options or the file
// system's. The ext4 of newer kernels keeps its "rw" after an error and has a word of its own beside
// it: one for errors=remount-ro, one for a file system that does nothing at all any more.
func readOnly(m mounts.Mount) bool {
	words := strings.Split(m.Super, ",")
	return m.ReadOnly() || slices.Contains(words, "emergency_ro") || slices.Contains(words, "shutdown")
}

// readOnlyHome is the state directory's mount in words if nothing can be written there; nfsdcld
// records no client then. It reads the table of mounts alone, for the disk may be frozen.
func (a *agent) readOnlyHome(r *record) string {
	home := a.state
	if r != nil && r.Home != "" {
		home = r.Home
	}
	m, err := a.mounts.Of(home)
	if err != nil {
		a.Log.Warn("whether the state directory can be written cannot be told: " + err.Error())
		return "" // stop asks as well, and does without
	}
	if m.Point == "/" || !readOnly(m) {
		return "" // on the root's file system lies a link to it at most
	}
	return m.String()
}

// tellReadOnly warns once of each directory that is exported for writing and lies on a file system
// that is read-only. It may be meant to be, so that nothing but the log says it. What has been told
// is kept in the record; changed says that it is another now.
func (a *agent) tellReadOnly(r *record) (changed bool) {
	var told []string
	for _, e := range r.Exports {
		if !slices.Contains(e.Options, "rw") || slices.Contains(told, e.Dir) {
			continue
		}
		m, err := a.mounts.Of(e.Dir)
		if err != nil || m.Point == "/" || !readOnly(m) {
			continue
		}
		told = append(told, e.Dir)
		if !slices.Contains(r.ReadOnly, e.Dir) {
			a.Log.Warn(fmt.Sprintf("%s is exported for writing, but %s is read-only; %s", e.Dir, m, doDisk))
		}
	}
	changed = !slices.Equal(told, r.ReadOnly)
	r.ReadOnly = told
	return changed
}

// resolve follows the symbolic links of the part of the path that exists.
func resolve(path string) (string, error) {
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || path == "/" {
			return "", err
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = filepath.Dir(path)
	}
}

// prepareState makes what the state directory lacks and returns the server scope. The settings
// get the directory's real path, under which the kernel shows its files.
func (a *agent) prepareState(w *settings) (scope string, err error) {
	if err := os.MkdirAll(a.path(w.stateDir(trackerDir)), 0o755); err != nil {
		return "", stateError(err)
	}
	real, err := filepath.EvalSymlinks(a.path(w.state))
	if err != nil {
		return "", stateError(err)
	}
	w.state = real
	if w.v3() {
		if err := a.prepareLocking(*w); err != nil {
			return "", err
		}
	}
	if w.scope != "" {
		return w.scope, nil
	}
	return a.keptScope(*w)
}

func stateError(err error) error {
	return &ocf.Error{Object: parState, Found: "cannot be prepared", Err: err, Do: "repair the state directory"}
}

// keptScope is the name of this service, made once and kept with its data, so that each node
// that serves the data uses the same, and no other service does: clients take two servers of one
// scope for one (RFC 8881, 2.10.4).
func (a *agent) keptScope(w settings) (string, error) {
	file := a.path(w.stateDir(scopeFile))
	text, err := os.ReadFile(file)
	if err == nil {
		scope := strings.TrimSpace(string(text))
		if scope == "" || len(scope) > nfsscope.MaxLen || strings.ContainsAny(scope, " \t\n\x00") {
			return "", &ocf.Error{
				Object: file, Found: "holds no server scope", Expected: "one word of at most 64 characters",
				Do: "write it again from a backup, or remove it: then open files and locks are lost once",
			}
		}
		return scope, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", stateError(err)
	}
	scope := "baton-" + strings.ToLower(rand.Text())
	if err := atomicfile.Write(file, []byte(scope+"\n"), 0o644); err != nil {
		return "", stateError(err)
	}
	return scope, nil
}

// prepareLocking makes statd's directories and gives them to the user as whom statd runs: the
// owner of the directory given to it (nsm_drop_privileges in nfs-utils support/nsm/file.c).
// Lists that ocf:heartbeat:nfsserver kept elsewhere in the state directory are moved in.
func (a *agent) prepareLocking(w settings) error {
	uid, gid := a.statdOwner(w)
	base := a.path(w.stateDir(statdDir))
	for _, dir := range []string{base, filepath.Join(base, "sm"), filepath.Join(base, "sm.bak")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return stateError(err)
		}
	}
	if err := a.adoptLocking(w, base); err != nil {
		return stateError(err)
	}
	if w.notify {
		if err := a.retireClients(base); err != nil {
			return stateError(err)
		}
	}
	err := filepath.WalkDir(base, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
	if err != nil {
		return stateError(err)
	}
	if text, err := os.ReadFile(a.path(w.stateDir("rmtab"))); err == nil {
		if _, err := atomicfile.WriteIfChanged(a.path(w.tabDir, "rmtab"), text, 0o644); err != nil {
			a.Log.Warn("the list of mounts (rmtab) was not taken over: " + err.Error())
		}
	}
	return nil
}

// statdOwner is the owner of the distribution's own directory of statd: statd on Debian, rpcuser
// on RHEL, with other numbers on each machine.
func (a *agent) statdOwner(w settings) (uid, gid int) {
	for _, dir := range []string{"statd/sm", "sm", "statd"} {
		info, err := os.Lstat(a.path(w.tabDir, dir))
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			return int(st.Uid), int(st.Gid)
		}
	}
	return 0, 0
}

// adoptLocking moves the lists of lock clients and statd's counter that ocf:heartbeat:nfsserver
// left: sm and sm.bak directly in the directory (Debian), and sm.ha, its copy of a planned stop.
func (a *agent) adoptLocking(w settings, base string) error {
	state := a.path(w.state)
	for from, to := range map[string]string{
		"sm": "sm", "sm.bak": "sm.bak", "sm.ha": "sm", "statd/sm.ha": "sm",
	} {
		entries, err := os.ReadDir(filepath.Join(state, from))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			if err := moveNew(filepath.Join(state, from, e.Name()), filepath.Join(base, to, e.Name())); err != nil {
				return err
			}
		}
	}
	return moveNew(filepath.Join(state, "state"), filepath.Join(base, "state"))
}

// moveNew moves a file unless there is one at its new place, or none at the old.
func moveNew(from, to string) error {
	if info, err := os.Lstat(from); err != nil || !info.Mode().IsRegular() {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(from, to)
}

// lockClients are the hosts that statd has on its lists: they may hold locks of NFSv3.
func (a *agent) lockClients(w settings) ([]string, error) {
	var hosts []string
	for _, dir := range []string{"sm", "sm.bak"} {
		list, err := listed(a.path(w.stateDir(statdDir, dir)))
		if err != nil {
			return nil, stateError(err)
		}
		hosts = append(hosts, list...)
	}
	return hosts, nil
}
