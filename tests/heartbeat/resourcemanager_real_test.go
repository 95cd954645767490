//go:build real

package heartbeat

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asHeartbeat is what heartbeat 3.0.6 gives its scripts of environment, as far as they read it.
var asHeartbeat = []string{
	"HA_DIR=/etc/ha.d", "HA_FUNCS=/etc/ha.d/shellfuncs", "HA_RCDIR=/etc/ha.d/rc.d", "HA_BIN=/usr/libexec/heartbeat",
	"HA_CURHOST=n1", "HA_LOGFILE=/var/log/ha-log", "HA_DEBUGLOG=/var/log/ha-debug", "HA_DATEFMT=%Y/%m/%d_%T\t",
	"HA_LOGD=no", "HA_debug=0", "HA_NICEFAILBACK=yes", "HA_DONTASK=yes",
	// Stop is retried ten times a second apart, and then the machine is rebooted; here it is tried once more.
	"HA_STOPRETRYMAX=1",
}

// manager is a node without heartbeat's daemon, on which the test calls ResourceManager itself.
type manager struct{ *node }

func newManager(t *testing.T, haresources string) manager {
	t.Helper()
	n := newNode(t, newSwitch(t), "n1", 11, build(t, "vip"))
	n.write("haresources", 0o644, haresources+"\n")
	// ResourceManager runs pkill and reboot after a stop that failed for good. In this node, whose
	// processes are its own, they are programs that only say so.
	fakes := filepath.Join(n.dir, "fakes")
	require.NoError(t, os.MkdirAll(fakes, 0o755))
	for _, name := range []string{"pkill", "reboot"} {
		require.NoError(t, os.WriteFile(filepath.Join(fakes, name), []byte("#!/bin/sh\necho \""+name+" $*\" >>/var/log/reboot\n"), 0o755))
	}
	n.sh("mount --bind " + fakes + "/pkill /usr/bin/pkill; if [ -e /sbin/reboot ]; then mount --bind " + fakes + "/reboot $(readlink -f /sbin/reboot); fi; " +
		"if [ -e /sbin/init ]; then mount --bind " + fakes + "/reboot $(readlink -f /sbin/init); fi")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("===== ha-log\n%s\n===== ha-debug\n%s", n.log("ha-log"), n.log("ha-debug"))
		}
	})
	return manager{n}
}

func (m manager) call(arguments string) (string, error) {
	return m.run("/usr/share/heartbeat/ResourceManager "+arguments, asHeartbeat...)
}

func TestResourceManagerTakesHoldsAndGivesAnAddress(t *testing.T) {
	const key = "vip::192.0.2.50/24/eth0:svc/192.0.2.191"
	m := newManager(t, "n1 "+key)

	out, err := m.call("verifyallidle")
	require.NoError(t, err, out)
	_, err = m.call("status " + key)
	require.Error(t, err, "not held yet")

	out, err = m.call("takegroup " + key)
	require.NoError(t, err, out)
	state := m.sh("ip -o -4 address show dev eth0 to 192.0.2.50")
	require.Contains(t, state, "192.0.2.50/24 brd 192.0.2.191")
	require.Contains(t, state, "eth0:svc")
	_, err = m.call("status " + key)
	require.NoError(t, err, "held now")
	out, err = m.call("verifyallidle")
	require.Error(t, err)
	require.Contains(t, out, "is active, and should not be", "the boot of a node that still has it")

	require.Equal(t, 1, strings.Count(m.log("ha-log"), "resource.d/vip 192.0.2.50/24/eth0:svc/192.0.2.191 start"))
	out, err = m.call("takegroup " + key)
	require.NoError(t, err, out)
	require.Equal(t, 1, strings.Count(m.log("ha-log"), "192.0.2.191 start"), "what is held is not started again")

	for range 2 { // the second time nothing runs any more
		out, err = m.call("givegroup " + key)
		require.NoError(t, err, out)
		require.False(t, m.holds("192.0.2.50"))
	}
	_, err = m.call("status " + key)
	require.Error(t, err, "not held any more")
	for _, trouble := range []string{"ERROR: Return code", "Retrying failed stop", "LSB-compliant"} {
		require.NotContains(t, m.log("ha-log"), trouble)
	}
	require.Empty(t, m.log("reboot"))
}

