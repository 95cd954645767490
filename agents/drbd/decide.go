package main

import (
	"fmt"
	"slices"
	"strconv"

	"baton/agents/internal/drbdstate"
	"baton/ocf"
)

// This file holds the decisions: pure functions of a state that was read completely.

// stateOf is what monitor answers. found is false where the kernel has no such resource.
//
// A resource whose volumes are all unconfigured is stopped: it has no disk, no link, and is
// Secondary. Role and data decide the rest; the link alone never does, since a node that lost its
// peer serves as well as before.
func stateOf(r drbdstate.Resource, found bool) ocf.State {
	switch {
	case !found || !r.Configured():
		return ocf.Stopped
	case !r.AnyPrimary():
		return ocf.Running
	case !serves(r):
		return ocf.FailedPromoted
	}
	return ocf.Promoted
}

// serves reports whether each volume can reach good data, here or over the link.
func serves(r drbdstate.Resource) bool {
	if r.FailIO {
		return false
	}
	for _, v := range r.Volumes {
		if v.Disk != drbdstate.UpToDate && !peerHas(r, v.Number) {
			return false
		}
	}
	return true
}

// peerHas reports whether a connected peer has UpToDate data of the volume.
func peerHas(r drbdstate.Resource, volume int) bool {
	return r.AnyPeer(func(p drbdstate.Peer) bool {
		v, ok := p.Volume(volume)
		return ok && p.Connection == drbdstate.Connected && v.Disk == drbdstate.UpToDate
	})
}

// settling reports whether a local disk is on its way between states, so that its data says
// nothing yet.
func settling(r drbdstate.Resource) bool {
	for _, v := range r.Volumes {
		if inTransit(v.Disk) {
			return true
		}
	}
	return false
}

func inTransit(d drbdstate.Disk) bool {
	return d == drbdstate.Attaching || d == drbdstate.Detaching || d == drbdstate.Negotiating
}

// alone reports whether the resource gave up the link to every peer: an administrator
// disconnected it, or DRBD refused the peer (split brain, authentication).
func alone(r drbdstate.Resource) bool {
	if len(r.Peers) == 0 {
		return false
	}
	return !r.AnyPeer(func(p drbdstate.Peer) bool { return p.Connection != drbdstate.StandAlone })
}

// anyAlone is alone for at least one peer.
func anyAlone(r drbdstate.Resource) bool {
	return r.AnyPeer(func(p drbdstate.Peer) bool { return p.Connection == drbdstate.StandAlone })
}

// isolated reports whether no peer is connected.
func isolated(r drbdstate.Resource) bool {
	return !r.AnyPeer(func(p drbdstate.Peer) bool { return p.Connection == drbdstate.Connected })
}

// undecided reports whether a disk is Consistent: DRBD 9 makes that of a Secondary's UpToDate when
// it loses a Primary, until the remaining nodes have agreed that it was all (finish_state_change in
// drbd_state.c).
func undecided(r drbdstate.Resource) bool {
	return slices.ContainsFunc(r.Volumes, func(v drbdstate.Volume) bool { return v.Disk == drbdstate.Consistent })
}

// linked reports whether every peer is connected.
func linked(r drbdstate.Resource) bool {
	return !r.AnyPeer(func(p drbdstate.Peer) bool { return p.Connection != drbdstate.Connected })
}

// scores are the four values of adjust_master_score.
type scores struct {
	consistent  int // local data only Consistent
	throughPeer int // no usable local disk, good data over the link
	peerUnknown int // local data UpToDate, nothing known of the peer's
	best        int // local data UpToDate and the peer's known, or promoted with UpToDate data
}

// score is the promotion score of this node; 0 means none. why says it in words.
//
// It differs from ocf:linbit:drbd's table where that table hands out old or torn data:
//   - Inconsistent, Outdated and Consistent data get no score even with a good peer: when the
//     promoted peer stops, the node would be promoted onto data that goes away with it. A running
//     Primary keeps the low score, since taking it away would demote it.
//   - a disk that is still attaching gets none instead of the last value.
//   - a Secondary that is StandAlone towards a peer without fencing gets none: that link was dropped
//     on purpose or by an unresolved split brain, and the other copy may be newer. Nor does it get
//     one by a restart, which makes the link a connecting one (see doubt).
func score(r drbdstate.Resource, s scores, t trust) (n int, why string) {
	if !r.Configured() {
		return 0, "not configured"
	}
	if r.FailIO {
		return 0, "I/O is failed on purpose until the last user closes the device"
	}
	if clients(r) {
		return clientScore(r, s)
	}
	n, why = s.best, "UpToDate"
	for _, v := range r.Volumes {
		if m, w := volumeScore(r, v, s, t); m < n {
			n, why = m, fmt.Sprintf("volume %d: %s", v.Number, w)
		}
	}
	return n, why
}

func volumeScore(r drbdstate.Resource, v drbdstate.Volume, s scores, t trust) (n int, why string) {
	primary := r.AnyPrimary()
	switch {
	case !v.Quorum:
		return 0, "no quorum"
	case primary && v.Disk == drbdstate.UpToDate:
		return s.best, "promoted, UpToDate"
	case primary && peerHas(r, v.Number):
		return s.throughPeer, "promoted on the peer's data, own disk is " + string(v.Disk)
	case primary:
		return 0, "promoted without access to good data"
	case inTransit(v.Disk):
		return 0, "own disk is " + string(v.Disk)
	case v.Disk == drbdstate.UpToDate:
		return upToDateScore(r, v, s, t)
	case v.Disk == drbdstate.Consistent && !peerHas(r, v.Number):
		return s.consistent, "own disk is only Consistent"
	case (v.Disk == drbdstate.Diskless || v.Disk == drbdstate.FailedDisk) && peerHas(r, v.Number):
		return s.throughPeer, "own disk is " + string(v.Disk) + ", the peer's is UpToDate"
	}
	return 0, "own disk is " + string(v.Disk)
}

