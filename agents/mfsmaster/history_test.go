package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHistoryIsReadAsItIsWritten(t *testing.T) {
	h := history{MetaID: 0x6b0183725f682e43, Version: 503, Epoch: 2, Fork: 500}
	read, err := parseHistory(h.String())
	require.NoError(t, err)
	require.Equal(t, h, read)
	read, err = parseHistory("metaid=7 version=1 something=new epoch=3")
	require.NoError(t, err)
	require.Equal(t, history{MetaID: 7, Version: 1, Epoch: 3}, read)
	read, err = parseHistory(" \n")
	require.NoError(t, err)
	require.Zero(t, read)
	for _, bad := range []string{"metaid=zz", "version=5", "metaid=7 version=-1", "metaid=7 epoch=99999999999999999999999", "(null)"} {
		_, err = parseHistory(bad)
		require.Error(t, err, bad)
	}
}

func FuzzHistory(f *testing.F) {
	f.Add("metaid=7 version=1 epoch=3 fork=4")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parseHistory(text)
		if err != nil || h.MetaID == 0 {
			return
		}
		if again, err := parseHistory(h.String()); err != nil || again != h {
			t.Fatalf("%q became %q", text, again)
		}
	})
}

func TestOnlyCopiesOfTheClustersHistoryMayBePromoted(t *testing.T) {
	h := history{MetaID: 7, Version: 500, Epoch: 3, Fork: 400}
	for name, c := range map[string]struct {
		copy copyOf
		want standing
	}{
		"nothing":                                 {copyOf{}, unusable},
		"nothing that can be recovered":           {copyOf{exists: true, broken: "no usable metadata file", epoch: 3}, unusable},
		"another file system":                     {copyOf{exists: true, metaID: 8, version: 900, epoch: 3}, alien},
		"follower of the present master":          {copyOf{exists: true, metaID: 7, version: 501, epoch: 3}, current},
		"follower without a meta id yet":          {copyOf{exists: true, version: 501, epoch: 3}, current},
		"master before, stopped at the fork":      {copyOf{exists: true, metaID: 7, version: 400, epoch: 2}, behind},
		"follower before, cut off earlier":        {copyOf{exists: true, metaID: 7, version: 350, epoch: 2}, behind},
		"master before, died with more":           {copyOf{exists: true, metaID: 7, version: 401, epoch: 2}, astray},
		"more changes than the present one":       {copyOf{exists: true, metaID: 7, version: 9000, epoch: 2}, astray},
		"two lives ago":                           {copyOf{exists: true, metaID: 7, version: 10, epoch: 1}, astray},
		"of the future (the record was put back)": {copyOf{exists: true, metaID: 7, version: 600, epoch: 4}, astray},
	} {
		require.Equal(t, c.want, h.place(c.copy), name)
	}
	require.Equal(t, current, history{}.place(copyOf{exists: true, metaID: 9, version: 5}), "without a record every copy is as good")
}

func TestTheNewestOfTheTwoCopiesIsTaken(t *testing.T) {
	h := history{MetaID: 7, Version: 500, Epoch: 3, Fork: 400}
	current := func(v uint64) copyOf { return copyOf{exists: true, metaID: 7, version: v, epoch: 3} }
	behind := copyOf{exists: true, metaID: 7, version: 400, epoch: 2}
	astray := copyOf{exists: true, metaID: 7, version: 450, epoch: 2}
	for name, c := range map[string]struct {
		own, logger   copyOf
		useLogger, ok bool
	}{
		"follower":                       {behind, current(510), true, true},
		"master that crashed":            {current(510), current(480), false, true},
		"both equal: the master's own":   {current(510), current(510), false, true},
		"metalogger not synced yet":      {behind, copyOf{}, false, true},
		"stale master, synced follower":  {astray, current(510), true, true},
		"stale master alone":             {astray, copyOf{}, false, false},
		"nothing":                        {copyOf{}, copyOf{}, false, false},
		"metalogger alone":               {copyOf{}, current(510), true, true},
		"both behind: newest of the two": {copyOf{exists: true, metaID: 7, version: 300, epoch: 2}, behind, true, true},
	} {
		useLogger, ok, why := h.best(c.own, c.logger)
		require.Equal(t, c.ok, ok, name)
		require.Equal(t, c.useLogger, useLogger, name)
		require.Equal(t, !ok, why != "", name)
	}
}

