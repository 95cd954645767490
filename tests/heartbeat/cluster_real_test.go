//go:build real

package heartbeat

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const address = "192.0.2.50"

// cluster is two real heartbeats with the ha.cf of crm-examples/heartbeat-nfs and shorter times.
type cluster struct {
	t      *testing.T
	sw     *space
	n1, n2 *node
}

func newCluster(t *testing.T, autoFailback string) *cluster {
	t.Helper()
	c := configured(t, autoFailback, func(cf string) string { return cf })
	c.start(c.n1, c.n2)
	return c
}

// configured is a cluster whose heartbeats are not started yet; edit may change the example further.
func configured(t *testing.T, autoFailback string, edit func(cf string) string) *cluster {
	t.Helper()
	agents := build(t, "vip", "mfsmaster")
	c := &cluster{t: t, sw: newSwitch(t)}
	c.n1 = newNode(t, c.sw, "n1", 11, agents)
	c.n2 = newNode(t, c.sw, "n2", 12, agents)
	cf := example(t, "heartbeat-nfs/ha.cf")
	for _, change := range []struct{ directive, value string }{
		{"keepalive", "250ms"},
		{"warntime", "1"},
		{"deadtime", "3"},
		{"initdead", "6"},
		{"deadping", "3"},
		{"auto_failback", autoFailback},
	} {
		line := regexp.MustCompile(`(?m)^` + change.directive + ` .*$`)
		require.Regexp(t, line, cf, "the example sets it")
		cf = line.ReplaceAllString(cf, change.directive+" "+change.value)
	}
	for _, n := range []*node{c.n1, c.n2} {
		// Realtime scheduling and locked memory are not for a machine with other work.
		n.write("ha.cf", 0o644, edit(cf)+"realtime off\n")
		n.write("authkeys", 0o600, example(t, "heartbeat-nfs/authkeys"))
		n.write("haresources", 0o644, "n1 vip::"+address+"/24/eth0\n")
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range []*node{c.n1, c.n2} {
				t.Logf("===== %s ha-log\n%s\n===== %s ha-debug\n%s", n.name, n.log("ha-log"), n.name, n.log("ha-debug"))
			}
		}
	})
	return c
}

func (c *cluster) start(nodes ...*node) {
	c.t.Helper()
	for _, n := range nodes {
		n.sh("/usr/libexec/heartbeat/heartbeat")
	}
}

// stable waits until the node says that both are active and no resource is on its way: before that
// heartbeat ignores a request for standby.
func (c *cluster) stable(n *node) {
	c.t.Helper()
	eventually(c.t, time.Minute, n.name+" stable", func() bool {
		out, err := n.run("cl_status rscstatus; cl_status nodestatus n1; cl_status nodestatus n2")
		return err == nil && strings.Count(out, "active") == 2 && !strings.Contains(out, "transition")
	})
}

// dropped is what heartbeat says when its reader has read an order in two.
const dropped = "Message with zero fields"

// complaints is the node's ha-log without what ask makes up for.
func complaints(n *node) string {
	return strings.ReplaceAll(n.log("ha-log"), "ERROR: msg2string: "+dropped, "")
}

// ask gives heartbeat an order by one of its scripts. The script writes it into a FIFO, and heartbeat's
// reader now and then reads an order in two, says so and drops it: then it is given again.
func (c *cluster) ask(n *node, order string) {
	c.t.Helper()
	count := func(text string) int { return strings.Count(c.n1.log("ha-log")+c.n2.log("ha-log"), text) }
	for range 3 {
		heard, lost := count("wants to go standby"), count(dropped)
		n.sh("/usr/share/heartbeat/" + order)
		again := false
		eventually(c.t, time.Minute, order+" to be heard", func() bool {
			again = count(dropped) > lost
			return again || count("wants to go standby") > heard
		})
		if !again {
			return
		}
		c.t.Log("heartbeat dropped " + order)
	}
}

