package ocftester

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// everyAgent says that an agent that does not build fails the tests instead of being left out.
const everyAgent = true

// sample is what is known here of an agent beyond what it says itself: values that would be
// right, and one that cannot name anything of its kind.
type sample struct {
	good map[string]string
	// identity is the parameter that names the thing managed, hopeless a value that names none.
	identity, hopeless string
	// positional is a haresources form.
	positional []string
}

var samples = map[string]sample{
	"vip": {
		good:     map[string]string{"ip": "192.0.2.50", "cidr_netmask": "24", "nic": "eth0"},
		identity: "ip", hopeless: "999.0.2.50", positional: []string{"192.0.2.50/24/eth0"},
	},
	"drbd": {
		good:     map[string]string{"drbd_resource": "r0"},
		identity: "drbd_resource", hopeless: "../r0", positional: []string{"r0"},
	},
	"nfsd": {
		good:     map[string]string{"nfs_shared_infodir": "/srv/replicated/nfs", "exports": "/srv/replicated/share *(rw,fsid=1)"},
		identity: "nfs_shared_infodir", hopeless: "relative/path", positional: nil,
	},
	"mfsmaster": {
		good:     map[string]string{"data_dir": "/srv/replicated/mfs"},
		identity: "data_dir", hopeless: "relative/path", positional: []string{"/srv/replicated/mfs"},
	},
}

// agent is one built agent and its own description.
type agent struct {
	sample
	name, file string
	doc        []byte
	params     []param
	actions    []action
}

type param struct {
	name, kind, fallback string
	required             bool
	options              []string
}

type action struct {
	name, timeout, role string
}

// bin holds the built agents; TestMain fills it.
var bin string

// agents are those that were built.
var agents []*agent

// unbuilt are those that were not, and why.
var unbuilt = map[string]string{}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "baton-agents-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // nobody shall call them as well
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bin = dir
	for _, name := range []string{"drbd", "mfsmaster", "nfsd", "vip"} {
		if a, err := prepare(name); err != nil {
			unbuilt[name] = err.Error()
		} else {
			agents = append(agents, a)
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build compiles an agent as `make build` does.
func build(name, file string, environ ...string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X baton/ocf.version=v0.0.0-test", "-o", file, "./agents/"+name)
	cmd.Dir = root
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), environ...)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s does not build: %w\n%s", name, err, said)
	}
	return nil
}

func prepare(name string) (*agent, error) {
	a := &agent{name: name, sample: samples[name], file: filepath.Join(bin, name)}
	if err := build(name, a.file); err != nil {
		return nil, err
	}
	cmd := exec.Command(a.file, "meta-data")
	cmd.Env = []string{}
	var err error
	if a.doc, err = cmd.Output(); err != nil {
		return nil, fmt.Errorf("%s meta-data: %w", name, err)
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(a.doc); err != nil {
		return nil, fmt.Errorf("%s meta-data: %w", name, err)
	}
	for _, el := range doc.FindElements("//parameter") {
		content := el.FindElement("content")
		p := param{
			name: el.SelectAttrValue("name", ""), kind: content.SelectAttrValue("type", ""),
			fallback: content.SelectAttrValue("default", ""), required: el.SelectAttrValue("required", "") == "1",
		}
		for line := range strings.SplitSeq(el.FindElement("longdesc").Text(), "\n") {
			if words, ok := strings.CutPrefix(line, "One of: "); ok {
				p.options = strings.Split(strings.TrimSuffix(words, "."), ", ")
			}
		}
		a.params = append(a.params, p)
	}
	for _, el := range doc.FindElements("//action") {
		a.actions = append(a.actions, action{
			el.SelectAttrValue("name", ""), el.SelectAttrValue("timeout", ""), el.SelectAttrValue("role", ""),
		})
	}
	return a, nil
}

func (a *agent) declares(name string) bool {
	for _, act := range a.actions {
		if act.name == name {
			return true
		}
	}
	return false
}

func TestEveryAgentBuilds(t *testing.T) {
	for name, why := range unbuilt {
		if everyAgent {
			t.Errorf("%s: %s", name, why)
			continue
		}
		t.Logf("left out: %s: %s", name, why)
	}
	require.NotEmpty(t, agents)
}

// each runs the test once for each built agent.
func each(t *testing.T, test func(t *testing.T, a *agent)) {
	t.Helper()
	for _, a := range agents {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			test(t, a)
		})
	}
}

