// Package image builds the disk image that all machines of the lab start
// from: a Debian 12 with every real part of the cluster installed and nothing
// of it started. It is built once, from Debian's packages, and kept under a
// key made of everything that went into it.
package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
)

// File is a file laid into the image.
type File struct {
	Path string
	Mode fs.FileMode
	Text string
}

// Recipe is everything that decides what an image holds.
type Recipe struct {
	Suite    string   // Debian's code name
	Packages []string // installed without recommended ones
	Modules  []string // in the initramfs
	Disable  []string // units that an administrator of a cluster disables
	Mask     []string // units that only cost start-up time in a test machine
	Files    []File
	SizeMiB  int // of the root file system
}

// Key names the image: two recipes with the same key give the same machine,
// except for newer package versions in Debian's archive.
func (r Recipe) Key() string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers only: cannot happen
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}

// Default is the recipe of the lab's machines.
func Default() Recipe {
	return Recipe{
		Suite: "bookworm",
		Packages: []string{
			// The machine itself.
			"linux-image-amd64", "initramfs-tools", "systemd-sysv", "dbus", "udev", "kmod", "openssh-server",
			"iproute2", "iputils-ping", "iputils-arping", "procps", "psmisc", "util-linux-extra", "less", "bc",
			// The cluster, in both of its forms.
			"pacemaker", "pacemaker-cli-utils", "corosync", "crmsh", "pcs", "resource-agents", "libxml2-utils",
			"heartbeat", "cluster-glue", "sbd", "fence-agents",
			// What it carries.
			"drbd-utils", "nfs-kernel-server", "nfs-common", "rpcbind", "sqlite3",
			"moosefs-master", "moosefs-metalogger", "moosefs-chunkserver", "moosefs-client", "moosefs-cli", "moosefs-cgiserv",
			"e2fsprogs", "xfsprogs", "dmsetup", "attr",
			// What a person looks with.
			"tcpdump", "strace", "lsof", "socat", "nftables", "ethtool", "net-tools",
		},
		Modules: []string{"virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "ext4", "crc32c_generic"},
		Disable: []string{
			// Started by each test in the form that it needs.
			"corosync.service", "pacemaker.service", "pcsd.service", "pcsd-ruby.service", "heartbeat.service",
			"logd.service", "sbd.service", "drbd.service",
			// Belongs to the cluster, never to the boot (docs of every agent).
			"nfs-server.service", "moosefs-master.service", "moosefs-metalogger.service",
			"moosefs-chunkserver.service", "moosefs-cgiserv.service",
			// Started through its socket by the first who asks.
			"rpcbind.service",
		},
		Mask: []string{
			"apt-daily.timer", "apt-daily-upgrade.timer", "apt-daily.service", "apt-daily-upgrade.service",
			"dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
			"systemd-tmpfiles-clean.timer", "man-db.timer", "logrotate.timer",
			"getty@tty1.service", "serial-getty@ttyS0.service", "serial-getty@hvc0.service",
			"systemd-logind.service", "systemd-user-sessions.service", "systemd-update-utmp.service",
			"systemd-update-utmp-runlevel.service", "systemd-pstore.service", "systemd-rfkill.service",
			"systemd-rfkill.socket", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
			"systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "ldconfig.service",
			"systemd-sysusers.service", "systemd-update-done.service", "systemd-random-seed.service",
			"systemd-udev-settle.service", "dev-hugepages.mount", "sys-kernel-debug.mount",
			"sys-kernel-tracing.mount", "keyboard-setup.service", "console-setup.service",
			"nfs-blkmap.service", "rpc-gssd.service",
		},
		Files: []File{
			{"/etc/fstab", 0o644, "/dev/vda / ext4 defaults,errors=remount-ro 0 1\n"},
			{"/etc/hosts", 0o644, hosts},
			{"/etc/hostname", 0o644, "lab\n"},
			{"/etc/resolv.conf", 0o644, "# The lab has no name server; see /etc/hosts.\noptions timeout:1 attempts:1\n"},
			{"/etc/machine-id", 0o444, "ba70000000000000000000000000ba70\n"},
			{"/etc/default/locale", 0o644, "LANG=C.UTF-8\n"},
			{"/etc/initramfs-tools/conf.d/lab", 0o644, "MODULES=list\nCOMPRESS=gzip\nFSTYPE=ext4\nRESUME=none\n"},
			{"/etc/modprobe.d/lab.conf", 0o644, "options i6300esb nowayout=0\n"},
			{"/etc/systemd/journald.conf.d/lab.conf", 0o644, journald},
			{"/etc/systemd/system/lab-net.service", 0o644, netUnit},
			{"/usr/local/sbin/lab-net", 0o755, netScript},
			{"/etc/ssh/sshd_config.d/lab.conf", 0o644, sshd},
			{"/var/log/journal/.keep", 0o644, ""},
			{"/etc/drbd.d/global_common.conf", 0o644, "global { usage-count no; }\ncommon { }\n"},
		},
		SizeMiB: 3072,
	}
}

const hosts = `127.0.0.1	localhost
::1	localhost ip6-localhost
192.0.2.11	n1
192.0.2.12	n2
192.0.2.21	c1
198.51.100.11	n1-repl
198.51.100.12	n2-repl
`

// The journal is kept on disk, as an administrator has it, and copied line by
// line to a virtio console: a file of the host that survives the machine.
const journald = `[Journal]
Storage=persistent
SystemMaxUse=48M
RateLimitIntervalSec=0
ForwardToConsole=yes
TTYPath=/dev/hvc0
MaxLevelConsole=info
`

const netUnit = `[Unit]
Description=Addresses from the kernel command line
DefaultDependencies=no
After=local-fs.target systemd-sysctl.service
Before=network-pre.target network.target network-online.target
Wants=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-net

[Install]
WantedBy=multi-user.target network-online.target
`

// netScript puts addresses on interfaces once. There is no daemon behind it
// that would take them away when a carrier goes, or argue with the cluster.
const netScript = `#!/bin/sh
# lab.ip=INTERFACE,ADDRESS/PREFIX on the kernel command line, any number of times.
for word in $(cat /proc/cmdline); do
	case $word in
	lab.ip=*)
		value=${word#lab.ip=}
		nic=${value%%,*}
		ip link set "$nic" up
		ip address add "${value#*,}" dev "$nic"
		;;
	esac
done
`

// UsePAM no: each session costs one process instead of a dozen library loads.
const sshd = `PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxSessions 200
MaxStartups 100
LoginGraceTime 120
HostKey /etc/ssh/ssh_host_ed25519_key
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
`
