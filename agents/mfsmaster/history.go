package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// history is what the cluster remembers of the file system, so that an old copy cannot pass for
// the newest one. It stands in one cluster property, written at each start, stop and promotion.
type history struct {
	// MetaID is the file system, 0 while none was ever started.
	MetaID uint64
	// Version is the highest metadata version that was recorded.
	Version uint64
	// Epoch counts the promotions (mode metaloggers); Fork is the version with which the current
	// epoch began. Changes from Fork on belong to it alone.
	Epoch, Fork uint64
	// property is where it stands, for messages.
	property string
}

// parseHistory reads what String writes: "metaid=6b0183725f682e43 version=5 epoch=2 fork=3".
// Unknown words are skipped, so that a newer agent's record can be read.
func parseHistory(text string) (history, error) {
	var h history
	fields := map[string]struct {
		to   *uint64
		base int
	}{"metaid": {&h.MetaID, 16}, "version": {&h.Version, 10}, "epoch": {&h.Epoch, 10}, "fork": {&h.Fork, 10}}
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		f, ok := fields[name]
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(value, f.base, 64)
		if err != nil {
			return history{}, fmt.Errorf("%s is %q, not a number", name, value)
		}
		*f.to = n
	}
	if strings.TrimSpace(text) != "" && h.MetaID == 0 {
		return history{}, errors.New("no metaid in it")
	}
	return h, nil
}

func (h history) String() string {
	return fmt.Sprintf("metaid=%016x version=%d epoch=%d fork=%d", h.MetaID, h.Version, h.Epoch, h.Fork)
}

func (h history) describe() string {
	return fmt.Sprintf("version %d or newer of file system %016x, as recorded by the cluster", h.Version, h.MetaID)
}

// forget is the command that deletes the record.
func (h history) forget() string {
	return "crm_attribute --type crm_config --name " + h.property + " --delete"
}

// copyOf is one copy of the metadata on this node, with the epoch that it was marked with.
type copyOf struct {
	// exists says that there is anything at all that could be recovered.
	exists  bool
	metaID  uint64
	version uint64
	epoch   uint64
	// broken is why nothing can be recovered from it, "" if something can.
	broken string
}

// standing is how a copy relates to the cluster's history.
type standing int

const (
	// unusable: there is nothing, or nothing that can be recovered.
	unusable standing = iota
	// alien: of another file system.
	alien
	// astray: it holds changes of a history that the cluster has left, or cannot be placed.
	astray
	// current: of the present epoch.
	current
	// behind: a true beginning of the present epoch that has seen none of its changes.
	behind
)

// place says whether a copy may become the cluster's metadata. Epochs tell histories apart that
// look alike: a master that died with changes which no follower had leaves a copy that may count
// more changes than its successor's.
//
// A copy of the epoch before is good as long as it does not go beyond the fork. Older epochs are
// not remembered; such a copy has missed a whole life of a master.
func (h history) place(c copyOf) standing {
	switch {
	case !c.exists || c.broken != "":
		return unusable
	case h.MetaID != 0 && c.metaID != 0 && c.metaID != h.MetaID:
		return alien
	case h.MetaID == 0 || c.epoch == h.Epoch:
		return current
	case c.epoch+1 == h.Epoch && c.version <= h.Fork:
		return behind
	}
	return astray
}

// best chooses between the master's own copy and the metalogger's. ok is false if neither may be
// used; why says what is wrong then.
func (h history) best(own, logger copyOf) (useLogger, ok bool, why string) {
	po, pl := h.place(own), h.place(logger)
	usable := func(s standing) bool { return s == current || s == behind }
	switch {
	case usable(po) && usable(pl):
		return logger.version > own.version, true, ""
	case usable(po):
		return false, true, ""
	case usable(pl):
		return true, true, ""
	}
	return false, false, "the master's copy " + h.words(own) + ", the metalogger's copy " + h.words(logger)
}

// brief is words without numbers, so that an attribute with it changes seldom.
func (h history) brief(own, logger copyOf) string {
	of := func(c copyOf) string {
		switch h.place(c) {
		case unusable:
			if c.exists {
				return "incomplete"
			}
			return "empty"
		case alien:
			return "of another file system"
		case astray:
			return "of an ended epoch"
		case current, behind:
		}
		return "usable"
	}
	return "not promotable: master's copy " + of(own) + ", metalogger's " + of(logger)
}

// briefLost is the same for a copy that has not followed the master.
const briefLost = "not promotable: copy lacks what the master had"

