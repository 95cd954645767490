//go:build real

package vip

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"baton/tests/bench"
)

// FIFREEZE and FITHAW of include/uapi/linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int).
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// disk is an ext4 on a loop device that can be frozen, as DRBD freezes its device while a lost peer
// is being fenced: who writes waits in state D, beyond SIGKILL.
type disk struct {
	dir    string
	frozen bool
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 16<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("no ext4 is to be had here (e2fsprogs): %v %s", err, out)
	}
	d := &disk{dir: t.TempDir()}
	if out, err := exec.Command("mount", "-o", "loop", image, d.dir).CombinedOutput(); err != nil {
		t.Skipf("no loop device is to be had here: %v %s", err, out)
	}
	t.Cleanup(func() {
		d.thaw(t)
		require.Eventually(t, func() bool { return unix.Unmount(d.dir, 0) == nil }, 10*time.Second, 20*time.Millisecond, "nothing holds the disk")
	})
	return d
}

func (d *disk) control(t *testing.T, request uint) {
	t.Helper()
	f, err := os.Open(d.dir)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.IoctlSetInt(int(f.Fd()), request, 0))
}

func (d *disk) freeze(t *testing.T) {
	t.Helper()
	d.control(t, fiFreeze)
	d.frozen = true
}

func (d *disk) thaw(t *testing.T) {
	t.Helper()
	if d.frozen {
		d.frozen = false
		d.control(t, fiThaw)
	}
}

// states are the states of the processes that have dir on their command line, but not of the
// agent's own actions, which get it by the environment: "D" for each that waits for the disk.
func states(t *testing.T, dir string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range files {
		command, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(command, []byte(dir)) {
			continue
		}
		threads, err := filepath.Glob(filepath.Join(filepath.Dir(file), "task/*/stat"))
		require.NoError(t, err)
		worst := ""
		for _, thread := range threads {
			// proc(5): pid (comm) state …
			stat, err := os.ReadFile(thread)
			if i := bytes.LastIndex(stat, []byte(") ")); err == nil && i >= 0 && (worst == "" || stat[i+2] == 'D') {
				worst = string(stat[i+2])
			}
		}
		found = append(found, worst)
	}
	return found
}

func TestAFrozenDiskHoldsNeitherMonitorNorStop(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	d := newDisk(t)
	work := t.TempDir()
	agent := filepath.Join(work, "vip")
	require.NoError(t, bench.Build("baton/agents/vip", agent))

	// From here on this thread, and what it starts, is in a network of its own; the thread ends
	// with the test, since it is never unlocked.
	runtime.LockOSThread()
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
	for _, line := range []string{"link set lo up", "address add 192.0.2.1/32 dev lo"} {
		out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		require.NoError(t, err, "ip %s: %s", line, out)
	}
	run := func(action string, more ...string) (stderr string) {
		cmd := exec.Command(agent, action)
		cmd.Env = append([]string{
			"OCF_ROOT=/usr/lib/ocf", "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1", "OCF_RESOURCE_INSTANCE=vip",
			"OCF_RESKEY_CRM_meta_timeout=20000", "HA_RSCTMP=" + work,
			"OCF_RESKEY_ip=192.0.2.50", "OCF_RESKEY_nic=lo", "OCF_RESKEY_cidr_netmask=32", "OCF_RESKEY_tickle_dir=" + d.dir + "/tickle",
		}, more...)
		var said bytes.Buffer
		cmd.Stderr = &said
		require.NoError(t, cmd.Start())
		// Pacemaker counts no answer before the process has ended, which it does not with a thread in state D.
		stuck := time.AfterFunc(10*time.Second, func() {
			t.Errorf("%s has not ended after 10 s", action)
			d.thaw(t)
		})
		err := cmd.Wait()
		stuck.Stop()
		require.NoError(t, err, "%s: %s", action, &said)
		return said.String()
	}
	const recurring = "OCF_RESKEY_CRM_meta_interval=10000"
	connections := func() int {
		record, err := os.ReadFile(filepath.Join(d.dir, "tickle", "192.0.2.50"))
		require.NoError(t, err)
		return bytes.Count(record, []byte("\n"))
	}

	run("start")
	server, err := net.Listen("tcp", "192.0.2.50:2049")
	require.NoError(t, err)
	defer server.Close()
	connect := func() {
		client := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, Timeout: 5 * time.Second}
		near, err := client.Dial("tcp", "192.0.2.50:2049")
		require.NoError(t, err)
		t.Cleanup(func() { _ = near.Close() })
	}
	connect()
	require.NotContains(t, run("monitor", recurring), "not recorded")
	require.Equal(t, 1, connections())

	d.freeze(t)
	require.NotContains(t, run("monitor", recurring), "not recorded", "nothing new is to be recorded")
	require.Empty(t, states(t, d.dir))
	connect()
	require.Contains(t, run("monitor", recurring), "not recorded")
	require.Equal(t, []string{"D"}, states(t, d.dir), "this disk does hang")
	require.Contains(t, run("stop"), "not recorded")
	require.Equal(t, []string{"D"}, states(t, d.dir), "and what hangs does not pile up")

	d.thaw(t)
	require.Eventually(t, func() bool { return len(states(t, d.dir)) == 0 }, 10*time.Second, 20*time.Millisecond)
	require.Equal(t, 2, connections(), "the record of the monitor came through at last")
}
