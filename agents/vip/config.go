package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/addresses"
	"baton/ocf"
)

// config is what the parameters ask for.
type config struct {
	ip netip.Addr
	// nic is the interface's name, "" to find it from the routing table.
	nic string
	// bits is the prefix length, 0 to find it.
	bits      int
	broadcast addresses.Broadcast
	// label is the part behind the colon, "" for none.
	label string
	// proto is the RTPROT_ of the routes that count, 0 for all.
	proto uint8

	interval, conflictWait time.Duration
	count, refresh         int
	background             bool
	probe                  bool
	nodad, noprefixroute   bool
	// preferred is the preferred lifetime in seconds, addresses.Forever for forever.
	preferred uint32
	checkLink bool
	namespace string
	tickleDir string
}

// check is the driver's look at the values alone.
func check(c *ocf.Call) []ocf.Problem {
	_, problems := parse(c.Params)
	problems = append(problems, refused(c.Params)...)
	return append(problems, refusedClone(c)...)
}

// parse reads the parameters. A value that is wrong leaves its field as if it
// had not been given: the driver has dropped it where it goes on all the same.
func parse(p ocf.Params) (config, []ocf.Problem) {
	cfg := config{
		label:         p.String("iflabel"),
		interval:      time.Duration(p.Int("arp_interval")) * time.Millisecond,
		conflictWait:  time.Duration(p.Int("conflict_wait")) * time.Millisecond,
		count:         p.Int("arp_count"),
		refresh:       p.Int("arp_count_refresh"),
		background:    p.Bool("arp_bg"),
		probe:         p.Bool("run_arping"),
		nodad:         p.Bool("nodad"),
		noprefixroute: p.Bool("noprefixroute"),
		checkLink:     p.Bool("check_link_status"),
		preferred:     addresses.Forever,
	}
	var problems []ocf.Problem
	bad := func(param, found, expected string) {
		problems = append(problems, ocf.Problem{
			Param: param, Kind: ocf.BadConfig, Found: found, Expected: expected, Do: "correct " + param,
		})
	}
	for _, field := range []struct {
		param string
		read  func(value string) (expected string)
	}{
		{"ip", cfg.readIP}, // first: the others depend on its family
		{"nic", cfg.readNIC},
		{"cidr_netmask", cfg.readNetmask},
		{"broadcast", cfg.readBroadcast},
		{"proto", cfg.readProto},
		{"preferred_lft", cfg.readPreferred},
		{"network_namespace", cfg.readNamespace},
		{"tickle_dir", cfg.readTickleDir},
	} {
		value := p.String(field.param)
		if value == "" {
			continue
		}
		if expected := field.read(value); expected != "" {
			bad(field.param, strconv.Quote(value), expected)
		}
	}
	if cfg.ip.Is6() {
		cfg.label = "" // see withoutEffect
	}
	if expected := cfg.checkLabel(); expected != "" {
		param := "iflabel"
		if strings.Contains(p.String("nic"), ":") {
			param = "nic"
		}
		bad(param, strconv.Quote(p.String(param)), expected)
		cfg.label = ""
	}
	if cfg.linkLocal() && cfg.nic == "" {
		bad("nic", "no value given, and ip "+cfg.ip.String()+" is link-local", "the interface that the address belongs to")
	}
	return cfg, problems
}

func (cfg *config) linkLocal() bool { return cfg.ip.Is6() && cfg.ip.IsLinkLocalUnicast() }

// The readers below set their field and give "", or leave it and give what was expected.

func (cfg *config) readIP(value string) string {
	const expected = "the IPv4 or IPv6 address of one host, without prefix"
	ip, err := netip.ParseAddr(value)
	switch {
	case err != nil:
		return expected
	case ip.Zone() != "":
		return expected + " and without %zone, which is nic's part"
	case ip.Is4In6():
		return "the IPv4 address itself, " + ip.Unmap().String()
	case ip.IsUnspecified(), ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return expected
	}
	cfg.ip = ip
	return ""
}

// maxName is ALTIFNAMSIZ of include/uapi/linux/if.h, less the final zero.
const maxName = 127

func (cfg *config) readNIC(value string) string {
	name, label, _ := strings.Cut(value, ":")
	if name == "" || len(name) > maxName || name == "." || name == ".." || strings.ContainsAny(name, "/ \t") {
		return "the name of a network interface"
	}
	if label != "" {
		cfg.label = label // wins over iflabel, as it does for IPaddr2
	}
	cfg.nic = name
	return ""
}

