package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/mfsmeta"
	"baton/agents/internal/mfsproto"
	"baton/agents/internal/process"
	"baton/ocf"
)

// monitor looks twice before it calls a master hung.
func monitor(ctx context.Context, a *agent) (ocf.State, error) {
	s, v, why, err := a.observe(ctx)
	if err != nil {
		return ocf.Stopped, err
	}
	switch v {
	case absent:
		a.call.Note("%s in %s", why, a.dataDir)
		if a.mode == modeMetaloggers {
			return a.monitorFollower(ctx)
		}
		return ocf.Stopped, nil
	case serving:
		return a.monitorServing(ctx, s)
	case foreign:
		if a.call.Env.Probe && s.reply == answered && s.dataPath != a.dataDir {
			// Clearly another instance, such as a second file system on this node.
			a.call.Note("%s", why)
			return a.stoppedOrFollowing(ctx)
		}
		if a.mode == modeMetaloggers && s.reply == answered {
			return a.stoppedOrFollowing(ctx)
		}
		return ocf.Stopped, a.fail(ocf.Failed, why, "our own master or none on "+a.address, "stop it, or correct the ports in "+a.config.Path)
	case leftovers:
		return ocf.Stopped, a.fail(ocf.Failed, why, "a master with its children, or none", "nothing: the cluster's stop ends them")
	case deaf:
	}
	return a.ailing(a.fail(ocf.Failed, why, "an answer on "+a.address, ocf.Recovered))
}

// ailing is what monitor answers about a master that lives and does not serve: in a promotable clone
// its instance is still in the promoted role.
func (a *agent) ailing(why error) (ocf.State, error) {
	if a.mode == modeMetaloggers {
		a.call.Note("%v", why)
		return ocf.FailedPromoted, nil
	}
	return ocf.Stopped, why
}

func (a *agent) stoppedOrFollowing(ctx context.Context) (ocf.State, error) {
	if a.mode == modeMetaloggers {
		return a.monitorFollower(ctx)
	}
	return ocf.Stopped, nil
}

// observe judges what it sees, and looks again before it believes in anything but a serving or an
// absent master: a child that ends, or a start in another shell, passes.
func (a *agent) observe(ctx context.Context) (s sighting, v verdict, why string, err error) {
	const tries = 2
	for try := range tries {
		if try > 0 && !pause(ctx) {
			break
		}
		if s, err = a.look(ctx, a.patience()); err != nil {
			return s, v, why, err
		}
		v, why = judge(s, a.dataDir)
		if v == serving || v == absent || s.process.State == process.Halted {
			break
		}
	}
	return s, v, why, nil
}

// monitorServing looks closer at a master that answers.
func (a *agent) monitorServing(ctx context.Context, s sighting) (ocf.State, error) {
	state := ocf.Running
	degraded := ocf.DegradedRunning
	if a.mode == modeMetaloggers {
		state, degraded = ocf.Promoted, ocf.DegradedPromoted
	}
	a.call.Note("MooseFS %v serves version %d of file system %016x from %s", s.info.Version, s.info.MetaVersion, s.module.MetaID, a.dataDir)
	if a.call.Env.Probe {
		if a.mode == modeMetaloggers {
			a.setScore(ctx, scoreServing, true)
		}
		return state, nil
	}
	if err := a.sameAsBefore(s); err != nil {
		return a.ailing(err)
	}
	// On a full disk the memory of this master is the only whole copy: what the disk does not take is no
	// reason to end it. Over metaloggers another node has a copy to go on with.
	low := a.lowSpace(s)
	failing := func(err error) (ocf.State, error) {
		if low == "" || a.mode != modeStorage {
			return a.ailing(err)
		}
		a.call.Log.Error(err.Error())
		a.call.Log.Error(low)
		a.call.Note("%s", low)
		return degraded, nil
	}
	if a.call.Params.String("durability") == durabilityInterval {
		if err := mfsmeta.Sync(a.dataDir); err != nil {
			return failing(a.fail(ocf.Failed, "changes cannot be written out: "+err.Error(), "a working disk", "check the disk (dmesg)"))
		}
	}
	if a.mode == modeMetaloggers {
		a.setScore(ctx, scoreServing, false)
	}
	if a.call.Env.CheckLevel >= 10 {
		if low == "" {
			a.keepReserve() // the metadata grow
		}
		if err := a.deepLook(ctx, s); err != nil {
			return failing(err)
		}
	}
	if low != "" {
		a.call.Log.Error(low)
		a.call.Note("%s", low)
		return degraded, nil
	}
	if s.info.StoreFailed {
		a.call.Log.Error("the last dump of the metadata failed; the changelogs grow until one succeeds")
		return degraded, nil
	}
	return state, nil
}

// saw keeps what the master said, to compare the next time.
func (a *agent) saw(s sighting) {
	if err := a.keep("seen", fmt.Sprintf("%016x %d", s.module.MetaID, s.info.MetaVersion)); err != nil {
		a.call.Log.Debug(err.Error())
	}
}

