package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/command"
	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// gather reads the names, headers and ends of the files that the decision depends on.
func (a *agent) gather(known history) (material, error) {
	defer a.spend(&a.spent.inspecting)()
	m := material{
		known:      known,
		initialize: a.call.Params.Bool("initialize"),
		accept:     a.call.Params.String("older_metadata") == olderAccept,
	}
	var err error
	if m.own, err = mfsmeta.List(a.dataDir); err != nil {
		return m, a.unreadable(err)
	}
	if _, err := os.Lstat(filepath.Join(a.dataDir, initializedMark)); err == nil {
		m.initialized = true
	}
	if a.logger != nil && a.mode == modeStorage {
		inv, err := mfsmeta.List(a.logger.dataDir)
		switch {
		case err == nil:
			m.logger = &inv
		case !errors.Is(err, fs.ErrNotExist):
			return m, a.unreadable(err)
		}
	}
	if m.emergency, err = a.emergencies(m); err != nil {
		return m, err
	}
	if len(m.emergency) > 0 {
		if m.continues, err = a.servedLast(known); err != nil {
			return m, a.unreadable(err)
		}
	}
	return m, nil
}

// servedMark names the node, and the epoch, in which the last master was started in this directory. At
// each start the emergency files of the node are used or renamed before, so that one which is there
// while the mark names this node is of just that master. Like all of the directory it goes with a
// replicated device to the node that serves next.
const servedMark = ".baton-served"

func (a *agent) served(known history) string {
	return fmt.Sprintf("epoch=%d node=%s", known.Epoch, a.nodeName())
}

// markServed is called before a master is started: a mark that came after it would be missing after a
// power cut in between.
func (a *agent) markServed(known history) error {
	path := filepath.Join(a.dataDir, servedMark)
	text := a.served(known) + "\n"
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	if err := atomicfile.Write(path, []byte(text), 0o644); err != nil {
		return a.fail(ocf.Failed, err.Error(), "a writable data directory", "check owner, mode and free space")
	}
	return nil
}

// servedLast says that the last master in this directory was one of this node. A promotion has begun
// the next epoch already when it recovers the metadata of the one before.
func (a *agent) servedLast(known history) (bool, error) {
	data, err := os.ReadFile(filepath.Join(a.dataDir, servedMark))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now, before := known, known
	before.Epoch = max(before.Epoch, 1) - 1
	text := strings.TrimSpace(string(data))
	return text == a.served(now) || text == a.served(before), nil
}

// nodeName is Pacemaker's name of this node, or its own.
func (a *agent) nodeName() string {
	if a.call.Env.Node != "" {
		return a.call.Env.Node
	}
	name, _ := os.Hostname()
	return name
}

// emergencies finds what a dying master saved elsewhere. mfsmaster would take such a file by
// itself; since some of the places are open to everybody, a file that neither root nor the
// master's user owns is refused.
func (a *agent) emergencies(m material) ([]mfsmeta.Base, error) {
	id := m.known.MetaID
	if ids := m.own.MetaIDs(); len(ids) == 1 {
		id = ids[0]
	}
	if id == 0 {
		return nil, nil
	}
	owner, err := a.owner()
	if err != nil {
		return nil, err
	}
	var found []mfsmeta.Base
	for _, b := range mfsmeta.Emergency(a.root, owner.home, id) {
		uid, err := uidOf(b.Path)
		switch {
		case sameFile(b.Path, filepath.Join(a.dataDir, filepath.Base(b.Path))):
			// The data directory is one of those places: what lies there is one of its own files.
		case errors.Is(err, fs.ErrNotExist):
		case err != nil || uid != 0 && uid != owner.uid || mfsmeta.IsLink(b.Err):
			return nil, &ocf.Error{
				Object: b.Path, Found: "a metadata file that mfsmaster would use, but that is not the master's", Err: err,
				Expected: "owner root or " + a.user, Do: "look at it (mfsmetadump -s HEAD) and remove it, or chown it if it is genuine",
			}
		case b.Err == nil:
			found = append(found, b)
		}
	}
	return found, nil
}

// spend adds the time until the returned function is called to a sum.
func (a *agent) spend(sum *time.Duration) func() {
	begin := a.now()
	return func() { *sum += a.now().Sub(begin) }
}

