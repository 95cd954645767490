package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"baton/agents/internal/drbdstate"
	"baton/agents/internal/pacemaker"
	"baton/ocf"
)

// The values of the node attribute drbd-RESOURCE, which exists only while something is wrong.
const (
	attrStandAlone = "StandAlone"
	attrSplitBrain = "SplitBrain"
	attrNotMet     = "PeerNotMet" // there was a link that was given up, and there has been none since
)

// watchSplit tells of a link that was given up: once in the log, and by a node attribute that
// crm_mon -A shows. Where the administrator allowed it, a split brain of an unpromoted node is
// reported as a failure once, so that the cluster restarts this instance and start recovers it:
// a monitor itself changes nothing.
func (a *agent) watchSplit(ctx context.Context, r drbdstate.Resource) error {
	value, unmet := "", ""
	switch {
	case anyAlone(r):
		value = attrStandAlone
		if a.splitLogged(r) {
			value = attrSplitBrain
		}
	case !r.AnyPrimary() && len(a.doubts()) > 0:
		unmet = attrNotMet
	}
	a.keepAttribute(ctx, value+unmet)
	if value != "" || linked(r) { // a link that is only being made does not end what is known of the last one
		if a.ledger.Once("link", value) {
			a.Log.Error(splitAdvice(r, value, a.discards()))
		}
	}
	if a.ledger.Once("unmet", unmet) {
		a.Log.Warn(a.name + ": has not met its peer since it gave up the link, so without DRBD's fencing it is not promoted; " + a.decide(r))
	}
	if value != attrSplitBrain || !a.discards() || !a.clustered() || r.AnyPrimary() || a.Env.Probe || a.Env.Action != "monitor" {
		if value == "" {
			a.ledger.Once("recovery", "")
		}
		return nil
	}
	// Without a cluster that confirms the conditions a restart would change nothing.
	if why := a.mayNotDiscard(ctx, r); why != "" {
		if a.ledger.Once("not discarded", why) {
			a.Log.Warn(a.name + ": split brain not recovered: " + why)
		}
		return nil
	}
	if !a.ledger.Once("recovery", "asked") {
		return nil
	}
	return a.fail(ocf.Failed, "split brain; a restart gives up "+outOfSync(r)+" of changes of this unpromoted node",
		"a connected peer", "nothing: the cluster restarts it ("+parSplit+"="+splitDiscard+")")
}

func (a *agent) discards() bool { return a.Params.String(parSplit) == splitDiscard }

func (a *agent) keepAttribute(ctx context.Context, value string) {
	if !a.clustered() {
		return
	}
	name := "drbd-" + fileName(a.name)
	if value == "" && a.ledger.Unset(name) && !a.Env.Probe && a.Env.Action != "start" {
		return // never set since the ledger began, or taken away since
	}
	ctx, tools, done := a.ask(ctx)
	defer done()
	if _, err := tools.KeepAttribute(ctx, a.ledger, name, value, false); err != nil && !pacemaker.NoCluster(err) {
		a.Log.Warn("node attribute " + name + ": " + err.Error())
	}
}

// splitAdvice is the whole story for the log.
func splitAdvice(r drbdstate.Resource, value string, discards bool) string {
	role := "unpromoted"
	if r.AnyPrimary() {
		role = "promoted"
	}
	if value == attrStandAlone {
		return fmt.Sprintf("%s is StandAlone (possibly a split brain, a failed authentication, or disconnected by hand): "+
			"this %s node does not replicate; expected a connected peer; look into the kernel's log on both nodes, then run: drbdadm connect %s",
			r.Name, role, r.Name)
	}
	text := fmt.Sprintf("%s: split brain: both nodes have written on their own; this %s node has %s that its peer lacks; expected one history; "+
		"on the node whose changes shall be given up run: drbdadm secondary %[1]s; drbdadm disconnect %[1]s; drbdadm connect --discard-my-data %[1]s; "+
		"on the other: drbdadm connect %[1]s", r.Name, role, outOfSync(r))
	if discards {
		text += " (" + parSplit + "=" + splitDiscard + " does so where this node is unpromoted and exactly one other is promoted with UpToDate data)"
	}
	return text
}

func outOfSync(r drbdstate.Resource) string {
	var kib uint64
	for _, p := range r.Peers {
		for _, v := range p.Volumes {
			kib += v.OutOfSync
		}
	}
	return fmt.Sprintf("%d KiB", kib)
}

// splitLogged looks into the kernel's log for the reason of the lost link. Once a split brain is
// known it stays known until there is a link again: the log may be overwritten meanwhile. A link
// that was given up for another reason may still end in one, so then the log is read again.
func (a *agent) splitLogged(r drbdstate.Resource) bool {
	if a.ledger.Knows("once link", attrSplitBrain) {
		return true
	}
	text, err := kernelLog(filepath.Join(a.sys.root, "dev/kmsg"))
	if err != nil {
		a.Log.Debug("kernel log: " + err.Error())
	}
	return drbdstate.SplitBrainLogged(text, r.Name, r.Minors())
}

