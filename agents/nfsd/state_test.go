package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/nfsexports"
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

func TestTheMonitorFailsOnceTheStateCannotBeWritten(t *testing.T) {
	for name, c := range map[string]struct {
		mount string
		home  string
		code  int
	}{
		"writable":                    {"41 28 147:0 / /data rw - ext4 /dev/drbd0 rw,errors=remount-ro", "", 0},
		"after an error":              {"41 28 147:0 / /data rw - ext4 /dev/drbd0 ro,errors=remount-ro", "", 1},
		"after an error, newer ext4":  {"41 28 147:0 / /data rw - ext4 /dev/drbd0 rw,emergency_ro", "", 1},
		"ext4 shut down":              {"41 28 147:0 / /data rw - ext4 /dev/drbd0 rw,shutdown", "", 1},
		"this mount by hand":          {"41 28 147:0 / /data ro - ext4 /dev/drbd0 rw", "", 1},
		"behind a link":               {"41 28 147:0 / /mnt/data rw - ext4 /dev/drbd0 ro", "/mnt/data/.nfs", 1},
		"a read-only root and a link": {"41 28 147:0 / /mnt/data rw - ext4 /dev/drbd0 rw", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.serving()
			m.write("proc/self/mountinfo", "28 1 254:1 / / ro - ext4 /dev/vda1 ro\n"+c.mount+"\n")
			m.record(record{Home: c.home})
			got := m.run("monitor", recurring, oneExport)
			require.Equal(t, c.code, got.code, got.output)
			if c.code != 0 {
				require.Regexp(t, `^NFS server: its state directory cannot be written any more: /(mnt/)?data \(ext4 on /dev/drbd0\) is read-only`, got.reason)
			}
		})
	}
}

func TestAReadOnlyExportIsToldOnceAndNoFault(t *testing.T) {
	m := newMachine(t)
	m.serving()
	table := m.read("proc/self/mountinfo")
	more := func(mount, super string) {
		m.write("proc/self/mountinfo", table+"45 28 147:1 / /data/share "+mount+" - ext4 /dev/drbd1 "+super+"\n")
	}
	look := func(export string, told int) {
		t.Helper()
		got := m.run("monitor", recurring, "OCF_RESKEY_exports="+export)
		require.Equal(t, 0, got.code, got.output)
		require.Equal(t, told, strings.Count(m.read("log"), "/data/share is exported for writing, but /data/share (ext4 on /dev/drbd1) is read-only"))
	}
	m.write("log", "")
	wanted := share()
	m.record(record{Exports: []nfsexports.Export{wanted}})
	const export = "/data/share *(rw,fsid=1)"
	look(export, 0)
	more("ro", "rw")
	look(export, 1)
	look(export, 1)
	more("rw", "rw")
	look(export, 1)
	more("rw", "ro")
	look(export, 2)

	wanted.Options[0] = "ro"
	m.record(record{Exports: []nfsexports.Export{wanted}})
	look("/data/share *(ro,fsid=1)", 2)
}

func TestAReadOnlyFileSystemIsRefused(t *testing.T) {
	m := newMachine(t)
	a, w := stateAgent(t, m)
	m.write("proc/self/mountinfo", "28 1 254:1 / / rw - ext4 /dev/vda1 rw\n40 28 147:0 / "+m.root+"/data rw - ext4 /dev/drbd0 ro\n")
	require.ErrorContains(t, a.stateDevice(w), "is mounted read-only")
}
