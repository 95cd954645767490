//go:build lab

package lab_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

// slowResync leaves time to pause the resync.
var slowResync = lab.R0At("500K")

// agentCall runs an agent by hand in a cluster's environment and returns its exit code and words.
func agentCall(ctx context.Context, m *lab.Machine, provider, action string) (code, said string) {
	out, err := m.Run(ctx, `OCF_ROOT=/usr/lib/ocf OCF_RA_VERSION_MAJOR=1 OCF_RA_VERSION_MINOR=1 OCF_RESOURCE_INSTANCE=byhand OCF_RESOURCE_TYPE=drbd \
OCF_RESKEY_drbd_resource=r0 OCF_RESKEY_CRM_meta_clone_max=2 OCF_RESKEY_CRM_meta_clone_node_max=1 OCF_RESKEY_CRM_meta_master_max=1 \
OCF_RESKEY_CRM_meta_master_node_max=1 OCF_RESKEY_CRM_meta_notify=true OCF_RESKEY_CRM_meta_interval=10000 OCF_RESKEY_CRM_meta_timeout=60000 \
HA_LOGFILE=/dev/null /usr/lib/ocf/resource.d/%s/drbd %s 2>&1; echo "exit=$?"`, provider, action)
	if err != nil {
		return err.Error(), ""
	}
	said, code, _ = strings.Cut(out, "exit=")
	return strings.TrimSpace(code), said
}

// One wrong line in any .res file, while everything runs: nothing happens, and the service still
// can be moved. LINBIT's agent reports the healthy primary as not installed in the same moment.
func TestMatrixDRBDErrorInAConfigurationFileChangesNothing(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	code, said := agentCall(t.Context(), d.N1, "linbit", "monitor")
	require.Equal(t, "8", code, said)

	for _, m := range d.Nodes() {
		d.Timeline.Add("%s: an error in /etc/drbd.d/other.res", m.Name)
		m.Sh(t, "echo 'resource other { this is no configuration }' >/etc/drbd.d/other.res")
	}
	code, said = agentCall(t.Context(), d.N1, "baton", "monitor")
	require.Equal(t, "8", code, said)
	code, said = agentCall(t.Context(), d.N1, "linbit", "monitor")
	require.Equal(t, "5", code, "ocf:linbit:drbd answers otherwise now: %s", said)

	require.NoError(t, d.Standby(t.Context(), d.N1))
	d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	d.acknowledged(t, 10)
	require.NoError(t, d.Settle(t.Context()))
	d.noFailures(t)
	d.proof(t, d.N2)
}

// A process keeps the device open when it shall be demoted: the reason names it, the cluster waits,
// and when it lets go the service moves.
func TestCoreDRBDDeviceHeldOpenAtDemoteIsNamed(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	// The service must come to n2, whatever n1's failures count.
	holder := d.N1.Tool(t, "holder", "open -file /dev/drbd0")
	require.NoError(t, d.Standby(t.Context(), d.N1))
	lab.Eventually(t, 3*aMinute, "crm_mon to name the holder", func(ctx context.Context) (bool, string) {
		out, err := d.onAny(ctx, "crm_mon -1 --include=failures 2>&1")
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(out, "demote r0: /dev/drbd0 is open in pid") && strings.Contains(out, "labtool"), out
	})
	_, err := holder.Stop(t.Context())
	require.NoError(t, err)
	d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	d.acknowledged(t, 10)
	d.proof(t, d.N2)
}

