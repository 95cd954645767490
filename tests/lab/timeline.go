package lab

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Timeline is what happened in a scenario, by the host's clock.
type Timeline struct {
	began time.Time
	// Tell, if set before the first event, gets each one as it is added.
	Tell func(since time.Duration, e Event)

	mu     sync.Mutex
	events []Event
}

// Event is one line of a timeline.
type Event struct {
	At   time.Time
	Text string
}

// NewTimeline makes a timeline that counts from began.
func NewTimeline(began time.Time) *Timeline { return &Timeline{began: began} }

// Add notes that something happened now.
func (t *Timeline) Add(format string, args ...any) { t.AddAt(time.Now(), format, args...) }

// AddAt notes that something happened at another time.
func (t *Timeline) AddAt(at time.Time, format string, args ...any) {
	e := Event{At: at, Text: fmt.Sprintf(format, args...)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, e)
	if t.Tell != nil {
		t.Tell(at.Sub(t.began), e)
	}
}

// Events returns all events in the order of their times.
func (t *Timeline) Events() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	events := slices.Clone(t.events)
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	return events
}

// String writes one line for each event, with the seconds since the beginning
// and since the event before.
func (t *Timeline) String() string {
	var b strings.Builder
	last := t.began
	for _, e := range t.Events() {
		fmt.Fprintf(&b, "%8.2f s  %+7.2f  %s\n", e.At.Sub(t.began).Seconds(), e.At.Sub(last).Seconds(), e.Text)
		last = e.At
	}
	return b.String()
}
