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

// killMaster sends SIGKILL to the owner of the master's lock: the first process with that command
// line, whose child is the data writer.
func (m *mfsLab) killMaster(t testing.TB, node *lab.Machine) {
	t.Helper()
	node.Sh(t, `kill -9 "$(pgrep -o -f '^(/usr/sbin/)?mfsmaster -c ')"`)
}

func TestMatrixMooseFSMasterIsRestartedAfterKill9AndMovedTheSecondTime(t *testing.T) {
	m := startMFS(t, "")
	for _, next := range []*lab.Machine{m.N1, m.N2} {
		m.killMaster(t, m.N1)
		// Only a new master can acknowledge what comes from now on.
		m.serving(t, next, time.Now().Add(time.Second))
	}
	m.proven(t)
}

func TestMatrixMooseFSHungMasterIsReplaced(t *testing.T) {
	m := startMFS(t, "")
	hung := time.Now()
	m.N1.Sh(t, `pkill -STOP -o -f '^(/usr/sbin/)?mfsmaster -c '`)
	m.files.WaitOK(t, hung.Add(20*time.Second), 8*aMinute)
	m.proven(t)
	require.Contains(t, m.N1.Journal(), "stopped by a signal (T)")
}

func TestMatrixMooseFSPowerLossWithoutSyncIsCounted(t *testing.T) {
	for _, c := range []struct{ durability, mode string }{{"moosefs", "0"}, {"interval", "1"}} {
		t.Run(c.durability, func(t *testing.T) {
			m := &mfsLab{Lab: lab.Start(t, mfsStage), way: 1}
			for _, n := range m.Nodes() {
				n.Sh(t, "sed -i 's/^CHANGELOG_SAVE_MODE.*/CHANGELOG_SAVE_MODE = %s/' /etc/mfs/mfsmaster.cfg", c.mode)
			}
			text := strings.Replace(mfsCRM(t, "mfs-drbd", "older_metadata=accept"), "durability=sync", "durability="+c.durability, 1)
			require.NoError(t, m.CrmText(t.Context(), text+"\nlocation begins service 10: n1\n"))
			m.MustActive(t, "mfsmaster", "", m.N1, 8*aMinute)
			m.begin(t)
			// The birth of the file system shall be on the disk in any case.
			m.N1.Sh(t, "sync")
			m.files.WaitOK(t, time.Now().Add(20*time.Second), 4*aMinute)
			require.NoError(t, m.N1.PowerOff(t.Context()))
			m.MustActive(t, "mfsmaster", "", m.N2, 8*aMinute)
			m.files.WaitOK(t, time.Now(), 8*aMinute)
			log := m.files.Stopped(t)
			out, err := m.C1.Run(t.Context(), "labtool check -log %s -dir %s/files", m.files.LogPath(), mfsMount)
			t.Logf("durability=%s: stall %v; check: %s %v", c.durability, log.LongestGap(), strings.TrimSpace(out), err)
		})
	}
}

func TestMatrixMooseFSTornTailOfTheChangelogIsCut(t *testing.T) {
	m := startMFS(t, "")
	torn := time.Now()
	// No restart in between: the master is unmanaged while its changelog is torn.
	m.N1.Sh(t, "crm_resource -r mfsmaster --meta -p is-managed -v false")
	m.killMaster(t, m.N1)
	m.N1.Sh(t, `sleep 1; cd /srv/mfs/meta && f=$(ls -t changelog.*.mfs | head -n1) && head -c 616 /dev/zero >>$f`)
	m.N1.Sh(t, "crm_resource -r mfsmaster --meta -p is-managed -v true; crm_resource --cleanup -r mfsmaster")
	m.files.WaitOK(t, torn.Add(time.Second), 8*aMinute)
	m.proven(t)
	require.Contains(t, m.N1.Journal()+m.N2.Journal(), "D3 torn changelog")
}

func TestMatrixMooseFSDamagedMetadataWithAGoodBackup(t *testing.T) {
	m := startMFS(t, "")
	m.N1.Sh(t, "crm_resource -r mfsmaster --meta -p target-role -v Stopped && crm_resource --wait -T 240 || true")
	m.eventually(t, 4*aMinute, "the master to be stopped", func() bool {
		out, _ := m.N1.Run(t.Context(), "test -e /srv/mfs/meta/metadata.mfs && echo there")
		return strings.Contains(out, "there")
	})
	m.N1.Sh(t, "truncate -s -100 /srv/mfs/meta/metadata.mfs; crm_resource -r mfsmaster --meta -p target-role -v Started")
	m.files.WaitOK(t, time.Now(), 8*aMinute)
	m.proven(t)
	require.Contains(t, m.N1.Journal()+m.N2.Journal(), "D4 older metadata file")
}

