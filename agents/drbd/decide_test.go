package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/command"
	"baton/agents/internal/drbdstate"
	"baton/ocf"
)

var defaults = scores{0, 10, 1000, 10000}

// legacy is the state of a resource with one volume under the 8.4 driver, from the words that
// /proc/drbd prints: "cs ro ds".
func legacy(t *testing.T, words string) drbdstate.Resource {
	t.Helper()
	return legacyVolumes(t, words)
}

func legacyVolumes(t *testing.T, volumes ...string) drbdstate.Resource {
	t.Helper()
	text := "version: 8.4.11 (api:1/proto:86-101)\n"
	minors := map[int]int{}
	for i, words := range volumes {
		w := strings.Fields(words)
		if len(w) == 1 {
			text += fmt.Sprintf("%2d: cs:%s\n", i, w[0])
		} else {
			text += fmt.Sprintf("%2d: cs:%s ro:%s ds:%s C r-----\n    ns:0 oos:0\n", i, w[0], w[1], w[2])
		}
		minors[i] = i
	}
	p, err := drbdstate.ParseProc([]byte(text))
	require.NoError(t, err)
	r, err := p.Assemble("r0", minors)
	require.NoError(t, err)
	return r
}

// The table of ocf:linbit:drbd, measured on it, with the differences of this agent marked: rows
// where its score hands out old or torn data, and its 8 for a Primary without any data.
func TestStateAndScoreOfEveryState(t *testing.T) {
	for _, tc := range []struct {
		words  string
		state  ocf.State
		score  int // without fencing in DRBD
		fenced int // with it
	}{
		{"Connected Primary/Secondary UpToDate/UpToDate", ocf.Promoted, 10000, 10000},
		{"Connected Secondary/Primary UpToDate/UpToDate", ocf.Running, 10000, 10000},
		{"Connected Secondary/Secondary UpToDate/UpToDate", ocf.Running, 10000, 10000},
		{"WFConnection Primary/Unknown UpToDate/DUnknown", ocf.Promoted, 10000, 10000},
		{"WFConnection Primary/Unknown UpToDate/Outdated", ocf.Promoted, 10000, 10000},
		{"StandAlone Primary/Unknown UpToDate/DUnknown", ocf.Promoted, 10000, 10000},
		{"WFConnection Secondary/Unknown UpToDate/DUnknown", ocf.Running, 1000, 1000},
		{"WFConnection Secondary/Unknown UpToDate/Outdated", ocf.Running, 10000, 10000},
		{"WFReportParams Secondary/Unknown UpToDate/DUnknown", ocf.Running, 1000, 1000},
		{"NetworkFailure Secondary/Unknown UpToDate/DUnknown", ocf.Running, 1000, 1000},
		{"StandAlone Secondary/Unknown UpToDate/DUnknown", ocf.Running, 0, 1000}, // 1000 in any case there
		{"StandAlone Secondary/Unknown UpToDate/Outdated", ocf.Running, 10000, 10000},
		{"WFConnection Secondary/Unknown Consistent/DUnknown", ocf.Running, 0, 0},
		{"WFConnection Secondary/Unknown Outdated/DUnknown", ocf.Running, 0, 0},
		{"StandAlone Secondary/Unknown Outdated/DUnknown", ocf.Running, 0, 0},
		{"WFConnection Secondary/Unknown Inconsistent/DUnknown", ocf.Running, 0, 0},
		{"Connected Secondary/Secondary Inconsistent/Inconsistent", ocf.Running, 0, 0},
		{"SyncTarget Secondary/Primary Inconsistent/UpToDate", ocf.Running, 0, 0},   // 10 there
		{"PausedSyncT Secondary/Primary Inconsistent/UpToDate", ocf.Running, 0, 0},  // 10 there
		{"Behind Secondary/Primary Inconsistent/UpToDate", ocf.Running, 0, 0},       // 10 there
		{"SyncTarget Secondary/Secondary Inconsistent/UpToDate", ocf.Running, 0, 0}, // 10 there
		{"SyncSource Secondary/Secondary UpToDate/Inconsistent", ocf.Running, 10000, 10000},
		{"SyncSource Primary/Secondary UpToDate/Inconsistent", ocf.Promoted, 10000, 10000},
		{"SyncTarget Primary/Secondary Inconsistent/UpToDate", ocf.Promoted, 10, 10},
		{"Connected Primary/Secondary Diskless/UpToDate", ocf.Promoted, 10, 10},
		{"Connected Primary/Secondary Failed/UpToDate", ocf.Promoted, 10, 10},
		{"Connected Secondary/Primary Diskless/UpToDate", ocf.Running, 10, 10},
		{"Connected Secondary/Primary Failed/UpToDate", ocf.Running, 10, 10},
		{"Connected Secondary/Primary Diskless/Diskless", ocf.Running, 0, 0},
		{"Connected Secondary/Primary UpToDate/Diskless", ocf.Running, 10000, 10000},
		{"WFConnection Primary/Unknown Diskless/DUnknown", ocf.FailedPromoted, 0, 0}, // 8 there
		{"WFConnection Primary/Unknown Failed/DUnknown", ocf.FailedPromoted, 0, 0},   // 8 there
		{"WFConnection Primary/Unknown Inconsistent/DUnknown", ocf.FailedPromoted, 0, 0},
		{"StandAlone Primary/Unknown Diskless/DUnknown", ocf.FailedPromoted, 0, 0},
		{"Connected Primary/Secondary Diskless/Inconsistent", ocf.FailedPromoted, 0, 0},
		{"WFConnection Secondary/Unknown Attaching/DUnknown", ocf.Running, 0, 0},   // unchanged there
		{"WFConnection Secondary/Unknown Negotiating/DUnknown", ocf.Running, 0, 0}, // unchanged there
		{"Connected Secondary/Primary Negotiating/UpToDate", ocf.Running, 0, 0},
		{"WFBitMapT Secondary/Primary Outdated/UpToDate", ocf.Running, 0, 0},   // 10 there
		{"WFBitMapT Secondary/Primary Consistent/UpToDate", ocf.Running, 0, 0}, // 10 there
		{"VerifyS Primary/Secondary UpToDate/UpToDate", ocf.Promoted, 10000, 10000},
		{"VerifyT Secondary/Primary UpToDate/UpToDate", ocf.Running, 10000, 10000},
		{"Connected Primary/Primary UpToDate/UpToDate", ocf.Promoted, 10000, 10000},
		{"Unconfigured", ocf.Stopped, 0, 0},
	} {
		t.Run(tc.words, func(t *testing.T) {
			r := legacy(t, tc.words)
			require.Equal(t, tc.state, stateOf(r, true))
			n, why := score(r, defaults, trust{})
			require.Equal(t, tc.score, n, why)
			n, why = score(r, defaults, trust{fenced: true})
			require.Equal(t, tc.fenced, n, why)
			require.NotEmpty(t, why)
			// A node without a score must not be promoted either, and the other way round.
			if !r.AnyPrimary() && tc.state != ocf.Stopped {
				require.Equal(t, tc.score == 0, refusal(r, false, trust{}) != "", refusal(r, false, trust{}))
				require.Equal(t, tc.fenced == 0, refusal(r, false, trust{fenced: true}) != "", refusal(r, false, trust{fenced: true}))
			}
		})
	}
	require.Equal(t, ocf.Stopped, stateOf(drbdstate.Resource{Name: "r0"}, false))
}

