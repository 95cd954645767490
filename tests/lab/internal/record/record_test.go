package record

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func at(ms int64) (time.Time, time.Duration) {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(ms) * time.Millisecond), time.Duration(ms) * time.Millisecond
}

func entry(ms int64, seq uint64, kind Kind, text string) Entry {
	wall, mono := at(ms)
	return Entry{Wall: wall, Mono: mono, Seq: seq, Kind: kind, Text: text}
}

func TestLinesComeBackAsWritten(t *testing.T) {
	for name, e := range map[string]Entry{
		"plain":      entry(5, 1, OK, ""),
		"with words": entry(5, 2, Note, "connection reset by peer"),
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, Log{e}, Parse(e.String()+"\n"))
		})
	}
	require.Equal(t, "a b", Parse(entry(1, 1, OK, "a\nb").String() + "\n")[0].Text)
}

func TestTornAndForeignLinesAreSkipped(t *testing.T) {
	whole := entry(5, 1, OK, "")
	for name, text := range map[string]string{
		"torn last line":  whole.String() + "\n" + "17000000000000 50000 2 o",
		"empty line":      "\n" + whole.String() + "\n",
		"words":           "Killed by signal\n" + whole.String() + "\n",
		"not numbers":     "a b c ok x\n" + whole.String() + "\n",
		"zeros of a hole": "\x00\x00\x00\n" + whole.String() + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, Log{whole}, Parse(text))
		})
	}
}

func TestLongestGapIsBetweenAcknowledgements(t *testing.T) {
	for name, c := range map[string]struct {
		log  Log
		long time.Duration
		open bool
	}{
		"empty":      {},
		"only fails": {log: Log{entry(0, 1, Fail, ""), entry(900, 2, Fail, "")}},
		"one answer": {log: Log{entry(100, 1, OK, "")}},
		"failures inside a gap do not end it": {
			log:  Log{entry(0, 1, OK, ""), entry(100, 2, OK, ""), entry(200, 3, Fail, ""), entry(300, 4, Fail, ""), entry(2100, 5, OK, "")},
			long: 2000 * time.Millisecond,
		},
		"never came back": {
			log:  Log{entry(0, 1, OK, ""), entry(500, 2, OK, ""), entry(600, 3, Fail, ""), entry(3500, 4, Fail, "")},
			long: 3000 * time.Millisecond, open: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			gap := c.log.LongestGap()
			require.Equal(t, c.long, gap.Long)
			require.Equal(t, c.open, gap.Open)
		})
	}
}

func TestWallClockSetMeanwhileDoesNotMakeAGap(t *testing.T) {
	first, second := entry(0, 1, OK, ""), entry(100, 2, OK, "")
	second.Wall = second.Wall.Add(time.Hour)
	require.Equal(t, 100*time.Millisecond, Log{first, second}.LongestGap().Long)
}

func TestStripShowsWhereNothingWasAcknowledged(t *testing.T) {
	log := Log{entry(0, 1, OK, ""), entry(150, 2, OK, ""), entry(250, 3, Fail, ""), entry(420, 4, OK, ""), entry(9000, 5, OK, "")}
	from, _ := at(0)
	require.Equal(t, "██··█", log.Strip(from, 500*time.Millisecond, 100*time.Millisecond))
	require.Equal(t, "█··█·", log.Strip(from.Add(100*time.Millisecond), 500*time.Millisecond, 100*time.Millisecond))
	require.Empty(t, log.Strip(from, 0, 100*time.Millisecond))
}

func FuzzParseNeverPanics(f *testing.F) {
	f.Add(entry(5, 1, OK, "x").String() + "\n")
	f.Add("1 2 3\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range Parse(text) {
			again := Parse(e.String() + "\n")
			require.Len(t, again, 1)
			require.Equal(t, e.Seq, again[0].Seq)
		}
	})
}
