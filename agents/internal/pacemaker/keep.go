package pacemaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DefaultRecheck is how long a Ledger is believed before the cluster is asked again.
const DefaultRecheck = 5 * time.Minute

// A Ledger remembers between calls of the agent what was last written to the cluster, so that a
// monitor starts a child only when a value changed.
//
// The cluster forgets transient attributes on occasions that the agent is not told of. The ledger
// is therefore void after a reboot (Boot) and under another executor (Executor: Pacemaker was
// restarted on this node, which clears its transient attributes), and each entry must be compared
// with the cluster again after Recheck, in case attrd alone lost it. crm_resource --cleanup leaves
// attributes alone, but is followed by a probe, and a probe writes unconditionally.
type Ledger struct {
	// File holds the ledger; it belongs on a file system that does not survive a reboot. Empty:
	// nothing is remembered.
	File string
	// Boot and Executor identify the boot and the process that executes agents.
	Boot, Executor string
	// Now is the time of the call.
	Now time.Time
	// Recheck is how old an entry may be; 0 means DefaultRecheck.
	Recheck time.Duration
}

// ledgerFile is the content of Ledger.File.
type ledgerFile struct {
	Boot     string           `json:"boot"`
	Executor string           `json:"executor"`
	Entries  map[string]entry `json:"entries"`
}

type entry struct {
	Value string `json:"value"`
	// Written is the time in Unix seconds at which the cluster was last known to hold Value.
	Written int64 `json:"written"`
}

// freshness says how far an entry can be believed.
type freshness int

const (
	unknown  freshness = iota // nothing written by us, or another value
	stale                     // the value, but too long ago
	believed                  // the value, recently
)

// load reads the ledger; an unreadable, foreign or outdated one is empty.
func (l Ledger) load() ledgerFile {
	f := ledgerFile{Boot: l.Boot, Executor: l.Executor, Entries: map[string]entry{}}
	data, err := os.ReadFile(l.File)
	if err != nil {
		return f
	}
	var old ledgerFile
	if json.Unmarshal(data, &old) != nil || old.Boot != l.Boot || old.Executor != l.Executor || old.Entries == nil {
		return f
	}
	return old
}

func (l Ledger) look(key, value string) freshness {
	e, ok := l.load().Entries[key]
	if !ok || e.Value != value {
		return unknown
	}
	recheck := l.Recheck
	if recheck <= 0 {
		recheck = DefaultRecheck
	}
	age := l.Now.Sub(time.Unix(e.Written, 0))
	// A clock set back makes the age negative; such an entry proves nothing.
	if age < 0 || age >= recheck {
		return stale
	}
	return believed
}

// note records that the cluster holds value; forget takes the entry out. A ledger that cannot be
// written costs a child per monitor, nothing else, so callers may ignore the error.
func (l Ledger) note(key, value string) error {
	f := l.load()
	f.Entries[key] = entry{Value: value, Written: l.Now.Unix()}
	return l.store(f)
}

func (l Ledger) forget(key string) error {
	f := l.load()
	if _, ok := f.Entries[key]; !ok {
		return nil
	}
	delete(f.Entries, key)
	return l.store(f)
}

// Taken reports whether the ledger belongs to the cluster's own executor, which still runs and did
// not make this call: crm_resource --force-check and the like run an agent as their own child. Such
// a call would make the ledger void for the executor, so it does better without one.
func (l Ledger) Taken(root string) bool {
	data, err := os.ReadFile(l.File)
	var f ledgerFile
	if err != nil || json.Unmarshal(data, &f) != nil || f.Boot != l.Boot || f.Executor == l.Executor {
		return false
	}
	text, _, _ := strings.Cut(f.Executor, "@")
	pid, err := strconv.Atoi(text)
	if err != nil {
		return false
	}
	if now, err := Executor(root, pid); err != nil || now != f.Executor {
		return false
	}
	name, err := os.ReadFile(filepath.Join(root, "proc", text, "comm"))
	return err == nil && strings.TrimSpace(string(name)) == executorName
}

