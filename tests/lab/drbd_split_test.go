//go:build lab

package lab_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

// split makes a split brain by hand: in maintenance mode n2 is disconnected, promoted, written to
// and demoted, while n1 goes on serving. Then they meet again. What n2 wrote is the file n2-only.
func (d drbdLab) split(t *testing.T) {
	t.Helper()
	d.Timeline.Add("split brain by hand")
	d.N1.Sh(t, "crm_attribute -n maintenance-mode -v true; crm_resource --wait")
	d.N2.Sh(t, "drbdadm disconnect r0 && drbdadm primary r0 && mount /dev/drbd0 /mnt/data && echo lost >/mnt/data/n2-only && umount /mnt/data && drbdadm secondary r0")
	d.acknowledged(t, 10)
	d.N2.Sh(t, "drbdadm connect r0")
	require.NoError(t, lab.WaitDRBD(t.Context(), d.N2, "cs:StandAlone"))
	require.Contains(t, d.N2.Sh(t, "dmesg"), "Split-Brain detected")
	d.N1.Sh(t, "crm_attribute -n maintenance-mode -v false; crm_resource --wait")
}

// attribute waits for the node attribute that tells of a lost link.
func (d drbdLab) attribute(t testing.TB, m *lab.Machine, want string) {
	t.Helper()
	lab.Eventually(t, 3*aMinute, m.Name+" to have the node attribute drbd-r0 "+want, func(ctx context.Context) (bool, string) {
		out, err := m.Run(ctx, "attrd_updater -Q -n drbd-r0 -N %s 2>/dev/null || true", m.Name)
		return err == nil && (want == "" && !strings.Contains(out, "S") || want != "" && strings.Contains(out, `value="`+want+`"`)), out
	})
}

// By default a split brain is reported, and stays until the documented commands are run.
func TestMatrixDRBDSplitBrainIsLeftToTheAdministrator(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	d.split(t)
	d.attribute(t, d.N2, "SplitBrain")
	d.mustScore(t, d.N2, "")
	require.Contains(t, d.N2.Sh(t, "journalctl -b --no-pager | grep 'split brain' || true"), "drbdadm connect --discard-my-data r0")
	require.Equal(t, "10000", d.score(t.Context(), d.N1), "the promoted node keeps its score")

	// A cleanup and a restart of the instance connect again, in vain, and lose nothing.
	d.N1.Sh(t, "crm_resource --restart --resource %s-clone --node n2 --timeout 80 2>&1 || true", drbdClone)
	d.MustActive(t, "vip", "", d.N1, aMinute)
	d.attribute(t, d.N2, "SplitBrain")

	d.N2.Sh(t, "drbdadm secondary r0; drbdadm disconnect r0; drbdadm connect --discard-my-data r0")
	d.N1.Sh(t, "grep -q cs:StandAlone /proc/drbd && drbdadm connect r0 || true")
	d.settled(t)
	d.attribute(t, d.N2, "")
	d.mustScore(t, d.N2, "10000")
	require.NoError(t, d.Standby(t.Context(), d.N1))
	d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	require.NotContains(t, d.N2.Sh(t, "ls /mnt/data"), "n2-only")
	d.acknowledged(t, 10)
	d.proof(t, d.N2)
}

// discard-unpromoted: the unpromoted node gives up its own changes, tells how much that is before,
// and the service never stops.
func TestMatrixDRBDSplitBrainIsRecoveredByTheUnpromotedNode(t *testing.T) {
	d := startDRBD(t, drbdOptions{params: "split_brain_recovery=discard-unpromoted"})
	d.split(t)
	d.settled(t)
	said := d.N2.Sh(t, "journalctl -b --no-pager | grep 'split brain' || true")
	require.Regexp(t, `giving up [1-9]\d* KiB of changes that this unpromoted node alone has`, said)
	d.attribute(t, d.N2, "")
	d.mustScore(t, d.N2, "10000")
	d.MustActive(t, "vip", "", d.N1, aMinute)
	d.acknowledged(t, 10)
	require.NoError(t, d.Standby(t.Context(), d.N1))
	d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	require.NotContains(t, d.N2.Sh(t, "ls /mnt/data"), "n2-only")
	d.proof(t, d.N2)
}

