package process

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// tail is fields 4 and up of a real line, with parent and start time to fill in.
func statLine(pid int, comm, state string, parent int, start uint64) string {
	return strconv.Itoa(pid) + " (" + comm + ") " + state + " " + strconv.Itoa(parent) +
		" 1184 1184 0 -1 4194560 151 0 0 0 2 3 0 0 20 0 1 0 " + strconv.FormatUint(start, 10) +
		" 7331840 1046 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n"
}

func TestStatLineIsReadWhateverTheProcessCallsItself(t *testing.T) {
	for _, comm := range []string{
		"mfsmaster", "(ugly )pr()cess(", ")", "(", "a b", "a\nb", "7 (x) Z 1 1", "", "\xff\xfe", "sd-pam",
	} {
		p, err := parseStat([]byte(statLine(42, comm, "S", 7, 987654)))
		require.NoError(t, err, "%q", comm)
		require.Equal(t, Process{ID: ID{42, 987654}, Parent: 7, Comm: comm, State: 'S'}, p)
	}
}

func TestBrokenStatLinesAreErrors(t *testing.T) {
	whole := statLine(42, "x", "S", 7, 9)
	for name, line := range map[string]string{
		"empty":         "",
		"no name":       "42 S 7",
		"no pid":        " (x) S 7" + whole[10:],
		"negative pid":  "-1" + whole[2:],
		"cut":           whole[:30],
		"long state":    strings.Replace(whole, ") S ", ") SS ", 1),
		"parent a word": strings.Replace(whole, ") S 7", ") S x", 1),
		"start a word":  strings.Replace(whole, " 9 733", " x 733", 1),
		"reversed":      ")42(",
	} {
		_, err := parseStat([]byte(line))
		require.Error(t, err, name)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine(1, "(ugly )pr()cess(", "Z", 0, 1)))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parseStat(data); err == nil && p.PID <= 0 {
			t.Fatalf("accepted pid %d", p.PID)
		}
	})
}

func TestTitleWrittenOverTheArgumentsIsRead(t *testing.T) {
	require.Equal(t, []string{"mfsmaster (data writer)"}, parseCmdline([]byte("mfsmaster (data writer)\x00\x00\x00\x00")))
	require.Equal(t, []string{"sleep", "", "5"}, parseCmdline([]byte("sleep\x00\x005\x00")))
	require.Empty(t, parseCmdline(nil))
}

// fakeProc builds a proc tree: pid -> link -> target.
func fakeProc(t *testing.T, processes map[int]map[string]string) System {
	t.Helper()
	root := t.TempDir()
	for pid, links := range processes {
		dir := filepath.Join(root, strconv.Itoa(pid))
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "fd"), 0o755))
		comm, state, parent := links["comm"], "S", 1
		if links["state"] != "" {
			state = links["state"]
		}
		if links["parent"] != "" {
			parent, _ = strconv.Atoi(links["parent"])
		}
		stat := statLine(pid, comm, state, parent, uint64(pid)*10)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cmdline"), []byte(links["cmdline"]), 0o644))
		for name, target := range links {
			if name == "cwd" || name == "root" || name == "exe" || strings.HasPrefix(name, "fd/") {
				require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
			}
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "uptime"), nil, 0o644))
	return System{Proc: root}
}