// heard is what an agent answered.
type heard struct {
	code           int
	stdout, stderr string
}

// reasons are the exit reasons on standard error.
func (h heard) reasons() []string {
	var found []string
	for line := range strings.SplitSeq(h.stderr, "\n") {
		if text, ok := strings.CutPrefix(line, "ocf-exit-reason:"); ok {
			found = append(found, text)
		}
	}
	return found
}

// patience is far above what any call here takes; an agent that hangs fails the test by it.
const patience = 3 * time.Minute

func run(t *testing.T, cmd *exec.Cmd) heard {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return heard{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// call runs the agent with nothing but this environment.
func (a *agent) call(t *testing.T, environ []string, args ...string) heard {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.file, args...)
	cmd.Env = append([]string{}, environ...)
	cmd.Dir = "/"
	return run(t, cmd)
}

// parameters are OCF_RESKEY_ variables, the agent's good values overlaid by the given ones.
func (a *agent) parameters(over map[string]string) []string {
	var environ []string
	for name, value := range a.good {
		if _, ok := over[name]; !ok {
			environ = append(environ, "OCF_RESKEY_"+name+"="+value)
		}
	}
	for name, value := range over {
		environ = append(environ, "OCF_RESKEY_"+name+"="+value)
	}
	return environ
}

// cluster is the environment of Pacemaker, with the log left to standard error.
func (a *agent) cluster(over map[string]string, more ...string) []string {
	environ := []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"OCF_ROOT=/usr/lib/ocf", "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1", "OCF_RESOURCE_PROVIDER=baton",
		"OCF_RESOURCE_TYPE=" + a.name, "OCF_RESOURCE_INSTANCE=test-" + a.name, "OCF_EXIT_REASON_PREFIX=ocf-exit-reason:",
		"OCF_RESKEY_crm_feature_set=3.16.1", "OCF_RESKEY_CRM_meta_timeout=20000", "OCF_RESKEY_CRM_meta_on_node=n1",
		"HA_RSCTMP=/run/resource-agents", "LC_ALL=C",
	}
	return append(append(environ, a.parameters(over)...), more...)
}

const recurring = "OCF_RESKEY_CRM_meta_interval=10000"

// sandbox is a set of namespaces of its own: network, mounts, processes. What an agent does wrong
// in it stays in it, and goes with the test.
type sandbox struct {
	t   *testing.T
	pid string
}

func newSandbox(t *testing.T) *sandbox {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the agents are called in namespaces of their own")
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", "mount -t sysfs none /sys && mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mount -t tmpfs none /srv && ip link set lo up && echo ready && exec sleep infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line := make([]byte, 16)
	n, err := stdout.Read(line)
	if err != nil || string(line[:n]) != "ready\n" {
		t.Skipf("this machine makes no namespaces: %s", stderr.String())
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	require.NoError(t, err)
	s := &sandbox{t, strings.TrimSpace(string(children))}
	require.NotEmpty(t, s.pid)
	return s
}

// run carries out a command in the sandbox.
func (s *sandbox) run(environ []string, argv ...string) heard {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/nsenter", append([]string{"--target", s.pid, "--mount", "--net", "--ipc", "--uts", "--pid", "--wd=/", "--"}, argv...)...)
	cmd.Env = append([]string{}, environ...)
	return run(s.t, cmd)
}

// sh carries out a script that must succeed and gives what it printed.
func (s *sandbox) sh(script string, args ...string) string {
	s.t.Helper()
	got := s.run([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, append([]string{"sh", "-ec", script, "sh"}, args...)...)
	require.Zerof(s.t, got.code, "%s\n%s%s", script, got.stdout, got.stderr)
	return got.stdout
}

// state is everything that a call could have changed in the sandbox: addresses, routes, mounts,
// files, processes (but for the dead: the sandbox's first process buries nobody).
func (s *sandbox) state() string {
	s.t.Helper()
	return s.sh(`
		ip -o addr | sed 's/valid_lft.*//'
		ip -o route show table all
		cut -d' ' -f2,3 /proc/self/mounts | grep -v -e ' nsfs$' -e '^/tmp/'
		find /run /var/lib /srv ! -path '/run/resource-agents*' | sort
		ps -e -o stat=,comm= | awk '$1 !~ /Z/ { print $2 }' | grep -v -x -e ps -e awk -e grep -e sh -e sort | sort`)
}
