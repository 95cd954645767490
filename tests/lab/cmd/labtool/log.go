package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/tests/lab/internal/record"
)

// logger writes entries with one write call each, so that a line is whole or
// not there.
type logger struct {
	mu    sync.Mutex
	out   io.Writer
	ended sync.Once
}

func newLogger(w io.Writer) *logger { return &logger{out: w} }

func (l *logger) add(kind record.Kind, seq uint64, format string, args ...any) {
	e := record.Entry{Wall: time.Now(), Mono: sinceBoot(), Seq: seq, Kind: kind, Text: fmt.Sprintf(format, args...)}
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.out, e)
}

// end writes the log's last line, once.
func (l *logger) end() { l.ended.Do(func() { l.add(record.Note, 0, "end") }) }

// result notes one try.
func (l *logger) result(seq uint64, err error, format string, args ...any) {
	if err != nil {
		l.add(record.Fail, seq, "%v", err)
		return
	}
	l.add(record.OK, seq, format, args...)
}

func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// paced calls f with 1, 2, 3… every so often until ctx ends. A call that takes
// longer than the interval is followed by the next at once.
func paced(ctx context.Context, every time.Duration, f func(seq uint64)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		f(seq)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return
		}
	}
}
