package lab

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is short for the host and not too often for an emulated machine,
// in which each look costs a process.
const pollEvery = 300 * time.Millisecond

// Poll calls probe until it says ok and returns how long that took. state says
// what probe saw; it is quoted when the time is over. Each probe gets a context
// that ends with the time.
func Poll(ctx context.Context, within time.Duration, what string, probe func(ctx context.Context) (ok bool, state string)) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithDeadline(ctx, began.Add(within))
	defer cancel()
	last := "nothing was seen"
	for {
		ok, state := probe(ctx)
		if ok {
			return time.Since(began), nil
		}
		if state != "" && (ctx.Err() == nil || last == "nothing was seen") {
			last = state
		}
		select {
		case <-ctx.Done():
			return time.Since(began), fmt.Errorf("waited %s for %s; last seen: %s", within, what, last)
		case <-time.After(pollEvery):
		}
	}
}
