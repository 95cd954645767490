//go:build lab

package lab_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

// nfsLab is a cluster that serves lab.NFSShare from a replicated device by the example nfs, and c1
// that works on it.
type nfsLab struct {
	drbdLab
	files, held *lab.Job
}

// nfsOptions are what a scenario changes in the example, and how c1 mounts.
type nfsOptions struct {
	vers   string // of the client's mount; 4.2 when empty
	params string // further parameters of nfsd
}

// nfsCRM is the example's configuration without its fencing, which scenarios of DRBD prove.
func nfsCRM(t testing.TB, o nfsOptions) string {
	t.Helper()
	text, err := lab.Unfenced("nfs/nfs.crm")
	require.NoError(t, err)
	if o.params != "" {
		text = strings.Replace(text, "params nfs_shared_infodir", "params "+o.params+" nfs_shared_infodir", 1)
	}
	return text
}

// startNFS begins every scenario: n1 serves, c1 has mounted, creates and fsyncs a file each
// 50 ms, holds a lock on an open file and writes under it, and lists the directory.
func startNFS(t *testing.T, o nfsOptions) *nfsLab {
	t.Helper()
	n := &nfsLab{drbdLab: drbdLab{lab.Start(t, lab.NFS)}}
	for _, m := range n.Nodes() {
		require.NoError(t, lab.UseR0(t.Context(), m, drbdFast))
	}
	n.Timeline.Add("cluster: load nfs.crm")
	require.NoError(t, n.CrmText(t.Context(), nfsCRM(t, o)+"\nlocation begins service 10: n1\n"))
	n.MustActive(t, "vip", "", n.N1, 3*aMinute)
	n.settled(t)
	n.mount(t, o)
	n.load(t)
	return n
}

func (n *nfsLab) mount(t testing.TB, o nfsOptions) {
	t.Helper()
	vers := o.vers
	if vers == "" {
		vers = "4.2"
	}
	n.C1.Sh(t, "mount -t nfs -o vers=%s,hard,proto=tcp %s:%s %s", vers, drbdAddress, lab.NFSShare, lab.NFSMount)
}

func (n *nfsLab) load(t testing.TB) {
	t.Helper()
	n.C1.Sh(t, "mkdir -p %s/files && : >%[1]s/locked", lab.NFSMount)
	n.files = n.C1.Tool(t, "files", "write -every 50ms -dir "+lab.NFSMount+"/files")
	n.held = n.C1.Tool(t, "held", "lock -file "+lab.NFSMount+"/locked")
	// A process that sits in the directory and reads it, as a shell of a user does.
	n.C1.Sh(t, `cd %s/files && { setsid sh -c 'while :; do ls -f >/dev/null || echo "ls: $?" >>/run/lab/ls.err; sleep 0.2; done' >/dev/null 2>>/run/lab/ls.err </dev/null & }`, lab.NFSMount)
	n.working(t, time.Time{})
}

// working waits until the client has created a file and written under its lock after a moment.
func (n *nfsLab) working(t testing.TB, since time.Time) {
	t.Helper()
	n.files.WaitOK(t, since, 3*aMinute)
	n.held.WaitOK(t, since, 3*aMinute)
}

// proven ends the client and shows that on the serving node every acknowledged file and record is
// there, that the lock was never lost, that nothing was answered by an error, and how long the
// client stood still.
func (n *nfsLab) proven(t testing.TB, on *lab.Machine) time.Duration {
	t.Helper()
	// A second client is refused while the first has the lock: here, a process of the server.
	out, err := on.Run(t.Context(), "labtool trylock -file %s/locked; echo code $?", lab.NFSShare)
	require.NoError(t, err)
	require.Contains(t, out, "code 1", "the lock is still held, as %s sees it", on.Name)

	files, held := n.files.Stopped(t), n.held.Stopped(t)
	require.Empty(t, files.Of(lab.Fail), "no operation of the client failed")
	require.Empty(t, held.Of(lab.Fail), "no write under the lock failed")
	require.Empty(t, n.C1.Sh(t, "cat /run/lab/ls.err 2>/dev/null || true"), "no listing failed")
	acks := n.C1.Sh(t, "cat %s", n.files.LogPath())
	require.NoError(t, on.Upload(t.Context(), "/run/acks", 0o644, []byte(acks+"\n")))
	t.Logf("%s: %s", on.Name, strings.TrimSpace(on.Sh(t, "labtool check -log /run/acks -dir %s/files", lab.NFSShare)))

	stall := files.LongestGap().Long
	t.Logf("c1 created a file each 50 ms; longest stall %s", files.LongestGap())
	t.Logf("c1 wrote under its lock; longest stall %s", held.LongestGap())
	n.Timeline.Add("c1: longest stall %s", files.LongestGap())
	return stall
}

