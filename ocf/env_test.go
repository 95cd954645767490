package ocf

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/metadata"
)

// pacemaker is what Pacemaker 2.1.5 was seen to set for every action, on one node.
func pacemaker(more ...string) []string {
	return append([]string{
		"OCF_ROOT=/usr/lib/ocf", "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
		"OCF_RESOURCE_INSTANCE=ip", "OCF_RESOURCE_TYPE=thing", "OCF_RESOURCE_PROVIDER=baton",
		"OCF_EXIT_REASON_PREFIX=ocf-exit-reason:", "OCF_OUTPUT_FORMAT=text",
		"OCF_RESKEY_crm_feature_set=3.16.1", "OCF_RESKEY_CRM_meta_timeout=20000",
		"OCF_RESKEY_CRM_meta_on_node=n1", "OCF_RESKEY_CRM_meta_on_node_uuid=1",
		"HA_LOGFACILITY=daemon", "HA_LOGFILE=/var/log/pacemaker/pacemaker.log", "HA_logfacility=daemon",
		"HA_cluster_type=corosync", "HA_mcp=true", "LC_ALL=C", "PCMK_service=pacemaker-execd",
	}, more...)
}

func TestTheEnvironmentOfPacemakerIsUnderstood(t *testing.T) {
	base := func(change func(*Env)) Env {
		env := Env{
			Instance: "ip", Type: "thing", Provider: "baton", Node: "n1", Timeout: 20 * time.Second,
			RscTmp: "/run/resource-agents",
			log:    logEnv{facility: "daemon", file: "/var/log/pacemaker/pacemaker.log"},
		}
		change(&env)
		return env
	}
	for _, c := range []struct {
		about, action string
		more          []string
		want          Env
	}{
		{"start", "start", nil, base(func(e *Env) { e.Action = "start" })},
		{"a probe has no interval, no name, no level", "monitor", nil, base(func(e *Env) { e.Action, e.Probe = "monitor", true })},
		{
			"a probe as ocf-tester does it, with interval 0", "monitor",
			[]string{"OCF_RESKEY_CRM_meta_interval=0"},
			base(func(e *Env) { e.Action, e.Probe = "monitor", true }),
		},
		{
			"a recurring monitor of a role by its old name", "monitor",
			[]string{"OCF_RESKEY_CRM_meta_interval=10000", "OCF_RESKEY_CRM_meta_name=monitor", "OCF_RESKEY_CRM_meta_role=Master"},
			base(func(e *Env) { e.Action, e.Interval, e.Role = "monitor", 10*time.Second, metadata.Promoted }),
		},
		{
			"a recurring monitor of a role by its new name", "monitor",
			[]string{"OCF_RESKEY_CRM_meta_interval=11000", "OCF_RESKEY_CRM_meta_role=Unpromoted"},
			base(func(e *Env) { e.Action, e.Interval, e.Role = "monitor", 11*time.Second, metadata.Unpromoted }),
		},
		{
			"a recurring monitor with a check level", "monitor",
			[]string{"OCF_RESKEY_CRM_meta_interval=60000", "OCF_CHECK_LEVEL=10"},
			base(func(e *Env) { e.Action, e.Interval, e.CheckLevel, e.LevelSet = "monitor", time.Minute, 10, true }),
		},
		{
			"an explicit level 0", "validate-all",
			[]string{"OCF_CHECK_LEVEL=0"},
			base(func(e *Env) { e.Action, e.LevelSet = "validate-all", true }),
		},
		{
			"a level that is none", "monitor",
			[]string{"OCF_CHECK_LEVEL=deep"},
			base(func(e *Env) { e.Action, e.Probe = "monitor", true }),
		},
		{
			"an instance of a promotable clone, both twins", "start",
			[]string{
				"OCF_RESOURCE_INSTANCE=thing:1", "OCF_RESKEY_CRM_meta_clone=1", "OCF_RESKEY_CRM_meta_clone_max=2",
				"OCF_RESKEY_CRM_meta_clone_node_max=1", "OCF_RESKEY_CRM_meta_globally_unique=false",
				"OCF_RESKEY_CRM_meta_notify=true", "OCF_RESKEY_CRM_meta_promoted_max=1", "OCF_RESKEY_CRM_meta_promoted_node_max=1",
				"OCF_RESKEY_CRM_meta_master_max=1", "OCF_RESKEY_CRM_meta_master_node_max=1",
			},
			base(func(e *Env) {
				e.Action, e.Instance = "start", "thing:1"
				e.Clone = Clone{Max: 2, NodeMax: 1, PromotedMax: 1, PromotedNodeMax: 1, Notify: true}
			}),
		},
		{
			"an older Pacemaker knows the master_ names alone", "start",
			[]string{"OCF_RESKEY_CRM_meta_clone_max=3", "OCF_RESKEY_CRM_meta_master_max=2", "OCF_RESKEY_CRM_meta_master_node_max=1"},
			base(func(e *Env) { e.Action, e.Clone = "start", Clone{Max: 3, PromotedMax: 2, PromotedNodeMax: 1} }),
		},
		{
			"a directory for records elsewhere, debug, log facility of heartbeat's spelling", "stop",
			[]string{"HA_RSCTMP=/var/run/ra", "HA_debug=1", "HA_LOGFACILITY=", "HA_logfacility=local3", "HA_LOGFILE=", "HA_logfile=/var/log/x"},
			base(func(e *Env) {
				e.Action, e.RscTmp, e.log = "stop", "/var/run/ra", logEnv{facility: "local3", file: "/var/log/x", debug: true}
			}),
		},
		{
			"a relative HA_RSCTMP would lie anywhere", "stop",
			[]string{"HA_RSCTMP=tmp"},
			base(func(e *Env) { e.Action = "stop" }),
		},
		{
			"crm resource trace asks for details", "stop",
			[]string{"OCF_RESKEY_trace_ra=1"},
			base(func(e *Env) { e.Action, e.log.debug = "stop", true }),
		},
		{
			"HA_debug=0 is off", "stop",
			[]string{"HA_debug=0"},
			base(func(e *Env) { e.Action = "stop" }),
		},
		{
			"nonsense is left at its zero value", "monitor",
			[]string{
				"OCF_RESKEY_CRM_meta_timeout=soon", "OCF_RESKEY_CRM_meta_interval=-5", "OCF_RESKEY_CRM_meta_role=Started",
				"OCF_CHECK_LEVEL=-10", "OCF_RESKEY_CRM_meta_clone_max=many", "OCF_RESKEY_CRM_meta_notify=perhaps",
			},
			base(func(e *Env) { e.Action, e.Timeout, e.Probe = "monitor", 0, true }),
		},
	} {
		t.Run(c.about, func(t *testing.T) {
			require.Equal(t, c.want, newEnviron(pacemaker(c.more...)).parse(c.action, Cluster))
		})
	}
}