func TestHoldersOfADirectoryAreFoundByEachWayOfHoldingIt(t *testing.T) {
	sys := fakeProc(t, map[int]map[string]string{
		10: {"cwd": "/data/mfs", "root": "/"},
		11: {"cwd": "/", "fd/7": "/data/mfs/changelog.0.mfs"},
		12: {"cwd": "/", "fd/0": "/data/mfs/metadata.mfs.back.tmp (deleted)"},
		13: {"cwd": "/data/mfs2", "fd/0": "/data/mfsx", "exe": "/usr/sbin/x"},
		14: {"cwd": "/data/mfs (deleted)"},
		15: {"exe": "/data/mfs/tool"},
		16: {"cwd": "/data/mfs", "state": "Z"},
		17: {"fd/3": "socket:[1234]", "cwd": "/data"},
		18: {"root": "/data/mfs/chroot"},
	})
	holders, err := sys.Holders("/data/mfs/")
	require.NoError(t, err)
	by := map[int]string{}
	for _, h := range holders {
		by[h.PID] = h.By
	}
	require.Equal(t, map[int]string{
		10: "working directory /data/mfs",
		11: "open file /data/mfs/changelog.0.mfs",
		12: "open file /data/mfs/metadata.mfs.back.tmp (deleted)",
		14: "working directory /data/mfs (deleted)",
		15: "program /data/mfs/tool",
		18: "root directory /data/mfs/chroot",
	}, by)
}

func TestProcessesAreFoundByNameProgramAndTitle(t *testing.T) {
	sys := fakeProc(t, map[int]map[string]string{
		10: {"comm": "mfsmaster", "exe": "/usr/sbin/mfsmaster (deleted)", "cmdline": "mfsmaster (data writer)\x00\x00"},
		11: {"comm": "a-name-of-many-", "cmdline": "a-name-of-many-letters\x00"},
		12: {"comm": "mfsmaster", "state": "Z"},
		13: {"comm": "kworker"},
	})
	found := func(match func(Process) bool) (pids []int) {
		list, err := sys.Find(match)
		require.NoError(t, err)
		for _, p := range list {
			pids = append(pids, p.PID)
		}
		return pids
	}
	require.Equal(t, []int{10}, found(ByComm("mfsmaster")), "the zombie is no process that does anything")
	require.Equal(t, []int{11}, found(ByComm("a-name-of-many-letters")), "names are cut at 15 bytes")
	require.Equal(t, []int{10}, found(ByExe("/usr/sbin/mfsmaster")))
	require.Equal(t, []int{10}, found(ByTitle("mfsmaster (data writer)")))
	require.Empty(t, found(ByExe("")))
}

func TestDescendantsIncludeGrandchildrenWhateverTheirOrder(t *testing.T) {
	sys := fakeProc(t, map[int]map[string]string{
		9: {"parent": "30"}, 10: {}, 20: {"parent": "10"}, 30: {"parent": "20"}, 40: {"parent": "1"}, 50: {"parent": "10", "state": "Z"},
	})
	list, err := sys.Descendants(ID{PID: 10})
	require.NoError(t, err)
	var pids []int
	for _, p := range list {
		pids = append(pids, p.PID)
	}
	require.ElementsMatch(t, []int{20, 30, 9}, pids)
}

func TestAReusedPidIsNotTheProcessThatHadIt(t *testing.T) {
	sys := fakeProc(t, map[int]map[string]string{10: {"comm": "other"}})
	_, err := sys.Lookup(ID{PID: 10, Start: 99})
	require.ErrorIs(t, err, ErrGone)
	_, err = sys.Lookup(ID{PID: 10, Start: 100})
	require.NoError(t, err)
	_, err = sys.Lookup(ID{PID: 11, Start: 100})
	require.ErrorIs(t, err, ErrGone)
}

