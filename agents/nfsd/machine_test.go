package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/nfsexports"
	"baton/agents/internal/nfsproc"
	"baton/ocf"
)

// machine is a directory in place of /, with a procfs of plain files.
type machine struct {
	t    testing.TB
	root string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir()}
	m.write("proc/self/mountinfo", strings.Join([]string{
		"28 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw",
		"40 28 147:0 / " + m.root + "/data rw - ext4 /dev/drbd0 rw",
		"41 28 147:0 / /data rw - ext4 /dev/drbd0 rw",
		"42 28 0:25 / /run rw - tmpfs run rw", "",
	}, "\n"))
	m.write("proc/sys/kernel/random/boot_id", "b0\n")
	m.write("proc/uptime", "1000.50 900.00\n")
	return m
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	file := filepath.Join(m.root, name)
	require.NoError(m.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(m.t, os.WriteFile(file, []byte(text), 0o644))
}

// replace writes a file that somebody may read at the same time.
func (m *machine) replace(name, text string) {
	m.write(name+".new", text)
	require.NoError(m.t, os.Rename(filepath.Join(m.root, name+".new"), filepath.Join(m.root, name)))
}

func (m *machine) read(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, name))
	require.NoError(m.t, err)
	return string(text)
}

// process puts a process into the table; a kernel thread has no arguments.
func (m *machine) process(pid, parent int, name, state, args, environ string, files ...string) {
	m.t.Helper()
	dir := fmt.Sprintf("proc/%d", pid)
	m.write(dir+"/comm", name+"\n")
	m.write(dir+"/stat", fmt.Sprintf("%d (%s) %s %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99000 0 0", pid, name, state, parent))
	m.write(dir+"/cmdline", args)
	m.write(dir+"/environ", environ)
	m.write(dir+"/status", "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t1\n")
	m.write(dir+"/wchan", "rq_qos_wait")
	require.NoError(m.t, os.MkdirAll(filepath.Join(m.root, dir, "fd"), 0o755))
	for i, f := range files {
		require.NoError(m.t, os.Symlink(f, filepath.Join(m.root, dir, "fd", fmt.Sprint(i))))
	}
}

const ourMark = markName + "=/data/.nfs\x00"

// serving makes the machine one that serves /data/share.
func (m *machine) serving() {
	m.write("proc/fs/nfsd/threads", "2\n")
	m.write("proc/fs/nfsd/versions", "-3 +4 +4.1 +4.2\n")
	m.write("proc/fs/nfsd/portlist", "tcp 2049\ntcp 2049\n")
	m.write("proc/fs/nfsd/v4_end_grace", "Y\n")
	m.write("var/lib/nfs/etab", "/data/share\t*(rw,fsid=1)\n")
	m.process(20, kthreadd, "nfsd", "S", "", "")
	m.process(21, kthreadd, "nfsd", "S", "", "")
	m.process(30, 1, "nfsdcld", "S", "nfsdcld\x00", ourMark, "/run/rpc_pipefs/nfsd/cld")
	m.process(31, 1, "rpc.mountd", "S", "rpc.mountd\x00", ourMark)
}

// recordPlace is where start leaves its record, whoever calls.
const recordPlace = "run/resource-agents/baton/nfsd-data%2F.nfs"

// record is what a start of this boot left.
func (m *machine) record(r record) {
	m.t.Helper()
	r.Boot, r.State = "b0", "/data/.nfs"
	text, err := json.Marshal(r)
	require.NoError(m.t, err)
	m.write(recordPlace, string(text))
}

// answer is what an action came to.
type answer struct {
	code   int
	reason string
	output string
}

