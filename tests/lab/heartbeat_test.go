//go:build lab

package lab_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

// formerStall is how long the NFS client of a published heartbeat, DRBD and NFS cluster stood still
// in this very test, dd of 10 MB files in a loop, when heartbeat was stopped on the active node.
const formerStall = 116 * time.Second

const (
	hbExport = "/srv/nfs/export"
	hbMount  = "/mnt/nfs"
	// An emulated machine's clocks and processes stall for many seconds when the host is busy.
	hbPatience = 5 * time.Minute
)

// hbFiles are what the examples put on both nodes, and where.
var hbFiles = []struct{ name, path string }{
	{"ha.cf", "/etc/ha.d/ha.cf"},
	{"authkeys", "/etc/ha.d/authkeys"},
	{"haresources", "/etc/ha.d/haresources"},
	{"baton-nfsd.conf", "/etc/ha.d/baton-nfsd.conf"},
	{"baton-vip.conf", "/etc/ha.d/baton-vip.conf"},
	{"r0.res", "/etc/drbd.d/r0.res"},
	{"mfsmaster.cfg", "/etc/mfs/mfsmaster.cfg"},
	{"mfsexports.cfg", "/etc/mfs/mfsexports.cfg"},
	{"baton-status.service", "/etc/systemd/system/baton-status.service"},
	{"baton-status.timer", "/etc/systemd/system/baton-status.timer"},
}

// hbExample is a file of an example; empty where the example has none of that name.
func hbExample(example, name string) string {
	text, err := lab.Example(example + "/" + name)
	if err != nil {
		return ""
	}
	return text
}

// newHeartbeatStage is both nodes configured as the README.md of an example of crm-examples says,
// the device connected and with a file system on it, heartbeat enabled for the next boot but not yet
// started; c1 is the router as well. host is what each node needs besides, prepare what is done once on
// the mounted file system.
func newHeartbeatStage(example, mountPoint, host, prepare string, client func(ctx context.Context, c1 *lab.Machine) error) *lab.Stage {
	key := "4\n" + host + "\n" + prepare
	for _, f := range hbFiles {
		key += hbExample(example, f.name)
	}
	return &lab.Stage{
		Name: example, Base: lab.Booted, Key: key,
		Build: func(ctx context.Context, l *lab.Lab) error {
			for _, m := range l.Nodes() {
				for _, f := range hbFiles {
					text := hbExample(example, f.name)
					if text == "" {
						continue
					}
					mode := os.FileMode(0o644)
					if f.name == "authkeys" {
						mode = 0o600
					}
					if err := m.Upload(ctx, f.path, mode, []byte(text)); err != nil {
						return err
					}
				}
				// A node of heartbeat's has no tool of Pacemaker, and none may be missed.
				if _, err := m.Run(ctx, "mkdir -p /root/none && cd /usr/sbin && mv crm_* crmadmin cibadmin attrd_updater /root/none && cd / && "+
					"mkdir -p %s && %s && systemctl daemon-reload && systemctl -q enable drbd heartbeat baton-status.timer && drbdadm create-md --force r0 && drbdadm up r0", mountPoint, host); err != nil {
					return err
				}
			}
			if _, err := l.N1.Run(ctx, "timeout 60 drbdadm wait-connect r0 && drbdadm -- --clear-bitmap new-current-uuid r0 && drbdadm primary r0 && "+
				"mkfs.ext4 -q /dev/drbd0 && mount /dev/drbd0 %[1]s && %[2]s && umount %[1]s && drbdadm secondary r0", mountPoint, prepare); err != nil {
				return err
			}
			if _, err := l.C1.Run(ctx, "ip address add 192.0.2.1/24 dev eth0"); err != nil {
				return err
			}
			return client(ctx, l.C1)
		},
	}
}

var (
	heartbeatNFS = newHeartbeatStage("heartbeat-nfs", "/srv/nfs", "echo nfsd >/etc/modules-load.d/nfsd.conf && modprobe nfsd", "mkdir /srv/nfs/export /srv/nfs/tickle", func(ctx context.Context, c1 *lab.Machine) error {
		_, err := c1.Run(ctx, "mkdir -p %s", hbMount)
		return err
	})
	heartbeatMFS = newHeartbeatStage("heartbeat-mfs", "/srv/mfs", "true", "mkdir /srv/mfs/tickle && install -d -o mfs -g mfs /srv/mfs/meta", func(ctx context.Context, c1 *lab.Machine) error {
		_, err := c1.Run(ctx, `mkdir -p /mnt/mfs /srv/chunks && mkfs.ext4 -q /dev/vdb && mount /dev/vdb /srv/chunks && chown mfs:mfs /srv/chunks &&
			printf 'MASTER_HOST = 192.0.2.50\nMASTER_RECONNECTION_DELAY = 1\nHDD_LEAVE_SPACE_DEFAULT = 64MiB\n' >/etc/mfs/mfschunkserver.cfg && echo /srv/chunks >/etc/mfs/mfshdd.cfg`)
		return err
	})
)