// spawn starts a real child and returns its identity; the child is reaped at once when it ends.
func spawn(t *testing.T, argv ...string) ID {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = t.TempDir()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if argv[0] == "sh" { // says a word when its traps stand
		_, err = out.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	p, err := System{}.Get(cmd.Process.Pid)
	require.NoError(t, err)
	go func() { _ = cmd.Wait() }()
	return p.ID
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestEndStopsAPoliteProcessWithoutWaitingOutItsPatience(t *testing.T) {
	id := spawn(t, "sleep", "60")
	begin := time.Now()
	require.NoError(t, System{}.End(deadline(t, 30*time.Second), 20*time.Second, id))
	require.Less(t, time.Since(begin), 5*time.Second)
	_, err := System{}.Lookup(id)
	if err == nil { // between its end and Wait it is a zombie
		return
	}
	require.ErrorIs(t, err, ErrGone)
}

func TestEndKillsWhatIgnoresSIGTERM(t *testing.T) {
	id := spawn(t, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	begin := time.Now()
	require.NoError(t, System{}.End(deadline(t, 30*time.Second), 100*time.Millisecond, id))
	require.GreaterOrEqual(t, time.Since(begin), 100*time.Millisecond, "its patience was not kept")
}

func TestEndContinuesAHaltedProcessSoThatItCanEndByItself(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "ended")
	id := spawn(t, "sh", "-c", "trap 'echo x >"+marker+"; exit' TERM; echo ready; while :; do sleep 0.05; done")
	require.NoError(t, System{}.Signal(id, syscall.SIGSTOP))
	require.Eventually(t, func() bool {
		p, err := System{}.Lookup(id)
		return err == nil && p.State == Halted
	}, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, System{}.End(deadline(t, 30*time.Second), 20*time.Second, id))
	require.FileExists(t, marker)
}

func TestEndLeavesAloneAProcessThatOnlyHasThePid(t *testing.T) {
	id := spawn(t, "sleep", "60")
	other := ID{PID: id.PID, Start: id.Start + 1}
	require.NoError(t, System{}.End(deadline(t, 5*time.Second), 0, other), "what has ended is ended")
	require.ErrorIs(t, System{}.Signal(other, syscall.SIGKILL), ErrGone)
	p, err := System{}.Lookup(id)
	require.NoError(t, err)
	require.False(t, p.State.Ended())
}

func TestWaitNamesWhatIsStillThere(t *testing.T) {
	id := spawn(t, "sleep", "60")
	err := System{}.Wait(deadline(t, 100*time.Millisecond), id)
	var stuck *StuckError
	require.ErrorAs(t, err, &stuck)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, stuck.Processes, 1)
	require.Contains(t, err.Error(), `"sleep 60"`)
}

func TestHoldersFindsARealChildByItsWorkingDirectory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	cmd := exec.Command("sleep", "60")
	cmd.Dir = dir
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	holders, err := System{}.Holders(dir)
	var hidden *HiddenError
	if err != nil {
		require.ErrorAs(t, err, &hidden)
		require.NotContains(t, hidden.PIDs, cmd.Process.Pid)
	}
	require.Len(t, holders, 1)
	require.Equal(t, cmd.Process.Pid, holders[0].PID)
	require.Equal(t, "working directory "+dir, holders[0].By)
}

func TestAProcessOfAContainerIsToldApart(t *testing.T) {
	require.False(t, System{}.Contained(os.Getpid()))
	require.False(t, System{}.Contained(spawn(t, "sleep", "60").PID))
	require.False(t, System{}.Contained(1<<30), "one that has gone is in no container")
	if os.Geteuid() != 0 {
		t.Skip("a pid namespace needs root")
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.True(t, System{}.Contained(cmd.Process.Pid))
}

func TestDeviceHoldersFindsWhoHasABlockDeviceOpen(t *testing.T) {
	devices, err := filepath.Glob("/dev/[lsv][od][oa]*")
	require.NoError(t, err)
	for _, dev := range devices {
		f, err := os.Open(dev)
		if err != nil {
			continue
		}
		defer f.Close()
		var st unix.Stat_t
		require.NoError(t, unix.Fstat(int(f.Fd()), &st))
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			continue
		}
		holders, _ := System{}.DeviceHolders(unix.Major(st.Rdev), unix.Minor(st.Rdev))
		for _, h := range holders {
			if h.PID == os.Getpid() {
				require.Equal(t, "open file "+dev, h.By)
				return
			}
		}
		t.Fatalf("%s is open here, but only %v was found", dev, holders)
	}
	t.Skip("no block device that this user may open")
}
