// Package netnstest gives tests network namespaces of their own, so that they
// can add addresses, cut links and send gratuitous ARP without touching the
// machine they run on. It is imported by tests only.
//
// A namespace belongs to a thread, not to a goroutine: everything that is to
// happen inside one happens in the function given to Do, on the goroutine that
// called it. Sockets opened there stay in the namespace and can be used from
// anywhere; child processes started there live in it.
package netnstest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NS is one network namespace. It ends with the test that made it and with the
// last process inside it.
type NS struct {
	// Name is for messages: "node", "client".
	Name string
	file *os.File
}

// New makes an empty namespace with lo up. It skips the test where the kernel
// does not allow it: not root, or a sandbox without namespaces.
func New(t testing.TB, name string) *NS {
	t.Helper()
	n, err := create()
	if err != nil {
		t.Skipf("network namespaces are not to be had here: %v", err)
	}
	n.Name = name
	t.Cleanup(func() { _ = n.file.Close() })
	n.Do(t, func() {
		// Duplicate address detection stays on, but does not begin with a random
		// delay of up to a second (net.ipv6.conf.*.router_solicitation_delay).
		n.sysctl(t, "ipv6/conf/default/router_solicitation_delay", "0")
		n.sysctl(t, "ipv6/conf/default/accept_ra", "0")
		// The kernel of the machine hands its own defaults down; tests start from the kernel's.
		n.sysctl(t, "ipv4/conf/all/promote_secondaries", "0")
		n.sysctl(t, "ipv4/conf/default/promote_secondaries", "0")
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatalf("netns %s: lo: %v", name, err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Fatalf("netns %s: lo up: %v", name, err)
		}
	})
	return n
}

// create unshares on a thread of its own, which ends right after.
func create() (*NS, error) {
	type result struct {
		n   *NS
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{err: os.NewSyscallError("unshare", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		done <- result{n: &NS{file: f}, err: err}
	}()
	r := <-done
	return r.n, r.err
}

// Path names the namespace for setns and for bind mounts; it is valid in this
// process only.
func (n *NS) Path() string { return fmt.Sprintf("/proc/self/fd/%d", n.file.Fd()) }

// Bind mounts the namespace at path, as `ip netns` does under /run/netns, for
// programs that enter it by name.
func (n *NS) Bind(t testing.TB, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(n.Path(), path, "none", unix.MS_BIND, ""); err != nil {
		t.Fatalf("bind %s: %v", path, err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(path, unix.MNT_DETACH)
		_ = os.Remove(path)
	})
}

// Do runs fn on the calling goroutine inside the namespace and comes back,
// also when fn ends the test.
func (n *NS) Do(t testing.TB, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = home.Close() }()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatalf("netns %s: setns: %v", n.Name, err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // this thread would run other tests in the wrong namespace
		}
	}()
	fn()
}

// Sysctl writes below /proc/sys/net of the namespace, for example
// ("ipv4/conf/eth0/promote_secondaries", "1").
func (n *NS) Sysctl(t testing.TB, key, value string) {
	t.Helper()
	n.Do(t, func() { n.sysctl(t, key, value) })
}

func (n *NS) sysctl(t testing.TB, key, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0o600); err != nil {
		t.Fatalf("netns %s: %v", n.Name, err)
	}
}

// Veth connects two namespaces by a cable: name here, peerName there, both up.
func (n *NS) Veth(t testing.TB, name string, peer *NS, peerName string) {
	t.Helper()
	n.Do(t, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(int(peer.file.Fd())),
		})
		if err != nil {
			t.Fatalf("netns %s: veth %s: %v", n.Name, name, err)
		}
	})
	n.Up(t, name)
	peer.Up(t, peerName)
}

// Bridge makes a switch in this namespace with the given interfaces as ports.
func (n *NS) Bridge(t testing.TB, name string, ports ...string) {
	t.Helper()
	n.Do(t, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(bridge); err != nil {
			t.Fatalf("netns %s: bridge %s: %v", n.Name, name, err)
		}
		for _, p := range ports {
			if err := netlink.LinkSetMaster(n.link(t, p), bridge); err != nil {
				t.Fatalf("netns %s: port %s: %v", n.Name, p, err)
			}
		}
		if err := netlink.LinkSetUp(bridge); err != nil {
			t.Fatal(err)
		}
	})
}

