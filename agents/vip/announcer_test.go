package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"baton/agents/internal/netnstest"
)

// gratuitous tells the announcements of ip from all else that arrives.
func gratuitous(ip string) func(netnstest.Frame) bool {
	want := netip.MustParseAddr(ip).AsSlice()
	return func(f netnstest.Frame) bool {
		p := f.Payload
		switch f.Ethertype {
		case unix.ETH_P_ARP: // sender and target address are both it
			return len(p) >= 28 && bytes.Equal(p[14:18], want) && bytes.Equal(p[24:28], want)
		case unix.ETH_P_IPV6: // advertisement of it to all nodes with the override flag, as nobody has solicited
			return len(p) >= 72 && p[6] == 58 && p[40] == 136 && bytes.Equal(p[48:64], want) && p[44] == 0x20 && p[24] == 0xff
		}
		return false
	}
}

func TestStartAnnouncesAtOnceAndRepeatsWithoutDelay(t *testing.T) {
	t.Parallel()
	const interval = 1500 * time.Millisecond // far above what a busy machine adds to a start
	for _, f := range []struct {
		name, param, ip, extra string
		frames                 int // an announcement
	}{
		{"IPv4", vip4, "192.0.2.50", "conflict_wait=20", 2},
		{"IPv6", vip6, "2001:db8::50", "nodad=true", 1},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			l := newCluster(t)
			seen := l.client.Capture(t, "eth0")
			params := []string{f.param, f.extra, "conflict_wait=20", "arp_count=3", "arp_interval=1500"}

			r := l.a.want(0, "start", params...)
			at := func() []netnstest.Frame { return seen.Frames(gratuitous(f.ip)) }
			netnstest.Eventually(t, "the first announcement", func() bool { return len(at()) >= f.frames })
			require.Less(t, r.took, 2*interval, "start must not wait for the repeats")
			netnstest.Eventually(t, "the whole burst", func() bool { return len(at()) >= 3*f.frames })

			frames := at()
			for i := 1; i < 3; i++ {
				// A busy machine may delay a repeat, but nothing sends one early: the announcer
				// counts from its own beginning, which is after the first one.
				after := frames[i*f.frames].At.Sub(frames[0].At)
				require.Greater(t, after, time.Duration(i)*interval-20*time.Millisecond, "announcement %d", i+1)
			}
			for _, frame := range frames {
				require.Equal(t, l.a.MAC(t, "eth0"), frame.Source.String())
			}
			if f.frames == 2 {
				require.Equal(t, []byte{0, 1}, frames[0].Payload[6:8], "a request")
				require.Equal(t, []byte{0, 2}, frames[1].Payload[6:8], "and a reply")
			}
		})
	}
}

func TestArpBgFalseAnnouncesAllItselfAndLeavesNoProcess(t *testing.T) {
	t.Parallel()
	l := newCluster(t)
	seen := l.client.Capture(t, "eth0")
	r := l.a.want(0, "start", vip4, "arp_bg=false", "arp_count=3", "arp_interval=60")
	require.GreaterOrEqual(t, r.took, 2*60*time.Millisecond)
	netnstest.Eventually(t, "all announcements", func() bool { return len(seen.Frames(gratuitous("192.0.2.50"))) == 6 })
	require.Zero(t, holderOf(t, l.a))
}

// holderOf is the process of the node's detached announcer, 0 for none.
func holderOf(t *testing.T, n *node) int {
	t.Helper()
	locks, err := filepath.Glob(filepath.Join(n.rsctmp, "baton", "*.announcer"))
	require.NoError(t, err)
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		pid, err := lockHolder(f)
		require.NoError(t, err)
		_ = f.Close()
		if pid != 0 {
			return pid
		}
	}
	return 0
}

// ended: gone, or a zombie that an init process has not reaped yet.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

