package netnstest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inode tells network namespaces apart.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	return st.Ino
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	n := New(t, "node")
	var home, inside, after uint64
	home = inode(t, "/proc/thread-self/ns/net")
	n.Do(t, func() { inside = inode(t, "/proc/thread-self/ns/net") })
	after = inode(t, "/proc/thread-self/ns/net")
	require.NotEqual(t, home, inside)
	require.Equal(t, inode(t, n.Path()), inside)
	require.Equal(t, home, after)
}

func TestVethConnectsAndLosesCarrier(t *testing.T) {
	node, client := New(t, "node"), New(t, "client")
	node.Veth(t, "eth0", client, "eth0")
	node.AddAddr(t, "eth0", "192.0.2.1/24")
	require.Equal(t, []string{"192.0.2.1/24 eth0"}, node.Addrs(t, "eth0", false))
	require.NotEqual(t, node.MAC(t, "eth0"), client.MAC(t, "eth0"))

	state := func() (s netlink.LinkOperState) {
		node.Do(t, func() { s = node.link(t, "eth0").Attrs().OperState })
		return s
	}
	Eventually(t, "eth0 is up", func() bool { return state() == netlink.OperUp })
	client.Down(t, "eth0")
	Eventually(t, "eth0 lost its carrier", func() bool { return state() == netlink.OperLowerLayerDown || state() == netlink.OperDown })
}

func TestCaptureSeesWhatArrives(t *testing.T) {
	node, client := New(t, "node"), New(t, "client")
	node.Veth(t, "eth0", client, "eth0")
	c := client.Capture(t, "eth0")
	node.Do(t, func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
		require.NoError(t, err)
		defer func() { _ = unix.Close(fd) }()
		to := &unix.SockaddrLinklayer{Protocol: 0xb588, Ifindex: node.link(t, "eth0").Attrs().Index, Halen: 6}
		for i := range 6 {
			to.Addr[i] = 0xff
		}
		require.NoError(t, unix.Sendto(fd, []byte("hello"), 0, to))
	})
	mine := func(f Frame) bool { return f.Ethertype == 0x88b5 }
	Eventually(t, "the frame arrived", func() bool { return len(c.Frames(mine)) == 1 })
	f := c.Frames(mine)[0]
	require.Equal(t, "hello", string(f.Payload))
	require.Equal(t, node.MAC(t, "eth0"), f.Source.String())
}

func TestBindMakesTheNamespaceReachableByPath(t *testing.T) {
	n := New(t, "node")
	path := filepath.Join(t.TempDir(), "netns", "blue")
	t.Run("while bound", func(t *testing.T) {
		n.Bind(t, path)
		require.Equal(t, inode(t, n.Path()), inode(t, path))
	})
	_, err := os.Stat(path)
	require.ErrorIs(t, err, os.ErrNotExist)
}