// hb is a lab in which heartbeat runs.
type hb struct {
	*lab.Lab
	t *testing.T
}

// openHeartbeat is the lab with auto_failback set as the scenario needs it.
func openHeartbeat(t *testing.T, stage *lab.Stage, autoFailback string) hb {
	t.Helper()
	h := hb{lab.Start(t, stage), t}
	for _, m := range h.Nodes() {
		m.Sh(t, "sed -i 's/^auto_failback .*/auto_failback %s/' /etc/ha.d/ha.cf", autoFailback)
	}
	return h
}

// startHeartbeat is the NFS example with heartbeat running and n1 active.
func startHeartbeat(t *testing.T, autoFailback string) hb {
	t.Helper()
	return openHeartbeat(t, heartbeatNFS, autoFailback).start()
}

// start starts heartbeat on both nodes and waits until n1 has the address.
func (h hb) start() hb {
	h.t.Helper()
	t := h.t
	h.Timeline.Add("heartbeat starts on both nodes")
	for _, m := range h.Nodes() {
		m.Sh(t, "systemctl start --no-block drbd heartbeat baton-status.timer")
	}
	h.moved(h.N1, h.N2)
	return h
}

// moved waits until to has the address and from, where it is on, has not.
func (h hb) moved(to, from *lab.Machine) {
	h.t.Helper()
	took := lab.Eventually(h.t, hbPatience, vipAddress+" on "+to.Name+" alone", func(ctx context.Context) (bool, string) {
		there, state := holds(ctx, to)
		if !there {
			return false, to.Name + " has not: " + state
		}
		if from.On() {
			if still, state := holds(ctx, from); still {
				return false, from.Name + " still has: " + state
			}
		}
		return true, ""
	})
	h.Timeline.Add("%s is on %s", vipAddress, to.Name)
	h.t.Logf("%s on %s after %.1f s", vipAddress, to.Name, took.Seconds())
}

// rest waits until heartbeat has no resource on its way: before that it ignores hb_standby.
func (h hb) rest(nodes ...*lab.Machine) {
	h.t.Helper()
	for _, m := range nodes {
		lab.Eventually(h.t, hbPatience, m.Name+" at rest", func(ctx context.Context) (bool, string) {
			out, err := m.Run(ctx, "cl_status rscstatus; pgrep -f '[/]usr/share/heartbeat/' >/dev/null || echo idle")
			if err != nil {
				return false, out
			}
			return !strings.Contains(out, "transition") && strings.Contains(out, "idle"), out
		})
	}
}

// standby makes the active node give everything to the other one.
func (h hb) standby(m *lab.Machine) {
	h.t.Helper()
	h.rest(h.N1, h.N2)
	h.Timeline.Add("hb_standby on %s", m.Name)
	h.order(m, "hb_standby")
	h.moved(h.Other(m), m)
}

// dropped is what heartbeat says when its reader has read an order from the FIFO in two, and dropped it.
const dropped = "Message with zero fields"

// order gives heartbeat an order by one of its scripts, and again where heartbeat drops it.
func (h hb) order(m *lab.Machine, script string) {
	h.t.Helper()
	count := func(text string) (n int) {
		for _, m := range h.Nodes() {
			lines, err := strconv.Atoi(strings.TrimSpace(m.Sh(h.t, "grep -c '%s' /var/log/ha-log || true", text)))
			require.NoError(h.t, err)
			n += lines
		}
		return n
	}
	for range 3 {
		heard, lost := count("wants to go standby"), count(dropped)
		m.Sh(h.t, "/usr/share/heartbeat/"+script)
		again := false
		lab.Eventually(h.t, aMinute, script+" to be heard", func(context.Context) (bool, string) {
			again = count(dropped) > lost
			return again || count("wants to go standby") > heard, ""
		})
		if !again {
			return
		}
		h.Timeline.Add("heartbeat dropped %s", script)
	}
}