// kernelLog reads what /dev/kmsg holds: each read gives one record, EPIPE means that records were
// overwritten meanwhile, EAGAIN that there are no more (Documentation/ABI/testing/dev-kmsg).
func kernelLog(path string) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	const most = 16 << 20 // larger than any log buffer in use
	var all []byte
	record := make([]byte, 8192) // CONSOLE_EXT_LOG_MAX
	for len(all) < most {
		n, err := syscall.Read(fd, record)
		switch {
		case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN), err == nil && n == 0:
			return all, nil
		case err != nil:
			return all, &os.PathError{Op: "read", Path: path, Err: err}
		}
		all = append(all, record[:n]...)
	}
	return all, nil
}

// conditions are what discard-unpromoted depends on.
type conditions struct {
	Here       string // this node's name in the cluster
	SplitBrain bool   // a split brain is known, not only a lost link
	Local      drbdstate.Resource
	Cluster    pacemaker.Cluster
	Resource   string // the clone's primitive
	Best       int    // the highest of adjust_master_score
}

// mayDiscard says why this node must not give up its changes; empty where it may. All of it must
// hold: this node is Secondary and has no link; it was a split brain that ended the link; the
// cluster works and has exactly one other node promoted, which is sane and published the best
// score: a promoted node has that with UpToDate data alone (an unpromoted one also where it knows
// its peer's, and the attribute may be one monitor interval old).
//
// None of it says whose changes are newer, or were acknowledged to anybody: the other node may have
// been promoted on an old copy while this one, then Primary, was cut off and died. Only fencing
// keeps that from happening; the administrator who asks for this must have it, and is told so.
func mayDiscard(c conditions) string {
	switch {
	case !c.SplitBrain:
		return "no split brain is known, only a lost link"
	case c.Local.AnyPrimary():
		return "this node is Primary"
	case !c.Local.Configured():
		return "the resource is not up"
	case !isolated(c.Local):
		return "a peer is connected"
	case len(c.Local.Peers) != 1:
		return fmt.Sprintf("there are %d peers, and only with one it is known whose data to take", len(c.Local.Peers))
	case c.Here == "":
		return "this node's name in the cluster is not known"
	case c.Cluster.DC == "":
		return "the cluster has no coordinator at the moment"
	case c.Cluster.Maintenance:
		return "the cluster is in maintenance mode"
	}
	promoted := c.Cluster.Promoted(c.Resource)
	if slices.Contains(promoted, c.Here) {
		return "the cluster has this node promoted"
	}
	if len(promoted) != 1 {
		return fmt.Sprintf("the cluster has %d other nodes promoted, expected exactly one", len(promoted))
	}
	node, ok := c.Cluster.Node(promoted[0])
	if !ok || !node.Online || node.Unclean || node.Pending {
		return "the promoted node " + promoted[0] + " is not cleanly online"
	}
	text := node.Attributes["master-"+pacemaker.BaseName(c.Resource)]
	if n, err := strconv.Atoi(text); err != nil || n < c.Best || c.Best <= 0 {
		return fmt.Sprintf("the promoted node %s has the score %q, expected %d (promoted, UpToDate)", node.Name, text, c.Best)
	}
	return ""
}

func (a *agent) mayNotDiscard(ctx context.Context, r drbdstate.Resource) string {
	ctx, tools, done := a.ask(ctx)
	defer done()
	cluster, err := tools.Cluster(ctx)
	if err != nil {
		return err.Error()
	}
	return mayDiscard(conditions{
		Here: a.Env.Node, SplitBrain: a.ledger.Knows("once link", attrSplitBrain) || a.ledger.Knows("once recovery", "asked"),
		Local: r, Cluster: cluster, Resource: a.Env.Instance, Best: a.scores.best,
	})
}

// recover gives up this node's changes after a split brain, if all conditions hold. It runs in
// start, after the resource came up without its peer. The promoted node connects again when it is
// notified of this start.
func (a *agent) recover(ctx context.Context, r drbdstate.Resource) drbdstate.Resource {
	if linked(r) || !a.clustered() {
		return r
	}
	if !a.ledger.Knows("once link", attrSplitBrain) && !a.ledger.Knows("once recovery", "asked") {
		return r
	}
	if why := a.mayNotDiscard(ctx, r); why != "" {
		a.Log.Warn(a.name + ": split brain not recovered: " + why)
		return r
	}
	a.Log.Warn(fmt.Sprintf("%s: split brain: giving up %s of changes that this unpromoted node alone has (%s=%s)",
		a.name, outOfSync(r), parSplit, splitDiscard))
	var steps [][]string
	if !alone(r) {
		steps = append(steps, []string{"disconnect", a.name})
	}
	steps = append(steps, []string{"connect", "--discard-my-data", a.name})
	for _, step := range steps {
		if err := a.drbdadm(ctx, step...); err != nil {
			a.Log.Error(fmt.Sprintf("%s: split brain not recovered: drbdadm %s: %s", a.name, strings.Join(step, " "), complaint(err)))
			return r
		}
	}
	after, found, err := a.read(ctx)
	if err != nil || !found {
		return r
	}
	return after
}