// recoverMetadata brings the data directory into a state from which a plain start of the master
// serves everything that can be recovered, or refuses. It must only be called when no master runs.
// It returns the version that the master must then report.
func (a *agent) recoverMetadata(ctx context.Context, m material, how method) (plan, error) {
	for {
		p, err := a.inspect(m)
		if err != nil {
			return p, err
		}
		for _, w := range p.warnings {
			a.call.Log.Warn(a.dataDir + ": " + w)
		}
		a.call.Log.Info(fmt.Sprintf("%s: %s; version %d from %s", a.dataDir, p.row, p.version, p.base.Name()))
		p.left, err = a.carryOut(ctx, p, how)
		var failed *restoreError
		if !errors.As(err, &failed) {
			return p, err
		}
		var told *command.Error // without it, mfsmaster succeeded and left nothing that can be used
		if how == methodRestore && errors.As(failed.err, &told) && !blamesMetadata(failed.err) {
			return p, a.restoreFailed(failed.err)
		}
		// mfsmaster could not read what looked whole. The base is set aside with the next plan,
		// which is only taken if an older base leads to the same version.
		a.call.Log.Error(fmt.Sprintf("%s: mfsmaster cannot restore from %s: %v", a.dataDir, p.base.Name(), failed.err))
		m.failed = append(m.failed, p.base.Path)
		if m.known.Version < p.version {
			m.known.Version = p.version
		}
		if m.own, err = mfsmeta.List(a.dataDir); err != nil {
			return p, a.unreadable(err)
		}
		if _, r := choose(m); r != nil {
			return p, &ocf.Error{
				Object: p.base.Path, Found: "mfsmaster cannot restore from it", Err: failed.err,
				Expected: "a sound metadata file", Do: rescueHint(m),
			}
		}
	}
}

// restoreFailed is about a restore that failed for another reason than what it was given to read.
func (a *agent) restoreFailed(err error) error {
	return &ocf.Error{
		Object: a.dataDir, Found: "mfsmaster restore failed: " + lastWords(err), Err: err, Expected: "restored metadata",
		Do: "see the log of mfsmaster; check free space and memory (dmesg); the metadata files are where they were",
	}
}

// inspect decides what has to be done. Each changelog that matters is read once.
func (a *agent) inspect(m material) (plan, error) {
	defer a.spend(&a.spent.inspecting)()
	ap, r := choose(m)
	if r != nil {
		return plan{}, r.error(a.dataDir)
	}
	scan, err := mfsmeta.ScanLogs(m.own.Dir, ap.logs, ap.base.Version)
	if err != nil {
		return plan{}, a.unreadable(err)
	}
	p, r := decide(m, ap, scan)
	if r != nil {
		return p, r.error(a.dataDir)
	}
	return p, nil
}

// restoreError says that mfsmaster itself could not make metadata of what it was given.
type restoreError struct{ err error }

func (e *restoreError) Error() string { return e.err.Error() }
func (e *restoreError) Unwrap() error { return e.err }

// carryOut does what the plan says. Everything that is cut off, set aside or replaced is in the
// archive before. left is what mfsmaster still has to read.
func (a *agent) carryOut(ctx context.Context, p plan, how method) (left []string, err error) {
	if p.make {
		return nil, a.initialize(ctx, how)
	}
	v := a.newArchive(fmt.Sprintf("%s, recovery of version %d", p.row, p.version))
	for _, t := range p.trim {
		if err := a.trim(v, t); err != nil {
			return nil, err
		}
	}
	for _, path := range p.aside {
		if err := v.take(path); err != nil {
			return nil, a.archiveFailed(err)
		}
	}
	for _, path := range p.retire {
		if err := a.retireEmergency(path); err != nil {
			return nil, err
		}
	}
	copied, err := a.mergeLogs(p)
	if err != nil {
		return nil, err
	}
	if p.restore {
		if err := a.restore(ctx, v, p, how); err != nil {
			a.removeCopies(copied)
			return nil, err
		}
	}
	used := slices.Concat(p.after, copied)
	if p.restore && how == methodAuto {
		used, left = nil, used
	}
	if err := a.putAway(v, used); err != nil {
		return nil, err
	}
	a.pruneArchive(v)
	return left, atomicfile.SyncDir(a.dataDir)
}

