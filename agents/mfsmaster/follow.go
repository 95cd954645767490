package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"baton/agents/internal/mfsmeta"
	"baton/agents/internal/mfsproto"
	"baton/agents/internal/process"
	"baton/ocf"
)

// followerState is what runs of the metalogger on this node.
func (a *agent) followerPID() (process.Process, bool, error) {
	pid, err := mfsmeta.LockOwner(a.logger.dataDir, mfsmeta.MetaloggerLock)
	if err != nil {
		return process.Process{}, false, a.unreadable(err)
	}
	if pid == 0 {
		return process.Process{}, false, nil
	}
	p, err := a.processes.Get(max(pid, 1))
	if errors.Is(err, process.ErrGone) {
		return process.Process{}, false, nil
	}
	if err != nil {
		return p, false, a.unreadable(err)
	}
	return p, !p.State.Ended(), nil
}

// monitorFollower: unpromoted means that the metalogger runs.
func (a *agent) monitorFollower(ctx context.Context) (ocf.State, error) {
	p, running, err := a.followerPID()
	if err != nil {
		return ocf.Stopped, err
	}
	if !running {
		a.call.Note("no metalogger runs in %s", a.logger.dataDir)
		return ocf.Stopped, nil
	}
	if p.State == process.Halted || p.State == process.Traced {
		return ocf.Stopped, a.fail(ocf.Failed, fmt.Sprintf("mfsmetalogger (pid %d): %v", p.PID, p.State), "a running metalogger", ocf.Recovered)
	}
	known, err := a.recorded()
	if err != nil {
		return ocf.Running, err
	}
	if !a.call.Env.Probe {
		known = a.upToDate(ctx, known)
	}
	a.call.Note("mfsmetalogger (pid %d) runs in %s", p.PID, a.logger.dataDir)
	if masterLives := a.scoreWhileFollowing(ctx, known); masterLives && !a.call.Env.Probe {
		return ocf.Running, a.missedPromotion(known)
	}
	return ocf.Running, nil
}

// upToDate reads the cluster's record anew when this node has not heard of it for long: a
// notification that failed, or that was not sent in maintenance, does not come again. A record that
// is gone says nothing about the master that is followed.
func (a *agent) upToDate(ctx context.Context, known history) history {
	if !a.inCluster() || a.kept("history") != "" && a.recordAge() <= recordEvery {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, a.patience())
	defer cancel()
	now, err := a.query(ctx)
	if err != nil {
		a.call.Log.Warn(err.Error())
		return known
	}
	if now.MetaID == 0 {
		now = known
	}
	if err := a.note(now); err != nil {
		a.call.Log.Debug(err.Error())
	}
	return now
}

// missedAfter is how long a master of another epoch has served before its followers must have been
// told. A promotion that has not ended yet may still be taken back.
const missedAfter = time.Minute

// missedPromotion finds a metalogger whose copy is marked with another epoch than that of the master
// that it follows: it counts for nothing. A start sets that copy aside and marks the next.
func (a *agent) missedPromotion(known history) error {
	epoch, err := readEpoch(a.logger.dataDir)
	if err != nil || known.MetaID == 0 || epoch == known.Epoch {
		return nil //nolint:nilerr // the copy of such a mark has no score, and that says why
	}
	if err := a.keep("missed", fmt.Sprintf("%d %d", epoch, known.Epoch)); err != nil {
		a.call.Log.Debug(err.Error())
		return nil
	}
	if a.keptAge("missed") < missedAfter {
		return nil
	}
	return a.fail(ocf.Failed, fmt.Sprintf("the metalogger in %s is of epoch %d, the cluster in epoch %d", a.logger.dataDir, epoch, known.Epoch),
		"to have been notified of the promotion", ocf.Recovered)
}

