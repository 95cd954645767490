//go:build lab

package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

// The cost of one monitor, beside LINBIT's agent in the same machine and the same run.
func TestMatrixDRBDMonitorCostsATenthOfLinbits(t *testing.T) {
	require.GreaterOrEqual(t, compareMonitors(t), 10.0, "CPU of LINBIT's monitor over ours")
}

// BenchmarkDRBDMonitor prints the same comparison for make bench.
func BenchmarkDRBDMonitor(b *testing.B) {
	for range b.N {
		b.ReportMetric(compareMonitors(b), "linbit-CPU/baton-CPU")
	}
}

// compareMonitors returns how many times our monitor's CPU time LINBIT's takes.
func compareMonitors(t testing.TB) float64 {
	t.Helper()
	l := lab.Start(t, lab.DRBD)
	for _, m := range l.Nodes() {
		m.Sh(t, "drbdadm up r0")
	}
	require.NoError(t, lab.WaitDRBD(t.Context(), l.N1, "ds:UpToDate/UpToDate"))
	cost := func(provider string, runs int) (cpu, wall float64, children int) {
		_, said := agentCall(t.Context(), l.N1, provider, "monitor") // warm
		out := l.N1.Sh(t, `cat >/root/bench.sh <<'EOF'
export OCF_ROOT=/usr/lib/ocf OCF_RA_VERSION_MAJOR=1 OCF_RA_VERSION_MINOR=1 OCF_RESOURCE_INSTANCE=bench OCF_RESOURCE_TYPE=drbd
export OCF_RESKEY_drbd_resource=r0 OCF_RESKEY_CRM_meta_clone_max=2 OCF_RESKEY_CRM_meta_clone_node_max=1 OCF_RESKEY_CRM_meta_master_max=1
export OCF_RESKEY_CRM_meta_master_node_max=1 OCF_RESKEY_CRM_meta_notify=true OCF_RESKEY_CRM_meta_interval=10000 OCF_RESKEY_CRM_meta_timeout=60000 HA_LOGFILE=/dev/null
before=$(awk '/^processes/{print $2}' /proc/stat)
begin=$(date +%%s.%%N)
i=0; while [ $i -lt %[2]d ]; do /usr/lib/ocf/resource.d/%[1]s/drbd monitor >/dev/null 2>&1; i=$((i+1)); done
end=$(date +%%s.%%N)
after=$(awk '/^processes/{print $2}' /proc/stat)
echo "$begin $end $before $after"
times
EOF
sh /root/bench.sh`, provider, runs)
		var from, to float64
		var before, after int
		lines := strings.Split(strings.TrimSpace(out), "\n")
		_, err := fmt.Sscan(lines[0], &from, &to, &before, &after)
		require.NoError(t, err, out)
		var um, us, sm, ss float64 // times: "0m1.23s 0m4.56s" of the children
		_, err = fmt.Sscanf(lines[2], "%fm%fs %fm%fs", &um, &us, &sm, &ss)
		require.NoError(t, err, "%s%s", out, said)
		return (um*60 + us + sm*60 + ss) / float64(runs), (to - from) / float64(runs), (after - before) / runs
	}
	ours, ourWall, ourChildren := cost("baton", 50)
	theirs, theirWall, theirChildren := cost("linbit", 10)
	t.Logf("one monitor: ocf:baton:drbd %.0f ms CPU, %.0f ms, %d processes; ocf:linbit:drbd %.0f ms CPU, %.0f ms, %d processes; CPU 1:%.1f, time 1:%.1f",
		ours*1000, ourWall*1000, ourChildren, theirs*1000, theirWall*1000, theirChildren, theirs/ours, theirWall/ourWall)
	return theirs / ours
}
