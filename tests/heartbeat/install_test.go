package heartbeat

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const top = "../.."

var agents = []string{"drbd", "mfsmaster", "nfsd", "vip"}

// installed lays the project below a directory of the test's as `make install` does.
func installed(t *testing.T) string {
	t.Helper()
	dest := t.TempDir()
	cmd := exec.Command("make", "-s", "-C", top, "install", "DESTDIR="+dest, "HA_D=/etc/ha.d", "BUILD="+filepath.Join(t.TempDir(), "build"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return dest
}

func TestMakeInstallGivesHeartbeatEveryAgent(t *testing.T) {
	dest := installed(t)
	t.Run("each is linked into resource.d", func(t *testing.T) { everyAgentIsLinked(t, dest) })
	t.Run("each haresources form is understood and documented", func(t *testing.T) { everyFormIsUnderstood(t, dest) })
	for _, name := range []string{"heartbeat-nfs", "heartbeat-mfs"} {
		t.Run("each resource of "+name+" is understood", func(t *testing.T) { callEveryResource(t, dest, filepath.Join(top, "crm-examples", name)) })
	}
}

func everyAgentIsLinked(t *testing.T, dest string) {
	for _, agent := range agents {
		target, err := os.Readlink(filepath.Join(dest, "etc/ha.d/resource.d", agent))
		require.NoError(t, err)
		require.Equal(t, "/usr/lib/ocf/resource.d/baton/"+agent, target)
		info, err := os.Stat(filepath.Join(dest, target))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o755), info.Mode())
	}
}

// resources are the resources of the one line of haresources, as script and arguments, the way
// ResourceManager takes them apart.
func resources(t *testing.T, file string) (node string, list [][]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for line := range strings.SplitSeq(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		require.Empty(t, node, "one line, one group")
		node = words[0]
		for _, word := range words[1:] {
			list = append(list, strings.Split(word, "::"))
		}
	}
	return node, list
}

// callEveryResource calls the resources of an example as heartbeat does, status only: it changes
// nothing.
func callEveryResource(t *testing.T, dest, example string) {
	had := newHaD(t, dest)
	files, err := filepath.Glob(filepath.Join(example, "baton-*.conf"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(string(had), filepath.Base(file)), text, 0o600))
	}
	node, list := resources(t, filepath.Join(example, "haresources"))
	require.Equal(t, "n1", node)
	ours := 0
	for _, r := range list {
		if !slices.Contains(agents, r[0]) {
			require.Equal(t, "Filesystem", r[0], "the only other resource script of the examples")
			continue
		}
		ours++
		had.status(t, r)
	}
	require.Equal(t, 3, ours)
}

// haD stands for /etc/ha.d.
type haD string

func newHaD(t *testing.T, dest string) haD {
	t.Helper()
	had := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(had, "resource.d"), 0o755))
	for _, agent := range agents {
		require.NoError(t, os.Symlink(filepath.Join(dest, "usr/lib/ocf/resource.d/baton", agent), filepath.Join(had, "resource.d", agent)))
	}
	return haD(had)
}

// status calls the resource as heartbeat does, and fails if the agent does not understand every
// word of it, or misses a tool of Pacemaker. What it answers depends on this machine.
func (had haD) status(t *testing.T, resource []string) {
	t.Helper()
	log := filepath.Join(string(had), "ha-log")
	cmd := exec.Command(filepath.Join(string(had), "resource.d", resource[0]), append(slices.Clone(resource[1:]), "status")...)
	cmd.Env = []string{"PATH=" + string(had), "HA_LOGFILE=" + log, "HA_RSCTMP=" + string(had)}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	require.Contains(t, []string{"stopped\n", "running OK\n", "state unknown, counts as running\n"}, string(out), resource)
	said, err := os.ReadFile(log)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	for _, mistake := range []string{"no parameter", "is not NAME=VALUE", "ignored: ", "argument", "acemaker", "crm_", "attrd"} {
		require.NotContainsf(t, string(said), mistake, "%v", resource)
	}
}

