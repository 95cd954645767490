package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"baton/tests/lab"
)

// nfsAct shows crm-examples/nfs: drbd, Filesystem, nfsd and vip move together
// under a client that never stops writing.
func nfsAct() act {
	return act{name: "nfs", title: "an NFS server with its disk, its locks and its address (drbd, nfsd, vip)", stage: lab.NFS, play: playNFS}
}

func playNFS(ctx context.Context, s *show) error {
	text, err := lab.Unfenced("nfs/nfs.crm")
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
	s.say("%s serves %s at 192.0.2.50; c1 mounts it", first.Name, lab.NFSShare)
	if _, err := s.C1.Run(ctx, "mount -t nfs -o vers=4.2,hard,proto=tcp 192.0.2.50:%s %s && mkdir -p %[2]s/files && : >%[2]s/locked", lab.NFSShare, lab.NFSMount); err != nil {
		return err
	}
	files, err := s.C1.Spawn(ctx, "files", "write -every 50ms -dir "+lab.NFSMount+"/files")
	if err != nil {
		return err
	}
	held, err := s.C1.Spawn(ctx, "held", "lock -file "+lab.NFSMount+"/locked")
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
	if err := lab.WaitDRBD(ctx, first, "ds:UpToDate/UpToDate"); err != nil {
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
	said, err := on.Run(ctx, "labtool check -log /run/acknowledged -dir %s/files", lab.NFSShare)
	if err != nil {
		return err
	}
	s.say("files on %s: %s; no write under the lock failed", on.Name, strings.TrimSpace(said))
	return nil
}
