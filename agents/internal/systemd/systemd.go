// Package systemd asks systemd about units and starts and stops them, through systemctl. Each
// question is one bounded child process; what can be read from files is read from files.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/command"
)

// Runner runs a tool; command.Runner is the real one.
type Runner interface {
	Run(ctx context.Context, name string, args ...string) (command.Result, error)
}

// askLimit bounds a question to systemd: its manager answers in milliseconds, or hangs.
const askLimit = 5 * time.Second

// Manager is the systemd of a machine.
type Manager struct {
	// Runner runs systemctl; nil means the real one.
	Runner Runner
	// Root is the root directory of the machine; empty means /.
	Root string
}

func (m Manager) runner() Runner {
	if m.Runner != nil {
		return m.Runner
	}
	return command.Runner{}
}

func (m Manager) path(parts ...string) string {
	return filepath.Join(append([]string{"/", m.Root}, parts...)...)
}

// Present reports whether systemd is this machine's init, as sd_booted(3) does: by the
// directory /run/systemd/system. No child process.
func (m Manager) Present() bool {
	info, err := os.Lstat(m.path("run/systemd/system"))
	return err == nil && info.IsDir()
}

// Unit is what systemd says of one unit, in its own words.
type Unit struct {
	Name    string // as asked for
	Load    string // loaded, not-found, masked, bad-setting, error
	Active  string // active, reloading, inactive, failed, activating, deactivating
	Sub     string // running, exited, mounted, listening, dead, …
	File    string // enabled, enabled-runtime, static, disabled, masked, indirect, …; empty for a unit without a file
	MainPID int    // of a service; 0 if it has none
}

// Exists reports whether this machine has the unit at all.
func (u Unit) Exists() bool { return u.Load != "" && u.Load != "not-found" }

// Running reports whether the unit is up or on its way there.
func (u Unit) Running() bool {
	return u.Active == "active" || u.Active == "activating" || u.Active == "reloading"
}

// Enabled reports whether something starts the unit by itself at boot. Units that are pulled in
// by others (static, indirect) start only with those.
func (u Unit) Enabled() bool { return u.File == "enabled" || u.File == "enabled-runtime" }

// Error says which question or order to systemd failed.
type Error struct {
	Op   string // "show", "start", "stop"
	Unit string // or several, separated by spaces
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("systemctl %s %s: %v", e.Op, e.Unit, e.Err) }

// Unwrap gives the cause, a *command.Error as a rule.
func (e *Error) Unwrap() error { return e.Err }

// Show asks about the named units, in one call. The answer has one Unit for each name, in the
// same order; a unit that the machine does not have is there with Load "not-found".
func (m Manager) Show(ctx context.Context, names ...string) ([]Unit, error) {
	if len(names) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	args := append([]string{
		"show", "--no-pager", "--property=LoadState,ActiveState,SubState,UnitFileState,MainPID", "--",
	}, names...)
	res, err := m.runner().Run(ctx, "systemctl", args...)
	if err != nil {
		return nil, &Error{Op: "show", Unit: strings.Join(names, " "), Err: err}
	}
	units := parseShow(string(res.Stdout))
	if len(units) != len(names) {
		return nil, &Error{
			Op: "show", Unit: strings.Join(names, " "),
			Err: fmt.Errorf("%d answers for %d units", len(units), len(names)),
		}
	}
	for i := range units {
		units[i].Name = names[i]
	}
	return units, nil
}

// parseShow reads the answers of `systemctl show`, NAME=VALUE lines with an empty line between
// two units, in systemd's order of properties:
//
//	MainPID=0
//	LoadState=loaded
//	ActiveState=inactive
//	SubState=dead
//	UnitFileState=disabled
//
// Properties that a unit does not have (MainPID of a mount) are left out.
func parseShow(text string) []Unit {
	var units []Unit
	var u Unit
	open := false
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, "\r")
		if line == "" {
			if open {
				units = append(units, u)
			}
			u, open = Unit{}, false
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		open = true
		switch name {
		case "LoadState":
			u.Load = value
		case "ActiveState":
			u.Active = value
		case "SubState":
			u.Sub = value
		case "UnitFileState":
			u.File = value
		case "MainPID":
			u.MainPID, _ = strconv.Atoi(value)
		}
	}
	if open {
		units = append(units, u)
	}
	return units
}

// Start starts the unit and waits for the job's end, at most until ctx ends.
func (m Manager) Start(ctx context.Context, name string) error { return m.order(ctx, "start", name) }

// Stop stops the unit and waits for the job's end, at most until ctx ends.
func (m Manager) Stop(ctx context.Context, name string) error { return m.order(ctx, "stop", name) }

func (m Manager) order(ctx context.Context, op, name string) error {
	if _, err := m.runner().Run(ctx, "systemctl", op, "--", name); err != nil {
		return &Error{Op: op, Unit: name, Err: err}
	}
	return nil
}

// StartedAtBoot are those of the named units that a target or another unit pulls in at boot, told
// by the links below /etc/systemd/system that `systemctl enable` makes (systemd.unit(5),
// ".wants/" and ".requires/"). Masked units are left out. It starts no child process and works
// on a machine where systemd does not answer.
func (m Manager) StartedAtBoot(names ...string) ([]string, error) {
	dir := m.path("etc/systemd/system")
	wanted := map[string]bool{}
	for _, pattern := range []string{"*.wants", "*.requires"} {
		dirs, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		for _, d := range dirs {
			entries, err := os.ReadDir(d)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				wanted[e.Name()] = true
			}
		}
	}
	var found []string
	for _, name := range names {
		if target, err := os.Readlink(filepath.Join(dir, name)); err == nil && target == os.DevNull {
			continue
		}
		if wanted[name] {
			found = append(found, name)
		}
	}
	return found, nil
}
