package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"baton/ocf"
)

func TestMain(m *testing.M) {
	commands := map[string]func(){
		"drbd": func() { os.Exit(ocf.Run(program(rootDir()))) }, //nolint:forbidigo // the agent's main function in the scripts
	}
	for _, tool := range []string{"modprobe", "drbdsetup", "drbdadm", "crm_attribute", "crm_master", "attrd_updater", "crm_mon", "cibadmin"} {
		commands[tool] = fakeTool(tool)
	}
	testscript.Main(m, commands)
}

// Each script runs the agent as a process of its own, among fake tools that keep state.
//
//	machine FIELD=VALUE …  changes the model (see machine); lists are separated by commas
//	ocf CODE drbd ACTION   runs the agent and compares its exit code
//	is FIELD=VALUE …       compares the model
//	called TEXT [COUNT]    counts the calls of tools that begin with the text
//	took TIME              the last run of the agent took no longer
//	forget                 forgets the calls
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			root := filepath.Join(env.WorkDir, "root")
			if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(root, "etc/drbd.conf"), nil, 0o600); err != nil {
				return err
			}
			boot := filepath.Join(root, "proc/sys/kernel/random")
			if err := os.MkdirAll(boot, 0o755); err != nil {
				return err
			}
			// A program built with -race sleeps one second as it exits, each of a script's many.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("FAKE_ROOT", root)
			for name, value := range map[string]string{
				"OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RESOURCE_INSTANCE": "drbd_r0",
				"OCF_RESKEY_drbd_resource": "r0", "OCF_RESKEY_CRM_meta_on_node": "n1", "OCF_RESKEY_CRM_meta_timeout": "20000",
				"OCF_RESKEY_wfc_timeout": "0", "HA_RSCTMP": filepath.Join(env.WorkDir, "tmp"), "HA_LOGFILE": filepath.Join(env.WorkDir, "log"),
			} {
				env.Setenv(name, value)
			}
			return os.WriteFile(filepath.Join(boot, "boot_id"), []byte("boot-1\n"), 0o600)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"machine": cmdMachine, "ocf": cmdOCF, "is": cmdIs, "called": cmdCalled, "forget": cmdForget, "took": cmdTook,
		},
	})
}

// model loads and stores the machine of a script, which lives in another process's environment.
func model(ts *testscript.TestScript, change func(*machine)) {
	m := load(ts.Getenv("FAKE_ROOT"))
	change(m)
	m.store()
}

func cmdMachine(ts *testscript.TestScript, _ bool, args []string) {
	model(ts, func(m *machine) {
		for _, arg := range args {
			name, value, _ := strings.Cut(arg, "=")
			ts.Check(set(reflect.ValueOf(m).Elem().FieldByName(name), value))
		}
	})
}

func set(field reflect.Value, value string) error {
	switch {
	case !field.IsValid():
		return errors.New("no such field")
	case field.Kind() == reflect.String:
		field.SetString(value)
	case field.Kind() == reflect.Bool:
		field.SetBool(value == "true")
	case field.Kind() == reflect.Int:
		n, err := strconv.Atoi(value)
		field.SetInt(int64(n))
		return err
	default:
		field.Set(reflect.ValueOf(strings.Split(value, ",")))
	}
	return nil
}

func cmdIs(ts *testscript.TestScript, _ bool, args []string) {
	model(ts, func(m *machine) {
		for _, arg := range args {
			name, want, _ := strings.Cut(arg, "=")
			got := fmt.Sprint(reflect.ValueOf(m).Elem().FieldByName(name))
			if got = strings.ReplaceAll(strings.Trim(got, "[]"), " ", ","); got != want {
				ts.Fatalf("%s is %q, expected %q\n%s", name, got, want, strings.Join(m.Calls, "\n"))
			}
		}
	})
}

func cmdCalled(ts *testscript.TestScript, neg bool, args []string) {
	model(ts, func(m *machine) {
		n := 0
		for _, call := range m.Calls {
			if strings.HasPrefix(call, args[0]) {
				n++
			}
		}
		want := -1
		if len(args) > 1 {
			want, _ = strconv.Atoi(args[1])
		}
		if neg && n > 0 || !neg && n == 0 && want != 0 || want >= 0 && n != want {
			ts.Fatalf("%q was called %d times; calls:\n%s", args[0], n, strings.Join(m.Calls, "\n"))
		}
	})
}

func cmdForget(ts *testscript.TestScript, _ bool, _ []string) {
	model(ts, func(m *machine) { m.Calls = nil })
}

// cmdOCF runs a command and compares its exact exit code.
func cmdOCF(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	begin := time.Now()
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case errors.Is(err, context.DeadlineExceeded):
		ts.Fatalf("%v did not end", args[1:])
	case err != nil:
		ts.Fatalf("%v: %v", args[1:], err)
	}
	if code != want {
		ts.Fatalf("%v: exit code %d, expected %d\n%s", args[1:], code, want, ts.ReadFile("stderr"))
	}
	took := time.Since(begin).Round(time.Millisecond)
	ts.Setenv("TOOK", took.String())
	ts.Logf("%v took %v", args[1:], took)
}

func cmdTook(ts *testscript.TestScript, _ bool, args []string) {
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	took, err := time.ParseDuration(ts.Getenv("TOOK"))
	ts.Check(err)
	if took > limit {
		ts.Fatalf("it took %v, expected at most %v", took, limit)
	}
}

func TestModelSurvivesItsFile(t *testing.T) {
	data, err := json.Marshal(fresh())
	if err != nil {
		t.Fatal(err)
	}
	var m machine
	if err := json.Unmarshal(data, &m); err != nil || !reflect.DeepEqual(&m, fresh()) {
		t.Fatalf("%+v, %v", m, err)
	}
}