func TestMatrixMooseFSForgottenMountIsRefused(t *testing.T) {
	m := &mfsLab{Lab: lab.Start(t, mfsStage), way: 1}
	text := mfsCRM(t, "mfs-drbd", "")
	text = strings.Replace(text, "group service fs_r0 vip mfsmaster", "group service vip mfsmaster", 1)
	begin := strings.Index(text, "primitive fs_r0")
	text = text[:begin] + strings.Replace(text[begin:], "op monitor interval=20s timeout=40s", "op monitor interval=20s timeout=40s meta target-role=Stopped", 1)
	require.NoError(t, m.CrmText(t.Context(), text))
	m.eventually(t, 8*aMinute, "the refusal to be shown", func() bool {
		out, _ := m.N1.Run(t.Context(), "crm_mon -1rf")
		return strings.Contains(out, "/srv/mfs is not mounted")
	})
	require.NoError(t, m.Settle(t.Context()))
	for _, n := range m.Nodes() {
		require.Empty(t, strings.TrimSpace(n.Sh(t, "ls -A /srv/mfs; pgrep -f '^(/usr/sbin/)?mfsmaster -c ' || true")), "nothing was made on %s", n.Name)
	}
}

func TestMatrixMooseFSFullDiskIsReportedAndLosesNothing(t *testing.T) {
	m := startMFS(t, "")
	full := time.Now()
	m.N1.Sh(t, "fallocate -l $(( $(df --output=avail -B1 /srv/mfs | tail -n1) - 8388608 )) /srv/mfs/ballast")
	m.eventually(t, 4*aMinute, "the warning", func() bool { return strings.Contains(m.N1.Journal(), "Make room") })
	m.N1.Sh(t, "rm /srv/mfs/ballast")
	m.files.WaitOK(t, full, 4*aMinute)
	moved := time.Now()
	require.NoError(t, m.Standby(t.Context(), m.N1))
	m.serving(t, m.N2, moved)
	m.proven(t)
}

func TestMatrixMooseFSOverMetaloggersKill9LosesNothing(t *testing.T) {
	m := startMetaloggers(t, "interval=60s role=Promoted", "interval=600s role=Promoted") // one monitor shall count each failure
	m.following(t, m.N2)
	for _, next := range []*lab.Machine{m.N1, m.N2} {
		m.killMaster(t, m.N1)
		// Only a new master can acknowledge what comes from now on.
		m.serving(t, next, time.Now().Add(time.Second))
		if next == m.N1 {
			m.following(t, m.N2)
		}
	}
	m.proven(t)
}

// What the follower had is there; what it had not is counted. The dead node comes back with a copy
// that counts more changes and is not promoted with it.
func TestMatrixMooseFSOverMetaloggersPowerLossAndTheStaleNodesReturn(t *testing.T) {
	m := startMetaloggers(t)
	m.following(t, m.N2)
	m.files.WaitOK(t, time.Now().Add(10*time.Second), 4*aMinute)
	cut := time.Now()
	require.NoError(t, m.N1.PowerOff(t.Context()))
	m.serving(t, m.N2, cut)
	require.NoError(t, m.N1.PowerOn(t.Context()))
	m.N1.Sh(t, "systemctl start pacemaker")
	m.following(t, m.N1)
	back := time.Now()
	require.NoError(t, m.Standby(t.Context(), m.N2))
	m.serving(t, m.N1, back)
	log := m.files.Stopped(t)
	out, err := m.C1.Run(t.Context(), "labtool check -log %s -dir %s/files", m.files.LogPath(), mfsMount)
	t.Logf("stall %v; check: %s %v", log.LongestGap(), strings.TrimSpace(out), err)
}

func TestMatrixOcfTesterPassesWithMooseFS(t *testing.T) {
	l := lab.Start(t, metaloggerStage)
	agent := "/usr/lib/ocf/resource.d/baton/mfsmaster"
	l.N1.Sh(t, "mfsmaster=%s; $mfsmaster start -o config=/etc/mfs/mfsmaster.cfg -o require_mount=false -o initialize=true && $mfsmaster stop -o config=/etc/mfs/mfsmaster.cfg -o require_mount=false", agent)
	for _, way := range []string{"require_mount=false", "mode=metaloggers"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*aMinute)
		out, err := l.N1.Run(ctx, "ocf-tester -n m -o config=/etc/mfs/mfsmaster.cfg -o %s %s 2>&1", way, agent)
		cancel()
		t.Log(out)
		require.NoError(t, err, way)
		require.Contains(t, out, "passed all tests", way)
	}
}
