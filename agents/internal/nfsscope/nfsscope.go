// Package nfsscope runs a function under another host name.
//
// The kernel's NFS server takes its server scope and owner (RFC 8881, 2.10.4 and 2.10.5) from the
// host name of the thread that starts it (utsname() in nfsd_svc, fs/nfsd/nfssvc.c). A client that
// finds another scope after a reboot of its server reclaims nothing: open files and locks are
// lost. So both nodes have to start the server under one name. rpc.nfsd can do that with --scope
// only from nfs-utils 2.6.3 on.
package nfsscope

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// MaxLen is the longest name that the kernel takes (__NEW_UTS_LEN in linux/utsname.h).
const MaxLen = 64

// Under calls f on a thread of its own whose UTS namespace has the given host name. The machine
// and all other threads keep theirs. It needs CAP_SYS_ADMIN. f must do its work on the calling
// goroutine.
func Under(name string, f func() error) error {
	if name == "" || len(name) > MaxLen {
		return fmt.Errorf("server scope %q: expected 1 to %d characters", name, MaxLen)
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with this goroutine, so that no other
		// goroutine ever runs under the name.
		runtime.LockOSThread()
		done <- under(name, f)
	}()
	return <-done
}

func under(name string, f func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("server scope: unshare(CLONE_NEWUTS): %w", err)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("server scope: sethostname: %w", err)
	}
	return f()
}