func TestScoresOrderNodesByWhatTheyWouldLose(t *testing.T) {
	known := history{MetaID: 7, Version: 1000}
	for name, pair := range map[string][2]int{
		"serving beats following":                     {scoreServing, followerScore(1000, 1000)},
		"a second behind counts as level":             {followerScore(1000, 5000) + 1, followerScore(5000, 5000)},
		"far behind loses":                            {followerScore(90000, 100000), followerScore(50000, 100000)},
		"any follower beats a copy from a cold start": {followerScore(1, maxLag), coldScore(1<<40, known)},
		"cold: each change counts":                    {coldScore(1001, known), coldScore(1000, known)},
		"cold: older loses":                           {coldScore(1000, known), coldScore(999, known)},
		"cold: far older loses":                       {coldScore(900, known), coldScore(1, history{Version: 1 << 50})},
		"even the last has a score":                   {coldScore(1, history{Version: 1 << 50}) + 1, scoreLast},
	} {
		require.Greater(t, pair[0], pair[1], name)
	}
	require.Less(t, scoreServing, 1000000, "below INFINITY")
	require.Equal(t, followerScore(1000, 1000), followerScore(2000, 1000), "ahead of what the master said a moment ago")
}

func TestAMasterThatHasEndedIsPreferredOnlyIfItsCopyIsWhole(t *testing.T) {
	for name, c := range map[string]struct {
		estate
		want bool
	}{
		"synced, after a power cut":                      {estate{version: 100, served: 90, synced: true}, true},
		"synced, but the disk was full":                  {estate{version: 80, served: 90, synced: true, written: true, here: true}, false},
		"written at once, killed":                        {estate{version: 100, served: 90, written: true, here: true}, true},
		"written at once, after a power cut":             {estate{version: 100, served: 90, written: true}, false},
		"written later, killed":                          {estate{version: 100, served: 90, here: true}, false},
		"written later, stopped":                         {estate{version: 100, served: 90, here: true, clean: true}, true},
		"written later, stopped, after a power cut":      {estate{version: 100, served: 90, clean: true}, false},
		"stopped, but older files were put in its place": {estate{version: 80, served: 90, here: true, clean: true}, false},
	} {
		require.Equal(t, c.want, c.whole(), name)
	}
}

func TestAFollowerThatLacksWhatTheMasterHadIsNotPromoted(t *testing.T) {
	known := history{MetaID: 7, Version: 400, Epoch: 3, Fork: 400}
	l := lead{}.next(known, 410, 0)
	require.False(t, l.lost(400), "just promoted: it may be downloading")
	require.True(t, l.next(known, 1000, settled).lost(400), "its epoch has gone on without this copy")
	require.False(t, l.next(known, 1000, settled-1).lost(400))
	require.False(t, l.next(known, 1000, settled).lost(410))
	require.True(t, lead{}.next(known, 400+maxLag+1, 0).lost(400), "so much is not lost in a second")

	seen := l.next(known, 1000, settled)
	require.Equal(t, seen, parseLead(seen.String()))
	require.Zero(t, parseLead("?"))
	after := known
	after.Epoch, after.Fork = 4, 900
	require.False(t, seen.of(after))
	require.Equal(t, lead{epoch: 4, fork: 900, latest: 905}, seen.next(after, 905, settled), "another master")
	require.Equal(t, lead{epoch: 3, fork: 400, latest: 500}, seen.next(known, 500, settled), "the master was put back by hand")
	require.Equal(t, uint64(1000), seen.next(known, 1000, -time.Hour).before, "the clock was set back")
}

func TestWhyANodeIsNoCandidateIsToldWithoutNumbers(t *testing.T) {
	h := history{MetaID: 7, Version: 500, Epoch: 3, Fork: 400}
	for want, c := range map[string][2]copyOf{
		"not promotable: master's copy of an ended epoch, metalogger's empty":           {{exists: true, metaID: 7, version: 450, epoch: 2}, {}},
		"not promotable: master's copy of another file system, metalogger's incomplete": {{exists: true, metaID: 8}, {exists: true, broken: "no usable metadata file"}},
	} {
		require.Equal(t, want, h.brief(c[0], c[1]))
	}
}
