package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"baton/tests/lab"
)

const (
	share = "/mnt/data/share"
	mount = "/mnt/nfs"
)

// r0Plain is r0 without the example's fencing, which needs a minute more at a
// power loss than an audience has: with it the survivor first makes sure that
// the dead node is dead.
const r0Plain = `resource r0 {
	device /dev/drbd0;
	disk /dev/vdb;
	meta-disk internal;
	net { protocol C; }
	disk { on-io-error detach; }
	on n1 { address 198.51.100.11:7789; }
	on n2 { address 198.51.100.12:7789; }
}
`

// replicated is a cluster with r0 up to date on both nodes and a file system
// with a directory to share on it; r0 is down.
func replicated() *lab.Stage {
	return &lab.Stage{Name: "demo-nfs", Base: lab.Cluster, Key: "2\n" + r0Plain, Build: func(ctx context.Context, l *lab.Lab) error {
		for _, m := range l.Nodes() {
			if err := m.Upload(ctx, "/etc/drbd.d/r0.res", 0o644, []byte(r0Plain)); err != nil {
				return err
			}
			if _, err := m.Run(ctx, "mkdir -p /mnt/data && modprobe drbd && drbdadm create-md --force r0 && drbdadm up r0"); err != nil {
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
		if _, err := l.N1.Run(ctx, `drbdadm primary r0 && mkfs.ext4 -q /dev/drbd0 && mount /dev/drbd0 /mnt/data && mkdir %s && umount /mnt/data && drbdadm secondary r0`, share); err != nil {
			return err
		}
		for _, m := range l.Nodes() {
			// As a node boots where nfs-kernel-server is installed.
			if _, err := m.Run(ctx, "drbdadm down r0; modprobe nfsd"); err != nil {
				return err
			}
		}
		_, err := l.C1.Run(ctx, "modprobe nfsv4; mkdir -p "+mount)
		return err
	}}
}

// waitDRBD waits until /proc/drbd of the machine holds the text.
func waitDRBD(ctx context.Context, m *lab.Machine, text string) error {
	_, err := lab.Poll(ctx, patience, m.Name+": /proc/drbd with "+text, func(ctx context.Context) (bool, string) {
		out, err := m.Run(ctx, "cat /proc/drbd")
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(out, text), out
	})
	return err
}

// nfsAct shows crm-examples/nfs: drbd, Filesystem, nfsd and vip move together
// under a client that never stops writing.
func nfsAct() act {
	return act{name: "nfs", title: "an NFS server with its disk, its locks and its address (drbd, nfsd, vip)", stage: replicated(), play: playNFS}
}

// unfenced is an example's configuration without its fencing.
func unfenced(example string) (string, error) {
	text, err := lab.Example(example)
	if err != nil {
		return "", err
	}
	before, rest, found := strings.Cut(text, "primitive fencing")
	_, after, found2 := strings.Cut(rest, "property cib-bootstrap")
	if !found || !found2 {
		return "", fmt.Errorf("demo: %s has no fencing to leave out; expected one before its properties", example)
	}
	return strings.Replace(before+"property cib-bootstrap"+after, "stonith-enabled=true", "stonith-enabled=false", 1), nil
}

func playNFS(ctx context.Context, s *show) error {
	text, err := unfenced("nfs/nfs.crm")
	if err != nil {
		return err
	}
	s.say("loading crm-examples/nfs (without its fencing)")
	if err := s.CrmText(ctx, text); err != nil {
		return err
	}
	first, err := activeNode(ctx, s, "vip")
	if err != nil {
		return err
	}
	if err := s.Settle(ctx); err != nil {
		return err
	}
	s.say("%s serves %s at 192.0.2.50; c1 mounts it", first.Name, share)
	if _, err := s.C1.Run(ctx, "mount -t nfs -o vers=4.2,hard,proto=tcp 192.0.2.50:%s %s && mkdir -p %[2]s/files && : >%[2]s/locked", share, mount); err != nil {
		return err
	}
	files, err := s.C1.Spawn(ctx, "files", "write -every 50ms -dir "+mount+"/files")
	if err != nil {
		return err
	}
	held, err := s.C1.Spawn(ctx, "held", "lock -file "+mount+"/locked")
	if err != nil {
		return err
	}
	if err := errors.Join(s.waitOK(ctx, files, 0), s.waitOK(ctx, held, 0)); err != nil {
		return err
	}
	s.say("c1 creates and fsyncs a file each 50 ms, and writes to another under a lock that it never lets go")

	second := s.Other(first)
	err = s.stalled(ctx, files, "planned: crm node standby "+first.Name,
		"eight actions in a row: address, server and mount down, device demoted, and up again on the other side", s.handOver(ctx, first, second))
	if err != nil {
		return err
	}
	if err := s.Unstandby(ctx, first); err != nil {
		return err
	}
	if err := s.Settle(ctx); err != nil {
		return err
	}
	// A node that still catches up is rightly never promoted: the cut comes when both copies are equal.
	if err := waitDRBD(ctx, first, "ds:UpToDate/UpToDate"); err != nil {
		return err
	}
	err = s.stalled(ctx, files, "unplanned: the power of "+second.Name+" is cut",
		"11 s until corosync has agreed that the silent node is dead, then device, mount, server and address come up; the client reclaims its lock", func() error {
			if err := second.PowerOff(ctx); err != nil {
				return err
			}
			_, err := s.WaitActive(ctx, "vip", "", first, patience)
			return err
		})
	if err != nil {
		return err
	}
	return proven(ctx, s, first, files, held)
}

// proven checks on the serving node that everything is there that the client
// was told is there.
func proven(ctx context.Context, s *show, on *lab.Machine, files, held *lab.Job) error {
	log, err := held.Stop(ctx)
	if err != nil {
		return err
	}
	if failed := log.Of(lab.Fail); len(failed) > 0 {
		return fmt.Errorf("demo: a write under the lock failed: %s", failed[0].Text)
	}
	if _, err := files.Stop(ctx); err != nil {
		return err
	}
	acknowledged, err := s.C1.Run(ctx, "cat "+files.LogPath())
	if err != nil {
		return err
	}
	if err := on.Upload(ctx, "/run/acknowledged", os.FileMode(0o644), []byte(acknowledged)); err != nil {
		return err
	}
	said, err := on.Run(ctx, "labtool check -log /run/acknowledged -dir %s/files", share)
	if err != nil {
		return err
	}
	s.say("files on %s: %s; no write under the lock failed", on.Name, strings.TrimSpace(said))
	return nil
}
