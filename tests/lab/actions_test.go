package lab_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

func TestActionsAreReadFromPacemakersWords(t *testing.T) {
	actions := lab.ParseActions(`1796012345.100000 n2 pacemaker-controld[296]:  notice: Requesting local execution of promote operation for drbd_r0 on n2
1796012345.200000 n2 pacemaker-controld[296]:  notice: State transition S_IDLE -> S_POLICY_ENGINE
1796012346.100000 n2 pacemaker-controld[296]:  notice: Result of promote operation for drbd_r0 on n2: ok
1796012346.150000 n2 pacemaker-controld[296]:  notice: Result of monitor operation for vip on n2: ok
1796012346.200000 n2 pacemaker-controld[296]:  notice: Requesting local execution of start operation for vip on n2
1796012346.300000 n2 pacemaker-controld[296]:  notice: Requesting local execution of notify operation for drbd_r0 on n2
1796012346.400000 n2 pacemaker-controld[296]:  notice: Result of notify operation for drbd_r0 on n2: ok
1796012347.450000 n2 pacemaker-controld[296]:  notice: Result of start operation for vip on n2: error (192.0.2.50: in use; expected free)
1796012347.500000 n2 pacemaker-controld[296]:  notice: Requesting local execution of stop operation for vip on n2
torn
`)
	require.Len(t, actions, 3, "an answer without a question, and a question without an answer, are no actions")
	require.Equal(t, "promote", actions[0].Op)
	require.Equal(t, time.Second, actions[0].Took())
	require.Equal(t, "start", actions[1].Op, "in the order of their beginning")
	require.Equal(t, 1250*time.Millisecond, actions[1].Took())
	require.Equal(t, "error (192.0.2.50: in use; expected free)", actions[1].Result)
	require.Equal(t, lab.Action{
		Node: "n2", Resource: "drbd_r0", Op: "notify", Result: "ok",
		From: time.Unix(1796012346, 300e6), To: time.Unix(1796012346, 400e6),
	}, actions[2])
}
