package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// start starts the master (mode storage) or the metalogger (mode metaloggers: a clone starts
// unpromoted).
func start(ctx context.Context, a *agent) error {
	if a.mode == modeMetaloggers {
		return a.startFollower(ctx)
	}
	if err := a.checkDurability(); err != nil {
		return err
	}
	if err := a.onItsMount(); err != nil {
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
	s, err := a.bringUp(ctx, known)
	if err != nil {
		return err
	}
	return a.remember(ctx, known, s, s.info.MetaVersion)
}

// clearTheWay makes sure that no master and no remains of one are in the directory. done says that
// our master serves already. What passes by itself is waited for: a master that is loading, and one
// that was killed and whose locks and sockets the kernel has not taken back yet.
func (a *agent) clearTheWay(ctx context.Context) (done bool, err error) {
	var told string
	strangers := 0
	for {
		s, err := a.look(ctx, a.patience())
		if err != nil {
			return false, err
		}
		v, why := judge(s, a.dataDir)
		switch v {
		case absent:
			return false, nil
		case serving:
			a.call.Log.Info(why)
			return true, nil
		case leftovers:
			a.call.Log.Warn(why + "; they are ended, an unfinished dump loses nothing")
			if err := a.shutDown(ctx); err != nil {
				return false, err
			}
		case foreign:
			if strangers++; strangers > 20 {
				return false, a.fail(ocf.Failed, why, "a free port", "stop it; disable the unit moosefs-master (systemctl disable --now moosefs-master)")
			}
		case deaf:
			if why != told {
				a.call.Log.Warn(why)
				told = why
			}
			a.call.Waiting("%s", why)
		}
		if !pause(ctx) {
			return false, a.fail(ocf.Failed, why, "a master that answers, or none", "stop the resource: it ends what hangs")
		}
	}
}

// bringUp recovers the metadata, starts the master, and checks that it serves what was recovered.
func (a *agent) bringUp(ctx context.Context, known history) (sighting, error) {
	how, err := a.method(ctx)
	if err != nil {
		return sighting{}, err
	}
	m, err := a.gather(known)
	if err != nil {
		return sighting{}, err
	}
	if m.accept && m.logger != nil {
		if err := a.saveLogger(m); err != nil {
			return sighting{}, err
		}
	}
	for {
		p, err := a.recoverMetadata(ctx, m, how)
		if err != nil {
			return sighting{}, err
		}
		if err := a.markServed(known); err != nil {
			return sighting{}, err
		}
		err = a.launch(ctx, how, p.restore)
		if err == nil {
			s, err := a.confirm(ctx, p, known)
			if err == nil && len(p.left) > 0 {
				err := a.putAway(a.newArchive(fmt.Sprintf("%s, recovery of version %d", p.row, p.version)), p.left)
				if err != nil {
					a.call.Log.Error(err.Error()) // the master serves; the next start puts them away
				}
			}
			return s, err
		}
		if !blamesMetadata(err) {
			return sighting{}, err
		}
		again, ok := a.nextBase(ctx, p, m)
		if !ok {
			return sighting{}, err
		}
		a.call.Log.Error(fmt.Sprintf("%v; going on from an older metadata file", err))
		m = again
	}
}

// nextBase prepares a second try after the master could not load a metadata.mfs that looked whole:
// damage inside of it shows only then. ok is false where an older file leads nowhere.
func (a *agent) nextBase(ctx context.Context, p plan, m material) (next material, ok bool) {
	if ctx.Err() != nil || p.restore || p.make {
		return m, false // what was just restored by mfsmaster itself is not at fault
	}
	// mfsmaster's starting process ends before the daemon, which may still be at work on the files.
	if err := a.shutDown(ctx); err != nil {
		a.call.Log.Warn(err.Error())
		return m, false
	}
	own, err := mfsmeta.List(a.dataDir)
	if err != nil {
		return m, false
	}
	m.own = own
	m.failed = append(m.failed, filepath.Join(a.dataDir, cleanName))
	m.known.Version = max(m.known.Version, p.version)
	_, err = a.inspect(m)
	return m, err == nil
}

// saveLogger keeps the metalogger's files before a master that may be older starts: on meeting an
// older master, metaloggers delete what they have.
func (a *agent) saveLogger(m material) error {
	own := max(m.own.Last(mfsmeta.Master), 1)
	for _, b := range m.own.Bases {
		if b.Usable() {
			own = max(own, b.Version-1)
		}
	}
	if unreadableLog(m.logger.Logs) == nil && m.logger.Last(mfsmeta.Metalogger, mfsmeta.Download) <= own {
		return nil
	}
	v := a.newArchive("the metalogger is ahead of the master, and older_metadata=accept")
	// What cannot be read is left out by the operator's word; it is kept if it can be.
	keep := func(path string, unreadable error) error {
		err := v.link(path)
		switch {
		case err == nil:
			return nil
		case unreadable == nil:
			return a.archiveFailed(err)
		}
		a.call.Log.Warn(fmt.Sprintf("%s cannot be kept in the archive: %v", path, err))
		return nil
	}
	for _, b := range m.logger.Bases {
		if err := keep(b.Path, b.Err); err != nil {
			return err
		}
	}
	for _, l := range m.logger.Logs {
		if err := keep(l.Path, l.Err); err != nil {
			return err
		}
	}
	return nil
}

// confirm asks the started master whether it serves what was to be served; if not, it is stopped
// again before metaloggers and chunk servers have adapted to it.
func (a *agent) confirm(ctx context.Context, p plan, known history) (sighting, error) {
	s, err := a.awaitAnswer(ctx)
	if err != nil {
		return s, err
	}
	var wrong error
	switch {
	case s.info.HasMetaVersion && s.info.MetaVersion < p.version:
		wrong = a.fail(ocf.Failed, fmt.Sprintf("the master serves version %d", s.info.MetaVersion), fmt.Sprintf("%d, which its files reach", p.version),
			"it was stopped again; look at its log and the changelogs")
	case p.metaID != 0 && s.module.MetaID != 0 && s.module.MetaID != p.metaID:
		wrong = a.fail(ocf.Failed, fmt.Sprintf("the master serves file system %016x", s.module.MetaID), fmt.Sprintf("%016x", p.metaID), "it was stopped again; check DATA_PATH")
	case known.MetaID != 0 && s.module.MetaID != 0 && s.module.MetaID != known.MetaID:
		wrong = a.fail(ocf.Failed, fmt.Sprintf("the master serves file system %016x", s.module.MetaID), known.describe(), "it was stopped again; check DATA_PATH")
	default:
		a.call.Log.Info(fmt.Sprintf("MooseFS %v serves version %d of file system %016x from %s", s.info.Version, s.info.MetaVersion, s.module.MetaID, a.dataDir))
		a.keepReserve()
		a.call.Log.Info(fmt.Sprintf("time: inspected in %v, restored in %v, loaded in %v", a.spent.inspecting, a.spent.restoring, a.spent.loading))
		return s, nil
	}
	return s, errors.Join(wrong, a.shutDown(ctx))
}

// remember records in the cluster that the file system has come to a version.
func (a *agent) remember(ctx context.Context, known history, s sighting, version uint64) error {
	if s.module.MetaID == 0 {
		return nil // 1.6 has no id to know a file system by
	}
	accepted := a.call.Params.String("older_metadata") == olderAccept
	if known.MetaID == 0 || version > known.Version || accepted {
		known.Version = version
	}
	known.MetaID = s.module.MetaID
	if err := a.record(ctx, known); err != nil {
		// The master serves; not to know its version next time is the smaller harm.
		a.call.Log.Warn(err.Error())
	}
	a.saw(s)
	// What was reached before this start is no measure of what has to be in the changelogs: an older
	// version may have been accepted.
	a.lookedDeep(s)
	return nil
}
