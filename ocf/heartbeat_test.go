package ocf

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/metadata"
)

// heartbeatReads decides as ResourceManager's we_own_resource of heartbeat 3.0.6 does:
//
//	case `$spath $arg status` in
//	  *[Nn][Oo][Tt]\ *[Rr]unning*)	return 3;;
//	  *[Rr]unning*|*OK*)			return 0;;
//	  *)					return 3;;
//	esac
func heartbeatReads(words string) (held bool) {
	fold := func(text, word string) int { // the first letter of "Running" or all of "NOT" in any case
		return strings.Index(strings.ToLower(text), word)
	}
	if at := fold(words, "not "); at >= 0 && fold(words[at+len("not "):], "running") >= 0 {
		return false
	}
	return fold(words, "running") >= 0 || strings.Contains(words, "OK")
}

func TestHeartbeatReadsFromTheStatusWordsWhetherTheResourceIsHeld(t *testing.T) {
	for _, c := range []struct {
		state State
		err   error
		held  bool
		code  int
	}{
		{state: Stopped, held: false, code: 3},
		{state: Running, held: true, code: 0},
		{state: Promoted, held: true, code: 0},
		{state: DegradedRunning, held: true, code: 0},
		{state: DegradedPromoted, held: true, code: 0},
		{state: FailedPromoted, held: true, code: 1},
		// The peer must not take what may still run here.
		{state: Stopped, err: errors.New("netlink: no answer"), held: true, code: 4},
		{state: Running, err: errors.New("is not running"), held: true, code: 4},
	} {
		words, code := statusWords(c.state, c.err)
		require.Equalf(t, c.held, heartbeatReads(words), "%v, %v: %q", c.state, c.err, words)
		require.Equalf(t, c.code, code, "%v, %v", c.state, c.err)
		require.NotContains(t, words, "\n")
	}
	require.False(t, heartbeatReads("cannot determine status, may be running"), "the trap that the words must avoid")
}

func TestTheHaresourcesFormIsToldFromOtherCalls(t *testing.T) {
	spec := metadata.Agent{Name: "thing", Actions: []metadata.Action{{Name: "start"}, {Name: "stop"}, {Name: "monitor"}, {Name: "status"}}}
	for _, c := range []struct {
		argv0 string
		args  string
		want  bool
	}{
		{"/etc/ha.d/resource.d/thing", "start", true},
		{"/etc/ha.d//resource.d/thing", "r0 stop", true}, // HA_RESOURCEDIR has the double slash for scripts that heartbeat itself starts
		{"/etc/ha.d/resource.d/thing", "r0 status", true},
		{"/etc/ha.d/resource.d/thing", "meta-data", false},
		{"/etc/ha.d/resource.d/thing", "r0 monitor", false},
		{"/etc/ha.d/resource.d/thing", "", false},
		{"/usr/lib/ocf/resource.d/baton/thing", "start", false},
		{"/usr/lib/ocf/resource.d/baton/thing", "r0 start", true},
		{"thing", "192.0.2.50/24/eth0 status", true},
		{"thing", "status", false},
		{"thing", "monitor stop", false},
		{"thing", "-o ip=192.0.2.50 start", false},
		{"thing", "start -o ip=192.0.2.50", false},
	} {
		require.Equalf(t, c.want, calledByHeartbeat(spec, c.argv0, strings.Fields(c.args)), "%s %s", c.argv0, c.args)
	}
}

// thing is an agent that remembers what it was called with.
type thing struct {
	seen    string
	params  map[string]string
	timeout time.Duration
	state   State
	err     error
	left    time.Duration // until the deadline, at the start of the action
}

func (a *thing) act(ctx context.Context, c *Call) error {
	a.seen = c.Env.Action
	a.params = map[string]string{}
	for _, name := range []string{"name", "zone", "wait"} {
		a.params[name] = c.Params.String(name)
	}
	a.timeout = c.Env.Timeout
	if end, ok := ctx.Deadline(); ok {
		a.left = time.Until(end)
	}
	return a.err
}

