package process

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// StuckError says which processes were still there when the time was over.
type StuckError struct {
	Processes []Process
	Err       error // the context's error
}

func (e *StuckError) Error() string {
	var list []string
	for _, p := range e.Processes {
		list = append(list, fmt.Sprintf("%v, %v", p, p.State))
	}
	return "still there: " + strings.Join(list, "; ")
}

// Unwrap gives the reason why the wait ended.
func (e *StuckError) Unwrap() error { return e.Err }

// Signal sends sig to exactly the process that id names. The error wraps ErrGone if it has ended.
func (s System) Signal(id ID, sig syscall.Signal) error {
	h, err := s.open(id)
	if err != nil {
		return err
	}
	defer h.close()
	return h.signal(sig)
}

// Wait waits until all of the processes have ended or ctx ends; then the error is a *StuckError.
func (s System) Wait(ctx context.Context, ids ...ID) error {
	handles, err := s.openAll(ids)
	if err != nil {
		return err
	}
	defer closeAll(handles)
	return s.wait(ctx, handles)
}

// End makes exactly these processes end: SIGTERM to all, then SIGKILL to those still there after
// patience, then a wait until ctx ends. A process halted by SIGSTOP is continued first, else it
// would never see the SIGTERM. Those that have ended already are no error; those that remain
// are named by a *StuckError.
func (s System) End(ctx context.Context, patience time.Duration, ids ...ID) error {
	handles, err := s.openAll(ids)
	if err != nil {
		return err
	}
	defer closeAll(handles)
	if patience > 0 {
		if err := signalAll(handles, syscall.SIGTERM, syscall.SIGCONT); err != nil {
			return err
		}
		soft, cancel := context.WithTimeout(ctx, patience)
		err := s.wait(soft, handles)
		cancel()
		if err == nil {
			return nil
		}
	}
	if err := signalAll(handles, syscall.SIGKILL); err != nil {
		return err
	}
	return s.wait(ctx, handles)
}

func signalAll(handles []*handle, signals ...syscall.Signal) error {
	for _, h := range handles {
		for _, sig := range signals {
			if err := h.signal(sig); err != nil && !errors.Is(err, ErrGone) {
				return err
			}
		}
	}
	return nil
}

// handle holds on to one process. With a pidfd (Linux 5.3) the pid cannot be used again under us;
// without, identity is checked before each use, which leaves a window of microseconds.
type handle struct {
	sys System
	id  ID
	fd  int // -1 without pidfds
}

// open takes hold of the process and only then checks who it is: once the pidfd is open, it
// cannot come to mean another process.
func (s System) open(id ID) (*handle, error) {
	h := &handle{sys: s, id: id, fd: -1}
	fd, err := unix.PidfdOpen(id.PID, 0)
	switch {
	case err == nil:
		h.fd = fd
	case errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("%v: %w", id, ErrGone)
	case !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("%v: pidfd_open: %w", id, err)
	}
	p, err := s.Lookup(id)
	if err == nil && p.State.Ended() {
		err = fmt.Errorf("%v: %w", id, ErrGone)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (s System) openAll(ids []ID) ([]*handle, error) {
	var handles []*handle
	for _, id := range ids {
		h, err := s.open(id)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			closeAll(handles)
			return nil, err
		}
		handles = append(handles, h)
	}
	return handles, nil
}

func (h *handle) close() {
	if h.fd >= 0 {
		// Nothing is written through it, so closing cannot lose anything.
		_ = unix.Close(h.fd)
		h.fd = -1
	}
}

func closeAll(handles []*handle) {
	for _, h := range handles {
		h.close()
	}
}

func (h *handle) signal(sig syscall.Signal) error {
	var err error
	if h.fd >= 0 {
		err = unix.PidfdSendSignal(h.fd, sig, nil, 0)
	} else {
		if _, err := h.sys.Lookup(h.id); err != nil {
			return err
		}
		err = unix.Kill(h.id.PID, sig)
	}
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%v: %w", h.id, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("%v: %v: %w", h.id, sig, err)
	}
	return nil
}

// pollStep bounds how late the end of ctx is noticed, and is the interval at which processes
// without a pidfd are looked at.
const pollStep = 50 * time.Millisecond

func (s System) wait(ctx context.Context, handles []*handle) error {
	left := handles
	for {
		var err error
		if left, err = s.remaining(left); err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return s.stuck(ctx, left)
		}
		if err := pause(ctx, left); err != nil {
			return err
		}
	}
}

func (s System) remaining(handles []*handle) ([]*handle, error) {
	var left []*handle
	for _, h := range handles {
		p, err := s.Lookup(h.id)
		switch {
		case errors.Is(err, ErrGone), err == nil && p.State.Ended():
		case err != nil:
			return nil, err
		default:
			left = append(left, h)
		}
	}
	return left, nil
}

// pause returns when one of the processes ends (a pidfd becomes readable then), at the latest
// after pollStep.
func pause(ctx context.Context, handles []*handle) error {
	step := pollStep
	if until, ok := ctx.Deadline(); ok {
		step = max(min(step, time.Until(until)), time.Millisecond)
	}
	var fds []unix.PollFd
	for _, h := range handles {
		if h.fd >= 0 {
			fds = append(fds, unix.PollFd{Fd: int32(h.fd), Events: unix.POLLIN})
		}
	}
	_, err := unix.Poll(fds, int(step.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}

func (s System) stuck(ctx context.Context, handles []*handle) error {
	e := &StuckError{Err: ctx.Err()}
	for _, h := range handles {
		p, err := s.Lookup(h.id)
		if err != nil {
			p = Process{ID: h.id}
		}
		e.Processes = append(e.Processes, p)
	}
	return e
}