func TestTheAnnouncerIsDetachedAndStopEndsItBeforeTheAddressGoes(t *testing.T) {
	t.Parallel()
	l := newCluster(t)
	seen := l.client.Capture(t, "eth0")
	l.a.want(0, "start", vip4, "arp_count=1000", "arp_interval=20")
	netnstest.Eventually(t, "the announcer is at work", func() bool { return holderOf(t, l.a) != 0 })
	pid := holderOf(t, l.a)
	session, err := unix.Getsid(pid)
	require.NoError(t, err)
	require.Equal(t, pid, session, "in a session of its own: Pacemaker kills the action's process group")
	for fd := range 3 {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		require.NoError(t, err)
		require.Equal(t, "/dev/null", to, "it must not hold the pipes that Pacemaker reads")
	}

	l.a.want(0, "stop", vip4)
	require.Zero(t, holderOf(t, l.a))
	require.True(t, ended(pid))
	quiet := len(seen.Frames(gratuitous("192.0.2.50")))
	l.a.want(7, "probe", vip4)
	require.Len(t, seen.Frames(gratuitous("192.0.2.50")), quiet, "not a word after stop")
}

func TestTheAnnouncerEndsByItselfWhenTheAddressHasGone(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	n.want(0, "start", vip4, "arp_count=1000", "arp_interval=10")
	netnstest.Eventually(t, "the announcer is at work", func() bool { return holderOf(t, n) != 0 })
	n.DelAddr(t, "eth0", "192.0.2.50/24")
	netnstest.Eventually(t, "it has ended", func() bool { return holderOf(t, n) == 0 })
}

func TestASecondStartHasOneAnnouncer(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	n.want(0, "start", vip4, "arp_count=1000", "arp_interval=10")
	netnstest.Eventually(t, "the announcer is at work", func() bool { return holderOf(t, n) != 0 })
	first := holderOf(t, n)
	n.DelAddr(t, "eth0", "192.0.2.50/24")
	n.want(0, "start", vip4, "arp_count=1000", "arp_interval=10")
	netnstest.Eventually(t, "another one is at work", func() bool { p := holderOf(t, n); return p != 0 && p != first })
	require.True(t, ended(first))
}

func TestStartWorksWithoutAWritableRscTmp(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	n.rsctmp = "/proc/nowhere"
	r := n.want(0, "start", vip4)
	require.Contains(t, r.stderr, "the announcements are not repeated")
	n.want(0, "monitor", vip4)
	n.want(0, "stop", vip4)
	n.want(7, "probe", vip4)
}

func TestKillHolderEndsTheHolderOfTheLockAndNobodyElse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	defer f.Close()
	pid, err := killHolder(f)
	require.NoError(t, err)
	require.Zero(t, pid, "nobody holds it")

	// A process that has the file open, but not the lock, and whose number stands in the file.
	bystander := exec.Command("sleep", "60")
	bystander.Stdin = f
	require.NoError(t, bystander.Start())
	defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
	require.NoError(t, os.WriteFile(path, []byte(strconv.Itoa(bystander.Process.Pid)), 0o600))
	pid, err = killHolder(f)
	require.NoError(t, err)
	require.Zero(t, pid)
	require.NoError(t, bystander.Process.Signal(syscall.Signal(0)), "it lives")
}

func TestTakeLockIsExclusiveBetweenProcessesAndFollowsNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	_, err := takeLock(filepath.Join(dir, "link"))
	require.ErrorIs(t, err, unix.ELOOP)
	f, err := takeLock(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	defer f.Close()
	// The lock is this process's own; another one is refused.
	cmd := exec.Command(binary, repeatAction, "192.0.2.50", "1", "2", "1ms", filepath.Join(dir, "lock"), "")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "another process is at work")
}

