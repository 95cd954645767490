package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"baton/agents/internal/drbdconf"
	"baton/agents/internal/drbdstate"
	"baton/agents/internal/pacemaker"
	"baton/ocf"
)

// check looks at the values alone.
func check(c *ocf.Call) []ocf.Problem {
	var found []ocf.Problem
	bad := func(param, what, expected string) {
		found = append(found, ocf.Problem{Param: param, Kind: ocf.BadConfig, Found: what, Expected: expected, Do: "correct the parameter"})
	}
	if name := c.Params.String(parResource); !resourceName(name) {
		bad(parResource, fmt.Sprintf("%q is no name of a DRBD resource", name), "letters, digits and -%+.:=@_, not beginning with a dash, and not \"all\"")
	}
	if conf := c.Params.String(parConf); !filepath.IsAbs(conf) {
		bad(parConf, fmt.Sprintf("%q is no absolute path", conf), "a path such as /etc/drbd.conf")
	}
	if _, err := parseScores(c.Params.String(parScores)); err != nil {
		bad(parScores, err.Error(), "four whole numbers up to 1000000, none lower than the one before it")
	}
	for _, param := range []string{parVersionGE, parVersionLT} {
		if _, err := drbdstate.ParseVersion(c.Params.String(param)); err != nil {
			bad(param, err.Error(), "a version such as 8.4.11")
		}
	}
	return found
}

// resourceName allows what ocf:linbit:drbd does, except for a slash and the names of directories
// (names stand in paths such as /dev/drbd/by-res/NAME), a leading dash, which would be an option
// of drbdsetup, and drbdadm's word for every resource.
func resourceName(name string) bool {
	switch name {
	case "", ".", "..", "all":
		return false
	}
	if name[0] == '-' {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-%+.:=@_", r) {
			return false
		}
	}
	return true
}

// validate looks at this host, at DRBD's configuration and at the cluster's.
func (s system) validate(ctx context.Context, c *ocf.Call) []ocf.Problem {
	a := s.agent(c)
	found := a.ignored()
	for _, tool := range []string{"drbdadm", "drbdsetup"} {
		if _, err := a.runner.Look(tool); err != nil {
			found = append(found, ocf.Problem{
				Kind: ocf.NotInstalled, Found: tool + " is not installed", Expected: "DRBD's tools", Do: "install drbd-utils",
			})
		}
	}
	if fatal(found) {
		return found
	}
	version, err := a.reader.Version()
	if errors.Is(err, drbdstate.ErrUnknownVersion) {
		return append(found, ocf.Problem{Kind: ocf.NotInstalled, Found: err.Error(), Expected: "8.4 or 9", Do: "load another drbd module"})
	}
	res, err := a.runner.Run(ctx, "drbdadm", "-c", a.Params.String(parConf), "dump-xml", a.name)
	if err != nil {
		return append(found, ocf.Problem{
			Param: parResource, Kind: ocf.NotInstalled, Found: "drbdadm dump-xml " + a.name + ": " + complaint(err),
			Expected: "a resource of this name in " + a.Params.String(parConf), Do: "correct DRBD's configuration on this node",
		})
	}
	conf, err := drbdconf.Parse(res.Stdout, a.name)
	if err != nil {
		return append(found, ocf.Problem{Param: parResource, Kind: ocf.NotInstalled, Found: err.Error(), Do: "correct DRBD's configuration on this node"})
	}
	host, err := os.Hostname()
	if err != nil {
		host = c.Env.Node
	}
	found = append(found, hostWarnings(conf, host, c.Env.Node)...)
	found = append(found, dataWarnings(conf, version)...)
	found = append(found, s.bootWarnings(c.Env.Caller == ocf.Heartbeat || s.heartbeats())...)
	return append(found, a.clusterWarnings(ctx, conf)...)
}

func fatal(list []ocf.Problem) bool {
	return slices.ContainsFunc(list, func(p ocf.Problem) bool { return !p.Warning })
}

func warn(found, expected, do string) ocf.Problem {
	return ocf.Problem{Warning: true, Found: found, Expected: expected, Do: do}
}