// quiet fails if heartbeat or an agent has complained on a node that is on.
func (h hb) quiet(except ...string) {
	h.t.Helper()
	for _, m := range h.Nodes() {
		if !m.On() {
			continue
		}
		for line := range strings.SplitSeq(m.Sh(h.t, "grep -hE 'ERROR|CRIT|Retrying|pacemaker|crm_|attrd|(drbd|nfsd|vip|mfsmaster)\\(.*WARNING' /var/log/ha-log || true"), "\n") {
			known := slices.ContainsFunc(except, func(e string) bool { return strings.Contains(line, e) })
			require.Truef(h.t, line == "" || known || strings.Contains(line, "Pacemaker support: off") || strings.Contains(line, dropped), "ha-log of %s: %s", m.Name, line)
		}
	}
}

// seedLoad is the client's loop: dd of a 10 MB file, stat of it, and again; a line each time.
const seedLoad = `i=0
while [ ! -e /run/lab/seed.stop ]; do
	i=$(( (i + 1) %% 20 ))
	f=%[1]s/test$i
	if dd if=/dev/zero of=$f bs=10M count=1 2>/run/lab/seed.err && stat $f >/run/lab/seed.stat 2>&1; then said=ok; else said=fail; fi
	echo "$(date +%%s.%%N) $said test$i" >>/run/lab/seed.log
done
touch /run/lab/seed.done
`

// mountAndLoad mounts the export on c1 and starts the loop there, and beside it a holder of a lock.
func (h hb) mountAndLoad() *lab.Job {
	h.t.Helper()
	c := h.C1
	c.Sh(h.t, "timeout 90 mount -t nfs -o vers=4.2,hard %s:%s %s", vipAddress, hbExport, hbMount)
	require.NoError(h.t, c.Upload(h.t.Context(), "/root/seed.sh", 0o755, fmt.Appendf(nil, seedLoad, hbMount)))
	c.Sh(h.t, "mkdir -p /run/lab && cd / && { setsid sh /root/seed.sh </dev/null >/dev/null 2>&1 & }")
	lock := c.Tool(h.t, "lock", "lock -file "+hbMount+"/locked -every 200ms")
	h.written(time.Time{}, 2)
	lock.WaitOK(h.t, time.Time{}, hbPatience)
	h.Timeline.Add("c1: writes in a loop")
	return lock
}

// round is one line of the loop.
type round struct {
	at time.Time
	ok bool
}

func (h hb) rounds(ctx context.Context) ([]round, error) {
	out, err := h.C1.Run(ctx, "cat /run/lab/seed.log 2>/dev/null || true")
	if err != nil {
		return nil, err
	}
	var all []round
	for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue // the line that is being written
		}
		sec, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			return nil, err
		}
		all = append(all, round{time.UnixMilli(int64(sec * 1000)), f[1] == "ok"})
	}
	return all, nil
}

// written waits for so many files that were written whole after a moment.
func (h hb) written(since time.Time, files int) {
	h.t.Helper()
	lab.Eventually(h.t, hbPatience, fmt.Sprintf("%d files written by c1", files), func(ctx context.Context) (bool, string) {
		all, err := h.rounds(ctx)
		if err != nil {
			return false, err.Error()
		}
		n := 0
		for _, r := range all {
			if r.ok && r.at.After(since) {
				n++
			}
		}
		return n >= files, fmt.Sprintf("%d of %d rounds", n, len(all))
	})
}

// stall prints how long the client stood still around an event: the longest time between two files
// since then, beside the time that a file takes when nothing happens. Where a file takes so long that
// the host must be overloaded, the time proves nothing and is only printed.
func (h hb) stall(what string, since time.Time) {
	h.t.Helper()
	h.written(time.Now(), 1)
	all, err := h.rounds(h.t.Context())
	require.NoError(h.t, err)
	var longest time.Duration
	var usual []time.Duration
	for i := 1; i < len(all); i++ {
		gap := all[i].at.Sub(all[i-1].at)
		if all[i].at.Before(since) {
			usual = append(usual, gap)
			continue
		}
		longest = max(longest, gap)
	}
	slices.Sort(usual)
	require.NotEmpty(h.t, usual)
	median := usual[len(usual)/2]
	h.Timeline.Add("%s: the client stood still for %.1f s", what, longest.Seconds())
	h.t.Logf("%s: between two files of 10 MB %.1f s (a file takes %.1f s otherwise); published stack: %.0f s",
		what, longest.Seconds(), median.Seconds(), formerStall.Seconds())
	if median < 5*time.Second {
		require.Less(h.t, longest, formerStall)
	}
}

