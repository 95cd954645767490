package main

import (
	wire "encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"baton/agents/internal/netnstest"
)

// hungStorage is a file system of which every question stays unanswered: a FUSE server that takes
// the requests and keeps silent. As on a frozen disk, who waits for it is beyond SIGKILL (the
// kernel's request_wait_answer waits on for what the server has read), so a process with one such
// thread does not end. restore ends all the waits with an error.
func hungStorage(t *testing.T) (dir string, restore func()) {
	t.Helper()
	isRoot(t)
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("a file system that hangs needs /dev/fuse: %v", err)
	}
	dir = t.TempDir()
	options := "fd=" + strconv.Itoa(fd) + ",rootmode=40000,user_id=0,group_id=0"
	if err := unix.Mount("hung", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		_ = unix.Close(fd)
		t.Skipf("a file system that hangs cannot be mounted here: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		request := make([]byte, 1<<17)
		for {
			n, err := unix.Read(fd, request)
			if err == unix.EINTR || err == unix.ENOENT {
				continue
			}
			if err != nil || n < 40 {
				return
			}
			// struct fuse_in_header: u32 len, u32 opcode, u64 unique, …; FUSE_INIT is 26
			// (include/uapi/linux/fuse.h). Without its answer nothing would be asked at all.
			if wire.NativeEndian.Uint32(request[4:]) != 26 {
				continue
			}
			// struct fuse_out_header (u32 len, s32 error, u64 unique), struct fuse_init_out (64 bytes).
			answer := make([]byte, 16+64)
			wire.NativeEndian.PutUint32(answer[0:], uint32(len(answer)))
			copy(answer[8:16], request[8:16])
			wire.NativeEndian.PutUint32(answer[16:], 7)  // major
			wire.NativeEndian.PutUint32(answer[20:], 31) // minor
			if _, err := unix.Write(fd, answer); err != nil {
				return
			}
		}
	}()
	done := false
	restore = func() {
		if done {
			return
		}
		done = true
		// MNT_FORCE aborts the connection: all who wait get an error, the server's read too.
		_ = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
		<-ended
		_ = unix.Close(fd)
	}
	t.Cleanup(restore)
	return dir, restore
}

// within runs the agent and insists that the process is gone in time: Pacemaker does not count its
// answer before.
func (n *node) within(limit time.Duration, action string, params ...string) result {
	n.t.Helper()
	answer := make(chan result, 1)
	go func() { answer <- n.run(action, params...) }()
	select {
	case r := <-answer:
		require.Zero(n.t, r.code, "%s: %s", action, r.stderr)
		return r
	case <-time.After(limit):
		n.t.Fatalf("%s has not ended after %v", action, limit)
	}
	return result{}
}

func TestStorageThatHangsHoldsNoAction(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	dir, restore := hungStorage(t)
	params := []string{vip4, "conflict_wait=20", "arp_count=1", "tickle_dir=" + filepath.Join(dir, "tickle")}
	const limit = 10 * time.Second // half of the timeout that Pacemaker is told

	r := n.within(limit, "start", params...)
	require.Contains(t, r.stderr, "the peers are not tickled")
	r = n.within(limit, "monitor", params...)
	require.Contains(t, r.stderr, "not recorded")
	r = n.within(limit, "stop", params...)
	require.Contains(t, r.stderr, "not recorded")
	n.want(7, "probe", params...)

	require.Len(t, helpers(t, dir), 1, "those that hang must not pile up")
	restore()
	require.Eventually(t, func() bool { return len(helpers(t, dir)) == 0 }, 5*time.Second, 10*time.Millisecond, "and end with the hang")
}

