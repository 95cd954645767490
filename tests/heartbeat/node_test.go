//go:build real

package heartbeat

import (
	"context"
	"errors"
	"fmt"
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

// space is a process that holds namespaces open: a switch, or a node.
type space struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	pid  int
	join []string // nsenter's options
}

// newSpace starts the process. It dies with the test, also when the test is killed, and with a
// node's process die all processes of the node: that is its power loss.
func newSpace(t *testing.T, name string, flags uintptr, join ...string) *space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	// As the first process of a node it must reap: heartbeat -k waits until its daemon is no zombie.
	cmd := exec.Command("sh", "-c", "sleep infinity & wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	s := &space{t: t, name: name, cmd: cmd, pid: cmd.Process.Pid, join: append([]string{"-t", strconv.Itoa(cmd.Process.Pid)}, join...)}
	t.Cleanup(s.end)
	return s
}

func (s *space) end() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// run runs a command line of sh inside.
func (s *space) run(script string, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append(s.join, "sh", "-c", script)...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *space) sh(script string, env ...string) string {
	s.t.Helper()
	out, err := s.run(script, env...)
	require.NoErrorf(s.t, err, "%s: %s\n%s", s.name, script, out)
	return strings.TrimSpace(out)
}

// newSwitch is the network between the nodes, with the router 192.0.2.1 that they ping on it.
func newSwitch(t *testing.T) *space {
	t.Helper()
	s := newSpace(t, "switch", syscall.CLONE_NEWNET, "-n")
	s.sh("ip link add lan type bridge && ip addr add 192.0.2.1/24 dev lan && ip link set lan up && " +
		"ip link add repl type bridge && ip link set repl up && ip link set lo up")
	return s
}

// node is a machine made of namespaces: its own network, host name, processes, /etc/ha.d,
// /var/lib/heartbeat, /var/log and /run. Its programs are this machine's.
type node struct {
	*space
	dir   string
	octet int
}

// newNode starts a node with the agents of a directory linked into resource.d.
func newNode(t *testing.T, sw *space, name string, octet int, agents string) *node {
	t.Helper()
	if _, err := os.Stat("/usr/share/heartbeat/ResourceManager"); err != nil {
		t.Skip("heartbeat is not installed here: sh tests/install-packages")
	}
	const flags = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC
	n := &node{space: newSpace(t, name, flags, "-m", "-n", "-u", "-p", "-i"), dir: t.TempDir(), octet: octet}
	require.NoError(t, os.Chmod(n.dir, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(n.dir), 0o755))
	require.NoError(t, os.CopyFS(filepath.Join(n.dir, "agents"), os.DirFS(agents)))
	n.sh(fmt.Sprintf(`set -e
		hostname %[1]s
		mount --make-rprivate /
		mount -t proc none /proc
		cd %[2]s
		mkdir log ha.d lib
		cp -a /etc/ha.d/. ha.d/; mount --bind ha.d /etc/ha.d
		cp -a /var/lib/heartbeat/. lib/; mount --bind lib /var/lib/heartbeat
		mount --bind log /var/log
		mount -t tmpfs none /run
		mkdir -p /run/heartbeat/ccm /run/heartbeat/dopd /run/resource-agents
		chown -R hacluster:haclient /run/heartbeat
		for a in %[2]s/agents/*; do chmod 755 $a; ln -sfn $a /etc/ha.d/resource.d/${a##*/}; done
		ip link set lo up`, name, n.dir))
	for i, bridge := range []string{"lan", "repl"} {
		port := bridge[:1] + name
		sw.sh(fmt.Sprintf("ip link add %[1]s type veth peer name eth%[2]d netns %[3]d && ip link set %[1]s master %[4]s up", port, i, n.pid, bridge))
		n.sh(fmt.Sprintf("ip addr add %[1]s.%[2]d/24 dev eth%[3]d && ip link set eth%[3]d up", []string{"192.0.2", "198.51.100"}[i], octet, i))
	}
	return n
}

// write puts a file into the node's /etc/ha.d.
func (n *node) write(name string, mode os.FileMode, text string) {
	n.t.Helper()
	path := filepath.Join(n.dir, "ha.d", name)
	require.NoError(n.t, os.WriteFile(path, []byte(text), mode))
	require.NoError(n.t, os.Chmod(path, mode))
}

// log reads one of the node's logs; it is empty before its first line.
func (n *node) log(name string) string {
	text, err := os.ReadFile(filepath.Join(n.dir, "log", name))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(n.t, err)
	}
	return string(text)
}

// holds reports whether the address is on eth0.
func (n *node) holds(ip string) bool {
	n.t.Helper()
	out, err := n.run("ip -o addr show dev eth0")
	return err == nil && strings.Contains(out, " "+ip+"/")
}

// eventually polls until the state is reached and tells how long that took.
func eventually(t *testing.T, within time.Duration, what string, reached func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !reached() {
		if time.Since(began) > within {
			require.FailNowf(t, "not reached", "%s within %v", what, within)
		}
		<-ticker.C
	}
	return time.Since(began)
}

// build builds agents as `make build` does and returns the directory.
func build(t *testing.T, agents ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, agent := range agents {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, agent), "./agents/"+agent)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, string(said))
	}
	return dir
}

func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, "crm-examples", name))
	require.NoError(t, err)
	return string(text)
}