func (a *thing) program() Program {
	return Program{
		Spec: metadata.Agent{
			Name: "thing",
			Parameters: []metadata.Parameter{
				{Name: "name", Required: true, Identifies: true},
				{Name: "zone", Aliases: []string{"area"}, Default: "here"},
				{Name: "wait", Type: metadata.Seconds, Default: "5", Min: 1},
			},
			Actions: []metadata.Action{
				{Name: "start", Timeout: 40 * time.Second},
				{Name: "stop", Timeout: 40 * time.Second},
				{Name: "monitor", Timeout: 20 * time.Second},
			},
		},
		Positional: func(args []string) (map[string]string, error) {
			values := map[string]string{"name": args[0]}
			if len(args) > 1 {
				values["zone"] = args[1]
			}
			if len(args) > 2 {
				return values, errors.New("too many arguments; expected thing::NAME[::ZONE]")
			}
			return values, nil
		},
		Start:   a.act,
		Stop:    a.act,
		Monitor: func(ctx context.Context, c *Call) (State, error) { return a.state, a.act(ctx, c) },
	}
}

type heardBack struct {
	code                int
	stdout, stderr, log string
}

// callAsHeartbeat calls the agent with the environment that heartbeat 3.0.6 gives its scripts.
func callAsHeartbeat(t *testing.T, a *thing, defaults string, args ...string) heardBack {
	t.Helper()
	dir := t.TempDir()
	if defaults != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "baton-thing.conf"), []byte(defaults), 0o600))
	}
	halog := filepath.Join(dir, "ha-log")
	var stdout, stderr bytes.Buffer
	code := RunOn(a.program(), Host{
		Argv0:  filepath.Join(dir, "resource.d", "thing"),
		Args:   args,
		Stdout: &stdout, Stderr: &stderr,
		Environ: []string{
			"OCF_ROOT=/usr/lib/ocf", "HA_DIR=/etc/ha.d", "HA_CURHOST=n1", "HA_debug=0", "HA_LOGD=no",
			"HA_LOGFILE=" + halog, "HA_DATEFMT=%Y/%m/%d_%T\t", "HA_RSCTMP=" + dir,
		},
	})
	log, err := os.ReadFile(halog)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	return heardBack{code, stdout.String(), stderr.String(), string(log)}
}

func TestTheHaresourcesLineBeatsTheFileOfDefaults(t *testing.T) {
	for _, c := range []struct {
		about, defaults string
		args            []string
		want            map[string]string
	}{
		{"nothing but the positional form", "", []string{"r0"}, map[string]string{"name": "r0", "zone": "here", "wait": "5"}},
		{"a default from the file", "# comment\n\n zone = there \n", []string{"r0"}, map[string]string{"name": "r0", "zone": "there", "wait": "5"}},
		{"a value with blanks, which haresources cannot hold", "zone=over there\n", []string{"r0"}, map[string]string{"name": "r0", "zone": "over there", "wait": "5"}},
		{"positional over file", "zone=there\n", []string{"r0", "mine"}, map[string]string{"name": "r0", "zone": "mine", "wait": "5"}},
		{"named over file, by alias", "area=there\n", []string{"r0", "zone=mine"}, map[string]string{"name": "r0", "zone": "mine", "wait": "5"}},
		{"alias over file", "zone=there\n", []string{"r0", "area=mine"}, map[string]string{"name": "r0", "zone": "mine", "wait": "5"}},
		{"named over positional", "", []string{"r0", "mine", "zone=named"}, map[string]string{"name": "r0", "zone": "named", "wait": "5"}},
		{"all named", "", []string{"name=r0", "wait=7"}, map[string]string{"name": "r0", "zone": "here", "wait": "7"}},
		{"a value with an equals sign", "", []string{"r0", "zone=a=b"}, map[string]string{"name": "r0", "zone": "a=b", "wait": "5"}},
	} {
		a := &thing{}
		got := callAsHeartbeat(t, a, c.defaults, append(c.args, "start")...)
		require.Equalf(t, 0, got.code, "%s: %s", c.about, got.stderr)
		require.Equal(t, c.want, a.params, c.about)
		require.Empty(t, got.stdout, "%s: heartbeat's debug log needs no words for a success", c.about)
	}
}