// scoreWhileFollowing brings the promotion score up to date, by the ends of the files alone.
// Where nobody has seen a master of this epoch, the score stays what it is: the moment in which nobody
// can be asked is the one in which the score decides.
func (a *agent) scoreWhileFollowing(ctx context.Context, known history) (masterLives bool) {
	seen, live := a.compareLead(ctx, known)
	masterLives = live != 0
	own, logger := a.copies()
	useLogger, ok, why := known.best(own, logger)
	if !ok && a.mayInitialize(own, logger, known) {
		return masterLives
	}
	if !ok {
		a.notPromotable(ctx, why, known.brief(own, logger), a.call.Env.Probe)
		return masterLives
	}
	version := own.version
	if useLogger {
		version = logger.version
	}
	if live != 0 || seen.latest != 0 {
		a.scoreBy(ctx, version, known, seen, live, a.call.Env.Probe)
	}
	return masterLives
}

// compareLead asks the master how far it is, and remembers it. live is 0 where none answers.
func (a *agent) compareLead(ctx context.Context, known history) (seen lead, live uint64) {
	live, err := a.masterVersion(ctx)
	if err != nil || live == 0 {
		return a.lead(known), 0
	}
	seen = a.lead(known).next(known, live, a.keptAge("lead"))
	if err := a.keep("lead", seen.String()); err != nil {
		a.call.Log.Debug(err.Error())
	}
	return seen, live
}

// lead is what this node has seen, in this boot, of the present epoch's master.
func (a *agent) lead(known history) lead {
	l := parseLead(a.kept("lead"))
	if !l.of(known) {
		return lead{}
	}
	return l
}

// scoreBy sets the score of a follower; live is 0 where no master answers any more. What a promotion
// would refuse has none, so that the cluster tries another node first.
func (a *agent) scoreBy(ctx context.Context, version uint64, known history, seen lead, live uint64, force bool) {
	seen.latest = max(seen.latest, live)
	switch {
	case !seen.lost(version) && version >= known.Version:
		a.setScore(ctx, followerScore(version, seen.latest), force)
	case a.call.Params.String("older_metadata") == olderAccept:
		a.setScore(ctx, scoreLast, force)
	case version < known.Version:
		a.notPromotable(ctx, refuseOlder(plan{version: version}, known).found, briefLost, force)
	default:
		a.notPromotable(ctx, seen.words(version), briefLost, force)
	}
}

// masterVersion asks the master at the service address how far it is.
func (a *agent) masterVersion(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, a.patience())
	defer cancel()
	client, err := mfsproto.Dial(ctx, a.logger.master)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	info, err := client.Info()
	if err != nil {
		return 0, err
	}
	return info.MetaVersion, nil
}

// copies are the two copies of the metadata on this node, seen at the ends of their files.
func (a *agent) copies() (own, logger copyOf) {
	return surveyCopy(a.dataDir), surveyCopy(a.logger.dataDir)
}

func surveyCopy(dir string) copyOf {
	inv, err := mfsmeta.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return copyOf{}
	}
	epoch, eerr := readEpoch(dir)
	if err := errors.Join(err, eerr); err != nil {
		return copyOf{exists: true, broken: err.Error()}
	}
	c := summarize(inv)
	c.epoch = epoch
	return c
}

// summarize tells how far a directory reaches, if its changelogs hold what their ends promise.
func summarize(inv mfsmeta.Inventory) copyOf {
	c := copyOf{exists: len(inv.Logs) > 0}
	if err := inv.Unreadable(); err != nil {
		return copyOf{exists: true, broken: err.Error()}
	}
	var base mfsmeta.Base
	for _, b := range inv.Bases {
		c.exists = c.exists || !b.New
		if b.Usable() && b.Version > base.Version {
			base = b
		}
	}
	if base.Path == "" {
		if b, ok := newborn(inv); ok {
			base = b
		} else {
			c.broken = "no usable metadata file"
			return c
		}
	}
	c.exists, c.metaID = true, base.MetaID
	if ids := inv.MetaIDs(); len(ids) > 1 {
		c.broken = "files of two file systems"
	}
	c.version = reach(inv, base.Version)
	return c
}

// reach follows the intervals of ids that the ends of the changelogs show, from version on.
func reach(inv mfsmeta.Inventory, version uint64) uint64 {
	for grown := true; grown; {
		grown = false
		for _, l := range inv.Logs {
			if l.First != 0 && l.First <= version && l.Last >= version {
				version, grown = l.Last+1, true
			}
		}
	}
	return version
}

