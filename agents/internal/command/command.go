// Package command runs child processes for the agents. It is the only place of the project's
// agents that may start one: everything that a child needs (a deadline, a process group of its
// own, an environment whose messages can be parsed, an error that says what failed) is here.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// maxOutput bounds what is kept of each stream, so that a tool gone wild cannot exhaust memory.
const maxOutput = 4 << 20

// maxShown bounds the command line in an error's text.
const maxShown = 200

// Result is what a finished child printed.
type Result struct {
	Stdout, Stderr []byte
}

// Error says how a child failed. Exactly one of Code, Signal and Err carries the cause:
// a non-zero exit code, a fatal signal, or an error before or while running it
// (not found, deadline).
type Error struct {
	Argv   []string
	Code   int            // exit code; -1 where the child did not exit by itself
	Signal syscall.Signal // the signal that ended it, 0 if none
	Stderr []byte         // what it said
	Err    error          // context.DeadlineExceeded, fs.ErrNotExist, …
}

// Error is one line: the command line, how it ended, and the last line it said on stderr.
func (e *Error) Error() string {
	var b strings.Builder
	line := strings.Join(e.Argv, " ")
	if len(line) > maxShown {
		line = strings.ToValidUTF8(line[:maxShown], "") + "…"
	}
	b.WriteString(line)
	switch {
	case errors.Is(e.Err, context.DeadlineExceeded):
		b.WriteString(": not finished at the deadline")
	case e.Err != nil:
		fmt.Fprintf(&b, ": %v", e.Err)
	case e.Signal != 0:
		fmt.Fprintf(&b, ": ended by signal %d (%v)", int(e.Signal), e.Signal)
	default:
		fmt.Fprintf(&b, ": exit code %d", e.Code)
	}
	if said := lastLine(e.Stderr); said != "" {
		fmt.Fprintf(&b, " (%s)", said)
	}
	return b.String()
}

// NotInstalled says that there is no such tool on this machine.
func (e *Error) NotInstalled() bool { return errors.Is(e.Err, fs.ErrNotExist) }

// Unwrap gives the cause where there is one beyond the exit code.
func (e *Error) Unwrap() error { return e.Err }

// Code is the exit code that err carries: 0 for nil, the child's code for an *Error whose child
// exited by itself, and -1 for everything else.
func Code(err error) int {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) && e.Err == nil && e.Signal == 0 {
		return e.Code
	}
	return -1
}

// Runner starts children. The zero value runs real tools with the agent's environment.
type Runner struct {
	// Env is added to the environment of each child, after LC_ALL=C.
	Env []string
	// Path lists the directories to look for tools in, before PATH and the sbin directories.
	// Tests put their fakes there.
	Path []string
}

// sbin is searched besides PATH: cron, heartbeat and plain user shells have no sbin in theirs.
const sbin = "/usr/sbin:/sbin:/usr/bin:/bin"

// Look finds the tool's file. The error wraps fs.ErrNotExist where no directory has it.
func (r Runner) Look(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	dirs := append([]string{}, r.Path...)
	dirs = append(dirs, filepath.SplitList(os.Getenv("PATH"))...)
	dirs = append(dirs, filepath.SplitList(sbin)...)
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if executable(file) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w in %s", name, os.ErrNotExist, strings.Join(dirs, ":"))
}

func executable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s: %w: not an executable file", file, os.ErrPermission)
	}
	return nil
}

// Run starts the tool with exactly these arguments (no shell), waits for its end and returns
// what it printed. A non-zero exit is an *Error. When ctx ends first, the whole process group
// of the child is killed and the *Error wraps ctx's error. Standard input is empty.
func (r Runner) Run(ctx context.Context, name string, args ...string) (Result, error) {
	return r.RunInput(ctx, nil, name, args...)
}

// RunInput is Run with the given standard input.
func (r Runner) RunInput(ctx context.Context, input []byte, name string, args ...string) (Result, error) {
	argv := append([]string{name}, args...)
	file, err := r.Look(name)
	if err != nil {
		return Result{}, &Error{Argv: argv, Code: -1, Err: err}
	}
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), r.Env...)
	if input != nil {
		cmd.Stdin = bytes.NewReader(input)
	}
	var stdout, stderr limited
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Pacemaker kills the agent's process group at its timeout: a child in a group of its own
	// would outlive that, hence the parent death signal. It is bound to the thread that started
	// the child (prctl(2)), so that thread is kept until the child is reaped.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A grandchild that keeps the pipes open (a daemon) must not keep us.
	cmd.WaitDelay = 500 * time.Millisecond
	keepFromChildren()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	res := Result{Stdout: stdout.kept.Bytes(), Stderr: stderr.kept.Bytes()}
	return res, wrap(ctx, argv, cmd, res.Stderr, err)
}

func wrap(ctx context.Context, argv []string, cmd *exec.Cmd, stderr []byte, err error) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		return nil
	}
	e := &Error{Argv: argv, Code: -1, Stderr: stderr}
	var exit *exec.ExitError
	exited := errors.As(err, &exit)
	switch {
	case exited && exit.Exited(): // by itself, be it at the very deadline
		e.Code = exit.ExitCode()
	case ctx.Err() != nil:
		e.Err = ctx.Err()
	case exited:
		if status, ok := exit.Sys().(syscall.WaitStatus); ok {
			e.Signal = status.Signal()
		}
	case errors.Is(err, exec.ErrWaitDelay):
		e.Code = cmd.ProcessState.ExitCode()
	default:
		e.Err = err
	}
	return e
}

// Detach starts the tool in a session of its own, with no standard streams, and does not wait
// for it: it lives on after the agent has ended, outside the process group that Pacemaker kills
// at a timeout. It returns the process id. Whoever starts a process this way records its
// identity (pid and start time) and ends it in stop.
func (r Runner) Detach(name string, args ...string) (int, error) {
	argv := append([]string{name}, args...)
	file, err := r.Look(name)
	if err != nil {
		return 0, &Error{Argv: argv, Code: -1, Err: err}
	}
	cmd := exec.Command(file, args...)
	cmd.Dir = "/"
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), r.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	keepFromChildren()
	if err := cmd.Start(); err != nil {
		return 0, &Error{Argv: argv, Code: -1, Err: err}
	}
	pid := cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil {
		return pid, &Error{Argv: argv, Code: -1, Err: err}
	}
	return pid, nil
}

// limited keeps the first maxOutput bytes and swallows the rest. The buffer is not embedded: its
// ReadFrom would be found by io.Copy and take everything.
type limited struct{ kept bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.kept.Len(); room > 0 {
		l.kept.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
