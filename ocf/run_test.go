package ocf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/metadata"
)

// widget is an agent whose actions do what a test wants of them and note that they were called.
type widget struct {
	called []string
	seen   *Call
	do     func(ctx context.Context, c *Call) error
	state  State
	found  func(c *Call) (State, error)
	check  []Problem
	host   []Problem
}

func (w *widget) act(ctx context.Context, c *Call) error {
	w.called, w.seen = append(w.called, c.Env.Action), c
	if w.do != nil {
		return w.do(ctx, c)
	}
	return nil
}

func (w *widget) program() Program {
	monitor := func(ctx context.Context, c *Call) (State, error) {
		if err := w.act(ctx, c); err != nil {
			return Stopped, err
		}
		if w.found != nil {
			return w.found(c)
		}
		return w.state, nil
	}
	return Program{
		Spec: metadata.Agent{
			Name: "widget", Version: "1.0", ShortDesc: "a widget", LongDesc: "A widget.", Positional: "NAME",
			Parameters: []metadata.Parameter{
				{Name: "name", Required: true, Identifies: true, ShortDesc: "name of the widget", LongDesc: "The name."},
				{Name: "dir", Required: true, ShortDesc: "its directory", LongDesc: "The directory."},
				{Name: "wait", Aliases: []string{"patience"}, Type: metadata.Seconds, Default: "5", Reloadable: true, ShortDesc: "wait", LongDesc: "How long."},
				{Name: "mode", Type: metadata.Select, Options: []string{"manual", "auto"}, Default: "manual", ShortDesc: "mode", LongDesc: "The mode."},
				{Name: "eager", Type: metadata.Boolean, Default: "false", ShortDesc: "eager", LongDesc: "Eager."},
				{Name: "count", Type: metadata.Integer, Min: 1, Max: 9, ShortDesc: "count", LongDesc: "The count."},
			},
			Actions: []metadata.Action{
				{Name: "start", Timeout: 40 * time.Second},
				{Name: "stop", Timeout: 40 * time.Second},
				{Name: "monitor", Timeout: 20 * time.Second, Interval: 10 * time.Second, Role: metadata.Promoted},
				{Name: "monitor", Timeout: 20 * time.Second, Interval: 11 * time.Second, Role: metadata.Unpromoted},
				{Name: "promote", Timeout: 40 * time.Second},
				{Name: "demote", Timeout: 40 * time.Second},
				{Name: "notify", Timeout: 10 * time.Second},
				{Name: "reload-agent", Timeout: 10 * time.Second},
				{Name: "validate-all", Timeout: 10 * time.Second},
				{Name: "meta-data", Timeout: 5 * time.Second},
			},
		},
		Positional: func(args []string) (map[string]string, error) { return map[string]string{"name": args[0]}, nil },
		Check: func(c *Call) []Problem {
			if c.Params.String("name") == "panic" {
				panic("in the check")
			}
			return w.check
		},
		Validate: func(ctx context.Context, c *Call) []Problem {
			w.called = append(w.called, "validate")
			return w.host
		},
		Monitor: monitor, Start: w.act, Stop: w.act, Promote: w.act, Demote: w.act, ReloadAgent: w.act,
		Notify: func(ctx context.Context, c *Call, n Notification) error {
			return w.act(ctx, c)
		},
		Internal: map[string]func(context.Context, *Call, []string) error{
			"watch": func(_ context.Context, _ *Call, args []string) error {
				w.called = append(w.called, "watch "+strings.Join(args, " "))
				if len(args) == 0 {
					return errors.New("nothing to watch")
				}
				if args[0] == "panic" {
					panic("in the helper")
				}
				return nil
			},
		},
	}
}

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

func runOn(p Program, environ []string, args ...string) heard {
	var stdout, stderr bytes.Buffer
	code := RunOn(p, Host{Argv0: "/usr/lib/ocf/resource.d/baton/widget", Args: args, Environ: environ, Stdout: &stdout, Stderr: &stderr})
	return heard{code, stdout.String(), stderr.String()}
}

// cluster calls as Pacemaker does, with the log going to standard error.
func (w *widget) cluster(action string, more ...string) heard {
	environ := append(pacemaker("HA_LOGFACILITY=", "HA_logfacility=", "HA_LOGFILE=", "OCF_RESKEY_name=w1", "OCF_RESKEY_dir=/srv"), more...)
	return runOn(w.program(), environ, action)
}

