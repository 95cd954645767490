//go:build lab

package lab_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

const (
	vipAddress = "192.0.2.50"
	vipEcho    = "192.0.2.50:7007"
	echoPort   = ":7007"
	// aMinute is what an emulated cluster may take for one change.
	aMinute = time.Minute
)

// vipConfig is the example as it stands; LAB_VIP_AGENT puts a peer's agent in
// its place, to see the same scenario with that.
func vipConfig(t *testing.T) string {
	t.Helper()
	text, err := lab.Example("vip/vip.crm")
	require.NoError(t, err)
	if other := os.Getenv("LAB_VIP_AGENT"); other != "" {
		text = strings.ReplaceAll(text, "ocf:baton:vip", other)
	}
	return text
}

// vipLab is a cluster in which n1 serves the address, each node has an echo
// server, and c1 holds a connection to it and pings it.
type vipLab struct {
	*lab.Lab
	ping, hold *lab.Job
}

func startVIP(t *testing.T) vipLab {
	t.Helper()
	l := lab.Start(t, lab.Cluster)
	for _, m := range l.Nodes() {
		m.Tool(t, "echo", "echo -listen "+echoPort)
	}
	l.Timeline.Add("cluster: load vip.crm")
	// n2 stands by meanwhile, so that every scenario begins on n1.
	require.NoError(t, l.CrmText(t.Context(), vipConfig(t)+"\nlocation vip-begins vip 50: n1\n"))
	l.MustActive(t, "vip", "", l.N1, aMinute)
	v := vipLab{Lab: l}
	v.ping = l.C1.Tool(t, "ping", "ping -to "+vipAddress+" -every 50ms")
	v.hold = l.C1.Tool(t, "hold", "hold -to "+vipEcho+" -every 50ms")
	v.ping.WaitOK(t, time.Time{}, aMinute)
	v.hold.WaitOK(t, time.Time{}, aMinute)
	require.NoError(t, l.Settle(t.Context()))
	return v
}

// holds tells whether the machine has the address.
func holds(ctx context.Context, m *lab.Machine) (bool, string) {
	out, err := m.Run(ctx, "ip -o address show to %s", vipAddress)
	if err != nil {
		return false, err.Error()
	}
	return strings.Contains(out, vipAddress), out
}

// report prints what the client noticed and puts it into the timeline.
func (v vipLab) report(t *testing.T, what string) (ping, hold lab.Gap) {
	t.Helper()
	ping, hold = v.ping.Stopped(t).LongestGap(), v.hold.Stopped(t).LongestGap()
	t.Logf("%s: ping %s; TCP client %s", what, ping, hold)
	v.Timeline.AddAt(ping.From, "c1: last answer to ping, then %s", ping)
	v.Timeline.AddAt(hold.From, "c1: last answer over TCP, then %s", hold)
	return ping, hold
}

func TestCoreVIPMovesAtStandbyUnderAClientsConnection(t *testing.T) {
	v := startVIP(t)

	moved := time.Now()
	require.NoError(t, v.Standby(t.Context(), v.N1))
	v.MustActive(t, "vip", "", v.N2, aMinute)
	v.ping.WaitOK(t, moved.Add(time.Second), aMinute)
	v.hold.WaitOK(t, moved.Add(time.Second), aMinute)

	has, found := holds(t.Context(), v.N1)
	require.False(t, has, "n1 still has the address: %s", found)
	require.Empty(t, v.N1.Sh(t, "ss -Htn src %s", vipAddress), "n1 still has connections of the address")
	require.Contains(t, v.N2.Sh(t, "ss -Htn src %s", vipAddress), "ESTAB", "the client's connection is not on n2")

	ping, hold := v.report(t, "standby")
	require.False(t, ping.Open)
	require.False(t, hold.Open)
}