func TestWorstVolumeDecides(t *testing.T) {
	const good = "Connected Secondary/Secondary UpToDate/UpToDate"
	for _, tc := range []struct {
		second string
		state  ocf.State
		score  int
	}{
		{good, ocf.Running, 10000},
		{"SyncTarget Secondary/Secondary Inconsistent/UpToDate", ocf.Running, 0},
		{"Connected Secondary/Secondary Diskless/UpToDate", ocf.Running, 10},
		{"Connected Primary/Secondary UpToDate/UpToDate", ocf.Promoted, 10000},
		{"Connected Primary/Secondary Diskless/Diskless", ocf.FailedPromoted, 0},
		{"Unconfigured", ocf.Running, 0},
	} {
		r := legacyVolumes(t, good, tc.second)
		require.Equal(t, tc.state, stateOf(r, true), tc.second)
		n, _ := score(r, defaults, trust{fenced: true})
		require.Equal(t, tc.score, n, tc.second)
	}
	require.Contains(t, refusal(legacyVolumes(t, good, "WFConnection Secondary/Unknown Outdated/DUnknown"), false, trust{fenced: true}), "volume 1: own disk is Outdated")
}

// nine is a state of DRBD 9 from events2 lines without their common words.
func nine(t *testing.T, lines ...string) drbdstate.Resource {
	t.Helper()
	text := ""
	for _, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		text += "exists " + kind + " name:r0 " + rest + "\n"
	}
	e, err := drbdstate.ParseEvents([]byte(text+"exists -\n"), drbdstate.Version{Major: 9, Minor: 1, Patch: 7})
	require.NoError(t, err)
	r, found := e.Resource("r0")
	require.True(t, found)
	return r
}

