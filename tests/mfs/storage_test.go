//go:build real

package mfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFirstStartMakesAFileSystemOnlyWhenToldAndOnlyOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.expect(notRunning, "monitor")
	require.Contains(t, s.expect(failed, "start").reason(), "initialize=true")
	require.Empty(t, s.files("metadata*"), "a refused start leaves nothing")

	s.expect(ok, "start", "initialize=true")
	s.monitor(ok)
	s.expect(ok, "start", "initialize=true")
	s.expect(ok, "stop")

	for _, name := range append(s.files("metadata*"), s.files("changelog*")...) {
		require.NoError(t, os.Remove(name))
	}
	r := s.expect(failed, "start", "initialize=true")
	require.Contains(t, r.reason(), "no metadata")
	require.Empty(t, s.files("metadata*"))
}

func TestAFirstStartThatFailsCanBeRepeated(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	exports := filepath.Join(s.dir, "exports.cfg")
	require.NoError(t, os.Rename(exports, exports+".away"))
	s.expect(failed, "start", "initialize=true")
	require.NoError(t, os.Rename(exports+".away", exports))
	// Nor does it get its ports.
	s.lines["MATOML_LISTEN_HOST"] = "203.0.113.1"
	s.configure()
	s.expect(failed, "start", "initialize=true")
	delete(s.lines, "MATOML_LISTEN_HOST")
	s.configure()
	s.expect(ok, "start", "initialize=true")
	s.create(s.mount(), "f", 5)
}

func TestThePackagesEmptyMetadataIsNeverStarted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write(filepath.Join(s.data, "metadata.mfs.empty"), "MFSM NEW")
	s.expect(failed, "start")
	s.expect(notRunning, "monitor")
}

func TestStartStopAndMonitorAreIdempotentAndLeaveNothingRunning(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	s.expect(ok, "start")
	s.monitor(ok)
	s.expect(ok, "monitor")
	s.expect(ok, "stop")
	require.Zero(t, s.masterPID())
	require.Empty(t, s.masters(), "stop returned while something still ran")
	s.expect(ok, "stop")
	s.expect(notRunning, "monitor")
	r := s.expect(ok, "start")
	require.Contains(t, r.stderr, "D1 stopped cleanly")
	require.Less(t, r.took, 5*time.Second)
}

func TestEveryAcknowledgedChangeSurvivesKill9OfTheMaster(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	mnt := s.mount()
	acked := s.create(mnt, "f", 500)
	s.kill()
	s.monitor(notRunning)
	r := s.expect(ok, "start")
	require.Contains(t, r.stderr, "D2 not stopped cleanly")
	require.Empty(t, s.missing(mnt, acked), "the mount goes on and has every file")
	s.expect(ok, "stop")
}

func TestATornTailCostsNothingButItself(t *testing.T) {
	t.Parallel()
	for name, tail := range map[string]string{
		"half a line":           "100000: 1795261298|CREA",
		"NUL bytes":             strings.Repeat("\x00", 616),
		"a page of NULs":        strings.Repeat("\x00", 70000),
		"a line and NULs in it": "99999: 17952\x00\x00\x00\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t).born()
			mnt := s.mount()
			acked := s.create(mnt, "f", 50)
			s.kill()
			log := s.newestLog()
			whole := s.read(log)
			f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteString(tail)
			require.NoError(t, err)
			require.NoError(t, f.Close())

			r := s.expect(ok, "start")
			require.Contains(t, r.stderr, "D3 torn changelog")
			require.Empty(t, s.missing(mnt, acked))
			kept, err := filepath.Glob(filepath.Join(s.data, "baton-archive/*/*.tail"))
			require.NoError(t, err)
			require.Len(t, kept, 1)
			require.Equal(t, tail, s.read(kept[0]), "what was cut off is kept")
			require.True(t, strings.HasPrefix(s.read(log), whole))
		})
	}
}

