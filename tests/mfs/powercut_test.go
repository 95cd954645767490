//go:build real

package mfs

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// onDevice puts the data directory on an ext4 file system of its own.
func (s *site) onDevice() {
	s.Helper()
	image := filepath.Join(s.dir, "disk")
	require.NoError(s, os.WriteFile(image, nil, 0o600))
	require.NoError(s, os.Truncate(image, 512<<20))
	s.mustRun("mkfs.ext4", "-q", image)
	dev := filepath.Join(s.dir, "dev")
	require.NoError(s, os.Mkdir(dev, 0o755))
	s.mustRun("mount", "-o", "loop", image, dev)
	s.Cleanup(func() { _ = unix.Unmount(dev, unix.MNT_DETACH) })
	s.data = filepath.Join(dev, "meta")
	s.mkdir(s.data)
	s.env["require_mount"] = "true"
	s.env["mountpoint"] = dev
	s.configure()
}

// powerCut lets the file system lose what it has not written out, as a machine without power does,
// kills everything of the master, and mounts what the disk holds. That is a copy of it: a test beside
// this one that has a mount namespace of its own may hold the old file system for as long as it runs.
func (s *site) powerCut() {
	s.Helper()
	dev := s.env["mountpoint"]
	s.failDisk()
	for _, pid := range s.masterPIDs() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	s.poll(waitSync, "the device to be free", func() bool { return unix.Unmount(dev, 0) == nil })
	disk := filepath.Join(s.dir, "disk")
	s.mustRun("cp", "--sparse=always", disk, disk+"-after")
	s.mustRun("mount", "-o", "loop", disk+"-after", dev)
}

// failDisk shuts the file system down, as it does by itself after an error of its disk: nothing is
// written any more, and no file can be opened.
func (s *site) failDisk() {
	s.Helper()
	f, err := os.Open(s.env["mountpoint"])
	require.NoError(s, err)
	// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (fs/ext4/ext4.h).
	const shutdown, noLogFlush = 0x8004587d, 2
	flags := uint32(noLogFlush)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&flags)))
	require.Zero(s, errno)
	require.NoError(s, f.Close())
}

// ack is a file whose creation was acknowledged, and when.
type ack struct {
	name string
	at   time.Time
}

// load creates files until it is told to stop or an operation fails.
type load struct {
	mu    sync.Mutex
	acked []ack
	stop  chan struct{}
	done  chan struct{}
}

func startLoad(dir string) *load {
	l := &load{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		// Some hundred a second, as a busy file system has.
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for i := 0; ; i++ {
			select {
			case <-l.stop:
				return
			case <-pace.C:
			}
			name := fmt.Sprintf("f%d", i)
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return
			}
			f.Close()
			l.mu.Lock()
			l.acked = append(l.acked, ack{name, time.Now()})
			l.mu.Unlock()
		}
	}()
	return l
}

func (l *load) until(at time.Time) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, a := range l.acked {
		if a.at.Before(at) {
			names = append(names, a.name)
		}
	}
	return names
}

// What a power cut costs with each setting, on ext4. The rows stand in docs/mfs.md.
func TestAPowerCutCostsWhatTheChosenDurabilitySays(t *testing.T) {
	for _, c := range []struct{ durability, mode string }{
		{"sync", "2"}, {"interval", "1"}, {"moosefs", "1"}, {"moosefs", "0"},
	} {
		t.Run(c.durability+" with mode "+c.mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.lines["CHANGELOG_SAVE_MODE"] = c.mode
			s.env["durability"] = c.durability
			s.onDevice()
			s.born()
			unix.Sync() // the file system's birth is not what is measured
			mnt := s.mount()
			l := startLoad(mnt)
			var lastMonitor time.Time
			for range 4 {
				until := time.Now().Add(time.Second)
				s.poll(5*time.Second, "a second to pass", func() bool { return time.Now().After(until) })
				begin := time.Now()
				s.monitor(ok)
				lastMonitor = begin
			}
			until := time.Now().Add(500 * time.Millisecond)
			s.poll(5*time.Second, "half a second to pass", func() bool { return time.Now().After(until) })
			cut := time.Now()
			s.powerCut()
			close(l.stop)
			s.expect(ok, "start", "older_metadata=accept")
			<-l.done
			all, before := l.until(cut), l.until(lastMonitor)
			lost := s.missing(mnt, all)
			t.Logf("durability=%s, CHANGELOG_SAVE_MODE=%s: %d of %d acknowledged files lost; of %d older than the last monitor: %d",
				c.durability, c.mode, len(lost), len(all), len(before), len(s.missing(mnt, before)))
			switch c.durability {
			case "sync":
				require.Empty(t, lost)
			case "interval":
				require.Empty(t, s.missing(mnt, before), "the loss is bound by the monitor's interval")
			}
		})
	}
}

