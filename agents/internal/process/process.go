// Package process finds processes and ends exactly those it found.
//
// A process is identified by its pid together with its start time: a pid alone may belong to
// somebody else by the time a signal is sent. Nothing here starts a child process, and nothing
// follows a link into a file system that might hang: holders of a directory are found by the text
// of the links below /proc/PID alone.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrGone says that the process has ended, or that its pid belongs to another process by now.
var ErrGone = errors.New("process has ended")

// State is the letter that the kernel prints for a process (proc(5), /proc/PID/stat field 3).
type State byte

// The states that decide something. A process in any other state can act on signals.
const (
	Uninterruptible State = 'D' // waits in the kernel, usually for a disk; even SIGKILL has to wait
	Halted          State = 'T' // stopped by SIGSTOP or a terminal
	Traced          State = 't' // stopped by a debugger
	Zombie          State = 'Z' // has ended; only its parent has not read its exit code yet
	Dead            State = 'X'
)

func (s State) String() string {
	switch s {
	case Uninterruptible:
		return "waiting in the kernel (D)"
	case Halted:
		return "stopped by a signal (T)"
	case Traced:
		return "stopped by a debugger (t)"
	case Zombie:
		return "ended, not reaped (Z)"
	case Dead:
		return "ended (X)"
	}
	return fmt.Sprintf("running (%c)", rune(s))
}

// Ended reports whether the process runs no more code and holds nothing any more.
func (s State) Ended() bool { return s == Zombie || s == Dead }

// ID names one process for ever: a pid is used again, a pid with its start time is not.
type ID struct {
	PID int
	// Start is the start time in clock ticks since boot (/proc/PID/stat field 22).
	Start uint64
}

func (id ID) String() string { return "pid " + strconv.Itoa(id.PID) }

// Process is what /proc told about one process at one moment.
type Process struct {
	ID
	Parent int
	// Comm is the kernel's name of it, at most 15 bytes, chosen by the process: any bytes at all.
	Comm  string
	State State
	// Exe is the file it runs, without the kernel's " (deleted)"; empty for kernel threads, for
	// zombies, and where the caller may not see it.
	Exe string
	// Args is its argument vector, or the title that it wrote over it as one element.
	Args []string
}

// Title is the argument vector as one line, as ps shows it.
func (p Process) Title() string {
	if len(p.Args) == 0 {
		return "[" + p.Comm + "]"
	}
	return strings.Join(p.Args, " ")
}

// String is for messages: the pid and the name, with everything unprintable escaped and short.
func (p Process) String() string {
	title := p.Title()
	if len(title) > 60 {
		title = title[:60] + "…"
	}
	return fmt.Sprintf("pid %d %s", p.PID, strconv.QuoteToGraphic(title))
}

// System is a machine's process table.
type System struct {
	// Proc is the mount point of procfs; empty means /proc.
	Proc string
}

func (s System) path(parts ...string) string {
	root := s.Proc
	if root == "" {
		root = "/proc"
	}
	return filepath.Join(append([]string{root}, parts...)...)
}

// Get reads one process. The error wraps ErrGone if there is none with this pid.
func (s System) Get(pid int) (Process, error) {
	dir := strconv.Itoa(pid)
	data, err := os.ReadFile(s.path(dir, "stat"))
	if err != nil {
		return Process{}, gone(err)
	}
	p, err := parseStat(data)
	if err != nil {
		return Process{}, fmt.Errorf("%s: %w", s.path(dir, "stat"), err)
	}
	// Both may be unreadable for reasons that say nothing about the process (another user's, a
	// kernel thread, a zombie): they stay empty then.
	if exe, err := os.Readlink(s.path(dir, "exe")); err == nil {
		p.Exe = strings.TrimSuffix(exe, deleted)
	}
	if line, err := os.ReadFile(s.path(dir, "cmdline")); err == nil {
		p.Args = parseCmdline(line)
	}
	return p, nil
}

// Lookup reads the process that id names. The error wraps ErrGone if it has ended, also when
// another process has its pid now. A zombie is still found; ask State.Ended.
func (s System) Lookup(id ID) (Process, error) {
	p, err := s.Get(id.PID)
	if err != nil {
		return Process{}, err
	}
	if p.Start != id.Start {
		return Process{}, fmt.Errorf("%v: %w (the pid is in use again)", id, ErrGone)
	}
	return p, nil
}

// All reads the whole table. Processes that end meanwhile are left out.
func (s System) All() ([]Process, error) {
	pids, err := s.pids()
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, pid := range pids {
		p, err := s.Get(pid)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Find reads the table and keeps the live processes that match.
func (s System) Find(match func(Process) bool) ([]Process, error) {
	all, err := s.All()
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, p := range all {
		if !p.State.Ended() && match(p) {
			found = append(found, p)
		}
	}
	return found, nil
}

// Contained says that a process lives in a pid namespace below the caller's: in a container, which has
// its own file names. /proc/PID/status has the pid in each namespace from that of the procfs on down
// (proc_pid_status(5), since Linux 4.1), and needs no right to look into the process:
//
//	NSpid:	23925	1
//
// Where it cannot be read, the answer is no.
func (s System) Contained(pid int) bool {
	own, ok := s.depth("self")
	if !ok {
		return false
	}
	depth, ok := s.depth(strconv.Itoa(pid))
	return ok && depth != own
}

func (s System) depth(pid string) (int, bool) {
	data, err := os.ReadFile(s.path(pid, "status"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return len(strings.Fields(pids)), true
		}
	}
	return 0, false
}

// ByComm matches the kernel's name of a process, which is cut at 15 bytes (TASK_COMM_LEN in
// include/linux/sched.h): the name asked for is cut the same way.
func ByComm(name string) func(Process) bool {
	const max = 15
	if len(name) > max {
		name = name[:max]
	}
	return func(p Process) bool { return p.Comm == name }
}

// ByExe matches the file that a process runs.
func ByExe(path string) func(Process) bool {
	return func(p Process) bool { return p.Exe != "" && p.Exe == path }
}

// ByTitle matches the beginning of the argument vector as ps shows it.
func ByTitle(prefix string) func(Process) bool {
	return func(p Process) bool { return len(p.Args) > 0 && strings.HasPrefix(p.Title(), prefix) }
}

// Descendants are the live children of the process, their children, and so on.
func (s System) Descendants(id ID) ([]Process, error) {
	all, err := s.All()
	if err != nil {
		return nil, err
	}
	below := map[int]bool{id.PID: true}
	var found []Process
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if !below[p.PID] && below[p.Parent] {
				below[p.PID], grown = true, true
				if !p.State.Ended() {
					found = append(found, p)
				}
			}
		}
	}
	return found, nil
}

func (s System) pids() ([]int, error) {
	entries, err := os.ReadDir(s.path())
	if err != nil {
		return nil, fmt.Errorf("process table: %w", err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// gone turns the two errors with which a process vanishes under a reader (ENOENT at open, ESRCH
// at read) into ErrGone.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)):
//
//	1184 (mfsmaster) S 1 1184 1184 0 -1 4194560 …
//
// Field 2 is the name in parentheses and may itself hold parentheses, blanks and line breaks, so
// that it ends at the last ')' of the file. Field 3 is the state, 4 the parent, 22 the start time.
func parseStat(data []byte) (Process, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return Process{}, errors.New("no process name in parentheses")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data[:open])))
	if err != nil || pid <= 0 {
		return Process{}, fmt.Errorf("no pid before the name: %q", data[:open])
	}
	const first = 3 // number of the first field behind the name
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) <= 22-first {
		return Process{}, fmt.Errorf("%d fields behind the name, at least %d expected", len(fields), 22-first+1)
	}
	if len(fields[0]) != 1 {
		return Process{}, fmt.Errorf("state %q is not one letter", fields[0])
	}
	parent, err := strconv.Atoi(fields[4-first])
	if err != nil {
		return Process{}, fmt.Errorf("parent %q is not a number", fields[4-first])
	}
	start, err := strconv.ParseUint(fields[22-first], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("start time %q is not a number", fields[22-first])
	}
	return Process{
		ID:     ID{PID: pid, Start: start},
		Parent: parent,
		Comm:   string(data[open+1 : end]),
		State:  State(fields[0][0]),
	}, nil
}

// parseCmdline splits /proc/PID/cmdline: arguments that end in NUL each, or, where the process
// wrote a title over them, any text with any number of NULs behind it.
func parseCmdline(data []byte) []string {
	text := strings.TrimRight(string(data), "\x00")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}
