package lab

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Action is one action of a resource agent, as the node's Pacemaker had it
// done.
type Action struct {
	Node, Resource, Op string
	From, To           time.Time // by the node's own clock
	Result             string    // ok, error (the agent's words), …
}

// Took is how long the agent ran, with the start of its process.
func (a Action) Took() time.Duration { return a.To.Sub(a.From) }

// ParseActions reads the journal of a node in the form of journalctl -o
// short-unix. Pacemaker 2.1 (daemons/controld/controld_execd.c) writes one line
// when it asks its executor and one when the answer is there:
//
//	1796012345.123456 n2 pacemaker-controld[296]:  notice: Requesting local execution of start operation for vip on n2
//	1796012346.223456 n2 pacemaker-controld[296]:  notice: Result of start operation for vip on n2: ok
//
// Of a recurring monitor only the first run is there. Actions come in the order
// of their beginning; one without an end is left out.
func ParseActions(journal string) []Action {
	line := regexp.MustCompile(`^(\d+)\.(\d{6}) \S+ pacemaker-controld\[\d+\]: +notice: (Requesting local execution|Result) of ([\w-]+) operation for (\S+) on ([^\s:]+)(?:: (.*))?$`)
	type key struct{ node, resource, op string }
	open := map[key]time.Time{}
	var out []Action
	for text := range strings.Lines(journal) {
		f := line.FindStringSubmatch(strings.TrimSpace(text))
		if f == nil {
			continue
		}
		at, err := unixTime(f[1], f[2])
		if err != nil {
			continue
		}
		k := key{node: f[6], resource: f[5], op: f[4]}
		if f[3] != "Result" {
			open[k] = at
			continue
		}
		if from, ok := open[k]; ok {
			delete(open, k)
			out = append(out, Action{Node: k.node, Resource: k.resource, Op: k.op, From: from, To: at, Result: f[7]})
		}
	}
	slices.SortStableFunc(out, func(a, b Action) int { return cmp.Compare(a.From.UnixNano(), b.From.UnixNano()) })
	return out
}

func unixTime(seconds, micros string) (time.Time, error) {
	s, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	us, err := strconv.ParseInt(micros, 10, 64)
	return time.Unix(s, us*1000), err
}

// Actions are what the node's Pacemaker had done since a moment of the host's
// clock, in times of the host's clock.
func (m *Machine) Actions(ctx context.Context, since time.Time) ([]Action, error) {
	ahead, err := m.Ahead(ctx)
	if err != nil {
		return nil, err
	}
	from := since.Add(ahead)
	out, err := m.Run(ctx, "journalctl -q --no-pager -o short-unix -t pacemaker-controld --since @%d", from.Unix())
	if err != nil {
		return nil, err
	}
	var actions []Action
	for _, a := range ParseActions(out) {
		if !a.From.Before(from) {
			a.From, a.To = a.From.Add(-ahead), a.To.Add(-ahead)
			actions = append(actions, a)
		}
	}
	return actions, nil
}

// Ahead is how much the machine's clock is ahead of the host's, to within half
// of what one command takes.
func (m *Machine) Ahead(ctx context.Context) (time.Duration, error) {
	before := time.Now()
	out, err := m.Run(ctx, "date +%s.%N")
	if err != nil {
		return 0, err
	}
	after := time.Now()
	seconds, nanos, ok := strings.Cut(strings.TrimSpace(out), ".")
	if !ok || len(nanos) < 6 {
		return 0, fmt.Errorf("%s: date said %q; expected seconds and nanoseconds", m.Name, out)
	}
	at, err := unixTime(seconds, nanos[:6])
	if err != nil {
		return 0, fmt.Errorf("%s: date said %q: %w", m.Name, out, err)
	}
	return at.Sub(before.Add(after.Sub(before) / 2)), nil
}