// graceEndedEarly shows that the kernel of the node ended the grace period of the latest start
// because all clients had reclaimed, and after how many seconds.
func (n *nfsLab) graceEndedEarly(t testing.TB, on *lab.Machine) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(on.Sh(t, "dmesg | grep NFSD || true")), "\n")
	latest := 0
	for i, line := range lines {
		if strings.Contains(line, "client tracking operations") {
			latest = i
		}
	}
	out := strings.Join(lines[latest:], "\n")
	t.Logf("%s says:\n%s", on.Name, out)
	require.Contains(t, out, "Using nfsdcld client tracking operations")
	require.Contains(t, out, "all clients done reclaiming, ending NFSv4 grace period")
}

// actions prints how long each action of the resources took on each node, from the cluster's log.
func (n *nfsLab) actions(t testing.TB) {
	t.Helper()
	for _, m := range n.Nodes() {
		if !m.On() {
			continue
		}
		out, err := m.Run(t.Context(), `crm_resource --list-all-operations --output-as=text 2>/dev/null | sed 's/^ *//' || true`)
		require.NoError(t, err)
		times := regexp.MustCompile(`(?m)^.*last-rc-change=.*exec=\d+ms.*$`).FindAllString(out, -1)
		t.Logf("actions as %s has them:\n%s", m.Name, strings.Join(times, "\n"))
		return
	}
}

func TestCoreNFSKeepsFilesAndLocksAtASwitchover(t *testing.T) {
	n := startNFS(t, nfsOptions{})
	require.NoError(t, n.Standby(t.Context(), n.N1))
	n.MustActive(t, "vip", "", n.N2, 3*aMinute)
	n.Timeline.Add("n2: the address is up")
	n.working(t, time.Now())
	n.proven(t, n.N2)
	n.graceEndedEarly(t, n.N2)
	n.actions(t)
	n.noFailures(t)
	n.nothingLeft(t, n.N1)
}

// nothingLeft shows that a node that gave the service away holds nothing of NFS.
func (n *nfsLab) nothingLeft(t testing.TB, m *lab.Machine) {
	t.Helper()
	out := m.Sh(t, `pgrep -l 'nfsdcld|rpc.mountd|rpc.statd|sm-notify' || true; findmnt -n /mnt/data || true; cat /var/lib/nfs/etab; cat /proc/fs/nfsd/threads 2>/dev/null || true`)
	require.Empty(t, strings.Trim(out, "0\n "), "%s holds nothing of NFS", m.Name)
}

func TestCoreNFSKeepsFilesAndLocksAtAPowerLoss(t *testing.T) {
	n := startNFS(t, nfsOptions{})
	n.connectionKnown(t, n.N1)
	off := time.Now()
	require.NoError(t, n.N1.PowerOff(t.Context()))
	_, err := n.WaitActive(t.Context(), "vip", "", n.N2, 3*aMinute)
	require.NoError(t, err)
	n.Timeline.Add("n2: the address is up, %v after the power loss", time.Since(off).Round(100*time.Millisecond))
	n.working(t, time.Now())
	n.proven(t, n.N2)
	n.graceEndedEarly(t, n.N2)
}

// connectionKnown waits until a monitor of the address has recorded c1's connection, by which the
// other node wakes c1 up.
func (n *nfsLab) connectionKnown(t testing.TB, m *lab.Machine) {
	t.Helper()
	lab.Eventually(t, 2*aMinute, "the address to have recorded c1's connection", func(ctx context.Context) (bool, string) {
		out, err := m.Run(ctx, "cat /mnt/data/.nfs/%s 2>&1 || true", drbdAddress)
		return err == nil && strings.Contains(out, "192.0.2.21"), out
	})
}