func TestScheduleIsTheBurstThenLateOnesAndTicklesBetween(t *testing.T) {
	t.Parallel()
	show := func(steps []step) (list []string) {
		for _, s := range steps {
			what := "announce"
			if s.tickle {
				what = "tickle"
			}
			list = append(list, fmt.Sprint(s.at.Milliseconds(), " ", what))
		}
		return list
	}
	r := repetition{count: 5, interval: 200 * time.Millisecond}
	require.Equal(t, []string{
		"200 announce", "400 announce", "600 announce", "800 announce", "2800 announce", "4800 announce", "8800 announce",
	}, show(r.schedule()))
	r = repetition{count: 1, interval: time.Second, peers: "file"}
	require.Equal(t, []string{"500 tickle", "2000 announce", "2000 tickle", "4000 announce", "8000 announce"}, show(r.schedule()))
	require.Empty(t, r.burst(), "the first is start's own")
}

func TestTheAnnouncersCommandLineComesBack(t *testing.T) {
	t.Parallel()
	for _, r := range []repetition{
		{netip.MustParseAddr("192.0.2.50"), 3, 5, 200 * time.Millisecond, "/run/x/vip-192.0.2.50.announcer", ""},
		{netip.MustParseAddr("fe80::5"), 12, 1, time.Second, "/run/x y/lock", "/run/x y/lock.peers"},
	} {
		back, err := parseRepetition(r.args())
		require.NoError(t, err)
		require.Equal(t, r, back)
	}
	for _, args := range [][]string{nil, {"a"}, {"x", "1", "1", "1s", "l", ""}, {"192.0.2.1", "x", "1", "1s", "l", ""}, {"192.0.2.1", "1", "x", "1s", "l", ""}, {"192.0.2.1", "1", "1", "x", "l", ""}} {
		_, err := parseRepetition(args)
		require.Error(t, err, "%q", args)
	}
}

func TestMonitorAnnouncesAgainOnlyIfAskedToAndOnlyIfRecurring(t *testing.T) {
	t.Parallel()
	for _, f := range []struct {
		name, param, ip string
		frames          int
	}{{"IPv4", vip4, "192.0.2.50", 2}, {"IPv6", vip6, "2001:db8::50", 1}} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			l := newCluster(t)
			l.a.want(0, "start", f.param, "nodad=true", "arp_bg=false", "arp_count=1")
			seen := l.client.Capture(t, "eth0")
			l.a.want(0, "monitor", f.param)
			l.a.want(0, "probe", f.param, "arp_count_refresh=3")
			l.a.want(0, "monitor", f.param, "arp_count_refresh=3")
			netnstest.Eventually(t, "three announcements", func() bool { return len(seen.Frames(gratuitous(f.ip))) >= 3*f.frames })
			require.Len(t, seen.Frames(gratuitous(f.ip)), 3*f.frames)
		})
	}
}

func TestTickleRecordsConnectionsAndThePeersReconnectAfterACrash(t *testing.T) {
	t.Parallel()
	for _, f := range bothFamilies {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			l := newCluster(t)
			shared := t.TempDir()
			params := []string{f.param, "tickle_dir=" + shared}
			file := filepath.Join(shared, f.ip)

			l.a.want(0, "start", params...)
			server := listenIn(t, l.a.NS, ":2049")
			near, _ := connect(t, l.client, server, net.JoinHostPort(f.ip, "2049"))
			l.a.want(0, "probe", params...)
			require.NoFileExists(t, file, "a probe keeps no records")
			l.a.want(0, "monitor", params...)
			got, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, net.JoinHostPort(f.ip, "2049")+"\t"+near.LocalAddr().String()+"\n", string(got))
			inode := inodeOf(t, file)
			l.a.want(0, "monitor", params...)
			require.Equal(t, inode, inodeOf(t, file), "nothing changed, nothing is written")

			l.a.Down(t, "eth0") // a crashes
			l.b.want(0, "start", params...)
			require.NoError(t, near.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err = near.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET, "an idle client must notice at once")
			takenOver := listenIn(t, l.b.NS, ":2049")
			connect(t, l.client, takenOver, net.JoinHostPort(f.ip, "2049"))
		})
	}
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	return st.Ino
}