// run is a call of the cluster.
func (m *machine) run(action string, env ...string) answer {
	m.t.Helper()
	return m.call(ocf.Host{
		Argv0: "nfsd", Args: []string{action},
		Environ: append([]string{
			"OCF_ROOT=/usr/lib/ocf", "OCF_RA_VERSION_MAJOR=1", "OCF_RESOURCE_INSTANCE=nfs",
			"OCF_RESKEY_nfs_shared_infodir=/data/.nfs", "OCF_RESKEY_CRM_meta_timeout=20000",
		}, env...),
	})
}

// byHand is a call without the environment of a cluster.
func (m *machine) byHand(args ...string) answer {
	m.t.Helper()
	return m.call(ocf.Host{Argv0: "nfsd", Args: args})
}

func (m *machine) call(h ocf.Host) answer {
	m.t.Helper()
	var out, errs strings.Builder
	h.Stdout, h.Stderr = &out, &errs
	h.Environ = append([]string{
		"HA_RSCTMP=" + filepath.Join(m.root, "run/resource-agents"), "HA_LOGFILE=" + filepath.Join(m.root, "log"),
	}, h.Environ...)
	code := ocf.RunOn(program(m.root), h)
	a := answer{code: code, output: out.String() + errs.String()}
	for line := range strings.SplitSeq(errs.String(), "\n") {
		if reason, ok := strings.CutPrefix(line, "ocf-exit-reason:"); ok {
			require.Empty(m.t, a.reason, "one reason: %s", errs.String())
			a.reason = reason
		}
	}
	return a
}

const (
	recurring = "OCF_RESKEY_CRM_meta_interval=10000"
	oneExport = "OCF_RESKEY_exports=/data/share *(rw,fsid=1)"
)

func TestMonitorReadsTheMachineWithoutAChild(t *testing.T) {
	m := newMachine(t)
	require.Equal(t, 7, m.run("monitor").code, "nothing there, and no nfsd module")
	m.serving()
	got := m.run("monitor", recurring, oneExport)
	require.Equal(t, 0, got.code, got.output)
}

func TestAMountedNFSDFileSystemIsNoServer(t *testing.T) {
	m := newMachine(t)
	m.write("proc/fs/nfsd/threads", "0\n") // stop leaves it mounted
	m.write("proc/fs/nfsd/versions", "-3 +4 +4.1 +4.2\n")
	m.write("proc/fs/nfsd/portlist", "")
	require.Equal(t, 7, m.run("monitor").code)
	require.Equal(t, 7, m.run("monitor", recurring).code)
	require.Equal(t, 0, m.run("stop").code)
}

func TestMonitorSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(m *machine)
		code   int
		reason string
	}{
		"mountd gone": {func(m *machine) {
			require.NoError(t, os.RemoveAll(filepath.Join(m.root, "proc/31")))
		}, 1, "NFS server: rpc.mountd has ended"},
		"mountd a zombie": {func(m *machine) {
			m.write("proc/31/stat", "31 (rpc.mountd) Z 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99000 0 0")
		}, 1, "NFS server: rpc.mountd has ended"},
		"mountd halted": {func(m *machine) {
			m.write("proc/31/stat", "31 (rpc.mountd) T 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99000 0 0")
		}, 1, "NFS server: rpc.mountd (pid 31) hangs"},
		"threads ended": {func(m *machine) { m.write("proc/fs/nfsd/threads", "0\n") }, 1, "NFS server: the server threads have ended"},
		"unexported":    {func(m *machine) { m.write("var/lib/nfs/etab", "") }, 1, "NFS server: not exported any more: /data/share to *"},
		"unreadable":    {func(m *machine) { m.write("proc/fs/nfsd/threads", "many\n") }, 1, "NFS server: its state cannot be read"},
		"another tracker": {func(m *machine) {
			require.NoError(t, os.Remove(filepath.Join(m.root, "proc/30/fd/0")))
		}, 190, "the kernel does not keep its clients in the shared database"},
		"all threads stand in the kernel": {func(m *machine) { m.freeze() }, 190, "all 2 threads wait in the kernel (rq_qos_wait) for 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.serving()
			c.spoil(m)
			got := m.run("monitor", recurring, oneExport, "OCF_RESKEY_CRM_meta_timeout=2000")
			require.Equal(t, c.code, got.code, got.output)
			require.True(t, strings.HasPrefix(got.reason, c.reason), "%q", got.reason)
		})
	}
}

