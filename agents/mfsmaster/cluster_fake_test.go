package main

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"baton/agents/internal/mfsmeta"
	"baton/tests/fakecluster"
)

// fakeCluster is Pacemaker's tools over the directory FAKE_CLUSTER, or a cluster that fails.
func fakeCluster() {
	cluster := fakecluster.Cluster{Dir: os.Getenv("FAKE_CLUSTER"), Broken: os.Getenv("FAKE_CLUSTER_BROKEN"), Set: func(kind, _, value string) {
		if kind == "property" {
			mark, _ := os.ReadFile(os.Getenv("FAKE_MARK"))
			note("record %s while the mark is %q", value, strings.TrimSpace(string(mark)))
		}
	}}
	if code := cluster.Run(filepath.Base(os.Args[0]), os.Args[1:], os.Stdout, os.Stderr); code != 0 {
		exit(code)
	}
}

// fakeMetalogger is mfsmetalogger: it holds its lock and follows nobody. What it would have
// downloaded is put there by the script.
func fakeMetalogger() {
	var config string
	for i := 1; i+1 < len(os.Args); i++ {
		if os.Args[i] == "-c" {
			config = os.Args[i+1]
		}
	}
	cfg, err := mfsmeta.ReadConfig(config)
	must(err)
	if os.Getenv("FAKE_DAEMON") == "" {
		detach(config, "", "1")
		return
	}
	lock, err := os.OpenFile(filepath.Join(cfg.DataPath(), mfsmeta.MetaloggerLock), os.O_CREATE|os.O_RDWR, 0o644)
	must(err)
	// With -t it waits for the lock of one that is just ending.
	must(unix.FcntlFlock(lock.Fd(), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}))
	_, err = os.NewFile(3, "ready").Write([]byte{1})
	must(err)
	select {}
}

// TestClusterScripts runs the agent as the instances of a promotable clone, over the fake MooseFS and
// the fake cluster: "node a" and "node b" say on which one the next actions run.
func TestClusterScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/cluster",
		Setup: func(env *testscript.Env) error {
			port, err := freePort()
			if err != nil {
				return err
			}
			user, err := ownName()
			if err != nil {
				return err
			}
			for _, dir := range []string{"cluster", "a/data", "a/logger", "b/data", "b/logger"} {
				if err := os.MkdirAll(filepath.Join(env.WorkDir, dir), 0o755); err != nil {
					return err
				}
			}
			for _, node := range []string{"a", "b"} {
				dir := filepath.Join(env.WorkDir, node)
				for name, text := range map[string]string{
					"mfsmaster.cfg":     "DATA_PATH = " + dir + "/data\nCHANGELOG_SAVE_MODE = 2\nMATOCL_LISTEN_PORT = " + port + "\n",
					"mfsmetalogger.cfg": "DATA_PATH = " + dir + "/logger\nMASTER_HOST = 127.0.0.1\n",
				} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"WORKING_USER = "+user+"\n"), 0o644); err != nil {
						return err
					}
				}
				env.Defer(func() { endFakes(t, dir) })
			}
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			for name, value := range map[string]string{
				"OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1",
				"OCF_RESOURCE_INSTANCE": "mfs", "OCF_RESKEY_mode": "metaloggers", "OCF_RESKEY_CRM_meta_timeout": "20000",
				"OCF_RESKEY_CRM_meta_notify": "true", "OCF_RESKEY_CRM_meta_clone_max": "2", "OCF_RESKEY_info_timeout": "2",
				"HA_LOGFACILITY": "none", "FAKE_LOG": filepath.Join(env.WorkDir, "asked"), "FAKE_VERSION": "4.58.4-1",
				"FAKE_CLUSTER": filepath.Join(env.WorkDir, "cluster"),
			} {
				env.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ocf": ocfCommand, "metadata": metadataCommand, "version": versionCommand,
			"node": nodeCommand, "recurring": recurringCommand, "aged": agedCommand, "changes": changesCommand,
			"promoted": promotedCommand, "score": scoreCommand,
			"kill9": func(ts *testscript.TestScript, _ bool, args []string) { endFakes(t, ts.MkAbs(args[0])) },
		},
	})
}

func endFakes(t *testing.T, dir string) {
	t.Helper()
	endLocked(t, filepath.Join(dir, "data"), mfsmeta.MasterLock)
	endLocked(t, filepath.Join(dir, "logger"), mfsmeta.MetaloggerLock)
}

// nodeCommand: node NAME.
func nodeCommand(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Setenv("OCF_RESKEY_CRM_meta_on_node", args[0])
	ts.Setenv("OCF_RESKEY_config", filepath.Join(dir, "mfsmaster.cfg"))
	ts.Setenv("OCF_RESKEY_metalogger_config", filepath.Join(dir, "mfsmetalogger.cfg"))
	ts.Setenv("HA_RSCTMP", filepath.Join(dir, "rsctmp"))
	ts.Setenv("FAKE_MARK", filepath.Join(dir, "data", epochMark))
}

// recurringCommand is a recurring monitor: recurring CODE [DEPTH].
func recurringCommand(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv("OCF_RESKEY_CRM_meta_interval", "10000")
	ts.Setenv("OCF_CHECK_LEVEL", strings.Join(args[1:], ""))
	ocfCommand(ts, neg, []string{args[0], "monitor"})
	ts.Setenv("OCF_RESKEY_CRM_meta_interval", "")
	ts.Setenv("OCF_CHECK_LEVEL", "")
}

// promotedCommand tells this node that another was promoted: promoted NODE.
func promotedCommand(ts *testscript.TestScript, neg bool, args []string) {
	vars := map[string]string{"type": "post", "operation": "promote", "promote_resource": "mfs:0", "promote_uname": args[0]}
	for name, value := range vars {
		ts.Setenv("OCF_RESKEY_CRM_meta_notify_"+name, value)
	}
	ocfCommand(ts, neg, []string{"0", "notify"})
	for name := range vars {
		ts.Setenv("OCF_RESKEY_CRM_meta_notify_"+name, "")
	}
}

// agedCommand makes a node's own record as old as time would: aged NODE RECORD DURATION.
func agedCommand(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[2])
	ts.Check(err)
	then := time.Now().Add(-d)
	ts.Check(os.Chtimes(ts.MkAbs(filepath.Join(args[0], "rsctmp/baton/mfsmaster-mfs."+args[1])), then, then))
}

// changesCommand adds changes to a changelog: changes FILE FROM TO.
func changesCommand(ts *testscript.TestScript, _ bool, args []string) {
	from, err1 := strconv.Atoi(args[1])
	to, err2 := strconv.Atoi(args[2])
	ts.Check(err1)
	ts.Check(err2)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteString(changes(from, to))
	ts.Check(err)
}

// scoreCommand compares a node's promotion score: score NODE SCORE, 0 for none.
func scoreCommand(ts *testscript.TestScript, neg bool, args []string) {
	got := "0"
	if data, err := os.ReadFile(ts.MkAbs("cluster/score@" + args[0] + "@mfs")); err == nil {
		got = string(data)
	}
	if (got == args[1]) == neg {
		ts.Fatalf("node %s has the score %s", args[0], got)
	}
}
