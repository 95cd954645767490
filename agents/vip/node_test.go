package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"baton/agents/internal/netnstest"
)

// binary is the built agent: these tests run it as the cluster does, as a process.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vip-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "vip")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
	m.Run()
}

// node is a machine of the cluster: a namespace, and its own HA_RSCTMP.
type node struct {
	*netnstest.NS
	t      testing.TB
	rsctmp string
	env    []string
}

func newNode(t testing.TB, name string) *node {
	t.Helper()
	n := &node{NS: netnstest.New(t, name), t: t, rsctmp: t.TempDir()}
	t.Cleanup(n.endAnnouncers)
	return n
}

// endAnnouncers ends the detached announcers of a test that does not stop what
// it has started, those too that have only just been started and hold no lock yet.
func (n *node) endAnnouncers() {
	netnstest.Eventually(n.t, "no announcer is left", func() bool {
		left := helpers(n.t, n.rsctmp)
		for _, h := range left {
			_ = unix.Kill(h.pid, unix.SIGKILL)
		}
		return len(left) == 0
	})
}

// helper is a process that the agent has left.
type helper struct {
	pid  int
	argv []string
}

// helpers are the agent's processes that were told of dir.
func helpers(t testing.TB, dir string) (list []helper) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range commands {
		b, err := os.ReadFile(file)
		argv := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
		if err != nil || len(argv) < 2 || argv[0] != "/proc/self/exe" || !strings.Contains(string(b), dir+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		require.NoError(t, err)
		list = append(list, helper{pid, argv})
	}
	return list
}

// result is how one call of the agent ended.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// reason is the text after the last ocf-exit-reason:, as Pacemaker reads it.
func (r result) reason() string {
	i := strings.LastIndex(r.stderr, "ocf-exit-reason:")
	if i < 0 {
		return ""
	}
	line, _, _ := strings.Cut(r.stderr[i+len("ocf-exit-reason:"):], "\n")
	return line
}

// environment is what Pacemaker sets for an action with these parameters.
func (n *node) environment(params []string) []string {
	env := []string{
		"PATH=/nonexistent", // no tool may be needed
		"OCF_ROOT=/usr/lib/ocf", "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
		"OCF_RESOURCE_INSTANCE=vip", "OCF_RESOURCE_TYPE=vip", "OCF_RESOURCE_PROVIDER=baton",
		"OCF_RESKEY_CRM_meta_timeout=20000", "HA_RSCTMP=" + n.rsctmp,
	}
	for _, p := range params {
		env = append(env, "OCF_RESKEY_"+p)
	}
	return append(env, n.env...)
}

// command prepares the agent to be run inside the node.
func (n *node) command(ctx context.Context, action string, params ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	cmd := exec.CommandContext(ctx, binary, action)
	cmd.Env = n.environment(params)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, &stdout, &stderr
}

// run calls the agent with parameters such as "ip=192.0.2.50" and waits for its end. The action
// "monitor" is a recurring one; "probe" is a monitor without interval.
func (n *node) run(action string, params ...string) result {
	n.t.Helper()
	switch action {
	case "monitor":
		params = append(params, "CRM_meta_interval=10000")
	case "probe":
		action = "monitor"
	}
	return n.call(n.environment(params), binary, action)
}

// call runs the agent inside the node with exactly this environment and these arguments.
func (n *node) call(env []string, path string, args ...string) result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	var err error
	n.Do(n.t, func() { err = cmd.Run() })
	r := result{stdout: stdout.String(), stderr: stderr.String(), took: time.Since(begin)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		n.t.Fatal(err)
	}
	n.t.Logf("%s: %s: %d in %v\n%s", n.Name, strings.Join(append(args, env...), " "), r.code, r.took.Round(time.Millisecond), r.stderr)
	return r
}

// want runs the agent and insists on its exit code; 0 must come without a reason.
func (n *node) want(code int, action string, params ...string) result {
	n.t.Helper()
	r := n.run(action, params...)
	require.Equal(n.t, code, r.code, "%s %v\n%s", action, params, r.stderr)
	if code == 0 {
		require.Empty(n.t, r.reason())
	}
	return r
}

// cluster is two nodes and a client at one switch, each with an address.
type cluster struct {
	a, b   *node
	client *netnstest.NS
}

func newCluster(t testing.TB) cluster {
	t.Helper()
	sw := netnstest.New(t, "switch")
	c := cluster{a: newNode(t, "a"), b: newNode(t, "b"), client: netnstest.New(t, "client")}
	sw.Veth(t, "pa", c.a.NS, "eth0")
	sw.Veth(t, "pb", c.b.NS, "eth0")
	sw.Veth(t, "pc", c.client, "eth0")
	sw.Bridge(t, "br0", "pa", "pb", "pc")
	for i, ns := range []*netnstest.NS{c.a.NS, c.b.NS, c.client} {
		ns.AddAddr(t, "eth0", fmt.Sprintf("192.0.2.%d/24", i+1))
		ns.AddAddr(t, "eth0", fmt.Sprintf("2001:db8::%d/64", i+1))
	}
	return c
}

// single is one node with a peer at the other end of its cable.
func single(t testing.TB) (n *node, peer *netnstest.NS) {
	t.Helper()
	n, peer = newNode(t, "node"), netnstest.New(t, "peer")
	n.Veth(t, "eth0", peer, "eth0")
	n.AddAddr(t, "eth0", "192.0.2.1/24")
	n.AddAddr(t, "eth0", "2001:db8::1/64")
	return n, peer
}

const (
	vip4 = "ip=192.0.2.50"
	vip6 = "ip=2001:db8::50"
)

var bothFamilies = []struct{ name, param, ip, cidr string }{
	{"IPv4", vip4, "192.0.2.50", "192.0.2.50/24"},
	{"IPv6", vip6, "2001:db8::50", "2001:db8::50/64"},
}

// isRoot skips tests that look at permissions.
func isRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("needs root")
	}
}
