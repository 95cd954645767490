package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"baton/agents/internal/mfsmeta"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"agent":          main,
		"mfsmaster":      fakeMaster,
		"mfsmetarestore": fakeRestore,
		"mfsmetalogger":  fakeMetalogger,
		"crm_attribute":  fakeCluster,
		"attrd_updater":  fakeCluster,
	})
}

// TestScripts runs the agent as a process over the fake MooseFS.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			port, err := freePort()
			if err != nil {
				return err
			}
			data := filepath.Join(env.WorkDir, "data")
			if err := os.MkdirAll(data, 0o755); err != nil {
				return err
			}
			user, err := ownName()
			if err != nil {
				return err
			}
			cfg := "DATA_PATH = " + data + "\nWORKING_USER = " + user + "\nCHANGELOG_SAVE_MODE = 2\nMATOCL_LISTEN_PORT = " + port + "\n"
			if err := os.WriteFile(filepath.Join(env.WorkDir, "mfsmaster.cfg"), []byte(cfg), 0o644); err != nil {
				return err
			}
			// A program built with -race sleeps one second as it exits, each of a script's many.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			for name, value := range map[string]string{
				"OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1",
				"OCF_RESOURCE_INSTANCE": "mfs", "HA_RSCTMP": filepath.Join(env.WorkDir, "rsctmp"),
				"OCF_RESKEY_config": filepath.Join(env.WorkDir, "mfsmaster.cfg"), "OCF_RESKEY_require_mount": "false",
				"OCF_RESKEY_CRM_meta_timeout": "20000", "OCF_RESKEY_info_timeout": "2", "HA_LOGFACILITY": "none",
				"FAKE_LOG": filepath.Join(env.WorkDir, "asked"), "FAKE_VERSION": "4.58.4-1",
			} {
				env.Setenv(name, value)
			}
			env.Defer(func() { endFake(t, data) })
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ocf": ocfCommand, "metadata": metadataCommand, "version": versionCommand, "kill9": func(ts *testscript.TestScript, _ bool, _ []string) {
				endFake(t, ts.MkAbs("data"))
			},
		},
	})
}

// ownName is the user that the tests run as.
func ownName() (string, error) {
	if os.Geteuid() == 0 {
		return "root", nil
	}
	out, err := exec.Command("id", "-un").Output()
	return strings.TrimSpace(string(out)), err
}

// freePort finds a port that nobody uses at the moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// endFake kills the fake master that holds the lock of a script's directory.
func endFake(t *testing.T, dir string) {
	t.Helper()
	endLocked(t, dir, mfsmeta.MasterLock)
}

// endLocked kills the owner of a lock.
func endLocked(t *testing.T, dir, lock string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-tick.C {
		pid, err := mfsmeta.LockOwner(dir, lock)
		if err != nil || pid <= 0 {
			return
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	t.Error("the owner of " + lock + " does not die")
}

// ocfCommand runs the agent and compares its exit code: ocf CODE ACTION.
func ocfCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ocf CODE ACTION")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("agent", args[1])
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("%s: exit code %d, want %d", args[1], code, want)
	}
}

// metadataCommand writes a metadata file: metadata FORMAT FILE VERSION.
func metadataCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: metadata FORMAT FILE VERSION")
	}
	version, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	data := []byte(meta(version, 7))
	if args[0] == "1.5" {
		data = append([]byte("MFSM 1.5\x00\x00\x00\x64"), data[8:16]...)
		data = append(data, 0, 0, 0, 7, 'b')
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o644))
}

// versionCommand compares the version of a metadata file: version FILE VERSION.
func versionCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: version FILE VERSION")
	}
	h, err := mfsmeta.ReadHeader(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := strconv.FormatUint(h.Version, 10); got != args[1] {
		ts.Fatalf("%s has version %s, want %s", args[0], got, args[1])
	}
}