func (n *NS) link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("netns %s: link %s: %v", n.Name, name, err)
	}
	return l
}

// Up sets the interface up; Down takes it down, so that the other end of a
// veth loses its carrier; Delete removes it with its peer.
func (n *NS) Up(t testing.TB, name string) {
	t.Helper()
	n.Do(t, func() {
		if err := netlink.LinkSetUp(n.link(t, name)); err != nil {
			t.Fatal(err)
		}
	})
}

// Down takes the interface down.
func (n *NS) Down(t testing.TB, name string) {
	t.Helper()
	n.Do(t, func() {
		if err := netlink.LinkSetDown(n.link(t, name)); err != nil {
			t.Fatal(err)
		}
	})
}

// Delete removes the interface.
func (n *NS) Delete(t testing.TB, name string) {
	t.Helper()
	n.Do(t, func() {
		if err := netlink.LinkDel(n.link(t, name)); err != nil {
			t.Fatal(err)
		}
	})
}

// MAC gives the hardware address of the interface, as net.HardwareAddr prints it.
func (n *NS) MAC(t testing.TB, name string) (mac string) {
	t.Helper()
	n.Do(t, func() { mac = n.link(t, name).Attrs().HardwareAddr.String() })
	return mac
}

// AddAddr adds an address such as "192.0.2.1/24" to the interface. IPv6
// addresses are added without duplicate address detection.
func (n *NS) AddAddr(t testing.TB, name, cidr string) {
	t.Helper()
	n.Do(t, func() {
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(n.link(t, name), a); err != nil {
			t.Fatalf("netns %s: add %s to %s: %v", n.Name, cidr, name, err)
		}
	})
}

// DelAddr removes the address from the interface.
func (n *NS) DelAddr(t testing.TB, name, cidr string) {
	t.Helper()
	n.Do(t, func() {
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrDel(n.link(t, name), a); err != nil {
			t.Fatalf("netns %s: delete %s from %s: %v", n.Name, cidr, name, err)
		}
	})
}

// Addrs lists the addresses of the interface in the kernel's order, as
// "192.0.2.1/24 eth0", with " secondary", " tentative", " dadfailed" or
// " deprecated" behind when the flag is set. Link-local IPv6 addresses that the
// kernel made itself are left out unless all is true.
func (n *NS) Addrs(t testing.TB, name string, all bool) (list []string) {
	t.Helper()
	n.Do(t, func() {
		addrs, err := netlink.AddrList(n.link(t, name), netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if !all && a.Label == "" && a.IP.IsLinkLocalUnicast() {
				continue
			}
			s := a.String()
			for _, f := range []struct {
				bit  int
				name string
			}{
				{unix.IFA_F_SECONDARY, "secondary"},
				{unix.IFA_F_TENTATIVE, "tentative"},
				{unix.IFA_F_DADFAILED, "dadfailed"},
				{unix.IFA_F_DEPRECATED, "deprecated"},
			} {
				// IFA_F_SECONDARY is IFA_F_TEMPORARY for IPv6 (if_addr.h).
				if a.Flags&f.bit != 0 && (f.name != "secondary" || a.IP.To4() != nil) {
					s += " " + f.name
				}
			}
			list = append(list, s)
		}
	})
	return list
}

// Eventually polls cond every millisecond and fails the test with what when it
// does not become true within five seconds. It runs on the calling goroutine,
// so that it can be used inside Do.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("not within 5 s: %s", what)
		case <-again.C:
		}
	}
}

// AltName gives the interface an alternative name.
func (n *NS) AltName(t testing.TB, name, alt string) {
	t.Helper()
	n.Do(t, func() {
		if err := netlink.LinkAddAltName(n.link(t, name), alt); err != nil {
			t.Fatal(err)
		}
	})
}

// AddTentative adds an IPv6 address with duplicate address detection.
func (n *NS) AddTentative(t testing.TB, name, cidr string) {
	t.Helper()
	n.Do(t, func() {
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(n.link(t, name), a); err != nil {
			t.Fatalf("netns %s: add %s to %s: %v", n.Name, cidr, name, err)
		}
	})
}