// recurring makes a monitor a recurring one.
const recurring = "OCF_RESKEY_CRM_meta_interval=10000"

func TestEachActionCallsItsFunctionAndSucceedsQuietly(t *testing.T) {
	for _, action := range []string{"start", "stop", "promote", "demote", "notify", "reload-agent"} {
		w := &widget{}
		require.Equal(t, heard{}, w.cluster(action), action)
		require.Equal(t, []string{action}, w.called)
	}
	w := &widget{}
	require.Equal(t, heard{}, w.cluster("validate-all"))
	require.Equal(t, []string{"validate"}, w.called)
}

func TestWhatAMonitorFindsIsItsExitCode(t *testing.T) {
	for _, c := range []struct {
		state  State
		code   int
		reason bool // of a recurring monitor; of a probe too, except for Stopped
	}{
		{Stopped, 7, true},
		{Running, 0, false},
		{Promoted, 8, false},
		{FailedPromoted, 9, true},
		{DegradedRunning, 190, true},
		{DegradedPromoted, 191, true},
		{State(99), 1, true},
	} {
		w := &widget{found: func(call *Call) (State, error) {
			call.Note("the noted words")
			return c.state, nil
		}}
		got := w.cluster("monitor", recurring)
		require.Equal(t, c.code, got.code, c.state.String())
		require.Empty(t, got.stdout)
		if c.reason {
			require.Equal(t, []string{"the noted words"}, got.reasons(), c.state.String())
		} else {
			require.Empty(t, got.stderr)
		}
		got = w.cluster("monitor")
		require.Equal(t, c.code, got.code, c.state.String())
		require.Equal(t, c.reason && c.state != Stopped, len(got.reasons()) == 1, c.state.String())
	}
}

func TestAFailingStateWithoutANoteStillHasAReason(t *testing.T) {
	require.Equal(t, []string{"found stopped"}, (&widget{}).cluster("monitor", recurring).reasons())
}

type missingTool struct{}

func (missingTool) Error() string      { return "drbdadm: not found in /sbin" }
func (missingTool) NotInstalled() bool { return true }

func TestEachKindOfErrorHasItsExitCodeAndOneReasonAndALogLine(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   int
		reason string
	}{
		{errors.New("plain"), 1, "plain"},
		{&Error{Op: "start", Object: "w1", Found: "held by pid 7", Expected: "nobody", Do: "end it"}, 1, "start w1: held by pid 7; expected nobody; end it"},
		{&Error{Kind: BadArgs, Found: "x"}, 2, "x"},
		{&Error{Kind: Unimplemented, Found: "x"}, 3, "x"},
		{&Error{Kind: NoPermission, Found: "x"}, 4, "x"},
		{&Error{Kind: NotInstalled, Found: "x"}, 5, "x"},
		{&Error{Kind: BadConfig, Object: "dir", Found: "no such directory", Err: fs.ErrNotExist}, 6, "dir: no such directory: file does not exist"},
		{&Error{Kind: Kind(42), Found: "x"}, 1, "x"},
		{fmt.Errorf("outer: %w", &Error{Kind: BadConfig, Found: "inner"}), 6, "outer: inner"},
		{missingTool{}, 5, "drbdadm: not found in /sbin"},
		{&Error{Op: "start", Err: missingTool{}}, 5, "start: drbdadm: not found in /sbin"},
		{errors.New("several\nlines\r\nof text"), 1, "several | lines | of text"},
		{errors.New("forged ocf-exit-reason:all is well"), 1, "forged ocf-exit-reason :all is well"},
		{errors.New(strings.Repeat("x", 10000)), 1, strings.Repeat("x", 4096) + "…"},
	} {
		w := &widget{do: func(context.Context, *Call) error { return c.err }}
		got := w.cluster("start")
		require.Equal(t, c.code, got.code, c.reason)
		require.Equal(t, "ocf-exit-reason:"+c.reason+"\nERROR: "+c.reason+"\n", got.stderr)
		require.Empty(t, got.stdout)
	}
}

