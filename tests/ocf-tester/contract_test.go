package ocftester

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// kept is what Pacemaker keeps of an exit reason; the parameter and the value must stand in it.
const kept = 128

// bad is a value that a parameter must refuse, whatever the agent.
type bad struct{ param, value string }

// badValues are wrong for the type that the declaration gives.
func (a *agent) badValues() []bad {
	var list []bad
	for i, p := range a.params {
		values := []string{"two\nlines", "\x01\x02", "\xff\xfe"}
		switch {
		case p.kind == "integer":
			values = append(values, "soon", "1.5", "-99999999999", "99999999999999999999", "0x10")
		case p.kind == "boolean":
			values = append(values, "perhaps", "2")
		case len(p.options) > 0:
			values = append(values, "no-such-word", strings.ToUpper(p.options[0]))
		}
		for _, v := range some(values, i, 1) {
			list = append(list, bad{p.name, v})
		}
	}
	return append(list, bad{a.identity, a.hopeless})
}

// some are n of the values, others for each turn; all of them in a thorough run.
func some(values []string, turn, n int) []string {
	if thorough || n >= len(values) {
		return values
	}
	var picked []string
	for i := range n {
		picked = append(picked, values[(turn*n+i)%len(values)])
	}
	return picked
}

// shown is how a value stands in a message: quoted and escaped, its beginning at least.
func shown(value string) string {
	q := strconv.Quote(value)
	return q[:min(len(q)-1, 12)]
}

func TestABadParameterIsRefusedWithTheFatalCodeAndOneReasonThatNamesIt(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		before := s.state()
		for i, b := range a.badValues() {
			for _, action := range some([]string{"start", "validate-all", "promote", "reload-agent"}, i, 2) {
				if !a.declares(action) {
					continue
				}
				got := s.run(a.cluster(map[string]string{b.param: b.value}), a.file, action)
				about := fmt.Sprintf("%s with %s=%q: %s", action, b.param, b.value, got.stderr)
				require.Equal(t, 6, got.code, about)
				require.Len(t, got.reasons(), 1, about)
				reason := got.reasons()[0]
				require.LessOrEqual(t, len(reason), 500, about)
				require.Contains(t, reason[:min(kept, len(reason))], b.param, about)
				require.Contains(t, reason[:min(kept, len(reason))], shown(b.value), about)
				require.Empty(t, got.stdout, about)
			}
		}
		require.Equal(t, before, s.state(), "nothing was changed")
	})
}

func TestAMissingRequiredParameterIsRefused(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		for _, p := range a.params {
			if !p.required {
				continue
			}
			got := s.run(a.cluster(map[string]string{p.name: ""}), a.file, "start")
			require.Equal(t, 6, got.code, got.stderr)
			require.Len(t, got.reasons(), 1)
			require.True(t, strings.HasPrefix(got.reasons()[0], p.name+": no value given"), got.stderr)
		}
	})
}

func TestStoppingWhatDoesNotRunSucceedsWithEveryParameterBroken(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		before := s.state()
		got := s.run(a.cluster(nil), a.file, "stop")
		require.Equal(t, 0, got.code, "good parameters: %s", got.stderr)
		require.Empty(t, got.reasons())
		all := map[string]string{}
		for _, b := range a.badValues() {
			got := s.run(a.cluster(map[string]string{b.param: b.value}), a.file, "stop")
			require.Equal(t, 0, got.code, "%s=%q: %s", b.param, b.value, got.stderr)
			require.Empty(t, got.reasons())
			if b.param != a.identity {
				all[b.param] = b.value
			}
		}
		got = s.run(a.cluster(all), a.file, "stop")
		require.Equal(t, 0, got.code, "all but the name broken: %s", got.stderr)
		all[a.identity] = a.hopeless
		require.Equal(t, 0, s.run(a.cluster(all), a.file, "stop").code, "all broken")
		for _, p := range a.params {
			require.Equal(t, 0, s.run(a.cluster(map[string]string{p.name: ""}), a.file, "stop").code, "%s missing", p.name)
		}
		require.Equal(t, 0, s.run([]string{"OCF_ROOT=/usr/lib/ocf"}, a.file, "stop").code, "no parameter at all")
		require.Equal(t, before, s.state(), "nothing was changed")
	})
}

