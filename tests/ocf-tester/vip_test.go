package ocftester

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// network gives the sandbox an interface eth0 that is up and has a carrier.
func (s *sandbox) network() {
	s.sh(`
		ip link add eth0 type veth peer name peer0
		echo 1 >/proc/sys/net/ipv6/conf/peer0/disable_ipv6
		ip link set peer0 up
		ip link set eth0 addrgenmode none up
		ip addr add 192.0.2.1/24 dev eth0
		# What the kernel adds by itself when the carrier comes must not come later.
		for i in $(seq 200); do
			[ "$(cat /sys/class/net/eth0/carrier)" = 1 ] && ip -6 route show table all | grep -q 'ff00::/8 dev eth0' && exit 0
			sleep 0.05
		done
		exit 1`)
}

func find(t *testing.T, name string) *agent {
	t.Helper()
	for _, a := range agents {
		if a.name == name {
			return a
		}
	}
	t.Skipf("%s was not built", name)
	return nil
}

func (s *sandbox) has(address string) bool {
	return strings.Contains(s.sh("ip -o addr show dev eth0"), " "+address+"/")
}

func TestTheAddressComesAndGoesTwiceAndLeavesNothing(t *testing.T) {
	t.Parallel()
	a, s := find(t, "vip"), newSandbox(t)
	s.network()
	clean := s.state()
	for range 2 {
		require.Equal(t, 7, s.run(a.cluster(nil), a.file, "monitor").code)
		got := s.run(a.cluster(nil), a.file, "start")
		require.Equal(t, 0, got.code, got.stderr)
		require.True(t, s.has("192.0.2.50"))
		started := s.sh("ip -o addr; ip route show table all")
		require.Equal(t, 0, s.run(a.cluster(nil), a.file, "start").code, "started twice")
		require.Equal(t, started, s.sh("ip -o addr; ip route show table all"))
		for range 3 {
			got := s.run(a.cluster(nil, recurring), a.file, "monitor")
			require.Equal(t, heard{}, got)
		}
		require.Equal(t, started, s.sh("ip -o addr; ip route show table all"), "monitor changes nothing")
		for range 2 {
			got := s.run(a.cluster(nil), a.file, "stop")
			require.Equal(t, 0, got.code, got.stderr)
			require.Empty(t, got.reasons())
		}
		require.Equal(t, clean, s.state(), "no address, no route, no process, no file is left")
	}
}

// Whatever is broken in the configuration meanwhile, the address goes when it is told to.
func TestARunningAddressIsStoppedWithEveryOtherParameterBroken(t *testing.T) {
	t.Parallel()
	a, s := find(t, "vip"), newSandbox(t)
	s.network()
	for i, p := range a.params {
		if p.name == a.identity || !thorough && i%4 != 0 {
			continue
		}
		require.Equal(t, 0, s.run(a.cluster(nil), a.file, "start").code)
		got := s.run(a.cluster(map[string]string{p.name: "bro\nken"}), a.file, "stop")
		require.Equal(t, 0, got.code, "%s: %s", p.name, got.stderr)
		require.False(t, s.has("192.0.2.50"), "%s: stop said that it was gone", p.name)
	}
}

func TestAStartThatIsTerminatedMidwayIsCleanedUpByStop(t *testing.T) {
	t.Parallel()
	a, s := find(t, "vip"), newSandbox(t)
	s.network()
	clean := s.state()
	// The wait for another holder of the address is the middle of a start; its socket shows it.
	got := s.run(a.cluster(map[string]string{"conflict_wait": "5000"}), "sh", "-c", `
		"$1" start & pid=$!
		for i in $(seq 200); do
			[ "$(wc -l </proc/net/packet)" -gt 1 ] && break
			sleep 0.02
		done
		kill -TERM $pid
		wait $pid`, "sh", a.file)
	require.Equal(t, 1, got.code, got.stderr)
	require.Len(t, got.reasons(), 1)
	require.Contains(t, got.reasons()[0], "terminated")
	require.Equal(t, 0, s.run(a.cluster(nil), a.file, "stop").code)
	require.Equal(t, clean, s.state())
}

func TestAnAddressIsStartedWithNoDirectoryForRecords(t *testing.T) {
	t.Parallel()
	a, s := find(t, "vip"), newSandbox(t)
	s.network()
	for _, dir := range []string{"/run/not/there", "/proc/1"} {
		got := s.run(a.cluster(nil, "HA_RSCTMP="+dir), a.file, "start")
		if got.code == 0 {
			require.True(t, s.has("192.0.2.50"))
		} else {
			require.Len(t, got.reasons(), 1, got.stderr)
		}
		require.Equal(t, 0, s.run(a.cluster(nil, "HA_RSCTMP="+dir), a.file, "stop").code)
		require.False(t, s.has("192.0.2.50"))
	}
}

// Nothing of what the other three serve is on this machine: no module, no device, no data.
func TestAStartThatCannotSucceedSaysWhyAndLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		clean := s.state()
		got := s.run(a.cluster(nil), a.file, "start")
		require.Contains(t, []int{1, 5, 6}, got.code, got.stderr)
		require.Len(t, got.reasons(), 1)
		require.Contains(t, got.reasons()[0], ";", "what was expected, or what to do")
		require.Equal(t, clean, s.state(), got.stderr)
		require.Equal(t, 0, s.run(a.cluster(nil), a.file, "stop").code)
		require.Equal(t, 7, s.run(a.cluster(nil), a.file, "monitor").code)
	})
}
