package command

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sh runs a script as the child: the tools of the agents are scripts and forking programs, too.
func sh(ctx context.Context, r Runner, script string, args ...string) (Result, error) {
	return r.Run(ctx, "sh", append([]string{"-c", script, "sh"}, args...)...)
}

// eventually polls until ok holds, or fails the test after five seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 5*time.Second, 10*time.Millisecond, what)
}

// gone: the process has ended; one that awaits its reaper counts as ended.
func gone(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return true
	}
	// pid (comm) state …: proc_pid_stat(5)
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	return bytes.HasPrefix(rest, []byte(" Z")) || bytes.HasPrefix(rest, []byte(" X"))
}

func readPid(t *testing.T, file string) int {
	t.Helper()
	var pid int
	eventually(t, "a process id in "+file, func() bool {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.HasSuffix(text, []byte("\n")) {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return pid
}

func TestRunGivesTheArgumentsAsTheyAreAndBothStreams(t *testing.T) {
	res, err := sh(t.Context(), Runner{}, `printf '%s|' "$@"; echo said >&2`, "a b", "$(x)", "*", "", "new\nline")
	require.NoError(t, err)
	require.Equal(t, "a b|$(x)|*||new\nline|", string(res.Stdout))
	require.Equal(t, "said\n", string(res.Stderr))
}

func TestTheChildHasTheCLocaleTheAddedEnvironmentAndNoInput(t *testing.T) {
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	t.Setenv("KEPT", "1")
	res, err := sh(t.Context(), Runner{Env: []string{"ADDED=2", "KEPT=3"}}, `echo $LC_ALL $KEPT $ADDED; cat`)
	require.NoError(t, err)
	require.Equal(t, "C 3 2\n", string(res.Stdout))

	res, err = Runner{}.RunInput(t.Context(), []byte("given"), "cat")
	require.NoError(t, err)
	require.Equal(t, "given", string(res.Stdout))
}

func TestHowAChildFailedIsInTheErrorAndItsCode(t *testing.T) {
	for _, c := range []struct {
		script string
		code   int
		signal syscall.Signal
		text   string
	}{
		{"exit 3", 3, 0, "exit code 3"},
		{"echo one >&2; echo the reason >&2; exit 20", 20, 0, "exit code 20 (the reason)"},
		{"kill -TERM $$", -1, syscall.SIGTERM, "ended by signal 15 (terminated)"},
		{"echo last words >&2; kill -SEGV $$", -1, syscall.SIGSEGV, "ended by signal 11 (segmentation fault) (last words)"},
	} {
		_, err := sh(t.Context(), Runner{}, c.script)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, c.code, e.Code, c.script)
		require.Equal(t, c.signal, e.Signal, c.script)
		require.NoError(t, e.Err)
		require.Equal(t, "sh -c "+c.script+" sh: "+c.text, err.Error())
		require.Equal(t, c.code, Code(err))
		require.False(t, e.NotInstalled())
	}
	require.Equal(t, 0, Code(nil))
	require.Equal(t, -1, Code(errors.New("another")))
	require.Equal(t, 4, Code(errors.Join(errors.New("outer"), &Error{Code: 4})))
}

func TestAToolThatIsNotThereIsToldFromOneThatFailed(t *testing.T) {
	_, err := Runner{}.Run(t.Context(), "no-such-tool-anywhere")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, -1, Code(err))
	var e *Error
	require.ErrorAs(t, err, &e)
	require.True(t, e.NotInstalled())
	require.Contains(t, err.Error(), "no-such-tool-anywhere")
	require.Contains(t, err.Error(), "/usr/sbin", "where it was looked for")

	_, err = Runner{}.Run(t.Context(), "/proc/none/tool")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Runner{}.Detach("no-such-tool-anywhere")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestToolsAreFoundInTheGivenDirectoriesThenPATHThenSbin(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	tool := func(dir, name string, mode os.FileMode) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode))
	}
	tool(first, "both", 0o755)
	tool(second, "both", 0o755)
	tool(second, "only", 0o755)
	tool(first, "only", 0o644)
	require.NoError(t, os.Mkdir(filepath.Join(first, "sh"), 0o755))
	t.Setenv("PATH", "relative::"+second)
	r := Runner{Path: []string{first}}
	for name, want := range map[string]string{
		"both": filepath.Join(first, "both"),
		"only": filepath.Join(second, "only"), // the first is no program
		"sh":   "/bin/sh",                     // the first is a directory; PATH has no /bin
	} {
		got, err := r.Look(name)
		require.NoError(t, err)
		if name == "sh" {
			require.Contains(t, []string{"/usr/bin/sh", "/bin/sh", "/sbin/sh", "/usr/sbin/sh"}, got)
			continue
		}
		require.Equal(t, want, got)
	}
	t.Chdir(first)
	t.Setenv("PATH", ".")
	_, err := Runner{}.Look("both")
	require.ErrorIs(t, err, fs.ErrNotExist, "never from the directory that happens to be the current one")
	_, err = Runner{}.Look(filepath.Join(first, "only"))
	require.ErrorIs(t, err, fs.ErrPermission)
}