func TestHeartbeatWaitsForEverSoTheAgentsOwnDeadlineHolds(t *testing.T) {
	for _, c := range []struct {
		about, defaults string
		args            []string
		least, most     time.Duration
	}{
		{"the declaration's timeout", "", []string{"r0", "start"}, 30 * time.Second, 40 * time.Second},
		{"status has the monitor's", "", []string{"r0", "status"}, 15 * time.Second, 20 * time.Second},
		{"raised in the file", "start_timeout=600\n", []string{"r0", "start"}, 500 * time.Second, 600 * time.Second},
		{"of another action", "start_timeout=600\n", []string{"r0", "stop"}, 30 * time.Second, 40 * time.Second},
		{"raised in haresources", "start_timeout=600\n", []string{"r0", "start_timeout=900s", "start"}, 800 * time.Second, 900 * time.Second},
	} {
		a := &thing{}
		got := callAsHeartbeat(t, a, c.defaults, c.args...)
		require.Containsf(t, []int{0, 3}, got.code, "%s: %s", c.about, got.stderr)
		require.Greater(t, a.left, c.least, c.about)
		require.Less(t, a.left, c.most, c.about)
	}
}

func TestAMistakeInHaresourcesFailsTheStartButNeverTheStop(t *testing.T) {
	for _, c := range []struct {
		about, defaults string
		args            []string
	}{
		{"a name that no parameter has", "", []string{"r0", "zome=mine"}},
		{"too many arguments", "", []string{"r0", "mine", "extra"}},
		{"a line of the file that is none", "zone there\n", []string{"r0"}},
		{"a bad deadline", "stop_timeout=soon\n", []string{"r0"}},
		{"a value of the wrong type", "wait=soon\n", []string{"r0"}},
	} {
		a := &thing{}
		got := callAsHeartbeat(t, a, c.defaults, append(c.args, "start")...)
		require.Equal(t, 6, got.code, c.about)
		require.Empty(t, a.seen, "%s: nothing may have been started", c.about)
		require.Equal(t, 1, strings.Count(got.stderr, "ocf-exit-reason:"), c.about)
		require.Contains(t, got.log, "ERROR: ", "%s: ha-log must have the reason", c.about)

		got = callAsHeartbeat(t, a, c.defaults, append(c.args, "stop")...)
		require.Equalf(t, 0, got.code, "%s: %s", c.about, got.stderr)
		require.Equal(t, "stop", a.seen, "%s: what the rest of the line names must be stopped", c.about)
		require.Equal(t, "r0", a.params["name"], c.about)
		require.Contains(t, got.log, "WARNING: ignored: ", c.about)
	}
}

func TestALineThatNamesNothingIsNeverSaidToBeStopped(t *testing.T) {
	a := &thing{}
	got := callAsHeartbeat(t, a, "", "nam=r0", "stop")
	require.NotEqual(t, 0, got.code)
	require.Empty(t, a.seen)
	require.Contains(t, got.log, "nam=")

	got = callAsHeartbeat(t, a, "", "nam=r0", "status")
	require.True(t, heartbeatReads(got.stdout), got.stdout)
}

