package main

import (
	"errors"
	"strings"
	"time"

	"baton/metadata"
	"baton/ocf"
)

// The names of the parameters; those of ocf:heartbeat:nfsserver and exportfs where the meaning is
// the same.
const (
	parState    = "nfs_shared_infodir"
	parExports  = "exports"
	parDir      = "directory"
	parClients  = "clientspec"
	parOptions  = "options"
	parFSID     = "fsid"
	parLocal    = "local_exports"
	parScope    = "nfs_server_scope"
	parThreads  = "threads"
	parVers3    = "vers3"
	parVers40   = "vers4_0"
	parVers41   = "vers4_1"
	parVers42   = "vers4_2"
	parV4Only   = "nfsv4_only"
	parTCP      = "tcp"
	parUDP      = "udp"
	parPort     = "port"
	parMountd   = "mountd_port"
	parStatd    = "statd_port"
	parStatdOut = "statd_outgoing_port"
	parLockdTCP = "lockd_tcp_port"
	parLockdUDP = "lockd_udp_port"
	parLease    = "lease_time"
	parGrace    = "grace_time"
	parMaxGrace = "max_grace"
	parHang     = "hang_timeout"
	parIP       = "nfs_ip"
	parNoNotify = "nfs_no_notify"
	parRetry    = "nfs_smnotify_retry_time"
	parPipefs   = "rpcpipefs_dir"
)

func program(root string) ocf.Program {
	s := system{root: root}
	return ocf.Program{
		Spec:        spec(),
		Positional:  positional,
		Check:       check,
		Validate:    s.validate,
		Monitor:     s.monitor,
		Start:       s.start,
		Stop:        s.stop,
		ReloadAgent: s.reload,
		Internal:    map[string]internalAction{attendAction: s.attend},
	}
}

// positional is the form of haresources: nfsd, nfsd::name=value or nfsd::/state/directory.
func positional(args []string) (map[string]string, error) {
	if len(args) != 1 || !strings.HasPrefix(args[0], "/") {
		return nil, errors.New("nfsd takes one plain argument, the state directory, and NAME=VALUE (nfsd::/data/nfs::lease_time=10)")
	}
	return map[string]string{parState: args[0]}, nil
}

func spec() metadata.Agent {
	return metadata.Agent{
		Name:      "nfsd",
		Version:   "1.0.0",
		ShortDesc: "Manages the kernel's NFS server, its exports and its clients' state",
		LongDesc: `Runs the NFS server of the Linux kernel on one node at a time, so that clients keep their open files and locks
when it moves. It takes the place of rpcbind, nfsserver, exportfs and nfsnotify together.

Order of a group: the DRBD device promoted, Filesystem, nfsd, and the service address last. The address then
goes first when the service leaves a node, and comes only when the server answers.

What a move needs lies in nfs_shared_infodir on the replicated device: the database of NFSv4 clients (nfsdcld), the
lists of NFSv3's lock clients (statd), and the name by which clients know the server (server scope). With it the server
ends its grace period as soon as the last client has reclaimed its locks, a second after the start as a rule.

Nothing of NFS may be started by the boot: systemctl disable --now nfs-server.service. In /etc/nfs.conf the places of
the tools are read; the file is never written.

Clients should mount with NFSv4.1 or 4.2 and the option hard. One client with NFSv4.0 or 3 makes all clients wait up to
max_grace after a move.`,
		Positional: "[STATE-DIRECTORY]",
		Parameters: parameters(),
		Actions: []metadata.Action{
			{Name: "start", Timeout: 60 * time.Second},
			{Name: "stop", Timeout: 60 * time.Second},
			{Name: "monitor", Timeout: 20 * time.Second, Interval: 10 * time.Second},
			{Name: "monitor", Timeout: 20 * time.Second, Interval: 60 * time.Second, Depth: 10},
			{Name: "reload-agent", Timeout: 20 * time.Second},
			{Name: "meta-data", Timeout: 5 * time.Second},
			{Name: "validate-all", Timeout: 20 * time.Second},
		},
	}
}