func TestOneThreadInTheKernelIsWorkAndNotAHang(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.write("proc/20/stat", "20 (nfsd) D 2 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99000 0 0")
	require.Equal(t, 0, m.run("monitor", recurring, oneExport).code)
}

// freeze lets all server threads wait in the kernel.
func (m *machine) freeze() {
	for _, pid := range []int{20, 21} {
		m.write(fmt.Sprintf("proc/%d/stat", pid), fmt.Sprintf("%d (nfsd) D 2 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99000 0 0", pid))
	}
}

func TestAFrozenDiskIsNoReasonForARestartUntilNothingHasMovedForLong(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.freeze()
	look := func(uptime, interval string, code int) {
		t.Helper()
		m.write("proc/uptime", uptime+" 0.00\n")
		got := m.run("monitor", interval, oneExport, "OCF_RESKEY_CRM_meta_timeout=2000", "OCF_CHECK_LEVEL=10")
		require.Equal(t, code, got.code, got.output)
	}
	const probe = "OCF_RESKEY_CRM_meta_on_node=n1" // and no interval
	look("2000.00", probe, 190)                    // looks, and keeps nothing
	look("2200.00", recurring, 190)
	look("2319.00", recurring, 190)
	look("2320.00", probe, 1)
	look("2320.00", recurring, 1)
	require.Contains(t, m.read("log"), "NFS server: hangs: all 2 threads wait in the kernel (rq_qos_wait) for 2m0s")

	m.write("proc/20/status", "voluntary_ctxt_switches:\t6\nnonvoluntary_ctxt_switches:\t1\n")
	look("2321.00", recurring, 190) // a step: the disk was back meanwhile
	look("2440.00", recurring, 190)
	look("2441.00", recurring, 1)

	m.write("proc/20/stat", "20 (nfsd) S 2 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99000 0 0")
	m.write("proc/uptime", "2442.00 0.00\n")
	require.Equal(t, 0, m.run("monitor", recurring, oneExport).code)
	m.freeze()
	look("2600.00", recurring, 190) // the clock begins anew
	m.write("proc/uptime", "9000.00 0.00\n")
	require.Equal(t, 190, m.run("monitor", recurring, oneExport, "OCF_RESKEY_hang_timeout=0").code, "0 means never")
	require.Equal(t, 1, m.run("monitor", recurring, oneExport).code)
}

// Threads that want to write into a page cache that may take no more wake up again and again.
func TestThreadsThatMakeStepsButAllWaitAndDoNotAnswerAreAFrozenDiskToo(t *testing.T) {
	m := newMachine(t)
	m.serving()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := taken.Addr().(*net.TCPAddr).Port
	require.NoError(t, taken.Close()) // nobody answers there
	m.write("proc/fs/nfsd/portlist", fmt.Sprintf("tcp %d\n", port))
	deep := []string{recurring, oneExport, fmt.Sprintf("OCF_RESKEY_port=%d", port), "OCF_CHECK_LEVEL=10", "OCF_RESKEY_CRM_meta_timeout=4000"}
	require.Equal(t, 1, m.run("monitor", deep...).code, "a server that does not answer and does not wait for a disk")

	m.freeze()
	moving := make(chan struct{})
	var mover sync.WaitGroup
	mover.Go(func() {
		for n := 10; ; n++ {
			select {
			case <-moving:
				return
			case <-time.After(5 * time.Millisecond):
			}
			text := fmt.Sprintf("voluntary_ctxt_switches:\t%d\n", n)
			m.replace("proc/20/status", text)
		}
	})
	got := m.run("monitor", deep...)
	require.Equal(t, 190, got.code, got.output)
	m.write("proc/uptime", "1121.00 0.00\n")
	got = m.run("monitor", deep...)
	require.Equal(t, 1, got.code, got.output)
	require.Contains(t, got.reason, "hangs: all 2 threads wait in the kernel")
	close(moving)
	mover.Wait()
}