func TestStateAndScoreUnderTheNineDriver(t *testing.T) {
	const (
		secondary = "resource role:Secondary suspended:no"
		primary   = "resource role:Primary suspended:no"
		upToDate  = "device volume:0 minor:0 disk:UpToDate client:no quorum:yes"
		client    = "device volume:0 minor:0 disk:Diskless client:yes quorum:yes"
		peer1     = "connection peer-node-id:1 conn-name:n2 connection:Connected role:Secondary"
		peer2     = "connection peer-node-id:2 conn-name:n3 connection:Connected role:Secondary"
		lost2     = "connection peer-node-id:2 conn-name:n3 connection:Connecting role:Unknown"
		alone1    = "connection peer-node-id:1 conn-name:n2 connection:StandAlone role:Unknown"
		disk1     = "peer-device peer-node-id:1 conn-name:n2 volume:0 replication:Established peer-disk:UpToDate"
		disk2     = "peer-device peer-node-id:2 conn-name:n3 volume:0 replication:Established peer-disk:UpToDate"
		gone1     = "peer-device peer-node-id:1 conn-name:n2 volume:0 replication:Off peer-disk:DUnknown"
		gone2     = "peer-device peer-node-id:2 conn-name:n3 volume:0 replication:Off peer-disk:DUnknown"
		old1      = "peer-device peer-node-id:1 conn-name:n2 volume:0 replication:Off peer-disk:Outdated"
	)
	for name, tc := range map[string]struct {
		lines []string
		state ocf.State
		score int
	}{
		"all well":                       {[]string{secondary, upToDate, peer1, disk1, peer2, disk2}, ocf.Running, 10000},
		"one peer lost":                  {[]string{secondary, upToDate, peer1, disk1, lost2, gone2}, ocf.Running, 1000},
		"no quorum":                      {[]string{secondary, "device volume:0 minor:0 disk:UpToDate quorum:no", lost2, gone2}, ocf.Running, 0},
		"promoted, no quorum":            {[]string{primary, "device volume:0 minor:0 disk:UpToDate quorum:no", lost2, gone2}, ocf.Promoted, 0},
		"attaching":                      {[]string{secondary, "device volume:0 minor:0 disk:Attaching quorum:yes", peer1, disk1}, ocf.Running, 0},
		"StandAlone":                     {[]string{secondary, upToDate, alone1, gone1}, ocf.Running, 0},
		"StandAlone to one of two":       {[]string{secondary, upToDate, alone1, gone1, peer2, disk2}, ocf.Running, 0},
		"StandAlone, the third is away":  {[]string{secondary, upToDate, alone1, gone1, lost2, gone2}, ocf.Running, 0},
		"StandAlone to what is outdated": {[]string{secondary, upToDate, alone1, old1, peer2, disk2}, ocf.Running, 10000},
		"promoted, StandAlone to one":    {[]string{primary, upToDate, alone1, gone1, lost2, gone2}, ocf.Promoted, 10000},
		"client of good peers":           {[]string{secondary, client, peer1, disk1, peer2, disk2}, ocf.Running, 9999},
		"client, one peer lost":          {[]string{secondary, client, peer1, disk1, lost2, gone2}, ocf.Running, 999},
		"promoted client, one peer lost": {[]string{primary, client, peer1, disk1, lost2, gone2}, ocf.Promoted, 9999},
		"client alone":                   {[]string{secondary, client, lost2, gone2}, ocf.Running, 0},
		"promoted client alone":          {[]string{primary, client, lost2, gone2}, ocf.FailedPromoted, 0},
		"client without quorum":          {[]string{secondary, "device volume:0 minor:0 disk:Diskless client:yes quorum:no", peer1, disk1}, ocf.Running, 0},
		"I/O failed on purpose":          {[]string{"resource role:Primary suspended:no force-io-failures:yes", upToDate, peer1, disk1}, ocf.FailedPromoted, 0},
		"no peer configured":             {[]string{secondary, upToDate}, ocf.Running, 1000},
		"cut off from both":              {[]string{secondary, upToDate, "connection peer-node-id:1 conn-name:n2 connection:Connecting role:Unknown", gone1, lost2, gone2}, ocf.Running, 998},
		"only a resource, no volume":     {[]string{secondary, peer1}, ocf.Stopped, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := nine(t, tc.lines...)
			require.Equal(t, tc.state, stateOf(r, true))
			n, why := score(r, defaults, trust{})
			require.Equal(t, tc.score, n, why)
		})
	}
	require.Equal(t, "no quorum", refusal(nine(t, secondary, "device volume:0 minor:0 disk:UpToDate quorum:no"), false, trust{fenced: true}))

	// Given up towards one peer while the third node is away: only what makes sure of that peer helps.
	split := nine(t, secondary, upToDate, alone1, gone1, lost2, gone2)
	require.Contains(t, refusal(split, false, trust{}), blindAlone)
	require.Empty(t, refusal(split, false, trust{fenced: true}))
	n, why := score(split, defaults, trust{fenced: true})
	require.Equal(t, 1000, n, why)
}

