package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"baton/agents/internal/process"
)

// single makes sure that only one drbdsetup at a time asks for this resource on behalf of this
// agent. DRBD's netlink interface can block behind a stuck command for minutes (an uninterruptible
// sleep, which no signal ends); one more hanging process per monitor would not help anyone. A mark
// is left while the question is asked; where an earlier call left its mark, its child is looked
// for. done takes the mark away.
func (a *agent) single() (done func(), err error) {
	if a.dir == "" {
		return func() {}, nil
	}
	mark := filepath.Join(a.dir, "drbd-asking-"+fileName(a.name))
	f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case err == nil:
		f.Close()
	case errors.Is(err, fs.ErrExist):
		if stuck, ok := a.hanging(); ok {
			return nil, fmt.Errorf("%v of an earlier call still hangs (%v)", stuck, stuck.State)
		}
	default:
		a.Log.Debug("no mark for drbdsetup: " + err.Error())
	}
	return func() { _ = os.Remove(mark) }, nil
}

// hanging finds a drbdsetup in uninterruptible sleep that asks for the state. One that merely
// runs is another call's, and will end.
func (a *agent) hanging() (process.Process, bool) {
	list, err := process.System{Proc: filepath.Join(a.sys.root, "proc")}.Find(func(p process.Process) bool {
		return p.State == process.Uninterruptible && slices.Contains(p.Args, "events2")
	})
	if err != nil || len(list) == 0 {
		return process.Process{}, false
	}
	return list[0], true
}
