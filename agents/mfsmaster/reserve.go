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

// keepReserve sets room aside for one dump of the metadata. Where that cannot be had, nothing but
// the help on a full disk is missing.
func (a *agent) keepReserve() {
	size := int64(a.dumpSize(a.dataDir)) + spareSpace/2
	path := filepath.Join(a.dataDir, reserveName)
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() >= size {
		return
	}
	if err := a.makeReserve(path, size); err != nil {
		a.call.Log.Warn(fmt.Sprintf("no room could be set aside for a last dump on a full disk: %v", err))
	}
}

func (a *agent) makeReserve(path string, size int64) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	free, _, err := mfsmeta.Space(a.dataDir)
	if err != nil {
		return err
	}
	if free < 2*uint64(size)+spareSpace {
		return fmt.Errorf("%d MiB are free, %d MiB would be needed", free>>20, (2*uint64(size)+spareSpace)>>20)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// releaseReserve gives the room back if the master could not save its metadata without it.
func (a *agent) releaseReserve() {
	path := filepath.Join(a.dataDir, reserveName)
	if _, err := os.Lstat(path); err != nil {
		return
	}
	free, _, err := mfsmeta.Space(a.dataDir)
	if err != nil || free >= a.dumpSize(a.dataDir)+spareSpace/2 {
		return
	}
	if err := os.Remove(path); err != nil {
		a.call.Log.Warn(err.Error())
		return
	}
	a.call.Log.Error(fmt.Sprintf("%s: the disk is full; room that was set aside is given back, so that the master can save its metadata", a.dataDir))
}
