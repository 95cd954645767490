package command

import (
	"os"
	"strconv"
	"syscall"
)

// close_range(2), Linux 5.9: the number is the same on every architecture that has it.
// CLOSE_RANGE_CLOEXEC (Linux 5.11, include/uapi/linux/close_range.h) marks instead of closing.
const (
	sysCloseRange     = 436
	closeRangeCloexec = 1 << 2
	firstInherited    = 3
)

// keepFromChildren marks every descriptor beyond the standard streams as not for children.
// heartbeat 3.0.6 hands its resource scripts about a dozen open ones without the mark (its
// sockets, its log, /dev/watchdog): a daemon started by an agent would hold them for good.
func keepFromChildren() {
	_, _, errno := syscall.Syscall(sysCloseRange, firstInherited, uintptr(^uint32(0)), closeRangeCloexec)
	if errno == 0 {
		return
	}
	markOneByOne("/proc/self/fd")
}

// markOneByOne is for kernels before 5.11 (RHEL 8 has 4.18). What cannot be listed or marked is
// left as it is: the child would start with it under any shell agent, too.
func markOneByOne(fds string) {
	dir, err := os.Open(fds)
	if err != nil {
		return
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil && len(names) == 0 {
		return
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd >= firstInherited {
			syscall.CloseOnExec(fd)
		}
	}
}
