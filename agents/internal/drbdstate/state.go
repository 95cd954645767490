// Package drbdstate knows the state of DRBD resources as the kernel tells it: from /proc/drbd for
// the 8.4 driver, and from the lines of `drbdsetup events2 --now` for the 9 driver (and for 8.4
// where /proc/drbd alone is not enough). It never reads DRBD's configuration files, so an error in
// them changes nothing of what it says.
//
// Sources: drivers/block/drbd/drbd_proc.c, drbd_strings.c, drbd_debugfs.c and
// include/linux/drbd.h of Linux 6.1 (the 8.4 driver); user/v9/drbdsetup.c and user/v84/drbdsetup.c
// of drbd-utils 9.22 for the lines of events2.
package drbdstate

import (
	"fmt"
	"slices"
	"strings"
)

// Role is DRBD's role of a node for a volume (8.4) or a resource (9).
type Role string

// The roles of drbd_strings.c. What is not one of them stays as the kernel's word.
const (
	Primary     Role = "Primary"
	Secondary   Role = "Secondary"
	UnknownRole Role = "Unknown"
)

// Disk is the state of one copy of the data.
type Disk string

// The disk states of drbd_strings.c, worst first.
const (
	Diskless     Disk = "Diskless"
	Attaching    Disk = "Attaching"
	Detaching    Disk = "Detaching" // 9 only
	FailedDisk   Disk = "Failed"
	Negotiating  Disk = "Negotiating"
	Inconsistent Disk = "Inconsistent"
	Outdated     Disk = "Outdated"
	DUnknown     Disk = "DUnknown"
	Consistent   Disk = "Consistent"
	UpToDate     Disk = "UpToDate"
)

// Connection is the state of the link to a peer, in the words of DRBD 9: the 8.4 driver mixes
// link and resync state in one word (cs:), which splitConnection takes apart.
type Connection string

// The connection states of DRBD 9 (drbd_strings.c); WFConnection of 8.4 is Connecting.
const (
	StandAlone Connection = "StandAlone"
	Connecting Connection = "Connecting"
	Connected  Connection = "Connected"
)

// Replication is what happens over an existing link: Off, Established, or the name of a resync
// state such as SyncSource or WFBitMapT.
type Replication string

// The replication states that decisions depend on.
const (
	Off         Replication = "Off"
	Established Replication = "Established"
	SyncSource  Replication = "SyncSource"
	SyncTarget  Replication = "SyncTarget"
)

// Resource is the state of one DRBD resource on this node, fully read.
type Resource struct {
	Name    string
	Version Version
	// Suspended says that I/O is frozen: a fencing handler runs, no data is accessible, quorum is
	// lost or an administrator suspended it.
	Suspended bool
	// FailIO says that the 9 driver fails all I/O (force-io-failures) until the last opener closes.
	FailIO  bool
	Volumes []Volume // ordered by number; empty for a resource without volumes
	Peers   []Peer   // ordered by node id; 8.4 has exactly one
}

// Volume is one device of a resource.
type Volume struct {
	Number, Minor int
	Role          Role
	Disk          Disk
	// Configured is false for a minor that exists but has neither disk nor link and is Secondary
	// (8.4 prints cs:Unconfigured).
	Configured bool
	// Client marks a volume of DRBD 9 that has no disk on purpose.
	Client bool
	// Quorum is false where DRBD 9 refuses I/O for lack of quorum. 8.4 has no quorum: true.
	Quorum bool
	// Open says that something has the device open; OpenKnown that the driver tells.
	Open, OpenKnown bool
}

// Peer is another node of the resource.
type Peer struct {
	NodeID     int
	Name       string // 8.4 does not know the peer's name; drbdsetup calls it "peer"
	Connection Connection
	Role       Role
	Volumes    []PeerVolume // ordered by number
}

// PeerVolume is the peer's copy of one volume.
type PeerVolume struct {
	Number      int
	Disk        Disk
	Client      bool
	Replication Replication
	// OutOfSync is how much of the volume differs from the peer's copy, in KiB. Without a link it
	// is what was written here since the link was lost. 0 where events2 did not print it.
	OutOfSync uint64
}

// Volume finds the peer's copy of a volume.
func (p Peer) Volume(number int) (PeerVolume, bool) {
	for _, v := range p.Volumes {
		if v.Number == number {
			return v, true
		}
	}
	return PeerVolume{}, false
}

// Minors lists the device minor numbers of the resource, by volume.
func (r Resource) Minors() []int {
	minors := make([]int, 0, len(r.Volumes))
	for _, v := range r.Volumes {
		minors = append(minors, v.Minor)
	}
	return minors
}

// Configured reports whether any volume has a disk, a link or the primary role.
func (r Resource) Configured() bool {
	return slices.ContainsFunc(r.Volumes, func(v Volume) bool { return v.Configured })
}

// AnyPrimary reports whether this node is Primary for at least one volume. In 8.4 each volume has
// a role of its own, and a promotion can stop half-way.
func (r Resource) AnyPrimary() bool {
	return slices.ContainsFunc(r.Volumes, func(v Volume) bool { return v.Role == Primary })
}

// AllPrimary reports whether this node is Primary for every volume.
func (r Resource) AllPrimary() bool {
	return len(r.Volumes) > 0 && !slices.ContainsFunc(r.Volumes, func(v Volume) bool { return v.Role != Primary })
}

// AnyPeer reports whether the condition holds for a peer.
func (r Resource) AnyPeer(is func(Peer) bool) bool { return slices.ContainsFunc(r.Peers, is) }

// String is the state in one line, in DRBD's own words.
func (r Resource) String() string {
	var b strings.Builder
	b.WriteString(r.Name)
	for _, v := range r.Volumes {
		fmt.Fprintf(&b, " volume %d (minor %d) %s %s", v.Number, v.Minor, v.Role, v.Disk)
		if !v.Quorum {
			b.WriteString(" without quorum")
		}
	}
	for _, p := range r.Peers {
		fmt.Fprintf(&b, "; peer %s %s %s", p.Name, p.Connection, p.Role)
		for _, v := range p.Volumes {
			fmt.Fprintf(&b, " %s", v.Disk)
			if v.Replication != Off && v.Replication != Established && v.Replication != "" {
				fmt.Fprintf(&b, " (%s)", v.Replication)
			}
		}
	}
	if r.Suspended {
		b.WriteString("; I/O suspended")
	}
	return b.String()
}