func TestDamagedMetadataWithAGoodOlderFileLoseNothing(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(s *site, path string){
		"cut short": func(s *site, path string) {
			info, err := os.Stat(path)
			require.NoError(s, err)
			require.NoError(s, os.Truncate(path, info.Size()/2))
		},
		"empty": func(s *site, path string) { require.NoError(s, os.Truncate(path, 0)) },
		"damaged inside": func(s *site, path string) {
			data := []byte(s.read(path))
			at := strings.Index(string(data), "NODE ")
			require.Positive(s, at)
			for i := range 40 {
				data[at+16+i] = 0xff
			}
			require.NoError(s, os.WriteFile(path, data, 0o640))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t).born()
			mnt := s.mount()
			acked := s.create(mnt, "f", 50)
			s.expect(ok, "stop")
			damage(s, filepath.Join(s.data, "metadata.mfs"))
			r := s.expect(ok, "start")
			require.Contains(t, r.stderr, "D4 older metadata file")
			require.Empty(t, s.missing(mnt, acked))
		})
	}
}

// A master that cannot save its metadata in its own directory saves them in one of some public places, on
// the disk of the node. The same file is the newest copy right then, and another history once somebody else has
// served; mfsmaster itself goes by the version alone.
func TestAnEmergencyFileIsUsedByItsOwnHistoryAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	mnt := s.mount()
	acked := s.create(mnt, "f", 50)
	s.expect(ok, "stop")
	place := filepath.Join(s.dir, "place")
	s.mkdir(place)
	s.wrap = []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" "$1" && shift && exec "$@"`, place, "/usr/local/share"}
	saved, emergency := filepath.Join(s.data, "metadata.mfs"), filepath.Join(place, "metadata.mfs.emergency")
	own := func(path, text string) {
		t.Helper()
		s.write(path, text)
		require.NoError(t, os.Chown(path, mfsID(t), mfsID(t)))
	}
	left := s.read(saved)
	dies := func() {
		t.Helper()
		require.NoError(t, os.Remove(saved))
		log := s.newestLog()
		own(log, s.read(log)[:len(s.read(log))/2]) // the disk was full
		own(emergency, left)
	}

	dies()
	r := s.expect(ok, "start")
	require.Contains(t, r.stderr, "D13 emergency file")
	require.Empty(t, s.missing(mnt, acked))
	require.NoFileExists(t, emergency)
	kept, err := filepath.Glob(filepath.Join(place, "baton-kept-*"))
	require.NoError(t, err)
	require.Len(t, kept, 1)

	// The other node serves meanwhile.
	s.expect(ok, "stop")
	require.NoError(t, os.WriteFile(filepath.Join(s.data, ".baton-served"), []byte("epoch=0 node=another\n"), 0o644))
	before := s.read(saved)
	more := binary.BigEndian.AppendUint64([]byte(left[:8]), binary.BigEndian.Uint64([]byte(before[8:16]))+400)
	own(emergency, string(more)+left[16:])
	require.Contains(t, s.expect(failed, "start").reason(), "two histories: /usr/local/share/metadata.mfs.emergency")
	require.Equal(t, before, s.read(saved), "a refused start changes nothing")
	require.NoError(t, os.Rename(emergency, filepath.Join(s.dir, "moved")))
	s.expect(ok, "start")
	require.Empty(t, s.missing(mnt, acked))
}

func TestAHoleInTheChangelogsIsRefusedWithItsIds(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	s.create(s.mount(), "f", 50)
	s.kill()
	log := s.newestLog()
	lines := strings.SplitAfter(s.read(log), "\n")
	gone := lines[20]
	s.write(log, strings.Join(append(append([]string{}, lines[:20]...), lines[21:]...), ""))
	require.NoError(t, os.Chown(log, mfsID(t), mfsID(t)))
	before := s.read(log)
	r := s.expect(failed, "start")
	id, _, _ := strings.Cut(gone, ":")
	require.Contains(t, r.reason(), "change "+id+" missing")
	require.Equal(t, before, s.read(log), "a refused start changes nothing")
	s.expect(notRunning, "monitor")
}

func TestAHungMasterIsNoticedAndEndsWithItsMetadataSaved(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	mnt := s.mount()
	acked := s.create(mnt, "f", 20)
	pid := s.masterPID()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	r := s.monitor(failed)
	require.Contains(t, r.reason(), "stopped by a signal (T)")
	s.expect(failed, "monitor")
	s.expect(ok, "stop")
	require.FileExists(t, filepath.Join(s.data, "metadata.mfs"))
	s.expect(ok, "start")
	require.Empty(t, s.missing(mnt, acked))
}

