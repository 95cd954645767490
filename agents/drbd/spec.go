package main

import (
	"errors"
	"time"

	"baton/metadata"
	"baton/ocf"
)

// The names of the parameters, as ocf:linbit:drbd has them where they mean the same. DRBD's
// crm-fence-peer handlers find the clone in the CIB by the very name drbd_resource.
const (
	parResource     = "drbd_resource"
	parConf         = "drbdconf"
	parScores       = "adjust_master_score"
	parWait         = "wfc_timeout"
	parEarly        = "fail_promote_early_if_peer_primary"
	parVersionGE    = "require_drbd_module_version_ge"
	parVersionLT    = "require_drbd_module_version_lt"
	parSplit        = "split_brain_recovery"
	parIgnoreNotify = "ignore_missing_notifications"
	parOutdates     = "stop_outdates_secondary"
	parRemoveScore  = "remove_master_score_if_peer_primary"
	parUnfence      = "unfence_if_all_uptodate"
	parUnfenceArgs  = "unfence_extra_args"
	parAfterPromote = "connect_only_after_promote"
)

// The words of split_brain_recovery.
const (
	splitManual  = "manual"
	splitDiscard = "discard-unpromoted"
)

func program(root string) ocf.Program {
	s := system{root: root}
	return ocf.Program{
		Spec:             spec(),
		Positional:       positional,
		Check:            check,
		Validate:         s.validate,
		Monitor:          s.monitor,
		Start:            s.start,
		Stop:             s.stop,
		Promote:          s.promote,
		Demote:           s.demote,
		Notify:           s.notify,
		ReloadAgent:      s.reload,
		HeartbeatStart:   s.heartbeatStart,
		HeartbeatStop:    s.demote,
		HeartbeatMonitor: s.heartbeatMonitor,
	}
}

// positional is the form of haresources: drbd::r0.
func positional(args []string) (map[string]string, error) {
	if len(args) != 1 {
		return nil, errors.New("drbd takes one argument, the name of the DRBD resource (drbd::r0)")
	}
	return map[string]string{parResource: args[0]}, nil
}

func spec() metadata.Agent {
	return metadata.Agent{
		Name:      "drbd",
		Version:   "1.0.0",
		ShortDesc: "Manages a DRBD resource as a promotable clone",
		LongDesc: `Starts, promotes, demotes, stops and watches a DRBD resource (driver 8.4 or 9) that is configured in
/etc/drbd.d. Run it as a promotable clone with promoted-max=1; notify=true is recommended, not needed.

Monitor, demote and stop ask the kernel alone: an error in any DRBD configuration file does not change
what they answer. Promotion is always a plain "primary", never forced, and the promotion score is set
only from a state that was read completely. A split brain is reported, with what to do, and resolved
only as far as split_brain_recovery allows.

Configure fencing in DRBD (fencing resource-and-stonith with the crm-fence-peer handlers) and in the
cluster: without both, two nodes that lose sight of each other write to two copies of the data.

In haresources start means promote and stop means demote; the device stays up as unpromoted on the
other node.`,
		Positional: "DRBD-RESOURCE",
		Parameters: parameters(),
		Actions:    actions(),
	}
}

func actions() []metadata.Action {
	return []metadata.Action{
		{Name: "start", Timeout: 240 * time.Second},
		// Above the 90 s that DRBD's fence-peer handler may take by default: the kernel runs it
		// inside "primary".
		{Name: "promote", Timeout: 150 * time.Second},
		{Name: "demote", Timeout: 90 * time.Second},
		{Name: "notify", Timeout: 90 * time.Second},
		{Name: "stop", Timeout: 100 * time.Second},
		// Two different intervals: Pacemaker tells the monitors of the two roles apart by them.
		{Name: "monitor", Timeout: 20 * time.Second, Interval: 10 * time.Second, Role: metadata.Promoted},
		{Name: "monitor", Timeout: 20 * time.Second, Interval: 20 * time.Second, Role: metadata.Unpromoted},
		{Name: "reload-agent", Timeout: 30 * time.Second},
		{Name: "meta-data", Timeout: 5 * time.Second},
		{Name: "validate-all", Timeout: 30 * time.Second},
	}
}

