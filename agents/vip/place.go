package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"baton/agents/internal/addresses"
	"baton/ocf"
)

// host is what this host has of the address, as read in one go.
type host struct {
	// nic is the interface that the configuration names; nil when it names none
	// or when it does not exist.
	nic *addresses.Link
	// entries are the address, on whatever interface and with whatever prefix.
	entries []entry
}

// entry is the address on one interface.
type entry struct {
	addresses.Addr
	link addresses.Link
}

// where shows the entry in messages: "192.0.2.50/24 on eth0".
func (e entry) where() string { return fmt.Sprintf("%v on %s", e.Addr, e.link.Name) }

// look reads the host. A missing interface is a state, not an error.
func look(cfg config) (host, error) {
	var h host
	if cfg.nic != "" {
		l, err := addresses.LinkByName(cfg.nic)
		switch {
		case err == nil:
			h.nic = &l
		case !errors.Is(err, addresses.ErrNoLink):
			return h, err
		}
	}
	found, err := addresses.Find(cfg.ip)
	if err != nil {
		return h, err
	}
	for _, a := range found {
		e := entry{Addr: a}
		if h.nic != nil && h.nic.Index == a.Index {
			e.link = *h.nic
		} else {
			e.link, err = addresses.LinkByIndex(a.Index)
			if errors.Is(err, addresses.ErrNoLink) {
				continue // gone between the two questions, and the address with it
			}
			if err != nil {
				return h, err
			}
		}
		h.entries = append(h.entries, e)
	}
	return h, nil
}

// verdict is what the host's entries mean for the configuration.
type verdict int

const (
	// absent: the address is nowhere on this host.
	absent verdict = iota
	// served: it is there as configured.
	served
	// elsewhere: it is on interfaces only that are not this resource's.
	elsewhere
	// otherPrefix and otherLabel: it is on the right interface in another form.
	otherPrefix
	otherLabel
)

// judge says what of the host's entries is this resource's, and how it stands.
// The interface is the one that is configured; where none is, every interface
// counts but lo, on which servers behind a load balancer keep addresses of
// their own. Of several entries one that is as configured decides.
func judge(cfg config, h host) (verdict, entry) {
	own := ownEntries(cfg, h)
	if len(own) == 0 {
		if len(h.entries) > 0 {
			return elsewhere, h.entries[0]
		}
		return absent, entry{}
	}
	for _, e := range own {
		if cfg.bits != 0 && e.Bits != cfg.bits || cfg.label != "" && e.Label != labelOn(e.link, cfg.label) {
			continue
		}
		return served, e
	}
	if cfg.bits != 0 && own[0].Bits != cfg.bits {
		return otherPrefix, own[0]
	}
	return otherLabel, own[0]
}

// ownEntries are the entries that stop removes.
func ownEntries(cfg config, h host) []entry {
	var own []entry
	for _, e := range h.entries {
		switch {
		case cfg.nic != "" && (h.nic == nil || e.Index != h.nic.Index):
		case cfg.nic == "" && e.link.IsLoopback() && !cfg.ip.IsLoopback():
		default:
			own = append(own, e)
		}
	}
	return own
}

// strays are the entries that may be this resource's where the interface that is configured does
// not exist: renamed while the address was up, or without its alternative name, it would carry the
// address under a name that nobody looks for. lo, and another prefix than the configured, tell that
// an address is somebody else's. The label tells nothing: the kernel changes it with the name.
func strays(cfg config, h host) []entry {
	if cfg.nic == "" || h.nic != nil {
		return nil
	}
	var list []entry
	for _, e := range h.entries {
		if e.link.IsLoopback() || cfg.bits != 0 && e.Bits != cfg.bits {
			continue
		}
		list = append(list, e)
	}
	return list
}

func labelOn(l addresses.Link, label string) string {
	if label == "" {
		return ""
	}
	return l.Name + ":" + label
}

// object names the resource in messages.
func (cfg config) object() string {
	s := cfg.ip.String()
	if cfg.nic != "" {
		s += " on " + cfg.nic
	}
	return s
}

// describe words a verdict that is not served.
func describe(cfg config, h host, v verdict, e entry) (found, expected string) {
	switch v {
	case absent:
		switch {
		case cfg.nic != "" && h.nic == nil:
			return "interface " + cfg.nic + " does not exist on this node", "the address there"
		case cfg.nic != "":
			return fmt.Sprintf("%v is not on %s", cfg.ip, cfg.nic), "the address there"
		}
		return fmt.Sprintf("%v is on no interface of this node", cfg.ip), "the address on one"
	case elsewhere:
		if cfg.nic == "" {
			return e.where() + " only", "the address on an interface that others reach"
		}
		return e.where(), "the address on " + cfg.nic
	case otherPrefix:
		return e.where(), fmt.Sprintf("prefix length %d", cfg.bits)
	case otherLabel:
		label := e.Label
		if label == "" {
			label = "none"
		}
		return fmt.Sprintf("%s has label %s", e.where(), label), "label " + labelOn(e.link, cfg.label)
	case served:
	}
	return e.where(), ""
}

