//go:build lab

package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

// commands is the first indented block below a heading: what the reader of the
// document is told to type is what is tested.
func commands(document, heading string) string {
	_, text, _ := strings.Cut(document, heading+"\n")
	var b strings.Builder
	for line := range strings.Lines(text) {
		command, indented := strings.CutPrefix(line, "    ")
		if !indented && b.Len() > 0 {
			break
		}
		if indented {
			b.WriteString(command)
		}
	}
	return b.String()
}

func TestMatrixVIPTakesOverFromIPaddr2WithTheAddressUp(t *testing.T) {
	l := lab.Start(t, lab.Cluster)
	require.NoError(t, l.CrmText(t.Context(), strings.ReplaceAll(vipConfig(t), "ocf:baton:vip", "ocf:heartbeat:IPaddr2")+
		"\nlocation vip-begins vip 50: n1\n"))
	l.MustActive(t, "vip", "", l.N1, aMinute)
	ping := l.C1.Tool(t, "ping", "ping -to "+vipAddress+" -every 50ms")
	ping.WaitOK(t, time.Time{}, aMinute)

	l.Timeline.Add("cluster: the provider changes in maintenance")
	readme, err := lab.Example("vip/README.md")
	require.NoError(t, err)
	l.N1.Sh(t, "set -e\n%s", commands(readme, "## Coming from IPaddr2"))
	require.NoError(t, l.Settle(t.Context()))
	changed := l.N1.Sh(t, "crm_mon -1r")
	require.Contains(t, changed, "ocf:baton:vip")
	l.MustActive(t, "vip", "", l.N1, aMinute)
	status, err := l.Status(t.Context())
	require.NoError(t, err)
	require.Empty(t, status.Failures)

	still := time.Now()
	ping.WaitOK(t, still, aMinute)
	gap := ping.Stopped(t).LongestGap()
	t.Logf("while the provider changed: %s", gap)
	require.False(t, gap.Open)
	// Started anew it would be away for the time of a stop and a start; the
	// machine is only slow.
	require.NotContains(t, l.N1.Journal(), "Result of stop operation for vip", "the address was taken down")

	moved := time.Now()
	require.NoError(t, l.Standby(t.Context(), l.N1))
	l.MustActive(t, "vip", "", l.N2, aMinute)
	l.C1.Sh(t, "ping -c 1 -w 20 %s", vipAddress)
	t.Logf("and it moves: %.1f s", time.Since(moved).Seconds())
}

func TestMatrixVIPStaysWhenTheNodeThatDiedComesBack(t *testing.T) {
	v := startVIP(t)
	require.NoError(t, v.N1.PowerOff(t.Context()))
	v.MustActive(t, "vip", "", v.N2, 2*aMinute)

	require.NoError(t, v.N1.PowerOn(t.Context()))
	v.N1.Sh(t, "systemctl start corosync pacemaker")
	require.NoError(t, v.WaitOnline(t.Context(), 4*aMinute, v.N1, v.N2))
	require.NoError(t, v.Settle(t.Context()))
	v.MustActive(t, "vip", "", v.N2, aMinute)
	has, found := holds(t.Context(), v.N1)
	require.False(t, has, found)
	back := time.Now()
	v.ping.WaitOK(t, back, aMinute)
	ping, _ := v.report(t, "power loss and return")
	require.False(t, ping.Open)
}

func TestMatrixVIPOnBothNodesIsFoundBeforeItIsTaken(t *testing.T) {
	l := lab.Start(t, lab.Cluster)
	// A foreign host, here the client, has the address already.
	l.C1.Sh(t, "ip address add %s/24 dev eth0", vipAddress)
	require.NoError(t, l.CrmText(t.Context(), vipConfig(t)))
	var reason string
	_, err := l.Wait(t.Context(), 2*aMinute, "the start to be refused", func(s lab.Status) bool {
		for _, f := range s.Failures {
			if strings.HasPrefix(f.Op, "vip_start") {
				reason = f.Reason
			}
		}
		return reason != ""
	})
	require.NoError(t, err)
	t.Logf("crm_mon says: %s", reason)
	require.Contains(t, reason, l.C1.MAC(lab.LAN), "the reason does not name the host that has the address")
	for _, m := range l.Nodes() {
		has, found := holds(t.Context(), m)
		require.False(t, has, found)
	}
}