func everyFormIsUnderstood(t *testing.T, dest string) {
	had := newHaD(t, dest)
	for _, form := range []string{
		"vip::192.0.2.50",
		"vip::192.0.2.50/24",
		"vip::192.0.2.50/24/lo",
		"vip::192.0.2.50/24/192.0.2.255",
		"vip::192.0.2.50/24/lo:svc/192.0.2.255",
		"vip::2001:db8:0:0:0:0:0:50/64/lo",
		"vip::192.0.2.50/24/lo::arp_count=3::tickle_dir=/data/tickle",
		"vip::ip=192.0.2.50::cidr_netmask=24::nic=lo",
		"drbd::r0",
		"drbd::drbd_resource=r0",
		"nfsd::/data/nfs",
		"nfsd::/data/nfs::lease_time=10",
		"nfsd::shared_infodir=/data/nfs::lease_time=10",
		"mfsmaster::/srv/mfs/meta",
		"mfsmaster::data_dir=/srv/mfs/meta::durability=moosefs",
		"mfsmaster::/srv/mfs/meta::start_timeout=1800",
	} {
		had.status(t, strings.Split(form, "::"))
	}
	guide, err := os.ReadFile(filepath.Join(top, "docs", "heartbeat.md"))
	require.NoError(t, err)
	for _, agent := range agents {
		xml, err := exec.Command(filepath.Join(dest, "usr/lib/ocf/resource.d/baton", agent), "meta-data").Output()
		require.NoError(t, err)
		long := regexp.MustCompile(`(?s)<longdesc[^>]*>(.*?)</longdesc>`).FindSubmatch(xml)
		require.NotNil(t, long)
		require.Contains(t, string(long[1]), "haresources", agent)
		require.Contains(t, string(long[1]), agent+"::", agent)

		row := "| " + agent
		for _, action := range []string{"start", "stop", "monitor"} {
			found := regexp.MustCompile(`<action name="` + action + `" timeout="(\d+)s"`).FindSubmatch(xml)
			require.NotNilf(t, found, "%s %s", agent, action)
			row += " | " + string(found[1])
		}
		require.Contains(t, string(guide), row+" |\n", "the deadlines in docs/heartbeat.md")
	}
}

// directives are the lines of an ha.cf without comments, in order.
func directives(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var list []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}

func TestTheExamplesOfHaCfAreCompleteAndInTheOrderThatHeartbeatNeeds(t *testing.T) {
	for _, name := range []string{"heartbeat-nfs", "heartbeat-mfs"} {
		file := filepath.Join(top, "crm-examples", name, "ha.cf")
		list := directives(t, file)
		at := func(prefix string) int {
			i := slices.IndexFunc(list, func(line string) bool { return strings.HasPrefix(line, prefix) })
			require.GreaterOrEqualf(t, i, 0, "%s has no %s", file, prefix)
			return i
		}
		require.Less(t, at("logfile "), at("udpport "))
		require.Less(t, at("udpport "), at("ucast "))
		for _, must := range []string{
			"keepalive ", "warntime ", "deadtime ", "initdead ", "auto_failback off", "node n1", "node n2", "ping ", "deadping ",
			"respawn hacluster /usr/libexec/heartbeat/ipfail", "crm off",
		} {
			at(must)
		}
		ways := map[string]bool{}
		for _, line := range list {
			if f := strings.Fields(line); f[0] == "ucast" {
				ways[f[1]] = true
			}
		}
		require.GreaterOrEqual(t, len(ways), 2, "two ways between the nodes")
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Contains(t, string(text), "\n#stonith_host n1 ")
		require.Contains(t, string(text), "\n#stonith_host n2 ")

		keys := directives(t, filepath.Join(top, "crm-examples", name, "authkeys"))
		require.Equal(t, "auth 1", keys[0])
		require.Regexp(t, `^1 sha1 \S+$`, keys[1])
	}
}
