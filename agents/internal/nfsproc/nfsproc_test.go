package nfsproc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fakeProc is a directory of plain files in place of procfs.
func fakeProc(t *testing.T, files map[string]string) Server {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	return Server{Proc: root}
}

func (s Server) wrote(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(s.proc(name))
	require.NoError(t, err)
	return string(text)
}

func TestParseVersions(t *testing.T) {
	for text, want := range map[string]Versions{
		"-2 +3 +4 +4.1 +4.2":        {"2": false, "3": true, "4.0": true, "4.1": true, "4.2": true},
		"-3 +4 -4.0 +4.1 -4.2":      {"3": false, "4.0": false, "4.1": true, "4.2": false},
		"+3 -4 -4.0 -4.1 -4.2":      {"3": true, "4.0": false},
		"+3":                        {"3": true},
		"":                          {},
		"+3 +4 +4.1 ?9 +5 + word -": {"3": true, "4.0": true, "4.1": true},
	} {
		require.Equal(t, want, parseVersions(text), text)
	}
}

func TestSetVersionsNamesEachVersion(t *testing.T) {
	s := fakeProc(t, map[string]string{"fs/nfsd/versions": ""})
	for want, v := range map[string]Versions{
		"-3 +4 -4.0 +4.1 +4.2\n": {"4.1": true, "4.2": true},
		"+3 -4\n":                {"3": true},
		"+3 +4 +4.0 +4.1 +4.2\n": {"3": true, "4.0": true, "4.1": true, "4.2": true},
	} {
		require.NoError(t, os.Truncate(s.proc("fs/nfsd/versions"), 0))
		require.NoError(t, s.SetVersions(v))
		require.Equal(t, want, s.wrote(t, "fs/nfsd/versions"))
	}
}

func TestParsePorts(t *testing.T) {
	require.Equal(t, []Port{{"tcp", 2049}, {"udp", 2049}, {"rdma", 20049}},
		parsePorts("tcp 2049\nudp 2049\n\nrdma 20049\nvsock\ntcp x\ntcp 70000\ntcp -1\na b c\n"))
	require.Empty(t, parsePorts(""))
}

func TestParseContentTakesEverythingThatHoldsAFileSystem(t *testing.T) {
	require.Equal(t, []string{"/data", "/negative", "/data/a b"}, parseContent(`#path domain(flags)
/data	192.0.2.0/24(rw,no_root_squash,sync,wdelay,no_subtree_check,fsid=1)
# /negative	192.0.2.0/24()
/data/a\040b	*(ro)
`))
	require.Equal(t, []string{"/data", "/expired"}, parseContent(`#domain fsidtype fsid [path]
192.0.2.0/24 1 0x00000001 /data
* 6 0x0100000000000000aabbccddeeff0011
# * 1 0x00000007 /expired
# * 1 0x00000008
junk
`))
}