// A node comes back with old data. While it is the target of the resync it has no score, and even
// when the only node with good data has to go, the half-synchronized copy is not promoted.
func TestMatrixDRBDReturningNodeIsNoCandidateDuringResync(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	require.NoError(t, d.N2.PowerOff(t.Context()))
	d.N1.Sh(t, "dd if=/dev/urandom of=/mnt/data/bulk bs=1M count=60 conv=fsync 2>/dev/null")
	d.acknowledged(t, 10)
	lab.Eventually(t, 2*aMinute, "n1 to keep its score", func(ctx context.Context) (bool, string) {
		out, err := d.N1.Run(ctx, "crm_attribute --promotion=%s -N n1 -G -q", drbdClone)
		return err == nil && strings.TrimSpace(out) == "10000", out
	})

	require.NoError(t, d.N2.PowerOn(t.Context()))
	require.NoError(t, d.N2.WaitSSH(t.Context()))
	require.NoError(t, lab.UseR0(t.Context(), d.N2, slowResync))
	d.N2.Sh(t, "systemctl start corosync pacemaker")
	d.serve(t, d.N2)
	require.NoError(t, lab.WaitDRBD(t.Context(), d.N2, "cs:SyncTarget"))
	d.N2.Sh(t, "drbdadm pause-sync r0")
	require.NoError(t, lab.WaitDRBD(t.Context(), d.N2, "cs:PausedSyncT"))
	require.Equal(t, "", d.score(t.Context(), d.N2), "a score during the resync")
	code, said := agentCall(t.Context(), d.N2, "baton", "promote")
	require.Equal(t, "1", code)
	require.Contains(t, said, "own disk is Inconsistent")

	require.NoError(t, d.Standby(t.Context(), d.N1))
	lab.Eventually(t, 3*aMinute, "n1 to have stopped", func(ctx context.Context) (bool, string) {
		out, err := d.N1.Run(ctx, "cat /proc/drbd")
		return err == nil && !strings.Contains(out, "0: cs:"), out
	})
	require.NoError(t, d.Settle(t.Context()))
	status, err := d.Status(t.Context())
	require.NoError(t, err)
	require.Empty(t, status.Active(drbdClone, "Promoted"), "promoted onto half of the data")

	require.NoError(t, d.Unstandby(t.Context(), d.N1))
	d.MustActive(t, "vip", "", d.N1, 3*aMinute)
	require.NoError(t, lab.UseR0(t.Context(), d.N2, drbdFast))
	d.N2.Sh(t, "drbdadm adjust r0; drbdadm resume-sync r0 || true")
	d.settled(t)
	d.mustScore(t, d.N2, "10000")
	d.acknowledged(t, 10)
	d.proof(t, d.N1)
}

// The node without the service dies: the client notices nothing but the freeze until DRBD gives
// the peer up. The clone has no notifications here.
func TestMatrixDRBDPowerLossOfTheUnpromotedNode(t *testing.T) {
	d := startDRBD(t, drbdOptions{silent: true})
	require.NoError(t, d.N2.PowerOff(t.Context()))
	d.acknowledged(t, 50)
	out := d.N1.Sh(t, "cat /proc/drbd")
	require.Contains(t, out, "ro:Primary/Unknown")
	require.NoError(t, d.N2.PowerOn(t.Context()))
	require.NoError(t, d.N2.WaitSSH(t.Context()))
	d.N2.Sh(t, "systemctl start corosync pacemaker")
	d.serve(t, d.N2)
	d.settled(t)
	d.mustScore(t, d.N2, "10000")
	d.proof(t, d.N1)
}

// Only the replication link is cut: the cluster still sees both nodes. The promoted node goes on
// and keeps its score, the other one is told apart by a lower one, and gets everything afterwards.
func TestMatrixDRBDReplicationLinkCut(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	require.NoError(t, d.N1.Cut(t.Context(), lab.Repl))
	d.mustScore(t, d.N2, "1000")
	require.Equal(t, "10000", d.score(t.Context(), d.N1))
	d.acknowledged(t, 30)
	require.NoError(t, d.N1.Mend(t.Context(), lab.Repl))
	d.settled(t)
	d.mustScore(t, d.N2, "10000")
	d.noFailures(t)
	require.NoError(t, d.Standby(t.Context(), d.N1))
	d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	d.acknowledged(t, 10)
	d.proof(t, d.N2)
}

// The disk under the promoted node fails (device mapper's error target): DRBD detaches it, the
// score drops, and the cluster moves the service to the node with the good disk.
func TestMatrixDRBDFailedDiskMovesTheService(t *testing.T) {
	d := drbdLab{lab.Start(t, lab.DRBD)}
	d.installStore(t)
	onMapper := strings.Replace(drbdFast, "on n1 { ", "on n1 { disk /dev/mapper/r0; ", 1)
	onMapper = strings.Replace(onMapper, "\tdisk /dev/vdb;\n", "", 1)
	onMapper = strings.Replace(onMapper, "on n2 { ", "on n2 { disk /dev/vdb; ", 1)
	for _, m := range d.Nodes() {
		require.NoError(t, lab.UseR0(t.Context(), m, onMapper))
	}
	d.N1.Sh(t, `modprobe dm_mod; dmsetup create r0 --table "0 $(blockdev --getsz /dev/vdb) linear /dev/vdb 0"`)
	require.NoError(t, d.CrmText(t.Context(), drbdCRM(t, drbdOptions{})+"\nlocation begins service 10: n1\n"))
	d.MustActive(t, "vip", "", d.N1, 3*aMinute)
	d.settled(t)
	d.client(t)

	d.Timeline.Add("n1: the disk fails")
	d.N1.Sh(t, `dmsetup suspend --noflush --nolockfs r0; dmsetup load r0 --table "0 $(blockdev --getsz /dev/vdb) error"; dmsetup resume r0`)
	took := d.MustActive(t, "vip", "", d.N2, 5*aMinute)
	t.Logf("disk failure on n1 until the address is up on n2: %v", took)
	d.acknowledged(t, 10)
	d.proof(t, d.N2)
}