// Pacemaker takes 5 from a probe for "not running" (pcmk_xe_mask_probe_failure): a tool that is
// missing proves nothing of the sort.
func TestAMissingToolDoesNotMakeAProbeSayNotRunning(t *testing.T) {
	w := &widget{do: func(context.Context, *Call) error { return missingTool{} }}
	require.Equal(t, 1, w.cluster("monitor").code)
	require.Equal(t, 1, w.cluster("monitor", recurring).code)
	w.do = func(context.Context, *Call) error { return &Error{Kind: NotInstalled, Found: "no such kernel module"} }
	require.Equal(t, 5, w.cluster("monitor").code, "an agent that is certain may say so")
}

func TestAMissingRightIsCode4ForWhomeverIsNotRoot(t *testing.T) {
	w := &widget{do: func(context.Context, *Call) error {
		return fmt.Errorf("adding the address: %w", syscall.EPERM)
	}}
	var stderr bytes.Buffer
	h := Host{Args: []string{"start"}, Environ: pacemaker("OCF_RESKEY_name=w1", "OCF_RESKEY_dir=/srv"), Stderr: &stderr, Stdout: &stderr}
	require.Equal(t, 1, RunOn(w.program(), h), "root that lacks a right is not helped by being root")
	h.Unprivileged = true
	require.Equal(t, 4, RunOn(w.program(), h))
	require.Contains(t, stderr.String(), "adding the address: operation not permitted; run it as root")
}

// The policy on bad parameters: what a start must refuse, a stop must survive.
func TestABadParameterFailsWhatBeginsAndNeverWhatEnds(t *testing.T) {
	type answers struct {
		code   int
		called bool
	}
	refused, went, gone := answers{6, false}, answers{0, true}, answers{0, false}
	for _, c := range []struct {
		about string
		set   string
		check []Problem
		start answers // start, promote, reload-agent
		stop  answers
		probe answers
		watch answers // a recurring monitor, demote, notify
	}{
		{about: "all good", start: went, stop: went, probe: went, watch: went},
		{about: "a value of the wrong type", set: "wait=soon", start: refused, stop: went, probe: went, watch: went},
		{about: "by an alias", set: "patience=soon", start: refused, stop: went, probe: went, watch: went},
		{about: "a required one that names nothing is missing", set: "dir=", start: refused, stop: went, probe: went, watch: went},
		{about: "the agent's own check", check: []Problem{{Param: "mode", Kind: BadConfig, Found: "bad"}}, start: refused, stop: went, probe: went, watch: went},
		{about: "the agent's own check of several together", check: []Problem{{Kind: BadConfig, Found: "bad"}}, start: refused, stop: went, probe: went, watch: went},
		{about: "a warning", check: []Problem{{Param: "mode", Warning: true, Found: "odd"}}, start: went, stop: went, probe: went, watch: went},
		{about: "the name is missing", set: "name=", start: refused, stop: gone, probe: answers{7, false}, watch: answers{1, false}},
		{about: "the name is no name", set: "name=two\nlines", start: refused, stop: gone, probe: answers{7, false}, watch: answers{1, false}},
		{about: "the name fails the agent's check", check: []Problem{{Param: "name", Kind: BadConfig, Found: "bad"}}, start: refused, stop: gone, probe: answers{7, false}, watch: answers{1, false}},
		{about: "an unknown parameter", set: "label=w2", start: went, stop: went, probe: went, watch: went},
	} {
		t.Run(c.about, func(t *testing.T) {
			for action, want := range map[string]answers{
				"start": c.start, "promote": c.start, "reload-agent": c.start, "stop": c.stop, "monitor": c.probe,
				"recurring": c.watch, "demote": c.watch, "notify": c.watch,
			} {
				w := &widget{state: Running, check: c.check}
				var more []string
				if c.set != "" {
					more = append(more, "OCF_RESKEY_"+c.set)
				}
				if action == "recurring" {
					action, more = "monitor", append(more, recurring)
				}
				got := w.cluster(action, more...)
				require.Equal(t, want.code, got.code, "%s: %s", action, got.stderr)
				require.Equal(t, want.called, len(w.called) == 1, action)
				if want.code == 0 || want.code == 7 {
					require.Empty(t, got.reasons(), action)
				} else {
					require.Len(t, got.reasons(), 1, action)
				}
			}
		})
	}
}

