package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"baton/agents/internal/addresses"
	"baton/agents/internal/mfsmeta"
	"baton/agents/internal/mfsproto"
	"baton/agents/internal/process"
	"baton/ocf"
)

// look sees how the master is doing, without starting a process and without changing anything.
// patience bounds the wait for its answer. An error means that the state could not be read.
func (a *agent) look(ctx context.Context, patience time.Duration) (sighting, error) {
	var s sighting
	var err error
	if s.master, err = mfsmeta.LockOwner(a.dataDir, mfsmeta.MasterLock); err != nil {
		return s, a.unreadable(err)
	}
	if s.writer, err = mfsmeta.LockOwner(a.dataDir, mfsmeta.WriterLock); err != nil {
		return s, a.unreadable(err)
	}
	if s.master > 0 {
		s.process, err = a.processes.Get(s.master)
		if err != nil && !errors.Is(err, process.ErrGone) {
			return s, a.unreadable(err)
		}
	}
	s.free = 1
	if free, _, err := mfsmeta.Space(a.dataDir); err == nil {
		s.free = free
	}
	a.ask(ctx, patience, &s)
	if s.master != 0 && s.reply == answered {
		return s, nil // the process table, which costs most, has nothing to add
	}
	if s.ours, s.others, err = a.holders(); err != nil {
		return s, a.unreadable(err)
	}
	if s.master != 0 {
		_, err := os.Lstat(filepath.Join(a.dataDir, "metadata.mfs"))
		s.loading = err == nil
	}
	return s, nil
}

// unreadable: the state is unknown, which is never "stopped".
func (a *agent) unreadable(err error) error {
	kind := ocf.Failed
	if errors.Is(err, fs.ErrPermission) {
		kind = ocf.NoPermission
	}
	return &ocf.Error{
		Kind: kind, Object: a.dataDir, Found: "the state of the master cannot be read", Err: err,
		Do: "run the agent as root and check the data directory",
	}
}

// ask talks to the master's port.
func (a *agent) ask(ctx context.Context, patience time.Duration, s *sighting) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if a.elsewhere(ctx) {
		// Who answers there is another node's master, with the same configuration.
		s.reply, s.elsewhere, s.replyError = refused, true, fmt.Errorf("no interface of this node has the address of %s", a.address)
		return
	}
	s.replyError = interview(ctx, a.address, s)
	var local error
	switch err := s.replyError; {
	case err == nil:
		s.reply = answered
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EADDRNOTAVAIL),
		errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		s.reply = refused
	case errors.Is(err, mfsproto.ErrProtocol):
		s.reply = strange
	default:
		s.reply, local = silent, err
	}
	if s.reply == silent && errors.Is(local, context.DeadlineExceeded) {
		s.replyError = fmt.Errorf("no answer on %s within %v", a.address, patience.Round(100*time.Millisecond))
	}
}

// elsewhere says that the master's address is none of this node's: it listens on the service address
// (MATOCL_LISTEN_HOST), and that is on another node. Where it cannot be told, the answer is no.
func (a *agent) elsewhere(ctx context.Context) bool {
	host, _, err := net.SplitHostPort(a.address)
	if err != nil {
		return false
	}
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip)
	} else if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
		return false
	}
	for _, ip := range ips {
		if ip.IsLoopback() {
			return false
		}
		if found, err := addresses.Find(ip.Unmap().WithZone("")); err != nil || len(found) > 0 {
			return false
		}
	}
	return len(ips) > 0
}

// interview asks for version, identity and directory: all three, since a port alone proves nothing.
func interview(ctx context.Context, address string, s *sighting) error {
	client, err := mfsproto.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer client.Close()
	if s.info, err = client.Info(); err != nil {
		return err
	}
	if s.info.Version.Less(1, 7, 0) {
		// 1.6 answers neither; the lock says whose it is.
		s.dataPath = ""
		return nil
	}
	if s.module, err = client.Module(); err != nil {
		return err
	}
	if s.dataPath, err = client.Config("DATA_PATH"); err != nil {
		return err
	}
	if s.dataPath == "" {
		s.dataPath = mfsmeta.DefaultDataPath
	}
	s.dataPath = filepath.Clean(s.dataPath)
	return nil
}

// holders are the processes that keep the data directory busy: MooseFS's own and others'. A
// process counts as MooseFS's if it runs a program of that name or shows its title, such as
// "mfsmaster (metadata saver)"; the shell of an administrator in the directory is none. Nor is a
// process of a container: the kernel tells its directories by the names that they have there, which
// may be another's here. A master in a container that does work in our directory holds its lock.
func (a *agent) holders() (ours, others []process.Holder, err error) {
	// The kernel names files without the links that lead to the data directory.
	dir, err := resolved(a.dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list, err := a.processes.Holders(dir)
	var hidden *process.HiddenError
	if errors.As(err, &hidden) && os.Geteuid() == 0 {
		a.call.Log.Debug(hidden.Error())
		err = nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, h := range list {
		if isMaster(h.Process) && !a.processes.Contained(h.PID) {
			ours = append(ours, h)
		} else {
			others = append(others, h)
		}
	}
	return ours, others, nil
}

// resolved is the path without links. Where a disk that has failed does not tell any more what lies on
// it, the names below stand for themselves.
func resolved(path string) (string, error) {
	dir, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, syscall.EIO) || path == filepath.Dir(path) {
		return dir, err
	}
	dir, err = resolved(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

func isMaster(p process.Process) bool {
	return p.Comm == "mfsmaster" || strings.HasPrefix(p.Title(), "mfsmaster ") || filepath.Base(p.Exe) == "mfsmaster"
}

func isMetalogger(p process.Process) bool {
	return p.Comm == "mfsmetalogger" || filepath.Base(p.Exe) == "mfsmetalogger"
}

// strays are masters of this configuration that hold the data directory no longer by its name:
// it was unmounted lazily, or never mounted here. They are found by their command line.
func (a *agent) strays() ([]process.Process, error) {
	return startedWith(a.processes, a.config.Path)
}
