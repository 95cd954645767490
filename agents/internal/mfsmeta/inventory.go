package mfsmeta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Base is a metadata file that recovery could begin with.
type Base struct {
	Path string
	Size int64
	Header
	// Err says why it cannot be used; it wraps ErrDamaged where its content is at fault.
	Err error
}

// Name is the file's name without its directory.
func (b Base) Name() string { return filepath.Base(b.Path) }

// Usable reports whether recovery can begin with it: whole, and of a file system that existed.
func (b Base) Usable() bool { return b.Err == nil && !b.New }

// Chain says who wrote a changelog. Within one chain, each id stands in one file only.
type Chain string

// The chains, by the beginning of the files' names.
const (
	// Master: changelog.N.mfs, written by a master; 0 is the newest.
	Master Chain = "changelog"
	// Metalogger: changelog_ml.N.mfs, written by a metalogger while it follows.
	Metalogger Chain = "changelog_ml"
	// Download: changelog_ml_back.N.mfs, the master's own 0 and 1 as a metalogger downloaded them.
	Download Chain = "changelog_ml_back"
)

// Log is one changelog, seen at its two ends.
type Log struct {
	Path   string
	Chain  Chain
	Number int
	Size   int64
	// First and Last are the ids of the first and the last change; 0 where the ends do not tell.
	First, Last uint64
	// Torn: bytes that are no whole line follow the last change.
	Torn bool
	Err  error
}

// Name is the file's name without its directory.
func (l Log) Name() string { return filepath.Base(l.Path) }

// Inventory is what a directory holds, from the ends of its files. Making it takes the same time
// for files of any size.
type Inventory struct {
	Dir   string
	Bases []Base // newest version first
	Logs  []Log  // oldest first within each chain
	// Unfinished are dumps that were not completed (metadata.mfs.back.tmp): never to be used, but
	// mfsmaster -a would consider them.
	Unfinished []string
}

// minBaseName: mfsmaster -a takes every file whose name begins with "metadata" and is longer than
// that word for a candidate, whatever follows.
const minBaseName = "metadata"

// List reads the directory. Files that cannot be read are listed with their error: what is there
// but unreadable must never look absent.
func List(dir string) (Inventory, error) {
	inv := Inventory{Dir: dir}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return inv, err
	}
	for _, e := range entries {
		name, path := e.Name(), filepath.Join(dir, e.Name())
		chain, number, isLog := LogName(name)
		switch {
		case isLog:
			inv.Logs = append(inv.Logs, lookAtLog(path, chain, number))
		case isBase(name):
			if b, there := lookAtBase(path); there {
				inv.Bases = append(inv.Bases, b)
			}
		case strings.HasPrefix(name, minBaseName) && strings.HasSuffix(name, ".tmp"):
			inv.Unfinished = append(inv.Unfinished, path)
		}
	}
	inv.sort()
	return inv, nil
}

func (inv *Inventory) sort() {
	slices.SortStableFunc(inv.Bases, func(a, b Base) int {
		switch {
		case a.Usable() != b.Usable():
			if a.Usable() {
				return -1
			}
			return 1
		case a.Version != b.Version:
			if a.Version > b.Version {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Path, b.Path)
	})
	slices.SortStableFunc(inv.Logs, func(a, b Log) int {
		if a.Chain != b.Chain {
			return strings.Compare(string(a.Chain), string(b.Chain))
		}
		return b.Number - a.Number
	})
}

// isBase: metadata.crc and metadata.mfs.back.tmp begin with the word and are no candidates to us:
// the first holds checksums, the second is a dump that was not finished.
func isBase(name string) bool {
	return len(name) > len(minBaseName) && strings.HasPrefix(name, minBaseName) &&
		!strings.HasSuffix(name, ".tmp") && name != "metadata.crc"
}

// LogName takes a changelog's name apart.
func LogName(name string) (chain Chain, number int, ok bool) {
	rest, ok := strings.CutSuffix(name, ".mfs")
	if !ok {
		return "", 0, false
	}
	word, digits, ok := strings.Cut(rest, ".")
	if !ok {
		return "", 0, false
	}
	number, err := strconv.Atoi(digits)
	if err != nil || number < 0 || digits != strconv.Itoa(number) {
		return "", 0, false
	}
	switch c := Chain(word); c {
	case Master, Metalogger, Download:
		return c, number, true
	}
	return "", 0, false
}

func lookAtBase(path string) (Base, bool) {
	b := Base{Path: path}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
		return b, false
	}
	if err != nil {
		b.Err = err
		return b, true
	}
	b.Size = info.Size()
	b.Header, b.Err = ReadHeader(path)
	if errors.Is(b.Err, fs.ErrNotExist) {
		return b, false
	}
	return b, true
}

func lookAtLog(path string, chain Chain, number int) Log {
	l := Log{Path: path, Chain: chain, Number: number}
	if info, err := os.Lstat(path); err == nil {
		l.Size = info.Size()
	}
	l.First, l.Last, l.Torn, l.Err = ends(path)
	return l
}

// Emergency looks for the files into which a dying master saves its metadata when its own
// directory is full: metadata.mfs.emergency in the home directory of its user and in a few public
// places (the order of mfsmaster 3.0's emergency save). Files of another file system are left out.
// root is prefixed to each place.
func Emergency(root, home string, metaID uint64) []Base {
	places := []string{home, "/", "/tmp", "/var", "/usr", "/usr/share", "/usr/local", "/usr/local/var", "/usr/local/share"}
	var found []Base
	for _, dir := range places {
		if dir == "" {
			continue
		}
		b, there := lookAtBase(filepath.Join(root, dir, "metadata.mfs.emergency"))
		if there && (b.Err != nil || b.MetaID == metaID) {
			found = append(found, b)
		}
	}
	return found
}

// MetaIDs are the different file systems that the usable bases belong to.
func (inv Inventory) MetaIDs() []uint64 {
	var ids []uint64
	for _, b := range inv.Bases {
		if b.Usable() && b.MetaID != 0 && !slices.Contains(ids, b.MetaID) {
			ids = append(ids, b.MetaID)
		}
	}
	return ids
}

// Last is the highest id that the ends of the changelogs of the given chains show, 0 for none.
func (inv Inventory) Last(chains ...Chain) uint64 {
	var last uint64
	for _, l := range inv.Logs {
		if slices.Contains(chains, l.Chain) {
			last = max(last, l.Last)
		}
	}
	return last
}

// Base finds a metadata file by name.
func (inv Inventory) Base(name string) (Base, bool) {
	for _, b := range inv.Bases {
		if b.Name() == name {
			return b, true
		}
	}
	return Base{}, false
}

// Unreadable is the first file that is there and could not be read for a reason other than its
// content: permission, I/O, a symbolic link. nil where there is none.
func (inv Inventory) Unreadable() error {
	for _, b := range inv.Bases {
		if b.Err != nil && !errors.Is(b.Err, ErrDamaged) {
			return b.Err
		}
	}
	for _, l := range inv.Logs {
		if l.Err != nil {
			return l.Err
		}
	}
	return nil
}

// String is for messages.
func (inv Inventory) String() string {
	return fmt.Sprintf("%s: %d metadata files, %d changelogs", inv.Dir, len(inv.Bases), len(inv.Logs))
}
