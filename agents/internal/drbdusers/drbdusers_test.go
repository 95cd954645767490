package drbdusers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

type tree struct {
	t    *testing.T
	root string
}

func (m tree) file(path, text string) {
	m.t.Helper()
	file := filepath.Join(m.root, path)
	require.NoError(m.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(m.t, os.WriteFile(file, []byte(text), 0o600))
}

func (m tree) link(path, to string) {
	m.t.Helper()
	file := filepath.Join(m.root, path)
	require.NoError(m.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(m.t, os.Symlink(to, file))
}

func newTree(t *testing.T) tree {
	m := tree{t, t.TempDir()}
	m.link("proc/self/ns/mnt", "mnt:[1]")
	m.link("proc/1/ns/mnt", "mnt:[1]")
	m.file("proc/1/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
	return m
}

var drbd0 = Device{Name: "drbd0", Major: 147, Minor: 0}

func TestEachKernelUserIsNamed(t *testing.T) {
	m := newTree(t)
	m.file("proc/1/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 147:0 / /srv/my\\040data rw,relatime shared:1 - ext4 /dev/drbd0 rw\n31 22 147:1 / /other rw - ext4 /dev/drbd1 rw\n")
	m.file("var/lib/nfs/etab", "/srv/my data/share\t*(rw,sync)\n")
	m.link("proc/77/ns/mnt", "mnt:[2]")
	m.file("proc/77/comm", "mysqld\n")
	m.file("proc/77/mountinfo", "40 39 147:0 /sub /var/lib/mysql rw - ext4 /dev/drbd0 rw\n")
	m.link("proc/78/ns/mnt", "mnt:[2]") // the same namespace again
	m.file("proc/78/mountinfo", "40 39 147:0 /sub /var/lib/mysql rw - ext4 /dev/drbd0 rw\n")
	m.file("proc/swaps", "Filename Type Size Used Priority\n/dev/drbd0 partition 1 0 -2\n/dev/drbd01 partition 1 0 -2\n")
	m.file("sys/block/drbd0/holders/dm-3/x", "")
	m.file("sys/block/dm-3/dm/name", "vg-data\n")
	m.file("sys/block/loop4/loop/backing_file", "/dev/drbd0\n")
	m.file("sys/block/loop5/loop/backing_file", "/srv/file\n")

	users, err := Finder{m.root}.Users(drbd0)
	require.NoError(t, err)
	var words []string
	for _, u := range users {
		words = append(words, u.String())
	}
	require.Equal(t, []string{
		"mounted on /srv/my data (ext4, exported by NFS)",
		"mounted on /var/lib/mysql (ext4, in the mount namespace of pid 77 mysqld)",
		"used by /dev/dm-3 (device mapper vg-data)",
		"swap on /dev/drbd0",
		"behind /dev/loop4",
	}, words)
}

func TestUnusedDeviceHasNoUsers(t *testing.T) {
	users, err := Finder{newTree(t).root}.Users(drbd0)
	require.NoError(t, err)
	require.Empty(t, users)
}

func TestExportOfADirectoryBesideIsNotMeant(t *testing.T) {
	require.True(t, within("/srv", "/srv"))
	require.True(t, within("/srv", "/srv/a"))
	require.True(t, within("/", "/a"))
	require.False(t, within("/srv", "/srvx"))
}

func TestUnreadableTablesAreReportedBesideTheRest(t *testing.T) {
	m := newTree(t)
	m.file("proc/1/mountinfo", "30 22 147:0\n")
	m.file("proc/swaps", "Filename\n/dev/drbd0 partition 1 0 -2\n")
	users, err := Finder{m.root}.Users(drbd0)
	require.ErrorContains(t, err, "mount table of pid 1")
	require.Equal(t, []User{{Kind: Swap, Name: "/dev/drbd0"}}, users)
}

func TestThisMachineCanBeRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("other users' mount namespaces need root")
	}
	_, err := Finder{"/"}.Users(Device{Name: "none", Major: 4095, Minor: 0})
	require.NoError(t, err)
}