// place decides where a start puts the address.
func place(cfg config, h host) (addresses.Addr, addresses.Link, error) {
	var none addresses.Link
	if cfg.nic != "" && h.nic == nil {
		return addresses.Addr{}, none, &ocf.Error{
			// Hard for this node only: other nodes may well have the interface.
			Kind: ocf.NotInstalled, Object: cfg.ip.String(), Found: "interface " + cfg.nic + " does not exist on this node",
			Expected: "an interface that ip link shows", Do: "correct nic",
		}
	}
	w := addresses.Wanted{IP: cfg.ip, Bits: cfg.bits, Broadcast: cfg.broadcast, Protocol: cfg.proto}
	if h.nic != nil {
		w.Index = h.nic.Index
	}
	routes, err := addresses.OnLink(cfg.ip)
	if err != nil {
		return addresses.Addr{}, none, kernelError(cfg, err)
	}
	own, err := addresses.List(cfg.ip)
	if err != nil {
		return addresses.Addr{}, none, kernelError(cfg, err)
	}
	a, err := addresses.Choose(w, routes, own)
	if err != nil {
		return addresses.Addr{}, none, noNetwork(cfg)
	}
	var link addresses.Link
	if h.nic != nil {
		link = *h.nic
	} else if link, err = addresses.LinkByIndex(a.Index); err != nil {
		return addresses.Addr{}, none, kernelError(cfg, err)
	}
	if a.IP.Is4() {
		a.Label = link.Name
		if cfg.label != "" {
			a.Label = labelOn(link, cfg.label)
		}
		if len(a.Label) > maxLabel {
			return addresses.Addr{}, none, &ocf.Error{
				Kind: ocf.BadConfig, Object: "iflabel", Found: "label " + a.Label + " is too long",
				Expected: fmt.Sprintf("%d characters at most, with the interface's name", maxLabel), Do: "shorten iflabel",
			}
		}
	} else {
		a.Preferred = cfg.preferred
		if cfg.nodad {
			a.Flags |= addresses.FlagNoDAD
		}
	}
	if cfg.noprefixroute {
		a.Flags |= addresses.FlagNoPrefixRoute
	}
	return a, link, nil
}

// noNetwork: neither parameter nor routing table says where the address belongs.
func noNetwork(cfg config) error {
	what := "no directly connected network contains it"
	missing := "cidr_netmask"
	switch {
	case cfg.nic != "" && cfg.bits == 0:
		what = "no network on " + cfg.nic + " contains it"
	case cfg.bits != 0:
		what = fmt.Sprintf("no directly connected network contains %v", netip.PrefixFrom(cfg.ip, cfg.bits).Masked())
		missing = "nic"
	default:
		missing = "nic and cidr_netmask"
	}
	return &ocf.Error{
		Kind: ocf.Failed, Object: cfg.ip.String(), Found: what,
		Expected: "a route without gateway to the network of the address", Do: "set " + missing + ", or give the node an address in that network",
	}
}

// linkError says what keeps the interface from carrying traffic, nil for nothing.
func linkError(cfg config, l addresses.Link) *ocf.Error {
	trouble := l.Trouble()
	if trouble == "" || !cfg.checkLink {
		return nil
	}
	e := &ocf.Error{
		Kind: ocf.Failed, Object: cfg.ip.String(), Found: "interface " + l.Name + " " + trouble,
		Expected: "a link that carries traffic", Do: "check cable, switch port and ip link show " + l.Name,
	}
	if strings.HasSuffix(trouble, "down") {
		e.Do = "ip link set " + l.Name + " up"
	}
	return e
}

// kernelError words what the kernel refused.
func kernelError(cfg config, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err // the driver knows what was waited for
	}
	e := &ocf.Error{Kind: kindOf(err, ocf.Failed), Object: cfg.object(), Err: err}
	if e.Kind == ocf.NoPermission {
		e.Expected, e.Do = "the right to change addresses (CAP_NET_ADMIN, CAP_NET_RAW)", "run it as root"
	}
	return e
}

// kindOf gives NoPermission where the errno says so, else otherwise.
func kindOf(err error, otherwise ocf.Kind) ocf.Kind {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return ocf.NoPermission
	}
	return otherwise
}

// checkPlace is what validate-all can say of this host without changing it.
func checkPlace(cfg config) []ocf.Problem {
	h, err := look(cfg)
	if err != nil {
		return []ocf.Problem{problemOf("", kernelError(cfg, err))}
	}
	if v, _ := judge(cfg, h); v == served {
		return nil // then it has a place
	}
	_, link, err := place(cfg, h)
	if err != nil {
		param := "ip"
		if cfg.nic != "" && h.nic == nil {
			param = "nic"
		}
		return []ocf.Problem{problemOf(param, err)}
	}
	if e := linkError(cfg, link); e != nil {
		p := problemOf("nic", e)
		p.Warning = true // it may come up; start insists on it
		return []ocf.Problem{p}
	}
	return nil
}

// problemOf turns an action's error into a problem of validate-all.
func problemOf(param string, err error) ocf.Problem {
	var e *ocf.Error
	if !errors.As(err, &e) {
		return ocf.Problem{Param: param, Found: err.Error()}
	}
	found := e.Found
	if e.Err != nil {
		found = strings.TrimPrefix(found+": "+e.Err.Error(), ": ")
	}
	if e.Object != "" && param != e.Object {
		found = e.Object + ": " + found
	}
	return ocf.Problem{Param: param, Kind: e.Kind, Found: found, Expected: e.Expected, Do: e.Do}
}