// finish ends the loop and proves that nothing failed: no round, no lock, no file is short.
func (h hb) finish(lock *lab.Job) {
	h.t.Helper()
	for _, e := range lock.Stopped(h.t) {
		require.NotEqualf(h.t, lab.Fail, e.Kind, "the holder of the lock says %+v", e)
	}
	h.C1.Sh(h.t, "touch /run/lab/seed.stop")
	lab.Eventually(h.t, hbPatience, "the loop's end", func(ctx context.Context) (bool, string) {
		_, err := h.C1.Run(ctx, "test -e /run/lab/seed.done")
		return err == nil, fmt.Sprint(err)
	})
	all, err := h.rounds(h.t.Context())
	require.NoError(h.t, err)
	for _, r := range all {
		require.Truef(h.t, r.ok, "the round that ended at %v failed: %s", r.at, h.C1.Sh(h.t, "cat /run/lab/seed.err /run/lab/seed.stat"))
	}
	sizes := h.C1.Sh(h.t, "stat -c %%s %s/test* | sort -u", hbMount)
	require.Equal(h.t, "10485760", sizes, "every file has its 10 MiB")
	h.t.Logf("%d files, all whole, the lock held throughout", len(all))
}

func TestCoreHeartbeatHandsNFSOverAtStandbyAndAtPowerLoss(t *testing.T) {
	h := startHeartbeat(t, "off")
	lock := h.mountAndLoad()

	began := time.Now()
	h.standby(h.N1)
	h.stall("hb_standby", began)
	t.Logf("the kernel of n2: %s", h.N2.Sh(t, "dmesg | grep 'NFSD: ' || true"))
	h.rest(h.N1, h.N2)
	h.quiet()

	began = time.Now()
	require.NoError(t, h.N2.PowerOff(t.Context()))
	h.moved(h.N1, h.N2)
	h.stall("power loss", began)
	h.finish(lock)
	h.quiet("STONITH", "Shared disks")
}

func TestMatrixHeartbeatFetchesNFSBackAtTakeover(t *testing.T) {
	h := startHeartbeat(t, "off")
	lock := h.mountAndLoad()
	h.standby(h.N1)
	h.rest(h.N1, h.N2)

	began := time.Now()
	h.Timeline.Add("hb_takeover on n1")
	h.order(h.N1, "hb_takeover")
	h.moved(h.N1, h.N2)
	h.stall("hb_takeover", began)
	h.finish(lock)
	h.quiet()
}

func TestMatrixHeartbeatStoppedOnTheActiveNodeHandsNFSOverAndItStaysThere(t *testing.T) {
	h := startHeartbeat(t, "off")
	lock := h.mountAndLoad()

	began := time.Now()
	h.Timeline.Add("heartbeat stops on n1")
	h.N1.Sh(t, "systemctl stop --no-block heartbeat")
	h.moved(h.N2, h.N1)
	h.stall("heartbeat stopped", began)

	lab.Eventually(t, 3*time.Minute, "heartbeat to have ended on n1", func(ctx context.Context) (bool, string) {
		out, err := h.N1.Run(ctx, "systemctl is-active heartbeat || true")
		return err == nil && strings.Contains(out, "inactive"), out
	})
	h.N1.Sh(t, "systemctl start heartbeat")
	h.bothActive()
	h.rest(h.N1, h.N2)
	there, state := holds(t.Context(), h.N2)
	require.Truef(t, there, "without auto_failback it stays: %s", state)
	h.finish(lock)
	h.quiet()
}

// bothActive waits until each node sees the other one.
func (h hb) bothActive() {
	h.t.Helper()
	for _, m := range h.Nodes() {
		lab.Eventually(h.t, 3*time.Minute, m.Name+" sees both nodes", func(ctx context.Context) (bool, string) {
			out, err := m.Run(ctx, "cl_status nodestatus n1; cl_status nodestatus n2")
			return err == nil && strings.Count(out, "active") == 2, out
		})
	}
}

