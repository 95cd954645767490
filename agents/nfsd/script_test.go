package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"baton/ocf"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"nfsd": func() { os.Exit(ocf.Run(program(os.Getenv("FAKE_ROOT")))) }, //nolint:forbidigo // the agent's main function in the scripts
	})
}

// Each script runs the agent as a process of its own on a machine of plain files below root/.
//
//	ocf CODE nfsd ARG …   runs the agent and compares its exit code
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			root := filepath.Join(env.WorkDir, "root")
			for _, dir := range []string{"proc/self", "proc/sys/kernel/random", "data/share"} {
				if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
					return err
				}
			}
			// A program built with -race sleeps one second as it exits, each of a script's many.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("FAKE_ROOT", root)
			env.Setenv("HA_RSCTMP", filepath.Join(env.WorkDir, "tmp"))
			env.Setenv("HA_LOGFILE", filepath.Join(env.WorkDir, "log"))
			table := "28 1 254:1 / / rw - ext4 /dev/vda1 rw\n41 28 147:0 / /data rw - ext4 /dev/drbd0 rw\n"
			return os.WriteFile(filepath.Join(root, "proc/self/mountinfo"), []byte(table), 0o600)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ocf": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				err = ts.Exec(args[1], args[2:]...)
				code := 0
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if code != want {
					ts.Fatalf("exit code %d, expected %d", code, want)
				}
			},
		},
	})
}
