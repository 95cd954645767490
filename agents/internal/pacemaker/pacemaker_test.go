package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/agents/internal/command"

	"github.com/stretchr/testify/require"
)

// fakeCluster is a model of attrd and the CIB: scores and attributes by name, and how the tools
// of one Pacemaker version reach them.
type fakeCluster struct {
	attributes map[string]string
	calls      []string
	absent     bool // the tools are not installed
	down       bool // no cluster runs
	old        bool // crm_attribute knows no --promotion, crm_master does
	hangs      bool // attrd does not answer
	instance   string
}

func (f *fakeCluster) Run(ctx context.Context, name string, args ...string) (command.Result, error) {
	argv := append([]string{name}, args...)
	f.calls = append(f.calls, strings.Join(argv, " "))
	fail := func(code int) (command.Result, error) {
		return command.Result{}, &command.Error{Argv: argv, Code: code}
	}
	switch {
	case f.absent:
		return command.Result{}, &command.Error{Argv: argv, Code: -1, Err: fs.ErrNotExist}
	case f.hangs:
		<-ctx.Done()
		return command.Result{}, &command.Error{Argv: argv, Code: -1, Err: ctx.Err()}
	case f.down:
		return fail(102)
	}
	key, value, verb := "", "", ""
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case strings.HasPrefix(arg, "--promotion="):
			if f.old {
				return fail(64)
			}
			key = "master-" + strings.TrimPrefix(arg, "--promotion=")
		case arg == "-n":
			i++
			key = args[i]
		case arg == "-v" || arg == "-U":
			i++
			verb, value = "set", args[i]
		case arg == "-D":
			verb = "delete"
		case arg == "-G":
			verb = "get"
		case arg == "-l" || arg == "-N":
			i++
		}
	}
	if name == "crm_master" {
		key = "master-" + f.instance
	}
	switch verb {
	case "set":
		f.attributes[key] = value
	case "delete":
		delete(f.attributes, key)
	case "get":
		v, ok := f.attributes[key]
		if !ok {
			return fail(105)
		}
		return command.Result{Stdout: []byte(v + "\n")}, nil
	default:
		return fail(64)
	}
	return command.Result{}, nil
}

func newFake() *fakeCluster {
	return &fakeCluster{attributes: map[string]string{}, instance: "drbd_r0"}
}

func (f *fakeCluster) tools() Tools {
	return Tools{Runner: f, Instance: f.instance, Node: "n1", Limit: 50 * time.Millisecond}
}

func TestScoreIsSetReadAndDeletedOnBothGenerationsOfTools(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("crm_master=%v", old), func(t *testing.T) {
			f := newFake()
			f.old = old
			tools, ctx := f.tools(), context.Background()

			_, set, err := tools.Score(ctx)
			require.NoError(t, err)
			require.False(t, set)

			require.NoError(t, tools.SetScore(ctx, 10000))
			score, set, err := tools.Score(ctx)
			require.NoError(t, err)
			require.True(t, set)
			require.Equal(t, 10000, score)

			require.NoError(t, tools.SetScore(ctx, -5), "negative scores are deleted, never written")
			require.Empty(t, f.attributes)
			require.NoError(t, tools.DeleteScore(ctx), "deleting twice is not a failure")
		})
	}
}

func TestScoreWordsOfPacemakerAreUnderstood(t *testing.T) {
	for text, want := range map[string]int{"INFINITY": 1000000, "+INFINITY": 1000000, "-INFINITY": -1000000, "7": 7} {
		f := newFake()
		f.attributes["master-drbd_r0"] = text
		score, set, err := f.tools().Score(context.Background())
		require.NoError(t, err)
		require.True(t, set)
		require.Equal(t, want, score)
	}
	f := newFake()
	f.attributes["master-drbd_r0"] = "ten"
	_, _, err := f.tools().Score(context.Background())
	require.ErrorContains(t, err, `"ten" is not a score`)
}

func TestMissingToolsAndMissingClusterAreStates(t *testing.T) {
	for name, tc := range map[string]struct {
		f    *fakeCluster
		want error
	}{
		"no tools":   {&fakeCluster{absent: true}, ErrAbsent},
		"no cluster": {&fakeCluster{down: true}, ErrNotConnected},
	} {
		t.Run(name, func(t *testing.T) {
			tools, ctx := tc.f.tools(), context.Background()
			_, _, err := tools.Score(ctx)
			require.ErrorIs(t, err, tc.want)
			require.True(t, NoCluster(err))
			require.ErrorIs(t, tools.SetScore(ctx, 1), tc.want)
			require.ErrorIs(t, tools.SetAttribute(ctx, "a", "b"), tc.want)
			_, err = tools.Cluster(ctx)
			require.ErrorIs(t, err, tc.want)
		})
	}
}