// startFollower starts the metalogger of an unpromoted instance.
func (a *agent) startFollower(ctx context.Context) error {
	if err := a.checkDurability(); err != nil {
		return err
	}
	if err := a.onItsMount(); err != nil {
		return err
	}
	// A clone starts unpromoted: a master that is there already is ended, as in demote.
	if err := a.stopMaster(ctx); err != nil {
		return err
	}
	if err := a.usable(a.dataDir); err != nil {
		return err
	}
	known, err := a.known(ctx)
	if err != nil {
		return err
	}
	elsewhere := a.promotedElsewhere()
	if elsewhere != "" {
		if err := a.retireOwn(known, "the master runs on "+elsewhere); err != nil {
			return err
		}
	}
	if err := a.follow(ctx, known); err != nil {
		return err
	}
	a.scoreAtStart(ctx, known, elsewhere != "")
	return nil
}

// promotedElsewhere is the node on which the master runs, by the cluster's own words.
func (a *agent) promotedElsewhere() string {
	for _, inst := range a.call.Env.Notification.Promoted {
		if inst.Node != "" && inst.Node != a.call.Env.Node {
			return inst.Node
		}
	}
	return ""
}

func (a *agent) scoreAtStart(ctx context.Context, known history, masterElsewhere bool) {
	own, logger := a.copies()
	useLogger, ok, why := known.best(own, logger)
	version := own.version
	if useLogger {
		version = logger.version
	}
	seen, live := a.compareLead(ctx, known)
	switch {
	case !ok && a.mayInitialize(own, logger, known):
		a.setScore(ctx, scoreLast, true)
	case !ok:
		a.notPromotable(ctx, why, known.brief(own, logger), true)
	case live > 0 || seen.lost(version):
		a.scoreBy(ctx, version, known, seen, live, true)
	case !masterElsewhere && !useLogger && a.ownsAll(own, known):
		a.setScore(ctx, scoreOwner, true)
	case masterElsewhere:
		a.setScore(ctx, scoreLast, true)
	default:
		a.setScore(ctx, coldScore(version, known), true)
	}
}

// ownsAll says that the node's own copy is that of the present epoch's master, whole: nobody else can
// have more. What was taken over from the metalogger for a promotion that failed is a follower's copy
// wherever it lies.
func (a *agent) ownsAll(own copyOf, known history) bool {
	if known.MetaID == 0 || known.place(own) != current || a.adopted() {
		return false
	}
	_, seen, here := parseSeen(a.kept("seen"))
	_, deep, _ := parseSeen(a.kept("deep"))
	mode, err := a.config.Number("CHANGELOG_SAVE_MODE", 0)
	if err != nil {
		mode = 0
	}
	h, err := mfsmeta.ReadHeader(filepath.Join(a.dataDir, cleanName))
	return estate{
		version: own.version, served: max(seen, deep, known.Version),
		here: here, synced: a.call.Params.String("durability") == durabilitySync,
		written: mode >= 1, clean: err == nil && h.Version == own.version,
	}.whole()
}

// mayInitialize says that a promotion would make the file system: nobody in the cluster has one.
func (a *agent) mayInitialize(own, logger copyOf, known history) bool {
	return a.call.Params.Bool("initialize") && !own.exists && !logger.exists && known.MetaID == 0
}

// retireOwn moves the master's own files into the archive if the cluster has left their history
// behind: another node was promoted since. What is a true beginning of the present history stays;
// it is the last resort when the metalogger's copy is not there yet.
func (a *agent) retireOwn(known history, why string) error {
	own := surveyCopy(a.dataDir)
	if place := known.place(own); !own.exists || place == current || place == behind {
		return nil
	}
	inv, err := mfsmeta.List(a.dataDir)
	if err != nil {
		return a.unreadable(err)
	}
	a.call.Log.Warn(fmt.Sprintf("%s: the master's old copy %s; it is moved to the archive (%s)", a.dataDir, known.words(own), why))
	v := a.newArchive("the master's copy of an earlier life; " + why)
	for _, path := range filesOf(inv) {
		if err := v.take(path); err != nil {
			return a.archiveFailed(err)
		}
	}
	a.pruneArchive(v)
	return nil
}