// putAway takes what has been restored from out of mfsmaster's sight: a master that goes on has other
// changes of the same ids soon.
func (a *agent) putAway(v *archive, used []string) error {
	for _, path := range used {
		if filepath.Dir(path) != a.dataDir {
			if err := a.retireEmergency(path); err != nil {
				return err
			}
			continue
		}
		if err := v.take(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return a.archiveFailed(err)
		}
	}
	return nil
}

// retireEmergency gives an emergency file a name by which mfsmaster does not find it. It stays where it
// is: it lies on another device, and the data directory may have no room for it, which is why it exists.
func (a *agent) retireEmergency(path string) error {
	next := filepath.Join(filepath.Dir(path), "baton-kept-"+a.now().UTC().Format(archiveName)+"-"+filepath.Base(path))
	err := os.Rename(path, next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &ocf.Error{
			Object: path, Found: "an emergency file that mfsmaster would restore from again cannot be renamed", Err: err,
			Expected: "none at the next start", Do: "move it away",
		}
	}
	a.call.Log.Warn(fmt.Sprintf("%s is not needed any more and was renamed to %s; remove it when you are sure", path, next))
	return nil
}

func (a *agent) removeCopies(copied []string) {
	for _, path := range copied {
		if err := os.Remove(path); err != nil {
			a.call.Log.Warn(err.Error())
		}
	}
}