func TestCoreVIPMovesWhenItsNodeLosesPower(t *testing.T) {
	v := startVIP(t)

	dead := time.Now()
	require.NoError(t, v.N1.PowerOff(t.Context()))
	v.MustActive(t, "vip", "", v.N2, 2*aMinute)
	v.ping.WaitOK(t, dead.Add(time.Second), aMinute)
	v.hold.WaitOK(t, dead.Add(time.Second), aMinute)
	ping, hold := v.report(t, "power loss")
	require.False(t, ping.Open)
	require.False(t, hold.Open)
}

func TestCoreVIPMovesWhenItsNodeLosesTheServiceNetwork(t *testing.T) {
	v := startVIP(t)

	cut := time.Now()
	require.NoError(t, v.N1.Cut(t.Context(), lab.LAN))
	v.MustActive(t, "vip", "", v.N2, 2*aMinute)
	v.ping.WaitOK(t, cut.Add(time.Second), aMinute)
	lab.Eventually(t, aMinute, "n1 to have given the address up", func(ctx context.Context) (bool, string) {
		has, found := holds(ctx, v.N1)
		return !has, found
	})
	status, err := v.Status(t.Context())
	require.NoError(t, err)
	require.Len(t, status.Active("vip", ""), 1)

	mended := time.Now()
	require.NoError(t, v.N1.Mend(t.Context(), lab.LAN))
	v.hold.WaitOK(t, mended, aMinute)
	ping, _ := v.report(t, "service network cut")
	require.False(t, ping.Open)
}

func TestCoreVIPTakenAwayByHandIsNoticedAndRepaired(t *testing.T) {
	v := startVIP(t)

	gone := time.Now()
	v.Timeline.Add("n1: ip address del by hand")
	v.N1.Sh(t, "ip address del %s/24 dev eth0", vipAddress)
	v.ping.WaitOK(t, gone.Add(100*time.Millisecond), aMinute)
	v.hold.WaitOK(t, gone.Add(100*time.Millisecond), aMinute)
	v.MustActive(t, "vip", "", v.N1, aMinute)

	var reason string
	lab.Eventually(t, aMinute, "crm_mon to show the failed monitor", func(ctx context.Context) (bool, string) {
		s, err := v.Status(ctx)
		if err != nil {
			return false, err.Error()
		}
		for _, f := range s.Failures {
			if strings.HasPrefix(f.Op, "vip_monitor") && f.Node == "n1" {
				reason = f.Reason
				return true, ""
			}
		}
		return false, s.String()
	})
	t.Logf("crm_mon says: %s", reason)
	require.Contains(t, reason, vipAddress, "the reason does not name the address that was lost")
	v.report(t, "address deleted by hand")
}

func TestCoreVIPWrongParameterIsExplainedInCrmMon(t *testing.T) {
	l := lab.Start(t, lab.Cluster)
	require.NoError(t, l.CrmText(t.Context(), "property stonith-enabled=false\n"+
		"primitive bad-ip ocf:baton:vip params ip=192.0.2.999\n"+
		"primitive bad-nic ocf:baton:vip params ip=192.0.2.51 nic=eth77\n"))

	failures := map[string]lab.Failure{}
	lab.Eventually(t, 2*aMinute, "crm_mon to show both mistakes", func(ctx context.Context) (bool, string) {
		s, err := l.Status(ctx)
		if err != nil {
			return false, err.Error()
		}
		for _, f := range s.Failures {
			name, _, _ := strings.Cut(f.Op, "_")
			failures[name] = f
		}
		return failures["bad-ip"].Reason != "" && failures["bad-nic"].Reason != "", s.String()
	})
	for name, want := range map[string]string{"bad-ip": "192.0.2.999", "bad-nic": "eth77"} {
		t.Logf("%s: %d %s", name, failures[name].Code, failures[name].Reason)
		require.Contains(t, failures[name].Reason, want)
	}
	require.Equal(t, 6, failures["bad-ip"].Code, "a value that cannot be an address is a configuration error")
	out := l.N1.Sh(t, "crm_mon -1rf")
	require.Contains(t, out, "192.0.2.999", "a person who reads crm_mon does not see what is wrong")
}