func TestTheReasonOfAFailedStartIsInHaLogAndTheGroupIsGivenUp(t *testing.T) {
	m := newManager(t, "n1 vip::192.0.2.50/24/eth0 vip::192.0.2.51/24/nosuch0")
	out, err := m.call("takegroup vip::192.0.2.50/24/eth0")
	require.Error(t, err, out)
	log := m.log("ha-log")
	require.Regexp(t, `vip\(vip_192\.0\.2\.51\)\[\d+\]:    ERROR: .*nosuch0`, log)
	require.Contains(t, log, "CRIT: Giving up resources due to failure of vip::192.0.2.51/24/nosuch0")
	require.False(t, m.holds("192.0.2.50"), "what was started before it is released again")
	require.NotContains(t, log, "Retrying failed stop", "stop of what never ran succeeds")
	require.Contains(t, m.log("ha-debug"), "ocf-exit-reason:")
}

func TestAMistypedParameterStopsTheStartButNotTheRelease(t *testing.T) {
	const key = "vip::192.0.2.50/24/eth0"
	m := newManager(t, "n1 "+key)
	out, err := m.call("takegroup " + key)
	require.NoError(t, err, out)

	// Somebody edits haresources while the service is up.
	m.write("haresources", 0o644, "n1 "+key+"::arp_interva1=3\n")
	out, err = m.call("givegroup " + key + "::arp_interva1=3")
	require.NoError(t, err, out)
	require.False(t, m.holds("192.0.2.50"))
	require.Contains(t, m.log("ha-log"), `vip has no parameter "arp_interva1"`)
	require.Empty(t, m.log("reboot"))

	out, err = m.call("takegroup " + key + "::arp_interva1=3")
	require.Error(t, err, out)
	require.False(t, m.holds("192.0.2.50"))
}

func TestAStopThatCannotKnowWhatToStopEndsInTheRebootThatHeartbeatPromises(t *testing.T) {
	m := newManager(t, "n1 vip::address=192.0.2.50")
	out, _ := m.call("givegroup vip::address=192.0.2.50")
	require.Contains(t, m.log("ha-log"), "Retrying failed stop", out)
	require.Contains(t, m.log("reboot"), "reboot", "the peer must not be told that nothing is held here")
}

func TestDefaultsOfAnAgentStandInAFileBesideHaresources(t *testing.T) {
	m := newManager(t, "n1 vip::192.0.2.50")
	m.write("baton-vip.conf", 0o644, "# for every vip\ncidr_netmask = 26\niflabel=ha\n")
	out, err := m.call("takegroup vip::192.0.2.50")
	require.NoError(t, err, out)
	state := m.sh("ip -o -4 address show dev eth0 to 192.0.2.50")
	require.Contains(t, state, "192.0.2.50/26")
	require.Contains(t, state, "eth0:ha")
}

// heartbeat leaves its sockets, its logs and the watchdog open in its scripts. A helper of an agent
// that kept them would hold heartbeat's port when heartbeat is started again.
func TestAHelperThatOutlivesTheStartHoldsNothingOfHeartbeats(t *testing.T) {
	const key = "vip::192.0.2.50/24/eth0::arp_count=60::arp_interval=500"
	m := newManager(t, "n1 "+key)
	m.sh("mkfifo /run/heartbeats-own")
	out, err := m.run("exec 7<>/run/heartbeats-own; exec /usr/share/heartbeat/ResourceManager takegroup "+key, asHeartbeat...)
	require.NoError(t, err, out)
	var helpers string
	eventually(t, 5*time.Second, "the announcer's process", func() bool {
		helpers = m.sh("for p in /proc/[0-9]*; do case $(readlink $p/exe) in */agents/vip) ls -l $p/fd;; esac; done")
		return strings.Contains(helpers, "->")
	})
	require.NotContains(t, helpers, "heartbeats-own")
	require.NotContains(t, helpers, "/var/log/")
}