// A master whose disk has failed can be killed and its file system unmounted: no reason for a fence.
func TestStopEndsTheMasterOnADiskThatHasFailed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.onDevice()
	s.born()
	s.failDisk()
	_, err := os.Open(filepath.Join(s.data, ".mfsmaster.lock"))
	require.ErrorIs(t, err, syscall.EIO)
	s.monitor(failed)
	s.expect(ok, "stop", "CRM_meta_timeout=15000")
	require.Empty(t, s.masterPIDs())
	require.NoError(t, unix.Unmount(s.env["mountpoint"], 0))
}

func TestAFullDiskIsSeenBeforeItCostsAnything(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.onDevice()
	s.born()
	mnt := s.mount()
	acked := s.create(mnt, "f", 50)
	s.monitor(ok)
	// Everything but 4 MiB is taken by somebody else.
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(s.data, &st))
	ballast := filepath.Join(s.env["mountpoint"], "ballast")
	f, err := os.Create(ballast)
	require.NoError(t, err)
	require.NoError(t, unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-4<<20))
	require.NoError(t, f.Close())
	r := s.monitor(degraded)
	require.Contains(t, r.stderr, "Make room")
	s.expect(ok, "stop")
	require.NoFileExists(t, filepath.Join(s.data, ".baton-reserve"))
	require.Contains(t, s.expect(failed, "start").reason(), "are free")
	require.NoError(t, os.Remove(ballast))
	s.expect(ok, "start")
	require.Empty(t, s.missing(mnt, acked))
}

// MooseFS acknowledges what it cannot write to a full disk, and could not even end there. With the
// room that was set aside, stop saves everything.
func TestStopSavesEverythingOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.onDevice()
	s.born()
	mnt := s.mount()
	acked := s.create(mnt, "before", 50)
	require.FileExists(t, filepath.Join(s.data, ".baton-reserve"))
	f, err := os.Create(filepath.Join(s.env["mountpoint"], "ballast"))
	require.NoError(t, err)
	defer f.Close()
	// All that other users than root can have.
	var st unix.Statfs_t
	for at := int64(0); ; {
		require.NoError(t, unix.Statfs(s.data, &st))
		if st.Bavail == 0 {
			break
		}
		size := int64(st.Bavail) * st.Bsize
		require.NoError(t, unix.Fallocate(int(f.Fd()), 0, at, size))
		at += size
	}
	acked = append(acked, s.create(mnt, "full", 200)...)
	require.Contains(t, s.monitor(degraded).reason(), "disk is full")
	// Nor do the changes that only the master's memory has make anybody end it.
	for range 2 {
		require.Contains(t, s.monitor(degraded, "OCF_CHECK_LEVEL=10").reason(), "disk is full")
	}
	r := s.expect(ok, "stop")
	require.Contains(t, r.stderr, "is given back")
	require.NotContains(t, r.stderr, "was killed")
	require.NoError(t, f.Truncate(0))
	s.expect(ok, "start")
	require.Empty(t, s.missing(mnt, acked))
}