func TestABadValueIsReplacedByTheDefaultWithAWarningWhereTheActionGoesOn(t *testing.T) {
	w := &widget{}
	got := w.cluster("stop", "OCF_RESKEY_wait=soon", "OCF_RESKEY_count=77")
	require.Equal(t, 0, got.code)
	require.Equal(t, 5*time.Second, w.seen.Params.Seconds("wait"))
	require.Equal(t, 0, w.seen.Params.Int("count"))
	require.Equal(t, "WARNING: ignored: wait: \"soon\"; expected a whole number of seconds from 0; correct wait\n"+
		"WARNING: ignored: count: \"77\"; expected a whole number from 1 to 9; correct count\n", got.stderr)
}

func TestAWarningOfTheCheckIsToldOnceByStartAndNotByEachMonitor(t *testing.T) {
	w := &widget{state: Running, check: []Problem{{Param: "mode", Warning: true, Found: "odd", Do: "change it"}}}
	require.Equal(t, "WARNING: mode: odd; change it\n", w.cluster("start").stderr)
	require.Empty(t, w.cluster("monitor", recurring).stderr)
	require.Empty(t, w.cluster("stop").stderr)
}

func TestTheAgentsCheckSeesOnlyValuesThatFitTheirDeclaration(t *testing.T) {
	p := (&widget{}).program()
	var seen time.Duration
	p.Check = func(c *Call) []Problem {
		seen = c.Params.Seconds("wait")
		return []Problem{{Param: "wait", Kind: BadConfig, Found: "a second complaint about the same"}}
	}
	got := runOn(p, pacemaker("OCF_RESKEY_name=w1", "OCF_RESKEY_dir=/srv", "OCF_RESKEY_wait=soon"), "start")
	require.Equal(t, 5*time.Second, seen)
	require.Equal(t, []string{`wait: "soon"; expected a whole number of seconds from 0; correct wait`}, got.reasons())
}

func TestValidateAllTellsEveryProblemAndTheFirstDecides(t *testing.T) {
	w := &widget{check: []Problem{{Param: "mode", Warning: true, Found: "odd"}}}
	got := w.cluster("validate-all", "OCF_RESKEY_wait=soon", "OCF_RESKEY_count=77", "OCF_RESKEY_label=x")
	require.Equal(t, 6, got.code)
	require.Equal(t, []string{`wait: "soon"; expected a whole number of seconds from 0; correct wait`}, got.reasons())
	for _, line := range []string{
		"ERROR: wait: ", "ERROR: count: ", "WARNING: mode: odd",
		"WARNING: label: is not a parameter of widget; expected a name listed by --help",
	} {
		require.Equal(t, 1, strings.Count(got.stderr, line), "%s in\n%s", line, got.stderr)
	}
	require.Empty(t, w.called, "this host is looked at only under good parameters")

	w = &widget{host: []Problem{
		{Warning: true, Found: "a unit starts it at boot", Do: "disable it"},
		{Kind: NotInstalled, Found: "no tool"},
		{Kind: BadConfig, Found: "no directory"},
	}}
	got = w.cluster("validate-all")
	require.Equal(t, 5, got.code)
	require.Equal(t, []string{"no tool"}, got.reasons())
	require.Contains(t, got.stderr, "ERROR: no directory")
	require.Contains(t, got.stderr, "WARNING: a unit starts it at boot; disable it")
}

// OCF 1.1: at level 0 validate-all must not depend on this host.
func TestValidateAllLooksAtThisHostUnlessLevel0IsAsked(t *testing.T) {
	for level, want := range map[string]int{"": 1, "0": 0, "5": 1, "10": 1, "20": 1} {
		w := &widget{}
		w.cluster("validate-all", "OCF_CHECK_LEVEL="+level)
		require.Len(t, w.called, want, level)
	}
}

func TestUnsupportedActionsAreCode3WhateverTheParameters(t *testing.T) {
	w := &widget{}
	for _, action := range []string{"migrate_to", "migrate_from", "reload", "recover", "frobnicate", "\n", strings.Repeat("x", 1000)} {
		got := w.cluster(action, "OCF_RESKEY_name=", "OCF_RESKEY_wait=soon")
		require.Equal(t, 3, got.code, action)
		require.Len(t, got.reasons(), 1, action)
		require.Contains(t, got.reasons()[0], "is not supported; expected one of start, stop, monitor, promote")
	}
	require.Empty(t, w.called)

	p := w.program()
	p.Promote, p.Notify, p.ReloadAgent = nil, nil, nil
	for _, action := range []string{"promote", "notify", "reload-agent"} {
		require.Equal(t, 3, runOn(p, pacemaker(), action).code, action)
	}
}