func TestHangingAttrdEndsAtTheLimit(t *testing.T) {
	f := newFake()
	f.hangs = true
	begin := time.Now()
	err := f.tools().SetScore(context.Background(), 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, NoCluster(err))
	require.Less(t, time.Since(begin), 5*time.Second)
}

func ledger(t *testing.T) Ledger {
	return Ledger{
		File: filepath.Join(t.TempDir(), "ledger"), Boot: "boot-1", Executor: "100@5",
		Now: time.Unix(1000000, 0), Recheck: time.Minute,
	}
}

func TestUnchangedScoreStartsNoChild(t *testing.T) {
	f, l, ctx := newFake(), ledger(t), context.Background()
	written, err := f.tools().KeepScore(ctx, l, 1000, false)
	require.NoError(t, err)
	require.True(t, written)
	require.Len(t, f.calls, 1)

	for range 3 {
		written, err = f.tools().KeepScore(ctx, l, 1000, false)
		require.NoError(t, err)
		require.False(t, written)
	}
	require.Len(t, f.calls, 1)

	written, err = f.tools().KeepScore(ctx, l, 10, false)
	require.NoError(t, err)
	require.True(t, written)
	require.Equal(t, "10", f.attributes["master-drbd_r0"])

	_, err = f.tools().KeepScore(ctx, l, 0, false)
	require.NoError(t, err)
	require.NotContains(t, f.attributes, "master-drbd_r0")
	require.Len(t, f.calls, 3)
}

func TestScoreIsWrittenAgainWhereTheClusterMayHaveForgottenIt(t *testing.T) {
	for name, tc := range map[string]struct {
		later func(*Ledger)
		force bool
	}{
		"after a reboot":               {later: func(l *Ledger) { l.Boot = "boot-2" }},
		"after a restart of Pacemaker": {later: func(l *Ledger) { l.Executor = "200@9" }},
		"when attrd lost it":           {later: func(l *Ledger) { l.Now = l.Now.Add(time.Minute) }},
		"when the clock was set back":  {later: func(l *Ledger) { l.Now = l.Now.Add(-time.Hour) }},
		"when the ledger is broken":    {later: func(l *Ledger) { _ = os.WriteFile(l.File, []byte("{"), 0o600) }},
		"on a probe":                   {later: func(*Ledger) {}, force: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, l, ctx := newFake(), ledger(t), context.Background()
			_, err := f.tools().KeepScore(ctx, l, 1000, false)
			require.NoError(t, err)
			clear(f.attributes) // as the cluster does when a node leaves
			tc.later(&l)
			_, err = f.tools().KeepScore(ctx, l, 1000, tc.force)
			require.NoError(t, err)
			require.Equal(t, "1000", f.attributes["master-drbd_r0"])
		})
	}
}

func TestStaleEntryIsComparedBeforeItIsWritten(t *testing.T) {
	f, l, ctx := newFake(), ledger(t), context.Background()
	_, err := f.tools().KeepScore(ctx, l, 1000, false)
	require.NoError(t, err)
	l.Now = l.Now.Add(2 * time.Minute)
	written, err := f.tools().KeepScore(ctx, l, 1000, false)
	require.NoError(t, err)
	require.False(t, written, "the cluster still has it: a query is enough")
	require.Len(t, f.calls, 2)
	_, err = f.tools().KeepScore(ctx, l, 1000, false)
	require.NoError(t, err)
	require.Len(t, f.calls, 2, "the query made the entry fresh")
}

func TestFailedWriteIsRepeated(t *testing.T) {
	f, l, ctx := newFake(), ledger(t), context.Background()
	_, err := f.tools().KeepScore(ctx, l, 1000, false)
	require.NoError(t, err)
	f.hangs = true
	_, err = f.tools().KeepScore(ctx, l, 10, false)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	f.hangs = false
	// The old value would look unchanged now, but whether 10 arrived is not known.
	written, err := f.tools().KeepScore(ctx, l, 1000, false)
	require.NoError(t, err)
	require.True(t, written)
}

func TestAttributeWhoseWriteFailedIsWrittenAgainWhateverItShallBe(t *testing.T) {
	f, l, ctx := newFake(), ledger(t), context.Background()
	require.True(t, l.Unset("drbd-r0"))
	_, err := f.tools().KeepAttribute(ctx, l, "drbd-r0", "SplitBrain", false)
	require.NoError(t, err)
	require.False(t, l.Unset("drbd-r0"))
	f.hangs = true
	_, err = f.tools().KeepAttribute(ctx, l, "drbd-r0", "", false)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, l.Unset("drbd-r0"), "it may still be there")
	f.hangs = false
	_, err = f.tools().KeepAttribute(ctx, l, "drbd-r0", "", false)
	require.NoError(t, err)
	require.NotContains(t, f.attributes, "drbd-r0")
	require.True(t, l.Unset("drbd-r0"))

	// A set that timed out may have arrived all the same.
	f.hangs = true
	_, err = f.tools().KeepAttribute(ctx, l, "drbd-r0", "StandAlone", false)
	require.Error(t, err)
	require.False(t, l.Unset("drbd-r0"))
}

