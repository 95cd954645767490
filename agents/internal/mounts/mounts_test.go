package mounts

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// table as a cluster node has it; the last line but one hides the one before it.
//
//nolint:dupword // the kernel prints type and source
const node = `22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
23 28 0:21 / /proc rw,relatime shared:13 - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
29 28 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=200k
40 28 147:0 / /data rw,relatime shared:30 - ext4 /dev/drbd0 rw
41 40 147:1 / /data/with\040space rw,relatime - xfs /dev/drbd1 ro,noquota
42 28 254:1 /srv /bind rw,relatime - ext4 /dev/vda1 rw
43 28 254:1 / /hidden rw - ext4 /dev/vda1 rw
44 43 147:2 / /hidden rw - ext4 /dev/drbd2 rw
45 23 0:40 / /proc/fs/nfsd rw,relatime - nfsd nfsd rw
`

func tableOf(t *testing.T, text string) Table {
	t.Helper()
	proc := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(proc, "self"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(proc, "self", "mountinfo"), []byte(text), 0o644))
	return Table{Proc: proc}
}

func TestOfFindsTheMountByPathComponents(t *testing.T) {
	table := tableOf(t, node)
	for path, want := range map[string]string{
		"/":                   "/dev/vda1",
		"/database":           "/dev/vda1", // not /data
		"/data":               "/dev/drbd0",
		"/data/":              "/dev/drbd0",
		"/data/nfs/not/there": "/dev/drbd0",
		"/data/with space/x":  "/dev/drbd1",
		"/data/../data/x":     "/dev/drbd0",
		"/hidden/x":           "/dev/drbd2", // the later mount lies on top
		"/proc/fs/nfsd":       "nfsd",
	} {
		m, err := table.Of(path)
		require.NoError(t, err, path)
		require.Equal(t, want, m.Source, path)
	}
}

func TestAtIsExactAndTopmost(t *testing.T) {
	table := tableOf(t, node)
	m, ok, err := table.At("/hidden")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "/hidden (ext4 on /dev/drbd2)", m.String())
	_, ok, err = table.At("/data/nfs")
	require.NoError(t, err)
	require.False(t, ok)
}

func TestBelowLeavesOutTheMountItself(t *testing.T) {
	list, err := tableOf(t, node).Below("/data")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "/data/with space", list[0].Point)
	require.True(t, list[0].ReadOnly(), "read-only as a file system, though not as a mount")
}

func TestOwnDeviceRefusesForgottenMounts(t *testing.T) {
	table := tableOf(t, node)
	for path, reason := range map[string]string{
		"/data/nfs":   "",
		"/hidden/nfs": "",
		"/var/lib":    "/var/lib lies on the device of the root file system, / (ext4 on /dev/vda1)",
		"/bind/nfs":   "/bind/nfs lies on the device of the root file system, /bind (ext4 on /dev/vda1)",
		"/run/nfs":    "/run/nfs lies on /run (tmpfs on tmpfs), which is memory",
	} {
		_, err := table.OwnDevice(path)
		if reason == "" {
			require.NoError(t, err, path)
			continue
		}
		var local *LocalError
		require.ErrorAs(t, err, &local, path)
		require.EqualError(t, err, reason)
	}
}

func TestBrokenTablesAreErrorsAndNotAnswers(t *testing.T) {
	for name, text := range map[string]string{
		"short line":     "28 1 254:1 /\n",
		"no separator":   "28 1 254:1 / / rw,relatime shared:1 ext4 /dev/vda1 rw errors\n",
		"device no pair": "28 1 2541 / / rw,relatime - ext4 /dev/vda1 rw\n",
	} {
		_, err := tableOf(t, text).Of("/")
		require.Error(t, err, name)
	}
	_, err := tableOf(t, "").Of("/data")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Table{Proc: t.TempDir()}.All()
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestThisMachinesTableIsRead(t *testing.T) {
	m, err := Table{}.Of("/")
	require.NoError(t, err)
	require.Equal(t, "/", m.Point)
}

// inMountNamespace runs the test on a thread with a mount namespace of its own, which ends with it.
func inMountNamespace(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Skipf("no mount namespace here: %v", err)
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

func TestBusyTellsWithoutEverUnmounting(t *testing.T) {
	inMountNamespace(t)
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))

	f, err := os.Open(filepath.Join(dir, "f"))
	require.NoError(t, err)
	busy, err := Busy(dir)
	require.NoError(t, err)
	require.True(t, busy)
	require.NoError(t, f.Close())

	for range 3 { // twice in a row would unmount, were the mark not taken away
		busy, err = Busy(dir)
		require.NoError(t, err)
		require.False(t, busy)
	}
	require.FileExists(t, filepath.Join(dir, "f"))
	_, err = Busy(filepath.Join(dir, "f"))
	require.Error(t, err)
}

func TestUnmountLeavesABusyMountAlone(t *testing.T) {
	inMountNamespace(t)
	dir := t.TempDir()
	require.NoError(t, MountVirtual("tmpfs", "mine", dir))
	f, err := os.Create(filepath.Join(dir, "f"))
	require.NoError(t, err)
	require.ErrorIs(t, Unmount(dir), unix.EBUSY)
	require.NoError(t, f.Close())
	require.NoError(t, Unmount(dir))
	require.ErrorIs(t, MountVirtual("no-such-type", "mine", dir), unix.ENODEV)
}

func FuzzMountTable(f *testing.F) {
	f.Add(node, "/data/nfs")
	f.Add("1 1 1:1 / \\134 rw - a b c\n", "/")
	f.Fuzz(func(t *testing.T, text, path string) {
		table := tableOf(t, text)
		m, err := table.Of("/" + path)
		if err == nil && m.Point == "" {
			t.Fatal("an answer without a mount")
		}
	})
}