// trim cuts a changelog back to its last whole line. MooseFS throws the whole file away otherwise,
// or glues its next change to the fragment.
func (a *agent) trim(v *archive, t mfsmeta.Tear) error {
	if err := v.tail(t.Path, t.Keep, t.Size); err != nil {
		return a.archiveFailed(err)
	}
	f, err := openNoFollow(t.Path, os.O_WRONLY)
	if err != nil {
		return a.unreadable(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() != t.Size {
		err = fmt.Errorf("%s has %d bytes now and had %d: somebody writes to it", t.Path, info.Size(), t.Size)
	}
	if err == nil {
		err = f.Truncate(t.Keep)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return a.fail(ocf.Failed, "torn changelog could not be cut: "+err.Error(), "a writable changelog that nobody else writes", "check the file and its disk")
	}
	return nil
}

// mergeLogs copies the metalogger's changelogs into the data directory, without their torn tails.
// The metalogger's own files are left as they are. It returns the names of the copies.
func (a *agent) mergeLogs(p plan) (copied []string, err error) {
	if len(p.merge) == 0 {
		return nil, nil
	}
	owner, err := a.owner()
	if err != nil {
		return nil, err
	}
	for _, l := range p.merge {
		size := l.Size
		for _, t := range p.tears {
			if t.Path == l.Path {
				size = t.Keep
			}
		}
		target, err := freeLogName(a.dataDir, l)
		if err == nil {
			err = copyPrefix(target, l.Path, size, owner)
		}
		if err != nil {
			a.removeCopies(copied)
			return nil, a.fail(ocf.Failed, "the metalogger's changelogs cannot be copied: "+err.Error(), "room for them", "free space and clean up the resource")
		}
		copied = append(copied, target)
	}
	return copied, nil
}

// freeLogName keeps the number if it is free; mfsmaster takes any.
func freeLogName(dir string, l mfsmeta.Log) (string, error) {
	for n := l.Number; n < l.Number+1000; n += 100 {
		path := filepath.Join(dir, fmt.Sprintf("%s.%d.mfs", l.Chain, n))
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
	}
	return "", fmt.Errorf("no free name for %s", l.Path)
}

func copyPrefix(target, path string, size int64, owner owner) error {
	in, err := openNoFollow(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	return copyNew(target, io.LimitReader(in, size), owner.uid, owner.gid, 0o640)
}

// replaced are the files that a restore makes anew, from themselves and the changelogs.
var replaced = []string{cleanName, "metadata.mfs.back"}

// restore lets MooseFS make a clean metadata.mfs, checks what came out, and puts it on the disk:
// MooseFS itself syncs nothing.
func (a *agent) restore(ctx context.Context, v *archive, p plan, how method) error {
	for _, name := range replaced {
		path := filepath.Join(a.dataDir, name)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := v.link(path); err != nil {
			return a.archiveFailed(err)
		}
	}
	if how == methodAuto {
		return nil // mfsmaster -a does it while starting; the version is checked when it answers
	}
	if err := a.runRestore(ctx, p, how); err != nil {
		return err
	}
	path := filepath.Join(a.dataDir, cleanName)
	h, err := mfsmeta.ReadHeader(path)
	switch {
	case err != nil:
		return &restoreError{fmt.Errorf("it left no sound metadata.mfs: %w", err)}
	case h.Version < p.version:
		return a.fail(ocf.Failed, fmt.Sprintf("restored version %d", h.Version), fmt.Sprintf("%d, which the changelogs reach", p.version),
			"run "+a.restoreCommand()+" by hand with -x and look what it leaves out")
	case p.metaID != 0 && h.MetaID != 0 && h.MetaID != p.metaID:
		return a.fail(ocf.Failed, fmt.Sprintf("restored meta id %016x", h.MetaID), fmt.Sprintf("%016x", p.metaID), "check what "+a.dataDir+" holds")
	}
	return syncFile(path)
}

func syncFile(path string) error {
	f, err := openNoFollow(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

func (a *agent) restoreCommand() string {
	return a.call.Params.String("binary") + " -c " + a.config.Path + " restore"
}

// runRestore runs MooseFS's offline recovery. On a running master, mfsmaster's restore would send
// it SIGTERM: so the locks are looked at once more, immediately before.
func (a *agent) runRestore(ctx context.Context, p plan, how method) error {
	for _, lock := range []string{mfsmeta.MasterLock, mfsmeta.WriterLock} {
		pid, err := mfsmeta.LockOwner(a.dataDir, lock)
		if err != nil {
			return a.unreadable(err)
		}
		if pid != 0 {
			return a.fail(ocf.Failed, fmt.Sprintf("pid %d has taken %s meanwhile", pid, lock), "no master while metadata are restored", "stop it: only the cluster may start the master")
		}
	}
	defer a.spend(&a.spent.restoring)()
	a.call.Waiting("%s to restore version %d", a.dataDir, p.version)
	defer a.call.Waiting("")
	var err error
	if how == methodLegacy {
		err = a.legacyRestore(ctx, p)
	} else {
		_, err = a.run.Run(ctx, a.call.Params.String("binary"), "-c", a.config.Path, "-t", "5", "restore")
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return &restoreError{err}
	}
	return nil
}

// legacyRestore runs mfsmetarestore of 1.6: -m OLD -o NEW changelogs. Its -a would prefer a file
// left over from an earlier recovery.
func (a *agent) legacyRestore(ctx context.Context, p plan) error {
	inv, err := mfsmeta.List(a.dataDir)
	if err != nil {
		return err
	}
	next := filepath.Join(a.dataDir, "baton-restored.mfs")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	args := []string{"-m", p.base.Path, "-o", next}
	for _, l := range mfsmeta.Select(inv.Logs, p.base.Version) {
		args = append(args, l.Path)
	}
	if _, err := a.run.Run(ctx, a.call.Params.String("metarestore_binary"), args...); err != nil {
		return err
	}
	h, err := mfsmeta.ReadHeader(next)
	if err != nil {
		return err
	}
	if h.Version < p.version {
		return fmt.Errorf("mfsmetarestore reached version %d only, %d expected", h.Version, p.version)
	}
	owner, err := a.owner()
	if err != nil {
		return err
	}
	if err := os.Lchown(next, owner.uid, owner.gid); err != nil {
		return err
	}
	if err := syncFile(next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(a.dataDir, cleanName))
}

// initializedMark remembers that a file system was made here: it is made once.
const initializedMark = ".baton-initialized"

// initialize makes a new file system: the first, empty metadata, one life of the master that gives
// it a meta id, and a clean stop. Only then is there a metadata file that metaloggers can follow.
func (a *agent) initialize(ctx context.Context, how method) error {
	if how == methodLegacy {
		return a.fail(ocf.BadConfig, "initialize=true with MooseFS 1.6", "MooseFS 2 or newer", "make the first metadata by hand")
	}
	owner, err := a.owner()
	if err != nil {
		return err
	}
	mark := filepath.Join(a.dataDir, initializedMark)
	text := fmt.Sprintf("A new file system was made here on %s.\n", a.now().UTC().Format("2006-01-02 15:04:05 MST"))
	if err := atomicfile.Write(mark, []byte(text), 0o644); err != nil {
		return a.fail(ocf.Failed, err.Error(), "a writable data directory", "check owner, mode and free space")
	}
	path := filepath.Join(a.dataDir, cleanName)
	if err := copyNew(path, strings.NewReader("MFSM NEW"), owner.uid, owner.gid, 0o640); err != nil {
		return errors.Join(a.fail(ocf.Failed, err.Error(), "no metadata.mfs", "look at the directory"), os.Remove(mark))
	}
	a.call.Log.Warn(a.dataDir + ": a new, empty file system is made, as initialize=true says; remove that parameter now")
	err = a.launch(ctx, how, false)
	if err == nil {
		_, err = a.awaitAnswer(ctx)
	}
	if err != nil {
		a.unmake(ctx)
		return err
	}
	return a.shutDown(ctx)
}

// unmake takes back a file system whose first master did not come up, so that the next start can make
// it: only while there is nothing of it but the eight bytes that it began with.
func (a *agent) unmake(ctx context.Context) {
	ctx, cancel := a.afterwards(ctx)
	defer cancel()
	if err := a.shutDown(ctx); err != nil {
		a.call.Log.Warn(err.Error())
		return
	}
	inv, err := mfsmeta.List(a.dataDir)
	if err != nil || len(inv.Logs) > 0 || slices.ContainsFunc(inv.Bases, func(b mfsmeta.Base) bool { return b.Err != nil || !b.New }) {
		return
	}
	for _, b := range inv.Bases {
		// mfsmaster renames the one to the other while it starts.
		if b.Name() != cleanName && b.Name() != "metadata.mfs.back" {
			continue
		}
		if err := os.Remove(b.Path); err != nil {
			a.call.Log.Warn(err.Error())
			return
		}
	}
	if err := os.Remove(filepath.Join(a.dataDir, initializedMark)); err != nil {
		a.call.Log.Warn(err.Error())
	}
}

// method is how a version of MooseFS recovers its metadata.
type method int

const (
	// methodRestore: "mfsmaster restore" works offline (3.0.106 and newer, 4.16.1 and newer).
	methodRestore method = iota
	// methodAuto: only "mfsmaster -a start" does it.
	methodAuto
	// methodLegacy: mfsmetarestore of 1.6.
	methodLegacy
)

// methodFor chooses by what "mfsmaster -v" prints: "version: 3.0.117-1 ; build: 1341".
func methodFor(said string) (method, error) {
	at := strings.Index(said, "version:")
	if at < 0 {
		return 0, errors.New("mfsmaster -v names no version")
	}
	var v [3]int
	text := strings.TrimSpace(said[at+len("version:"):])
	if n, _ := fmt.Sscanf(text, "%d.%d.%d", &v[0], &v[1], &v[2]); n < 2 {
		return 0, fmt.Errorf("mfsmaster -v: %.40q is no version", text)
	}
	older := func(other [3]int) bool { return slices.Compare(v[:], other[:]) < 0 }
	switch {
	case strings.Contains(strings.ToUpper(strings.SplitN(text, "\n", 2)[0]), "PRO"):
		return 0, fmt.Errorf("MooseFS %.20s is PRO, which chooses its leader by itself", text)
	case v[0] > 4 || v[0] < 1 || older([3]int{1, 6, 0}):
		return 0, fmt.Errorf("MooseFS %d.%d is not supported; 1.6 to 4 are", v[0], v[1])
	case older([3]int{1, 7, 0}):
		return methodLegacy, nil
	case older([3]int{3, 0, 106}), v[0] == 4 && older([3]int{4, 16, 1}):
		return methodAuto, nil
	}
	return methodRestore, nil
}

func (a *agent) method(ctx context.Context) (method, error) {
	binary := a.call.Params.String("binary")
	res, err := a.run.Run(ctx, binary, "-v")
	text := string(res.Stdout) + string(res.Stderr)
	if err != nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || !strings.Contains(text, "version:")) {
		return 0, &ocf.Error{
			Kind: ocf.NotInstalled, Object: binary, Found: "cannot be run", Err: err,
			Expected: "MooseFS's master", Do: "install moosefs-master on this node or set binary",
		}
	}
	how, err := methodFor(text)
	if err != nil {
		return 0, &ocf.Error{Kind: ocf.NotInstalled, Object: binary, Found: err.Error(), Do: "install a supported version"}
	}
	return how, nil
}