// Two volumes are one resource: both are promoted and demoted together, and the worse of the two
// decides where the service runs.
func TestMatrixDRBDTwoVolumesMoveTogether(t *testing.T) {
	d := drbdLab{lab.Start(t, lab.DRBD)}
	d.installStore(t)
	both := strings.Replace(drbdFast, "\tdevice /dev/drbd0;\n\tdisk /dev/vdb;\n\tmeta-disk internal;\n",
		"\tvolume 0 { device /dev/drbd0; disk /dev/vdb; meta-disk internal; }\n\tvolume 1 { device /dev/drbd1; disk /dev/loop7; meta-disk internal; }\n", 1)
	require.Contains(t, both, "volume 1")
	for _, m := range d.Nodes() {
		require.NoError(t, lab.UseR0(t.Context(), m, both))
		m.Sh(t, "modprobe loop; truncate -s 32M /root/volume1 && losetup /dev/loop7 /root/volume1 && drbdadm create-md --force r0/1 && drbdadm up r0")
	}
	require.NoError(t, lab.WaitDRBD(t.Context(), d.N1, "1: cs:Connected"))
	d.N1.Sh(t, "drbdadm -- --clear-bitmap new-current-uuid r0/1")
	d.volumes(t, d.N1, "ds:UpToDate/UpToDate", 2)
	for _, m := range d.Nodes() {
		m.Sh(t, "drbdadm down r0")
	}
	require.NoError(t, d.CrmText(t.Context(), drbdCRM(t, drbdOptions{})+"\nlocation begins service 10: n1\n"))
	d.MustActive(t, "vip", "", d.N1, 3*aMinute)
	d.volumes(t, d.N1, "ro:Primary/Secondary", 2)
	d.volumes(t, d.N1, "ds:UpToDate/UpToDate", 2)
	d.client(t)

	require.NoError(t, d.Standby(t.Context(), d.N1))
	d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	require.NoError(t, d.Unstandby(t.Context(), d.N1))
	d.volumes(t, d.N2, "ro:Primary/Secondary", 2)
	d.volumes(t, d.N2, "ds:UpToDate/UpToDate", 2)
	d.mustScore(t, d.N1, "10000")
	d.acknowledged(t, 10)

	d.Timeline.Add("n2: volume 1 loses its disk")
	d.N2.Sh(t, "drbdadm detach r0/1")
	d.MustActive(t, "vip", "", d.N1, 5*aMinute)
	d.volumes(t, d.N1, "ro:Primary/Secondary", 2)
	d.acknowledged(t, 10)
	d.proof(t, d.N1)
}

// volumes waits until so many volumes of the node are in a state.
func (d drbdLab) volumes(t testing.TB, m *lab.Machine, state string, count int) {
	t.Helper()
	lab.Eventually(t, 2*aMinute, fmt.Sprintf("%d volumes of %s with %s", count, m.Name, state), func(ctx context.Context) (bool, string) {
		out, err := m.Run(ctx, "cat /proc/drbd")
		return err == nil && strings.Count(out, state) == count, out
	})
}

