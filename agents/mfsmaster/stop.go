package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// stop ends the master and, in mode metaloggers, the metalogger.
func stop(ctx context.Context, a *agent) error {
	if err := a.stopMaster(ctx); err != nil {
		return err
	}
	if a.mode == modeMetaloggers {
		if a.inCluster() {
			if err := a.tools().DeleteScore(ctx); err != nil {
				a.call.Log.Warn(err.Error())
			}
			a.publish(ctx, copyAttribute, "")
		}
		return a.stopFollower(ctx)
	}
	return nil
}

// stopMaster ends the master and puts what it wrote on the disk.
func (a *agent) stopMaster(ctx context.Context) error {
	a.releaseReserve()
	if err := a.shutDown(ctx); err != nil {
		return err
	}
	if a.cleanlyStopped() {
		a.rememberStop(ctx)
	}
	return nil
}

// cleanlyStopped puts the metadata on the disk: MooseFS writes metadata.mfs and syncs nothing.
func (a *agent) cleanlyStopped() bool {
	path := filepath.Join(a.dataDir, cleanName)
	if _, err := os.Lstat(path); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.call.Log.Warn(err.Error())
		}
		return false
	}
	if err := mfsmeta.Sync(a.dataDir); err != nil {
		a.call.Log.Error(fmt.Sprintf("the saved metadata may not be on the disk: %v", err))
		return false
	}
	return true
}

// rememberStop records the version with which the master ended.
func (a *agent) rememberStop(ctx context.Context) {
	h, err := mfsmeta.ReadHeader(filepath.Join(a.dataDir, cleanName))
	if err != nil || h.New {
		return
	}
	known, err := a.recalled(ctx)
	if err != nil {
		a.call.Log.Warn(err.Error())
		return
	}
	if known.MetaID == 0 || h.MetaID != known.MetaID || h.Version <= known.Version {
		return
	}
	if a.mode == modeMetaloggers {
		// This node's own record may be of an epoch that has ended while it stood aside; its master was
		// started by hand then, and what it did there is no part of the cluster's history.
		if known, err = a.known(ctx); err != nil {
			a.call.Log.Warn(err.Error())
			return
		}
		if !a.ofEpoch(known) || h.MetaID != known.MetaID || h.Version <= known.Version {
			return
		}
	}
	known.Version = h.Version
	if err := a.record(ctx, known); err != nil {
		a.call.Log.Warn(err.Error())
	}
}

// ofEpoch says that the master's directory belongs to the cluster's present epoch.
func (a *agent) ofEpoch(known history) bool {
	epoch, err := readEpoch(a.dataDir)
	if err != nil {
		a.call.Log.Warn(err.Error())
		return false
	}
	return epoch == known.Epoch
}

// reloadAgent puts changed parameters into effect: all of those that are reloadable are read by
// each action, so that only their values have to be checked.
func reloadAgent(_ context.Context, a *agent) error {
	err := a.checkDurability()
	if err == nil {
		a.call.Log.Info("parameters taken over")
	}
	return err
}

// checkDurability compares what was chosen with what the master does.
func (a *agent) checkDurability() error {
	mode, err := a.config.Number("CHANGELOG_SAVE_MODE", 0)
	if err != nil {
		return &ocf.Error{Kind: ocf.BadConfig, Object: a.config.Path, Found: err.Error(), Do: "correct CHANGELOG_SAVE_MODE"}
	}
	chosen := a.call.Params.String("durability")
	switch {
	case chosen == durabilitySync && mode != 2:
		return &ocf.Error{
			Kind: ocf.BadConfig, Object: a.config.Path, Found: fmt.Sprintf("CHANGELOG_SAVE_MODE = %d", mode), Expected: "2, as durability=sync asks: else a power cut loses acknowledged changes",
			Do: "set CHANGELOG_SAVE_MODE = 2 on all nodes, or choose durability=interval or moosefs",
		}
	case chosen == durabilityInterval && mode != 1 && mode != 2:
		return &ocf.Error{
			Kind: ocf.BadConfig, Object: a.config.Path, Found: fmt.Sprintf("CHANGELOG_SAVE_MODE = %d", mode), Expected: "1 or 2, as durability=interval asks",
			Do: "set CHANGELOG_SAVE_MODE = 1 on all nodes, or choose another durability",
		}
	case chosen == durabilityMoosefs && mode != 2:
		a.call.Log.Warn(fmt.Sprintf("CHANGELOG_SAVE_MODE = %d and durability=moosefs: a power cut loses what was acknowledged in the last half minute and more", mode))
	}
	return nil
}
