package ocftester

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// owned asks the very patterns by which heartbeat 3.0.6 decides (ResourceManager, we_own_resource).
func (s *sandbox) owned(words string) bool {
	s.t.Helper()
	return strings.TrimSpace(s.sh(`case "$1" in
		*[Nn][Oo][Tt]\ *[Rr]unning*) echo no;;
		*[Rr]unning*|*OK*) echo yes;;
		*) echo no;;
	esac`, words)) == "yes"
}

// haresources calls the agent through a link in resource.d, as heartbeat does.
func (a *agent) haresources(s *sandbox, args ...string) heard {
	s.sh(`mkdir -p /run/ha.d/resource.d; ln -sfn "$1" "/run/ha.d/resource.d/$2"`, a.file, a.name)
	return s.run([]string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HA_DIR=/run/ha.d", "HA_CURHOST=n1", "HA_LOGD=no", "HA_debug=0",
		"HA_LOGFILE=/run/ha-log", "HA_DATEFMT=%Y/%m/%d_%T\t", "OCF_ROOT=/usr/lib/ocf",
	}, append([]string{"/run/ha.d/resource.d/" + a.name}, args...)...)
}

func (a *agent) line() []string {
	if a.positional != nil {
		return a.positional
	}
	var args []string
	for name, value := range a.good {
		if !strings.ContainsAny(value, " \t") { // a line of haresources is split at blanks
			args = append(args, name+"="+value)
		}
	}
	return args
}

func TestHeartbeatLearnsThatNothingRunsAndMayStopIt(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		got := a.haresources(s, append(a.line(), "status")...)
		require.False(t, s.owned(got.stdout), "%q\n%s", got.stdout, got.stderr)
		require.Equal(t, 1, strings.Count(got.stdout, "\n"))
		require.Empty(t, got.reasons())
		got = a.haresources(s, append(a.line(), "stop")...)
		require.Equal(t, 0, got.code, "ten failed stops reboot the node: %s", got.stderr)
		require.Empty(t, got.stdout)
	})
}

func TestHeartbeatIsNotToldThatNothingRunsWhereTheLineNamesNothing(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		got := a.haresources(s, "no_such_parameter=1", "status")
		if !a.required() {
			t.Skipf("%s has no required parameter: every line names something", a.name)
		}
		require.True(t, s.owned(got.stdout), "%q", got.stdout)
		require.NotEqual(t, 0, a.haresources(s, "no_such_parameter=1", "stop").code)
		require.Contains(t, s.sh("cat /run/ha-log"), "no_such_parameter")
	})
}

func (a *agent) required() bool {
	for _, p := range a.params {
		if p.required {
			return true
		}
	}
	return false
}

func TestHeartbeatsStartIsRefusedForATypoAndItsLogHasTheReason(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		before := s.sh("ip -o addr; find /var/lib /srv")
		got := a.haresources(s, append(a.line(), "no_such_parameter=1", "start")...)
		require.Equal(t, 6, got.code, got.stderr)
		require.Contains(t, s.sh("cat /run/ha-log"), "no_such_parameter")
		require.Equal(t, before, s.sh("ip -o addr; find /var/lib /srv"))
	})
}

func TestTheLinkInResourceDAnswersPeopleToo(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		require.Equal(t, string(a.doc), a.haresources(s, "meta-data").stdout)
		require.Equal(t, 0, a.haresources(s, "--help").code)
	})
}
