package drbdstate

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Events is what `drbdsetup events2 --now` printed: every resource it named.
type Events struct {
	Resources []Resource
}

// Resource finds a resource by name.
func (e Events) Resource(name string) (Resource, bool) {
	for _, r := range e.Resources {
		if r.Name == name {
			return r, true
		}
	}
	return Resource{}, false
}

// ParseEvents reads the output of `drbdsetup events2 --now [RES]`. A line is a verb ("exists"; for
// short also "create" and "change" of the endless form), the kind of object, and key:value words in
// any order:
//
//	exists resource name:r0 role:Secondary suspended:no force-io-failures:no may_promote:yes promotion_score:10101
//	exists connection name:r0 peer-node-id:1 conn-name:n2 connection:Connected role:Primary
//	exists device name:r0 volume:0 minor:0 backing_dev:/dev/vdb disk:UpToDate client:no open:no quorum:yes
//	exists peer-device name:r0 peer-node-id:1 conn-name:n2 volume:0 replication:Established peer-disk:UpToDate peer-client:no
//	exists path name:r0 …
//	exists -
//
// The last line ends the list; without it the text was cut and is an error (ErrTruncated). Kinds
// and keys that are not known are skipped. A known line without its name, or with a value that
// cannot be read, is an error. drbdsetup-84 prints the same lines with fewer keys, and fakes the
// peer as peer-node-id:0 conn-name:peer.
func ParseEvents(data []byte, version Version) (Events, error) {
	var e Events
	byName := map[string]*building{}
	var order []string
	complete := false
	for i, line := range bytes.Split(data, []byte("\n")) {
		words := strings.Fields(string(line))
		if len(words) < 2 {
			continue
		}
		if verb := words[0]; verb != "exists" && verb != "create" && verb != "change" {
			continue
		}
		if words[1] == "-" {
			complete = true
			continue
		}
		keys := keyValues(words[2:])
		switch words[1] {
		case "resource", "connection", "device", "peer-device":
		default:
			continue
		}
		name := keys["name"]
		if name == "" {
			return e, fmt.Errorf("events2 line %d: %q has no name", i+1, clip(line))
		}
		b := byName[name]
		if b == nil {
			b = &building{Resource: Resource{Name: name, Version: version}}
			byName[name] = b
			order = append(order, name)
		}
		if err := b.add(words[1], keys); err != nil {
			return e, fmt.Errorf("events2 line %d (%s of %s): %w", i+1, words[1], name, err)
		}
	}
	if !complete {
		return e, fmt.Errorf("events2 printed no closing \"exists -\": %w", ErrTruncated)
	}
	for _, name := range order {
		r, err := byName[name].finish()
		if err != nil {
			return e, fmt.Errorf("events2 of %s: %w", name, err)
		}
		e.Resources = append(e.Resources, r)
	}
	return e, nil
}

// keyValues splits key:value at the first colon: values such as backing_dev:/dev/disk/by-path/a:b
// hold more. A word without a colon is skipped.
func keyValues(words []string) map[string]string {
	keys := make(map[string]string, len(words))
	for _, word := range words {
		if key, value, ok := strings.Cut(word, ":"); ok && key != "" {
			keys[key] = value
		}
	}
	return keys
}

// building is a resource whose lines are still being read; they come in any order.
type building struct {
	Resource
	role Role // of the resource line; empty until it was seen
}

func (b *building) add(kind string, k map[string]string) error {
	switch kind {
	case "resource":
		b.role = Role(k["role"])
		if b.role != Primary && b.role != Secondary && b.role != UnknownRole {
			return fmt.Errorf("role %q is none of Primary, Secondary, Unknown", b.role)
		}
		// suspended: "no", or what suspends it, such as "user,fencing".
		b.Suspended = k["suspended"] != "no" && k["suspended"] != ""
		b.FailIO = k["force-io-failures"] == "yes"
	case "connection":
		if k["connection"] == "" {
			return fmt.Errorf("no connection: %w", ErrTruncated)
		}
		p, err := b.peer(k)
		if err != nil {
			return err
		}
		p.Connection, p.Role = Connection(k["connection"]), Role(orElse(k["role"], string(UnknownRole)))
	case "device":
		return b.device(k)
	case "peer-device":
		return b.peerDevice(k)
	}
	return nil
}

