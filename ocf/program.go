package ocf

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"baton/metadata"
)

// Program is an agent: its declaration and what it does for each action. A nil function means
// that the action is not supported. The context of each function ends at the action's deadline.
type Program struct {
	Spec metadata.Agent
	// Positional maps the arguments of the haresources form (without the action) to parameters.
	// Arguments of the form name=value are taken out before it is called.
	Positional func(args []string) (map[string]string, error)
	// Check looks at the values of the parameters alone; the types, bounds and options of the
	// declaration have been checked already, and only values that passed are seen: a value that
	// did not is replaced by its default, a required one that is missing is empty.
	Check func(c *Call) []Problem
	// Validate looks at this host as well. It changes nothing.
	Validate func(ctx context.Context, c *Call) []Problem

	// Monitor tells the state. What it could not read is an error. The state that it finds is
	// explained by Call.Note.
	Monitor     func(ctx context.Context, c *Call) (State, error)
	Start       func(ctx context.Context, c *Call) error
	Stop        func(ctx context.Context, c *Call) error
	Promote     func(ctx context.Context, c *Call) error
	Demote      func(ctx context.Context, c *Call) error
	ReloadAgent func(ctx context.Context, c *Call) error
	Notify      func(ctx context.Context, c *Call, n Notification) error

	// HeartbeatStart, HeartbeatStop and HeartbeatMonitor take the place of Start, Stop and Monitor
	// in the haresources form, where it means something else: heartbeat knows no promotion.
	HeartbeatStart   func(ctx context.Context, c *Call) error
	HeartbeatStop    func(ctx context.Context, c *Call) error
	HeartbeatMonitor func(ctx context.Context, c *Call) (State, error)

	// Internal are actions that the agent's own detached helpers are started with, outside the
	// contract; they are not advertised, have no deadline and see the arguments after their name.
	Internal map[string]func(ctx context.Context, c *Call, args []string) error
}

// Call is one call of an agent: all that the caller said, and the ways to answer it.
type Call struct {
	Env    Env
	Params Params
	Log    *slog.Logger

	mu      sync.Mutex
	waiting string
	note    string
}

// Waiting names what the action waits for from now on; it is told when the deadline strikes.
// An empty text ends the wait.
func (c *Call) Waiting(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = fmt.Sprintf(format, args...)
}

// Note is what a monitor found, in words. A person sees it; a cluster sees it as the exit reason
// where the state is a failure (a recurring monitor that finds the resource stopped).
func (c *Call) Note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note = fmt.Sprintf(format, args...)
}

func (c *Call) waitingFor() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting
}

func (c *Call) noted() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.note
}

// Records is the directory for the agent's own records of this boot, below HA_RSCTMP. It is
// made if it is missing: a node without resource-agents has no tmpfiles rule for it.
func (c *Call) Records() (string, error) {
	dir := filepath.Join(c.Env.RscTmp, "baton")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", &Error{
			Object: dir, Found: "cannot be made", Err: err,
			Expected: "a writable directory for records of this boot",
			Do:       "make it writable for root or set HA_RSCTMP",
		}
	}
	return dir, nil
}
