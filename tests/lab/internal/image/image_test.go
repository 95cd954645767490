package image

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKeyFollowsTheRecipe(t *testing.T) {
	key := Default().Key()
	require.Equal(t, key, Default().Key())
	change := map[string]func(*Recipe){
		"packages": func(r *Recipe) { r.Packages = append(r.Packages, "vim") },
		"files":    func(r *Recipe) { r.Files[0].Text += " " },
		"units":    func(r *Recipe) { r.Disable = r.Disable[1:] },
		"size":     func(r *Recipe) { r.SizeMiB++ },
	}
	for name, f := range change {
		t.Run(name, func(t *testing.T) {
			r := Default()
			f(&r)
			require.NotEqual(t, key, r.Key())
		})
	}
}

func TestNothingOfTheClusterStartsByItself(t *testing.T) {
	r := Default()
	for _, unit := range []string{"corosync.service", "pacemaker.service", "heartbeat.service", "drbd.service", "nfs-server.service", "moosefs-master.service", "sbd.service"} {
		require.Contains(t, r.Disable, unit)
		require.NotContains(t, r.Mask, unit, "a test starts it")
	}
}

func TestLayReplacesALinkAndStaysInTheTree(t *testing.T) {
	tree, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, []byte("kept"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(tree, "etc"), 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(tree, "etc/resolv.conf")))

	require.NoError(t, lay(tree, File{"/etc/resolv.conf", 0o600, "new"}))
	text, err := os.ReadFile(filepath.Join(tree, "etc/resolv.conf"))
	require.NoError(t, err)
	require.Equal(t, "new", string(text))
	text, err = os.ReadFile(outside)
	require.NoError(t, err)
	require.Equal(t, "kept", string(text))
	info, err := os.Lstat(filepath.Join(tree, "etc/resolv.conf"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestLockWaitsUntilItsTimeIsOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(t.Context(), path)
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Lock(ctx, path)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	unlock()
	again, err := Lock(t.Context(), path)
	require.NoError(t, err)
	again()
}

func TestKeyPairFitsTogether(t *testing.T) {
	out, tree := t.TempDir(), t.TempDir()
	require.NoError(t, keys(tree, out))
	authorized, err := os.ReadFile(filepath.Join(tree, "root/.ssh/authorized_keys"))
	require.NoError(t, err)
	for _, name := range []string{"root.img", "vmlinuz", "initrd"} {
		require.NoError(t, os.WriteFile(filepath.Join(out, name), nil, 0o644))
	}
	img, err := open(out, Default())
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(authorized), img.User.PublicKey().Type()))
	require.NotEqual(t, img.User.PublicKey().Marshal(), img.HostKey.Marshal())
}
