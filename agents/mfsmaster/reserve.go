package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"baton/agents/internal/mfsmeta"
)

// reserveName is a file that only takes up room. On a full disk MooseFS 3 goes on acknowledging
// changes that it cannot write, and when it is told to end it tries to save its metadata for ever.
// stop gives the room of this file back, so that the master can save all it has and end.
const reserveName = ".baton-reserve"

// keepReserve sets room aside for one dump of the metadata, and more when they have grown. Where that
// cannot be had, nothing but the help on a full disk is missing.
func (a *agent) keepReserve() {
	size := int64(a.dumpSize(a.dataDir)) + spareSpace/2
	path := filepath.Join(a.dataDir, reserveName)
	var have int64
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		have = info.Size()
	}
	if have >= size {
		return
	}
	if err := a.makeReserve(path, have, size); err != nil {
		a.call.Log.Warn(fmt.Sprintf("no room could be set aside for a last dump on a full disk: %v", err))
	}
}

// makeReserve never gives up what it has for what it may not get.
func (a *agent) makeReserve(path string, have, size int64) error {
	free, _, err := mfsmeta.Space(a.dataDir)
	if err != nil {
		return err
	}
	if need := 2*uint64(size) + spareSpace; free+uint64(have) < need {
		return fmt.Errorf("%d MiB are free, %d MiB would be needed", (free+uint64(have))>>20, need>>20)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil && have == 0 {
		return errors.Join(err, os.Remove(path))
	}
	return err
}

// releaseReserve gives the room back before the master saves its metadata. How much it will need is
// known to nobody but the master, and nothing else needs the room while none runs.
func (a *agent) releaseReserve() {
	free, _, ferr := mfsmeta.Space(a.dataDir)
	err := os.Remove(filepath.Join(a.dataDir, reserveName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		a.call.Log.Warn(err.Error())
	case ferr == nil && free < a.dumpSize(a.dataDir)+spareSpace/2:
		a.call.Log.Error(fmt.Sprintf("%s: the disk is full; room that was set aside is given back, so that the master can save its metadata", a.dataDir))
	}
}
