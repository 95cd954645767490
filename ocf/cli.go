package ocf

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"baton/metadata"
)

// version is stamped by the Makefile (-X baton/ocf.version=…).
var version = "unreleased"

// invocation is one command line, understood.
type invocation struct {
	action     string
	extra      []string          // arguments after the action
	values     map[string]string // parameters given by -o or in the positional form
	level      int
	levelSet   bool
	timeout    time.Duration
	debug      bool
	help, vers bool
}

// parseArgs understands the command line of a cluster (the action as sole argument; whatever
// follows is ignored, OCF 1.1 section "Invocation") and of a person (options, then nothing more).
func parseArgs(agent string, args []string, caller Caller) (invocation, error) {
	if caller == Cluster && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return invocation{action: args[0], extra: args[1:]}, nil
	}
	var inv invocation
	var options []string
	fs := flags(agent, &inv, &options)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			inv.help = true
			return inv, nil
		}
		return inv, err
	}
	inv.levelSet = fs.Changed("level")
	switch {
	case inv.level < 0:
		return inv, fmt.Errorf("--level %d: expected 0, 10 or 20", inv.level)
	case fs.Changed("timeout") && inv.timeout <= 0:
		return inv, fmt.Errorf("--timeout %v: expected a time such as 30s", inv.timeout)
	}
	rest := fs.Args()
	if inv.help || inv.vers {
		return inv, nil
	}
	if len(rest) == 0 {
		return inv, errors.New("no action given")
	}
	inv.action, inv.extra = rest[0], rest[1:]
	inv.values = map[string]string{}
	for _, o := range options {
		name, value, ok := strings.Cut(o, "=")
		if !ok || name == "" {
			return inv, fmt.Errorf("-o %s: expected NAME=VALUE", quote(o))
		}
		inv.values[name] = value
	}
	if len(inv.extra) > 0 && caller == Hand {
		return inv, fmt.Errorf("%s after the action %s; give parameters as -o NAME=VALUE", quote(inv.extra[0]), inv.action)
	}
	return inv, nil
}

func flags(agent string, inv *invocation, options *[]string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(agent, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.SortFlags = false
	fs.StringArrayVarP(options, "option", "o", nil, "set a `parameter` (NAME=VALUE); may be repeated")
	fs.IntVarP(&inv.level, "level", "l", 0, "check level of monitor and validate-all (OCF_CHECK_LEVEL): 0, 10, 20")
	fs.DurationVarP(&inv.timeout, "timeout", "t", 0, "end the action after this time, such as 30s (default: the advised one)")
	fs.BoolVarP(&inv.debug, "debug", "d", false, "log details as well")
	fs.BoolVar(&inv.vers, "version", false, "print the version and end")
	fs.BoolVarP(&inv.help, "help", "h", false, "print this text and end")
	return fs
}

// usage writes the help text from the declaration.
func usage(w io.Writer, spec metadata.Agent) {
	var inv invocation
	var options []string
	fmt.Fprintf(w, "%s: %s\n\n", spec.Name, spec.ShortDesc)
	fmt.Fprintf(w, "Usage: %s ACTION [-o NAME=VALUE]...\n", spec.Name)
	form := spec.Name
	if spec.Positional != "" {
		form += " " + spec.Positional
	}
	form += " [NAME=VALUE]... start|stop|status"
	fmt.Fprintf(w, "       %s   (heartbeat's form)\n\nActions:\n", form)
	for _, name := range actionNames(spec) {
		fmt.Fprintf(w, "  %-13s %s\n", name, actionHelp[name])
	}
	fmt.Fprintf(w, "\nParameters (in the cluster's configuration, or as -o NAME=VALUE, or as OCF_RESKEY_NAME):\n")
	for _, p := range spec.Parameters {
		fmt.Fprintf(w, "  %s%s\n", p.Name, parameterHint(p))
		for line := range strings.SplitSeq(p.Describe(), "\n") {
			fmt.Fprintln(w, strings.TrimRight("      "+strings.TrimSpace(line), " "))
		}
	}
	fmt.Fprintf(w, "\nOptions:\n%s", flags(spec.Name, &inv, &options).FlagUsages())
	fmt.Fprint(w, "\nExit codes: 0 success or running, 1 failed, 2 wrong arguments, 3 unsupported action,\n"+
		"4 no permission, 5 not installed, 6 wrong configuration, 7 not running, 8 promoted, 9 promoted but failed,\n190 running but degraded, 191 promoted but degraded\n")
}

// actionHelp is what each action of the contract does, for people.
var actionHelp = map[string]string{
	"start":        "start the resource; nothing happens if it runs",
	"stop":         "stop the resource; nothing happens if it does not run",
	"monitor":      "tell the state of the resource; changes nothing",
	"promote":      "make this node's instance the promoted one",
	"demote":       "make this node's instance an unpromoted one",
	"notify":       "called by the cluster around the actions of other instances",
	"reload-agent": "put changed parameters into effect without a restart",
	"validate-all": "check the parameters and this host; every problem is told with its remedy",
	"meta-data":    "print the description of the agent as OCF XML",
}

func actionNames(spec metadata.Agent) []string {
	var names []string
	for _, a := range spec.Actions {
		if !slices.Contains(names, a.Name) {
			names = append(names, a.Name)
		}
	}
	return names
}

func parameterHint(p metadata.Parameter) string {
	var hints []string
	switch p.Type {
	case metadata.Integer:
		hints = append(hints, "number")
	case metadata.Boolean:
		hints = append(hints, "true or false")
	case metadata.Seconds:
		hints = append(hints, "seconds")
	case metadata.Select:
		hints = append(hints, strings.Join(p.Options, "|"))
	case metadata.String:
	}
	if p.Required {
		hints = append(hints, "required")
	}
	if p.Default != "" {
		hints = append(hints, "default "+p.Default)
	}
	if p.Reloadable {
		hints = append(hints, "reloadable")
	}
	if len(hints) == 0 {
		return ""
	}
	return " (" + strings.Join(hints, ", ") + ")"
}