func TestWrongArgumentsAreCode2(t *testing.T) {
	w := &widget{}
	byHand := []string{"PATH=/bin"}
	for _, c := range []struct {
		environ []string
		args    []string
		reason  string
	}{
		{pacemaker(), nil, "no action given; see widget --help"},
		{byHand, nil, "no action given; see widget --help"},
		{byHand, []string{"--frob"}, "unknown flag: --frob; see widget --help"},
		{byHand, []string{"monitor", "extra"}, `"extra" after the action monitor; give parameters as -o NAME=VALUE; see widget --help`},
		{byHand, []string{"monitor", "-o", "name"}, `-o "name": expected NAME=VALUE; see widget --help`},
		{byHand, []string{"monitor", "-o", "label=x"}, `-o "label": widget has no such parameter; see widget --help`},
		{byHand, []string{"monitor", "-l", "-1"}, "--level -1: expected 0, 10 or 20; see widget --help"},
		{byHand, []string{"monitor", "-t", "0s"}, "--timeout 0s: expected a time such as 30s; see widget --help"},
		{byHand, []string{"monitor", "-t", "soon"}, `invalid argument "soon" for "-t, --timeout" flag: time: invalid duration "soon"; see widget --help`},
	} {
		got := runOn(w.program(), c.environ, c.args...)
		require.Equal(t, 2, got.code, c.reason)
		require.Equal(t, []string{c.reason}, got.reasons())
		require.Empty(t, got.stdout)
	}
	require.Empty(t, w.called)
}

func TestUnderAClusterArgumentsAfterTheActionAreIgnored(t *testing.T) {
	w := &widget{}
	got := runOn(w.program(), pacemaker("OCF_RESKEY_name=w1", "OCF_RESKEY_dir=/srv"), "start", "-o", "name=other", "--frob", "x")
	require.Equal(t, heard{}, got)
	require.Equal(t, "w1", w.seen.Params.String("name"))
}

func TestByHandOptionsBeatTheEnvironmentAndWordsAreSaid(t *testing.T) {
	w := &widget{state: Promoted}
	got := runOn(w.program(), []string{"OCF_RESKEY_name=env", "OCF_RESKEY_dir=/srv", "OCF_RESKEY_wait=1"},
		"monitor", "-o", "name=w1", "-o", "patience=9", "-l", "10", "-t", "30s", "-d")
	require.Equal(t, heard{code: 8, stdout: "widget_w1: promoted\n"}, got)
	require.Equal(t, "w1", w.seen.Params.String("name"))
	require.Equal(t, 9*time.Second, w.seen.Params.Seconds("wait"), "by an alias, too")
	require.Equal(t, 10, w.seen.Env.CheckLevel)
	require.Equal(t, 30*time.Second, w.seen.Env.Timeout)

	got = runOn(w.program(), nil, "start", "-o", "name=w1", "-o", "dir=/srv")
	require.Equal(t, heard{stdout: "widget_w1: start: done\n"}, got)

	w.found = func(c *Call) (State, error) { c.Note("no such widget"); return Stopped, nil }
	got = runOn(w.program(), nil, "monitor", "-o", "name=w1", "-o", "dir=/srv")
	require.Equal(t, heard{code: 7, stdout: "widget_w1: stopped (no such widget)\n"}, got)

	w.do = func(context.Context, *Call) error { return errors.New("broken") }
	got = runOn(w.program(), nil, "start", "-o", "name=w1", "-o", "dir=/srv")
	require.Equal(t, heard{code: 1, stderr: "ocf-exit-reason:broken\n"}, got)

	got = runOn((&widget{}).program(), nil, "validate-all", "-o", "name=w1", "-o", "dir=/srv")
	require.Equal(t, heard{stdout: "widget_w1: validate-all: done (the configuration is valid)\n"}, got)
}

