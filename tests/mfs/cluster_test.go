//go:build real

package mfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/tests/fakecluster"
)

// fakeCluster is Pacemaker's tools over the directory FAKE_CLUSTER, or a cluster that fails.
func fakeCluster(tool string, args []string) int {
	cluster := fakecluster.Cluster{Dir: os.Getenv("FAKE_CLUSTER"), Broken: os.Getenv("FAKE_CLUSTER_BROKEN")}
	return cluster.Run(tool, args, os.Stdout, os.Stderr)
}

// pair is a promotable clone on two nodes that share a network namespace, and so the address.
type pair struct {
	*testing.T
	a, b  *site
	state string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	a := newSite(t)
	b := &site{
		T: t, dir: filepath.Join(a.dir, "b"), netns: a.netns, lines: a.lines,
		env: map[string]string{},
	}
	p := &pair{T: t, a: a, b: b, state: filepath.Join(a.dir, "cluster")}
	b.data, b.logger = filepath.Join(b.dir, "data"), filepath.Join(b.dir, "logger")
	b.cfg, b.loggerCfg = filepath.Join(b.dir, "mfsmaster.cfg"), filepath.Join(b.dir, "mfsmetalogger.cfg")
	for _, d := range []string{b.dir, b.data, b.logger} {
		b.mkdir(d)
	}
	b.write(filepath.Join(b.dir, "exports.cfg"), "* / rw,alldirs,maproot=0\n* . rw\n")
	b.configure()
	require.NoError(t, os.Mkdir(p.state, 0o755))
	bin := filepath.Join(a.dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	self, err := os.Executable()
	require.NoError(t, err)
	for _, tool := range []string{"crm_attribute", "attrd_updater"} {
		require.NoError(t, os.Symlink(self, filepath.Join(bin, tool)))
	}
	for name, s := range map[string]*site{"a": a, "b": b} {
		s.env = map[string]string{
			"config": s.cfg, "metalogger_config": s.loggerCfg, "mode": "metaloggers", "info_timeout": "1",
			"CRM_meta_on_node": name, "CRM_meta_notify": "true", "CRM_meta_clone_max": "2",
		}
		s.vars = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "FAKE_CLUSTER=" + p.state}
	}
	return p
}