func TestMatrixNFSMovesTwentyTimesInARow(t *testing.T) {
	n := startNFS(t, nfsOptions{})
	for i := range 20 {
		from, to := n.N1, n.N2
		if i%2 == 1 {
			from, to = n.N2, n.N1
		}
		moved := time.Now()
		require.NoError(t, n.Standby(t.Context(), from))
		n.MustActive(t, "vip", "", to, 3*aMinute)
		n.working(t, time.Now())
		t.Logf("move %d: the client went on after %v", i+1, time.Since(moved).Round(100*time.Millisecond))
		n.nothingLeft(t, from)
		require.NoError(t, n.Unstandby(t.Context(), from))
		require.NoError(t, n.Settle(t.Context()))
		n.settled(t)
	}
	n.proven(t, n.N1)
	n.noFailures(t)
}

// TestMatrixNFSWithOtherVersions runs the switchover with what docs/nfs.md calls worse.
func TestMatrixNFSWithOtherVersions(t *testing.T) {
	for _, c := range []nfsOptions{
		{vers: "4.1"},
		{vers: "4.0"},
		{vers: "3", params: "vers3=true"},
	} {
		t.Run(c.vers, func(t *testing.T) {
			n := startNFS(t, c)
			require.NoError(t, n.Standby(t.Context(), n.N1))
			n.MustActive(t, "vip", "", n.N2, 3*aMinute)
			n.working(t, time.Now())
			if c.vers == "3" {
				n.reclaimed(t, n.N2)
			}
			n.proven(t, n.N2)
			n.noFailures(t)
			n.nothingLeft(t, n.N1)
		})
	}
}

// reclaimed waits until the client has its lock again: writes of NFSv3 need none, and the client is
// told to ask for it only after the address is up.
func (n *nfsLab) reclaimed(t testing.TB, on *lab.Machine) {
	t.Helper()
	lab.Eventually(t, 2*aMinute, "the client's lock on "+on.Name, func(ctx context.Context) (bool, string) {
		out, err := on.Run(ctx, "grep \":$(stat -c %%i %s/locked) \" /proc/locks || { cat /proc/locks; journalctl -b --no-pager | grep -i 'sm-notify\\|statd' | tail -n 5; false; }", lab.NFSShare)
		return err == nil, out
	})
}

// TestMatrixNFSDaemonsAreMissed kills each daemon, and halts mountd: the monitor notices and the
// cluster restarts the server in place, while the client goes on.
func TestMatrixNFSDaemonsAreMissed(t *testing.T) {
	n := startNFS(t, nfsOptions{params: "vers3=true"})
	for _, c := range []struct{ signal, daemon, reason string }{
		{"KILL", "rpc.mountd", "rpc.mountd has ended"},
		{"KILL", "nfsdcld", "nfsdcld has ended"},
		{"KILL", "rpc.statd", "rpc.statd has ended"},
		{"STOP", "rpc.mountd", "hangs"},
	} {
		n.Timeline.Add("n1: %s to %s", c.signal, c.daemon)
		began := time.Now()
		old := n.N1.Sh(t, "pgrep -o -x %s", c.daemon)
		n.N1.Sh(t, "pkill -%s -x %s", c.signal, c.daemon)
		lab.Eventually(t, 3*aMinute, fmt.Sprintf("crm_mon to say that %s", c.reason), func(ctx context.Context) (bool, string) {
			out, err := n.onAny(ctx, "crm_mon -1 --include=failures 2>&1")
			if err != nil {
				return false, err.Error()
			}
			return strings.Contains(out, c.reason), out
		})
		lab.Eventually(t, 3*aMinute, "a new "+c.daemon, func(ctx context.Context) (bool, string) {
			out, err := n.N1.Run(ctx, "pgrep -o -x %s", c.daemon)
			return err == nil && strings.TrimSpace(out) != old, out
		})
		n.MustActive(t, "vip", "", n.N1, 3*aMinute)
		n.working(t, time.Now())
		t.Logf("%s %s: noticed and mended within %v", c.signal, c.daemon, time.Since(began).Round(time.Second))
		n.N1.Sh(t, "crm_resource --cleanup --resource nfsd >/dev/null 2>&1")
		require.NoError(t, n.Settle(t.Context()))
	}
	n.proven(t, n.N1)
}

