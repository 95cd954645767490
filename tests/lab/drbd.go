package lab

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// R0 is DRBD's resource r0 on the nodes' /dev/vdb, without fencing: what happens at a power loss is
// then up to the cluster alone and takes no handler's time.
const R0 = `resource r0 {
	device /dev/drbd0;
	disk /dev/vdb;
	meta-disk internal;
	net { protocol C; }
	disk { on-io-error detach; }
	on n1 { address 198.51.100.11:7789; }
	on n2 { address 198.51.100.12:7789; }
}
`

// R0At is R0 with a fixed rate of resynchronization, such as 200M (bytes/s). DRBD's own control of it
// begins at 250 KB/s, and takes minutes in an emulated machine.
func R0At(rate string) string { return ResyncAt(R0, rate) }

// ResyncAt is a resource's configuration with a fixed rate of resynchronization.
func ResyncAt(resource, rate string) string {
	const option = "on-io-error detach;"
	return strings.Replace(resource, option, option+" c-plan-ahead 0; resync-rate "+rate+";", 1)
}

// UseR0 makes text the machine's configuration of r0.
func UseR0(ctx context.Context, m *Machine, text string) error {
	return m.Upload(ctx, "/etc/drbd.d/r0.res", 0o644, []byte(text))
}

// WaitDRBD waits until /proc/drbd of the machine holds the text.
func WaitDRBD(ctx context.Context, m *Machine, text string) error {
	_, err := Poll(ctx, 2*time.Minute, fmt.Sprintf("%s: /proc/drbd with %q", m.Name, text), func(ctx context.Context) (bool, string) {
		out, err := m.Run(ctx, "cat /proc/drbd")
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(out, text), out
	})
	return err
}

// DRBD is Cluster with R0: UpToDate on both nodes without a first sync, an ext4 file system on
// /dev/drbd0, /mnt/data made on both nodes. r0 is down and the module loaded: the cluster (or
// drbdadm up) brings it up.
var DRBD = &Stage{
	Name: "drbd",
	Base: Cluster,
	Key:  R0 + "2",
	Build: func(ctx context.Context, l *Lab) error {
		for _, m := range l.Nodes() {
			if err := UseR0(ctx, m, R0); err != nil {
				return err
			}
			if _, err := m.Run(ctx, "mkdir -p /mnt/data; modprobe drbd && drbdadm create-md --force r0 && drbdadm up r0"); err != nil {
				return err
			}
		}
		if err := WaitDRBD(ctx, l.N1, "cs:Connected"); err != nil {
			return err
		}
		if _, err := l.N1.Run(ctx, "drbdadm -- --clear-bitmap new-current-uuid r0"); err != nil {
			return err
		}
		for _, m := range l.Nodes() {
			if err := WaitDRBD(ctx, m, "ds:UpToDate/UpToDate"); err != nil {
				return err
			}
		}
		if _, err := l.N1.Run(ctx, "drbdadm primary r0 && mkfs.ext4 -q /dev/drbd0 && sync && drbdadm secondary r0"); err != nil {
			return err
		}
		return drbdDown(ctx, l)
	},
}

func drbdDown(ctx context.Context, l *Lab) error {
	for _, m := range l.Nodes() {
		if _, err := m.Run(ctx, "drbdadm down r0"); err != nil {
			return err
		}
	}
	return nil
}

// Where the stage NFS has the directory to export, and where c1 mounts it.
const (
	NFSShare = "/mnt/data/share"
	NFSMount = "/mnt/nfs"
)

// NFS is DRBD with a directory to export on the device, and the modules loaded.
var NFS = &Stage{
	Name: "nfs",
	Base: DRBD,
	Key:  "2",
	Build: func(ctx context.Context, l *Lab) error {
		for _, m := range l.Nodes() {
			// The module is loaded at boot, as the example's README has it.
			if _, err := m.Run(ctx, "echo nfsd >/etc/modules-load.d/nfsd.conf; modprobe nfsd; drbdadm up r0"); err != nil {
				return err
			}
		}
		if err := WaitDRBD(ctx, l.N1, "ds:UpToDate/UpToDate"); err != nil {
			return err
		}
		if _, err := l.N1.Run(ctx, "drbdadm primary r0 && mount /dev/drbd0 /mnt/data && mkdir %s && umount /mnt/data && drbdadm secondary r0", NFSShare); err != nil {
			return err
		}
		if err := drbdDown(ctx, l); err != nil {
			return err
		}
		_, err := l.C1.Run(ctx, "modprobe nfsv4; mkdir -p %s", NFSMount)
		return err
	},
}