// score is a node's promotion score, 0 without one.
func (p *pair) score(node string) int {
	p.Helper()
	data, err := os.ReadFile(filepath.Join(p.state, "score@"+node+"@mfs"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(data))
	require.NoError(p, err)
	return n
}

// promoted tells the other node of a promotion, as Pacemaker does after it.
func (p *pair) promoted(node string, other *site) {
	p.Helper()
	other.expect(ok, "notify", "CRM_meta_notify_type=post", "CRM_meta_notify_operation=promote",
		"CRM_meta_notify_promote_resource=mfs:0", "CRM_meta_notify_promote_uname="+node)
}

// follows waits until the node's metalogger holds what the master had, and its score says so.
func (p *pair) follows(s *site, node string) {
	p.Helper()
	s.poll(waitSync, "node "+node+" to follow", func() bool {
		return s.agent("monitor", recurring).code == ok && p.score(node) > 800000
	})
	// A follower some thousand changes behind has that score, too.
	master := p.a
	if s == p.a {
		master = p.b
	}
	s.poll(waitSync, "node "+node+" to have every change", func() bool {
		return lastChange(s.logger) >= lastChange(master.data)
	})
}

// lastChange is the number of the newest whole line of the changelogs in a directory, 0 without any.
func lastChange(dir string) (last uint64) {
	files, _ := filepath.Glob(filepath.Join(dir, "changelog*.mfs"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			number, _, _ := strings.Cut(line, ":")
			if n, err := strconv.ParseUint(number, 10, 64); err == nil && strings.HasSuffix(line, "\n") {
				last = max(last, n)
			}
		}
	}
	return last
}

// born starts both nodes and promotes a with a new file system.
func (p *pair) born() *pair {
	p.Helper()
	p.a.expect(ok, "start")
	p.b.expect(ok, "start")
	require.Zero(p, p.score("a"), "a node without metadata may not be promoted by itself")
	p.a.expect(ok, "promote", "initialize=true")
	p.promoted("a", p.b)
	p.a.monitor(runningMaster)
	return p
}

// newFollowed is a pair of which a serves n files at mnt, and b has followed.
func newFollowed(t *testing.T, n int) (p *pair, mnt string, acked []string) {
	t.Helper()
	p = newPair(t).born()
	mnt = p.a.mount()
	acked = p.a.create(mnt, "both", n)
	p.follows(p.b, "b")
	return p, mnt, acked
}

func TestSwitchoverAndFailbackOverMetaloggersLoseNothing(t *testing.T) {
	t.Parallel()
	p, mnt, acked := newFollowed(t, 100)

	p.a.expect(ok, "demote")
	p.b.expect(ok, "promote")
	p.promoted("b", p.a)
	p.a.monitor(ok)
	p.b.monitor(runningMaster)
	require.Empty(t, p.a.missing(mnt, acked))
	acked = append(acked, p.a.create(mnt, "two", 100)...)
	p.follows(p.a, "a")

	p.b.expect(ok, "demote")
	p.a.expect(ok, "promote")
	p.promoted("a", p.b)
	require.Empty(t, p.a.missing(mnt, acked))
	p.follows(p.b, "b")
	p.a.expect(ok, "stop")
	p.b.expect(ok, "stop")
	require.Empty(t, p.a.masters())
	p.a.expect(notRunning, "monitor")
}

func TestKill9OfTheMasterLosesNothingThatTheFollowerHad(t *testing.T) {
	t.Parallel()
	p, mnt, acked := newFollowed(t, 300)
	p.a.kill()
	p.a.expect(ok, "demote")
	p.a.expect(ok, "stop")
	p.a.expect(ok, "start")
	require.Greater(t, p.score("a"), p.score("b"), "the node that acknowledged has all, the follower almost all")
	p.b.expect(ok, "promote")
	p.promoted("b", p.a)
	require.Empty(t, p.b.missing(mnt, acked))
	require.Less(t, p.score("a"), p.score("b"))
}

// A metalogger that was killed leaves a part of a line, and appends to it when it goes on.
func TestATornChangelogOfAMetaloggerDoesNotBecomeAnotherHistory(t *testing.T) {
	t.Parallel()
	p, mnt, acked := newFollowed(t, 100)
	acked = append(acked, p.a.create(mnt, "followed", 20)...)
	p.follows(p.b, "b")
	newest := filepath.Join(p.b.logger, "changelog_ml.0.mfs")
	require.FileExists(t, newest)
	p.b.killFollower()
	whole := lastChange(p.b.logger)
	f, err := os.OpenFile(newest, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fmt.Fprintf(f, "%d: 1795261301|CREATE(1,to", whole+1)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	r := p.b.expect(ok, "start")
	require.Contains(t, r.stderr, "bytes behind its last whole change are cut off")
	acked = append(acked, p.a.create(mnt, "more", 50)...)
	p.follows(p.b, "b")
	p.a.kill()
	p.b.expect(ok, "promote")
	require.Empty(t, p.b.missing(mnt, acked))
}

func TestAPromotionThatFailsShutsNobodyOut(t *testing.T) {
	t.Parallel()
	p, mnt, _ := newFollowed(t, 30)
	p.b.killFollower()
	acked := p.a.create(mnt, "g", 30)
	p.a.kill()
	p.a.expect(ok, "demote")
	// Node b cannot start its master: its exports are missing.
	exports := filepath.Join(p.b.dir, "exports.cfg")
	require.NoError(t, os.Rename(exports, exports+".away"))
	p.b.expect(failed, "promote")
	p.b.expect(ok, "demote")
	require.Positive(t, p.score("b"))
	require.Less(t, p.score("b"), p.score("a"), "what b took over from its metalogger is not what a acknowledged")
	p.b.expect(ok, "stop")
	p.b.expect(ok, "start")
	require.Less(t, p.score("b"), p.score("a"))
	p.a.expect(ok, "promote")
	require.Empty(t, p.a.missing(mnt, acked))
	p.promoted("a", p.b)
	// What has been served counts as a master's own.
	require.NoError(t, os.Rename(exports+".away", exports))
	p.follows(p.b, "b")
	p.a.expect(ok, "stop")
	p.b.expect(ok, "promote")
	p.b.kill()
	p.b.expect(ok, "demote")
	require.Equal(t, 950000, p.score("b"))
}

// A node stands aside while another is promoted; somebody starts its master by hand.
func TestAMasterThatWasStartedByHandDoesNotRewriteTheClustersHistory(t *testing.T) {
	t.Parallel()
	p, mnt, _ := newFollowed(t, 50)
	p.a.expect(ok, "stop")
	p.b.expect(ok, "promote")
	acked := p.a.create(mnt, "new", 20)
	p.b.kill()
	p.a.inside("mfsmaster", "-c", p.a.cfg, "start")
	p.a.create(mnt, "astray", 100)

	record := filepath.Join(p.state, "property@mfsmaster-mfs")
	before := p.a.read(record)
	p.a.expect(ok, "start")
	require.Equal(t, before, p.a.read(record))
	require.Zero(t, p.score("a"))
	p.b.expect(ok, "demote")
	p.b.expect(ok, "promote")
	require.Empty(t, p.b.missing(mnt, acked))
}

// A master dies with changes that no follower had; the follower is promoted without them, and the
// old master's copy, which counts more changes, comes back.
func TestAStaleNodeIsNotPromotedAndDoesNotSpoilTheNewerCopy(t *testing.T) {
	t.Parallel()
	p, mnt, _ := newFollowed(t, 50)
	// Node b is cut off while a goes on.
	p.b.killFollower()
	p.a.create(mnt, "lost", 200)
	p.a.kill()
	p.b.expect(ok, "promote")
	acked := p.a.create(mnt, "new", 20)

	r := p.a.expect(ok, "start", "CRM_meta_notify_promoted_resource=mfs:1", "CRM_meta_notify_promoted_uname=b")
	require.Contains(t, r.stderr, "moved to the archive")
	p.b.kill()
	p.a.holdsNothing()
	p.b.expect(ok, "demote")
	p.b.expect(ok, "promote")
	require.Empty(t, p.b.missing(mnt, acked))
}

// killFollower ends the node's metalogger at once. (One that is only halted gets what its socket
// holds as soon as it is continued.)
func (s *site) killFollower() {
	s.Helper()
	pid := lockOwner(s.T, filepath.Join(s.logger, ".mfsmetalogger.lock"))
	require.NotZero(s, pid)
	require.NoError(s, syscall.Kill(pid, syscall.SIGKILL))
	s.poll(waitSync, "the metalogger to die", func() bool { return syscall.Kill(pid, 0) != nil })
}

// holdsNothing checks that no copy is left in the data directory that could be promoted.
func (s *site) holdsNothing() {
	s.Helper()
	require.Empty(s, append(s.files("metadata.mfs*"), s.files("changelog*")...))
}

func TestAnOldCopyIsRefusedEvenIfItIsToldToPromote(t *testing.T) {
	t.Parallel()
	p, mnt, _ := newFollowed(t, 50)
	p.b.killFollower()
	p.a.create(mnt, "lost", 200)
	p.a.kill()
	p.b.expect(ok, "promote")
	p.a.create(mnt, "new", 20)
	p.b.expect(ok, "demote")
	// Nobody has told a of anything: it has its own copy with more changes, and is asked first.
	p.a.expect(ok, "start")
	require.Zero(t, p.score("a"))
	before := strings.Join(p.a.files("*"), " ")
	require.Contains(t, p.a.expect(failed, "promote").reason(), "no copy that may be promoted")
	require.Equal(t, before, strings.Join(p.a.files("*"), " "))
	p.b.expect(ok, "promote")
}

// The steps of docs/mfs.md, "Promoting by hand".
func TestPromotingByHandTakesTheChosenCopy(t *testing.T) {
	t.Parallel()
	p, mnt, acked := newFollowed(t, 50)
	p.b.killFollower()
	p.a.create(mnt, "more", 100)
	p.a.kill()
	p.b.expect(ok, "promote")
	acked = append(acked, p.a.create(mnt, "new", 20)...)
	p.b.expect(ok, "demote")
	p.b.expect(ok, "stop")

	// Node b's disk is lost, all that is left is a backup. Node a counts more changes, of an epoch that
	// has ended.
	backup := filepath.Join(p.b.dir, "backup")
	require.NoError(t, os.Rename(p.b.data, backup))
	p.b.mkdir(p.b.data)
	p.a.expect(ok, "start")
	require.Zero(t, p.score("a"))
	p.a.monitor(ok)
	require.Zero(t, p.score("a"))
	require.Contains(t, p.a.expect(failed, "promote").reason(), "no copy that may be promoted")

	p.a.expect(ok, "stop")
	for name, s := range map[string]*site{"a": p.a, "b": p.b} {
		for _, dir := range []string{s.data, s.logger} {
			kept := filepath.Join(p.a.dir, "kept", name, filepath.Base(dir))
			require.NoError(t, os.MkdirAll(kept, 0o755))
			s.mustRun("sh", "-c", "cd $0; for f in metadata* changelog*; do [ ! -f $f ] || mv $f $1/; done", dir, kept)
		}
	}
	p.b.mustRun("sh", "-c", "cp -a $0/metadata* $0/changelog* $1/", backup, p.b.data)
	require.NoError(t, os.Remove(filepath.Join(p.state, "property@mfsmaster-mfs")))
	p.a.expect(ok, "start")
	p.b.expect(ok, "start")
	require.Zero(t, p.score("a"))
	require.Positive(t, p.score("b"))
	p.b.expect(ok, "promote")
	p.promoted("b", p.a)
	require.Empty(t, p.b.missing(mnt, acked))
	p.follows(p.a, "a")
}

func TestAClusterThatDoesNotAnswerIsNoReasonToGuess(t *testing.T) {
	t.Parallel()
	p := newPair(t).born()
	p.follows(p.b, "b")
	p.a.kill()
	require.Contains(t, p.b.expect(failed, "promote", "FAKE_CLUSTER_BROKEN=1").reason(), "cluster property")
	p.b.expect(ok, "promote")
}

func TestAHungPromotedMasterIsAFailedPromotedOne(t *testing.T) {
	t.Parallel()
	p := newPair(t).born()
	require.NoError(t, syscall.Kill(p.a.masterPID(), syscall.SIGSTOP))
	require.Contains(t, p.a.monitor(failedPromoted).reason(), "does not answer")
	p.a.expect(ok, "demote")
	p.a.monitor(ok)
	p.a.expect(ok, "demote", "FAKE_CLUSTER_BROKEN=1")
	p.a.expect(ok, "stop", "FAKE_CLUSTER_BROKEN=1")
}

func TestNeverAStartWithoutNotifications(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	require.Contains(t, p.a.expect(badConfig, "start", "CRM_meta_notify=false").reason(), "notify=true")
}

func TestTheUnpromotedNodeNoticesALostOrHungMetalogger(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.expect(ok, "start")
	p.a.monitor(ok)
	pid := lockOwner(t, filepath.Join(p.a.logger, ".mfsmetalogger.lock"))
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	p.a.poll(waitSync, "the signal to arrive", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return strings.Contains(string(stat), ") T ")
	})
	require.Contains(t, p.a.monitor(failed).reason(), "stopped by a signal")
	p.a.killFollower()
	p.a.monitor(notRunning)
	p.a.expect(ok, "start")
	p.a.expect(ok, "stop")
	p.a.expect(notRunning, "monitor")
}

// On a replicated device, a metalogger beside the master's node may have more than the device:
// the data writer hung when the master was killed.
func TestChangesThatOnlyTheMetaloggerHasAreMerged(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.lines["CHANGELOG_SAVE_MODE"] = "0"
	s.configure()
	s.env["durability"] = "moosefs"
	s.env["metalogger_config"] = s.loggerCfg
	s.born()
	s.inside("mfsmetalogger", "-c", s.loggerCfg, "start")
	mnt := s.mount()
	acked := s.create(mnt, "f", 100)
	s.poll(waitSync, "the metalogger to have the last change", func() bool { return s.loggerHas("f99") })
	writer := lockOwner(t, filepath.Join(s.data, ".bgwriter.lock"))
	require.NoError(t, syscall.Kill(writer, syscall.SIGSTOP))
	acked = append(acked, s.create(mnt, "g", 200)...)
	s.poll(waitSync, "the metalogger to have the last change", func() bool { return s.loggerHas("g199") })
	s.kill()
	require.NoError(t, syscall.Kill(writer, syscall.SIGKILL))
	r := s.expect(ok, "start")
	require.Contains(t, r.stderr, "D12 metalogger is ahead")
	require.Empty(t, s.missing(mnt, acked))
	require.Empty(t, s.files("*_ml*"), "nothing of the metalogger's stays in the master's directory")
}

// loggerHas reports whether the metalogger has written the creation of a file.
func (s *site) loggerHas(name string) bool {
	list, _ := filepath.Glob(filepath.Join(s.logger, "changelog_ml*.mfs"))
	for _, f := range list {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), ","+name+",") {
			return true
		}
	}
	return false
}

