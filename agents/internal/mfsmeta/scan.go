package mfsmeta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Tear is what a crash left behind the last whole line of a changelog.
type Tear struct {
	Path string
	// Keep is the length to cut the file to, Size what it was when it was read.
	Keep, Size int64
}

// Cut is the number of bytes that are no change.
func (t Tear) Cut() int64 { return t.Size - t.Keep }

// Hole is a range of ids that no changelog has, both inclusive.
type Hole struct{ From, To uint64 }

func (h Hole) String() string {
	if h.From == h.To {
		return fmt.Sprintf("change %d", h.From)
	}
	return fmt.Sprintf("changes %d to %d", h.From, h.To)
}

// Fork is the first id for which two changelogs hold different changes: their histories part there.
type Fork struct {
	ID   uint64
	A, B string // the two files
}

// Scan is what the changelogs hold from one id on, all of them taken together.
type Scan struct {
	// From is the first id of interest: the version of the base.
	From uint64
	// Next is the id behind the last one that follows From without a hole: the version that can be
	// restored. It equals From where there is nothing to replay.
	Next uint64
	// Own is like Next for the files of the first directory alone.
	Own uint64
	// Highest is the highest id of all, 0 without changes. It is Next-1 where there is no hole.
	Highest uint64
	// Lines is the number of changes read. Overlap counts the ids that both the first directory and
	// another one have, with the same change in all files.
	Lines, Overlap uint64
	MetaID         uint64 // of a SETMETAID among them, else 0
	Tears          []Tear
	Hole           *Hole
	Fork           *Fork
	// Damaged are files with unreadable bytes between two changes; Disordered are files in which
	// an id repeats or goes back.
	Damaged, Disordered []string
}

// Clean reports whether everything that was read is one history without holes.
func (s Scan) Clean() bool {
	return s.Hole == nil && s.Fork == nil && len(s.Damaged) == 0 && len(s.Disordered) == 0
}

// Select are the logs that a scan from the given id must read: those that reach it, those whose
// ends do not tell, and torn ones, whose tails are to be found. Others hold nothing to replay.
func Select(logs []Log, from uint64) []Log {
	var selected []Log
	for _, l := range logs {
		if l.Size > 0 && (l.Last == 0 || l.Last >= from || l.First == 0 || l.Torn) {
			selected = append(selected, l)
		}
	}
	return selected
}

// chain is one chain of one directory, read file after file.
type chain struct {
	logs  []Log
	own   bool
	cur   *lines
	id    uint64 // of the line at hand; 0 at the end
	line  []byte
	prev  uint64
	prior string // path of the file that prev came from
}

// ScanLogs reads each of the logs exactly once, side by side in the order of ids, in constant
// memory, and compares what they say of the same id byte for byte. logs may come from several
// directories; own is the one whose reach Scan.Own tells.
func ScanLogs(own string, logs []Log, from uint64) (Scan, error) {
	s := Scan{From: from, Next: from, Own: from}
	chains := split(own, logs)
	defer func() {
		for _, c := range chains {
			if c.cur != nil {
				c.cur.close()
			}
		}
	}()
	for _, c := range chains {
		if err := c.advance(&s); err != nil {
			return s, err
		}
	}
	for {
		lead := lowest(chains)
		if lead == nil {
			return s, nil
		}
		id := lead.id
		s.count(lead, id)
		own, other, agreed := lead.own, !lead.own, true
		for _, c := range chains {
			if c == lead || c.id != id {
				continue
			}
			if c.own {
				s.reach(&s.Own, id)
			}
			s.Lines++
			own, other = own || c.own, other || !c.own
			if !bytes.Equal(c.line, lead.line) {
				agreed = false
				if s.Fork == nil {
					s.Fork = &Fork{ID: id, A: lead.cur.name, B: c.cur.name}
				}
			}
			if err := c.advance(&s); err != nil {
				return s, err
			}
		}
		if own && other && agreed {
			s.Overlap++
		}
		if err := lead.advance(&s); err != nil {
			return s, err
		}
	}
}

func (s *Scan) count(lead *chain, id uint64) {
	s.Lines++
	s.Highest = max(s.Highest, id)
	if m, ok := metaIDOf(lead.line); ok && s.MetaID == 0 {
		s.MetaID = m
	}
	if lead.own {
		s.reach(&s.Own, id)
	}
	if id > s.Next && s.Hole == nil {
		s.Hole = &Hole{From: s.Next, To: id - 1}
	}
	if s.Hole == nil {
		s.reach(&s.Next, id)
	}
}

func (s *Scan) reach(next *uint64, id uint64) {
	if id == *next {
		*next = id + 1
	}
}

func split(own string, logs []Log) []*chain {
	type key struct {
		dir   string
		chain Chain
	}
	byKey := map[key]*chain{}
	var chains []*chain
	for _, l := range logs {
		k := key{dirOf(l), l.Chain}
		c := byKey[k]
		if c == nil {
			c = &chain{own: k.dir == own}
			byKey[k] = c
			chains = append(chains, c)
		}
		c.logs = append(c.logs, l)
	}
	for _, c := range chains {
		slices.SortStableFunc(c.logs, func(a, b Log) int { return b.Number - a.Number })
	}
	return chains
}

func dirOf(l Log) string { return l.Path[:max(0, len(l.Path)-len(l.Name())-1)] }

func lowest(chains []*chain) *chain {
	var lead *chain
	for _, c := range chains {
		if c.id != 0 && (lead == nil || c.id < lead.id) {
			lead = c
		}
	}
	return lead
}

// advance goes to the next line of the chain, over the ends of files. What it finds wrong with a
// file is noted when that file has been read.
func (c *chain) advance(s *Scan) error {
	for {
		if c.cur == nil {
			if len(c.logs) == 0 {
				c.id, c.line = 0, nil
				return nil
			}
			cur, err := openLines(c.logs[0].Path)
			if err != nil {
				return err
			}
			c.cur, c.logs = cur, c.logs[1:]
		}
		id, line, err := c.cur.next()
		if errors.Is(err, io.EOF) {
			c.finish(s)
			continue
		}
		if err != nil {
			return err
		}
		if id <= c.prev {
			// The line is left out: in this order it has no place in a merge.
			s.Disordered = appendOnce(s.Disordered, c.cur.name)
			continue
		}
		c.id, c.line, c.prev, c.prior = id, line, id, c.cur.name
		return nil
	}
}

func (c *chain) finish(s *Scan) {
	l := c.cur
	switch {
	case l.resumed:
		s.Damaged = append(s.Damaged, l.name)
	case l.good != l.at:
		s.Tears = append(s.Tears, Tear{Path: l.name, Keep: l.good, Size: l.at})
	}
	l.close()
	c.cur = nil
}

func appendOnce(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