func TestOnATerminalTheLogIsReadDirectlyEvenWithTheEnvironmentOfACluster(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	w := &widget{do: func(_ context.Context, c *Call) error {
		c.Log.Info("adding")
		c.Log.Debug("details")
		return errors.New("broken")
	}}
	var stdout, stderr bytes.Buffer
	code := RunOn(w.program(), Host{
		Args: []string{"start"}, Stdout: &stdout, Stderr: &stderr, Terminal: true,
		Environ: pacemaker("OCF_RESKEY_name=w1", "OCF_RESKEY_dir=/srv", "HA_LOGFILE="+file),
	})
	require.Equal(t, 1, code)
	require.Equal(t, "info: adding\nocf-exit-reason:broken\nerror: broken\n", stderr.String())
	require.Empty(t, stdout.String())
	require.NoFileExists(t, file)
}

func TestAHostileNameCannotForgeALineOrAPath(t *testing.T) {
	w := &widget{state: Running}
	got := runOn(w.program(), nil, "monitor", "-o", "dir=/srv", "-o", "name=../a b;$(x)"+strings.Repeat("y", 500))
	require.Equal(t, 1, strings.Count(got.stdout, "\n"))
	require.NotContains(t, got.stdout, "/")
	require.Less(t, len(got.stdout), 100)
}

func TestMetaDataAndUsageNeedNothing(t *testing.T) {
	p := (&widget{}).program()
	want, err := p.Spec.XML()
	require.NoError(t, err)
	for _, environ := range [][]string{nil, pacemaker(), {"OCF_RESKEY_name=\n", "OCF_ROOT=/x"}} {
		require.Equal(t, heard{stdout: string(want)}, runOn(p, environ, "meta-data"))
		require.Equal(t, 0, runOn(p, environ, "usage").code)
		require.Equal(t, 0, runOn(p, environ, "--help").code)
	}
	require.Equal(t, heard{stdout: "baton widget unreleased\n"}, runOn(p, nil, "--version"))
}

