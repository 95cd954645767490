package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/agents/internal/addresses"
	"baton/agents/internal/announce"
	"baton/ocf"
)

// repeatAction is the action that the detached announcer is started with.
const repeatAction = "announce-repeat"

// announceNow announces the entry n times in a row.
func announceNow(e entry, n int) error {
	a, err := announce.NewAnnouncer(announceOn(e.link), e.IP, isRouter(e.link.Name))
	if err != nil {
		return err
	}
	defer a.Close()
	for range n {
		if err := a.Announce(); err != nil {
			return err
		}
	}
	return nil
}

// isRouter tells whether this host forwards the IPv6 packets of the interface.
func isRouter(nic string) bool {
	b, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", nic, "forwarding"))
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// tell announces an address that has just been added, wakes the peers of the
// node that had it before, and sees to it that both are repeated. The address
// is up: whatever fails here is logged and fails nothing.
func (a agent) tell(ctx context.Context, c *ocf.Call, cfg config, e entry, fetched *pending) error {
	warn := func(what string, err error) {
		if err != nil {
			c.Log.Warn(what + ": " + err.Error())
		}
	}
	announced := e.link.CanAnnounce()
	switch {
	case announced:
		warn("the address was not announced", announceNow(e, 1))
	case !e.link.IsLoopback():
		c.Log.Info("not announced: interface " + e.link.Name + " has no neighbors that resolve addresses")
	}
	peers := recorded(c, cfg, fetched)
	if len(peers) > 0 {
		n, err := tickleAll(e.Addr, peers)
		warn("not all peers were tickled", err)
		c.Log.Info(fmt.Sprintf("tickled %d of the %d recorded peers", n, len(peers)))
	}
	if !announced && len(peers) == 0 {
		return nil
	}
	if !cfg.background {
		return a.repeatHere(ctx, c, cfg, e, peers)
	}
	warn("the announcements are not repeated", a.repeatDetached(ctx, c, cfg, e, peers))
	return nil
}

// repeatHere is arp_bg=false: the start itself sends all announcements.
func (a agent) repeatHere(ctx context.Context, c *ocf.Call, cfg config, e entry, peers []connection) error {
	c.Waiting("the announcements of %s", e.where())
	defer c.Waiting("")
	job := repetition{ip: cfg.ip, index: e.Index, count: cfg.count, interval: cfg.interval}
	err := job.run(ctx, time.Now(), job.burst(), peers)
	if err != nil && ctx.Err() == nil {
		c.Log.Warn("the announcements were not repeated: " + err.Error())
	}
	return ctx.Err()
}

// repeatDetached starts a process of this agent that outlives the action, in a
// session of its own: Pacemaker must neither wait for it nor kill it with the
// action's process group. It ends by itself within seconds, and stop ends it
// before it takes the address away.
func (a agent) repeatDetached(ctx context.Context, c *ocf.Call, cfg config, e entry, peers []connection) error {
	if err := a.endAnnouncer(ctx, c); err != nil {
		return err
	}
	dir, err := c.Records()
	if err != nil {
		return err
	}
	job := repetition{ip: cfg.ip, index: e.Index, count: cfg.count, interval: cfg.interval, lock: helperFile(dir, cfg, "announcer")}
	if len(peers) > 0 {
		// The record itself is soon written anew, by this node's first monitor.
		job.peers = job.lock + ".peers"
		if err := os.WriteFile(job.peers, render(peers), 0o600); err != nil {
			return err
		}
	}
	_, err = a.detach(append([]string{repeatAction}, job.args()...)...)
	return err
}

// helperFile is the file whose lock the announcer or the recorder of the address holds.
func helperFile(dir string, cfg config, helper string) string {
	name := "vip-" + cfg.ip.String()
	if cfg.namespace != "" {
		name += "@" + cfg.namespace
	}
	return filepath.Join(dir, name+"."+helper)
}

// announcedHere reports whether the address was started on this node since the boot.
func announcedHere(c *ocf.Call, cfg config) bool {
	_, err := os.Lstat(announcerFile(c, cfg))
	return err == nil
}

// announcerFile is the announcer's lock file. Not by Records: what is not there need not be made to
// find nothing in it.
func announcerFile(c *ocf.Call, cfg config) string {
	return helperFile(filepath.Join(c.Env.RscTmp, "baton"), cfg, "announcer")
}

// repetition is what the detached announcer is told.
type repetition struct {
	ip       netip.Addr
	index    int
	count    int
	interval time.Duration
	// lock is the file to hold a lock on; peers a file of connections to tickle, or "".
	lock, peers string
}

// args and parseRepetition are the command line of the detached announcer.
func (r repetition) args() []string {
	return []string{
		r.ip.String(), strconv.Itoa(r.index), strconv.Itoa(r.count), r.interval.String(), r.lock, r.peers,
	}
}

func parseRepetition(args []string) (r repetition, err error) {
	if len(args) != 6 {
		return r, fmt.Errorf("%d arguments, expected 6: IP, interface number, count, interval, lock file, peers file", len(args))
	}
	if r.ip, err = netip.ParseAddr(args[0]); err != nil {
		return r, err
	}
	if r.index, err = strconv.Atoi(args[1]); err != nil {
		return r, err
	}
	if r.count, err = strconv.Atoi(args[2]); err != nil {
		return r, err
	}
	r.interval, err = time.ParseDuration(args[3])
	r.lock, r.peers = args[4], args[5]
	return r, err
}

// step is something to send, so long after the first announcement.
type step struct {
	at               time.Duration
	announce, tickle bool
}

// burst are the announcements of arp_count and arp_interval but the first,
// which start has sent.
func (r repetition) burst() []step {
	var steps []step
	for i := 1; i < r.count; i++ {
		steps = append(steps, step{at: time.Duration(i) * r.interval, announce: true})
	}
	return steps
}

// schedule is the burst with what comes later. Late announcements reach
// switch ports that began to forward after the burst (RSTP takes a few seconds)
// and kernels that took only one announcement a second (Linux's locktime,
// before 4.14). Tickles are repeated since one may have been lost while
// switches and neighbors were learning.
func (r repetition) schedule() []step {
	steps := r.burst()
	var end time.Duration
	if len(steps) > 0 {
		end = steps[len(steps)-1].at
	}
	for _, later := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
		steps = append(steps, step{at: end + later, announce: true})
	}
	if r.peers != "" {
		for _, at := range []time.Duration{500 * time.Millisecond, 2 * time.Second} {
			steps = append(steps, step{at: at, tickle: true})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	return steps
}

// repeatAnnouncements is the detached process.
func (a agent) repeatAnnouncements(ctx context.Context, _ *ocf.Call, args []string) error {
	begin := time.Now()
	job, err := parseRepetition(args)
	if err != nil {
		return err
	}
	lock, err := takeLock(job.lock)
	if err != nil {
		return err
	}
	defer lock.Close()
	var peers []connection
	if job.peers != "" {
		data, err := os.ReadFile(job.peers)
		if err != nil {
			return err
		}
		peers = parseConnections(data, job.ip)
		_ = os.Remove(job.peers)
	}
	err = job.run(ctx, begin, job.schedule(), peers)
	if errors.Is(err, context.Canceled) {
		return nil // told to end
	}
	return err
}

// run sends each step at its time. Before each it looks whether the address is
// still here: an announcement of an address that has moved on would take it
// away from the node that has it now.
func (r repetition) run(ctx context.Context, begin time.Time, steps []step, peers []connection) error {
	for _, s := range steps {
		timer := time.NewTimer(time.Until(begin.Add(s.at)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		e, ok, err := r.find()
		if err != nil || !ok {
			return err
		}
		if s.announce && e.link.CanAnnounce() {
			if err := announceNow(e, 1); err != nil {
				return err
			}
		}
		if s.tickle {
			if _, err := tickleAll(e.Addr, peers); err != nil {
				return err
			}
		}
	}
	return nil
}

// find gives the entry to announce; ok is false when it has gone.
func (r repetition) find() (e entry, ok bool, err error) {
	found, err := addresses.Find(r.ip)
	if err != nil {
		return entry{}, false, err
	}
	for _, a := range found {
		if a.Index != r.index {
			continue
		}
		link, err := addresses.LinkByIndex(a.Index)
		if errors.Is(err, addresses.ErrNoLink) {
			return entry{}, false, nil
		}
		return entry{Addr: a, link: link}, err == nil, err
	}
	return entry{}, false, nil
}

// takeLock locks the file for this process. It is a POSIX record lock: it ends
// with the process, and the kernel names its holder (fcntl(2), F_GETLK). So
// there is no record of a process id that could have come to belong to another.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: another process is at work: %w", path, err)
	}
	return f, nil
}

// lockHolder gives the process that holds the lock on f, 0 for none.
func lockHolder(f *os.File) (pid int, err error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, os.NewSyscallError("F_GETLK", err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// announcerEnd is how long a killed announcer may take to end.
const announcerEnd = 3 * time.Second

// endAnnouncer ends the detached announcer of the address, if one is at work,
// and returns when it has ended: a stopped address must not be announced.
func (a agent) endAnnouncer(ctx context.Context, c *ocf.Call) error {
	cfg, _ := parse(c.Params)
	f, err := os.OpenFile(announcerFile(c, cfg), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, errNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return &ocf.Error{Kind: kindOf(err, ocf.Failed), Object: cfg.ip.String(), Found: "the announcer's lock cannot be read", Err: err, Do: "run it as root"}
	}
	defer f.Close()
	pid, err := killHolder(f)
	if err != nil {
		return &ocf.Error{Object: cfg.ip.String(), Found: fmt.Sprintf("the announcer (process %d) cannot be ended", pid), Err: err}
	}
	if pid == 0 {
		return nil
	}
	c.Waiting("the announcer of %v (process %d) to end", cfg.ip, pid)
	defer c.Waiting("")
	limited, cancel := context.WithTimeout(ctx, announcerEnd)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		holder, err := lockHolder(f)
		if err == nil && holder == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			return &ocf.Error{
				Object: cfg.ip.String(), Found: fmt.Sprintf("its announcer (process %d) does not end after SIGKILL", pid),
				Expected: "nobody to announce a stopped address", Do: "see /proc/" + strconv.Itoa(pid) + "/stack",
			}
		}
	}
}

// killHolder kills the process that holds the lock on f, and no other: the lock
// is looked at again after the process has been opened, and a process that has
// been opened cannot be mistaken for a later one with its number.
func killHolder(f *os.File) (pid int, err error) {
	pid, err = lockHolder(f)
	if err != nil || pid == 0 {
		return pid, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return 0, nil
	case errors.Is(err, unix.ENOSYS): // before Linux 5.3
		return pid, os.NewSyscallError("kill", unix.Kill(pid, unix.SIGKILL))
	case err != nil:
		return pid, os.NewSyscallError("pidfd_open", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if again, err := lockHolder(f); err != nil || again != pid {
		return 0, err
	}
	err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		err = nil
	}
	return pid, os.NewSyscallError("pidfd_send_signal", err)
}
