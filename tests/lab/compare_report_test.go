//go:build lab

package lab_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"

	"baton/tests/lab"
)

// measured is one move of one graph.
type measured struct {
	graph, event string
	began        time.Time
	address      time.Duration   // from the command until vip has started
	stalls       []time.Duration // longest, for each of compareWork; empty without a server
	lockKept     bool
	acknowledged int
	lost         int
	errors       int
	firstError   string
	actions      []lab.Action
}

// stall is the longest time in which any kind of the client's work stood still.
func (m measured) stall() time.Duration {
	if len(m.stalls) == 0 {
		return 0
	}
	return slices.Max(m.stalls)
}

func compareTable(moves []measured) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "graph\tevent\taddress up\tstall: %s\tlock\tacknowledged\tlost\terrors\n", strings.Join(compareWork, "\tstall: "))
	for _, m := range moves {
		fmt.Fprintf(w, "%s\t%s\t%s", m.graph, m.event, seconds(m.address))
		if len(m.stalls) == 0 {
			fmt.Fprintf(w, "%s\n", strings.Repeat("\t-", len(compareWork)+4))
			continue
		}
		for _, s := range m.stalls {
			fmt.Fprintf(w, "\t%s", seconds(s))
		}
		lock := "kept"
		if !m.lockKept {
			lock = "LOST"
		}
		fmt.Fprintf(w, "\t%s\t%d\t%d\t%d %s\n", lock, m.acknowledged, m.lost, m.errors, m.firstError)
	}
	_ = w.Flush() // to a strings.Builder
	return b.String()
}

// whereTheTimeGoes lists each action with its beginning, counted from the command, and for each
// move the sum of what is on the way of the address: the rest is Pacemaker's own.
func whereTheTimeGoes(moves []measured) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, m := range moves {
		fmt.Fprintf(w, "%s, %s\n  from\tto\ttook\taction\tresult\n", m.graph, m.event)
		slices.SortStableFunc(m.actions, func(x, y lab.Action) int { return cmp.Compare(x.From.UnixNano(), y.From.UnixNano()) })
		for _, a := range m.actions {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s %s on %s\t%s\n", seconds(a.From.Sub(m.began)), seconds(a.To.Sub(m.began)), seconds(a.Took()), a.Resource, a.Op, a.Node, a.Result)
		}
		busy := covered(m.actions, m.began, m.began.Add(m.address))
		fmt.Fprintf(w, "  until the address was up: %s in agents, %s in Pacemaker\n", seconds(busy), seconds(m.address-busy))
	}
	_ = w.Flush() // to a strings.Builder
	return b.String()
}

// covered is how long at least one agent ran between two moments.
func covered(actions []lab.Action, from, to time.Time) time.Duration {
	sum, until := time.Duration(0), from
	for _, a := range actions { // in the order of their beginning
		begin, end := a.From, a.To
		if begin.Before(until) {
			begin = until
		}
		if end.After(to) {
			end = to
		}
		if end.After(begin) {
			sum += end.Sub(begin)
			until = end
		}
	}
	return sum
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// compareGoals asserts what baton promises beside the two others of the same run.
func compareGoals(t *testing.T, moves []measured) {
	t.Helper()
	mean := func(graph, event string, of func(measured) time.Duration) time.Duration {
		sum, n := time.Duration(0), 0
		for _, m := range moves {
			if m.graph == graph && strings.HasPrefix(m.event, event) {
				sum += of(m)
				n++
			}
		}
		if n == 0 {
			return 0
		}
		return sum / time.Duration(n)
	}
	address := func(m measured) time.Duration { return m.address }
	floor, peers, baton := mean("floor", "standby", address), mean("peers", "standby", measured.stall), mean("baton", "standby", measured.stall)
	for _, m := range moves {
		if m.graph != "baton" {
			continue
		}
		assert.True(t, m.lockKept, "%s: the lock is kept", m.event)
		assert.Zero(t, m.lost, "%s: no acknowledged write is lost", m.event)
		assert.Zero(t, m.errors, "%s: no operation failed; first: %s", m.event, m.firstError)
	}
	if baton == 0 {
		t.Log("baton's graph did not run: nothing to compare")
		return
	}
	if floor > 0 {
		assert.LessOrEqual(t, baton, floor*3/2+2*time.Second, "the stall at a standby is at most 1.5 times the floor (%s) and 2 s", seconds(floor))
		assert.LessOrEqual(t, mean("baton", "power loss", measured.stall), mean("floor", "power loss", address)+3*time.Second, "the stall at a power loss is at most the floor's time and 3 s")
	}
	if peers > 0 {
		assert.LessOrEqual(t, 3*baton, peers, "the stall at a standby is at most a third of the peers'")
	}
}
