package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// TestScripts runs testdata/script/*.txtar, each on a node of its own that has eth0
// (192.0.2.1/24, 2001:db8::1/64) and eth1 (198.51.100.1/24). Their commands:
//
//	vip CODE ACTION [NAME=VALUE]...   the cluster calls the agent; "monitor" is a recurring one,
//	                                  "probe" a first one; CODE is the exact exit code
//	heartbeat CODE ARG...             heartbeat calls it, by its link in resource.d
//	hand CODE ARG...                  a person calls it
//	addr add|del NIC CIDR             somebody else changes an address
//	link up|down|vanish NIC
//	addrs NIC                         writes the interface's addresses to the file addrs
//
// The first three write the files stdout, stderr and reason.
func TestScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, scripts)
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			n, peer := single(t)
			n.Veth(t, "eth1", peer, "eth1")
			n.AddAddr(t, "eth1", "198.51.100.1/24")
			s := script{n}
			testscript.Run(t, testscript.Params{
				Files: []string{file}, RequireExplicitExec: true,
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"vip": s.vip, "heartbeat": s.heartbeat, "hand": s.hand, "addr": s.addr, "link": s.link, "addrs": s.addrs,
				},
			})
		})
	}
}

type script struct{ n *node }

// told compares the exit code, keeps what was said, and insists on one line of reason at most.
func told(ts *testscript.TestScript, args []string, r result) {
	for name, text := range map[string]string{"stdout": r.stdout, "stderr": r.stderr, "reason": r.reason()} {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Logf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	if r.code != want {
		ts.Fatalf("exit code %d, expected %d", r.code, want)
	}
	// heartbeat reads a status from standard output.
	silent := want == 0 || want == 7 || args[len(args)-1] == "status"
	if n := strings.Count(r.stderr, "ocf-exit-reason:"); n > 1 || n == 0 && !silent {
		ts.Fatalf("%d lines of reason", n)
	}
}

func (s script) vip(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: vip CODE ACTION [NAME=VALUE]...")
	}
	told(ts, args, s.n.run(args[1], args[2:]...))
}

func (s script) heartbeat(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs("ha.d/resource.d")
	ts.Check(os.MkdirAll(dir, 0o755))
	link := filepath.Join(dir, "vip")
	if _, err := os.Lstat(link); err != nil {
		ts.Check(os.Symlink(binary, link))
	}
	told(ts, args, s.n.call([]string{"HA_RSCTMP=" + s.n.rsctmp}, link, args[1:]...))
}

func (s script) hand(ts *testscript.TestScript, _ bool, args []string) {
	told(ts, args, s.n.call([]string{"HA_RSCTMP=" + s.n.rsctmp}, binary, args[1:]...))
}

func (s script) addr(ts *testscript.TestScript, _ bool, args []string) {
	switch args[0] {
	case "add":
		s.n.AddAddr(s.n.t, args[1], args[2])
	case "del":
		s.n.DelAddr(s.n.t, args[1], args[2])
	default:
		ts.Fatalf("addr %s?", args[0])
	}
}

func (s script) link(ts *testscript.TestScript, _ bool, args []string) {
	switch args[0] {
	case "up":
		s.n.Up(s.n.t, args[1])
	case "down":
		s.n.Down(s.n.t, args[1])
	case "vanish":
		s.n.Delete(s.n.t, args[1])
	default:
		ts.Fatalf("link %s?", args[0])
	}
}

func (s script) addrs(ts *testscript.TestScript, _ bool, args []string) {
	list := strings.Join(s.n.Addrs(s.n.t, args[0], false), "\n") + "\n"
	ts.Check(os.WriteFile(ts.MkAbs("addrs"), []byte(list), 0o600))
}
