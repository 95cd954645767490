package main

import (
	"context"
	"fmt"
	"time"

	"baton/tests/lab"
)

const (
	// patience is what an emulated cluster may take for one change.
	patience = 4 * time.Minute
	// stripStep is what one character of a drawing stands for.
	stripStep = 200 * time.Millisecond
	// leadIn is how many lines of a client's log before an event are looked at.
	leadIn = 60
)

// show is a running act.
type show struct {
	*lab.Lab
	line  func(string, ...any)
	notes []note
}

// note is one line of the act's summary.
type note struct {
	what  string
	gap   lab.Gap
	strip string
	why   string
}

// say prints a line that is no event.
func (s *show) say(format string, args ...any) { s.line(format, args...) }

// waitOK waits until a job has an answer beyond the first n lines of its log.
func (s *show) waitOK(ctx context.Context, j *lab.Job, n int) error {
	_, err := lab.Poll(ctx, patience, "the client to get an answer", func(ctx context.Context) (bool, string) {
		log, err := j.Log(ctx)
		if err != nil {
			return false, err.Error()
		}
		return len(log) > n && len(log[n:].Of(lab.OK)) > 0, fmt.Sprintf("%d answers in all", len(log.Of(lab.OK)))
	})
	return err
}

// stalled does something, waits until the client is answered again, prints how
// long it was not, and notes it for the summary. why says where the time goes.
func (s *show) stalled(ctx context.Context, client *lab.Job, what, why string, do func() error) error {
	// Positions in the log, not times: the machine's clock is its own.
	before, err := client.Log(ctx)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := client.Log(ctx)
	if err != nil {
		return err
	}
	if err := s.waitOK(ctx, client, len(after)); err != nil {
		return err
	}
	log, err := client.Log(ctx)
	if err != nil {
		return err
	}
	// A little of what came before shows the answers that stopped.
	log = log[max(0, len(before)-leadIn):]
	gap := log.LongestGap()
	s.notes = append(s.notes, note{what: what, gap: gap, why: why, strip: log.Strip(gap.From.Add(-2*time.Second), gap.Long+4*time.Second, stripStep)})
	s.line("client: %s", gap)
	return nil
}

// summary prints what the client noticed in the whole act.
func (s *show) summary() {
	fmt.Printf("\nWhat the client saw (each character is %s; █ answered, · nothing):\n\n", stripStep)
	for _, n := range s.notes {
		fmt.Printf("  %s\n  %s\n  nothing for %.1f s: %s\n\n", n.what, n.strip, n.gap.Long.Seconds(), n.why)
	}
	fmt.Println("Emulation makes all that starts a process 15 to 20 times slower than on hardware.")
}