// executorName is the daemon of Pacemaker 2 that runs agents, as /proc/PID/comm has it (15 bytes).
const executorName = "pacemaker-execd"

func (l Ledger) store(f ledgerFile) error {
	if l.File == "" {
		return nil
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	// A rename, so that a call killed in the middle leaves the old ledger or the new one.
	tmp, err := os.CreateTemp(filepath.Dir(l.File), filepath.Base(l.File)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), l.File)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// scoreKey is the ledger's entry for the promotion score; node attributes stand under their name.
const scoreKey = "promotion score"

// KeepScore brings the promotion score to the given value and starts a child only when the ledger
// does not say that it is there already. force writes in any case: start and probes use it, since
// they follow what makes the cluster forget. written says that the cluster was told.
func (t Tools) KeepScore(ctx context.Context, l Ledger, score int, force bool) (written bool, err error) {
	score = max(score, 0)
	value := strconv.Itoa(score)
	if !force {
		switch l.look(scoreKey, value) {
		case believed:
			return false, nil
		case stale:
			if has, set, err := t.Score(ctx); err == nil && set == (score > 0) && has == score {
				return false, ignore(l.note(scoreKey, value))
			}
		case unknown:
		}
	}
	return t.keep(l, scoreKey, value, func() error { return t.SetScore(ctx, score) })
}

// KeepAttribute is KeepScore for a node attribute; the empty value means that it is not set.
func (t Tools) KeepAttribute(ctx context.Context, l Ledger, name, value string, force bool) (written bool, err error) {
	if !force && l.look(name, value) == believed {
		return false, nil
	}
	return t.keep(l, name, value, func() error { return t.SetAttribute(ctx, name, value) })
}

// Knows reports whether the ledger says that the attribute was written with this value, however
// long ago. It starts no child.
func (l Ledger) Knows(name, value string) bool { return l.look(name, value) != unknown }

// Unset reports whether the ledger says that the attribute is not set: it was removed, or nothing
// was ever written. A write that failed, or was killed, may have arrived and leaves it open. It
// starts no child.
func (l Ledger) Unset(name string) bool { return l.load().Entries[name].Value == "" }

// unsure is the value of an entry while it is being written and after that failed: whether it
// arrived is not known, and the next call must write, be it to take it back.
const unsure = "?"

func (t Tools) keep(l Ledger, key, value string, write func() error) (bool, error) {
	noted := ignore(l.note(key, unsure))
	if err := write(); err != nil {
		return false, errors.Join(err, noted)
	}
	return true, ignore(l.note(key, value))
}

// ignore drops what only says that the ledger's directory is missing or read-only.
func ignore(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	return err
}

// BootID is the kernel's identifier of this boot (random(4)), read below the given root.
func BootID(root string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/random/boot_id"))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}

// Executor identifies a process by its pid and start time (field 22 of /proc/PID/stat, proc(5)).
// Agents give their parent, which under Pacemaker is pacemaker-execd: a child of the same
// pacemakerd as attrd, so another executor means that the cluster was restarted on this node.
func Executor(root string, pid int) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The command name in parentheses may hold spaces and parentheses itself.
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const startTime = 22 - 3 // the fields after the name begin with number 3
	if len(fields) <= startTime {
		return "", fmt.Errorf("/proc/%d/stat: %d fields after the name, expected more than %d", pid, len(fields), startTime)
	}
	return strconv.Itoa(pid) + "@" + fields[startTime], nil
}

// Once reports whether this is the first call with this value for the key, and remembers it: for
// what is told once and not at every monitor. Without a ledger that can be written every call is
// the first. The empty value forgets, and is never the first.
func (l Ledger) Once(key, value string) bool {
	key = "once " + key
	if value == "" {
		_ = l.forget(key) // what cannot be forgotten was never remembered
		return false
	}
	if l.look(key, value) != unknown {
		return false
	}
	_ = l.note(key, value) // see above: telling twice is better than failing
	return true
}
