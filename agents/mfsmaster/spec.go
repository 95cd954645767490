package main

import (
	"fmt"
	"path/filepath"
	"time"

	"baton/metadata"
	"baton/ocf"
)

// The words of the Select parameters.
const (
	modeStorage     = "storage"
	modeMetaloggers = "metaloggers"

	durabilitySync     = "sync"
	durabilityInterval = "interval"
	durabilityMoosefs  = "moosefs"

	olderRefuse = "refuse"
	olderAccept = "accept"

	fewWarn = "warn"
	fewFail = "fail"
)

func spec() metadata.Agent {
	return metadata.Agent{
		Name:      "mfsmaster",
		Version:   "1.0",
		ShortDesc: "MooseFS master server with recovery of its metadata",
		LongDesc: `Runs the master server of MooseFS and moves it between nodes without losing what it acknowledged.

mode=storage: a primitive whose DATA_PATH lies on a replicated device, in a group after the Filesystem and the address (vip before mfsmaster). mode=metaloggers: a promotable clone with notify=true and without shared storage; unpromoted instances run mfsmetalogger, the promoted one runs the master from the newest metadata that its node holds.

Before each start the metadata files and changelogs are inspected: torn tails are cut off (and kept in the archive), changelogs that a metalogger has beyond the master's own are merged where they continue the same history, and whatever does not fit together is refused with the commands that settle it. It never starts an older master over newer metadata and never an empty file system by accident. The running master is asked over its own protocol; no action but those that start MooseFS's programs starts a child process.

heartbeat: mfsmaster[::data directory] in haresources, further parameters as name=value.`,
		Positional: "[data directory]",
		Parameters: parameters(),
		Actions: []metadata.Action{
			{Name: "start", Timeout: 600 * time.Second},
			{Name: "stop", Timeout: 600 * time.Second},
			{Name: "promote", Timeout: 600 * time.Second},
			{Name: "demote", Timeout: 600 * time.Second},
			{Name: "notify", Timeout: 120 * time.Second},
			{Name: "monitor", Timeout: 30 * time.Second, Interval: 10 * time.Second},
			{Name: "monitor", Timeout: 30 * time.Second, Interval: 60 * time.Second, Depth: 10},
			{Name: "monitor", Timeout: 30 * time.Second, Interval: 11 * time.Second, Role: metadata.Promoted},
			{Name: "monitor", Timeout: 30 * time.Second, Interval: 13 * time.Second, Role: metadata.Unpromoted},
			{Name: "reload-agent", Timeout: 30 * time.Second},
			{Name: "validate-all", Timeout: 30 * time.Second},
			{Name: "meta-data", Timeout: 5 * time.Second},
		},
	}
}

