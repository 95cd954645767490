package nfsconf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	c := Config{}
	includes := c.parse(`
# as Debian 12 ships it
[general]
pipefs-directory=/run/rpc_pipefs
[ NFSD ]
 # vers3=y
vers4.0 = n
 Threads= 16 # one for each disk
host="a b # c"
lease-time=\
 45
no equal sign
=no key
[gssd "argument"]
verbosity=1
[unclosed
keytab-file=/etc/krb5.keytab
include=-/etc/more.conf
`)
	require.Equal(t, Config{
		"general":         {"pipefs-directory": "/run/rpc_pipefs"},
		"nfsd":            {"vers4.0": "n", "threads": "16", "host": "a b # c", "lease-time": "45"},
		`gssd "argument"`: {"verbosity": "1", "keytab-file": "/etc/krb5.keytab"},
	}, c)
	require.Equal(t, []string{"/etc/more.conf"}, includes)

	n, ok := c.Int("nfsd", "threads")
	require.True(t, ok)
	require.Equal(t, 16, n)
	_, ok = c.Int("nfsd", "host")
	require.False(t, ok)
	on, ok := c.Bool("nfsd", "VERS4.0")
	require.True(t, ok)
	require.False(t, on)
	_, ok = c.Bool("nfsd", "vers3")
	require.False(t, ok, "a comment is no setting")
}

func TestReadTakesTheLaterFilesWord(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		file := filepath.Join(root, "etc", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	c, err := Read(root)
	require.NoError(t, err)
	require.Empty(t, c, "no file, no settings")

	write("nfs.conf", "[nfsd]\nthreads=8\nudp=y\ninclude=site.conf\n")
	write("site.conf", "[nfsd]\nudp=n\ninclude=nfs.conf.missing\n")
	write("nfs.conf.d/20-b.conf", "[nfsd]\nthreads=32\n")
	write("nfs.conf.d/10-a.conf", "[nfsd]\nthreads=16\n")
	write("nfs.conf.d/ignored.txt", "[nfsd]\nthreads=1\n")
	c, err = Read(root)
	require.NoError(t, err)
	require.Equal(t, Config{"nfsd": {"threads": "32", "udp": "n"}}, c)
}

func TestReadRefusesLoopsAndUnreadableFiles(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	file := filepath.Join(root, "etc/nfs.conf")
	require.NoError(t, os.WriteFile(file, []byte("include=nfs.conf\n"), 0o644))
	_, err := Read(root)
	require.ErrorContains(t, err, "include each other")

	require.NoError(t, os.Remove(file))
	require.NoError(t, os.Mkdir(file, 0o755))
	_, err = Read(root)
	require.Error(t, err)
}

func FuzzParse(f *testing.F) {
	f.Add("[a]\nb=c\ninclude=x\n")
	f.Add("[\n=\n'=\"")
	f.Fuzz(func(_ *testing.T, text string) {
		c := Config{}
		c.parse(text)
		c.Bool("a", "b")
	})
}