func TestHeldWithoutTheModuleIsNothing(t *testing.T) {
	held, err := fakeProc(t, nil).Held()
	require.NoError(t, err)
	require.Empty(t, held)
	held, err = fakeProc(t, map[string]string{
		"net/rpc/nfsd.export/content": "/b\t*(rw)\n",
		"net/rpc/nfsd.fh/content":     "* 1 0x1 /a\n* 1 0x2 /b\n",
	}).Held()
	require.NoError(t, err)
	require.Equal(t, []string{"/a", "/b"}, held)
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`/a`: "/a", `/a\040b`: "/a b", `/a\134b`: `/a\b`, `/a\04`: `/a\04`, `/a\`: `/a\`, `/a\999`: `/a\999`, `\101\102`: "AB",
	} {
		require.Equal(t, want, Unescape(in), in)
	}
}

func TestAvailableTellsAMissingMountFromAServerAtRest(t *testing.T) {
	there, err := fakeProc(t, nil).Available()
	require.NoError(t, err)
	require.False(t, there)
	s := fakeProc(t, map[string]string{"fs/nfsd/threads": "0\n"})
	there, err = s.Available()
	require.NoError(t, err)
	require.True(t, there)
	n, err := s.Threads()
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestUnreadableIsNeverZero(t *testing.T) {
	_, err := fakeProc(t, nil).Threads()
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, text := range []string{"", "many", "-1", "8 8"} {
		_, err = fakeProc(t, map[string]string{"fs/nfsd/threads": text}).Threads()
		var parse *ParseError
		require.ErrorAs(t, err, &parse, text)
	}
	_, err = fakeProc(t, map[string]string{"fs/nfsd/v4_end_grace": "?\n"}).GraceEnded()
	require.Error(t, err)
}

func TestEachFileGetsTheKernelsForm(t *testing.T) {
	s := fakeProc(t, map[string]string{
		"fs/nfsd/threads": "", "fs/nfsd/v4_end_grace": "N\n", "fs/lockd/nlm_end_grace": "N\n",
		"fs/nfsd/nfsv4leasetime": "", "fs/nfsd/nfsv4gracetime": "", "fs/nfsd/unlock_filesystem": "",
		"sys/fs/nfs/nlm_tcpport": "", "sys/fs/nfs/nlm_udpport": "",
		"net/rpc/nfsd.export/flush": "", "net/rpc/nfsd.fh/flush": "", "net/rpc/auth.unix.ip/flush": "",
	})
	ended, err := s.GraceEnded()
	require.NoError(t, err)
	require.False(t, ended)
	require.NoError(t, s.EndGrace())
	ended, err = s.GraceEnded()
	require.NoError(t, err)
	require.True(t, ended)
	require.NoError(t, s.EndLockdGrace())
	ended, err = s.LockdGraceEnded()
	require.NoError(t, err)
	require.True(t, ended)
	require.NoError(t, s.SetThreads(8))
	n, err := s.Threads()
	require.NoError(t, err)
	require.Equal(t, 8, n)
	require.NoError(t, s.SetLeaseTime(45*time.Second))
	lease, err := s.LeaseTime()
	require.NoError(t, err)
	require.Equal(t, 45*time.Second, lease)
	require.NoError(t, s.SetGraceTime(15*time.Second))
	grace, err := s.GraceTime()
	require.NoError(t, err)
	require.Equal(t, 15*time.Second, grace)
	require.NoError(t, s.UnlockFilesystem("/data"))
	require.Equal(t, "/data\n", s.wrote(t, "fs/nfsd/unlock_filesystem"))
	require.NoError(t, s.LockdPorts(32768, 0))
	require.Equal(t, "32768\n", s.wrote(t, "sys/fs/nfs/nlm_tcpport"))
	require.Empty(t, s.wrote(t, "sys/fs/nfs/nlm_udpport"))
	require.NoError(t, s.FlushExports(41))
	require.Equal(t, "42\n", s.wrote(t, "net/rpc/nfsd.export/flush"))
}

func TestLockdsAnswerEndsInANUL(t *testing.T) {
	for text, want := range map[string]bool{"Y\n\x00": true, "N\n\x00": false} {
		ended, err := fakeProc(t, map[string]string{"fs/lockd/nlm_end_grace": text}).LockdGraceEnded()
		require.NoError(t, err)
		require.Equal(t, want, ended)
	}
}

func TestListenNamesThePortInUseAndHandsNothingOver(t *testing.T) {
	s := fakeProc(t, map[string]string{"fs/nfsd/portlist": ""})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(fd, 1))
	name, err := unix.Getsockname(fd)
	require.NoError(t, err)
	port := name.(*unix.SockaddrInet4).Port

	err = s.Listen(Port{"udp", port}, Port{"tcp", port})
	var listen *ListenError
	require.ErrorAs(t, err, &listen)
	require.ErrorIs(t, err, unix.EADDRINUSE)
	require.Equal(t, Port{"tcp", port}, listen.Port)
	require.Empty(t, s.wrote(t, "fs/nfsd/portlist"))
}

func TestPortInodesFindListenersAndSkipTheKernelsOwn(t *testing.T) {
	s := fakeProc(t, map[string]string{
		"net/tcp": `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15306 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0801 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 999 1 0000000000000000 20 4 30 10 -1
   2: 00000000:006F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0000000000000000 100 0 0 10 0
   3: short
   4: 00000000:xyz 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1
`,
		"net/tcp6": "   0: 00000000000000000000000000000000:0801 0:0 0A 0:0 00:0 0 0 0 0 1\n",
		"net/udp":  "   0: 00000000:0801 00000000:0000 07 0:0 00:0 0 0 0 42 2\n",
	})
	inodes, err := s.PortInodes(Port{"tcp", 2049})
	require.NoError(t, err)
	require.Equal(t, []uint64{15306}, inodes)
	inodes, err = s.PortInodes(Port{"udp", 2049})
	require.NoError(t, err)
	require.Equal(t, []uint64{42}, inodes)
}

func TestSwitchesCountsBothKinds(t *testing.T) {
	require.Equal(t, uint64(695), switches("Name:\tnfsd\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n"))
	require.Zero(t, switches("voluntary_ctxt_switches:\tmany\nno colon"))
	a, err := Server{}.Activity(os.Getpid())
	require.NoError(t, err)
	require.NotZero(t, a.Switches)
	_, err = fakeProc(t, nil).Activity(1)
	require.True(t, errors.Is(err, fs.ErrNotExist))
}

func TestAProcessIsKnownByItsEnvironmentNetworkAndFiles(t *testing.T) {
	s := fakeProc(t, map[string]string{"7/environ": "PATH=/bin\x00MARK=/data/nfs\x00MARKED=no\x00"})
	value, ok := s.Environ(7, "MARK")
	require.True(t, ok)
	require.Equal(t, "/data/nfs", value)
	for _, name := range []string{"MAR", "ARK", "NONE"} {
		_, ok = s.Environ(7, name)
		require.False(t, ok, name)
	}
	_, ok = s.Environ(8, "MARK")
	require.False(t, ok)

	named := fakeProc(t, map[string]string{"7/comm": "nfsdcld\n", "8/comm": "nfsdcld2\n", "9/comm": "nfsd\n", "10/stat": "", "self/comm": "nfsd\n"})
	pids, err := named.Named("nfsdcld", "nfsd")
	require.NoError(t, err)
	require.ElementsMatch(t, []int{7, 9}, pids)

	require.True(t, Server{}.SameNetwork(os.Getpid()))
	f, err := os.Create(filepath.Join(t.TempDir(), "held"))
	require.NoError(t, err)
	defer f.Close()
	files, err := Server{}.OpenFiles(os.Getpid())
	require.NoError(t, err)
	require.Contains(t, files, f.Name())
	_, err = s.OpenFiles(7)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func FuzzParsers(f *testing.F) {
	f.Add("+3 +4 -4.0")
	f.Add("tcp 2049\n/data\t*(rw)\n* 1 0x1 /a\\040")
	f.Fuzz(func(_ *testing.T, text string) {
		parseVersions(text)
		parsePorts(text)
		parseContent(text)
		switches(text)
		parseSockets(text, Port{"tcp", 2049})
		Unescape(text)
	})
}