func parameters() []metadata.Parameter {
	return append([]metadata.Parameter{
		{
			Name: parResource, Type: metadata.String, Required: true, Unique: true, Identifies: true,
			ShortDesc: "DRBD resource name",
			LongDesc:  "The name of the DRBD resource, as in \"resource r0 { … }\".",
		},
		{
			Name: parConf, Type: metadata.String, Default: "/etc/drbd.conf",
			ShortDesc: "DRBD configuration file",
			LongDesc:  "The configuration file for drbdadm. Only start, notify and validate-all read it.",
		},
		{
			Name: parScores, Type: metadata.String, Default: "0 10 1000 10000", Reloadable: true,
			ShortDesc: "Promotion scores",
			LongDesc: `Four promotion scores, none lower than the one before it, for: data that is only Consistent (0: never promoted);
no usable local disk, but a connected peer with UpToDate data; local data UpToDate, state of the peer's
data unknown; local data UpToDate and the peer's state known, or promoted with UpToDate data.`,
		},
		{
			Name: parWait, Type: metadata.Seconds, Default: "5", Reloadable: true,
			ShortDesc: "How long start waits for the peer",
			LongDesc: `How long start waits for a connection to the peer, so that the promotion that may follow knows whose data is
newer. A peer that does not answer delays start by this much, and does not fail it.`,
		},
		{
			Name: parSplit, Type: metadata.Select, Options: []string{splitManual, splitDiscard}, Default: splitManual, Reloadable: true,
			ShortDesc: "What to do about a split brain",
			LongDesc: `manual: report it (log, node attribute) and leave it to the administrator. discard-unpromoted: a node that is
unpromoted, while the cluster has exactly one other node promoted with UpToDate data, gives up its own changes
and takes the data of the promoted node; how much it gives up is logged before. Needs notify=true. DANGER: who is
promoted says nothing of whose data is newer. A node that wrote for hours with its link cut, then lost its power,
and comes back after the other was promoted on the old copy, gives up those hours, acknowledged as they were. Only
fencing (resource-and-stonith, its handlers, a fencing device that works) prevents that: do not set
discard-unpromoted without it. To discard the data of the promoted node is not offered.`,
		},
		{
			Name: parEarly, Type: metadata.Boolean, Default: "false", Reloadable: true,
			ShortDesc: "Give up a promotion at once if the peer is Primary",
			LongDesc:  "Do not retry a promotion that DRBD refuses because the peer still is Primary.",
		},
		{
			Name: parVersionGE, Type: metadata.String, Default: "8.4.0",
			ShortDesc: "Oldest driver version accepted",
			LongDesc:  "Refuse to start with an older drbd kernel module (x.y.z).",
		},
		{
			Name: parVersionLT, Type: metadata.String, Default: "10.0.0",
			ShortDesc: "First driver version refused",
			LongDesc:  "Refuse to start with this drbd kernel module or a newer one (x.y.z).",
		},
	}, withoutEffect()...)
}

// withoutEffect are parameters of ocf:linbit:drbd that are accepted, so that a configuration can
// move over, and have no effect; validate-all says so where one asks for more than its default.
func withoutEffect() []metadata.Parameter {
	const why = " Accepted from configurations of ocf:linbit:drbd; has no effect."
	return []metadata.Parameter{
		{
			Name: parIgnoreNotify, Type: metadata.Boolean, Default: "true",
			ShortDesc: "No effect: notifications are never required",
			LongDesc:  "The agent works with and without notify=true." + why,
		},
		{
			Name: parOutdates, Type: metadata.Boolean, Default: "false",
			ShortDesc: "No effect",
			LongDesc:  "The agent never outdates a copy from what a notification says: that may hit the last good one." + why,
		},
		{
			Name: parRemoveScore, Type: metadata.String, Default: "false",
			ShortDesc: "No effect",
			LongDesc:  "A node keeps its score while the peer is Primary: taking it away delays every failover by a monitor interval." + why,
		},
		{
			Name: parUnfence, Type: metadata.Boolean, Default: "false",
			ShortDesc: "No effect",
			LongDesc:  "Fencing constraints are left to DRBD's own handlers." + why,
		},
		{
			Name: parUnfenceArgs, Type: metadata.String,
			ShortDesc: "No effect",
			LongDesc:  "Arguments for unfencing, see unfence_if_all_uptodate." + why,
		},
		{
			Name: parAfterPromote, Type: metadata.Boolean, Default: "false",
			ShortDesc: "No effect",
			LongDesc:  "The link to the peer is always made at start." + why,
		},
	}
}