// sbd brings up fencing as the example says: a shared disk, the machine's watchdog. Its times are
// those of an emulated machine.
func (d drbdLab) sbd(t *testing.T) {
	t.Helper()
	for _, m := range d.Nodes() {
		m.Sh(t, "systemctl stop pacemaker corosync")
		m.Sh(t, `modprobe i6300esb; printf 'SBD_DEVICE=/dev/vdc\nSBD_WATCHDOG_DEV=/dev/watchdog\nSBD_PACEMAKER=yes\nSBD_STARTMODE=always\nSBD_DELAY_START=no\nSBD_OPTS=\n' >/etc/default/sbd; systemctl enable sbd`)
	}
	d.N1.Sh(t, "sbd -d /dev/vdc -1 20 -4 40 create")
	for _, m := range d.Nodes() {
		m.Sh(t, "systemctl start corosync pacemaker")
	}
	require.NoError(t, d.WaitOnline(t.Context(), 3*aMinute, d.N1, d.N2))
}

// startFenced is startDRBD with the example exactly as it stands: handlers in r0.res, fencing in
// the cluster.
func startFenced(t *testing.T) drbdLab {
	t.Helper()
	d := drbdLab{lab.Start(t, lab.DRBD)}
	d.installStore(t)
	example, err := lab.Example("drbd-filesystem-vip/r0.res")
	require.NoError(t, err)
	for _, m := range d.Nodes() {
		require.NoError(t, lab.UseR0(t.Context(), m, lab.ResyncAt(example, fullSpeed)))
	}
	d.sbd(t)
	text := strings.Replace(drbdCRM(t, drbdOptions{fenced: true}), "stonith-timeout=60s", "stonith-timeout=120s", 1)
	require.NoError(t, d.CrmText(t.Context(), text+"\nlocation begins service 10: n1\n"))
	d.MustActive(t, "vip", "", d.N1, 4*aMinute)
	d.settled(t)
	d.client(t)
	return d
}

// Both links of n1 are cut. Each node believes the other dead; DRBD freezes, one of them is fenced
// by sbd, and only one goes on: no record is lost, and no split brain is left. When n1 was the one,
// the address comes back with the cable.
func TestMatrixDRBDBothLinksCutWithFencing(t *testing.T) {
	d := startFenced(t)
	survivor, fenced := d.cutBoth(t)
	d.mended(t)
	d.acknowledged(t, 10)
	d.rejoins(t, fenced)
	d.proof(t, survivor)
}

// The same with the example's fencing-ping.crm: the node that does not reach the router may not
// fence, so it is the other one that goes on, and its clients with it, while the cables are out.
func TestMatrixDRBDBothLinksCutLeaveTheNodeThatReachesTheRouter(t *testing.T) {
	d := startFenced(t)
	ping, err := lab.Example("drbd-filesystem-vip/fencing-ping.crm")
	require.NoError(t, err)
	require.NoError(t, d.CrmText(t.Context(), strings.Replace(ping, "ping_targets=192.0.2.1", "ping_targets=192.0.2.21", 1)))
	_, err = d.Wait(t.Context(), 3*aMinute, "router active", func(s lab.Status) bool { return len(s.Active("router", "")) == 1 })
	require.NoError(t, err)
	survivor, fenced := d.cutBoth(t)
	require.Equal(t, d.N2.Name, survivor.Name)
	d.MustActive(t, "vip", "", d.N2, 4*aMinute)
	d.acknowledged(t, 10)
	d.mended(t)
	d.rejoins(t, fenced)
	d.proof(t, survivor)
}

// cutBoth takes both cables from n1 and waits until a node has been fenced.
func (d drbdLab) cutBoth(t *testing.T) (survivor, fenced *lab.Machine) {
	t.Helper()
	booted := map[string]string{}
	for _, m := range d.Nodes() {
		booted[m.Name] = m.Sh(t, "cat /proc/sys/kernel/random/boot_id")
	}
	require.NoError(t, d.N1.Cut(t.Context(), lab.LAN))
	require.NoError(t, d.N1.Cut(t.Context(), lab.Repl))
	lab.Eventually(t, 6*aMinute, "one node to be fenced", func(ctx context.Context) (bool, string) {
		for _, m := range d.Nodes() {
			id, err := m.Run(ctx, "cat /proc/sys/kernel/random/boot_id")
			if err == nil && strings.TrimSpace(id) != booted[m.Name] {
				fenced, survivor = m, d.Other(m)
				return true, ""
			}
		}
		return false, "both still run"
	})
	d.Timeline.Add("%s was fenced, %s goes on", fenced.Name, survivor.Name)
	return survivor, fenced
}