func TestAMonitorByHandAndAProbeEndNoGracePeriod(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.write("proc/fs/nfsd/v4_end_grace", "N\n")
	m.write("proc/uptime", "1100.00 900.00\n") // the threads run for 110 s
	require.Equal(t, 0, m.byHand("monitor", "--level", "0", "-o", "nfs_shared_infodir=/data/.nfs").code)
	require.Equal(t, 0, m.run("monitor", oneExport).code)
	require.Equal(t, "N\n", m.read("proc/fs/nfsd/v4_end_grace"), "who calls them may know neither max_grace nor nfs_ip")

	got := m.call(ocf.Host{Argv0: "/etc/ha.d/resource.d/nfsd", Args: []string{"/data/.nfs", "status"}})
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, "Y\n", m.read("proc/fs/nfsd/v4_end_grace"), "heartbeat's status is all the monitor that it has")
}

func TestMonitorEndsAGracePeriodThatLastsTooLong(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.write("proc/fs/nfsd/v4_end_grace", "N\n") // the threads run for 10.5 s: 1000.5 s of uptime, start at 990 s
	require.Equal(t, 0, m.run("monitor", recurring, oneExport).code)
	require.Equal(t, "N\n", m.read("proc/fs/nfsd/v4_end_grace"))
	require.Equal(t, 0, m.run("monitor", recurring, oneExport, "OCF_RESKEY_max_grace=0").code)
	require.Equal(t, "N\n", m.read("proc/fs/nfsd/v4_end_grace"), "0 means never")
	require.Equal(t, 0, m.run("monitor", recurring, oneExport, "OCF_RESKEY_max_grace=10").code)
	require.Equal(t, "Y\n", m.read("proc/fs/nfsd/v4_end_grace"))
	require.Contains(t, m.read("log"), "the grace period of NFSv4 was ended after 1")
}

func TestThreadsOfAContainersServerDoNotEndTheGracePeriodOfOurs(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.write("proc/fs/nfsd/v4_end_grace", "N\n")
	m.process(15, kthreadd, "nfsd", "S", "", "")
	m.write("proc/15/stat", "15 (nfsd) S 2 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5000 0 0") // 50 s after the boot; ours at 990 s
	watch := func() string {
		require.Equal(t, 0, m.run("monitor", recurring, oneExport, "OCF_RESKEY_max_grace=12").code)
		return m.read("proc/fs/nfsd/v4_end_grace")
	}
	require.Equal(t, "N\n", watch(), "ours runs for 10.5 s")
	m.write("proc/15/stat", "15 (nfsd) S 2 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100000 0 0") // newer than ours
	m.write("proc/uptime", "1002.10 900.00\n")
	require.Equal(t, "N\n", watch(), "without a record the newest thread counts")
	m.record(record{Started: 990 * time.Second})
	require.Equal(t, "Y\n", watch())
}

func TestTheClockOfMaxGraceBeginsWhenTheAddressIsUp(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.write("proc/fs/nfsd/v4_end_grace", "N\n")
	watch := func(ip string) string {
		require.Equal(t, 0, m.run("monitor", recurring, oneExport, "OCF_RESKEY_max_grace=10", "OCF_RESKEY_nfs_ip="+ip).code)
		return m.read("proc/fs/nfsd/v4_end_grace")
	}
	require.Equal(t, "N\n", watch("192.0.2.50"), "nobody can have reclaimed: the address is not up")
	require.Equal(t, "N\n", watch("192.0.2.50 127.0.0.1"), "seen up for the first time")
	m.write("proc/uptime", "1009.00 900.00\n")
	require.Equal(t, "N\n", watch("127.0.0.1"))
	m.write("proc/uptime", "1010.60 900.00\n")
	require.Equal(t, "Y\n", watch("127.0.0.1"))
}