func (a *agent) pruneArchive(v *archive) {
	if err := v.prune(); err != nil {
		a.call.Log.Warn(fmt.Sprintf("%s: old archives stay: %v", v.root, err))
	}
}

// filesOf are all metadata files and changelogs, but not what the package ships.
func filesOf(inv mfsmeta.Inventory) []string {
	var list []string
	for _, b := range inv.Bases {
		if b.Name() != "metadata.mfs.empty" {
			list = append(list, b.Path)
		}
	}
	for _, l := range inv.Logs {
		list = append(list, l.Path)
	}
	return append(list, inv.Unfinished...)
}

// follow starts the metalogger if it does not run. Its directory must be of the present epoch, or
// empty: files of an older one are moved into a directory beside, where they are kept until the
// next time. A metalogger that is started downloads everything anew in any case.
func (a *agent) follow(ctx context.Context, known history) error {
	if _, running, err := a.followerPID(); running || err != nil {
		return err
	}
	if err := a.loggerDir(); err != nil {
		return err
	}
	epoch, err := readEpoch(a.logger.dataDir)
	if err != nil {
		return a.unreadable(err)
	}
	if epoch != known.Epoch {
		if err := a.setLoggerAside(); err != nil {
			return err
		}
		if err := writeEpoch(a.logger.dataDir, known.Epoch); err != nil {
			return a.unreadable(err)
		}
	} else if err := a.trimLogger(); err != nil {
		return err
	}
	a.call.Waiting("mfsmetalogger to start")
	defer a.call.Waiting("")
	binary := a.call.Params.String("metalogger_binary")
	if _, err := a.run.Run(ctx, binary, "-c", a.logger.config.Path, "-t", "10", "start"); err != nil {
		e := &ocf.Error{Object: a.logger.dataDir, Found: "mfsmetalogger did not start: " + lastWords(err), Err: err, Do: "see its log"}
		if errors.Is(err, fs.ErrNotExist) {
			e.Kind, e.Do = ocf.NotInstalled, "install moosefs-metalogger on this node"
		}
		return e
	}
	for {
		if _, running, err := a.followerPID(); running || err != nil {
			return err
		}
		if !pause(ctx) {
			return a.fail(ocf.Failed, "mfsmetalogger ended while starting", "a running metalogger", "see its log")
		}
	}
}

// trimLogger cuts off what a metalogger that was killed left behind the last whole change of its
// changelogs. It appends to the same file when it starts, and glues its next line to the fragment:
// that reads as another change, of another history.
func (a *agent) trimLogger() error {
	inv, err := mfsmeta.List(a.logger.dataDir)
	if err != nil {
		return a.unreadable(err)
	}
	var torn []mfsmeta.Log
	for _, l := range inv.Logs {
		if l.Torn && l.Err == nil {
			torn = append(torn, l)
		}
	}
	if len(torn) == 0 {
		return nil
	}
	scan, err := mfsmeta.ScanLogs(inv.Dir, torn, 0)
	if err != nil {
		return a.unreadable(err)
	}
	v := a.newArchive("torn changelogs of the metalogger")
	for _, t := range scan.Tears {
		a.call.Log.Warn(fmt.Sprintf("%s: %d bytes behind its last whole change are cut off", t.Path, t.Cut()))
		if err := a.trim(v, t); err != nil {
			return err
		}
	}
	a.pruneArchive(v)
	return nil
}

// loggerDir checks the metalogger's directory as the master's own.
func (a *agent) loggerDir() error {
	info, err := os.Lstat(a.logger.dataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &ocf.Error{Object: a.logger.dataDir, Found: "the metalogger's directory does not exist", Do: "install -d -o " + a.user + " " + a.logger.dataDir}
	case err != nil:
		return a.unreadable(err)
	case !info.IsDir():
		return &ocf.Error{Object: a.logger.dataDir, Found: "is no directory but " + info.Mode().Type().String(), Expected: "the metalogger's directory", Do: "correct DATA_PATH in " + a.logger.config.Path}
	}
	return a.usable(a.logger.dataDir)
}