func TestAtTheDeadlineTheWholeGroupOfTheChildIsKilled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := sh(ctx, Runner{}, `trap '' TERM; (trap '' TERM; sleep 1000) & echo $! >"$1"; wait`, file)
		ended <- err
	}()
	grandchild := readPid(t, file)
	require.False(t, gone(grandchild))
	begin := time.Now()
	cancel()
	err := <-ended
	require.Less(t, time.Since(begin), 3*time.Second)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, -1, Code(err))
	eventually(t, "the end of the grandchild", func() bool { return gone(grandchild) })
}

func TestTheDeadlineIsToldInOneLine(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := sh(ctx, Runner{}, "echo waiting for the lock >&2; exec sleep 1000")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, "sh -c echo waiting for the lock >&2; exec sleep 1000 sh: not finished at the deadline (waiting for the lock)", err.Error())

	_, err = Runner{}.Run(ctx, "true")
	require.ErrorIs(t, err, context.DeadlineExceeded, "nothing is begun after the deadline")
}

func TestAChildThatEndedByItselfKeepsItsCodeAtTheVeryDeadline(t *testing.T) {
	cmd := exec.Command("sh", "-c", "exit 7")
	failed := cmd.Run()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, 7, Code(wrap(ctx, []string{"sh"}, cmd, nil, failed)))
}

// io.Copy would fill a bytes.Buffer through its ReadFrom, past every limit of a Write.
func TestOfHugeOutputTheFirstMegabytesAreKept(t *testing.T) {
	res, err := sh(t.Context(), Runner{}, `head -c 6000000 /dev/zero; head -c 6000000 /dev/zero >&2`)
	require.NoError(t, err)
	require.Len(t, res.Stdout, maxOutput)
	require.Len(t, res.Stderr, maxOutput)
}

func TestAnErrorStaysShortWhateverTheArguments(t *testing.T) {
	_, err := Runner{}.Run(t.Context(), "false", strings.Repeat("漢", 30_000))
	require.Less(t, len(err.Error()), 300)
	require.Regexp(t, `^false 漢+…: exit code 1$`, err.Error())
}

// mfsmaster, rpc.mountd and others leave a daemon behind that may hold the pipes.
func TestADaemonThatKeepsThePipesOpenDoesNotKeepTheAgent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	begin := time.Now()
	res, err := sh(t.Context(), Runner{}, `setsid sleep 1000 & echo $! >"$1"; echo started`, file)
	require.NoError(t, err)
	require.Less(t, time.Since(begin), 3*time.Second)
	require.Equal(t, "started\n", string(res.Stdout))
	daemon := readPid(t, file)
	require.False(t, gone(daemon), "it lives on")
	require.NoError(t, syscall.Kill(daemon, syscall.SIGKILL))

	_, err = sh(t.Context(), Runner{}, `setsid sleep 1000 & echo $! >"$1"; exit 5`, file+"2")
	require.Equal(t, 5, Code(err), "its starter's exit code counts")
	require.NoError(t, syscall.Kill(readPid(t, file+"2"), syscall.SIGKILL))
}

// asAgent makes this test's binary an agent of its own process.
const asAgent = "COMMAND_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	switch file := os.Getenv(asAgent); {
	case file == "":
		m.Run()
	case os.Getenv("DETACH") != "":
		_, _ = Runner{}.Detach("sh", "-c", `echo $$ >"$1"; exec sleep 1000`, "sh", file)
	default:
		_, _ = Runner{}.Run(context.Background(), "sh", "-c", `echo $$ >"$1"; exec sleep 1000`, "sh", file)
	}
}

// agent starts this binary as an agent and gives it and its child's process id.
func agent(t *testing.T, environ ...string) (*exec.Cmd, int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(environ, asAgent+"="+file)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as Pacemaker's executor does
	require.NoError(t, cmd.Start())
	pid := readPid(t, file)
	t.Cleanup(func() {
		if !gone(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return cmd, pid
}

// Pacemaker kills the process group of the agent at its timeout; the child is in another.
func TestAChildDiesWithAnAgentThatIsKilled(t *testing.T) {
	cmd, child := agent(t)
	require.False(t, gone(child))
	require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
	_ = cmd.Wait()
	eventually(t, "the end of the child", func() bool { return gone(child) })
}

func TestADetachedProcessOutlivesTheAgentAndItsGroup(t *testing.T) {
	cmd, helper := agent(t, "DETACH=1")
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
	eventually(t, "a session of its own, at the root, with no streams", func() bool {
		sid, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(helper), 0, 0)
		if errno != 0 || int(sid) != helper {
			return false
		}
		for _, link := range []struct{ name, want string }{
			{"cwd", "/"}, {"fd/0", os.DevNull}, {"fd/1", os.DevNull}, {"fd/2", os.DevNull},
		} {
			if to, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(helper), link.name)); err != nil || to != link.want {
				return false
			}
		}
		return true
	})
	require.False(t, gone(helper))
}