func TestAnotherServerIsNotTakenForOurs(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.process(30, 1, "nfsdcld", "S", "nfsdcld\x00", "PATH=/bin\x00")
	m.process(31, 1, "rpc.mountd", "S", "rpc.mountd\x00", "")
	require.Equal(t, 7, m.run("monitor").code)
	require.Equal(t, 0, m.run("stop").code)
	require.Equal(t, "2\n", m.read("proc/fs/nfsd/threads"), "stop leaves it alone")
	got := m.run("start", oneExport)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.reason, "runs on this node already, not started by this resource")
	require.Contains(t, got.reason, "systemctl disable --now nfs-server.service")

	m.process(30, 1, "nfsdcld", "S", "nfsdcld\x00", markName+"=/other/state\x00")
	got = m.run("start", oneExport)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.reason, "for another instance, with the state in /other/state")
}

func TestThreadsWithoutDaemonsAndRecordAreStillOurs(t *testing.T) {
	m := newMachine(t)
	m.serving()
	for _, pid := range []string{"30", "31"} {
		require.NoError(t, os.RemoveAll(filepath.Join(m.root, "proc", pid)))
	}
	got := m.run("monitor", recurring, oneExport)
	require.Equal(t, 1, got.code, "they export from the device of our state, and nobody else's daemons are there")

	m.write("var/lib/nfs/etab", "/srv/other\t*(rw,fsid=1)\n")
	require.Equal(t, 7, m.run("monitor", recurring, oneExport).code)

	m.record(record{})
	require.Equal(t, 1, m.run("monitor", recurring, oneExport).code, "the record of this boot says so")
	m.write("proc/sys/kernel/random/boot_id", "b1\n")
	require.Equal(t, 7, m.run("monitor", recurring, oneExport).code, "that of another boot does not")
	m.write(recordPlace, "{torn")
	require.Equal(t, 7, m.run("monitor", recurring, oneExport).code)
}

func TestAnEditedExportsFileIsNoFaultUntilItIsReloaded(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.write("etc/exports", "/data/share *(rw,fsid=1)\n/data/new *(rw)\n")
	m.record(record{})
	require.Equal(t, 0, m.run("monitor", recurring).code)
}

func TestAnEditedNFSConfIsNoFaultUntilARestart(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.write("etc/nfs.conf", "[nfsd]\nvers4.0=n\nvers3=y\nport=2050\n")
	require.Equal(t, 1, m.run("monitor", recurring, oneExport).code, "without a record nothing else is known")
	m.record(record{
		Versions: nfsproc.Versions{"3": false, "4.0": true, "4.1": true, "4.2": true},
		Ports:    []nfsproc.Port{{Transport: "tcp", Number: 2049}},
	})
	got := m.run("monitor", recurring, oneExport)
	require.Equal(t, 0, got.code, got.output)
	m.write("proc/fs/nfsd/versions", "-3 +4 +4.1 -4.2\n")
	require.Equal(t, 1, m.run("monitor", recurring, oneExport).code, "what start set is still watched")
}

