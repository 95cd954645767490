package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// child puts a real process into the machine's table, as a daemon of ours; it leaves the table when
// it has ended.
func (m *machine) child(name, script string, files ...string) {
	m.t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = m.root
	require.NoError(m.t, cmd.Start())
	dir := fmt.Sprintf("proc/%d", cmd.Process.Pid)
	m.process(cmd.Process.Pid, 1, name, "S", name+"\x00", ourMark, files...)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // by a signal
		// Its stat is what tells whether it is there.
		_ = os.Remove(filepath.Join(m.root, dir, "stat"))
		_ = os.RemoveAll(filepath.Join(m.root, dir))
	}()
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	})
}

const exportContent = "proc/net/rpc/nfsd.export/content"

// caches plays the kernel's cache of exports: a flush empties it. late is what gets in after the
// first flush.
func (m *machine) caches(late string) {
	m.write(exportContent, "#path domain(flags)\n/data/share\t*(rw)\n")
	flush := filepath.Join(m.root, "proc/net/rpc/nfsd.export/flush")
	m.write("proc/net/rpc/nfsd.export/flush", "")
	over := make(chan struct{})
	var kernel sync.WaitGroup
	kernel.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
			}
			if info, err := os.Stat(flush); err != nil || info.Size() == 0 {
				continue
			}
			m.replace("proc/net/rpc/nfsd.export/flush", "")
			m.replace(exportContent, "#path domain(flags)\n"+late)
			late = ""
		}
	})
	m.t.Cleanup(func() { close(over); kernel.Wait() })
}

// withDaemons is a machine that serves, whose daemons are real processes that can be ended.
func withDaemons(t *testing.T, mountd string) *machine {
	t.Helper()
	m := newMachine(t)
	m.serving()
	for _, pid := range []string{"30", "31"} { // those numbers may be anybody's on this machine
		require.NoError(t, os.RemoveAll(filepath.Join(m.root, "proc", pid)))
	}
	m.child("nfsdcld", "exec sleep 60", "/run/rpc_pipefs/nfsd/cld")
	m.child("rpc.mountd", mountd)
	return m
}

func TestStopFlushesTheExportsWhenMountdCanAnswerNoMore(t *testing.T) {
	const answersAtItsEnd = `trap 'printf "/data/share\t*(rw)\n" >>` + exportContent + `; exit' TERM; touch ready; while :; do sleep 0.01; done`
	m := withDaemons(t, answersAtItsEnd)
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(m.root, "ready"))
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	m.caches("")
	got := m.run("stop", oneExport)
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, "0\n", m.read("proc/fs/nfsd/threads"))
	require.Equal(t, "#path domain(flags)\n", m.read(exportContent))
	require.Empty(t, m.read("var/lib/nfs/etab"))
}

func TestTheListOfMountsIsKeptByStopAndByNoMonitor(t *testing.T) {
	m := withDaemons(t, "exec sleep 60")
	m.child("rpc.statd", "exec sleep 60")
	m.caches("")
	m.write("proc/fs/nfsd/versions", "+3 +4 +4.1 +4.2\n")
	m.write("var/lib/nfs/rmtab", "192.0.2.21:/data/share:0x1\n")
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "data/.nfs"), 0o755))
	m.write("proc/fs/lockd/nlm_end_grace", "Y\n")
	got := m.run("monitor", recurring, oneExport, "OCF_RESKEY_vers3=true")
	require.Equal(t, 0, got.code, got.output)
	require.NotContains(t, got.output, "rmtab")
	require.NoFileExists(t, filepath.Join(m.root, "data/.nfs/rmtab"), "the device may be frozen")
	got = m.run("stop", oneExport, "OCF_RESKEY_vers3=true")
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, "192.0.2.21:/data/share:0x1\n", m.read("data/.nfs/rmtab"))
}

func TestStopFlushesAgainWhatGotIntoTheCacheMeanwhile(t *testing.T) {
	m := withDaemons(t, "exec sleep 60")
	m.caches("# /data/share\t*()\n") // negative, and yet it holds the path
	got := m.run("stop", oneExport)
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, "#path domain(flags)\n", m.read(exportContent))
}