func TestMatrixHeartbeatWithAutoFailbackBringsNFSBackAfterAPowerLoss(t *testing.T) {
	h := startHeartbeat(t, "on")
	// auto_failback asks for the service at once, and a node that resynchronizes is not promoted:
	// heartbeat is started when the data is there.
	h.N1.Sh(t, "systemctl disable heartbeat")
	for _, m := range h.Nodes() {
		m.Sh(t, "sed -i 's/on-io-error detach;/on-io-error detach; c-plan-ahead 0; resync-rate 200M;/' /etc/drbd.d/r0.res && drbdadm adjust r0")
	}
	lock := h.mountAndLoad()

	began := time.Now()
	require.NoError(t, h.N1.PowerOff(t.Context()))
	h.moved(h.N2, h.N1)
	h.stall("power loss", began)

	require.NoError(t, h.N1.PowerOn(t.Context()))
	require.NoError(t, h.N1.WaitSSH(t.Context()))
	require.NoError(t, lab.WaitDRBD(t.Context(), h.N1, "ds:UpToDate/UpToDate"))
	began = time.Now()
	h.N1.Sh(t, "systemctl start --no-block heartbeat")
	h.moved(h.N1, h.N2)
	h.stall("auto_failback", began)
	h.finish(lock)
	h.quiet("STONITH", "Shared disks")
}

func TestMatrixIpfailMovesNFSWhenTheServiceInterfaceIsCut(t *testing.T) {
	h := startHeartbeat(t, "off")
	lock := h.mountAndLoad()

	began := time.Now()
	require.NoError(t, h.N1.Cut(t.Context(), lab.LAN))
	h.moved(h.N2, h.N1)
	h.stall("service interface cut", began)
	require.NoError(t, h.N1.Mend(t.Context(), lab.LAN))
	h.finish(lock)
	h.quiet("Late heartbeat") // of the router, when the cable is back
}

func TestMatrixHeartbeatMovesAnAddressAlone(t *testing.T) {
	h := openHeartbeat(t, heartbeatNFS, "off")
	for _, m := range h.Nodes() {
		require.NoError(t, m.Upload(t.Context(), "/etc/ha.d/haresources", 0o644, []byte("n1 vip::"+vipAddress+"/24/eth0\n")))
		m.Sh(t, "rm /etc/ha.d/baton-vip.conf")
	}
	h.start()
	ping := h.C1.Tool(t, "ping", "ping -to "+vipAddress+" -every 50ms")
	ping.WaitOK(t, time.Time{}, aMinute)

	h.standby(h.N1)
	ping.WaitOK(t, time.Now(), aMinute)
	h.rest(h.N1, h.N2)
	t.Logf("hb_standby: ping %s", ping.Logged(t).LongestGap())

	require.NoError(t, h.N2.PowerOff(t.Context()))
	h.moved(h.N1, h.N2)
	ping.WaitOK(t, time.Now(), aMinute)
	t.Logf("power loss: ping %s", ping.Stopped(t).LongestGap())
	h.quiet("STONITH", "Shared disks")
}

func TestMatrixHeartbeatHandsTheMooseFSMasterOverWithEveryFileItAcknowledged(t *testing.T) {
	h := openHeartbeat(t, heartbeatMFS, "off")
	h.N1.Sh(t, "drbdadm primary r0 && mount /dev/drbd0 /srv/mfs && /etc/ha.d/resource.d/mfsmaster /srv/mfs/meta initialize=true start && "+
		"/etc/ha.d/resource.d/mfsmaster /srv/mfs/meta stop && umount /srv/mfs && drbdadm secondary r0")
	h.start()
	h.C1.Sh(t, "mfschunkserver start && timeout 60 mfsmount /mnt/mfs -H %s", vipAddress)
	load := h.C1.Tool(t, "write", "write -dir /mnt/mfs -every 100ms")
	load.WaitOK(t, time.Time{}, hbPatience)

	began := time.Now()
	h.standby(h.N1)
	load.WaitOK(t, time.Now(), hbPatience)
	t.Logf("hb_standby (%v ago): client %s", time.Since(began).Round(time.Second), load.Logged(t).LongestGap())
	h.rest(h.N1, h.N2)
	h.quiet()

	require.NoError(t, h.N2.PowerOff(t.Context()))
	h.moved(h.N1, h.N2)
	load.WaitOK(t, time.Now(), hbPatience)
	t.Logf("both: client %s", load.Stopped(t).LongestGap())
	h.C1.Sh(t, "labtool check -log %s -dir /mnt/mfs", load.LogPath())
	h.quiet("STONITH", "Shared disks")
}