func TestTheUsageTextComesFromTheDeclaration(t *testing.T) {
	got := runOn((&widget{}).program(), nil, "--help")
	golden := filepath.Join("testdata", "usage.txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(golden, []byte(got.stdout), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, heard{stdout: string(want)}, got)
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestMetaDataThatCannotBeWrittenIsAnError(t *testing.T) {
	var stderr bytes.Buffer
	require.Equal(t, 1, RunOn((&widget{}).program(), Host{Args: []string{"meta-data"}, Stdout: full{}, Stderr: &stderr}))
	require.Contains(t, stderr.String(), "ocf-exit-reason:writing the meta-data of widget: no space left on device")
}

func TestAPanicIsCode1WithOneReasonAndTheStackInTheLog(t *testing.T) {
	w := &widget{do: func(context.Context, *Call) error { panic("the\nimpossible") }}
	for _, action := range []string{"start", "stop", "monitor"} {
		got := w.cluster(action)
		require.Equal(t, 1, got.code, action)
		require.Equal(t, []string{action + ": internal error: the | impossible; please report this with the log"}, got.reasons())
		require.Contains(t, got.stderr, "ERROR: panic: the | impossible")
		require.Contains(t, got.stderr, "run_test.go")
	}
	got := (&widget{}).cluster("start", "OCF_RESKEY_name=panic")
	require.Equal(t, 1, got.code, "outside the action itself it would be the runtime's 2, which bans the node")
	require.Equal(t, []string{"start: internal error: in the check; please report this with the log"}, got.reasons())

	p := (&widget{}).program()
	p.Positional = func([]string) (map[string]string, error) { panic("in the positional form") }
	var stdout, stderr bytes.Buffer
	code := RunOn(p, Host{Argv0: "/etc/ha.d/resource.d/widget", Args: []string{"w1", "status"}, Stdout: &stdout, Stderr: &stderr})
	require.Equal(t, 1, code)
	require.True(t, heartbeatReads(stdout.String()), "what is not known may not be given away: %q", stdout.String())
	require.Contains(t, stderr.String(), "ocf-exit-reason:internal error: in the positional form")
}

// brief is a timeout whose half is left to the action: 100 ms, and 50 ms more to unwind.
const brief = "OCF_RESKEY_CRM_meta_timeout=200"

func TestAnActionThatHangsEndsBeforeThePatienceOfTheClusterAndNamesWhatItWaitedFor(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	w := &widget{do: func(_ context.Context, c *Call) error {
		c.Waiting("the lock of %s", "w1")
		<-release // deaf to the deadline
		return nil
	}}
	begin := time.Now()
	got := w.cluster("stop", "OCF_RESKEY_CRM_meta_timeout=2000")
	require.Less(t, time.Since(begin), 2*time.Second)
	require.Equal(t, 1, got.code)
	require.Equal(t, []string{"stop: not finished after 1.5s, waiting for the lock of w1; remove what holds it, or raise the action's timeout"}, got.reasons())
}

func TestAnActionThatHeedsItsDeadlineKeepsItsWords(t *testing.T) {
	for _, c := range []struct {
		about  string
		do     func(ctx context.Context, c *Call) error
		code   int
		reason string
	}{
		{"the bare error of the context", func(ctx context.Context, c *Call) error {
			c.Waiting("the disk")
			<-ctx.Done()
			return ctx.Err()
		}, 1, "start: not finished after 100ms, waiting for the disk; remove what holds it, or raise the action's timeout"},
		{"nothing more is waited for", func(ctx context.Context, c *Call) error {
			c.Waiting("the disk")
			c.Waiting("")
			<-ctx.Done()
			return ctx.Err()
		}, 1, "start: not finished after 100ms; remove what holds it, or raise the action's timeout"},
		{"an error that names the tool", func(ctx context.Context, c *Call) error {
			c.Waiting("the disk")
			<-ctx.Done()
			return fmt.Errorf("drbdadm up: %w", ctx.Err())
		}, 1, "start: not finished after 100ms, waiting for the disk: drbdadm up: context deadline exceeded; remove what holds it, or raise the action's timeout"},
		{"the agent's own words", func(ctx context.Context, c *Call) error {
			<-ctx.Done()
			return &Error{Kind: NotInstalled, Op: "start", Found: "held by pid 7"}
		}, 5, "start: held by pid 7"},
		{"finished at the last moment", func(ctx context.Context, c *Call) error {
			<-ctx.Done()
			return nil
		}, 0, ""},
	} {
		got := (&widget{do: c.do}).cluster("start", brief)
		require.Equal(t, c.code, got.code, c.about)
		if c.reason != "" {
			require.Equal(t, []string{c.reason}, got.reasons(), c.about)
		}
	}
}

func TestTheDeadlineLeavesAMarginOfTheClustersTimeout(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		200 * time.Millisecond: 100 * time.Millisecond,
		2 * time.Second:        500 * time.Millisecond,
		20 * time.Second:       2 * time.Second,
		10 * time.Minute:       3 * time.Second,
	} {
		require.Equal(t, want, margin(timeout), timeout.String())
		require.Less(t, timeout-margin(timeout)+unwind(margin(timeout)), timeout)
	}
}

func TestTheDeadlineIsTheCallersElseTheDeclared(t *testing.T) {
	for _, c := range []struct {
		environ []string
		args    []string
		want    time.Duration
	}{
		{pacemaker(), []string{"start"}, 18 * time.Second},
		{pacemaker("OCF_RESKEY_CRM_meta_timeout="), []string{"start"}, 37 * time.Second}, // declared: 40 s
		{pacemaker("OCF_RESKEY_CRM_meta_timeout=0"), []string{"monitor"}, 18 * time.Second},
		{nil, []string{"start", "-t", "10s"}, 9 * time.Second},
		{nil, []string{"start"}, 37 * time.Second},
	} {
		w := &widget{}
		var left time.Duration
		w.do = func(ctx context.Context, _ *Call) error {
			end, _ := ctx.Deadline()
			left = time.Until(end)
			return nil
		}
		runOn(w.program(), append(c.environ, "OCF_RESKEY_name=w1", "OCF_RESKEY_dir=/srv"), c.args...)
		require.InDelta(t, c.want, left, float64(time.Second), "%v", c.args)
		require.LessOrEqual(t, left, c.want)
	}
}

func TestATerminatingSignalEndsTheActionWithAReason(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		cleaned := false
		w := &widget{do: func(ctx context.Context, c *Call) error {
			c.Waiting("the peer")
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				return err
			}
			<-ctx.Done()
			cleaned = true
			return ctx.Err()
		}}
		got := w.cluster("start")
		require.Equal(t, 1, got.code)
		require.Equal(t, []string{fmt.Sprintf("start: ended by signal %v, waiting for the peer", sig)}, got.reasons())
		require.True(t, cleaned, "the action had its time to leave things in order")
	}
	release := make(chan struct{})
	defer close(release)
	w := &widget{do: func(context.Context, *Call) error {
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		<-release // deaf to it
		return nil
	}}
	begin := time.Now()
	require.Equal(t, 1, w.cluster("start").code)
	require.Less(t, time.Since(begin), 3*time.Second)
}

