package ocf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// positional turns the arguments before the action into parameters: NAME=VALUE sets the
// parameter of that name, the rest goes to the agent's own form.
func (p Program) positional(args []string) (map[string]string, error) {
	values := map[string]string{}
	var plain []string
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if _, declared := p.Spec.Parameter(name); ok && declared {
			values[name] = value
			continue
		}
		if ok && isName(name) {
			return nil, fmt.Errorf("%s: %s has no parameter %s", quote(arg), p.Spec.Name, quote(name))
		}
		plain = append(plain, arg)
	}
	if len(plain) == 0 {
		return values, nil
	}
	if p.Positional == nil {
		return nil, fmt.Errorf("%s: %s takes only NAME=VALUE in haresources", quote(plain[0]), p.Spec.Name)
	}
	own, err := p.Positional(plain)
	if err != nil {
		return nil, err
	}
	for name, value := range own {
		if _, twice := values[name]; !twice {
			values[name] = value
		}
	}
	return values, nil
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
func (p Program) defaults(dir string) (map[string]string, error) {
	file := filepath.Join(dir, "baton-"+p.Spec.Name+".conf")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the defaults cannot be read: %w", err)
	}
	return p.parseDefaults(file, string(text))
}

func (p Program) parseDefaults(file, text string) (map[string]string, error) {
	values := map[string]string{}
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if _, declared := p.Spec.Parameter(name); !ok || !declared {
			return nil, &fs.PathError{Op: "line " + fmt.Sprint(n), Path: file, Err: fmt.Errorf("%s is not NAME=VALUE with a parameter of %s", quote(line), p.Spec.Name)}
		}
		values[name] = value
	}
	return values, nil
}

// statusWords is the answer that heartbeat reads. A state that could not be read must count as
// held: heartbeat then stops the resource before it gives it away, instead of forgetting it.
func statusWords(state State, err error) (words string, code int) {
	const lsbStopped, lsbUnknown = 3, 4 // LSB: exit codes of an init script's status
	switch {
	case err != nil:
		return "cannot determine the status, may be running", lsbUnknown
	case state == Stopped:
		return "stopped", lsbStopped
	case state == FailedPromoted:
		return "running (promoted, but failed)", codeGeneric
	}
	return "running OK", codeSuccess
}
