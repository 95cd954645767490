//go:build real

// Package mfs proves the agent mfsmaster against the real MooseFS of this machine: masters,
// metaloggers, chunk servers and FUSE mounts in network namespaces and directories of the tests'
// own. Everything is called as Pacemaker would, over the built binary.
package mfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The OCF exit codes that the tests expect.
const (
	ok             = 0
	failed         = 1
	unimplemented  = 3
	noPermission   = 4
	notInstalled   = 5
	badConfig      = 6
	notRunning     = 7
	runningMaster  = 8
	failedPromoted = 9
	degraded       = 190
)

// agentBinary is built once for all tests.
var agentBinary string

func TestMain(m *testing.M) {
	if tool := filepath.Base(os.Args[0]); tool == "crm_attribute" || tool == "attrd_updater" {
		os.Exit(fakeCluster(tool, os.Args[1:]))
	}
	dir, err := os.MkdirTemp("", "baton-mfs")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	agentBinary = filepath.Join(dir, "mfsmaster")
	build := exec.Command("go", "build", "-o", agentBinary, "baton/agents/mfsmaster")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

var sites atomic.Int32

// site is one node with its own network namespace, directories and configuration.
type site struct {
	*testing.T
	dir, data, logger string
	cfg, loggerCfg    string
	netns             string
	env               map[string]string
	// vars are further variables of the environment.
	vars []string
	// wrap is put before the agent's own command line.
	wrap []string
	// lines are added to mfsmaster.cfg.
	lines map[string]string
}

// address is that of the node itself in its namespace. Chunk servers refuse a master on 127.0.0.1.
const address = "192.0.2.1"

func newSite(t *testing.T) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("real masters need root")
	}
	for _, tool := range []string{"mfsmaster", "mfsmetalogger", "mfschunkserver", "mfsmount", "ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v; run make deps", err)
		}
	}
	dir, err := os.MkdirTemp("", "mfs-site")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	s := &site{
		T: t, dir: dir, data: filepath.Join(dir, "data"), logger: filepath.Join(dir, "logger"),
		cfg: filepath.Join(dir, "mfsmaster.cfg"), loggerCfg: filepath.Join(dir, "mfsmetalogger.cfg"),
		netns: fmt.Sprintf("mfs-%d-%d", os.Getpid(), sites.Add(1)),
		lines: map[string]string{"CHANGELOG_SAVE_MODE": "2"},
	}
	s.env = map[string]string{"config": s.cfg, "require_mount": "false", "info_timeout": "1"}
	s.mustRun("ip", "netns", "add", s.netns)
	t.Cleanup(s.tearDown)
	s.mustRun("ip", "-n", s.netns, "link", "set", "lo", "up")
	s.mustRun("ip", "-n", s.netns, "addr", "add", address+"/24", "dev", "lo")
	for _, d := range []string{s.data, s.logger} {
		s.mkdir(d)
	}
	s.write(filepath.Join(dir, "exports.cfg"), "* / rw,alldirs,maproot=0\n* . rw\n")
	s.configure()
	return s
}

// configure writes the configuration files.
func (s *site) configure() {
	text := "DATA_PATH = " + s.data + "\nEXPORTS_FILENAME = " + s.dir + "/exports.cfg\nSYSLOG_IDENT = mfsmaster-test\n"
	for name, value := range s.lines {
		text += name + " = " + value + "\n"
	}
	s.write(s.cfg, text)
	s.write(s.loggerCfg, "DATA_PATH = "+s.logger+"\nMASTER_HOST = "+address+"\nMASTER_RECONNECTION_DELAY = 1\nMETA_DOWNLOAD_FREQ = 1\n")
}

func (s *site) mkdir(dir string) {
	s.Helper()
	require.NoError(s, os.MkdirAll(dir, 0o755))
	require.NoError(s, os.Chown(dir, mfsID(s.T), mfsID(s.T)))
}