func TestAnEmptyEnvironmentIsEnough(t *testing.T) {
	require.Equal(t, Env{Caller: Hand, Action: "start", RscTmp: defaultRscTmp}, newEnviron(nil).parse("start", Hand))
}

// Recorded from a post-promote notification of a two-node promotable clone. An empty list is a
// single space.
func TestNotificationsAreParsedOnceWithEmptyListsOfOneSpace(t *testing.T) {
	const meta = "OCF_RESKEY_CRM_meta_notify_"
	e := newEnviron(pacemaker(
		meta+"type=post", meta+"operation=promote", meta+"key_type=post", meta+"key_operation=promote",
		meta+"start_resource= ", meta+"start_uname= ", meta+"stop_resource= ", meta+"stop_uname= ",
		meta+"promote_resource=drbd:0", meta+"promote_uname=n1", meta+"demote_resource= ", meta+"demote_uname= ",
		meta+"active_resource=drbd:0 drbd:1", meta+"active_uname=n1 n2",
		meta+"promoted_resource= ", meta+"promoted_uname= ", meta+"master_resource= ", meta+"master_uname= ",
		meta+"unpromoted_resource=drbd:0 drbd:1", meta+"unpromoted_uname=n1 n2",
		meta+"slave_resource=drbd:0 drbd:1", meta+"slave_uname=n1 n2",
		meta+"inactive_resource= ", meta+"all_uname=n1 n2 n3", meta+"available_uname=n1 n2",
	))
	both := []Instance{{"drbd:0", "n1"}, {"drbd:1", "n2"}}
	require.Equal(t, Notification{
		Type: "post", Operation: "promote", Promote: both[:1], Active: both, Unpromoted: both,
		AllNodes: []string{"n1", "n2", "n3"}, AvailableNodes: []string{"n1", "n2"},
	}, e.notification())
}

func TestNotificationsOfAnOlderPacemakerUseTheOldRoleNames(t *testing.T) {
	const meta = "OCF_RESKEY_CRM_meta_notify_"
	n := newEnviron([]string{
		meta + "type=pre", meta + "operation=demote", meta + "master_resource=d:0", meta + "master_uname=n1",
		meta + "slave_resource=d:1", meta + "slave_uname=n2",
	}).notification()
	require.Equal(t, []Instance{{"d:0", "n1"}}, n.Promoted)
	require.Equal(t, []Instance{{"d:1", "n2"}}, n.Unpromoted)
}