func TestHelpersOfTheAgentRunOutsideTheContract(t *testing.T) {
	w := &widget{}
	require.Equal(t, 0, runOn(w.program(), pacemaker(), "watch", "over", "it").code)
	require.Equal(t, []string{"watch over it"}, w.called)
	got := runOn(w.program(), pacemaker("HA_LOGFACILITY=", "HA_logfacility=", "HA_LOGFILE="), "watch")
	require.Equal(t, heard{code: 1, stderr: "ERROR: nothing to watch\n"}, got)
	got = runOn(w.program(), pacemaker("HA_LOGFACILITY=", "HA_logfacility=", "HA_LOGFILE="), "watch", "panic")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "ERROR: panic: in the helper")
	require.NotContains(t, runOn(w.program(), nil, "--help").stdout, "watch")
}

func TestRecordsLieBelowHA_RSCTMPAndAreMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	var got string
	w := &widget{do: func(_ context.Context, c *Call) (err error) {
		got, err = c.Records()
		return err
	}}
	require.Equal(t, heard{}, w.cluster("start", "HA_RSCTMP="+dir))
	require.Equal(t, filepath.Join(dir, "baton"), got)
	require.DirExists(t, got)

	answer := w.cluster("start", "HA_RSCTMP=/dev/null")
	require.Equal(t, 1, answer.code)
	require.Regexp(t, `^/dev/null/baton: cannot be made: .*; expected a writable directory .*; make it writable for root or set HA_RSCTMP$`, answer.reasons()[0])
}

func TestThePrefixOfTheReasonIsTheCallers(t *testing.T) {
	got := (&widget{}).cluster("start", "OCF_RESKEY_name=", "OCF_EXIT_REASON_PREFIX=why:")
	require.True(t, strings.HasPrefix(got.stderr, "why:name: no value given; expected name of the widget; set name\n"), got.stderr)
}

func TestStatusIsTheMonitorInWords(t *testing.T) {
	w := &widget{state: Running}
	got := runOn(w.program(), nil, "status", "-o", "name=w1", "-o", "dir=/srv")
	require.Equal(t, heard{stdout: "running OK\nwidget_w1: running\n"}, got)
}

// asAgent makes this test's binary the agent of the tests below, as a process of its own.
const asAgent = "OCF_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) == "" {
		m.Run()
		return
	}
	w := &widget{do: func(ctx context.Context, c *Call) error {
		fmt.Fprintln(os.Stderr, "begun")
		// Standard input ends when the test lets the action go on.
		_, _ = os.Stdin.Read(make([]byte, 1))
		c.Log.Info("half way")
		return os.WriteFile(os.Getenv(asAgent), []byte("finished"), 0o600)
	}}
	os.Exit(Run(w.program())) //nolint:forbidigo // this is the agent's main
}

// Pacemaker's executor may die or restart while an action runs: the action must be finished, not
// killed half way by the first line that nobody reads.
func TestAnActionOutlivesWhoeverReadItsOutput(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	cmd := exec.Command(os.Args[0], "start")
	cmd.Env = []string{asAgent + "=" + done, "OCF_ROOT=/x", "OCF_RESKEY_name=w1", "OCF_RESKEY_dir=/srv"}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = stderr.Read(make([]byte, 10))
	require.NoError(t, err, "the action has begun")
	require.NoError(t, stderr.Close())
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait(), "it ended with code 0")
	require.FileExists(t, done)
}

func TestOnADeviceThatIsNoTerminalNobodyIsTalkedTo(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	defer null.Close()
	require.False(t, isTerminal(null), "daemons have it as their standard streams")
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	defer file.Close()
	require.False(t, isTerminal(file))
	require.NoError(t, file.Close())
	require.False(t, isTerminal(file), "one that cannot be asked is none")
}