func TestAMasterThatNeedsLongerThanTheDeadlineIsKilledBeforeIt(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	mnt := s.mount()
	acked := s.create(mnt, "f", 20)
	// A master takes more than 2 s for its termination even when it has nothing to save.
	r := s.expect(ok, "stop", "CRM_meta_timeout=3000")
	require.Less(t, r.took, 3*time.Second)
	require.Empty(t, s.masters())
	s.expect(ok, "start")
	require.Empty(t, s.missing(mnt, acked))
}

func TestOrphansOfAKilledMasterAreEndedAndSeen(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	mnt := s.mount()
	acked := s.create(mnt, "f", 20)
	writer := lockOwner(t, filepath.Join(s.data, ".bgwriter.lock"))
	require.NotZero(t, writer)
	// A data writer that hangs outlives its master, as one whose pipe an orphaned saver keeps open.
	require.NoError(t, syscall.Kill(writer, syscall.SIGSTOP))
	s.kill()
	r := s.monitor(failed)
	require.Contains(t, r.reason(), "data writer")
	s.expect(failed, "monitor")
	s.expect(ok, "start", "CRM_meta_timeout=120000")
	require.Empty(t, s.missing(mnt, acked))
	s.expect(ok, "stop")
	require.Empty(t, s.masters())
}

// The dump of each full hour is written by a child that outlives a killed master, with the directory
// as its working directory and its title as in a real one.
func TestAnOrphanedMetadataSaverIsEndedAndAShellInTheDirectoryIsNot(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	mnt := s.mount()
	acked := s.create(mnt, "f", 20)
	s.kill()
	s.poll(waitSync, "the data writer to end", func() bool { return len(s.masterPIDs()) == 0 })
	in := func(title string) *exec.Cmd {
		cmd := s.command(context.Background(), "sh", "-c", "cd "+s.data+" && exec -a '"+title+"' sleep 600")
		cmd.Args[len(cmd.Args)-3] = "bash"
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		s.poll(waitSync, title, func() bool {
			cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", cmd.Process.Pid))
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
			return cwd == s.data && strings.HasPrefix(string(line), title)
		})
		return cmd
	}
	shell, saver := in("a shell of an administrator"), in("mfsmaster (metadata saver)")
	gone := make(chan error, 1)
	go func() { gone <- saver.Wait() }()
	require.Contains(t, s.monitor(failed).reason(), "metadata saver")
	r := s.expect(ok, "start")
	require.Contains(t, r.stderr, "they are ended")
	select {
	case <-gone:
	case <-time.After(waitSync):
		t.Fatal("the orphan was not ended")
	}
	require.Empty(t, s.missing(mnt, acked))
	require.Contains(t, s.expect(ok, "stop").stderr, "which is not the master's")
	require.NoError(t, syscall.Kill(shell.Process.Pid, 0), "a shell is nobody's to end")
}

func TestAForgottenMountIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.expect(failed, "start", "require_mount=true", "initialize=true")
	require.Contains(t, r.reason(), "not on a device of its own")
	require.Empty(t, s.files("*"))
	s.expect(notRunning, "monitor", "require_mount=true")
	s.expect(ok, "stop", "require_mount=true")
	r = s.expect(failed, "start", "mountpoint="+s.data)
	require.Contains(t, r.reason(), "is not mounted")
}

func TestTwoFileSystemsInOneDirectoryAreRefused(t *testing.T) {
	t.Parallel()
	a, b := newSite(t).born(), newSite(t).born()
	a.expect(ok, "stop")
	b.expect(ok, "stop")
	other := filepath.Join(a.data, "metadata.mfs.back.3")
	require.NoError(t, os.WriteFile(other, []byte(b.read(filepath.Join(b.data, "metadata.mfs"))), 0o640))
	require.NoError(t, os.Chown(other, mfsID(t), mfsID(t)))
	require.Contains(t, a.expect(failed, "start").reason(), "two file systems")
}

func TestASymbolicLinkAmongTheMetadataIsRefusedAndNotFollowed(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	s.expect(ok, "stop")
	path := filepath.Join(s.data, "metadata.mfs")
	elsewhere := filepath.Join(s.dir, "elsewhere")
	require.NoError(t, os.Rename(path, elsewhere))
	require.NoError(t, os.Chown(elsewhere, 0, 0))
	require.NoError(t, os.Symlink(elsewhere, path))
	s.expect(failed, "start", "repair_permissions=true")
	info, err := os.Stat(elsewhere)
	require.NoError(t, err)
	require.Zero(t, info.Sys().(*syscall.Stat_t).Uid, "the owner of the link's target was changed")
}