// A restart makes "connecting" of a link that was given up; what is known of it stays.
func TestDoubtOutlivesTheLinkThatWasGivenUp(t *testing.T) {
	const (
		connected  = "Connected Secondary/Primary UpToDate/UpToDate"
		connecting = "WFConnection Secondary/Unknown UpToDate/DUnknown"
		standAlone = "StandAlone Secondary/Unknown UpToDate/DUnknown"
		promoted   = "StandAlone Primary/Unknown UpToDate/DUnknown"
		outdated   = "WFConnection Secondary/Unknown UpToDate/Outdated"
	)
	for name, tc := range map[string]struct {
		looks  []string // one after the other
		why    string   // with them: the caller's reason
		split  bool     // the kernel's log has it
		doubt  string
		score  int
		fenced int
	}{
		"never linked":                       {[]string{connecting}, "", true, "", 1000, 1000},
		"given up":                           {[]string{standAlone}, "", false, doubtAlone, 0, 1000},
		"given up, and restarted":            {[]string{standAlone, connecting}, "", false, doubtAlone, 0, 1000},
		"given up, restarted and met":        {[]string{standAlone, connecting, connected}, "", false, "", 10000, 10000},
		"met, and lost since":                {[]string{standAlone, connected, connecting}, "", false, "", 1000, 1000},
		"split, and restarted":               {[]string{standAlone, connecting}, "", true, doubtSplit, 0, 0},
		"split, DRBD remembers an outdated":  {[]string{standAlone, outdated}, "", true, doubtSplit, 0, 0},
		"given up, remembers an outdated":    {[]string{standAlone, outdated}, "", false, doubtAlone, 10000, 10000},
		"promoted: its copy is served":       {[]string{promoted, connecting}, "", true, "", 1000, 1000},
		"promoted by hand in spite of doubt": {[]string{standAlone, promoted, connecting}, "", true, "", 1000, 1000},
		"was down":                           {[]string{connecting}, doubtDown, false, doubtDown, 0, 1000},
		"was down, DRBD knows the peer":      {[]string{outdated}, doubtDown, false, "", 10000, 10000},
		"was down, and met":                  {[]string{connecting, connected}, doubtDown, false, "", 10000, 10000},
	} {
		t.Run(name, func(t *testing.T) {
			var doubts map[string]string
			var r drbdstate.Resource
			for _, words := range tc.looks {
				r = legacy(t, words)
				doubts = nextDoubts(doubts, r, tc.why, func() bool { return tc.split })
			}
			require.Equal(t, tc.doubt, doubts[r.Peers[0].Name])
			n, why := score(r, defaults, trust{doubts: doubts})
			require.Equal(t, tc.score, n, why)
			require.Equal(t, tc.score == 0, refusal(r, false, trust{doubts: doubts}) != "")
			n, why = score(r, defaults, trust{fenced: true, doubts: doubts})
			require.Equal(t, tc.fenced, n, why)
		})
	}
	// What the kernel does not show at the moment is not forgotten.
	require.Equal(t, map[string]string{"": doubtSplit}, nextDoubts(map[string]string{"": doubtSplit}, drbdstate.Resource{}, "", nil))
}