// ignored names the parameters without effect that ask for more than their default.
func (a *agent) ignored() []ocf.Problem {
	var found []ocf.Problem
	for _, p := range withoutEffect() {
		if p.Name != parIgnoreNotify && a.Params.IsSet(p.Name) && a.Params.String(p.Name) != p.Default && a.Params.String(p.Name) != "no" {
			found = append(found, ocf.Problem{
				Param: p.Name, Warning: true, Found: "is set and has no effect", Expected: "no such parameter", Do: "remove it; docs/drbd.md says why",
			})
		}
	}
	return found
}

// hostWarnings: drbdadm finds its part of the configuration by uname -n, the handlers find the
// cluster's node by it, and DRBD's constraints name it.
func hostWarnings(conf drbdconf.Resource, host, node string) []ocf.Problem {
	var found []ocf.Problem
	if _, ok := conf.Host(host); !ok {
		var names []string
		for _, h := range conf.Hosts {
			names = append(names, h.Name)
		}
		found = append(found, warn(fmt.Sprintf("%s has no section \"on %s\", only %s", conf.Source, host, strings.Join(names, ", ")),
			"the name that uname -n prints", "rename the section or the host"))
	}
	if node != "" && node != host {
		found = append(found, warn(fmt.Sprintf("the cluster calls this node %s, uname -n says %s", node, host),
			"one name", "use the same name in corosync.conf, DRBD and uname -n: the fence-peer handlers compare them"))
	}
	return found
}

// dataWarnings are about what loses data when a link or a node is lost.
func dataWarnings(conf drbdconf.Resource, version drbdstate.Version) []ocf.Problem {
	var found []ocf.Problem
	legacy := version.Legacy()
	handler := conf.Option("handlers", "fence-peer")
	quorum := conf.Option("options", "quorum")
	protected := guards(quorum, len(conf.Hosts))
	switch policy := conf.Fencing(); {
	case policy == "dont-care" && !protected:
		found = append(found, warn("DRBD's fencing is dont-care", "resource-and-stonith",
			"set it with the crm-fence-peer handlers; without it two nodes that lose sight of each other both write"))
	case policy == "resource-only":
		found = append(found, warn("DRBD's fencing is resource-only, which does not freeze I/O while the peer is fenced", "resource-and-stonith",
			"change it where the cluster has fencing devices"))
	}
	if conf.Fencing() != "dont-care" {
		switch {
		case handler == "":
			found = append(found, warn("no fence-peer handler", "crm-fence-peer.sh (8.4) or crm-fence-peer.9.sh (9)",
				"add it to handlers { }: without it DRBD refuses to promote without its peer, and freezes I/O"))
		case version.Known() && strings.Contains(handler, "crm-fence-peer") && legacy == strings.Contains(handler, "crm-fence-peer.9"):
			found = append(found, warn("the fence-peer handler "+handler+" is not the one for DRBD "+version.String(),
				"crm-fence-peer.sh for 8.4, crm-fence-peer.9.sh for 9", "change the handler"))
		}
		after := conf.Option("handlers", "after-resync-target") + conf.Option("handlers", "unfence-peer")
		if strings.Contains(handler, "crm-fence-peer") && !strings.Contains(after, "crm-unfence-peer") {
			found = append(found, warn("no handler removes the fencing constraint after a resync", "after-resync-target (8.4) or unfence-peer (9) with crm-unfence-peer",
				"add it: otherwise the constraint stays and keeps the other node from being promoted"))
		}
	}
	for _, name := range []string{"after-sb-0pri", "after-sb-1pri", "after-sb-2pri", "rr-conflict"} {
		if v := conf.Option("net", name); v != "" && v != "disconnect" {
			found = append(found, warn(name+" is "+v+", which can give up one node's changes without asking", "disconnect", "remove it"))
		}
	}
	if conf.Flag("net", "allow-two-primaries") {
		found = append(found, warn("allow-two-primaries is set", "no: an ordinary file system mounted twice is destroyed", "remove it"))
	}
	if v := conf.Option("disk", "on-io-error"); v != "" && v != "detach" {
		found = append(found, warn("on-io-error is "+v, "detach, so that a broken disk moves the service to the other node", "change it"))
	}
	if version.Known() && !legacy && conf.Option("options", "auto-promote") != "no" {
		found = append(found, warn("auto-promote is on", "no: the cluster decides who is promoted", "set auto-promote no in options { }"))
	}
	return found
}