func TestAReloadByHandWithdrawsWhatTheClusterExported(t *testing.T) {
	m := newMachine(t)
	m.serving()
	m.write("bin/exportfs", "#!/bin/sh\necho \"$@\" >>"+m.root+"/ran\n")
	require.NoError(t, os.Chmod(filepath.Join(m.root, "bin/exportfs"), 0o755))
	t.Setenv("PATH", filepath.Join(m.root, "bin")+":"+os.Getenv("PATH"))
	for _, dir := range []string{"data/share", "data/old"} {
		require.NoError(t, os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	old := share()
	old.Dir = "/data/old"
	versions := nfsproc.Versions{"3": false, "4.0": true, "4.1": true, "4.2": true}
	ports := []nfsproc.Port{{Transport: "tcp", Number: 2049}}
	m.record(record{Exports: []nfsexports.Export{share(), old}, FromFiles: true, Versions: versions, Ports: ports})
	m.write("etc/exports", "/data/share *(rw,fsid=1)\n")
	m.write("var/lib/nfs/etab", "/data/share\t*(rw,fsid=1)\n/data/old\t*(rw,fsid=1)\n")

	got := m.byHand("reload-agent", "-o", "nfs_shared_infodir=/data/.nfs")
	require.Equal(t, 0, got.code, got.output)
	require.Contains(t, m.read("ran"), "-u -- *:/data/old")
	require.Equal(t, 0, m.run("monitor", recurring).code, "the cluster knows of it")
	var r record
	require.NoError(t, json.Unmarshal([]byte(m.read(recordPlace)), &r))
	require.Equal(t, record{
		Boot: "b0", State: "/data/.nfs", Exports: []nfsexports.Export{share()}, FromFiles: true, Versions: versions, Ports: ports,
	}, r)

	m.record(record{Exports: []nfsexports.Export{share(), old}})
	m.write("ran", "")
	got = m.byHand("reload-agent", "-o", "nfs_shared_infodir=/data/.nfs")
	require.Equal(t, 1, got.code, got.output)
	require.Contains(t, got.reason, "exports: are given by the parameters of the resource")
	require.Empty(t, m.read("ran"))
}

func TestARecordHasAPlaceForEachStateDirectory(t *testing.T) {
	seen := map[string]string{}
	long := "/" + strings.Repeat("long/", 100)
	for _, dir := range []string{"/data/.nfs", "/data_.nfs", "/data%2F.nfs", "/data", long + "a", long + "b"} {
		name := recordName(dir)
		require.NotContains(t, name, "/")
		require.Less(t, len(name), 200)
		require.Empty(t, seen[name], "%s and %s", dir, seen[name])
		seen[name] = dir
	}
}

func TestStartRefusesBadInputWithACodeAndAReason(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(m *machine)
		env     []string
		code    int
		reason  string
	}{
		"nothing exported": {nil, nil, 5, "exports: no directory is exported"},
		"missing directory": {
			nil,
			[]string{oneExport},
			5,
			"exported directory /data/share: no such file or directory",
		},
		"a file in place of the directory": {
			func(m *machine) { m.write("data/share", "") },
			[]string{oneExport},
			5,
			"exported directory /data/share: is no directory",
		},
		"a mount point on the root's device": {
			func(m *machine) { require.NoError(t, os.MkdirAll(filepath.Join(m.root, "srv/share"), 0o755)) },
			[]string{"OCF_RESKEY_exports=/srv/share *(rw)"},
			5,
			"exported directory /srv/share: lies on the node's own disk, / (ext4 on /dev/vda1): is its file system mounted?",
		},
		"fsid used twice": {
			nil,
			[]string{"OCF_RESKEY_exports=/data/a *(fsid=1); /data/b *(fsid=1)"},
			6,
			"exports: fsid 1 is used for both /data/a and /data/b",
		},
		"fsid used twice in the file": {
			func(m *machine) { m.write("etc/exports", "/a *(fsid=1)\n/b *(fsid=1)\n") }, nil, 5,
			"exports: fsid 1 is used for both /a and /b",
		},
		"unreadable file": {
			func(m *machine) { require.NoError(t, os.MkdirAll(filepath.Join(m.root, "etc/exports"), 0o755)) }, nil, 5,
			"exports: read ",
		},
		"line that nobody means": {func(m *machine) { m.write("etc/exports", "/a 192.0.2.1 (rw)\n") }, nil, 5, "exports: "},
		"both forms": {
			nil,
			[]string{oneExport, "OCF_RESKEY_directory=/a", "OCF_RESKEY_clientspec=*"},
			6,
			"exports: given together with directory",
		},
		"no clients":         {nil, []string{"OCF_RESKEY_directory=/a"}, 6, "clientspec: no value given"},
		"shell in a client":  {nil, []string{"OCF_RESKEY_directory=/a", "OCF_RESKEY_clientspec=$(reboot)"}, 6, "directory: "},
		"option in a client": {nil, []string{"OCF_RESKEY_directory=/a", "OCF_RESKEY_clientspec=-a"}, 6, "directory: "},
		"all versions off": {
			nil,
			[]string{oneExport, "OCF_RESKEY_vers4_0=0", "OCF_RESKEY_vers4_1=0", "OCF_RESKEY_vers4_2=0"},
			6,
			"vers4_2: every version of NFS is switched off",
		},
		"version 4 without TCP": {nil, []string{oneExport, "OCF_RESKEY_tcp=false"}, 6, "tcp: false with NFSv4 on"},
		"v3 and not v3":         {nil, []string{oneExport, "OCF_RESKEY_vers3=1", "OCF_RESKEY_nfsv4_only=1"}, 6, "vers3: true together with nfsv4_only"},
		"lease too short":       {nil, []string{oneExport, "OCF_RESKEY_lease_time=5"}, 6, "lease_time: "},
		"scope too long":        {nil, []string{oneExport, "OCF_RESKEY_nfs_server_scope=" + strings.Repeat("x", 65)}, 6, "nfs_server_scope: "},
		"no address":            {nil, []string{oneExport, "OCF_RESKEY_nfs_ip=vip"}, 6, "nfs_ip: "},
		"state on the root's device": {func(m *machine) {
			require.NoError(t, os.MkdirAll(filepath.Join(m.root, "data/share"), 0o755))
			m.write("proc/self/mountinfo", "28 1 254:1 / / rw - ext4 /dev/vda1 rw\n")
		}, []string{oneExport}, 5, "nfs_shared_infodir: "},
		"relative state": {nil, []string{oneExport, "OCF_RESKEY_nfs_shared_infodir=data"}, 6, "nfs_shared_infodir: "},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			tools(t, m)
			if c.prepare != nil {
				c.prepare(m)
			}
			got := m.run("start", c.env...)
			require.Equal(t, c.code, got.code, got.output)
			require.True(t, strings.HasPrefix(got.reason, c.reason), "%q", got.reason)
			require.NoDirExists(t, filepath.Join(m.root, "data/.nfs"), "nothing is left behind")
			require.NoFileExists(t, filepath.Join(m.root, recordPlace))
		})
	}
}

