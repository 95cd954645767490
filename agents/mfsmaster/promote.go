package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// unsupported: mode storage is a primitive.
func (a *agent) unsupported(action string) error {
	return &ocf.Error{
		Kind: ocf.Unimplemented, Op: action, Found: "mode=storage has no roles",
		Expected: "a primitive resource, or mode=metaloggers", Do: "set mode=metaloggers for a promotable clone",
	}
}

// promote makes this node's newest copy the master's metadata and starts the master.
func promote(ctx context.Context, a *agent) error {
	if a.mode != modeMetaloggers {
		return a.unsupported("promote")
	}
	if err := a.checkDurability(); err != nil {
		return err
	}
	done, err := a.clearTheWay(ctx)
	if done || err != nil {
		return err
	}
	if err := a.usable(a.dataDir); err != nil {
		return err
	}
	known, err := a.known(ctx)
	if err != nil {
		return err
	}
	if err := a.stopFollower(ctx); err != nil {
		return err
	}
	next, epoch, err := a.takeNewest(ctx, known)
	if err != nil {
		return err
	}
	s, err := a.bringUp(ctx, next)
	if err != nil {
		a.takeBack(ctx, known, next, epoch)
		return err
	}
	if err := os.Remove(filepath.Join(a.dataDir, adoptedMark)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// The node only counts for less than it is until its next promotion.
		a.call.Log.Warn(err.Error())
	}
	known = next
	a.setScore(ctx, scoreServing, true)
	// The version of the fork, not the one that is served a moment later: a copy that stopped at the
	// fork remains good enough until a follower has more.
	return a.remember(ctx, known, s, max(known.Fork, 1))
}

// takeNewest brings the newest copy that belongs to the cluster's history into the master's
// directory and begins a new epoch with it. It returns the new history, and the epoch that the copy
// is of.
func (a *agent) takeNewest(ctx context.Context, known history) (next history, epoch uint64, err error) {
	own, logger := a.copies()
	// Where the record was lost the marks remain, and those of nodes that are off just now: to count from
	// the beginning would give them the number of an epoch that they have not seen.
	last := max(known.Epoch, own.epoch, logger.epoch)
	useLogger, ok, why := known.best(own, logger)
	if !ok && a.mayInitialize(own, logger, known) {
		// bringUp makes it. A mark that is left of files which were taken out would place it wrongly.
		if err := writeEpoch(a.dataDir, known.Epoch); err != nil {
			return known, 0, a.unreadable(err)
		}
		return known, 0, nil
	}
	if !ok {
		return known, 0, a.fail(ocf.Failed, "no copy that may be promoted: "+why, "metadata of the cluster's present history",
			"let a node with newer metadata be promoted; for the steps by hand see docs/mfs.md, promoting by hand")
	}
	// What cannot be promoted anyway is not moved about. The ends of the files may promise more than
	// they hold: so the same is asked again when they have been read.
	chosen := own
	if useLogger {
		chosen = logger
	}
	if err := a.newEnough(chosen.version, known); err != nil {
		return known, 0, err
	}
	if useLogger {
		if err := a.markAdopted(); err != nil {
			return known, 0, a.unreadable(err)
		}
		if err := a.adopt(logger); err != nil {
			return known, 0, err
		}
		if err := writeEpoch(a.dataDir, logger.epoch); err != nil {
			return known, 0, a.unreadable(err)
		}
		own = surveyCopy(a.dataDir)
	}
	if err := a.newEnough(own.version, known); err != nil {
		return known, 0, err
	}
	next = known
	next.Epoch = last + 1
	next.Fork = own.version
	if next.MetaID == 0 {
		next.MetaID = own.metaID
	}
	// First the record, then the mark: a node that loses its power in between holds a copy of the epoch
	// before that ends at the fork. The other way round its copy would pass for one of the epoch that
	// another node begins then.
	if next.MetaID != 0 {
		if err := a.record(ctx, next); err != nil {
			return known, 0, err
		}
	}
	if err := writeEpoch(a.dataDir, next.Epoch); err != nil {
		return known, 0, a.unreadable(err)
	}
	return next, own.epoch, nil
}

// newEnough: a new epoch shuts out every copy that goes beyond its fork, so that it must not begin with
// one that is known to be too old.
func (a *agent) newEnough(version uint64, known history) error {
	if a.call.Params.String("older_metadata") == olderAccept {
		return nil
	}
	if version < known.Version {
		return refuseOlder(plan{version: version}, known).error(a.dataDir)
	}
	if seen := a.lead(known); seen.lost(version) {
		return a.fail(ocf.Failed, seen.words(version), "a copy that has followed it",
			"let the node of that master be promoted; to lose the difference for good set older_metadata=accept")
	}
	return nil
}

// takeBack ends an epoch whose master did not come up: else it would shut out the copy of the node
// that may be promoted instead. If the master cannot be ended for sure, or has made changes of its
// own, the epoch stands.
func (a *agent) takeBack(ctx context.Context, known, next history, epoch uint64) {
	if next.Epoch == known.Epoch {
		return
	}
	ctx, cancel := a.afterwards(ctx)
	defer cancel()
	if err := a.shutDown(ctx); err != nil {
		a.call.Log.Warn(err.Error())
		return
	}
	if surveyCopy(a.dataDir).version > next.Fork {
		return
	}
	// Here the mark comes first, for the same reason.
	if err := writeEpoch(a.dataDir, epoch); err != nil {
		a.call.Log.Warn(err.Error())
		return
	}
	if err := a.record(ctx, known); err != nil {
		a.call.Log.Warn(err.Error())
	}
}

