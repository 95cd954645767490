package bench_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/tests/bench"
)

// ipaddr2 is the shell agent that vip replaces (package resource-agents).
const ipaddr2 = "/usr/lib/ocf/resource.d/heartbeat/IPaddr2"

// BenchmarkVIPMonitor: a monitor of a running address costs at most twice the start of an empty
// program, and a tenth of IPaddr2's at most.
func BenchmarkVIPMonitor(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root, for a network namespace")
	}
	if _, err := os.Stat(ipaddr2); err != nil {
		b.Skipf("IPaddr2 is not installed (make deps): %v", err)
	}
	dir := b.TempDir()
	vip, empty := filepath.Join(dir, "vip"), filepath.Join(dir, "empty")
	require.NoError(b, bench.Build("baton/agents/vip", vip))
	require.NoError(b, bench.Build("./testdata/empty", empty))

	// From here on this thread, and what it starts, is in a network of its own. The thread ends
	// with the benchmark, since it is never unlocked.
	runtime.LockOSThread()
	require.NoError(b, syscall.Unshare(syscall.CLONE_NEWNET))
	for _, line := range []string{
		"link set lo up",
		"link add eth0 type veth peer name eth1",
		"link set eth0 up",
		"link set eth1 up",
		"address add 192.0.2.1/24 dev eth0",
		"address add 192.0.2.50/24 dev eth0",
	} {
		out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		require.NoError(b, err, "ip %s: %s", line, out)
	}

	env := []string{
		"PATH=" + os.Getenv("PATH"), "OCF_ROOT=/usr/lib/ocf", "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
		"OCF_RESOURCE_INSTANCE=bench", "OCF_RESOURCE_TYPE=vip", "OCF_RESOURCE_PROVIDER=baton",
		"OCF_RESKEY_CRM_meta_timeout=20000", "OCF_RESKEY_CRM_meta_interval=10000", "HA_LOGFILE=/dev/null", "HA_RSCTMP=" + dir,
		"OCF_RESKEY_ip=192.0.2.50", "OCF_RESKEY_nic=eth0",
	}
	calls := []bench.Call{
		{Name: "empty", Path: empty},
		{Name: "vip", Path: vip, Args: []string{"monitor"}, Env: env},
		{Name: "IPaddr2", Path: ipaddr2, Args: []string{"monitor"}, Env: env},
	}
	const rounds = 200
	_, err := bench.Turns(10, calls) // the caches warm up
	require.NoError(b, err)
	for b.Loop() {
		costs, err := bench.Turns(rounds, calls)
		require.NoError(b, err)
		for i, c := range costs {
			b.Logf("%-8s median of %d: %8.3f ms, CPU %8.3f ms, %d page faults", calls[i].Name, rounds, ms(c.Wall.Seconds()), ms(c.CPU.Seconds()), c.Faults)
			b.ReportMetric(ms(c.Wall.Seconds()), "ms/"+calls[i].Name)
		}
		overEmpty := costs[1].Wall.Seconds() / costs[0].Wall.Seconds()
		underShell := costs[2].Wall.Seconds() / costs[1].Wall.Seconds()
		b.ReportMetric(overEmpty, "vip/empty")
		b.ReportMetric(underShell, "IPaddr2/vip")
		if overEmpty > 2 {
			b.Errorf("vip's monitor takes %s times the start of an empty program, at most 2 are allowed", factor(overEmpty))
		}
		if underShell < 10 {
			b.Errorf("vip's monitor is %s times faster than IPaddr2's, at least 10 are required", factor(underShell))
		}
	}
}

func ms(seconds float64) float64 { return seconds * 1000 }

func factor(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }
