package heartbeat

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
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

func TestMakeInstallLinksEveryAgentIntoHeartbeatsDirectory(t *testing.T) {
	dest := installed(t)
	for _, agent := range agents {
		target, err := os.Readlink(filepath.Join(dest, "etc/ha.d/resource.d", agent))
		require.NoError(t, err)
		require.Equal(t, "/usr/lib/ocf/resource.d/baton/"+agent, target)
		info, err := os.Stat(filepath.Join(dest, target))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o755), info.Mode())
	}

	// The examples are called as heartbeat calls them, status only: it changes nothing.
	for _, name := range []string{"heartbeat-nfs", "heartbeat-mfs"} {
		t.Run(name, func(t *testing.T) { callEveryResource(t, dest, filepath.Join(top, "crm-examples", name)) })
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

func callEveryResource(t *testing.T, dest, example string) {
	had := t.TempDir() // stands for /etc/ha.d
	require.NoError(t, os.Mkdir(filepath.Join(had, "resource.d"), 0o755))
	files, err := filepath.Glob(filepath.Join(example, "baton-*.conf"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(had, filepath.Base(file)), text, 0o600))
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
		link := filepath.Join(had, "resource.d", r[0])
		require.NoError(t, os.Symlink(filepath.Join(dest, "usr/lib/ocf/resource.d/baton", r[0]), link))
		log := filepath.Join(had, "ha-log")
		cmd := exec.Command(link, append(slices.Clone(r[1:]), "status")...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HA_LOGFILE=" + log, "HA_RSCTMP=" + had}
		out, err := cmd.Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			require.NoError(t, err)
		}
		require.Contains(t, []string{"stopped\n", "running OK\n", "state unknown, counts as running\n"}, string(out), r)
		said, err := os.ReadFile(log)
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
		for _, mistake := range []string{"no parameter", "is not NAME=VALUE", "ignored: ", "argument"} {
			require.NotContainsf(t, string(said), mistake, "%v", r)
		}
	}
	require.Equal(t, 3, ours)
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