// Pacemaker forgets, loses all nodes to standby, and is restarted as a whole: each time the service
// comes back with its data, and the scores are there again.
func TestMatrixDRBDCleanupStandbyOfBothAndRestart(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	d.N1.Sh(t, "crm_resource --cleanup; crm_resource --wait")
	d.MustActive(t, "vip", "", d.N1, aMinute)
	d.mustScore(t, d.N1, "10000")
	// A refresh of everything, as docs/drbd.md has it: in maintenance nothing is stopped.
	stops := "journalctl -b --no-pager | grep -c 'local execution of stop operation'; true"
	before := d.N1.Sh(t, stops)
	d.N1.Sh(t, "crm_attribute -n maintenance-mode -v true && crm_resource --wait && crm_resource --refresh")
	d.MustActive(t, "vip", "", d.N1, 2*aMinute)
	d.MustActive(t, drbdClone, "Promoted", d.N1, 2*aMinute)
	d.MustActive(t, drbdClone, "Unpromoted", d.N2, 2*aMinute)
	d.N1.Sh(t, "crm_resource --wait; crm_attribute -n maintenance-mode -v false && crm_resource --wait")
	d.mustScore(t, d.N1, "10000")
	d.mustScore(t, d.N2, "10000")
	d.acknowledged(t, 10)
	require.Equal(t, before, d.N1.Sh(t, stops), "operations that stopped something on n1")

	for _, m := range d.Nodes() {
		require.NoError(t, d.Standby(t.Context(), m))
	}
	for _, m := range d.Nodes() {
		lab.Eventually(t, 3*aMinute, m.Name+" to have stopped", func(ctx context.Context) (bool, string) {
			out, err := m.Run(ctx, "cat /proc/drbd")
			return err == nil && !strings.Contains(out, "0: cs:"), out
		})
	}
	for _, m := range d.Nodes() {
		require.NoError(t, d.Unstandby(t.Context(), m))
	}
	d.MustActive(t, "vip", "", d.N1, 4*aMinute)
	d.acknowledged(t, 10)

	for _, m := range d.Nodes() {
		m.Sh(t, "systemctl stop --no-block pacemaker corosync")
	}
	for _, m := range d.Nodes() {
		lab.Eventually(t, 4*aMinute, "the cluster on "+m.Name+" to have stopped", func(ctx context.Context) (bool, string) {
			out, err := m.Run(ctx, "pgrep -x 'pacemakerd|corosync' || true")
			return err == nil && strings.TrimSpace(out) == "", out
		})
		require.NotContains(t, m.Sh(t, "cat /proc/drbd"), "0: cs:")
	}
	for _, m := range d.Nodes() {
		m.Sh(t, "systemctl start corosync pacemaker")
	}
	d.MustActive(t, "vip", "", d.N1, 5*aMinute)
	d.settled(t)
	d.acknowledged(t, 10)
	d.mustScore(t, d.N1, "10000")
	d.mustScore(t, d.N2, "10000")
	d.proof(t, d.N1)
}

// A configuration of ocf:linbit:drbd changes its provider in maintenance mode, with the service up.
func TestMatrixDRBDMigrationFromLinbitWithTheServiceUp(t *testing.T) {
	d := startDRBD(t, drbdOptions{agent: "ocf:linbit:drbd"})
	before := d.N1.Sh(t, "cat /proc/drbd | grep '0: cs'")
	begin := time.Now()
	d.N1.Sh(t, "crm_attribute -n maintenance-mode -v true && crm_resource --wait")
	d.N1.Sh(t, "cibadmin -Q --xpath \"//primitive[@id='%s']\" >/root/p.xml && sed -i 's/provider=\"linbit\"/provider=\"baton\"/' /root/p.xml && cibadmin --replace --xml-file /root/p.xml", drbdClone)
	for _, m := range d.Nodes() {
		d.N1.Sh(t, "crm_resource --refresh --resource %s-clone --node %s", drbdClone, m.Name)
	}
	lab.Eventually(t, 2*aMinute, "both nodes' histories to be of baton's agent", func(ctx context.Context) (bool, string) {
		out, err := d.N1.Run(ctx, `cibadmin -Q --xpath "//lrm_resource[@id='%s']" | grep -o 'provider="[a-z]*"'`, drbdClone)
		return err == nil && strings.Count(out, `"baton"`) == 2 && !strings.Contains(out, "linbit"), out
	})
	d.N1.Sh(t, "crm_resource --wait")
	d.N1.Sh(t, "crm_attribute -n maintenance-mode -v false && crm_resource --wait")
	d.Timeline.Add("cluster: ocf:baton:drbd after %v", time.Since(begin).Round(time.Second))
	d.MustActive(t, "vip", "", d.N1, aMinute)
	d.MustActive(t, drbdClone, "Promoted", d.N1, aMinute)
	require.Equal(t, before, d.N1.Sh(t, "cat /proc/drbd | grep '0: cs'"))
	require.Contains(t, d.N1.Sh(t, "crm_mon -1 --group-by-node --inactive 2>/dev/null; crm configure show %s", drbdClone), "ocf:baton:drbd")
	d.acknowledged(t, 10)
	d.noFailures(t)
	for _, gap := range d.gaps(t) {
		require.Less(t, gap, 10*time.Second, "the service stopped")
	}
	require.NoError(t, d.Standby(t.Context(), d.N1))
	d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	d.acknowledged(t, 10)
	d.proof(t, d.N2)
}

// gaps are the times in which the client had no answer.
func (d drbdLab) gaps(t testing.TB) []time.Duration {
	t.Helper()
	var all []time.Duration
	for line := range strings.Lines(d.C1.Sh(t, "grep ^gap /run/lab/acks || true")) {
		var seconds float64
		_, err := fmt.Sscanf(line, "gap %f before", &seconds)
		require.NoError(t, err, line)
		all = append(all, time.Duration(seconds*float64(time.Second)))
	}
	return all
}