func TestOnlyAMonitorsRecorderWaitsForTheDiskAndStopRemovesTheAddressWhileItHangs(t *testing.T) {
	t.Parallel()
	for action, now := range map[string]string{"monitor": "true", "stop": "false"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			n, _ := single(t)
			dir, _ := hungStorage(t)
			n.want(0, "start", vip4, "conflict_wait=20", "arp_bg=false", "arp_count=1")
			cmd, _, _ := n.command(t.Context(), action, vip4, "CRM_meta_interval=10000", "tickle_dir="+dir)
			n.Do(t, func() { require.NoError(t, cmd.Start()) })
			netnstest.Eventually(t, "the recorder hangs", func() bool { return len(helpers(t, dir)) == 1 })
			argv := helpers(t, dir)[0].argv
			require.Equal(t, storeAction, argv[1])
			require.Equal(t, now, argv[len(argv)-1])
			if action == "stop" {
				netnstest.Eventually(t, "the address is gone", func() bool {
					return !slices.Contains(n.Addrs(t, "eth0", false), "192.0.2.50/24 eth0 secondary")
				})
			}
			require.NoError(t, cmd.Wait())
		})
	}
}

func TestAMonitorThatFindsNothingNewStartsNoRecorder(t *testing.T) {
	t.Parallel()
	n, _ := single(t)
	shared := t.TempDir()
	cached(t, shared)
	params := []string{vip4, "conflict_wait=20", "tickle_dir=" + shared}
	lock := filepath.Join(n.rsctmp, "baton", "vip-192.0.2.50.recorder")
	n.want(0, "start", params...)
	n.want(0, "monitor", params...)
	require.FileExists(t, filepath.Join(shared, "192.0.2.50"))
	require.FileExists(t, lock)
	require.NoError(t, os.Remove(lock))
	n.want(0, "monitor", params...)
	require.NoFileExists(t, lock)
	require.NoError(t, os.Remove(filepath.Join(shared, "192.0.2.50")))
	n.want(0, "monitor", params...)
	require.FileExists(t, filepath.Join(shared, "192.0.2.50"), "what somebody removed comes back")
}

// cached skips where the kernel does not tell what it knows without asking the storage.
func cached(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{Resolve: resolveCached})
	if err != nil {
		t.Skipf("openat2 with RESOLVE_CACHED: %v", err)
	}
	_ = unix.Close(fd)
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	defer file.Close()
	if _, err := unix.Preadv2(int(file.Fd()), [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT); err == unix.EOPNOTSUPP {
		t.Skipf("preadv2 with RWF_NOWAIT: %v", err)
	}
}

func TestOnlyAFileOfExactlyThisContentIsKnownToHoldIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cached(t, dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("file"), []byte("a\tb\n"), 0o600))
	require.NoError(t, os.WriteFile(at("empty"), nil, 0o600))
	require.NoError(t, os.Symlink("file", at("link")))
	require.NoError(t, unix.Mkfifo(at("pipe"), 0o600))
	require.NoError(t, os.Mkdir(at("directory"), 0o700))
	for _, c := range []struct {
		name, content string
		known         bool
	}{
		{"file", "a\tb\n", true},
		{"file", "a\tc\n", false},
		{"file", "a\tb\nc", false},
		{"file", "", false},
		{"empty", "", true},
		{"empty", "a", false},
		{"link", "a\tb\n", false},
		{"pipe", "", false},
		{"directory", "", false},
		{"missing", "", false},
	} {
		require.Equal(t, c.known, knownToHold(at(c.name), []byte(c.content)), "%s: %q", c.name, c.content)
	}
}

func TestTheRecordersCommandLineComesBack(t *testing.T) {
	t.Parallel()
	for _, e := range []errand{
		{action: storeAction, record: "/data/tickle/192.0.2.50", lock: "/run/x y/lock", now: true},
		{action: fetchAction, record: "/data/tickle/2001:db8::50", lock: "/run/lock"},
	} {
		back, err := parseErrand(e.action, e.args())
		require.NoError(t, err)
		require.Equal(t, e, back)
	}
	for _, args := range [][]string{nil, {"record"}, {"record", "lock"}, {"record", "lock", "soon"}} {
		_, err := parseErrand(storeAction, args)
		require.Error(t, err, "%q", args)
	}
}