func (h history) words(c copyOf) string {
	switch h.place(c) {
	case unusable:
		if c.exists {
			return "cannot be recovered (" + c.broken + ")"
		}
		return "is empty"
	case alien:
		return fmt.Sprintf("is of another file system (%016x)", c.metaID)
	case astray:
		return fmt.Sprintf("is of epoch %d and version %d, but the cluster is in epoch %d since version %d", c.epoch, c.version, h.Epoch, h.Fork)
	case current, behind:
	}
	return fmt.Sprintf("has version %d", c.version)
}

// The promotion scores. Pacemaker's INFINITY is 1000000; an administrator's preference for a node,
// some hundreds, still decides between equals.
const (
	// scoreServing is that of the running master: it stays where it is.
	scoreServing = 960000
	// scoreOwner is that of the node whose master has just ended, with all that it acknowledged: it
	// is restarted there rather than replaced by a follower that may miss the last second.
	scoreOwner = 950000
	// scoreFollower is that of a node whose metalogger follows the running master closely.
	scoreFollower = 900000
	scoreStep     = 10000
	// scoreCold is that of a node that is level with the cluster's record while there is no master
	// to compare with, after a start of the whole cluster: each change more or less counts one.
	scoreCold    = 400000
	scoreColdMax = 800000
	// scoreLast is that of a node whose copy is good but cannot be compared with anything.
	scoreLast = 1
)

// estate is what is known of a master that has ended, and of the copy that it left.
type estate struct {
	// version is how far its copy reaches, served the highest version that it is known to have served.
	version, served uint64
	// here: it served in this boot of the node.
	here bool
	// synced: each change was on the disk before it was acknowledged. written: each change was given to
	// the kernel at once, so that it outlives the process. clean: the master saved all it had.
	synced, written, clean bool
}

// whole says that the copy has all that the master acknowledged. A master whose disk was full has
// acknowledged what it could not write, and one that leaves its changes to a child that writes them
// later has lost what the child did not come to: both are seen at followers that have more.
func (e estate) whole() bool {
	if e.version < e.served {
		return false
	}
	return e.synced || e.here && (e.written || e.clean)
}

// followerScore is the promotion score of a node whose best usable copy has the given version, by
// the version of the running master. A follower is behind by what has not been flushed yet, which
// changes all the time: so the score falls with the magnitude of the distance alone, and is
// written rarely.
func followerScore(version, live uint64) int {
	const free = 12 // a distance below 2^12 changes, a second's worth, counts as none
	magnitude := 0
	for lag := (live - min(version, live)) >> free; lag > 0; lag >>= 1 {
		magnitude++
	}
	return max(scoreFollower-scoreStep*magnitude, scoreLast)
}

// lead is how far a follower has seen the master of an epoch. A metalogger that cannot connect, or is
// still downloading, leaves a copy that belongs to the cluster's history and lacks minutes of it.
type lead struct {
	// epoch and fork are those of the master.
	epoch, fork uint64
	// before is a version that it had reached when settled, at least, had passed until latest was seen.
	before, latest uint64
}

// settled is the time after which a follower has what the master had: a metalogger writes once a
// second.
const settled = 10 * time.Second

// maxLag is the distance at which a follower is not waited for that long: at the highest rates that
// were measured, some ten seconds.
const maxLag = 1 << 16

// of says that the lead is that of the present epoch's master.
func (l lead) of(known history) bool { return l.epoch == known.Epoch && l.fork == known.Fork }

// next takes in the version that the master has now; age is the time since the last change of the lead.
func (l lead) next(known history, live uint64, age time.Duration) lead {
	if !l.of(known) || live < l.latest {
		return lead{epoch: known.Epoch, fork: known.Fork, latest: live}
	}
	if age >= 0 && age < settled {
		return l
	}
	return lead{epoch: known.Epoch, fork: known.Fork, before: l.latest, latest: live}
}

// lost says that a promotion of a copy with this version would lose more than what a follower is
// behind at any time.
func (l lead) lost(version uint64) bool {
	return version < l.before || l.latest > version && l.latest-version > maxLag
}

func (l lead) words(version uint64) string {
	return fmt.Sprintf("the copy has version %d, the master of this epoch had %d when it was seen last", version, max(l.before, l.latest))
}

func (l lead) String() string { return fmt.Sprintf("%d %d %d %d", l.epoch, l.fork, l.before, l.latest) }

// parseLead reads what String writes; anything else is a lead of nobody.
func parseLead(text string) lead {
	var l lead
	if n, _ := fmt.Sscanf(text, "%d %d %d %d", &l.epoch, &l.fork, &l.before, &l.latest); n != 4 {
		return lead{}
	}
	return l
}

// coldScore is the promotion score while there is no master, by the cluster's record.
func coldScore(version uint64, known history) int {
	if version >= known.Version {
		return int(min(scoreCold+(version-known.Version), scoreColdMax))
	}
	return int(scoreCold - min(known.Version-version, scoreCold-scoreLast))
}