// bootWarnings: the distribution's service would start and stop DRBD behind Pacemaker's back, while
// under heartbeat it must run: a standby whose device stays down after a boot misses every write,
// and is up to date in its own eyes when it takes over. The service is enabled by a link below
// /etc/systemd/system, or /etc/rc?.d without systemd.
func (s system) bootWarnings(heartbeat bool) []ocf.Problem {
	link := ""
	for _, pattern := range []string{"etc/systemd/system/*.wants/drbd.service", "etc/rc[2-5].d/S??drbd"} {
		if links, err := filepath.Glob(filepath.Join(s.root, pattern)); err == nil && len(links) > 0 {
			link = links[0]
			break
		}
	}
	switch {
	case heartbeat && link == "":
		return []ocf.Problem{warn("drbd.service is not enabled", "that the boot connects the device: heartbeat only promotes", "systemctl enable drbd.service")}
	case !heartbeat && link != "":
		return []ocf.Problem{warn("drbd.service is enabled ("+link+")", "that only the cluster starts DRBD",
			"systemctl disable drbd.service")}
	}
	return nil
}

// heartbeats reports whether heartbeat moves DRBD on this node: a line of haresources names it, as
// this agent or by the older script.
func (s system) heartbeats() bool {
	text, err := os.ReadFile(filepath.Join(s.root, "etc/ha.d/haresources"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		for _, word := range strings.Fields(line) {
			if name, _, ok := strings.Cut(word, "::"); ok && (name == "drbd" || name == "drbddisk") {
				return true
			}
		}
	}
	return false
}

// clusterWarnings asks the cluster, if there is one.
func (a *agent) clusterWarnings(ctx context.Context, conf drbdconf.Resource) []ocf.Problem {
	if a.Env.Caller == ocf.Heartbeat {
		return nil
	}
	cluster, err := a.tools.Cluster(ctx)
	if err != nil {
		if !pacemaker.NoCluster(err) {
			a.Log.Warn("the cluster cannot be asked: " + err.Error())
		}
		return nil
	}
	var found []ocf.Problem
	if !cluster.Stonith {
		found = append(found, warn("the cluster has stonith-enabled=false", "fencing that works and is tested",
			"configure a fencing device: DRBD's handlers rely on it when a node does not answer"))
	}
	own, err := a.tools.Configuration(ctx)
	if err != nil {
		a.Log.Debug("own configuration in the cluster: " + err.Error())
		return found
	}
	return append(found, resourceWarnings(own, conf.HandlerTimeout(), a.discards())...)
}

// defaultTimeout is Pacemaker's timeout for an operation that configures none.
const defaultTimeout = 20 * time.Second

// resourceWarnings are about the clone's own configuration in the CIB.
func resourceWarnings(own pacemaker.Configuration, handler time.Duration, discards bool) []ocf.Problem {
	var found []ocf.Problem
	timeout := own.Timeout("promote")
	if timeout == 0 {
		timeout = defaultTimeout
	}
	if handler > 0 && timeout <= handler {
		found = append(found, warn(fmt.Sprintf("the promote timeout is %v, the fence-peer handler may take %v", timeout, handler),
			"more than the handler takes", fmt.Sprintf("set the promote timeout to %v or the handler's --timeout lower", handler+30*time.Second)))
	}
	if !own.Clone || own.Meta["promotable"] != "true" {
		found = append(found, warn("the resource is not a promotable clone", "clone with promotable=true", "see crm-examples/drbd-filesystem-vip"))
		return found
	}
	for _, name := range []string{"promoted-max", "master-max", "promoted-node-max", "master-node-max", "clone-node-max"} {
		if v := own.Meta[name]; v != "" && v != "1" {
			found = append(found, warn(name+" is "+v, "1", "change it"))
		}
	}
	if discards && own.Meta["notify"] != "true" {
		found = append(found, warn(parSplit+"="+splitDiscard+" without notify=true: the promoted node is not told to connect again", "notify=true", "set it on the clone"))
	}
	return found
}