// afterwards is the time in which a failed action puts things right. If the action's is over, what is
// left of Pacemaker's is enough for that.
func (a *agent) afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), time.Second)
}

// adoptedMark says that the master's directory holds what the metalogger had, and that no master has
// served it yet: such a copy may lack the last changes of the master that acknowledged them.
const adoptedMark = ".baton-adopted"

func (a *agent) markAdopted() error {
	return atomicfile.Write(filepath.Join(a.dataDir, adoptedMark), []byte("The metadata here are a metalogger's copy that no master has served.\n"), 0o644)
}

// adopted is also true where that cannot be told.
func (a *agent) adopted() bool {
	_, err := os.Lstat(filepath.Join(a.dataDir, adoptedMark))
	return !errors.Is(err, fs.ErrNotExist)
}

// adopt replaces the master's files by a copy of the metalogger's. The old ones go to the archive;
// the metalogger's own stay where they are until it follows again.
func (a *agent) adopt(logger copyOf) error {
	inv, err := mfsmeta.List(a.logger.dataDir)
	if err != nil {
		return a.unreadable(err)
	}
	own, err := mfsmeta.List(a.dataDir)
	if err != nil {
		return a.unreadable(err)
	}
	owner, err := a.owner()
	if err != nil {
		return err
	}
	scan, r, err := loggerScan(inv)
	if err != nil {
		return a.unreadable(err)
	}
	if r != nil {
		return r.error(a.logger.dataDir)
	}
	v := a.newArchive(fmt.Sprintf("promotion with the metalogger's version %d", scan.Next))
	for _, path := range filesOf(own) {
		if err := v.take(path); err != nil {
			return a.archiveFailed(err)
		}
	}
	for _, path := range filesOf(inv) {
		size, err := keepSize(path, scan.Tears)
		if err == nil {
			err = copyPrefix(filepath.Join(a.dataDir, filepath.Base(path)), path, size, owner)
		}
		if err != nil {
			return a.fail(ocf.Failed, "the metalogger's files cannot be copied: "+err.Error(), "room for them", "free space and clean up the resource")
		}
	}
	a.pruneArchive(v)
	a.call.Log.Info(fmt.Sprintf("%s: taken from the metalogger in %s, version %d (it seemed to reach %d)", a.dataDir, a.logger.dataDir, scan.Next, logger.version))
	return nil
}

// loggerScan reads a metalogger's changelogs as a whole, before any of them is taken over.
func loggerScan(inv mfsmeta.Inventory) (mfsmeta.Scan, *refusal, error) {
	m := material{own: inv}
	ap, r := choose(m)
	if r != nil {
		return mfsmeta.Scan{}, r, nil
	}
	scan, err := mfsmeta.ScanLogs(inv.Dir, ap.logs, ap.base.Version)
	if err != nil {
		return scan, nil, err
	}
	_, r = decide(m, ap, scan)
	return scan, r, nil
}

func keepSize(path string, tears []mfsmeta.Tear) (int64, error) {
	for _, t := range tears {
		if t.Path == path {
			return t.Keep, nil
		}
	}
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// demote saves and ends the master and follows as a metalogger again.
func demote(ctx context.Context, a *agent) error {
	if a.mode != modeMetaloggers {
		return a.unsupported("demote")
	}
	if err := a.stopMaster(ctx); err != nil {
		return err
	}
	known, err := a.known(ctx)
	if err != nil {
		// The master has been saved and ended; not to know the cluster's record is no reason to fail
		// a demotion, which would get the node fenced. The node's own copy of it is as it was.
		a.call.Log.Warn(err.Error())
		if known, err = a.recorded(); err != nil {
			return err
		}
	}
	if err := a.follow(ctx, known); err != nil {
		return err
	}
	a.scoreAtStart(ctx, known, false)
	return nil
}

// notify makes followers turn to a new master: its epoch is a new one, so their files are set
// aside and the metalogger downloads everything from it.
func notify(ctx context.Context, c *ocf.Call, n ocf.Notification) error {
	if c.Params.String("mode") != modeMetaloggers || n.Type != "post" || n.Operation != "promote" {
		return nil
	}
	for _, inst := range n.Promote {
		if inst.Node == c.Env.Node {
			return nil // this node's own promotion
		}
	}
	a, err := newAgent(c)
	if err != nil {
		return err
	}
	return a.turnToNewMaster(ctx)
}

func (a *agent) turnToNewMaster(ctx context.Context) error {
	s, err := a.look(ctx, a.patience())
	if err != nil {
		return err
	}
	if s.master != 0 {
		return nil // this node serves itself
	}
	known, err := a.known(ctx)
	if err != nil {
		return err
	}
	epoch, err := readEpoch(a.logger.dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a.unreadable(err)
	}
	if epoch == known.Epoch {
		return nil
	}
	if err := a.retireOwn(known, "another node was promoted"); err != nil {
		return err
	}
	if err := a.stopFollower(ctx); err != nil {
		return err
	}
	if err := a.follow(ctx, known); err != nil {
		return err
	}
	// The score was one among copies of the epoch before; a node that has followed the new master by
	// now has more than this one.
	a.scoreWhileFollowing(ctx, known)
	return nil
}
