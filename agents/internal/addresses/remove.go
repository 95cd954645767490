package addresses

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Remover takes addresses off an interface without harm to the others.
type Remover struct {
	// Sysctl is the root of the network settings; "/proc/sys/net" when empty.
	Sysctl string
}

// Remove takes exactly this entry off the interface: same address, prefix,
// label and interface. One that is not there is no error.
//
// IPv4 needs care. Of several addresses in one prefix the kernel calls the
// first primary and the others secondary, and when the primary goes it drops
// the secondaries with it, unless promote_secondaries is set (net/ipv4/devinet.c,
// __inet_del_ifa). An address that moved here early can be the primary of
// addresses that came later. So promotion is switched on for that moment, and
// what should be lost all the same is put back.
func (r Remover) Remove(a Addr) error {
	dependent, err := secondariesOf(a)
	if err != nil {
		return err
	}
	if len(dependent) == 0 {
		return remove(a)
	}
	restore := r.promote(a.Index)
	err = remove(a)
	restore()
	return errors.Join(err, putBack(a, dependent))
}

// secondariesOf lists the addresses that go with a, in the kernel's order.
func secondariesOf(a Addr) ([]Addr, error) {
	if !a.IP.Is4() {
		return nil, nil
	}
	all, err := List(a.IP)
	if err != nil {
		return nil, err
	}
	return dependents(a, all), nil
}

// dependents is the rule of __inet_del_ifa: the same interface, the same mask,
// the same network.
func dependents(a Addr, all []Addr) []Addr {
	var found []Addr
	primary := false
	for _, other := range all {
		switch {
		case other.Index != a.Index || other.Bits != a.Bits || other.Prefix() != a.Prefix():
		case other.IP == a.IP:
			primary = !other.Secondary()
		case other.Secondary():
			found = append(found, other)
		}
	}
	if !primary {
		return nil
	}
	return found
}

// promote sets promote_secondaries of the interface and gives the way back.
// Failing is no error: where /proc/sys is read-only, putBack does the work. A
// lock on the setting's own file keeps two agents that stop at the same moment
// from restoring it under each other.
func (r Remover) promote(index int) (restore func()) {
	nothing := func() {}
	root := r.Sysctl
	if root == "" {
		root = "/proc/sys/net"
	}
	link, err := LinkByIndex(index)
	if err != nil {
		return nothing
	}
	// No interface name holds a slash or is ".." (net/core/dev.c, dev_valid_name).
	f, err := os.OpenFile(filepath.Join(root, "ipv4/conf", link.Name, "promote_secondaries"), os.O_RDWR, 0)
	if err != nil {
		return nothing
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nothing
	}
	old := make([]byte, 16)
	n, _ := f.ReadAt(old, 0) // ends with io.EOF, the file being shorter than the buffer
	if n == 0 || strings.TrimSpace(string(old[:n])) != "0" {
		_ = f.Close() // set already, or not readable
		return nothing
	}
	if _, err = f.WriteAt([]byte("1"), 0); err != nil {
		_ = f.Close()
		return nothing
	}
	return func() {
		_, _ = f.WriteAt([]byte("0"), 0)
		_ = f.Close()
	}
}

// putBack adds those that are gone.
func putBack(a Addr, dependent []Addr) error {
	now, err := List(a.IP)
	if err != nil {
		return err
	}
	there := make(map[entry]bool, len(now))
	for _, n := range now {
		there[n.entry()] = true
	}
	var failed []error
	for _, d := range dependent {
		if there[d.entry()] {
			continue
		}
		d.Flags &^= FlagSecondary
		if err := Add(d); err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// entry is what tells two addresses of a host apart.
type entry struct {
	ip          string
	bits, index int
}

func (a Addr) entry() entry { return entry{a.IP.String(), a.Bits, a.Index} }