// A call that is killed while it writes leaves no old entry that would be believed.
func TestEntryIsOpenWhileItIsWritten(t *testing.T) {
	f, l := newFake(), ledger(t)
	_, err := f.tools().keep(l, scoreKey, "1000", func() error {
		require.Equal(t, unknown, l.look(scoreKey, "1000"))
		require.False(t, l.Unset(scoreKey))
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, believed, l.look(scoreKey, "1000"))
}

func TestLedgerOfARunningExecutorIsNotTakenByAnother(t *testing.T) {
	for name, tc := range map[string]struct {
		comm, start string
		caller      string
		boot        string
		want        bool
	}{
		"crm_resource beside the executor": {"pacemaker-execd", "5", "900@77", "boot-1", true},
		"the executor itself":              {"pacemaker-execd", "5", "100@5", "boot-1", false},
		"its pid is another's now":         {"pacemaker-execd", "6", "900@77", "boot-1", false},
		"it was no executor":               {"bash", "5", "900@77", "boot-1", false},
		"it has ended":                     {"", "", "900@77", "boot-1", false},
		"before a reboot":                  {"pacemaker-execd", "5", "900@77", "boot-2", false},
	} {
		t.Run(name, func(t *testing.T) {
			root, l := t.TempDir(), ledger(t)
			require.False(t, l.Taken(root), "there is none")
			require.NoError(t, l.note("a", "b"))
			if tc.comm != "" {
				dir := filepath.Join(root, "proc/100")
				require.NoError(t, os.MkdirAll(dir, 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "comm"), []byte(tc.comm+"\n"), 0o600))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"),
					[]byte("100 (x) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 "+tc.start+" 8 9\n"), 0o600))
			}
			l.Executor, l.Boot = tc.caller, tc.boot
			require.Equal(t, tc.want, l.Taken(root))
		})
	}
}

func TestWithoutAFileNothingIsRememberedOrLeftBehind(t *testing.T) {
	t.Chdir(t.TempDir())
	l := ledger(t)
	l.File = ""
	require.True(t, l.Once("link", "StandAlone"))
	require.True(t, l.Once("link", "StandAlone"))
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestUnwritableLedgerCostsAChildButNoFailure(t *testing.T) {
	f, l, ctx := newFake(), ledger(t), context.Background()
	l.File = filepath.Join(t.TempDir(), "missing", "ledger")
	for range 2 {
		written, err := f.tools().KeepScore(ctx, l, 5, false)
		require.NoError(t, err)
		require.True(t, written)
	}
}

func TestAttributeIsWrittenOnceAndRemoved(t *testing.T) {
	f, l, ctx := newFake(), ledger(t), context.Background()
	for range 3 {
		_, err := f.tools().KeepAttribute(ctx, l, "drbd-r0", "StandAlone", false)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"attrd_updater -n drbd-r0 -U StandAlone -N n1"}, f.calls)
	require.True(t, l.Knows("drbd-r0", "StandAlone"))
	_, err := f.tools().KeepAttribute(ctx, l, "drbd-r0", "", false)
	require.NoError(t, err)
	require.NotContains(t, f.attributes, "drbd-r0")
}

func TestClusterIsReadFromCrmMon(t *testing.T) {
	xml, err := os.ReadFile("testdata/crm_mon-2.1.5.xml")
	require.NoError(t, err)
	checkCluster(t, xml)
}

func checkCluster(t *testing.T, xml []byte) {
	t.Helper()
	c, err := parseCluster(xml)
	require.NoError(t, err)
	require.Equal(t, Cluster{
		DC: "n1", Quorum: true,
		Nodes: []Node{
			{Name: "n1", Online: true, DC: true, Attributes: map[string]string{"master-drbd_r0": "10000"}},
			{Name: "n2", Online: true, Attributes: map[string]string{"master-drbd_r0": "1000"}},
		},
		Resources: []Resource{
			{ID: "drbd_r0", Agent: "ocf:pacemaker:Stateful", Role: "Promoted", Active: true, Managed: true, Nodes: []string{"n1"}},
			{ID: "drbd_r0", Agent: "ocf:pacemaker:Stateful", Role: "Unpromoted", Active: true, Managed: true, Nodes: []string{"n2"}},
		},
	}, c)
	require.Equal(t, []string{"n1"}, c.Promoted("drbd_r0:1"))
	require.Empty(t, c.Promoted("other"))
}