// The real ocf-tester, on a real device.
func TestMatrixDRBDPassesOcfTester(t *testing.T) {
	l := lab.Start(t, lab.DRBD)
	l.N2.Sh(t, "drbdadm up r0")
	for _, m := range l.Nodes() {
		m.Sh(t, "systemctl stop pacemaker corosync")
	}
	out := l.N1.Sh(t, "ocf-tester -v -n r0test -o drbd_resource=r0 /usr/lib/ocf/resource.d/baton/drbd 2>&1")
	t.Log(out)
	require.Contains(t, out, "passed all tests")
}

// Without a cluster: what the agent knows of the real kernel does not hang on the module being
// loaded, on udev's links, on debugfs or on its own record, and a start that broke off half-way
// is swept up by stop.
func TestMatrixDRBDKernelIsReadWhateverElseIsMissing(t *testing.T) {
	l := lab.Start(t, lab.DRBD)
	expect := func(want, action string) string {
		t.Helper()
		code, said := agentCall(t.Context(), l.N1, "baton", action)
		require.Equal(t, want, code, "%s: %s", action, said)
		return said
	}
	l.N1.Sh(t, "rmmod drbd")
	expect("7", "monitor")
	require.NotContains(t, l.N1.Sh(t, "lsmod"), "drbd", "a monitor loaded the module")
	expect("0", "stop")
	require.NotContains(t, l.N1.Sh(t, "lsmod"), "drbd", "a stop loaded the module")

	// Half a start: the resource is there, without a volume.
	l.N1.Sh(t, "modprobe drbd; drbdsetup new-resource r0")
	expect("7", "monitor")
	expect("0", "stop")
	l.N1.Sh(t, "drbdsetup new-resource r0; drbdsetup new-minor r0 0 0")
	expect("7", "monitor")
	expect("0", "start")
	l.N2.Sh(t, "drbdadm up r0")
	require.NoError(t, lab.WaitDRBD(t.Context(), l.N1, "ds:UpToDate/UpToDate"))
	expect("0", "start")
	expect("0", "promote")
	expect("8", "monitor")

	// Where debugfs is mounted it alone is enough: neither record nor drbdsetup.
	l.N1.Sh(t, "mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug; rm -rf /run/resource-agents/baton; mv /usr/sbin/drbdsetup /usr/sbin/drbdsetup.away")
	require.Contains(t, l.N1.Sh(t, "readlink /sys/kernel/debug/drbd/minors/0"), "../resources/r0/volumes/0")
	expect("8", "monitor")
	l.N1.Sh(t, "mv /usr/sbin/drbdsetup.away /usr/sbin/drbdsetup; umount /sys/kernel/debug; rm -rf /dev/drbd /run/resource-agents/baton; echo nonsense >/etc/drbd.d/bad.res")
	expect("8", "monitor") // by drbdsetup, and recorded
	l.N1.Sh(t, "mv /usr/sbin/drbdsetup /usr/sbin/drbdsetup.away")
	expect("8", "monitor") // by the record
	l.N1.Sh(t, "rm -rf /run/resource-agents/baton")
	require.Contains(t, expect("1", "monitor"), "the state cannot be read", "unknown is neither stopped nor unpromoted")
	l.N1.Sh(t, "mv /usr/sbin/drbdsetup.away /usr/sbin/drbdsetup")
	expect("8", "monitor")

	// Kernel users of the device are named: device mapper, and a mount in another namespace.
	l.N1.Sh(t, `modprobe dm_mod; dmsetup create onr0 --table "0 2048 linear /dev/drbd0 0"`)
	require.Contains(t, expect("1", "demote"), "/dev/drbd0 is used by /dev/dm-0 (device mapper onr0)")
	l.N1.Sh(t, "dmsetup remove onr0; systemd-run --unit hidden -p PrivateMounts=yes sh -c 'mount /dev/drbd0 /mnt/data && sleep 1000'")
	lab.Eventually(t, aMinute, "the hidden mount", func(ctx context.Context) (bool, string) {
		out, err := l.N1.Run(ctx, "grep -l /dev/drbd0 /proc/[0-9]*/mountinfo 2>/dev/null || true")
		return err == nil && out != "", out
	})
	require.Regexp(t, `/dev/drbd0 is mounted on /mnt/data \(ext4, in the mount namespace of pid \d+ s`, expect("1", "demote"))
	l.N1.Sh(t, "systemctl stop hidden")
	expect("0", "demote")
	expect("0", "stop")
	expect("7", "monitor")
}