func TestAListOfNodesThatIsShorterLeavesNodesEmpty(t *testing.T) {
	require.Equal(t, []Instance{{"a", "n1"}, {"b", ""}}, instances("a  b", "n1"))
	require.Equal(t, []Instance{{"a", "n1"}}, instances("a", "n1 n2 n3"))
	require.Empty(t, instances(" ", " "))
	require.Empty(t, instances("", "n1"))
}

func TestParametersAreWhatIsLeftWhenPacemakersOwnAreTakenOut(t *testing.T) {
	e := newEnviron(pacemaker("OCF_RESKEY_ip=192.0.2.50", `OCF_RESKEY_note=a "b"  c=d`, "OCF_RESKEY_empty=", "OTHER_ip=x", "OCF_RESKEY_ip2=1"))
	require.Equal(t, map[string]string{"ip": "192.0.2.50", "note": `a "b"  c=d`, "empty": "", "ip2": "1"}, e.parameters())
}

func TestTheLastDefinitionOfAVariableWins(t *testing.T) {
	e := newEnviron([]string{"A=1", "A=2", "B", "=x", "C=a=b"})
	require.Equal(t, environ{"A": "2", "": "x", "C": "a=b"}, e)
}

func TestWhoCallsIsToldByTheEnvironment(t *testing.T) {
	for _, list := range [][]string{
		pacemaker(),
		{"OCF_ROOT=/usr/lib/ocf", "OCF_RESOURCE_INSTANCE=x"}, // drbd-reactor passes no more
		{"OCF_RA_VERSION_MAJOR=1"},
	} {
		require.True(t, newEnviron(list).underCluster())
	}
	require.False(t, newEnviron([]string{"PATH=/bin", "OCF_RESKEY_ip=192.0.2.50", "OCF_ROOT="}).underCluster())
}

func TestTimesOfTheClusterAreMillisecondsAndNeverOverflow(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"20000": 20 * time.Second, " 5 ": 5 * time.Millisecond, "0": 0, "": 0, "-1": 0, "x": 0,
		"20s": 20 * time.Second, "1m": time.Minute, "-20s": 0, "1e3": 0,
		"9223372036854775807": 0, "99999999999999999999999": 0, "9223372036854": 9223372036854 * time.Millisecond,
	} {
		require.Equal(t, want, millis(text), "%q", text)
	}
}

func TestTruthWordsAreThoseOfResourceAgentsAndTheirOpposites(t *testing.T) {
	for _, w := range []string{"yes", "true", "1", "YES", "TRUE", "True", "ja", "on", "ON"} {
		on, err := parseBool(w)
		require.NoError(t, err, w)
		require.True(t, on, w)
	}
	for _, w := range []string{"no", "false", "0", "NO", "False", "nein", "off", "OFF"} {
		on, err := parseBool(w)
		require.NoError(t, err, w)
		require.False(t, on, w)
	}
	for _, w := range []string{"", " true", "y", "2", "tru", "truee", "enabled"} {
		_, err := parseBool(w)
		require.Error(t, err, w)
	}
}

func FuzzNoEnvironmentBreaksTheAgent(f *testing.F) {
	f.Add("OCF_RESKEY_CRM_meta_timeout", "20000", "OCF_RESKEY_CRM_meta_interval", "10s")
	f.Add("OCF_CHECK_LEVEL", "10", "OCF_RESKEY_CRM_meta_notify_active_resource", " ")
	f.Add("OCF_RESKEY_CRM_meta_notify_start_uname", "a b", "OCF_RESKEY_CRM_meta_notify_start_resource", "a\tb\nc")
	f.Add("HA_RSCTMP", "\xff", "OCF_RESKEY_", "=")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		e := newEnviron([]string{name1 + "=" + value1, name2 + "=" + value2})
		env := e.parse("monitor", Cluster)
		require.GreaterOrEqual(t, env.Timeout, time.Duration(0))
		require.GreaterOrEqual(t, env.Interval, time.Duration(0))
		require.Equal(t, env.Interval == 0, env.Probe)
		require.GreaterOrEqual(t, env.CheckLevel, 0)
		require.GreaterOrEqual(t, env.Clone.Max, 0)
		require.LessOrEqual(t, env.Clone.Max, math.MaxInt)
		require.True(t, env.RscTmp[0] == '/')
		for name := range e.parameters() {
			require.False(t, strings.HasPrefix(name, "CRM_meta_"), name)
		}
	})
}