// tools puts programs into PATH that must never be run by a start that is refused.
func tools(t *testing.T, m *machine) {
	t.Helper()
	for _, name := range []string{"exportfs", "rpc.mountd", "nfsdcld", "rpc.statd", "sm-notify", "rpcbind"} {
		m.write("bin/"+name, "#!/bin/sh\necho \"$0 $*\" >>"+m.root+"/ran\nexit 1\n")
		require.NoError(t, os.Chmod(filepath.Join(m.root, "bin", name), 0o755))
	}
	t.Setenv("PATH", filepath.Join(m.root, "bin")+":"+os.Getenv("PATH"))
	t.Cleanup(func() { require.NoFileExists(t, filepath.Join(m.root, "ran"), "no tool was run") })
}

func TestAMissingToolIsNotInstalled(t *testing.T) {
	m := newMachine(t)
	t.Setenv("PATH", m.root)
	if _, err := os.Stat("/usr/sbin/exportfs"); err == nil {
		t.Skip("this machine has the NFS tools, which are found besides PATH")
	}
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "data/share"), 0o755))
	got := m.run("start", oneExport)
	require.Equal(t, 5, got.code)
	require.Contains(t, got.reason, "exportfs: is not installed; install nfs-kernel-server (Debian) or nfs-utils (RHEL)")
}