func parameters() []metadata.Parameter {
	return append(exportParameters(), append(serverParameters(), stateParameters()...)...)
}

func exportParameters() []metadata.Parameter {
	return []metadata.Parameter{
		{
			Name: parState, Aliases: []string{"shared_infodir"}, Type: metadata.String,
			Required: true, Unique: true, Identifies: true,
			ShortDesc: "Directory on the replicated device for the server's state",
			LongDesc: "Absolute path. It is made on first use, and one of ocf:heartbeat:nfsserver is taken over. A directory on the root " +
				"file system's device or in memory is refused: a mount must have been forgotten.",
		},
		{
			Name: parExports, Type: metadata.String, Reloadable: true,
			ShortDesc: "What to export, in the form of exports(5)",
			LongDesc: "Lines of exports(5), separated by semicolons: /data/a 192.0.2.0/24(rw) 2001:db8::/64(ro); /data/b *(ro). " +
				"Without exports and directory, /etc/exports and /etc/exports.d are read at start; they must be the same on both nodes then.",
		},
		{
			Name: parDir, Type: metadata.String, Reloadable: true,
			ShortDesc: "Directories to export, separated by blanks",
			LongDesc:  "As in ocf:heartbeat:exportfs, together with clientspec, options and fsid; in place of exports.",
		},
		{
			Name: parClients, Type: metadata.String, Reloadable: true,
			ShortDesc: "Clients that may mount the directories",
			LongDesc:  "Addresses, networks, names, @netgroups or *, separated by blanks.",
		},
		{
			Name: parOptions, Type: metadata.String, Default: "rw", Reloadable: true,
			ShortDesc: "Options of the export",
			LongDesc:  "As in exports(5), separated by commas. async loses acknowledged writes when the service moves.",
		},
		{
			Name: parFSID, Type: metadata.String, Reloadable: true,
			ShortDesc: "File system id of the directory",
			LongDesc: "A number, root, or a UUID; several directories get consecutive numbers. Without it, here or among the options of an " +
				"export, a UUID is derived from the directory's path, the same on every node.",
		},
		{
			Name: parLocal, Type: metadata.Boolean, Default: "false", Reloadable: true,
			ShortDesc: "Exported directories may lie on the node's own disk",
			LongDesc: "A directory on the root file system's device or in memory is refused at start, for a mount must have been forgotten. " +
				"true is for those that lie there on purpose, with the same content on both nodes, such as the root of an NFSv4 tree (fsid=0).",
		},
	}
}

func serverParameters() []metadata.Parameter {
	port := func(name, short string) metadata.Parameter {
		return metadata.Parameter{
			Name: name, Type: metadata.Integer, Min: 0, Max: 65535, ShortDesc: short,
			LongDesc: "For firewalls. Without it, that of /etc/nfs.conf, else any free port. Used with vers3 only.",
		}
	}
	version := func(name, version, on, long string) metadata.Parameter {
		return metadata.Parameter{
			Name: name, Type: metadata.Boolean, Default: on, ShortDesc: "Serve NFSv" + version, LongDesc: long,
		}
	}
	return []metadata.Parameter{
		{
			Name: parThreads, Type: metadata.Integer, Default: "8", Min: 1, Max: 8192,
			ShortDesc: "Number of server threads", LongDesc: "Without it, that of /etc/nfs.conf, else 8.",
		},
		version(parVers3, "3", "false", "Needs rpcbind, rpc.statd and lockd, which are started as needed. Clients of NFSv3 get their locks back "+
			"by notification, and new locks of all clients wait for lockd's grace period."),
		version(parVers40, "4.0", "true", "A client of NFSv4.0 cannot say that it has reclaimed everything: the grace period lasts up to max_grace then."),
		version(parVers41, "4.1", "true", "Recommended, as is 4.2."),
		version(parVers42, "4.2", "true", "Recommended, as is 4.1."),
		{
			Name: parV4Only, Type: metadata.Boolean, Default: "false",
			ShortDesc: "Never serve NFSv3", LongDesc: "As in ocf:heartbeat:nfsserver. It is the default here; true contradicts vers3=true.",
		},
		{Name: parTCP, Type: metadata.Boolean, Default: "true", ShortDesc: "Serve over TCP", LongDesc: "NFSv4 needs it."},
		{Name: parUDP, Type: metadata.Boolean, Default: "false", ShortDesc: "Serve NFSv3 over UDP", LongDesc: "For old clients only; UDP can corrupt data on fast networks, see nfs(5)."},
		{Name: parPort, Type: metadata.Integer, Default: "2049", Min: 1, Max: 65535, ShortDesc: "Port of the server", LongDesc: "Without it, that of /etc/nfs.conf, else 2049."},
		port(parMountd, "Port of rpc.mountd"),
		port(parStatd, "Port on which rpc.statd listens"),
		port(parStatdOut, "Port from which rpc.statd and the notices to lock clients are sent"),
		port(parLockdTCP, "TCP port of lockd"),
		port(parLockdUDP, "UDP port of lockd"),
		{
			Name: parPipefs, Type: metadata.String,
			ShortDesc: "Where rpc_pipefs is mounted",
			LongDesc:  "Without it, pipefs-directory of /etc/nfs.conf, else /run/rpc_pipefs where that exists, else /var/lib/nfs/rpc_pipefs.",
		},
	}
}

