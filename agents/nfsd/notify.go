package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/rpc"
)

// The notices to the lock clients of NFSv3 are sent from here and not by sm-notify, because that
//   - takes the lists away from a second address: its run for that one finds them empty and ends
//     lockd's grace period, and clients that know the server by it lose their locks unheard,
//   - refuses to work from an address that has no name in the DNS or /etc/hosts,
//   - takes for told, and off the list of the next move, who came between statd's start and it.
//
// The protocol is that of the Network Status Monitor (Open Group, Protocols for Interworking: XNFS,
// chapter 11): one call of SM_NOTIFY, whose argument is the name of the restarted host and its new
// state number. The statd of Linux goes by either the name or the sender's address.
const smNotify = 6

// retireClients moves statd's list of lock clients, sm, to those that are to be told of the
// restart, sm.bak, before statd starts: what is in sm from then on is new. The state number, by
// which clients tell a restart from a repeated notice, goes up: odd means that the server is up.
func (a *agent) retireClients(base string) error {
	from, to := filepath.Join(base, "sm"), filepath.Join(base, "sm.bak")
	fresh, err := listed(from)
	if err != nil {
		return err
	}
	for _, host := range fresh {
		if err := os.Rename(filepath.Join(from, host), filepath.Join(to, host)); err != nil {
			return err
		}
	}
	all, err := listed(to)
	if err != nil || len(all) == 0 {
		return err
	}
	state, err := nsmState(base)
	if err != nil {
		return err
	}
	state += 1 + state%2
	if err := atomicfile.Write(filepath.Join(base, "state"), binary.NativeEndian.AppendUint32(nil, state), 0o644); err != nil {
		return err
	}
	// The client's name is in sm.bak for sure before it is gone from sm: rename did both at once.
	return errors.Join(atomicfile.SyncDir(to), atomicfile.SyncDir(from))
}

// nsmState reads statd's file: one number in the machine's byte order (nsm_get_state in nfs-utils
// support/nsm/file.c). A missing or torn one counts as 0.
func nsmState(base string) (uint32, error) {
	text, err := os.ReadFile(filepath.Join(base, "state"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(text) < 4 {
		return 0, ignoreMissing(err)
	}
	return binary.NativeEndian.Uint32(text), nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// listed are the hosts of a list: a file for each, named after it; statd writes it as NAME.new.
func listed(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") && !strings.HasSuffix(e.Name(), ".new") {
			hosts = append(hosts, e.Name())
		}
	}
	return hosts, nil
}

// addressWait is how long the service address may take to come up behind the server, addressPoll
// how often it is looked for.
const (
	addressWait = 10 * time.Minute
	addressPoll = 100 * time.Millisecond
)

// notices are the calls to be made after one restart.
type notices struct {
	*agent
	duty
	dir   string // sm.bak
	state uint32
	hosts []string

	mu   sync.Mutex
	left map[string]int  // from how many addresses the host is still to be told
	told map[string]bool // from one at least
}

// notifyClients tells the lock clients of NFSv3 that the server has restarted, from each service
// address, for they know the server by it. Who was told stays no longer on the list; the others
// are told again after the next start.
func (a *agent) notifyClients(ctx context.Context, d duty) error {
	if !d.Notify {
		return nil
	}
	n := &notices{agent: a, duty: d, dir: filepath.Join(d.Lists, "sm.bak"), left: map[string]int{}, told: map[string]bool{}}
	var err error
	if n.hosts, err = listed(n.dir); err != nil {
		return err
	}
	if n.state, err = nsmState(d.Lists); err != nil {
		return err
	}
	sources := d.Sources
	if len(sources) == 0 {
		sources = []netip.Addr{{}}
	}
	for _, host := range n.hosts {
		n.left[host] = len(sources)
	}
	failed := make([]error, len(sources))
	var group sync.WaitGroup
	for i, source := range sources {
		group.Go(func() { failed[i] = n.from(ctx, source) })
	}
	group.Wait()
	a.Log.Info(fmt.Sprintf("%d of %d lock clients of NFSv3 told of the restart", len(n.told), len(n.hosts)))
	if ctx.Err() == nil { // else stop has ended us
		err = errors.Join(failed...)
	}
	return err
}

// from makes the calls from one service address, once it is up.
func (n *notices) from(ctx context.Context, source netip.Addr) error {
	names := n.names(ctx, source)
	if source.IsValid() {
		wait, cancel := context.WithTimeout(ctx, addressWait)
		defer cancel()
		if err := pollEach(wait, addressPoll, func() (bool, error) { return n.hasAddress(source), nil }); err != nil {
			return fmt.Errorf("lock clients were not notified from %v, which did not come up: %w", source, err)
		}
	}
	socket, err := rpc.Listen(source, n.Out)
	if errors.Is(err, unix.EADDRINUSE) && n.Out > 0 {
		n.Log.Warn(fmt.Sprintf("lock clients are notified from another port: port %d is in use", n.Out))
		socket, err = rpc.Listen(source, 0)
	}
	if err != nil {
		return fmt.Errorf("lock clients were not notified from %v: %w", source, err)
	}
	defer socket.Close()
	socket.Mapper = n.sys.mapper
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.Retry)*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for _, host := range n.hosts {
		group.Go(func() { n.tell(ctx, socket, source, host, names) })
	}
	group.Wait()
	return nil
}

