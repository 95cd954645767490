package drbdstate

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Version is the version of the loaded driver.
type Version struct{ Major, Minor, Patch int }

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Compare is negative where v is older than w, positive where it is newer.
func (v Version) Compare(w Version) int {
	for _, d := range []int{v.Major - w.Major, v.Minor - w.Minor, v.Patch - w.Patch} {
		if d != 0 {
			return d
		}
	}
	return 0
}

// Legacy is true for the 8.4 driver, whose state is in /proc/drbd and whose commands take minors.
func (v Version) Legacy() bool { return v.Major == 8 && v.Minor == 4 }

// Known is true for the drivers whose formats this package knows.
func (v Version) Known() bool { return v.Legacy() || v.Major == 9 }

// ParseVersion reads "8.4.11" and also "9.1.7-1" or "9.2.0-rc.1".
func ParseVersion(text string) (Version, error) {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "-")
	parts := strings.Split(text, ".")
	if len(parts) < 2 || len(parts) > 4 {
		return Version{}, fmt.Errorf("%q is not a version x.y.z", text)
	}
	var n [4]int
	for i, part := range parts {
		v, err := strconv.Atoi(part)
		if err != nil || v < 0 {
			return Version{}, fmt.Errorf("%q is not a version x.y.z", text)
		}
		n[i] = v
	}
	return Version{n[0], n[1], n[2]}, nil
}

// Proc is the content of /proc/drbd.
type Proc struct {
	Version Version
	// Devices are all minors that exist, of all resources. The 9 driver lists none.
	Devices []Device
}

// Device is one minor of the 8.4 driver.
type Device struct {
	Minor int
	// Configured is false for "cs:Unconfigured": the other fields are then empty.
	Configured     bool
	CState         string // as printed: WFConnection, SyncTarget …
	Role, PeerRole Role
	Disk, PeerDisk Disk
	// Suspended: I/O is frozen (the first of the six flags is 's' instead of 'r').
	Suspended bool
	// OutOfSync is in KiB.
	OutOfSync uint64
}

// Device finds a minor.
func (p Proc) Device(minor int) (Device, bool) {
	for _, d := range p.Devices {
		if d.Minor == minor {
			return d, true
		}
	}
	return Device{}, false
}

// ErrTruncated says that a text ended in the middle.
var ErrTruncated = errors.New("the text ends in the middle")

// ParseProc reads /proc/drbd. The first line of every driver is
//
//	version: 8.4.11 (api:1/proto:86-101)
//
// and the 8.4 driver goes on with (drbd_seq_show in drbd_proc.c)
//
//	srcversion: 3605238F092EFFCDC77483B
//	%2d: cs:%s ro:%s/%s ds:%s/%s %c %c%c%c%c%c%c
//	    ns:%u nr:%u dw:%u dr:%u al:%u bm:%u lo:%d pe:%d ua:%d ap:%d ep:%d wo:%c oos:%llu
//	        [==>.................] sync'ed: 16.0% (31784/32764)M
//	        finish: 0:14:01 speed: 38,656 (38,596) want: 50,280 K/sec
//
// where a minor that has neither disk nor link is "%2d: cs:Unconfigured", a gap in the numbers is
// an empty line, and the protocol letter is a blank when StandAlone. Further lines and fields are
// skipped; a device line that cannot be read completely is an error, since a role or disk state
// that is guessed is worse than none.
func ParseProc(data []byte) (Proc, error) {
	var p Proc
	lines := bytes.Split(data, []byte("\n"))
	fields := strings.Fields(string(lines[0]))
	if len(fields) < 2 || fields[0] != "version:" {
		return p, fmt.Errorf("/proc/drbd begins with %q, expected \"version: x.y.z\"", clip(lines[0]))
	}
	var err error
	if p.Version, err = ParseVersion(fields[1]); err != nil {
		return p, fmt.Errorf("/proc/drbd: %w", err)
	}
	if !p.Version.Legacy() {
		return p, nil
	}
	var last *Device
	counted := true // whether the counters of the last configured device were seen
	for i, line := range lines[1:] {
		words := strings.Fields(string(line))
		if len(words) == 0 {
			continue
		}
		minor, isDevice := deviceNumber(words)
		if !isDevice {
			if last != nil && strings.HasPrefix(words[0], "ns:") {
				if counted, err = last.counters(words); err != nil {
					return p, fmt.Errorf("/proc/drbd line %d: %w", i+2, err)
				}
			}
			continue
		}
		if !counted {
			return p, fmt.Errorf("/proc/drbd: minor %d: no line with counters: %w", last.Minor, ErrTruncated)
		}
		if _, twice := p.Device(minor); twice {
			return p, fmt.Errorf("/proc/drbd line %d: minor %d appears twice", i+2, minor)
		}
		d, err := parseDevice(minor, words[1:])
		if err != nil {
			return p, fmt.Errorf("/proc/drbd line %d: minor %d: %w", i+2, minor, err)
		}
		p.Devices = append(p.Devices, d)
		last = &p.Devices[len(p.Devices)-1]
		counted = !d.Configured
	}
	if !counted {
		return p, fmt.Errorf("/proc/drbd: minor %d: no line with counters: %w", last.Minor, ErrTruncated)
	}
	return p, nil
}