func (b *building) peer(k map[string]string) (*Peer, error) {
	id, err := number(k, "peer-node-id")
	if err != nil {
		return nil, err
	}
	for i := range b.Peers {
		if b.Peers[i].NodeID == id {
			return &b.Peers[i], nil
		}
	}
	b.Peers = append(b.Peers, Peer{NodeID: id, Name: orElse(k["conn-name"], "peer"), Role: UnknownRole})
	return &b.Peers[len(b.Peers)-1], nil
}

func (b *building) device(k map[string]string) error {
	vol, err := number(k, "volume")
	if err != nil {
		return err
	}
	minor, err := number(k, "minor")
	if err != nil {
		return err
	}
	if k["disk"] == "" {
		return fmt.Errorf("volume %d has no disk: %w", vol, ErrTruncated)
	}
	v := Volume{
		Number: vol, Minor: minor, Disk: Disk(k["disk"]), Client: k["client"] == "yes", Quorum: k["quorum"] != "no",
		Open: k["open"] == "yes", OpenKnown: k["open"] != "",
	}
	for i := range b.Volumes {
		if b.Volumes[i].Number == vol {
			b.Volumes[i] = v // "change" after "exists"
			return nil
		}
	}
	b.Volumes = append(b.Volumes, v)
	return nil
}

func (b *building) peerDevice(k map[string]string) error {
	vol, err := number(k, "volume")
	if err != nil {
		return err
	}
	p, err := b.peer(k)
	if err != nil {
		return err
	}
	if k["peer-disk"] == "" {
		return fmt.Errorf("volume %d has no peer-disk: %w", vol, ErrTruncated)
	}
	pv := PeerVolume{
		Number: vol, Disk: Disk(k["peer-disk"]), Client: k["peer-client"] == "yes",
		Replication: Replication(orElse(k["replication"], string(Off))),
	}
	if text := k["out-of-sync"]; text != "" { // --statistics only
		if pv.OutOfSync, err = strconv.ParseUint(text, 10, 64); err != nil {
			return fmt.Errorf("out-of-sync:%s is not a number of KiB", text)
		}
	}
	for i := range p.Volumes {
		if p.Volumes[i].Number == vol {
			p.Volumes[i] = pv
			return nil
		}
	}
	p.Volumes = append(p.Volumes, pv)
	return nil
}

// finish gives the volumes their role and puts everything in order.
func (b *building) finish() (Resource, error) {
	if b.role == "" {
		return b.Resource, fmt.Errorf("no resource line: %w", ErrTruncated)
	}
	sortByNumber(b.Volumes, func(v Volume) int { return v.Number })
	sortByNumber(b.Peers, func(p Peer) int { return p.NodeID })
	linked := false
	for i := range b.Peers {
		p := &b.Peers[i]
		if p.Connection == "" {
			return b.Resource, fmt.Errorf("no connection line of peer %s: %w", p.Name, ErrTruncated)
		}
		linked = linked || p.Connection != StandAlone
		sortByNumber(p.Volumes, func(v PeerVolume) int { return v.Number })
	}
	for i := range b.Volumes {
		v := &b.Volumes[i]
		v.Role = b.role
		// The rule of drbd_seq_show, so that both sources say "unconfigured" of the same thing.
		v.Configured = v.Disk != Diskless || v.Client || linked || b.role == Primary
	}
	return b.Resource, nil
}

func number(k map[string]string, key string) (int, error) {
	n, err := strconv.Atoi(k[key])
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s:%s is not a number", key, k[key])
	}
	return n, nil
}

func orElse(text, instead string) string {
	if text == "" {
		return instead
	}
	return text
}

func sortByNumber[T any](list []T, number func(T) int) {
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(number(a), number(b)) })
}
