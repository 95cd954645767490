package nfsproc

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Activity is what a thread of the kernel was doing at one moment.
type Activity struct {
	// Switches counts how often it gave up the processor: it stands still in a thread that waits.
	Switches uint64
	// In is the function of the kernel in which it waits, "0" or empty if it does not.
	In string
}

// Activity reads what the thread with this pid does.
func (s Server) Activity(pid int) (Activity, error) {
	dir := s.proc(strconv.Itoa(pid))
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return Activity{}, err
	}
	a := Activity{Switches: switches(string(text))}
	// The function is a help to a person only; a kernel may hide it.
	if in, err := os.ReadFile(filepath.Join(dir, "wchan")); err == nil {
		a.In = strings.TrimSpace(string(in))
	}
	return a, nil
}

// switches sums the two counters at the end of /proc/PID/status (proc_pid_status(5)):
//
//	voluntary_ctxt_switches:	150
//	nonvoluntary_ctxt_switches:	545
func switches(status string) uint64 {
	var sum uint64
	for line := range strings.SplitSeq(status, "\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !strings.HasSuffix(name, "voluntary_ctxt_switches") {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64); err == nil {
			sum += n
		}
	}
	return sum
}

// Named are the processes, threads of the kernel included, whose kernel name (comm, at most 15
// bytes) is one of the given. It reads one small file for each process of the machine, a tenth of
// the work of reading all that is known of each.
func (s Server) Named(names ...string) ([]int, error) {
	dir, err := os.Open(s.proc())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e)
		if err != nil {
			continue
		}
		comm, err := os.ReadFile(s.proc(e, "comm"))
		if err == nil && slices.Contains(names, strings.TrimSuffix(string(comm), "\n")) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Environ is the value of a variable in the environment that a process was started with, and
// whether it has one; both are empty for a kernel thread, and for a process that has ended.
// Daemons keep it when they fork away, which makes it a mark that a process cannot lose.
func (s Server) Environ(pid int, name string) (string, bool) {
	text, err := os.ReadFile(s.proc(strconv.Itoa(pid), "environ"))
	if err != nil {
		return "", false
	}
	for pair := range strings.SplitSeq(string(text), "\x00") {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// SameNetwork reports whether the process is in this process's network namespace; another one
// has an NFS server of its own. A process that cannot be looked into counts as being in it.
func (s Server) SameNetwork(pid int) bool {
	mine, err := os.Readlink(s.proc("self", "ns", "net"))
	if err != nil {
		return true
	}
	other, err := os.Readlink(s.proc(strconv.Itoa(pid), "ns", "net"))
	return err != nil || mine == other
}

// OpenFiles are the targets of a process's open descriptors, as the links below /proc/PID/fd
// read; none are followed.
func (s Server) OpenFiles(pid int) ([]string, error) {
	dir := s.proc(strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			files = append(files, target)
		}
	}
	return files, nil
}
