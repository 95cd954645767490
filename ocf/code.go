package ocf

import (
	"errors"
	"fmt"
	"strings"
)

// The exit codes of the OCF resource agent API 1.1, section "Return codes".
const (
	codeSuccess          = 0
	codeGeneric          = 1
	codeArgs             = 2
	codeUnimplemented    = 3
	codePerm             = 4
	codeInstalled        = 5
	codeConfigured       = 6
	codeNotRunning       = 7
	codePromoted         = 8
	codeFailedPromoted   = 9
	codeDegraded         = 190
	codeDegradedPromoted = 191
)

// State is what a monitor found.
type State int

const (
	// Stopped: certainly not running on this node. What could not be read is an error, never Stopped.
	Stopped State = iota
	// Running: started; for a promotable agent, unpromoted.
	Running
	// Promoted: running in the promoted role.
	Promoted
	// FailedPromoted: in the promoted role but unable to serve.
	FailedPromoted
	// DegradedRunning and DegradedPromoted serve, but something is wrong that will hurt later.
	DegradedRunning
	DegradedPromoted
)

func (s State) code() int {
	switch s {
	case Stopped:
		return codeNotRunning
	case Running:
		return codeSuccess
	case Promoted:
		return codePromoted
	case FailedPromoted:
		return codeFailedPromoted
	case DegradedRunning:
		return codeDegraded
	case DegradedPromoted:
		return codeDegradedPromoted
	}
	return codeGeneric
}

func (s State) String() string {
	switch s {
	case Stopped:
		return "stopped"
	case Running:
		return "running"
	case Promoted:
		return "promoted"
	case FailedPromoted:
		return "promoted, but failed"
	case DegradedRunning:
		return "running, but degraded"
	case DegradedPromoted:
		return "promoted, but degraded"
	}
	return fmt.Sprintf("unknown state %d", int(s))
}

// Kind says how Pacemaker shall treat an error.
type Kind int

const (
	// Failed is a soft error: the cluster restarts or moves the resource.
	Failed Kind = iota
	// BadArgs: the agent was called in a way it does not understand.
	BadArgs
	// Unimplemented: the action is not supported.
	Unimplemented
	// NoPermission and NotInstalled are hard errors: the resource may not run on this node.
	NoPermission
	NotInstalled
	// BadConfig is fatal: the same configuration is wrong on every node.
	BadConfig
)

func (k Kind) code() int {
	switch k {
	case Failed:
		return codeGeneric
	case BadArgs:
		return codeArgs
	case Unimplemented:
		return codeUnimplemented
	case NoPermission:
		return codePerm
	case NotInstalled:
		return codeInstalled
	case BadConfig:
		return codeConfigured
	}
	return codeGeneric
}

// Recovered is what to do about a failure that the cluster mends by itself. heartbeat, which asks
// for the state only while it hands over and then mends nothing, is told unwatched instead.
const (
	Recovered = "nothing: the cluster restarts or moves it"
	unwatched = "heartbeat does not watch it: hb_standby moves it, stop and start restart it here"
)

// Error is what an action returns when it could not do its work. Its text is the exit reason:
// Pacemaker keeps the first 128 characters, so Object and Found come first.
type Error struct {
	Kind     Kind
	Op       string // what was being done: "start", "promote"; may be empty
	Object   string // to what: "192.0.2.50 on eth0"
	Found    string // what was found
	Expected string // what was expected instead; may be empty
	Do       string // what to do about it; may be empty
	Err      error  // the cause, if there is one beyond Found
}

func (e *Error) Error() string {
	var b strings.Builder
	if head := strings.TrimSpace(e.Op + " " + e.Object); head != "" {
		b.WriteString(head + ": ")
	}
	b.WriteString(e.Found)
	if e.Err != nil {
		if e.Found != "" {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	if e.Expected != "" {
		b.WriteString("; expected " + e.Expected)
	}
	if e.Do != "" {
		b.WriteString("; " + e.Do)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first *Error in err's chain, Failed where there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Failed
}

// Problem is one thing that a check found wrong with the configuration or with this host.
type Problem struct {
	// Param is the parameter at fault; empty for a problem of the host.
	Param string
	Kind  Kind
	// Warning marks what will hurt later but does not prevent a start.
	Warning  bool
	Found    string
	Expected string
	Do       string
}

// Error is the problem as the error that ends an action.
func (p Problem) Error() string { return p.asError().Error() }

func (p Problem) asError() *Error {
	return &Error{Kind: p.Kind, Object: p.Param, Found: p.Found, Expected: p.Expected, Do: p.Do}
}