// The real tools answer from a file where no cluster runs: the parsers meet the installed version.
func TestInstalledToolsAnswerAsTheParsersExpect(t *testing.T) {
	for _, tool := range []string{"crm_mon", "crm_attribute", "cibadmin"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	cib, err := os.ReadFile("testdata/cib.xml")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "cib.xml") // the tools rewrite the file they are given
	require.NoError(t, os.WriteFile(file, cib, 0o600))
	tools := Tools{Runner: command.Runner{Env: []string{"CIB_file=" + file}}, Instance: "drbd_r0", Node: "n1", Limit: time.Minute}
	ctx := context.Background()

	c, err := tools.Cluster(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"n1"}, c.Promoted("drbd_r0"))
	score, set, err := tools.Score(ctx)
	require.NoError(t, err)
	require.True(t, set)
	require.Equal(t, 10000, score)
	tools.Instance = "unset"
	_, set, err = tools.Score(ctx)
	require.NoError(t, err)
	require.False(t, set)
	tools.Instance = "drbd_r0:0"
	conf, err := tools.Configuration(ctx)
	require.NoError(t, err)
	require.Equal(t, 90*time.Second, conf.Timeout("promote"))
	require.Zero(t, conf.Timeout("demote"))
	require.True(t, conf.Clone)
	require.Equal(t, map[string]string{"promotable": "true", "notify": "true"}, conf.Meta)
}

func TestOldRoleNamesMeanTheSame(t *testing.T) {
	c, err := parseCluster([]byte(`<crm_mon version="1.1.24"><nodes><node name="a" online="true"/></nodes>
	  <resources><clone id="ms"><group id="g:0"><resource id="d:0" role="Master" active="true"><node name="a"/></resource></group></clone></resources></crm_mon>`))
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, c.Promoted("d"))
}

func TestBrokenAnswersAreErrors(t *testing.T) {
	for name, xml := range map[string]string{
		"empty":        "",
		"not XML":      "Connection to cluster failed",
		"truncated":    `<pacemaker-result><nodes><node name="n1"`,
		"no nodes":     `<pacemaker-result><resources/></pacemaker-result>`,
		"error inside": `<pacemaker-result><nodes/><resources/><status code="102" message="Not connected"/></pacemaker-result>`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseCluster([]byte(xml))
			require.Error(t, err)
		})
	}
	_, err := parseConfiguration([]byte(`<resources/>`), "drbd_r0")
	require.ErrorContains(t, err, "not in the cluster's configuration")
	_, err = newFake().tools().Configuration(context.Background())
	require.Error(t, err)
}

func FuzzParseCluster(f *testing.F) {
	xml, err := os.ReadFile("testdata/crm_mon-2.1.5.xml")
	require.NoError(f, err)
	f.Add(xml)
	f.Add([]byte(`<crm_mon><nodes/><resources/></crm_mon>`))
	f.Fuzz(func(_ *testing.T, xml []byte) {
		c, err := parseCluster(xml)
		if err == nil {
			c.Promoted("x")
		}
	})
}

func TestSpansOfPacemaker(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "90": 90 * time.Second, "1500ms": 1500 * time.Millisecond, "2min": 2 * time.Minute,
		"2m": 2 * time.Minute, "1h": time.Hour, "": 0, "-5s": 0, "ten": 0, "5 s": 5 * time.Second, "9parsec": 0,
	} {
		require.Equal(t, want, span(text), text)
	}
}

func TestExecutorSurvivesHostileCommandNames(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "proc", "42")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"),
		[]byte("42 (a) b (c)) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 8 9\n"), 0o600))
	id, err := Executor(root, 42)
	require.NoError(t, err)
	require.Equal(t, "42@777", id)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"), []byte("42 (x) S 1\n"), 0o600))
	_, err = Executor(root, 42)
	require.Error(t, err)
	_, err = Executor(root, 43)
	require.ErrorIs(t, err, fs.ErrNotExist)

	self, err := Executor("/", os.Getpid())
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(self, fmt.Sprint(os.Getpid())+"@"))
	_, err = BootID("/")
	require.NoError(t, err)
	_, err = BootID(root)
	require.True(t, errors.Is(err, fs.ErrNotExist))
}

func TestOnceIsOncePerValue(t *testing.T) {
	l := ledger(t)
	require.True(t, l.Once("split", "StandAlone"))
	require.False(t, l.Once("split", "StandAlone"))
	require.True(t, l.Once("split", "SplitBrain"))
	require.False(t, l.Once("split", ""))
	require.True(t, l.Once("split", "SplitBrain"), "it was over and came back")
}
