package addresses

import (
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// EnterNamespace puts the calling goroutine for good into the network namespace
// that `ip netns` knows by this name, below dir ("/run/netns" when empty). What
// the goroutine does from then on, and the processes it starts, happen there;
// other goroutines stay where they were.
func EnterNamespace(dir, name string) error {
	if dir == "" {
		dir = "/run/netns"
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return &Error{Op: "enter network namespace", Object: name, Err: err}
	}
	defer f.Close()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return &Error{Op: "enter network namespace", Object: name, Err: os.NewSyscallError("setns", err)}
	}
	return nil
}