func TestAProbeOfWhatDoesNotRunSaysSoUnderGoodAndBadParameters(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		before := s.state()
		got := s.run(a.cluster(nil), a.file, "monitor")
		require.Equal(t, 7, got.code, got.stderr)
		require.Empty(t, got.reasons(), "a probe that finds nothing is no failure")
		for _, b := range a.badValues() {
			got := s.run(a.cluster(map[string]string{b.param: b.value}), a.file, "monitor")
			require.Equal(t, 7, got.code, "%s=%q: %s", b.param, b.value, got.stderr)
			require.Empty(t, got.reasons())
		}
		require.Equal(t, before, s.state(), "nothing was changed")
	})
}

func TestARecurringMonitorOfWhatIsGoneFailsWithAReason(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		got := s.run(a.cluster(nil, recurring), a.file, "monitor")
		require.Contains(t, []int{1, 7}, got.code, "gone, or its hardware is: %s", got.stderr)
		require.Len(t, got.reasons(), 1)
		require.NotEqual(t, "found stopped", got.reasons()[0], "the agent says what it looked for")
		got = s.run(a.cluster(map[string]string{a.identity: a.hopeless}, recurring), a.file, "monitor")
		require.Equal(t, 1, got.code, "it was started, so it had a name: %s", got.stderr)
		require.Len(t, got.reasons(), 1)
	})
}

func TestUnknownActionsAndWrongArgumentsHaveTheirCodes(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		for _, action := range []string{"frobnicate", "START", " start", "start\n", "migrate_to", strings.Repeat("x", 10_000), "\xff"} {
			got := a.call(t, a.cluster(nil), action)
			require.Equal(t, 3, got.code, "%.30q: %s", action, got.stderr)
			require.Len(t, got.reasons(), 1)
			require.Less(t, len(got.reasons()[0]), 500)
		}
		for _, args := range [][]string{nil, {"--frob"}, {"monitor", "-o"}, {"-o", "ip"}} {
			got := a.call(t, []string{"PATH=/bin"}, args...)
			require.Equal(t, 2, got.code, "%q: %s", args, got.stderr)
			require.Len(t, got.reasons(), 1)
		}
		require.Equal(t, 2, a.call(t, a.cluster(nil)).code, "no action, from a cluster")
	})
}

func TestMoreArgumentsOfAClusterAreIgnored(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		require.Equal(t, 7, s.run(a.cluster(nil), a.file, "monitor", "--frob", "x=y", "z").code)
	})
}

// hostile are texts that must be taken as text. No byte of value 0 can be passed at all.
var hostile = map[string]string{
	"line break":        "x\nocf-exit-reason:all is well\ny",
	"bytes":             "\x01\x02\x7f\x80\xff",
	"100 kB":            strings.Repeat("A", 100_000),
	"shell":             "$(touch /run/pwned);`touch /run/pwned`|touch /run/pwned&&'\"",
	"path":              "../../../../../../run/pwned",
	"absolute path":     "/run/../run/pwned/\x20",
	"option":            "--help",
	"format":            "%s%s%n%d",
	"terminal":          "\x1b]0;title\x07\x1b[31m\u009b31m\u202e",
	"glob":              "*?[a-z]{a,b}~",
	"equals":            "=a=b=",
	"unicode":           "\u2028\u2029\ufeff\U0001f4a9",
	"number":            "18446744073709551616",
	"forged and binary": "ocf-exit-reason:\x00gone"[:16],
}

// printable: no control character reaches a terminal or a log except the ends of lines.
var printable = regexp.MustCompile("^[^\\x00-\\x09\\x0b-\\x1f\\x7f\u0080-\u009f]*$")

