package ocf

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"baton/metadata"
)

// Params are the parameters of one call, by the names of the declaration, with aliases resolved
// and defaults filled in. Asking for a name that the declaration does not have is a mistake of
// the agent's code and panics.
type Params struct {
	spec  metadata.Agent
	given map[string]string // canonical name -> non-empty value
}

// newParams resolves aliases. An empty value counts as absent, as in all shell agents
// (`: ${OCF_RESKEY_x=…}` aside, they test with -z).
func newParams(spec metadata.Agent, values map[string]string) Params {
	given := map[string]string{}
	for _, p := range spec.Parameters {
		for _, name := range append([]string{p.Name}, p.Aliases...) {
			if v := values[name]; v != "" {
				given[p.Name] = v
				break
			}
		}
	}
	return Params{spec: spec, given: given}
}

func (p Params) lookup(name string) string {
	par, ok := p.spec.Parameter(name)
	if !ok || par.Name != name {
		panic(fmt.Sprintf("parameter %q is not declared by %s", name, p.spec.Name))
	}
	if v, ok := p.given[name]; ok {
		return v
	}
	return par.Default
}

// IsSet reports whether the caller gave a value.
func (p Params) IsSet(name string) bool {
	p.lookup(name)
	return p.given[name] != ""
}

// String is the value, or the default.
func (p Params) String(name string) string {
	return p.lookup(name)
}

// Int is the value of an Integer; 0 for an empty default.
func (p Params) Int(name string) int {
	v := p.lookup(name)
	n, _ := strconv.Atoi(v)
	return n
}

// Bool is the value of a Boolean.
func (p Params) Bool(name string) bool {
	v := p.lookup(name)
	return truth(v)
}

// Seconds is the value of a Seconds; 0 for an empty default.
func (p Params) Seconds(name string) time.Duration {
	v := p.lookup(name)
	n, _ := wholeSeconds(v)
	return time.Duration(n) * time.Second
}

// without is p with the given value dropped, so that the default holds.
func (p Params) without(name string) Params {
	if par, ok := p.spec.Parameter(name); ok {
		name = par.Name
	}
	given := make(map[string]string, len(p.given))
	for k, v := range p.given {
		if k != name {
			given[k] = v
		}
	}
	return Params{spec: p.spec, given: given}
}

// problems checks each value against its declaration alone, in the declaration's order.
func (p Params) problems() []Problem {
	var found []Problem
	for _, par := range p.spec.Parameters {
		value, given := p.given[par.Name]
		if !given {
			if par.Required {
				found = append(found, Problem{
					Param: par.Name, Kind: BadConfig, Found: "no value given",
					Expected: par.ShortDesc, Do: "set " + par.Name,
				})
			}
			continue
		}
		if what, expected := mismatch(par, value); what != "" {
			found = append(found, Problem{
				Param: par.Name, Kind: BadConfig, Found: what,
				Expected: expected, Do: "correct " + par.Name,
			})
		}
	}
	return found
}

// maxValue is far above any real value; it keeps a runaway out of paths, logs and records.
const maxValue = 64 << 10

// mismatch says what is wrong with the value and what is accepted, or nothing.
func mismatch(par metadata.Parameter, value string) (found, expected string) {
	found = quote(value)
	if bad := unprintable(value); bad != "" {
		return found, "text without " + bad
	}
	switch par.Type {
	case metadata.String:
		if len(value) > maxValue {
			return found, fmt.Sprintf("at most %d characters", maxValue)
		}
	case metadata.Integer:
		n, err := strconv.Atoi(value)
		if err != nil || !within(par, n) {
			return found, "a whole number" + bounds(par)
		}
	case metadata.Seconds:
		n, ok := wholeSeconds(value)
		if !ok || !within(par, n) {
			return found, "a whole number of seconds" + bounds(par)
		}
	case metadata.Boolean:
		if _, err := parseBool(value); err != nil {
			return found, "true or false"
		}
	case metadata.Select:
		if !slices.Contains(par.Options, value) {
			return found, "one of " + strings.Join(par.Options, ", ")
		}
	}
	return "", ""
}

func within(par metadata.Parameter, n int) bool {
	return n >= par.Min && (par.Max == 0 || n <= par.Max)
}

func bounds(par metadata.Parameter) string {
	if par.Max == 0 {
		return fmt.Sprintf(" from %d", par.Min)
	}
	return fmt.Sprintf(" from %d to %d", par.Min, par.Max)
}

// wholeSeconds refuses what a time.Duration cannot hold (292 years), which would turn negative.
func wholeSeconds(text string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimSuffix(text, "s"))
	const most = int(math.MaxInt64 / time.Second)
	return n, err == nil && n >= -most && n <= most
}

// unprintable names the first character that no parameter of any agent may hold. Line breaks
// would forge log lines and exit reasons, the rest hides in terminals.
func unprintable(value string) string {
	if !utf8.ValidString(value) {
		return "bytes that are not UTF-8"
	}
	for _, r := range value {
		switch {
		case r == '\n', r == '\r':
			return "line breaks"
		case r != '\t' && unicode.IsControl(r):
			return fmt.Sprintf("the control character %#02x", r)
		}
	}
	return ""
}

// quote shows a value of any origin in a message: quoted, escaped, and short even where each
// byte needs an escape, since Pacemaker keeps 128 characters of a reason.
func quote(value string) string {
	const show = 60
	whole := strconv.Quote(value[:min(len(value), show+1)])
	if len(value) <= show && len(whole) <= show+len(`""`) {
		return whole
	}
	var b strings.Builder
	b.WriteByte('"')
	for rest := value; rest != ""; {
		_, size := utf8.DecodeRuneInString(rest)
		escaped := strconv.Quote(rest[:size])
		escaped = escaped[1 : len(escaped)-1]
		if b.Len()+len(escaped) > show {
			break
		}
		b.WriteString(escaped)
		rest = rest[size:]
	}
	b.WriteString(`"…`)
	return b.String()
}

// unknown are the names that the caller gave and the declaration does not have, but for those that
// Pacemaker's tools give to every agent.
func unknown(spec metadata.Agent, values map[string]string) []string {
	var names []string
	for name := range values {
		if _, ok := spec.Parameter(name); !ok && name != traceKey && name != traceFileKey {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