func (cfg *config) readNetmask(value string) string {
	most := 128
	expected := "a prefix length from 1 to 128"
	if !cfg.ip.Is6() {
		most = 32
		expected = "a prefix length from 1 to 32, or a netmask such as 255.255.255.0"
		if bits, ok := netmaskBits(value); ok {
			value = strconv.Itoa(bits)
		}
	}
	bits, err := strconv.Atoi(value)
	if err != nil || bits < 1 || bits > most || len(value) > 3 {
		return expected
	}
	cfg.bits = bits
	return ""
}

// netmaskBits reads a dotted netmask, whose ones must all come first.
func netmaskBits(value string) (bits int, ok bool) {
	mask, err := netip.ParseAddr(value)
	if err != nil || !mask.Is4() {
		return 0, false
	}
	b := mask.As4()
	m := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	for m&0x80000000 != 0 {
		bits++
		m <<= 1
	}
	return bits, m == 0
}

func (cfg *config) readBroadcast(value string) string {
	switch value {
	case "+":
		cfg.broadcast.Mode = addresses.BroadcastComputed
		return ""
	case "-":
		cfg.broadcast.Mode = addresses.BroadcastNone
		return ""
	}
	addr, err := netip.ParseAddr(value)
	if err != nil || !addr.Is4() {
		return "an IPv4 address, + or -"
	}
	cfg.broadcast = addresses.Broadcast{Mode: addresses.BroadcastFixed, Addr: addr}
	return ""
}

// maxLabel is IFNAMSIZ of include/uapi/linux/if.h, less the final zero.
const maxLabel = 15

func (cfg *config) checkLabel() string {
	if strings.ContainsAny(cfg.label, " \t/:") {
		return "a label without blanks, colons and slashes"
	}
	if full := len(cfg.nic) + 1 + len(cfg.label); cfg.label != "" && full > maxLabel {
		return fmt.Sprintf("interface, colon and label of %d characters together at most, not %d", maxLabel, full)
	}
	return ""
}

func (cfg *config) readProto(value string) string {
	// RTPROT_ of include/uapi/linux/rtnetlink.h, by their names in iproute2's rt_protos.
	names := map[string]uint8{
		"redirect": 1, "kernel": 2, "boot": 3, "static": 4, "gated": 8, "ra": 9, "mrt": 10, "zebra": 11, "bird": 12,
		"dnrouted": 13, "xorp": 14, "ntk": 15, "dhcp": 16, "keepalived": 18, "babel": 42, "bgp": 186, "isis": 187,
		"ospf": 188, "rip": 189, "eigrp": 192,
	}
	if n, ok := names[value]; ok {
		cfg.proto = n
		return ""
	}
	n, err := strconv.ParseUint(value, 10, 8)
	if err != nil || n == 0 {
		return "a routing protocol such as kernel or static, or its number from 1 to 255"
	}
	cfg.proto = uint8(n)
	return ""
}

func (cfg *config) readPreferred(value string) string {
	if value == "forever" {
		return ""
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return "forever, or seconds"
	}
	cfg.preferred = uint32(n)
	return ""
}

func (cfg *config) readNamespace(value string) string {
	if value == "." || value == ".." || len(value) > 255 || strings.Contains(value, "/") {
		return "a name that ip netns list shows"
	}
	cfg.namespace = value
	return ""
}

func (cfg *config) readTickleDir(value string) string {
	if !filepath.IsAbs(value) || filepath.Clean(value) == "/" {
		return "an absolute path of a directory on the storage that moves with the address"
	}
	cfg.tickleDir = filepath.Clean(value)
	return ""
}

// enter reads the parameters and goes into the network namespace they name.
func (a agent) enter(c *ocf.Call) (config, error) {
	cfg, _ := parse(c.Params)
	if cfg.namespace == "" {
		return cfg, nil
	}
	if err := addresses.EnterNamespace(a.netns, cfg.namespace); err != nil {
		return cfg, &ocf.Error{
			Kind: kindOf(err, ocf.NotInstalled), Object: "network_namespace " + cfg.namespace, Err: err,
			Do: "create it with: ip netns add " + cfg.namespace,
		}
	}
	return cfg, nil
}

// validate looks at this host. It warns of what is accepted without effect, which check, called
// at each action, keeps silent about.
func (a agent) validate(_ context.Context, c *ocf.Call) []ocf.Problem {
	cfg, _ := parse(c.Params)
	problems := withoutEffect(c.Params, cfg)
	if cfg.tickleDir != "" {
		problems = append(problems, checkTickleDir(cfg.tickleDir)...)
	}
	cfg, err := a.enter(c)
	if err != nil {
		return append(problems, problemOf("network_namespace", err))
	}
	return append(problems, checkPlace(cfg)...)
}
