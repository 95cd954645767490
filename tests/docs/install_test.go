package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// agents are what `make build` builds.
var agents = []string{"drbd", "mfsmaster", "nfsd", "vip"}

// makeIn runs make as on a machine whose root has no Go in PATH, over agents that were built before
// (or over an empty folder).
func makeIn(t *testing.T, dest string, built bool, args ...string) (string, error) {
	t.Helper()
	build := t.TempDir()
	for _, agent := range agents {
		if built {
			require.NoError(t, os.WriteFile(filepath.Join(build, agent), []byte("built before: "+agent), 0o755)) //nolint:gosec // a program
		}
	}
	cmd := exec.Command("make", append([]string{"-s", "-C", root, "GO=no-such-go", "BUILD=" + build, "DESTDIR=" + dest}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// `make build && sudo make install`: sudo's PATH has no /usr/local/go/bin.
func TestMakeInstallTakesWhatWasBuiltWhereRootHasNoGo(t *testing.T) {
	dest := t.TempDir()
	out, err := makeIn(t, dest, true, "install")
	require.NoError(t, err, out)
	for _, agent := range agents {
		text, err := os.ReadFile(filepath.Join(dest, "usr/lib/ocf/resource.d/baton", agent))
		require.NoError(t, err)
		require.Equal(t, "built before: "+agent, string(text))
	}
}

func TestMakeInstallWithNothingBuiltAndNoGoSaysWhatToDo(t *testing.T) {
	dest := t.TempDir()
	out, err := makeIn(t, dest, false, "install")
	require.Error(t, err)
	require.Contains(t, out, "Run 'make build' as a user who has Go")
	require.NoDirExists(t, filepath.Join(dest, "usr"))
}

// What `make install` finds in heartbeat's folders, and which of it stops it.
func TestMakeInstallLeavesHeartbeatsOwnScriptsAlone(t *testing.T) {
	const resource, initScript, haresources = "etc/ha.d/resource.d/nfsd", "etc/init.d/nfsd", "etc/ha.d/haresources"
	for _, c := range []struct {
		name  string
		files map[string]string // "-> TARGET" is a link
		says  string            // the file that is named; empty where install goes on
	}{
		{"nothing", nil, ""},
		{"a script of one's own", map[string]string{resource: "#!/bin/sh\n"}, resource},
		{"a link to an init script", map[string]string{resource: "-> /etc/init.d/nfs"}, resource},
		{"a link to baton", map[string]string{resource: "-> /usr/lib/ocf/resource.d/baton/nfsd"}, ""},
		{"a link to baton elsewhere", map[string]string{resource: "-> /opt/ocf/resource.d/baton/nfsd"}, ""},
		{"an init script that haresources names", map[string]string{initScript: "", haresources: "n1 IPaddr::192.0.2.50 nfsd\n"}, initScript},
		{"an init script in a comment of haresources", map[string]string{initScript: "", haresources: "# n1 nfsd\nn1 nfsd::/data/nfs\n"}, ""},
		{"an init script, and baton's parameters in a file", map[string]string{initScript: "", haresources: "n1 nfsd\n", "etc/ha.d/baton-nfsd.conf": ""}, ""},
		{"an init script that nobody names", map[string]string{initScript: ""}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dest := t.TempDir()
			for name, text := range c.files {
				file := filepath.Join(dest, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755)) //nolint:gosec // as on a node
				if target, link := strings.CutPrefix(text, "-> "); link {
					require.NoError(t, os.Symlink(target, file))
				} else {
					require.NoError(t, os.WriteFile(file, []byte(text), 0o755)) //nolint:gosec // a script
				}
			}
			out, err := makeIn(t, dest, true, "install", "HA_D=/etc/ha.d")
			if c.says == "" {
				require.NoError(t, err, out)
				target, err := os.Readlink(filepath.Join(dest, resource))
				require.NoError(t, err)
				require.Equal(t, "/usr/lib/ocf/resource.d/baton/nfsd", target)
				return
			}
			require.Error(t, err)
			require.Contains(t, out, filepath.Join(dest, c.says)+" is not baton's")
			require.Contains(t, out, "Stop heartbeat on both nodes")
			require.NoDirExists(t, filepath.Join(dest, "usr"), "nothing is changed")
		})
	}
}

func TestMakeUninstallRemovesOnlyBatonsLinks(t *testing.T) {
	dest := t.TempDir()
	out, err := makeIn(t, dest, true, "install", "HA_D=/etc/ha.d")
	require.NoError(t, err, out)
	own := filepath.Join(dest, "etc/ha.d/resource.d/nfsd")
	require.NoError(t, os.Remove(own))
	require.NoError(t, os.WriteFile(own, []byte("#!/bin/sh\n"), 0o755)) //nolint:gosec // a script
	foreign := filepath.Join(dest, "etc/ha.d/resource.d/drbd")
	require.NoError(t, os.Remove(foreign))
	require.NoError(t, os.Symlink("/etc/init.d/drbd", foreign))

	out, err = makeIn(t, dest, true, "uninstall", "HA_D=/etc/ha.d")
	require.NoError(t, err, out)
	left, err := filepath.Glob(filepath.Join(dest, "etc/ha.d/resource.d/*"))
	require.NoError(t, err)
	require.Equal(t, []string{foreign, own}, left)
	require.NoDirExists(t, filepath.Join(dest, "usr/lib/ocf/resource.d/baton"))
}