func TestHostileValuesAreTakenAsText(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		before := s.state()
		names := slices.Sorted(maps.Keys(hostile))
		for i, p := range a.params {
			if p.kind != "string" {
				continue // the table of bad values has them
			}
			few := 2
			if p.name == a.identity {
				few = len(names)
			}
			for _, about := range some(names, i, few) {
				value := hostile[about]
				for _, action := range []string{"monitor", "stop", "validate-all"} {
					got := s.run(a.cluster(map[string]string{p.name: value}), a.file, action)
					what := fmt.Sprintf("%s with %s in %s: code %d\n%.1000s", action, about, p.name, got.code, got.stderr)
					require.NotEqual(t, -1, got.code, what)
					require.LessOrEqual(t, len(got.reasons()), 1, what)
					require.Regexp(t, printable, got.stderr+got.stdout, what)
					require.NotContains(t, got.stderr, "panic", what)
					require.Less(t, len(got.stderr), 20_000, what)
					for _, reason := range got.reasons() {
						require.NotEqual(t, "all is well", reason, what)
					}
					switch action {
					case "stop":
						require.Equal(t, 0, got.code, what)
					case "monitor":
						require.Equal(t, 7, got.code, what)
					default:
						require.Contains(t, []int{0, 4, 5, 6}, got.code, what)
					}
				}
			}
		}
		require.Equal(t, before, s.state(), "nothing was changed, nothing was run")
	})
}

// A start under a hostile name must be refused before anything is done.
func TestAHostileNameIsNeverStarted(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		before := s.state()
		for about, value := range hostile {
			got := s.run(a.cluster(map[string]string{a.identity: value}), a.file, "start")
			what := fmt.Sprintf("%s: code %d\n%.1000s", about, got.code, got.stderr)
			require.Contains(t, []int{1, 5, 6}, got.code, what)
			require.Len(t, got.reasons(), 1, what)
			require.Less(t, len(got.reasons()[0]), 600, what)
			require.Regexp(t, printable, got.stderr, what)
		}
		require.Equal(t, before, s.state(), "nothing was changed")
	})
}

func TestNoDirectoryForRecordsIsNeededToStopAndProbe(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		s.sh("rm -rf /run/resource-agents; echo >/run/file")
		for _, dir := range []string{"HA_RSCTMP=", "HA_RSCTMP=/run/not/there", "HA_RSCTMP=relative", "HA_RSCTMP=/run/file", "HA_RSCTMP=/proc/1"} {
			got := s.run(a.cluster(nil, dir), a.file, "monitor")
			require.Equal(t, 7, got.code, "%s: %s", dir, got.stderr)
			got = s.run(a.cluster(nil, dir), a.file, "stop")
			require.Equal(t, 0, got.code, "%s: %s", dir, got.stderr)
		}
	})
}

func TestByHandAPersonReadsWords(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		args := []string{a.file, "monitor"}
		for name, value := range a.good {
			args = append(args, "-o", name+"="+value)
		}
		got := s.run([]string{"PATH=/usr/sbin:/usr/bin"}, args...)
		require.Equal(t, 7, got.code, got.stderr)
		require.Regexp(t, `^\S+: stopped( \(.+\))?\n$`, got.stdout)
		require.Empty(t, got.reasons())

		got = a.call(t, nil, "monitor", "-o", "no_such_parameter=1")
		require.Equal(t, 2, got.code)
		require.Contains(t, got.reasons()[0], "no_such_parameter")
	})
}

func TestHelpAndVersionNeedNothing(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		require.Equal(t, heard{stdout: "baton " + a.name + " v0.0.0-test\n"}, a.call(t, nil, "--version"))
		got := a.call(t, nil, "--help")
		require.Equal(t, 0, got.code)
		require.Empty(t, got.stderr)
		for _, p := range a.params {
			require.Regexp(t, `(?m)^  `+p.name+`( \(|$)`, got.stdout)
		}
		for _, act := range a.actions {
			require.Regexp(t, `(?m)^  `+act.name+` +\S`, got.stdout)
		}
		require.Equal(t, got, a.call(t, a.cluster(nil), "usage"))
		for line := range strings.SplitSeq(got.stdout, "\n") {
			require.Equal(t, strings.TrimRight(line, " \t"), line)
		}
	})
}