// sameAsBefore: a master whose version went back, or that serves another file system, was replaced
// behind the cluster's back.
func (a *agent) sameAsBefore(s sighting) error {
	id, version, ok := parseSeen(a.kept("seen"))
	if ok && s.info.HasMetaVersion {
		switch {
		case id != 0 && s.module.MetaID != 0 && id != s.module.MetaID:
			return a.fail(ocf.Failed, fmt.Sprintf("serves file system %016x now", s.module.MetaID), fmt.Sprintf("%016x as before", id), "find out who replaced the metadata")
		case s.info.MetaVersion < version:
			return a.fail(ocf.Failed, fmt.Sprintf("metadata version went back from %d to %d", version, s.info.MetaVersion), "a version that only grows", "find out who restarted the master with older metadata")
		}
	}
	a.saw(s)
	return nil
}

func parseSeen(text string) (id, version uint64, ok bool) {
	first, second, _ := strings.Cut(text, " ")
	id, err1 := strconv.ParseUint(first, 16, 64)
	version, err2 := strconv.ParseUint(second, 10, 64)
	return id, version, err1 == nil && err2 == nil
}

// recordEvery spaces the records of the version in the cluster: each one makes Pacemaker compute a
// transition anew. Starts, stops and promotions record it in any case.
const recordEvery = 5 * time.Minute

// recordFirst is the same for the first record of an epoch over metaloggers. Until then a copy that ends
// at the fork may be promoted, so that a follower has time to download.
const recordFirst = 30 * time.Second

func (a *agent) recordPause(known history) time.Duration {
	if a.mode == modeMetaloggers && known.Version <= known.Fork {
		return recordFirst
	}
	return recordEvery
}

// deepLook counts the chunk servers, and records how far the metadata have come.
func (a *agent) deepLook(ctx context.Context, s sighting) error {
	_, before, _ := parseSeen(a.kept("deep"))
	if err := a.advancing(s); err != nil {
		return err
	}
	// Over metaloggers, what was reached at the look before is recorded: a follower has that by now,
	// and is not refused for the second by which it is behind.
	reached := s.info.MetaVersion
	if a.mode == modeMetaloggers {
		reached = before
	}
	known, err := a.recalled(ctx)
	if err != nil {
		a.call.Log.Warn(err.Error())
	}
	if err == nil && known.MetaID != 0 && known.MetaID == s.module.MetaID && reached > known.Version && a.recordAge() > a.recordPause(known) &&
		(a.mode != modeMetaloggers || a.ofEpoch(known)) {
		known.Version = reached
		if err := a.record(ctx, known); err != nil {
			a.call.Log.Warn(err.Error())
		}
	}
	if s.info.Version.Less(1, 7, 0) {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, a.patience())
	defer cancel()
	client, err := mfsproto.Dial(asking, a.address)
	if err != nil {
		return a.fail(ocf.Failed, "does not answer: "+err.Error(), "the list of chunk servers", ocf.Recovered)
	}
	defer client.Close()
	servers, err := client.Chunkservers()
	if err != nil {
		a.call.Log.Warn(fmt.Sprintf("chunk servers cannot be counted: %v", err))
		return nil
	}
	a.publish(ctx, "chunkservers", strconv.Itoa(servers.Connected))
	if least := a.call.Params.Int("min_chunkservers"); servers.Connected < least {
		found := fmt.Sprintf("%d chunk servers are connected, %d are known and away", servers.Connected, servers.Disconnected)
		if a.call.Params.String("too_few_chunkservers") == fewFail {
			return a.fail(ocf.Failed, found, fmt.Sprintf("%d at least", least), "check the chunk servers and their way to the service address")
		}
		a.call.Log.Warn(fmt.Sprintf("%s, %d at least expected", found, least))
	}
	return nil
}

// advancing compares the version with the changelog: a master that counts changes which do not
// reach its changelog (its data writer has gone, its disk is full) loses all of them with its life.
// A changelog that is behind by what is on its way to the disk is well.
func (a *agent) advancing(s sighting) error {
	if !s.info.HasMetaVersion {
		return nil
	}
	inv, err := mfsmeta.List(a.dataDir)
	if err != nil {
		return a.unreadable(err)
	}
	last := inv.Last(mfsmeta.Master)
	for _, b := range inv.Bases {
		if b.Usable() {
			last = max(last, b.Version-1)
		}
	}
	id, before, ok := parseSeen(a.kept("deep"))
	a.lookedDeep(s)
	if ok && id == s.module.MetaID && before > last+1 {
		return a.fail(ocf.Failed, fmt.Sprintf("changes are not written: version %d was served at the last look, the changelogs end at %d", before, last),
			"changelogs that follow", "free space on its disk and check the data writer before anything stops the master: unwritten changes are only in its memory")
	}
	return nil
}

// lookedDeep keeps the version with which the changelogs are compared the next time.
func (a *agent) lookedDeep(s sighting) {
	if err := a.keep("deep", fmt.Sprintf("%016x %d", s.module.MetaID, s.info.MetaVersion)); err != nil {
		a.call.Log.Debug(err.Error())
	}
}

// lowSpace warns before the disk is full: MooseFS 3 goes on acknowledging changes that it cannot
// write then.
func (a *agent) lowSpace(s sighting) string {
	const least = 64 << 20
	need := a.dumpSize(a.dataDir) + least
	if s.free >= need {
		return ""
	}
	if s.free == 0 {
		return fmt.Sprintf("%s: the disk is full; the master acknowledges changes that it cannot write. Make room before anything stops it", a.dataDir)
	}
	return fmt.Sprintf("%s: %d MiB are free, the next dump of the metadata needs up to %d MiB. Make room", a.dataDir, s.free>>20, need>>20)
}