func parameters() []metadata.Parameter {
	return []metadata.Parameter{
		{
			Name: "config", Aliases: []string{"mfsmaster_cfg", "master_cfg"}, Type: metadata.String,
			Default:   "/etc/mfs/mfsmaster.cfg",
			ShortDesc: "Configuration file of the master",
			LongDesc:  "mfsmaster.cfg, the same on all nodes. mfsmaster silently takes its defaults for a line that it cannot read, so the agent reads the file itself and compares.",
		},
		{
			Name: "data_dir", Type: metadata.String, Unique: true, Identifies: true,
			ShortDesc: "Data directory of the master",
			LongDesc:  "If given, DATA_PATH of the configuration file has to be this directory. Without it, DATA_PATH is taken from there.",
		},
		{
			Name: "mode", Type: metadata.Select, Options: []string{modeStorage, modeMetaloggers}, Default: modeStorage,
			ShortDesc: "On a replicated device, or over metaloggers",
			LongDesc:  "storage: a primitive, the data directory moves with the device below it. metaloggers: a promotable clone, each node has a data directory and a metalogger of its own.",
		},
		{
			Name: "durability", Type: metadata.Select, Reloadable: true,
			Options: []string{durabilitySync, durabilityInterval, durabilityMoosefs}, Default: durabilitySync,
			ShortDesc: "What a power cut may cost",
			LongDesc:  "sync: CHANGELOG_SAVE_MODE = 2 is required; nothing that was acknowledged is lost, for about half the rate of creations. interval: CHANGELOG_SAVE_MODE = 1 or 2 is required and each monitor writes the file system of the data directory out; a power cut loses at most one interval. moosefs: as MooseFS has it, with a warning; a power cut loses what the kernel had not written out, half a minute and more.",
		},
		{
			Name: "older_metadata", Type: metadata.Select, Reloadable: true, Options: []string{olderRefuse, olderAccept}, Default: olderRefuse,
			ShortDesc: "Whether metadata older than the newest known may be served",
			LongDesc:  "refuse: a start fails if the version that can be recovered is lower than one that the cluster has recorded or that a metalogger or an emergency file holds. accept: it goes on with a warning, after the metalogger's files have been saved in the archive. Chunks of the files that are unknown then are deleted by the chunk servers after a week.",
		},
		{
			Name: "initialize", Type: metadata.Boolean, Default: "false",
			ShortDesc: "Make a new, empty file system, once",
			LongDesc:  "Only on a data directory that never held metadata and in a cluster that never knew a file system under this resource. It makes one file system, once; remove the parameter after the first start.",
		},
		{
			Name: "require_mount", Type: metadata.Boolean, Default: "true",
			ShortDesc: "Refuse a data directory on the root file system",
			LongDesc:  "With mode=storage a data directory on the device of the root file system, or in memory, means that the mount below it was forgotten. mode=metaloggers does not look.",
		},
		{
			Name: "mountpoint", Type: metadata.String,
			ShortDesc: "Mount point that has to hold the data directory",
			LongDesc:  "If given, exactly this directory has to be a mount point, and the data directory has to lie on it.",
		},
		{
			Name: "metalogger_config", Type: metadata.String,
			ShortDesc: "Configuration file of this node's metalogger",
			LongDesc:  "mode=metaloggers: mfsmetalogger.cfg of the metalogger that the agent runs; /etc/mfs/mfsmetalogger.cfg if not given. mode=storage: if given, the files of a metalogger that runs beside (a clone of its own) are compared at each start, and its changelogs are merged if they are ahead. Its DATA_PATH must not be the master's.",
		},
		{
			Name: "binary", Type: metadata.String, Default: "mfsmaster",
			ShortDesc: "Program of the master", LongDesc: "A name to look for in the usual directories, or a path.",
		},
		{
			Name: "metalogger_binary", Type: metadata.String, Default: "mfsmetalogger",
			ShortDesc: "Program of the metalogger", LongDesc: "A name to look for in the usual directories, or a path.",
		},
		{
			Name: "metarestore_binary", Type: metadata.String, Default: "mfsmetarestore",
			ShortDesc: "mfsmetarestore of MooseFS 1.6", LongDesc: "Used with a master older than 1.7 only.",
		},
		{
			Name: "archive_dir", Type: metadata.String,
			ShortDesc: "Where replaced data are kept",
			LongDesc:  "Whatever recovery cuts off, replaces or sets aside is kept in a directory below this one. Default: baton-archive in the data directory.",
		},
		{
			Name: "archive_keep", Type: metadata.Integer, Default: "10", Min: 1, Max: 10000, Reloadable: true,
			ShortDesc: "How many archives are kept", LongDesc: "The oldest are removed when there are more, but not within seven days as long as the disk has room. What a recovery keeps of the files that it replaces is counted by itself.",
		},
		{
			Name: "repair_permissions", Type: metadata.Boolean, Default: "false",
			ShortDesc: "Give files in the data directory to the master's user",
			LongDesc:  "Without it, a data directory or file that the user of the master (WORKING_USER) cannot use makes the start fail with the command that repairs it.",
		},
		{
			Name: "info_timeout", Type: metadata.Seconds, Default: "5", Min: 1, Max: 60, Reloadable: true,
			ShortDesc: "How long monitor waits for one answer of the master",
			LongDesc:  "Twice, before the master counts as hung. Keep it below a third of the monitor's timeout.",
		},
		{
			Name: "min_chunkservers", Type: metadata.Integer, Default: "1", Min: 0, Max: 10000, Reloadable: true,
			ShortDesc: "Chunk servers that should be connected", LongDesc: "Looked at by monitor with depth 10. Fewer are logged and published as a node attribute.",
		},
		{
			Name: "too_few_chunkservers", Type: metadata.Select, Options: []string{fewWarn, fewFail}, Default: fewWarn, Reloadable: true,
			ShortDesc: "What too few chunk servers mean", LongDesc: "warn: a log line and the attribute. fail: monitor with depth 10 fails, and the cluster restarts or moves the master.",
		},
	}
}

// positional reads the haresources form: nothing, or the data directory.
func positional(args []string) (map[string]string, error) {
	switch len(args) {
	case 0:
		return nil, nil
	case 1:
		return map[string]string{"data_dir": args[0]}, nil
	}
	return nil, fmt.Errorf("%d arguments, but the form is mfsmaster[::data directory]", len(args))
}

func program() ocf.Program {
	return ocf.Program{
		Spec:        spec(),
		Positional:  positional,
		Check:       check,
		Validate:    validate,
		Monitor:     on(monitor),
		Start:       onPlain(start),
		Stop:        onPlain(stop),
		Promote:     onPlain(promote),
		Demote:      onPlain(demote),
		ReloadAgent: onPlain(reloadAgent),
		Notify:      notify,
	}
}

// check looks at the values alone.
func check(c *ocf.Call) []ocf.Problem {
	var found []ocf.Problem
	for _, name := range []string{"config", "data_dir", "mountpoint", "metalogger_config", "archive_dir"} {
		value := c.Params.String(name)
		if value == "" || filepath.IsAbs(value) && filepath.Clean(value) == value && value != "/" {
			continue
		}
		found = append(found, ocf.Problem{
			Param: name, Kind: ocf.BadConfig, Found: fmt.Sprintf("%q", value),
			Expected: "an absolute path without . and .. or a slash at its end", Do: "correct " + name,
		})
	}
	if c.Params.String("mode") == modeMetaloggers && c.Env.Caller == ocf.Heartbeat {
		found = append(found, ocf.Problem{
			Param: "mode", Kind: ocf.BadConfig, Found: "metaloggers under heartbeat",
			Expected: "storage: heartbeat knows no promotion", Do: "use Pacemaker, or a replicated device",
		})
	}
	if clone := c.Env.Clone; c.Env.Caller == ocf.Cluster && c.Params.String("mode") == modeMetaloggers &&
		clone.Max > 0 && !clone.Notify {
		found = append(found, ocf.Problem{
			Param: "mode", Kind: ocf.BadConfig, Found: "a clone without notify=true",
			Expected: "notify=true, by which followers learn of a new master", Do: "crm resource meta CLONE set notify true (or pcs resource meta CLONE notify=true)",
		})
	}
	return found
}