func TestWrongOwnersAreRepairedOnlyWhenTold(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	s.expect(ok, "stop")
	path := s.newestLog()
	require.NoError(t, os.Chown(path, 0, 0))
	require.Contains(t, s.expect(noPermission, "start").reason(), "chown mfs "+path)
	s.expect(ok, "start", "repair_permissions=true")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, mfsID(t), info.Sys().(*syscall.Stat_t).Uid)
}

func TestDurabilityIsCheckedAgainstTheConfiguration(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.lines["CHANGELOG_SAVE_MODE"] = "0"
	s.configure()
	require.Contains(t, s.expect(badConfig, "start", "initialize=true").reason(), "CHANGELOG_SAVE_MODE = 0")
	s.expect(badConfig, "start", "initialize=true", "durability=interval")
	require.Contains(t, s.expect(ok, "start", "initialize=true", "durability=moosefs").stderr, "a power cut loses")
	s.monitor(ok, "durability=moosefs")
}

func TestAMasterOfAnotherDirectoryOnOurPortIsNotOurs(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	mine, other := s.data, filepath.Join(s.dir, "second")
	s.mkdir(other)
	s.data = other
	s.configure()
	s.expect(notRunning, "monitor")
	require.Contains(t, s.monitor(failed).reason(), mine)
	s.expect(failed, "start", "initialize=true")
}

// The master listens on the service address alone. On the node that does not have it, the same
// configuration leads to the other node's master.
func TestAProbeOnTheOtherNodeAsksNobodyAtTheServiceAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.lines["MATOCL_LISTEN_HOST"] = address
	s.configure()
	s.born()
	s.monitor(ok)
	pid := s.masterPID()

	// A second machine: a network of its own with a way to the first, the same paths with an empty
	// directory at them, and other processes.
	other := s.netns + "-b"
	s.mustRun("ip", "netns", "add", other)
	t.Cleanup(func() { s.mustRun("ip", "netns", "del", other) })
	s.mustRun("ip", "-n", s.netns, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", other)
	for node, ip := range map[string]string{s.netns: "198.51.100.1", other: "198.51.100.2"} {
		s.mustRun("ip", "-n", node, "addr", "add", ip+"/24", "dev", "wire")
		s.mustRun("ip", "-n", node, "link", "set", "wire", "up")
	}
	s.mustRun("ip", "-n", other, "route", "add", address+"/32", "via", "198.51.100.1")
	empty := filepath.Join(s.dir, "empty")
	s.mkdir(empty)
	b := *s
	b.netns, b.wrap = other, []string{
		"unshare", "--mount", "--pid", "--fork", "--mount-proc",
		"sh", "-c", `mount --bind "$0" "$1" && shift && exec "$@"`, empty, s.data,
	}
	b.expect(notRunning, "monitor")
	b.monitor(notRunning)
	b.expect(ok, "stop")
	require.Equal(t, pid, s.masterPID())
	s.monitor(ok)
}

func TestDepth10CountsChunkServers(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	require.Contains(t, s.monitor(ok, "OCF_CHECK_LEVEL=10").stderr, "0 chunk servers are connected")
	require.Contains(t, s.monitor(failed, "OCF_CHECK_LEVEL=10", "too_few_chunkservers=fail").reason(), "0 chunk servers")
	s.chunkserver("")
	s.poll(20*time.Second, "the chunk server to be counted", func() bool {
		return s.agent("monitor", "OCF_CHECK_LEVEL=10", "too_few_chunkservers=fail", recurring).code == ok
	})
}

// chunkserver starts one in the site's namespace.
func (s *site) chunkserver(name string) {
	s.Helper()
	dir, hdd := filepath.Join(s.dir, "cs"+name), filepath.Join(s.dir, "hdd"+name)
	s.mkdir(dir)
	s.mkdir(hdd)
	s.write(hdd+".cfg", hdd+"\n")
	s.write(dir+".cfg", "DATA_PATH = "+dir+"\nHDD_CONF_FILENAME = "+hdd+".cfg\nMASTER_HOST = "+address+"\nMASTER_RECONNECTION_DELAY = 1\nHDD_LEAVE_SPACE_DEFAULT = 16MiB\n")
	s.inside("mfschunkserver", "-c", dir+".cfg", "start")
}