func stateParameters() []metadata.Parameter {
	return []metadata.Parameter{
		{
			Name: parScope, Type: metadata.String,
			ShortDesc: "Server scope of NFSv4.1",
			LongDesc: "The name by which clients know the server again after a move, 1 to 64 characters. Without it, one is made once and kept in " +
				"the state directory. Every service needs its own.",
		},
		{
			Name: parLease, Type: metadata.Seconds, Min: 10, Max: 3600,
			ShortDesc: "Lease time of NFSv4",
			LongDesc:  "Without it, that of /etc/nfs.conf, else the kernel's, 90 s. A short lease is not needed for a quick move.",
		},
		{
			Name: parGrace, Type: metadata.Seconds, Min: 10, Max: 3600,
			ShortDesc: "Grace time of NFSv4",
			LongDesc:  "Without it, that of /etc/nfs.conf, else the kernel's, 90 s. The grace period ends earlier as a rule; see max_grace.",
		},
		{
			Name: parMaxGrace, Type: metadata.Seconds, Default: "25", Min: 0, Max: 3600, Reloadable: true,
			ShortDesc: "Longest grace period after a start",
			LongDesc: "A client that has died, or one of NFSv4.0 or 3, keeps the grace period open, and nobody can open or lock files meanwhile. So many seconds after " +
				"clients can reach the server (its address nfs_ip is up, or else the start) the agent ends it. Clients that have not come back by then lose their locks. " +
				"0: never ended. The default lies just below the moment, 25.5 s, at which waiting Linux clients try again.",
		},
		{
			Name: parHang, Type: metadata.Seconds, Default: "120", Min: 0, Max: 3600, Reloadable: true,
			ShortDesc: "How long all server threads may wait for a disk",
			LongDesc: "A frozen disk stops all server threads in the kernel, and a restart of the server would wait for the same disk. So the monitor " +
				"answers degraded until nothing has moved for so long, and fails then. It must be longer than DRBD's fence-peer handler takes, 90 s as a rule. " +
				"0: never, so that a disk that stays frozen stops the service until somebody sees to it.",
		},
		{
			Name: parIP, Type: metadata.String,
			ShortDesc: "Service address or addresses",
			LongDesc: "Separated by blanks or commas. max_grace counts from the moment at which one of them is up. With vers3, lock clients are notified from " +
				"them. Deep monitors ask the server there.",
		},
		{
			Name: parNoNotify, Type: metadata.Boolean, Default: "false",
			ShortDesc: "Do not notify lock clients of NFSv3", LongDesc: "They lose their locks then.",
		},
		{
			Name: parRetry, Type: metadata.Integer, Default: "15", Min: 1, Max: 1440,
			ShortDesc: "Minutes for which lock clients of NFSv3 are notified", LongDesc: "Who has not answered by then is notified again after the next start.",
		},
	}
}
