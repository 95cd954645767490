//go:build lab

package lab_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"baton/tests/lab"
)

// drbdPlain is r0 without fencing: what happens at a power loss is then up to
// the cluster alone and takes no handler's time. Scenarios about fencing put
// the example's r0.res in its place (useR0) before the resource starts.
const drbdPlain = `resource r0 {
	device /dev/drbd0;
	disk /dev/vdb;
	meta-disk internal;
	net { protocol C; }
	disk { on-io-error detach; }
	on n1 { address 198.51.100.11:7789; }
	on n2 { address 198.51.100.12:7789; }
}
`

// drbdStage is lab.Cluster with the DRBD resource r0 on /dev/vdb of both
// nodes: UpToDate on both without a first sync, an ext4 file system on
// /dev/drbd0, /mnt/data made on both nodes. r0 is down and the module loaded:
// the cluster (or drbdadm up) brings it up.
var drbdStage = &lab.Stage{
	Name: "drbd",
	Base: lab.Cluster,
	Key:  drbdPlain + "2",
	Build: func(ctx context.Context, l *lab.Lab) error {
		for _, m := range l.Nodes() {
			if err := useR0(ctx, m, drbdPlain); err != nil {
				return err
			}
			if _, err := m.Run(ctx, "mkdir -p /mnt/data; modprobe drbd && drbdadm create-md --force r0 && drbdadm up r0"); err != nil {
				return err
			}
		}
		if err := waitDRBD(ctx, l.N1, "cs:Connected"); err != nil {
			return err
		}
		if _, err := l.N1.Run(ctx, "drbdadm -- --clear-bitmap new-current-uuid r0"); err != nil {
			return err
		}
		for _, m := range l.Nodes() {
			if err := waitDRBD(ctx, m, "ds:UpToDate/UpToDate"); err != nil {
				return err
			}
		}
		if _, err := l.N1.Run(ctx, "drbdadm primary r0 && mkfs.ext4 -q /dev/drbd0 && sync && drbdadm secondary r0"); err != nil {
			return err
		}
		for _, m := range l.Nodes() {
			if _, err := m.Run(ctx, "drbdadm down r0"); err != nil {
				return err
			}
		}
		return nil
	},
}

// useR0 makes text the machine's configuration of r0.
func useR0(ctx context.Context, m *lab.Machine, text string) error {
	return m.Upload(ctx, "/etc/drbd.d/r0.res", 0o644, []byte(text))
}

// waitDRBD waits until /proc/drbd of the machine holds the text.
func waitDRBD(ctx context.Context, m *lab.Machine, text string) error {
	_, err := lab.Poll(ctx, 2*time.Minute, fmt.Sprintf("%s: /proc/drbd with %q", m.Name, text), func(ctx context.Context) (bool, string) {
		out, err := m.Run(ctx, "cat /proc/drbd")
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(out, text), out
	})
	return err
}
