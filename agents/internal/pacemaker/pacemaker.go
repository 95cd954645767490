// Package pacemaker talks to the cluster through Pacemaker's own command line tools: promotion
// scores (crm_attribute --promotion, or crm_master where that is too old), node attributes
// (attrd_updater), and the state of the cluster (crm_mon and cibadmin, read as XML).
//
// A node without Pacemaker (heartbeat, a shell) is a state, not a failure: ErrAbsent where the
// tool does not exist, ErrNotConnected where no cluster runs. Each call ends within Tools.Limit:
// pacemaker-attrd answers asynchronously and can hang, and no monitor may hang with it.
//
// Sources: crm_attribute(8), attrd_updater(8), crm_mon(8) of Pacemaker 2.1.5; exit codes from
// include/crm/common/results.h (crm_exit_t).
package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/command"
)

// The exit codes of Pacemaker's tools that matter here (crm_exit_t in results.h).
const (
	exitUsage     = 64  // CRM_EX_USAGE: an option that this version does not know
	exitNoCluster = 102 // CRM_EX_DISCONNECT: no daemon to talk to
	exitNoObject  = 105 // CRM_EX_NOSUCH: the attribute is not set
)

// DefaultLimit bounds one tool call: a healthy one takes about 15 ms, on a loaded machine a
// second; what takes longer is a daemon that hangs.
const DefaultLimit = 5 * time.Second

var (
	// ErrAbsent says that Pacemaker's tool is not installed on this node.
	ErrAbsent = errors.New("the tools of Pacemaker are not installed")
	// ErrNotConnected says that the tool found no running cluster to talk to.
	ErrNotConnected = errors.New("no cluster is running here")
)

// NoCluster reports whether err only says that this node has no cluster to talk to.
func NoCluster(err error) bool {
	return errors.Is(err, ErrAbsent) || errors.Is(err, ErrNotConnected)
}

// Error is a failed call of one of Pacemaker's tools.
type Error struct {
	Op     string // "set promotion score"
	Object string // the resource or attribute
	Err    error  // ErrAbsent, ErrNotConnected, a *command.Error or what is wrong with the answer
}

func (e *Error) Error() string { return fmt.Sprintf("%s of %s: %v", e.Op, e.Object, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Runner starts one of Pacemaker's tools; command.Runner is the real one.
type Runner interface {
	Run(ctx context.Context, name string, args ...string) (command.Result, error)
}

// Tools is the cluster as one resource instance on one node sees it.
type Tools struct {
	Runner Runner
	// Instance is OCF_RESOURCE_INSTANCE: the resource whose promotion score is meant.
	Instance string
	// Node is this node's name in the cluster (CRM_meta_on_node). Empty lets the tools find out,
	// which needs a running cluster.
	Node string
	// Limit bounds each call; 0 means DefaultLimit.
	Limit time.Duration
}

// run calls a tool within the limit and sorts its failures.
func (t Tools) run(ctx context.Context, op, object, name string, args ...string) (command.Result, error) {
	limit := t.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res, err := t.Runner.Run(ctx, name, args...)
	switch {
	case err == nil:
		return res, nil
	case errors.Is(err, fs.ErrNotExist):
		err = ErrAbsent
	case command.Code(err) == exitNoCluster:
		err = ErrNotConnected
	}
	return res, &Error{Op: op, Object: object, Err: err}
}

func (t Tools) onNode(args []string) []string {
	if t.Node == "" {
		return args
	}
	return append(args, "-N", t.Node)
}

// Score reads this node's promotion score of the resource. set is false where there is none.
func (t Tools) Score(ctx context.Context) (score int, set bool, err error) {
	const op = "read promotion score"
	res, err := t.run(ctx, op, t.Instance, "crm_attribute",
		t.onNode([]string{"--promotion=" + t.Instance, "-l", "reboot", "-G", "-q"})...)
	if command.Code(err) == exitUsage {
		res, err = t.run(ctx, op, t.Instance, "crm_master", "-l", "reboot", "-G", "-q")
	}
	switch {
	case command.Code(err) == exitNoObject:
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	text := strings.TrimSpace(string(res.Stdout))
	if text == "" || text == "(null)" {
		return 0, false, nil
	}
	score, err = parseScore(text)
	if err != nil {
		return 0, false, &Error{Op: op, Object: t.Instance, Err: err}
	}
	return score, true, nil
}

// infinity is Pacemaker's INFINITY (PCMK_SCORE_INFINITY).
const infinity = 1000000

func parseScore(text string) (int, error) {
	switch text {
	case "INFINITY", "+INFINITY":
		return infinity, nil
	case "-INFINITY":
		return -infinity, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a score", text)
	}
	return n, nil
}

// SetScore sets this node's promotion score; 0 and less delete it, since a negative score makes
// Pacemaker stop and start the resource in turns.
func (t Tools) SetScore(ctx context.Context, score int) error {
	op, change := "set promotion score", []string{"-v", strconv.Itoa(score)}
	if score <= 0 {
		op, change = "delete promotion score", []string{"-D"}
	}
	args := append(t.onNode([]string{"--promotion=" + t.Instance, "-l", "reboot"}), change...)
	_, err := t.run(ctx, op, t.Instance, "crm_attribute", args...)
	if command.Code(err) == exitUsage {
		// Before Pacemaker 2.1 only crm_master knows promotion scores; it takes the resource from
		// OCF_RESOURCE_INSTANCE and the node from the local cluster.
		_, err = t.run(ctx, op, t.Instance, "crm_master", append([]string{"-l", "reboot"}, change...)...)
	}
	if score <= 0 && command.Code(err) == exitNoObject {
		return nil
	}
	return err
}

// DeleteScore takes this node out of the candidates for promotion.
func (t Tools) DeleteScore(ctx context.Context) error { return t.SetScore(ctx, 0) }

// SetAttribute sets a transient attribute of this node, shown by crm_mon -A. The empty value
// removes it.
func (t Tools) SetAttribute(ctx context.Context, name, value string) error {
	op, change := "set node attribute", []string{"-n", name, "-U", value}
	if value == "" {
		op, change = "delete node attribute", []string{"-n", name, "-D"}
	}
	_, err := t.run(ctx, op, name, "attrd_updater", t.onNode(change)...)
	if value == "" && command.Code(err) == exitNoObject {
		return nil
	}
	return err
}