func (d drbdLab) mended(t *testing.T) {
	t.Helper()
	require.NoError(t, d.N1.Mend(t.Context(), lab.LAN))
	require.NoError(t, d.N1.Mend(t.Context(), lab.Repl))
}

// rejoins starts the cluster on the node that was fenced, and waits until both copies are equal and
// the constraint of the handlers is gone.
func (d drbdLab) rejoins(t *testing.T, fenced *lab.Machine) {
	t.Helper()
	fenced.Sh(t, "modprobe i6300esb; systemctl start corosync pacemaker")
	d.serve(t, fenced)
	d.settled(t)
	d.mustScore(t, fenced, "10000")
	lab.Eventually(t, 2*aMinute, "the handler's constraint to be gone", func(ctx context.Context) (bool, string) {
		out, err := fenced.Run(ctx, "crm configure show | grep drbd-fence || true")
		return err == nil && strings.TrimSpace(out) == "", out
	})
	for _, m := range d.Nodes() {
		require.NotContains(t, m.Sh(t, "dmesg"), "Split-Brain")
	}
	d.acknowledged(t, 10)
}

// The same without fencing: both nodes are promoted and write. That is what fencing is for. The
// agent's part is to tell it afterwards, and to lose nothing by itself.
func TestMatrixDRBDBothLinksCutWithoutFencingIsToldAsSplitBrain(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	require.NoError(t, d.N1.Cut(t.Context(), lab.LAN))
	require.NoError(t, d.N1.Cut(t.Context(), lab.Repl))
	lab.Eventually(t, 4*aMinute, "n2 to be promoted too", func(ctx context.Context) (bool, string) {
		out, err := d.N2.Run(ctx, "grep '0: cs' /proc/drbd; mount | grep drbd0 || true")
		return err == nil && strings.Contains(out, "ro:Primary/Unknown") && strings.Contains(out, "/mnt/data"), out
	})
	// n1 notices at first that its interface is dead, and may have begun to move the service.
	lab.Eventually(t, 4*aMinute, "n1 to be promoted as well", func(ctx context.Context) (bool, string) {
		out, err := d.N1.Run(ctx, "grep '0: cs' /proc/drbd; mount | grep drbd0 || true")
		return err == nil && strings.Contains(out, "ro:Primary/Unknown") && strings.Contains(out, "/mnt/data"), out
	})
	for _, m := range d.Nodes() {
		m.Sh(t, "echo x >/mnt/data/%s-only; sync", m.Name)
	}

	require.NoError(t, d.N1.Mend(t.Context(), lab.LAN))
	require.NoError(t, d.N1.Mend(t.Context(), lab.Repl))
	lab.Eventually(t, 5*aMinute, "the split brain to be told", func(ctx context.Context) (bool, string) {
		out, err := d.N1.Run(ctx, "crm_mon -1A 2>&1")
		return err == nil && strings.Contains(out, "SplitBrain"), out
	})
	_, err := d.Wait(t.Context(), 4*aMinute, "one promoted node at most", func(s lab.Status) bool {
		return len(s.Active(drbdClone, "Promoted")) <= 1
	})
	require.NoError(t, err)
	require.NoError(t, d.Settle(t.Context()))
	// Neither copy was given up: each still has its own file, mounted or not.
	for _, m := range d.Nodes() {
		require.NotContains(t, m.Sh(t, "journalctl -b --no-pager | grep 'giving up' || true"), "KiB")
		require.NotContains(t, m.Sh(t, "cat /proc/drbd"), "cs:Sync")
	}
	d.N1.Sh(t, "crm_attribute -n maintenance-mode -v true")
	for _, m := range d.Nodes() {
		require.Contains(t, m.Sh(t, `cat /proc/drbd; umount /mnt/data 2>/dev/null; drbdadm down r0 && mount -t ext4 -o ro,noload /dev/vdb /mnt/data && ls /mnt/data && umount /mnt/data`), m.Name+"-only")
	}
}

// The promoted node loses its power with fencing configured: the other one is promoted only after
// the cluster has fenced it.
func TestMatrixDRBDPowerLossWithFencing(t *testing.T) {
	d := startFenced(t)
	dead := time.Now()
	require.NoError(t, d.N1.PowerOff(t.Context()))
	d.MustActive(t, "vip", "", d.N2, 6*aMinute)
	t.Logf("power loss of n1 until the address is up on n2, fencing included: %v", time.Since(dead).Round(time.Second))
	d.acknowledged(t, 10)
	d.proof(t, d.N2)
}