// deviceNumber recognizes " 0:" or "12:" at the begin of a line followed by cs:.
func deviceNumber(words []string) (int, bool) {
	digits, found := strings.CutSuffix(words[0], ":")
	if !found {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n >= 0
}

func parseDevice(minor int, words []string) (Device, error) {
	d := Device{Minor: minor}
	pair := func(text string) (string, string, error) {
		mine, peer, ok := strings.Cut(text, "/")
		if !ok || mine == "" || peer == "" {
			return "", "", fmt.Errorf("%q is not a pair mine/peer", text)
		}
		return mine, peer, nil
	}
	flags := ""
	for _, word := range words {
		key, value, ok := strings.Cut(word, ":")
		if !ok {
			if len(word) >= 6 { // the protocol is one letter, the flags are six
				flags = word
			}
			continue
		}
		var mine, peer string
		var err error
		switch key {
		case "cs":
			d.CState = value
		case "ro":
			mine, peer, err = pair(value)
			d.Role, d.PeerRole = Role(mine), Role(peer)
		case "ds":
			mine, peer, err = pair(value)
			d.Disk, d.PeerDisk = Disk(mine), Disk(peer)
		}
		if err != nil {
			return d, err
		}
	}
	if d.CState == "Unconfigured" {
		return Device{Minor: minor}, nil
	}
	d.Configured = true
	switch {
	case d.CState == "" || d.Role == "" || d.Disk == "" || flags == "":
		return d, fmt.Errorf("found %q, expected cs:, ro:, ds: and six flags: %w", strings.Join(words, " "), ErrTruncated)
	case d.Role != Primary && d.Role != Secondary && d.Role != UnknownRole:
		return d, fmt.Errorf("role %q is none of Primary, Secondary, Unknown", d.Role)
	}
	d.Suspended = flags[0] == 's'
	return d, nil
}

// counters takes oos: from the second line. It is the last field, so its presence proves that the
// line was not cut; complete is false where it is missing.
func (d *Device) counters(words []string) (complete bool, err error) {
	for _, word := range words {
		value, ok := strings.CutPrefix(word, "oos:")
		if !ok {
			continue
		}
		if d.OutOfSync, err = strconv.ParseUint(value, 10, 64); err != nil {
			return false, fmt.Errorf("%q is not a number of KiB", word)
		}
		return true, nil
	}
	return false, nil
}

// splitConnection takes the 8.4 driver's one word for link and resync apart, in the words that
// drbdsetup-84 uses for events2: below WFReportParams there is no link, from Connected on there is.
func splitConnection(cstate string) (Connection, Replication, error) {
	switch cstate {
	case "StandAlone":
		return StandAlone, Off, nil
	case "WFConnection":
		return Connecting, Off, nil
	case "Disconnecting", "Unconnected", "Timeout", "BrokenPipe", "NetworkFailure", "ProtocolError", "TearDown":
		return Connection(cstate), Off, nil
	case "WFReportParams":
		// The link exists but the peers do not know each other's data yet: nothing is decided.
		return Connecting, Off, nil
	case "Connected":
		return Connected, Established, nil
	case "StartingSyncS", "StartingSyncT", "WFBitMapS", "WFBitMapT", "WFSyncUUID", "SyncSource", "SyncTarget",
		"PausedSyncS", "PausedSyncT", "VerifyS", "VerifyT", "Ahead", "Behind":
		return Connected, Replication(cstate), nil
	}
	return "", "", fmt.Errorf("connection state %q is not known", cstate)
}

// Assemble makes the resource's state from its minors; volumes maps volume numbers to minors.
// Every minor must be there: a mapping that is out of date is an error, not a smaller resource.
func (p Proc) Assemble(name string, volumes map[int]int) (Resource, error) {
	r := Resource{Name: name, Version: p.Version}
	peer := Peer{Name: "peer", Role: UnknownRole, Connection: StandAlone}
	for number := range volumes {
		r.Volumes = append(r.Volumes, Volume{Number: number, Minor: volumes[number]})
	}
	sortByNumber(r.Volumes, func(v Volume) int { return v.Number })
	for i := range r.Volumes {
		v := &r.Volumes[i]
		d, ok := p.Device(v.Minor)
		if !ok {
			return r, fmt.Errorf("minor %d of %s volume %d is not in /proc/drbd", v.Minor, name, v.Number)
		}
		v.Quorum = true // 8.4 knows none
		pv := PeerVolume{Number: v.Number, Disk: DUnknown, Replication: Off}
		if !d.Configured {
			v.Role, v.Disk = Secondary, Diskless
			peer.Volumes = append(peer.Volumes, pv)
			continue
		}
		link, repl, err := splitConnection(d.CState)
		if err != nil {
			return r, err
		}
		v.Configured, v.Role, v.Disk = true, d.Role, d.Disk
		r.Suspended = r.Suspended || d.Suspended
		// All volumes share one link; during its changes they are printed one after the other, so
		// the least connected one counts.
		if len(peer.Volumes) == 0 || linkRank(link) < linkRank(peer.Connection) {
			peer.Connection = link
		}
		if d.PeerRole == Primary || peer.Role == UnknownRole {
			peer.Role = d.PeerRole
		}
		pv.Disk, pv.Replication, pv.OutOfSync = d.PeerDisk, repl, d.OutOfSync
		peer.Volumes = append(peer.Volumes, pv)
	}
	r.Peers = []Peer{peer}
	return r, nil
}

func linkRank(c Connection) int {
	if c == Connected {
		return 2
	}
	if c == StandAlone {
		return 0
	}
	return 1
}

// clip shortens foreign text for a message.
func clip(b []byte) string {
	const most = 40
	if len(b) > most {
		b = b[:most]
	}
	return string(b)
}

// ParseFencing finds the fencing policy in the output of `drbdsetup show RES`, which tells the
// driver's own settings: "fencing resource-and-stonith;" in the disk section of 8.4 or the net
// section of 9. Where it is not printed it is the default, "dont-care".
func ParseFencing(show []byte) string { return setting(show, "fencing", "dont-care") }

// ParseQuorum finds DRBD 9's quorum in the same output: "quorum majority;" in the options section.
// Where it is not printed it is the default, "off".
func ParseQuorum(show []byte) string { return setting(show, "quorum", "off") }

func setting(show []byte, name, instead string) string {
	for line := range strings.Lines(string(show)) {
		words := strings.Fields(line)
		if len(words) >= 2 && words[0] == name {
			return strings.TrimSuffix(words[1], ";")
		}
	}
	return instead
}
