package docs

import (
	"os"
	"os/exec"
	"path/filepath"
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