func TestTwoTimelinesAreNeverMerged(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["metalogger_config"] = s.loggerCfg
	s.born()
	s.inside("mfsmetalogger", "-c", s.loggerCfg, "start")
	mnt := s.mount()
	s.create(mnt, "f", 50)
	s.poll(waitSync, "the metalogger to have the last change", func() bool { return s.loggerHas("f49") })
	s.kill()
	s.inside("mfsmetalogger", "-c", s.loggerCfg, "stop")
	// The metalogger's copy gets another history from change 20 on, and some changes more.
	logs, err := filepath.Glob(filepath.Join(s.logger, "changelog_ml.*.mfs"))
	require.NoError(t, err)
	for _, f := range logs {
		text := strings.ReplaceAll(s.read(f), ",f3", ",x3")
		lines := strings.Split(strings.TrimSpace(text), "\n")
		last := lines[len(lines)-1]
		id, rest, _ := strings.Cut(last, ":")
		n, err := strconv.Atoi(id)
		require.NoError(t, err)
		for i := range 5 {
			text += fmt.Sprintf("%d:%s\n", n+1+i, rest)
		}
		s.write(f, text)
	}
	before := s.read(s.newestLog())
	r := s.expect(failed, "start")
	require.Contains(t, r.reason(), "two histories: change ")
	require.Equal(t, before, s.read(s.newestLog()))
	s.expect(notRunning, "monitor")
}
