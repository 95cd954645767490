package metadata

import (
	"strings"
	"time"
)

// Type is the kind of value a Parameter takes. It decides which words are accepted
// and which content type the XML names.
type Type int

const (
	// String is any single-line text.
	String Type = iota
	// Integer is a decimal number between Parameter.Min and Parameter.Max.
	Integer
	// Boolean is one of the truth words of ocf_is_true (yes true 1 ja on …) or their opposites.
	Boolean
	// Select is exactly one of Parameter.Options.
	Select
	// Seconds is a whole number of seconds, written as 10 or 10s.
	Seconds
)

// Role restricts an Action of a promotable agent to one role.
type Role string

// The roles of OCF 1.1. The empty Role means that the action is not bound to one.
const (
	Promoted   Role = "Promoted"
	Unpromoted Role = "Unpromoted"
)

// Agent is the whole declaration of a resource agent.
type Agent struct {
	// Name is the agent's type, as in ocf:baton:NAME.
	Name string
	// Version is the agent's own version (resource-agent/@version), a dotted number:
	// pcs refuses anything else.
	Version   string
	ShortDesc string
	// LongDesc is plain text; an empty line separates paragraphs.
	LongDesc   string
	Parameters []Parameter
	Actions    []Action
	// Positional is the usage of the agent's haresources form, such as
	// "IP[/prefix[/nic[:label][/broadcast]]]". Empty if the agent takes no arguments there.
	Positional string
}

// Parameter is one OCF_RESKEY_ of an agent.
type Parameter struct {
	Name string
	// Aliases are older or shorter names that set the same value; Name wins when both are given.
	Aliases []string
	Type    Type
	// Default is used when the parameter is absent or empty. Pacemaker never passes defaults itself.
	Default  string
	Required bool
	// Unique says that no two resources of the cluster may share the value.
	Unique bool
	// UniqueGroup names a set of parameters whose combination must be unique (OCF 1.1).
	UniqueGroup string
	// Reloadable says that reload-agent can put a changed value into effect (OCF 1.1).
	Reloadable bool
	// Identifies says that the parameter names the managed thing itself (an address, a DRBD
	// resource, a data directory). start refuses every value that fails its check, so under
	// a bad value nothing can be running; the driver in package ocf relies on that.
	Identifies bool
	// Options are the accepted words of a Select.
	Options []string
	// Min and Max bound an Integer or Seconds, both inclusive; Max 0 means no upper bound.
	Min, Max  int
	ShortDesc string
	LongDesc  string
}

// Action is one operation the agent advertises.
type Action struct {
	Name string
	// Timeout is advice to the cluster's administrator, and the agent's own deadline where the
	// caller gives none (heartbeat, a shell).
	Timeout time.Duration
	// Interval is advised for recurring monitors; 0 leaves it out.
	Interval time.Duration
	// Depth is the OCF_CHECK_LEVEL of a monitor; it is written for every monitor.
	Depth int
	Role  Role
}

// Parameter finds a parameter by name or alias.
func (a Agent) Parameter(name string) (Parameter, bool) {
	for _, p := range a.Parameters {
		if p.Name == name {
			return p, true
		}
		for _, alias := range p.Aliases {
			if alias == name {
				return p, true
			}
		}
	}
	return Parameter{}, false
}

// Timeout is the longest timeout declared for the action, or 0 where the action is not declared.
// A promotable agent declares monitor once for each role.
func (a Agent) Timeout(action string) time.Duration {
	var longest time.Duration
	for _, act := range a.Actions {
		if act.Name == action && act.Timeout > longest {
			longest = act.Timeout
		}
	}
	return longest
}

// Declares reports whether the agent advertises the action.
func (a Agent) Declares(action string) bool {
	for _, act := range a.Actions {
		if act.Name == action {
			return true
		}
	}
	return false
}

// Describe is the parameter's long description with what the type adds to it: the accepted
// words of a Select, its aliases.
func (p Parameter) Describe() string {
	text := strings.TrimSpace(p.LongDesc)
	if p.Type == Select {
		text = appendSentence(text, "One of: "+strings.Join(p.Options, ", ")+".")
	}
	if len(p.Aliases) > 0 {
		text = appendSentence(text, "Also accepted as: "+strings.Join(p.Aliases, ", ")+".")
	}
	return text
}

func appendSentence(text, sentence string) string {
	if text == "" {
		return sentence
	}
	return text + "\n" + sentence
}