func TestStatusIsOneLineOnStandardOutputAndItsReasonIsInTheLog(t *testing.T) {
	for state, want := range map[State]string{Stopped: "stopped\n", Running: "running OK\n", Promoted: "running OK\n"} {
		got := callAsHeartbeat(t, &thing{state: state}, "", "r0", "status")
		require.Equal(t, want, got.stdout)
		require.Empty(t, got.stderr)
		require.Empty(t, got.log)
	}
	got := callAsHeartbeat(t, &thing{err: &Error{Op: "read", Object: "/proc/drbd", Found: "I/O error", Expected: "text"}}, "", "r0", "status")
	require.True(t, heartbeatReads(got.stdout), got.stdout)
	require.Equal(t, 1, strings.Count(got.stdout, "\n"))
	require.Contains(t, got.log, "/proc/drbd: I/O error")
}

func TestAFailureReachesHaLogInTheFormOfItsOtherLines(t *testing.T) {
	got := callAsHeartbeat(t, &thing{err: &Error{Op: "start", Object: "r0", Found: "held by pid 7 (mysqld)", Expected: "nobody", Do: "end it"}}, "", "r0", "start")
	require.Equal(t, 1, got.code)
	require.Equal(t, "ocf-exit-reason:start r0: held by pid 7 (mysqld); expected nobody; end it\n", got.stderr)
	// 2026/11/21_11:47:32  ResourceManager(default)[141]:    info: Running …
	require.Regexp(t, `^\d{4}/\d\d/\d\d_\d\d:\d\d:\d\d  thing\(thing_r0\)\[\d+\]:    ERROR: start r0: held by pid 7 \(mysqld\); expected nobody; end it\n$`, got.log)
}

func TestHeartbeatIsNotSaidToMendWhatItDoesNotWatch(t *testing.T) {
	got := callAsHeartbeat(t, &thing{err: &Error{Object: "r0", Found: "hangs", Do: Recovered}}, "", "r0", "status")
	for _, text := range []string{got.stderr, got.log} {
		require.Contains(t, text, "r0: hangs; "+unwatched)
		require.NotContains(t, text, Recovered)
	}
}

func TestTheDateOfLogLinesFollowsHA_DATEFMT(t *testing.T) {
	at := time.Date(2026, 3, 9, 8, 7, 6, 0, time.UTC)
	for strftime, want := range map[string]string{
		"%Y/%m/%d_%T\t": "2026/03/09_08:07:06\t", // what heartbeat sets
		"%b %d %T ":     "Mar 09 08:07:06 ",      // the default of resource-agents
		"":              "Mar 09 08:07:06",
		"%s":            "Mar 09 08:07:06",
		"%F %H:%M:%S":   "2026-03-09 08:07:06",
	} {
		require.Equal(t, want, at.Format(layout(strftime)), strftime)
	}
}

func FuzzHaresourcesArgumentsNeverBreakTheAgent(f *testing.F) {
	f.Add("r0", "zone=x", "a=b")
	f.Add("=", "==", "start")
	f.Add("192.0.2.50/24/eth0", "\x00", "zone=\xff")
	f.Add("start_timeout=-1", "stop_timeout=99999999999999999999", "wait=")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		p := (&thing{}).program()
		p.Positional = nil
		said, err := p.heartbeatValues("/proc/none", []string{a, b, c})
		for name := range said.values {
			_, declared := p.Spec.Parameter(name)
			require.True(t, declared, name)
		}
		for _, d := range said.deadlines {
			require.GreaterOrEqual(t, d, time.Second)
		}
		if err != nil {
			require.NotEmpty(t, oneLine(err.Error()))
		}
	})
}

func FuzzTheFileOfDefaultsNeverBreaksTheAgent(f *testing.F) {
	f.Add("zone=x\n# c\n\nwait=5\r\nstart_timeout=5\n")
	f.Add("=\n==\n\x00=\xff\n")
	f.Fuzz(func(t *testing.T, text string) {
		p := (&thing{}).program()
		said := fromHeartbeat{values: map[string]string{}, deadlines: map[string]time.Duration{}}
		_ = p.parseDefaults(said, "baton-thing.conf", text)
		for name := range said.values {
			_, declared := p.Spec.Parameter(name)
			require.True(t, declared, name)
		}
	})
}