// previousDir keeps the metalogger's last whole copy of an earlier epoch; fragmentsDir keeps what was
// there of a download that had not ended. They are two, so that masters that follow each other faster
// than their metadata can be downloaded do not replace the last whole copy of a node by nothing.
const (
	previousDir  = "baton-previous"
	fragmentsDir = "baton-incomplete"
)

func (a *agent) setLoggerAside() error {
	inv, err := mfsmeta.List(a.logger.dataDir)
	if err != nil {
		return a.unreadable(err)
	}
	files := filesOf(inv)
	if len(files) == 0 {
		return nil
	}
	dir := filepath.Join(a.logger.dataDir, previousDir)
	if !whole(inv) {
		dir = filepath.Join(a.logger.dataDir, fragmentsDir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return a.unreadable(err)
	}
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return a.unreadable(fmt.Errorf("%s is no directory", dir))
	}
	if err := a.archiveCopy(dir, inv); err != nil {
		return err
	}
	for _, path := range files {
		if err := os.Rename(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			return a.unreadable(err)
		}
	}
	return nil
}

// whole says that a copy can be recovered to the last change that its files show.
func whole(inv mfsmeta.Inventory) bool {
	c := summarize(inv)
	return c.broken == "" && inv.Last(mfsmeta.Master, mfsmeta.Metalogger, mfsmeta.Download) < c.version
}

// archiveCopy moves the metadata files and changelogs that were set aside the time before into an archive
// in the metalogger's own directory: the master's may be on another device, without room for them.
func (a *agent) archiveCopy(dir string, now mfsmeta.Inventory) error {
	old, err := os.ReadDir(dir)
	if err != nil {
		return a.unreadable(err)
	}
	v := a.newArchive("an earlier copy of the metalogger, replaced in " + dir)
	v.root = filepath.Join(a.logger.dataDir, "baton-archive")
	for _, b := range now.Bases {
		v.need = max(v.need, roomBeside(uint64(b.Size)))
	}
	for _, e := range old {
		if _, _, isLog := mfsmeta.LogName(e.Name()); isLog || strings.HasPrefix(e.Name(), "metadata") {
			if err := v.take(filepath.Join(dir, e.Name())); err != nil {
				return a.archiveFailed(err)
			}
		}
	}
	a.pruneArchive(v)
	return nil
}

// stopFollower ends the metalogger: SIGTERM makes it write its last line whole.
func (a *agent) stopFollower(ctx context.Context) error {
	a.call.Waiting("mfsmetalogger to end")
	defer a.call.Waiting("")
	for {
		p, running, err := a.followerPID()
		if err != nil {
			// A disk that has failed does not open the lock any more; what the agent started is known by
			// its command line.
			a.call.Log.Warn(err.Error())
			if p, running, err = a.strayFollower(err); err != nil {
				return err
			}
		}
		if !running {
			return nil
		}
		if !isMetalogger(p) {
			return &ocf.Error{Object: a.logger.dataDir, Found: fmt.Sprintf("%v holds %s", p, mfsmeta.MetaloggerLock), Expected: "mfsmetalogger", Do: "find out what it is and end it"}
		}
		err = a.processes.End(ctx, a.termPatience(ctx)/2, p.ID)
		var stuck *process.StuckError
		if errors.As(err, &stuck) {
			return &ocf.Error{Object: a.logger.dataDir, Found: stuck.Error(), Expected: "no metalogger", Do: "its disk hangs (dmesg); fencing frees the data"}
		}
		if err != nil {
			return a.unreadable(err)
		}
		if !pause(ctx) {
			return ctx.Err()
		}
	}
}

// strayFollower finds a metalogger by its command line where its lock cannot be read, which why says.
func (a *agent) strayFollower(why error) (p process.Process, running bool, err error) {
	if errors.Is(why, fs.ErrPermission) {
		return p, false, why
	}
	list, err := startedWith(a.processes, a.logger.config.Path)
	if err != nil {
		return p, false, a.unreadable(err)
	}
	for _, p := range list {
		if isMetalogger(p) {
			return p, true, nil
		}
	}
	return p, false, nil
}