// moved waits until one node has the address and the other has not.
func (c *cluster) moved(to, from *node, within time.Duration) {
	c.t.Helper()
	took := eventually(c.t, within, fmt.Sprintf("%s on %s and not on %s", address, to.name, from.name), func() bool {
		return to.holds(address) && (from.cmd.ProcessState != nil || !from.holds(address))
	})
	c.t.Logf("%s is on %s after %.1f s", address, to.name, took.Seconds())
}

// begins waits until n1 has the address and both nodes are at rest.
func (c *cluster) begins() {
	c.t.Helper()
	c.moved(c.n1, c.n2, time.Minute)
	c.stable(c.n1)
	c.stable(c.n2)
}

func TestHeartbeatMovesTheAddressAtStandbyTakeoverStopAndPowerLoss(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "off")
	c.begins()

	t.Log("hb_standby")
	c.ask(c.n1, "hb_standby all")
	c.moved(c.n2, c.n1, time.Minute)
	c.stable(c.n1)
	c.stable(c.n2)

	t.Log("hb_takeover")
	c.ask(c.n1, "hb_takeover all")
	c.moved(c.n1, c.n2, time.Minute)
	c.stable(c.n1)
	c.stable(c.n2)

	t.Log("heartbeat stopped on the active node")
	c.n1.sh("/usr/libexec/heartbeat/heartbeat -k")
	c.moved(c.n2, c.n1, time.Minute)
	require.Contains(t, c.n1.log("ha-log"), "Heartbeat shutdown complete")

	t.Log("it comes back and, without auto_failback, takes nothing")
	c.start(c.n1)
	c.stable(c.n1)
	c.stable(c.n2)
	require.True(t, c.n2.holds(address))
	require.False(t, c.n1.holds(address))

	t.Log("power loss of the active node")
	c.n2.end()
	c.moved(c.n1, c.n2, time.Minute)
	for _, n := range []*node{c.n1, c.n2} {
		require.NotContains(t, complaints(n), "ERROR", "ha-log of %s", n.name)
		require.NotContains(t, n.log("ha-log"), "Retrying failed stop", "ha-log of %s", n.name)
	}
}

func TestIpfailMovesTheAddressWhenTheServiceInterfaceIsCut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "off")
	c.begins()
	c.sw.sh("ip link set ln1 down")
	c.moved(c.n2, c.n1, time.Minute)
	c.sw.sh("ip link set ln1 up")
	eventually(t, 20*time.Second, "the ping node seen again", func() bool {
		return strings.Contains(c.n1.sh("cl_status hblinkstatus 192.0.2.1 192.0.2.1 || true"), "up")
	})
	require.True(t, c.n2.holds(address), "without auto_failback it stays")
}

func TestWithAutoFailbackTheAddressReturnsToItsNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "on")
	c.begins()
	c.n1.sh("/usr/libexec/heartbeat/heartbeat -k")
	c.moved(c.n2, c.n1, time.Minute)
	c.start(c.n1)
	c.moved(c.n1, c.n2, time.Minute)
}