// names are what the clients may know the server by: its address, and the name of that, where it
// has one, for clients that go by names alone.
func (n *notices) names(ctx context.Context, source netip.Addr) []string {
	if !source.IsValid() {
		name, err := os.Hostname()
		if err != nil {
			n.Log.Warn(err.Error())
		}
		return []string{name}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	names := []string{source.String()}
	found, err := net.DefaultResolver.LookupAddr(ctx, source.String())
	if err == nil && len(found) > 0 {
		names = append(names, strings.TrimSuffix(found[0], "."))
	}
	return names
}

// The pauses between two attempts to tell a host grow from the first to the last.
const firstPause, lastPause = time.Second, time.Minute

// tell tries until the host has answered, or the time is over.
func (n *notices) tell(ctx context.Context, socket *rpc.Socket, source netip.Addr, host string, names []string) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		reachable, err := n.try(ctx, socket, source, host, names)
		if err == nil {
			n.done(host, reachable)
			return
		}
		n.Log.Debug(fmt.Sprintf("lock client %s: %v", host, err))
		select {
		case <-ctx.Done():
			n.Log.Warn(fmt.Sprintf("lock client %s has not been told of the restart and stays on the list: %v", host, err))
			return
		case <-time.After(pause):
		}
	}
}

// try tells the host once. One that has no address of the source's family cannot know the server
// by it.
func (n *notices) try(ctx context.Context, socket *rpc.Socket, source netip.Addr, host string, names []string) (reachable bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return false, err
	}
	var failed error
	for _, addr := range found {
		addr = addr.Unmap()
		if source.IsValid() && addr.Is4() != source.Is4() {
			continue
		}
		if failed = n.call(ctx, socket, addr, names); failed == nil {
			return true, nil
		}
	}
	return false, failed
}

func (n *notices) call(ctx context.Context, socket *rpc.Socket, addr netip.Addr, names []string) error {
	port, err := socket.Port(ctx, addr, rpc.Status, 1)
	if err != nil {
		return err
	}
	if port == 0 {
		return errors.New("its statd is not registered with its rpcbind")
	}
	for _, name := range names {
		args := append(rpc.String(name), rpc.Uint32(n.state)...)
		if _, err := socket.Call(ctx, netip.AddrPortFrom(addr, uint16(port)), rpc.Status, 1, smNotify, args); err != nil {
			return err
		}
	}
	return nil
}

// done takes the host off the list when it has been told from each address.
func (n *notices) done(host string, reachable bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left[host]--
	if reachable {
		n.told[host] = true
	}
	if n.left[host] > 0 || !n.told[host] {
		return
	}
	if err := os.Remove(filepath.Join(n.dir, host)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.Log.Warn("a lock client stays on the list: " + err.Error())
	}
}
