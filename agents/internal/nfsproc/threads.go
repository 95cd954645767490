package nfsproc

import (
	"os"
	"path/filepath"
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