// The two nodes share a directory of this machine, as they would a replicated file system.
func TestHeartbeatMovesARealMooseFSMaster(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("mfsmaster"); err != nil {
		t.Skip("MooseFS is not installed here: sh tests/install-packages")
	}
	c := configured(t, "off", func(cf string) string { return cf })
	shared := t.TempDir()
	for dir := shared; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755)) // for the user mfs
	}
	meta, config := filepath.Join(shared, "meta"), filepath.Join(shared, "mfsmaster.cfg")
	cfg := strings.ReplaceAll(example(t, "heartbeat-mfs/mfsmaster.cfg"), "/srv/mfs/meta", meta)
	cfg = strings.ReplaceAll(cfg, "/etc/mfs/mfsexports.cfg", filepath.Join(shared, "mfsexports.cfg"))
	require.NoError(t, os.WriteFile(config, []byte(cfg), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(shared, "mfsexports.cfg"), []byte(example(t, "heartbeat-mfs/mfsexports.cfg")), 0o644))
	words := strings.Fields(example(t, "heartbeat-mfs/haresources"))
	require.Equal(t, "mfsmaster::/srv/mfs/meta", words[len(words)-1])
	for _, n := range []*node{c.n1, c.n2} {
		n.write("haresources", 0o644, "n1 vip::"+address+"/24/eth0 mfsmaster::"+meta+"\n")
		n.write("baton-mfsmaster.conf", 0o644, "require_mount=false\nconfig="+config+"\n")
	}
	c.n1.sh("install -d -o mfs -g mfs " + meta + " && /etc/ha.d/resource.d/mfsmaster " + meta + " initialize=true start && /etc/ha.d/resource.d/mfsmaster " + meta + " stop")

	// What clients do: a connection to the master's port at the address.
	serves := func(on *node) {
		t.Helper()
		took := eventually(t, time.Minute, "a master at "+address+" on "+on.name, func() bool {
			_, err := c.sw.run("timeout 2 bash -c 'exec 3<>/dev/tcp/" + address + "/9421'")
			return err == nil && on.holds(address)
		})
		t.Logf("the master serves on %s after %.1f s", on.name, took.Seconds())
		require.Equal(t, "running OK", on.sh("/etc/ha.d/resource.d/mfsmaster "+meta+" status"))
	}
	c.start(c.n1, c.n2)
	serves(c.n1)
	c.stable(c.n1)
	c.stable(c.n2)

	t.Log("hb_standby")
	c.ask(c.n1, "hb_standby all")
	serves(c.n2)
	require.Empty(t, c.n1.sh("pgrep -x mfsmaster || true"), "no process of it is left behind")
	c.stable(c.n1)
	c.stable(c.n2)

	t.Log("power loss of the active node")
	c.n2.end()
	serves(c.n1)
	for _, word := range []string{"ERROR", "Retrying failed stop", "acemaker is", "crm_"} {
		require.NotContains(t, complaints(c.n1), word)
	}
}

// fakeIPMI stands in a node for ipmitool, which external/ipmi calls: it notes what it is asked and
// succeeds while there is a BMC.
const fakeIPMI = `#!/bin/sh
echo "$*" >>/var/log/ipmi
[ -e /run/bmc ] || exit 1
case "$*" in *"power status"*) echo "Chassis Power is on";; esac
`

func TestWithTheExamplesStonithLinesNothingIsTakenOverBeforeTheOtherNodeIsOff(t *testing.T) {
	t.Parallel()
	c := configured(t, "off", func(cf string) string {
		lines := regexp.MustCompile(`(?m)^#stonith_host `)
		require.Len(t, lines.FindAllString(cf, -1), 2)
		return lines.ReplaceAllString(cf, "stonith_host ")
	})
	for _, n := range []*node{c.n1, c.n2} {
		tools := filepath.Join(n.dir, "tools")
		require.NoError(t, os.MkdirAll(tools, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(tools, "ipmitool"), []byte(fakeIPMI), 0o755))
		n.sh("mount --bind " + tools + " /usr/local/sbin && touch /run/bmc")
	}
	c.start(c.n1, c.n2)
	c.begins()

	c.n2.sh("rm /run/bmc")
	c.n1.end()
	attempts := func() int {
		return strings.Count(c.n2.log("ipmi"), "power reset") + strings.Count(c.n2.log("ipmi"), "power cycle")
	}
	eventually(t, time.Minute, "an attempt to fence n1", func() bool { return attempts() > 0 })
	require.Contains(t, c.n2.log("ipmi"), "192.0.2.111", "n1's BMC")
	first := attempts()
	eventually(t, time.Minute, "another attempt, since the first failed", func() bool {
		require.False(t, c.n2.holds(address), "taken over before the other node was off")
		return attempts() > first
	})

	c.n2.sh("touch /run/bmc")
	c.moved(c.n2, c.n1, time.Minute)
}
