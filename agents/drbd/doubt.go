package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/drbdstate"
	"baton/ocf"
)

// doubt is what speaks against this node's copy and DRBD's state does not say: it gave up the link
// to a peer, or was down while a peer may have written. A restart of the resource makes an innocent
// "connecting" out of a StandAlone, and without fencing a copy that connects to nobody may be
// promoted. So it is kept until this node and that peer have been connected, or a person takes the
// record away. It lies where a reboot takes it away, too.
type doubt struct {
	Boot  string            `json:"boot"`
	Peers map[string]string `json:"peers"` // why, by the peer's name
}

// The reasons. A split brain is more than a lost link: what DRBD remembers of the peer, and what a
// fence-peer handler makes sure of, is of a history that the peer has left.
const (
	doubtSplit = "split brain"
	doubtAlone = "gave up the link to its peer"
	doubtDown  = "was down here"
)

func (a *agent) doubtFile() string {
	if a.dir == "" {
		return ""
	}
	return filepath.Join(a.dir, "drbd-doubt-"+fileName(a.name))
}

// doubts reads the record. One that cannot be read is none.
func (a *agent) doubts() map[string]string {
	data, err := os.ReadFile(a.doubtFile())
	if err != nil {
		if a.dir != "" && !errors.Is(err, fs.ErrNotExist) {
			a.Log.Warn("what speaks against this copy cannot be read: " + err.Error())
		}
		return nil
	}
	var d doubt
	if json.Unmarshal(data, &d) != nil || d.Boot != a.ledger.Boot {
		return nil
	}
	return d.Peers
}

// learn brings the record up to what the kernel shows now: a connected peer ends the doubt, a link
// that an unpromoted node has given up begins it. A promoted node's copy is the one that is served.
func (a *agent) learn(r drbdstate.Resource) { a.doubting(r, "") }

// doubting is learn, with a reason for all peers whose data is not known.
func (a *agent) doubting(r drbdstate.Resource, why string) {
	if a.dir == "" || a.Env.Caller == ocf.Hand {
		return // a look by hand decides nothing for the cluster
	}
	before := a.doubts()
	after := nextDoubts(before, r, why, func() bool { return a.splitLogged(r) })
	if maps.Equal(before, after) {
		return
	}
	var err error
	if len(after) == 0 {
		err = os.Remove(a.doubtFile())
	} else {
		var data []byte
		if data, err = json.Marshal(doubt{Boot: a.ledger.Boot, Peers: after}); err == nil {
			err = atomicfile.Write(a.doubtFile(), data, 0o644)
		}
	}
	if err != nil {
		a.Log.Warn("what speaks against this copy cannot be kept: " + err.Error())
	}
}

// nextDoubts is the record after a look at the kernel.
func nextDoubts(before map[string]string, r drbdstate.Resource, why string, split func() bool) map[string]string {
	after := map[string]string{}
	for _, p := range r.Peers {
		was := before[p.Name]
		switch {
		case p.Connection == drbdstate.Connected || r.AnyPrimary():
		case p.Connection == drbdstate.StandAlone:
			after[p.Name] = doubtAlone
			if was == doubtSplit || split() {
				after[p.Name] = doubtSplit
			}
		case was != "":
			after[p.Name] = was
		case why != "" && unknownTo(r, p):
			after[p.Name] = why
		}
	}
	// A peer that the kernel does not show at the moment (the resource is down, or half up).
	for name, was := range before {
		if !slices.ContainsFunc(r.Peers, func(p drbdstate.Peer) bool { return p.Name == name }) {
			after[name] = was
		}
	}
	return after
}

// unknownTo reports whether nothing is known of the peer's copy of a volume that is good here.
func unknownTo(r drbdstate.Resource, p drbdstate.Peer) bool {
	return slices.ContainsFunc(r.Volumes, func(v drbdstate.Volume) bool { return v.Disk == drbdstate.UpToDate && unknownAt(p, v) })
}

// trust is what is known beside the state: what protects against an older copy, and what speaks
// against this one.
type trust struct {
	fenced bool              // DRBD makes sure of its peers before it promotes without them
	doubts map[string]string // by peer
}

// blind says why good data here may be the older copy and nothing would be asked before a promotion;
// empty where it is not so. Any one peer counts: a third node that is away, or that knows no more
// than this one, says nothing of the peer's data.
func blind(r drbdstate.Resource, v drbdstate.Volume, t trust) string {
	for _, p := range r.Peers {
		if p.Connection == drbdstate.Connected {
			continue
		}
		why := t.doubts[p.Name]
		switch {
		case why == doubtSplit:
			return blindSplit
		case t.fenced || !unknownAt(p, v):
		case p.Connection == drbdstate.StandAlone:
			return blindAlone
		case why == doubtDown:
			return blindDown
		case why != "":
			return blindUnmet
		}
	}
	return ""
}

// What blind says. The first words are what docs/drbd.md has in its table.
const (
	blindAlone = "UpToDate but StandAlone without fencing: the peer's may be newer"
	blindSplit = "UpToDate but split from its peer's, and they have not met since: the peer's may be newer"
	blindUnmet = "UpToDate but it gave up the link to its peer and has not met it since: the peer's may be newer"
	blindDown  = "UpToDate but it was down here and has not met its peer since: the peer's may be newer"
)

// decide is what to do about a copy that may be the older one.
func (a *agent) decide(r drbdstate.Resource) string {
	do := "bring the peer back; where its copy is lost or the older one: "
	if anyAlone(r) {
		do += "drbdadm connect " + a.name + "; "
	}
	do += "rm -f " + a.doubtFile()
	if a.Env.Caller == ocf.Heartbeat {
		return do + "; docs/heartbeat.md, \"A device that was down\""
	}
	return do + "; docs/drbd.md, \"A promotion is refused\""
}