func TestQuorumGuardsWhereItIsAMajority(t *testing.T) {
	for quorum, want := range map[string]bool{"off": false, "majority": true, "all": true, "1": false, "2": true, "3": true, "news": false, "": false} {
		require.Equal(t, want, guards(quorum, 3), quorum)
	}
	require.False(t, guards("2", 4), "two halves")
}

func TestConsistentDataIsPromotedOnlyWhereAScoreWasGivenForIt(t *testing.T) {
	r := legacy(t, "WFConnection Secondary/Unknown Consistent/DUnknown")
	n, _ := score(r, scores{5, 10, 1000, 10000}, trust{fenced: true})
	require.Equal(t, 5, n)
	require.Empty(t, refusal(r, true, trust{fenced: true}))
	require.NotEmpty(t, refusal(r, false, trust{fenced: true}))
}

func TestStartPlan(t *testing.T) {
	for words, want := range map[string]plan{
		"Connected Secondary/Primary UpToDate/UpToDate":      nothing,
		"WFConnection Secondary/Unknown UpToDate/DUnknown":   nothing,
		"SyncTarget Secondary/Primary Inconsistent/UpToDate": nothing,
		"StandAlone Secondary/Unknown UpToDate/DUnknown":     adjust,
		"Connected Secondary/Primary Diskless/UpToDate":      adjust,
		"Unconfigured": adjust,
	} {
		require.Equal(t, want, startPlan(legacy(t, words), true), words)
	}
	require.Equal(t, bringUp, startPlan(drbdstate.Resource{}, false))
	require.Equal(t, adjust, startPlan(legacyVolumes(t, "Connected Secondary/Primary UpToDate/UpToDate", "Unconfigured"), true))
}