func mfsID(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("id", "-u", "mfs").Output()
	require.NoError(t, err)
	id, err := strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	return id
}

func (s *site) write(path, text string) {
	s.Helper()
	require.NoError(s, os.WriteFile(path, []byte(text), 0o644))
}

func (s *site) read(path string) string {
	s.Helper()
	data, err := os.ReadFile(path)
	require.NoError(s, err)
	return string(data)
}

// tearDown ends what runs in the site's own namespace, and only that.
func (s *site) tearDown() {
	mounts, _ := filepath.Glob(filepath.Join(s.dir, "mnt*"))
	for _, m := range mounts {
		_ = unix.Unmount(m, unix.MNT_DETACH)
	}
	s.poll(20*time.Second, "processes of the site to end", func() bool {
		pids := s.pids()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	if out, err := exec.Command("ip", "netns", "del", s.netns).CombinedOutput(); err != nil {
		s.Errorf("%s%v", out, err)
	}
	for _, m := range []string{s.data, s.logger} {
		_ = unix.Unmount(m, unix.MNT_DETACH)
	}
	if s.Failed() {
		s.Logf("the site's files stay in %s", s.dir)
		return
	}
	os.RemoveAll(s.dir)
}

// pids are the processes in the site's namespace.
func (s *site) pids() []int {
	out, err := exec.Command("ip", "netns", "pids", s.netns).Output()
	if err != nil {
		return nil
	}
	var pids []int
	for _, word := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// masterPIDs are the processes of mfsmaster in the site's namespace.
func (s *site) masterPIDs() (pids []int) {
	for _, pid := range s.pids() {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(comm)) == "mfsmaster" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// masters are the processes of mfsmaster in the site's namespace, by their titles.
func (s *site) masters() (titles []string) {
	for _, pid := range s.pids() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if title := string(bytes.ReplaceAll(bytes.Trim(line, "\x00"), []byte{0}, []byte{' '})); strings.HasPrefix(filepath.Base(title), "mfsmaster ") || strings.HasPrefix(title, "mfsmaster ") {
			titles = append(titles, title)
		}
	}
	return titles
}

// poll waits until the condition holds.
func (s *site) poll(limit time.Duration, what string, holds func() bool) {
	s.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			s.Fatalf("waited %v for %s", limit, what)
		}
		<-tick.C
	}
}

// command prepares a program that runs in the site's namespace.
func (s *site) command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + s.netns}, argv...)...)
}

func (s *site) mustRun(argv ...string) string {
	s.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	require.NoError(s, err, "%v: %s", argv, out)
	return string(out)
}

// inside runs a program in the site's namespace.
func (s *site) inside(argv ...string) string {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := s.command(ctx, argv...).CombinedOutput()
	require.NoError(s, err, "%v: %s", argv, out)
	return string(out)
}

// result is one call of the agent.
type result struct {
	code   int
	stderr string
	took   time.Duration
}

// reason is the exit reason that Pacemaker would show.
func (r result) reason() string {
	const prefix = "ocf-exit-reason:"
	at := strings.LastIndex(r.stderr, prefix)
	if at < 0 {
		return ""
	}
	line, _, _ := strings.Cut(r.stderr[at+len(prefix):], "\n")
	return line
}

