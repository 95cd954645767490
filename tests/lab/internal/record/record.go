// Package record is the log that the lab's tools keep in the machines, one
// line for each thing done, and what a test reads out of it.
//
// A line is
//
//	WALL MONOTONIC SEQUENCE KIND TEXT
//
// with both clocks in nanoseconds; TEXT may be empty and may hold blanks. The
// wall clock places a line in the scenario's timeline, the monotonic one
// measures: a machine's wall clock may be set meanwhile.
package record

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kind says what a line stands for.
type Kind string

const (
	OK   Kind = "ok"   // the thing was done and acknowledged
	Fail Kind = "fail" // it was tried and refused, or timed out
	Note Kind = "note" // something worth knowing, such as a connection lost
)

// Entry is one line.
type Entry struct {
	Wall time.Time
	Mono time.Duration // since the machine's boot
	Seq  uint64
	Kind Kind
	Text string
}

// String is the line without its end.
func (e Entry) String() string {
	return fmt.Sprintf("%d %d %d %s %s", e.Wall.UnixNano(), e.Mono.Nanoseconds(), e.Seq, e.Kind, strings.ReplaceAll(e.Text, "\n", " "))
}

// Log is the lines of one tool in the order they were written.
type Log []Entry

// Parse reads lines. One that cannot be read is skipped: the last one may be
// torn, when the machine lost its power.
func Parse(text string) Log {
	var log Log
	for line := range strings.Lines(text) {
		line, whole := strings.CutSuffix(line, "\n")
		if !whole {
			break
		}
		fields := strings.SplitN(line, " ", 5)
		if len(fields) < 4 {
			continue
		}
		wall, err1 := strconv.ParseInt(fields[0], 10, 64)
		mono, err2 := strconv.ParseInt(fields[1], 10, 64)
		seq, err3 := strconv.ParseUint(fields[2], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			continue
		}
		e := Entry{Wall: time.Unix(0, wall), Mono: time.Duration(mono), Seq: seq, Kind: Kind(fields[3])}
		if len(fields) == 5 {
			e.Text = fields[4]
		}
		log = append(log, e)
	}
	return log
}

// Of returns the lines of one kind.
func (l Log) Of(kind Kind) Log {
	var out Log
	for _, e := range l {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// Since returns the lines written at or after a time.
func (l Log) Since(at time.Time) Log {
	for i, e := range l {
		if !e.Wall.Before(at) {
			return l[i:]
		}
	}
	return nil
}

// Gap is a time in which nothing was acknowledged.
type Gap struct {
	From time.Time // the last acknowledgement before
	Long time.Duration
	Open bool // the log ends in it: no acknowledgement came after
}

// String reads as part of a sentence.
func (g Gap) String() string {
	if g.Open {
		return fmt.Sprintf("%.2f s without an answer, and none since", g.Long.Seconds())
	}
	return fmt.Sprintf("%.2f s without an answer", g.Long.Seconds())
}

// LongestGap is the longest time between two acknowledgements, counted by the
// machine's monotonic clock. Tries that failed after the last acknowledgement
// make a gap that is open. The zero Gap stands for a log with less than one
// acknowledgement.
func (l Log) LongestGap() Gap {
	var longest Gap
	last := -1
	for i, e := range l {
		if e.Kind != OK {
			continue
		}
		if last >= 0 {
			if long := e.Mono - l[last].Mono; long > longest.Long {
				longest = Gap{From: l[last].Wall, Long: long}
			}
		}
		last = i
	}
	if last >= 0 && len(l) > 0 {
		if long := l[len(l)-1].Mono - l[last].Mono; long > longest.Long {
			longest = Gap{From: l[last].Wall, Long: long, Open: true}
		}
	}
	return longest
}

// Strip draws the log for a person: one character for each step from a time
// on, a block where something was acknowledged and a dot where nothing was.
func (l Log) Strip(from time.Time, long, step time.Duration) string {
	answered := make([]bool, max(0, (long+step-1)/step))
	for _, e := range l.Of(OK) {
		if i := int(e.Wall.Sub(from) / step); !e.Wall.Before(from) && i < len(answered) {
			answered[i] = true
		}
	}
	var b strings.Builder
	for _, ok := range answered {
		if ok {
			b.WriteRune('█')
		} else {
			b.WriteRune('·')
		}
	}
	return b.String()
}