func TestRefusedStateChangesAreSorted(t *testing.T) {
	refused := func(n int, words string) string {
		return fmt.Sprintf("0: State change failed: (%d) %s\nCommand 'drbdsetup-84 x 0' terminated with exit code 11\n", n, words)
	}
	for _, tc := range []struct {
		code   int
		stderr string
		want   verdict
		words  string
	}{
		{17, "0: State change failed: (-2) Need access to UpToDate data\n", permanent, "Need access to UpToDate data (-2)"},
		{17, "", permanent, "needs access to UpToDate data"},
		{11, refused(-1, "Multiple primaries not allowed by config"), passing, "Multiple primaries not allowed by config (-1)"},
		{11, refused(-10, "State change was refused by peer node"), passing, "State change was refused by peer node (-10)"},
		{11, refused(-18, "Transient state, retry after next state change"), passing, "Transient state, retry after next state change (-18)"},
		{11, refused(-19, "Concurrent state changes detected and aborted"), passing, "Concurrent state changes detected and aborted (-19)"},
		{11, refused(-21, "Interrupted state change"), passing, "Interrupted state change (-21)"},
		{11, refused(-23, "Timeout in operation"), passing, "Timeout in operation (-23)"},
		{11, refused(-12, "Device is held open by someone"), heldOpen, "Device is held open by someone (-12)"},
		{11, refused(-7, "Refusing to be Primary while peer is not outdated"), permanent, "Refusing to be Primary while peer is not outdated (-7)"},
		{11, refused(-99, "News"), permanent, "News (-99)"},
		{11, "additional info from kernel:\nfailed\n", passing, "drbdsetup primary 0: exit code 11 (failed)"},
		{11, "State change failed: (x) y\n", passing, "drbdsetup primary 0: exit code 11 (State change failed: (x) y)"},
		{10, "0: Failure: (127) Device minor not allocated\n", permanent, "drbdsetup primary 0: exit code 10 (0: Failure: (127) Device minor not allocated)"},
		{20, "", permanent, "drbdsetup primary 0: exit code 20"},
	} {
		v, words := judge(&command.Error{Argv: []string{"drbdsetup", "primary", "0"}, Code: tc.code, Stderr: []byte(tc.stderr)})
		require.Equal(t, tc.want, v, tc.stderr)
		require.Equal(t, tc.words, words)
	}
	v, _ := judge(&command.Error{Argv: []string{"drbdsetup"}, Code: -1, Signal: 9})
	require.Equal(t, unclear, v)
	v, _ = judge(fmt.Errorf("something else"))
	require.Equal(t, unclear, v)
}

func FuzzStateChange(f *testing.F) {
	f.Add([]byte("0: State change failed: (-12) Device is held open by someone\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if code, text := stateChange(data); code != 0 && text == "" {
			t.Fatalf("a code without words: %q", data)
		}
	})
}

func TestFirstComplaintOfDrbdadmIsTold(t *testing.T) {
	for stderr, want := range map[string]string{
		"sh: 1: modinfo: not found\n/etc/drbd.d/r0.res:3: Parse error: 'a' expected,\n\tbut got 'b'\n": "/etc/drbd.d/r0.res:3: Parse error: 'a' expected, (exit 10)",
		"":                       "no message (exit 10)",
		"  \n'r0' not defined\n": "'r0' not defined (exit 10)",
		"DRBD module version: 8.4.11\nyou should upgrade your drbd tools!\nopen(/dev/vdb) failed: No such file\n0: Failure: (104) Can not open backing device.\n": "0: Failure: (104) Can not open backing device. (exit 10)",
	} {
		require.Equal(t, want, complaint(&command.Error{Argv: []string{"drbdadm"}, Code: 10, Stderr: []byte(stderr)}))
	}
	require.Contains(t, complaint(&command.Error{Argv: []string{"drbdadm"}, Code: -1, Err: fmt.Errorf("not there")}), "not there")
}

func TestScoresParameter(t *testing.T) {
	s, err := parseScores(" 0  10 1000 10000 ")
	require.NoError(t, err)
	require.Equal(t, defaults, s)
	for _, bad := range []string{"", "1 2 3", "1 2 3 4 5", "4 3 2 1", "-1 0 0 0", "0 x 1 2", "0 1 2 2000000", "0 0 0 1e3"} {
		_, err := parseScores(bad)
		require.Error(t, err, bad)
	}
}

func TestResourceNames(t *testing.T) {
	for _, good := range []string{"r0", "a-b_c.d", "x%1", "r:0", "r.0"} {
		require.True(t, resourceName(good), good)
	}
	for _, bad := range []string{"", "-f", "--force", "all", ".", "..", "../r0", "a/b", "/dev/drbd0", "r 0", "r0;reboot", "r0\n", "$(x)", "ü"} {
		require.False(t, resourceName(bad), bad)
	}
}
