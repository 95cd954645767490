package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/nfsproc"
)

// stateAgent is an agent on a machine of plain files, and settings with NFSv3.
func stateAgent(t *testing.T, m *machine) (*agent, settings) {
	t.Helper()
	c := callWith(t, m)
	a := system{root: m.root}.agent(c)
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "data/.nfs"), 0o755))
	return a, settings{state: "/data/.nfs", tabDir: "/var/lib/nfs", versions: nfsproc.Versions{"3": true}}
}

func TestTheScopeIsMadeOnceAndKeptWithTheData(t *testing.T) {
	m := newMachine(t)
	a, w := stateAgent(t, m)
	first, err := a.keptScope(w)
	require.NoError(t, err)
	require.Regexp(t, `^baton-[a-z2-7]{26}$`, first)
	again, err := a.keptScope(w)
	require.NoError(t, err)
	require.Equal(t, first, again, "the other node reads the same")

	other := newMachine(t)
	b, _ := stateAgent(t, other)
	second, err := b.keptScope(w)
	require.NoError(t, err)
	require.NotEqual(t, first, second, "another service has another name")

	for _, text := range []string{"", "two words", strings.Repeat("x", 65)} {
		m.write("data/.nfs/server-scope", text+"\n")
		_, err = a.keptScope(w)
		require.ErrorContains(t, err, "holds no server scope", text)
		require.Equal(t, text+"\n", m.read("data/.nfs/server-scope"), "it is never replaced: locks depend on it")
	}
}

func TestListsOfNfsserverAreTakenOver(t *testing.T) {
	m := newMachine(t)
	a, w := stateAgent(t, m)
	m.write("data/.nfs/sm/192.0.2.21", "old place\n")
	m.write("data/.nfs/sm.bak/192.0.2.22", "not told yet\n")
	m.write("data/.nfs/statd/sm.ha/192.0.2.23", "saved by a planned stop\n")
	m.write("data/.nfs/statd/sm/192.0.2.24", "newest\n")
	m.write("data/.nfs/sm/192.0.2.24", "older\n")
	m.write("data/.nfs/state", "\x05\x00\x00\x00")
	m.write("data/.nfs/nfsdcld/main.sqlite", "database")
	m.write("data/.nfs/rmtab", "192.0.2.21:/data/share:0x1\n")
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "var/lib/nfs/sm"), 0o755))

	require.NoError(t, a.prepareLocking(w))
	require.NoError(t, a.prepareLocking(w), "twice is no harm")
	hosts, err := a.lockClients(w)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"192.0.2.21", "192.0.2.22", "192.0.2.23", "192.0.2.24"}, hosts)
	require.Equal(t, "newest\n", m.read("data/.nfs/statd/sm/192.0.2.24"), "what statd has itself is not replaced")
	require.Equal(t, "not told yet\n", m.read("data/.nfs/statd/sm.bak/192.0.2.22"))
	require.Equal(t, "\x05\x00\x00\x00", m.read("data/.nfs/statd/state"))
	require.Equal(t, "database", m.read("data/.nfs/nfsdcld/main.sqlite"))
	require.Equal(t, "192.0.2.21:/data/share:0x1\n", m.read("var/lib/nfs/rmtab"))
}

func TestSymbolicLinksInTheListsAreNotFollowed(t *testing.T) {
	m := newMachine(t)
	a, w := stateAgent(t, m)
	m.write("secret", "untouched")
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "data/.nfs/sm"), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(m.root, "secret"), filepath.Join(m.root, "data/.nfs/sm/192.0.2.66")))
	require.NoError(t, a.prepareLocking(w))
	hosts, err := a.lockClients(w)
	require.NoError(t, err)
	require.Empty(t, hosts)
	require.Equal(t, "untouched", m.read("secret"))
}

func TestAReadOnlyFileSystemIsRefused(t *testing.T) {
	m := newMachine(t)
	a, w := stateAgent(t, m)
	m.write("proc/self/mountinfo", "28 1 254:1 / / rw - ext4 /dev/vda1 rw\n40 28 147:0 / "+m.root+"/data rw - ext4 /dev/drbd0 ro\n")
	require.ErrorContains(t, a.stateDevice(w), "is mounted read-only")
}