func TestValidateTellsWhatTheBootWouldStart(t *testing.T) {
	m := newMachine(t)
	tools(t, m)
	wants := filepath.Join(m.root, "etc/systemd/system/multi-user.target.wants")
	require.NoError(t, os.MkdirAll(wants, 0o755))
	require.NoError(t, os.Symlink("/lib/systemd/system/nfs-server.service", filepath.Join(wants, "nfs-server.service")))
	m.write("etc/nfs.conf", "[nfsdcld]\nstoragedir=/var/lib/nfs/nfsdcld\n[nfsd]\nrdma=y\n")
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "data/share"), 0o755))
	m.write("proc/filesystems", "nodev\tproc\n\text4\n")
	got := m.run("validate-all", "OCF_RESKEY_exports=/data/share *(rw,async)")
	require.Equal(t, 0, got.code, got.output)
	log := m.read("log")
	for _, words := range []string{
		"systemctl disable --now nfs-server.service", "nfs.conf [nfsdcld] storagedir: is overridden",
		"nfs.conf [nfsd] rdma: is passed over", "export of /data/share: has the option async",
		"kernel module nfsd: is not loaded",
	} {
		require.Contains(t, log, words)
	}
}

func TestSettingsTakeParametersBeforeNFSConf(t *testing.T) {
	m := newMachine(t)
	m.write("etc/nfs.conf", `[general]
pipefs-directory=/run/rpc_pipefs
[nfsd]
threads=32
vers4.0=n
lease-time=5
grace-time=15
udp=y
vers3=y
[mountd]
port=20048
state-directory-path=/srv/nfs
[statd]
outgoing-port=0
`)
	call := func(env ...string) settings {
		var got settings
		p := program(m.root)
		p.Monitor = nil
		p.Start = nil
		c := callWith(t, m, env...)
		w, err := system{root: m.root}.agent(c).settings()
		require.NoError(t, err)
		got = w
		return got
	}
	w := call()
	require.Equal(t, 32, w.threads)
	require.Equal(t, 20048, w.mountd)
	require.Equal(t, "/srv/nfs", w.tabDir)
	require.Equal(t, "/run/rpc_pipefs", w.pipefs)
	require.False(t, w.versions["4.0"])
	require.True(t, w.v3(), "an explicit vers3=y asks for it")
	require.Equal(t, minLease, w.lease, "what the kernel would refuse is brought into its bounds")
	require.Len(t, w.ports, 2)

	w = call("threads=4", "vers4_0=true", "nfsv4_only=true", "mountd_port=1000")
	require.Equal(t, 4, w.threads)
	require.Equal(t, 1000, w.mountd)
	require.True(t, w.versions["4.0"])
	require.False(t, w.v3())
	require.Len(t, w.ports, 1, "UDP serves NFSv3 alone")
}

// callWith is a call with these parameters, taken from the driver itself.
func callWith(t *testing.T, m *machine, params ...string) *ocf.Call {
	t.Helper()
	var got *ocf.Call
	p := program(m.root)
	p.Check = func(c *ocf.Call) []ocf.Problem { got = c; return nil }
	env := []string{"OCF_ROOT=/x", "OCF_RESKEY_nfs_shared_infodir=/data/.nfs", "HA_RSCTMP=" + m.root, "HA_LOGFILE=" + filepath.Join(m.root, "log")}
	for _, kv := range params {
		env = append(env, "OCF_RESKEY_"+kv)
	}
	ocf.RunOn(p, ocf.Host{Argv0: "nfsd", Args: []string{"monitor"}, Environ: env, Stdout: &strings.Builder{}, Stderr: &strings.Builder{}})
	require.NotNil(t, got)
	got.Log = slog.New(slog.DiscardHandler)
	return got
}
