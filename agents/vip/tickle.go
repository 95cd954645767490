package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"baton/agents/internal/addresses"
	"baton/agents/internal/announce"
	"baton/agents/internal/atomicfile"
	"baton/agents/internal/sockdiag"
	"baton/ocf"
)

// connection is one recorded TCP connection of the address.
type connection struct {
	local, remote netip.AddrPort
}

// The record has one connection a line, local and remote address separated by
// a tab, as ocf:heartbeat:portblock writes it:
//
//	192.0.2.50:2049	198.51.100.7:812
//	[2001:db8::50]:2049	[2001:db8::7]:812

// maxRecord bounds what is read of a record: hundreds of thousands of lines.
const maxRecord = 16 << 20

// render is the content of the record, sorted, so that the same connections
// give the same bytes.
func render(connections []connection) []byte {
	lines := make([]string, 0, len(connections))
	for _, c := range connections {
		lines = append(lines, c.local.String()+"\t"+c.remote.String()+"\n")
	}
	slices.Sort(lines)
	return []byte(strings.Join(slices.Compact(lines), ""))
}

// parseConnections reads a record. Lines that are no connection of ip with
// another host are skipped: a torn or foreign line must not cost the others.
func parseConnections(data []byte, ip netip.Addr) []connection {
	var list []connection
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) != 2 {
			continue
		}
		local, err1 := netip.ParseAddrPort(fields[0])
		remote, err2 := netip.ParseAddrPort(fields[1])
		if err1 != nil || err2 != nil {
			continue
		}
		peer := remote.Addr()
		switch {
		case local.Addr() != ip, local.Port() == 0, remote.Port() == 0:
		case peer.Is4() != ip.Is4(), peer.Is4In6(), peer.Zone() != "", peer == ip:
		case !peer.IsGlobalUnicast() && !peer.IsLinkLocalUnicast():
			// Loopback, multicast, unspecified, 255.255.255.255: nobody to wake up there.
		default:
			list = append(list, connection{local, remote})
		}
	}
	return list
}

// halfOpen are the states in which the peer believes, or may believe, that the
// connection lives.
const halfOpen = 1<<sockdiag.Established | 1<<sockdiag.FinWait1 | 1<<sockdiag.FinWait2 | 1<<sockdiag.CloseWait

// list gives the connections of the address.
func list(cfg config) ([]sockdiag.Socket, error) {
	return sockdiag.List(sockdiag.Filter{Local: cfg.ip, States: halfOpen})
}

// record writes the connections down. A monitor's answer does not depend on it.
func (a agent) record(ctx context.Context, cfg config, c *ocf.Call) {
	if cfg.tickleDir == "" {
		return
	}
	sockets, err := list(cfg)
	if err == nil {
		err = a.send(ctx, c, cfg, errand{action: storeAction, now: true}, content(cfg, sockets)).wait(c)
	}
	notRecorded(c, err)
}

func notRecorded(c *ocf.Call, err error) {
	if err != nil {
		c.Log.Warn("the connections were not recorded: " + err.Error())
	}
}

// content is the record of these connections.
func content(cfg config, sockets []sockdiag.Socket) []byte {
	connections := make([]connection, 0, len(sockets))
	for _, s := range sockets {
		if s.Remote.Addr() != cfg.ip { // a client on this node itself
			connections = append(connections, connection{s.Local, s.Remote})
		}
	}
	return render(connections)
}

// makeTickleDir makes the directory, without its parents, where it is missing
// from storage of its own. On the root file system it is left missing: there, the
// storage that it belongs to is not mounted.
func makeTickleDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, errNotExist) {
		return err
	}
	var root, parent unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return &os.PathError{Op: "stat", Path: "/", Err: err}
	}
	if err := unix.Stat(filepath.Dir(dir), &parent); err != nil {
		return &os.PathError{Op: "stat", Path: filepath.Dir(dir), Err: err}
	}
	if parent.Dev == root.Dev {
		return fmt.Errorf("%s is missing, expected a directory on storage that moves with the address; is that mounted?", dir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(dir))
}

// recorded gives what the node has left that had the address before, as fetched meanwhile.
func recorded(c *ocf.Call, cfg config, fetched *pending) []connection {
	if fetched == nil {
		return nil
	}
	err := fetched.wait(c)
	var data []byte
	if err == nil {
		data, err = os.ReadFile(fetched.errand.local())
		_ = os.Remove(fetched.errand.local())
	}
	switch {
	case errors.Is(err, errNotExist): // there is none
	case err != nil:
		c.Log.Warn("the peers are not tickled: " + err.Error())
	}
	return parseConnections(data, cfg.ip)
}

func readRecord(path string) ([]byte, error) {
	// A pipe or device put there must not hang the start.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRecord {
		return nil, fmt.Errorf("%s: %v of %d bytes, expected a file of %d at most", path, info.Mode().Type(), info.Size(), maxRecord)
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if n == len(data) {
		err = nil
	}
	return data[:n], err
}

// tickleAll sends each peer one tickle ACK and gives how many went out. A peer
// that cannot be reached does not keep the others from theirs.
func tickleAll(a addresses.Addr, peers []connection) (sent int, err error) {
	t, err := announce.NewTickler(a.IP, a.Index)
	if err != nil {
		return 0, err
	}
	defer t.Close()
	var first error
	for _, p := range peers {
		if err := t.Tickle(p.local.Port(), p.remote); err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		sent++
	}
	return sent, first
}

// checkTickleDir is what validate-all can say: the storage may be on the other node now.
func checkTickleDir(dir string) []ocf.Problem {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return []ocf.Problem{{
			Param: "tickle_dir", Warning: true, Found: "cannot be read here: " + err.Error(),
			Expected: "a directory on storage that moves with the address, mounted before the address starts",
			Do:       "create it there, and order its file system before this resource",
		}}
	case !info.IsDir():
		return []ocf.Problem{{
			Param: "tickle_dir", Kind: ocf.BadConfig, Found: dir + " is not a directory", Expected: "a directory on storage that moves with the address",
			Do: "correct tickle_dir",
		}}
	}
	return nil
}