// upToDateScore is for a Secondary with UpToDate data.
func upToDateScore(r drbdstate.Resource, v drbdstate.Volume, s scores, t trust) (n int, why string) {
	switch why := blind(r, v, t); {
	case why != "":
		return 0, why
	case len(r.Peers) > 1 && !t.fenced && isolated(r):
		// Another node that is connected to anybody has heard of later writes than this one, and the
		// same score otherwise. Only quorum does better.
		return max(s.peerUnknown-2, 0), "UpToDate, no peer is connected"
	case len(r.Peers) == 0 || peerUnknown(r, v):
		return s.peerUnknown, "UpToDate, the peer's data is not known"
	}
	return s.best, "UpToDate, the peer's data is known"
}

func peerUnknown(r drbdstate.Resource, v drbdstate.Volume) bool {
	return r.AnyPeer(func(p drbdstate.Peer) bool { return unknownAt(p, v) })
}

// anyUnknown is peerUnknown for a volume with good data here.
func anyUnknown(r drbdstate.Resource) bool {
	return r.AnyPeer(func(p drbdstate.Peer) bool { return unknownTo(r, p) })
}

// unknownAt reports whether nothing is known of the peer's copy of a volume.
func unknownAt(p drbdstate.Peer, v drbdstate.Volume) bool {
	pv, ok := p.Volume(v.Number)
	return !ok || pv.Disk == drbdstate.DUnknown
}

// guards reports whether DRBD 9's quorum lets no two parts of so many nodes write: a number that is
// no majority allows that.
func guards(quorum string, nodes int) bool {
	if n, err := strconv.Atoi(quorum); err == nil {
		return 2*n > nodes
	}
	return quorum == "majority" || quorum == "all"
}

// clients reports whether this node has no disk on purpose (DRBD 9).
func clients(r drbdstate.Resource) bool {
	for _, v := range r.Volumes {
		if !v.Client {
			return false
		}
	}
	return len(r.Volumes) > 0
}

// clientScore stays one below that of a node with a disk in the same situation.
func clientScore(r drbdstate.Resource, s scores) (n int, why string) {
	good, all := 0, true
	for _, p := range r.Peers {
		bad := false
		for _, v := range r.Volumes {
			pv, ok := p.Volume(v.Number)
			bad = bad || !ok || p.Connection != drbdstate.Connected || pv.Disk != drbdstate.UpToDate
		}
		if bad {
			all = false
		} else {
			good++
		}
	}
	for _, v := range r.Volumes {
		if !v.Quorum {
			return 0, "no quorum"
		}
	}
	switch {
	case good > 0 && (all || r.AnyPrimary()):
		return max(s.best-1, 0), "diskless client of UpToDate peers"
	case good > 0:
		return max(s.peerUnknown-1, 0), "diskless client, some peer is UpToDate"
	}
	return 0, "diskless client without an UpToDate peer"
}

// refusal says why this node must not be promoted; empty where nothing is known against it. The
// kernel refuses most of these by itself. Saying so first is quicker, names the reason, and holds
// where the kernel would agree: onto a half-synchronized copy while the good peer is still there.
func refusal(r drbdstate.Resource, allowConsistent bool, t trust) string {
	if r.FailIO {
		return "DRBD fails all I/O until the last user closes the device"
	}
	for _, v := range r.Volumes {
		if v.Role == drbdstate.Primary {
			continue
		}
		if why := volumeRefusal(r, v, allowConsistent, t); why != "" {
			if len(r.Volumes) > 1 {
				return fmt.Sprintf("volume %d: %s", v.Number, why)
			}
			return why
		}
	}
	return ""
}

func volumeRefusal(r drbdstate.Resource, v drbdstate.Volume, allowConsistent bool, t trust) string {
	switch {
	case !v.Quorum:
		return "no quorum"
	case v.Disk == drbdstate.UpToDate:
		if why := blind(r, v, t); why != "" {
			return "own data is " + why
		}
		return ""
	case v.Disk == drbdstate.Consistent && allowConsistent:
		return "" // the kernel asks the fence-peer handler, and refuses without it
	case v.Disk == drbdstate.Diskless || v.Disk == drbdstate.FailedDisk:
		if peerHas(r, v.Number) {
			return ""
		}
		return "own disk is " + string(v.Disk) + " and no connected peer is UpToDate"
	}
	return "own disk is " + string(v.Disk)
}

// plan is what start has to do to reach a running, unpromoted resource.
type plan int

const (
	nothing plan = iota // runs as configured
	bringUp             // nothing of it is in the kernel
	adjust              // parts are missing: a disk, the link, a volume
)

func (p plan) String() string {
	return [...]string{"nothing to do", "bring up", "adjust"}[p]
}

// startPlan decides how start brings the resource up.
func startPlan(r drbdstate.Resource, found bool) plan {
	if !found {
		return bringUp
	}
	if !r.Configured() || anyAlone(r) || len(r.Peers) == 0 {
		return adjust
	}
	for _, v := range r.Volumes {
		if !v.Configured || v.Disk == drbdstate.Diskless && !v.Client {
			return adjust
		}
	}
	return nothing
}