// TestMatrixNFSDeadClientDoesNotHoldUpTheOthers: a client that lost its power is in the database,
// and never reclaims; max_grace ends the grace period for the others.
func TestMatrixNFSDeadClientDoesNotHoldUpTheOthers(t *testing.T) {
	n := startNFS(t, nfsOptions{})
	// n2 stands for the dead client: it mounts, opens a file, and loses its power.
	n.N2.Sh(t, "mkdir -p /mnt/c && mount -t nfs -o vers=4.2,hard %s:%s /mnt/c && { setsid sh -c 'exec 9>/mnt/c/dead; sleep 1000' >/dev/null 2>&1 </dev/null & }", drbdAddress, lab.NFSShare)
	lab.Eventually(t, aMinute, "n2's client state", func(ctx context.Context) (bool, string) {
		out, err := n.N1.Run(ctx, "cat /proc/fs/nfsd/clients/*/info | grep -c confirmed || true")
		return err == nil && strings.TrimSpace(out) == "2", out
	})
	require.NoError(t, n.N2.PowerOff(t.Context()))
	require.NoError(t, n.N2.PowerOn(t.Context()))
	n.N2.Sh(t, "modprobe drbd; systemctl start corosync pacemaker")
	require.NoError(t, n.WaitOnline(t.Context(), 4*aMinute, n.N1, n.N2))
	n.settled(t)
	n.mustScoreSomehow(t)

	require.NoError(t, n.Standby(t.Context(), n.N1))
	n.MustActive(t, "vip", "", n.N2, 3*aMinute)
	n.working(t, time.Now())
	n.proven(t, n.N2)
	// n2 has served nothing before in this boot.
	require.Contains(t, n.N2.Sh(t, "journalctl -b --no-pager"), "the grace period of NFSv4 was ended", "by the agent")
}

// mustScoreSomehow waits until both nodes may be promoted again.
func (n *nfsLab) mustScoreSomehow(t testing.TB) {
	t.Helper()
	lab.Eventually(t, 2*aMinute, "a promotion score of n2", func(ctx context.Context) (bool, string) {
		s := n.score(ctx, n.N2)
		return s != "", s
	})
}

// TestMatrixNFSOutlivesACutServiceNetwork: the active node's cable is pulled; the address notices,
// the service moves, and later fails back, with the client at work throughout.
func TestMatrixNFSOutlivesACutServiceNetwork(t *testing.T) {
	n := startNFS(t, nfsOptions{})
	cut := time.Now()
	require.NoError(t, n.N1.Cut(t.Context(), lab.LAN))
	n.MustActive(t, "vip", "", n.N2, 3*aMinute)
	n.working(t, time.Now())
	t.Logf("cut until the client went on: %v", time.Since(cut).Round(100*time.Millisecond))
	n.graceEndedEarly(t, n.N2)
	n.nothingLeft(t, n.N1)

	require.NoError(t, n.N1.Mend(t.Context(), lab.LAN))
	n.N2.Sh(t, "crm_resource --cleanup >/dev/null 2>&1")
	require.NoError(t, n.Settle(t.Context()))
	n.settled(t)
	require.NoError(t, n.Standby(t.Context(), n.N2))
	n.MustActive(t, "vip", "", n.N1, 3*aMinute)
	n.working(t, time.Now())
	n.proven(t, n.N1)
}

// TestMatrixNFSPassesOcfTester runs resource-agents' own tester against the agent on a real device.
func TestMatrixNFSPassesOcfTester(t *testing.T) {
	l := lab.Start(t, lab.NFS)
	for _, m := range l.Nodes() {
		m.Sh(t, "drbdadm up r0")
	}
	require.NoError(t, lab.WaitDRBD(t.Context(), l.N1, "ds:UpToDate/UpToDate"))
	l.N1.Sh(t, "drbdadm primary r0 && mount /dev/drbd0 /mnt/data")
	ctx, cancel := context.WithTimeout(t.Context(), 8*aMinute)
	defer cancel()
	out, err := l.N1.Run(ctx, "ocf-tester -n nfs -o nfs_shared_infodir=/mnt/data/.nfs -o directory=%s -o clientspec=192.0.2.0/24 /usr/lib/ocf/resource.d/baton/nfsd 2>&1", lab.NFSShare)
	t.Log(out)
	require.NoError(t, err)
	require.Contains(t, out, "passed all tests")
	l.N1.Sh(t, "umount /mnt/data")
}
