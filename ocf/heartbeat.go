package ocf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"baton/metadata"
)

// heartbeat 3 in haresources mode calls `/etc/ha.d/resource.d/NAME ARG... start|stop|status`
// (ResourceManager, req_resource). It ignores the exit code of status and reads its standard
// output, in this order: *[Nn][Oo][Tt]\ *[Rr]unning* means not held; *[Rr]unning* or *OK* means
// held; anything else, not held. It sets no timeout and no OCF environment.

// heartbeatActions are all that heartbeat ever calls.
var heartbeatActions = []string{"start", "stop", "status"}

// calledByHeartbeat: the binary is linked into a directory resource.d (OCF agents lie one level
// deeper, in resource.d/PROVIDER), or the arguments have the positional form.
func calledByHeartbeat(spec metadata.Agent, argv0 string, args []string) bool {
	if len(args) == 0 || !slices.Contains(heartbeatActions, args[len(args)-1]) {
		return false
	}
	if filepath.Base(filepath.Dir(argv0)) == "resource.d" {
		return true
	}
	if len(args) < 2 || strings.HasPrefix(args[0], "-") || args[0] == "status" {
		return false
	}
	return !spec.Declares(args[0])
}

// heartbeatConfig is where the directory of ha.cf, haresources and the defaults lies: beside the
// resource.d that the agent was called from, else HA_DIR, else Debian's and RHEL's /etc/ha.d.
func heartbeatConfig(argv0 string, env environ) string {
	if dir := filepath.Dir(argv0); filepath.Base(dir) == "resource.d" && filepath.IsAbs(dir) {
		return filepath.Dir(dir)
	}
	if dir := env["HA_DIR"]; filepath.IsAbs(dir) {
		return dir
	}
	return "/etc/ha.d"
}

// fromHeartbeat is what a line of haresources and the file of defaults say.
type fromHeartbeat struct {
	values map[string]string
	// deadlines by action, where given: heartbeat itself would wait for ever.
	deadlines map[string]time.Duration
}

// deadlineSuffix makes start_timeout, stop_timeout and status_timeout: no parameters of the agent,
// but they may stand where parameters do.
const (
	deadlineSuffix = "_timeout"
	mostSeconds    = 24 * 60 * 60
)

// set takes one NAME=VALUE. It says false where the name is neither a parameter nor a deadline.
func (f fromHeartbeat) set(spec metadata.Agent, name, value string) (bool, error) {
	if par, declared := spec.Parameter(name); declared {
		f.values[par.Name] = value
		return true, nil
	}
	action, ok := strings.CutSuffix(name, deadlineSuffix)
	if !ok || !slices.Contains(heartbeatActions, action) {
		return false, nil
	}
	n, ok := wholeSeconds(value)
	if !ok || n < 1 || n > mostSeconds {
		return true, fmt.Errorf("%s=%s: expected a whole number of seconds from 1 to %d", name, quote(value), mostSeconds)
	}
	f.deadlines[action] = time.Duration(n) * time.Second
	return true, nil
}

// heartbeatValues reads the defaults, then the arguments before the action, which win. What
// cannot be understood is left out and told in the error: the rest may be enough to stop.
func (p Program) heartbeatValues(dir string, args []string) (fromHeartbeat, error) {
	f := fromHeartbeat{values: map[string]string{}, deadlines: map[string]time.Duration{}}
	return f, errors.Join(p.defaults(f, dir), p.positional(f, args))
}

// positional turns the arguments before the action into parameters: NAME=VALUE sets the
// parameter of that name, the rest goes to the agent's own form.
func (p Program) positional(f fromHeartbeat, args []string) error {
	var plain []string
	var errs []error
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || !isName(name) {
			plain = append(plain, arg)
			continue
		}
		switch known, err := f.set(p.Spec, name, value); {
		case err != nil:
			errs = append(errs, err)
		case !known:
			errs = append(errs, fmt.Errorf("%s: %s has no parameter %s", quote(arg), p.Spec.Name, quote(name)))
		}
	}
	if len(plain) == 0 {
		return errors.Join(errs...)
	}
	if p.Positional == nil {
		return errors.Join(append(errs, fmt.Errorf("%s: %s takes only NAME=VALUE in haresources", quote(plain[0]), p.Spec.Name))...)
	}
	own, err := p.Positional(plain)
	for name, value := range own {
		// The named form is the more explicit one: `vip::192.0.2.50/24::cidr_netmask=32`.
		if !slices.ContainsFunc(args, func(arg string) bool { return p.names(arg, name) }) {
			f.values[name] = value
		}
	}
	return errors.Join(append(errs, err)...)
}

// names: the argument is NAME=VALUE with the parameter's name or an alias of it.
func (p Program) names(arg, parameter string) bool {
	name, _, ok := strings.Cut(arg, "=")
	par, declared := p.Spec.Parameter(name)
	return ok && declared && par.Name == parameter
}

// isName tells a mistyped parameter from a positional argument that happens to hold a '='.
func isName(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// defaults reads the agent's file of defaults, DIR/baton-NAME.conf: lines NAME=VALUE, blank lines
// and lines that start with # are skipped. A missing file is no defaults.
func (p Program) defaults(f fromHeartbeat, dir string) error {
	file := filepath.Join(dir, "baton-"+p.Spec.Name+".conf")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the defaults cannot be read: %w", err)
	}
	return p.parseDefaults(f, file, string(text))
}

func (p Program) parseDefaults(f fromHeartbeat, file, text string) error {
	var errs []error
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		known, err := f.set(p.Spec, strings.TrimSpace(name), strings.TrimSpace(value))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s line %d: %w", file, n, err))
		case !ok || !known:
			errs = append(errs, fmt.Errorf("%s line %d: %s is not NAME=VALUE with a parameter of %s", file, n, quote(line), p.Spec.Name))
		}
	}
	return errors.Join(errs...)
}

// statusWords is the answer that heartbeat reads. A state that could not be read must count as
// held: after a stop that failed ten times heartbeat asks once more, and would give the resource
// to the other node if it were told that nothing is held here. The words must not hold "not "
// before "running" in any form, not even within "cannot": that pattern comes first and means the
// opposite.
func statusWords(state State, err error) (words string, code int) {
	const lsbStopped, lsbUnknown = 3, 4 // LSB: exit codes of an init script's status
	switch {
	case err != nil:
		return "state unknown, counts as running", lsbUnknown
	case state == Stopped:
		return "stopped", lsbStopped
	case state == FailedPromoted:
		return "running (promoted, but failed)", codeGeneric
	}
	return "running OK", codeSuccess
}