func TestStopRecordsTheConnectionsForTheNextNode(t *testing.T) {
	t.Parallel()
	for _, f := range bothFamilies {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			l := newCluster(t)
			shared := t.TempDir()
			params := []string{f.param, "tickle_dir=" + shared}
			l.a.want(0, "start", params...)
			server := listenIn(t, l.a.NS, ":2049")
			near, _ := connect(t, l.client, server, net.JoinHostPort(f.ip, "2049"))

			l.a.want(0, "stop", params...)
			line := net.JoinHostPort(f.ip, "2049") + "\t" + near.LocalAddr().String() + "\n"
			got, err := os.ReadFile(filepath.Join(shared, f.ip))
			require.NoError(t, err)
			require.Equal(t, line, string(got))
			l.a.want(0, "stop", params...)
			got, err = os.ReadFile(filepath.Join(shared, f.ip))
			require.NoError(t, err)
			require.Equal(t, line, string(got), "a stop of what is stopped must not wipe the record")

			l.b.want(0, "start", params...)
			require.NoError(t, near.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err = near.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET)
			require.NoFileExists(t, filepath.Join(l.b.rsctmp, "baton", "vip-"+f.ip+".recorder.peers"), "what was fetched is used up")
		})
	}
}

func TestTicklesAreRepeatedForPeersThatMissedTheFirst(t *testing.T) {
	t.Parallel()
	l := newCluster(t)
	shared := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(shared, "192.0.2.50"), []byte("192.0.2.50:2049\t192.0.2.3:812\n"), 0o600))
	seen := l.client.Capture(t, "eth0")
	l.a.want(0, "start", vip4, "tickle_dir="+shared)
	l.a.want(0, "monitor", vip4, "tickle_dir="+shared) // writes the record anew, empty
	tickles := func(f netnstest.Frame) bool {
		return f.Ethertype == unix.ETH_P_IP && len(f.Payload) >= 40 && f.Payload[9] == unix.IPPROTO_TCP && f.Payload[33] == 0x10
	}
	netnstest.Eventually(t, "three tickles", func() bool { return len(seen.Frames(tickles)) == 3 })
}

func TestATickleDirThatIsMissingOrHostileFailsNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		make  func(t *testing.T, dir string)
		warns string
	}{
		{"missing", func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) }, "not recorded"},
		{"a pipe in the place of the record", func(t *testing.T, dir string) {
			require.NoError(t, unix.Mkfifo(filepath.Join(dir, "192.0.2.50"), 0o600))
		}, "not tickled"},
		{"a link in the place of the record", func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, "192.0.2.50")))
		}, "not tickled"},
		{"a directory in the place of the record", func(t *testing.T, dir string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, "192.0.2.50"), 0o700))
		}, "not tickled"},
		{"garbage in the record", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "192.0.2.50"), bytes.Repeat([]byte("\x00\xffx\n"), 1000), 0o600))
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, _ := single(t)
			dir := t.TempDir()
			c.make(t, dir)
			params := []string{vip4, "tickle_dir=" + dir}
			said := n.want(0, "start", params...).stderr
			said += n.want(0, "monitor", params...).stderr
			require.Less(t, n.want(0, "stop", params...).took, saveWait, "nothing may hang on it")
			require.Contains(t, said, c.warns)
			n.want(7, "probe", params...)
		})
	}
}

func TestTickleDirIsMadeOnStorageOfItsOwnOnly(t *testing.T) {
	isRoot(t)
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	require.NoError(t, makeTickleDir(filepath.Join(dir, "tickle")))
	require.DirExists(t, filepath.Join(dir, "tickle"))
	require.NoError(t, makeTickleDir(filepath.Join(dir, "tickle")), "there already")
	require.ErrorIs(t, makeTickleDir(filepath.Join(dir, "no", "parent")), os.ErrNotExist)

	err := makeTickleDir("/baton-vip-test-tickle") // on the root file system
	require.ErrorContains(t, err, "is that mounted?")
	require.NoDirExists(t, "/baton-vip-test-tickle")
}