// agent calls an action as Pacemaker does; more are further parameters as name=value, or whole
// variables where the name begins with a capital.
func (s *site) agent(action string, more ...string) result {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := s.command(ctx, append(s.wrap, agentBinary, action)...)
	env := map[string]string{
		"OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1",
		"OCF_RESOURCE_INSTANCE": "mfs", "HA_RSCTMP": filepath.Join(s.dir, "rsctmp"),
		"OCF_RESKEY_CRM_meta_timeout": "60000", "PATH": os.Getenv("PATH"), "HA_LOGFACILITY": "none",
	}
	for name, value := range s.env {
		env["OCF_RESKEY_"+name] = value
	}
	for _, m := range append(s.vars, more...) {
		name, value, _ := strings.Cut(m, "=")
		if name[0] < 'A' || name[0] > 'Z' || strings.HasPrefix(name, "CRM_meta_") {
			name = "OCF_RESKEY_" + name
		}
		env[name] = value
	}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	err := cmd.Run()
	r := result{stderr: stderr.String(), took: time.Since(begin)}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	default:
		s.Fatalf("%s: %v", action, err)
	}
	s.Logf("%s %v: exit code %d after %v\n%s", action, more, r.code, r.took.Round(time.Millisecond), r.stderr)
	return r
}

// expect calls an action that must end with the code.
func (s *site) expect(code int, action string, more ...string) result {
	s.Helper()
	r := s.agent(action, more...)
	require.Equal(s, code, r.code, "%s: %s", action, r.stderr)
	if code != ok && code != notRunning && code != runningMaster && code != degraded {
		require.Equal(s, 1, strings.Count(r.stderr, "ocf-exit-reason:"), r.stderr)
		require.NotEmpty(s, r.reason())
	}
	return r
}

// waitSync is how long a metalogger may take to download and to follow.
const waitSync = 40 * time.Second

const recurring = "CRM_meta_interval=10000"

// monitor is a recurring monitor.
func (s *site) monitor(code int, more ...string) result {
	s.Helper()
	return s.expect(code, "monitor", append([]string{recurring}, more...)...)
}

// born makes a new file system and leaves its master running.
func (s *site) born() *site {
	s.Helper()
	s.expect(ok, "start", "initialize=true")
	return s
}

// masterPID is the owner of the lock in the data directory.
func (s *site) masterPID() int { return lockOwner(s.T, filepath.Join(s.data, ".mfsmaster.lock")) }

func lockOwner(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	require.NoError(t, err)
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock))
	if lock.Type == unix.F_UNLCK {
		return 0
	}
	return int(lock.Pid)
}

// kill sends SIGKILL to the master alone and waits until it has gone.
func (s *site) kill() {
	s.Helper()
	pid := s.masterPID()
	require.NotZero(s, pid, "no master to kill")
	require.NoError(s, syscall.Kill(pid, syscall.SIGKILL))
	s.poll(10*time.Second, "the master to die", func() bool { return syscall.Kill(pid, 0) != nil })
}

// mount mounts the file system; a mount survives masters.
func (s *site) mount() string {
	s.Helper()
	dir := filepath.Join(s.dir, fmt.Sprintf("mnt%d", sites.Add(1)))
	require.NoError(s, os.Mkdir(dir, 0o755))
	s.inside("mfsmount", dir, "-H", address)
	return dir
}

// create makes empty files named prefix0… and returns what was acknowledged.
func (s *site) create(dir, prefix string, count int) []string {
	s.Helper()
	var acked []string
	for i := range count {
		name := fmt.Sprintf("%s%d", prefix, i)
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		require.NoError(s, err)
		require.NoError(s, f.Close())
		acked = append(acked, name)
	}
	return acked
}

// missing are the names that the mounted tree does not have.
func (s *site) missing(dir string, names []string) []string {
	s.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(s, err)
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Name()] = true
	}
	var lost []string
	for _, name := range names {
		if !have[name] {
			lost = append(lost, name)
		}
	}
	return lost
}

// files are the names in the data directory.
func (s *site) files(pattern string) []string {
	s.Helper()
	list, err := filepath.Glob(filepath.Join(s.data, pattern))
	require.NoError(s, err)
	return list
}

// newestLog is the changelog that ends with the highest id.
func (s *site) newestLog() string {
	s.Helper()
	for n := range 50 {
		path := filepath.Join(s.data, fmt.Sprintf("changelog.%d.mfs", n))
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return path
		}
	}
	s.Fatal("no changelog with changes")
	return ""
}
