package lab

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// onlineWithin bounds the start of corosync and Pacemaker on both nodes: about
// half a minute when the host has nothing else to do.
const onlineWithin = 4 * time.Minute

// Cluster is the stage with corosync and Pacemaker running on n1 and n2, both
// online, nothing configured, and c1 up. corosync.conf is that of
// crm-examples/vip: two nodes, one ring on each network.
var Cluster = &Stage{
	Name: "cluster", Base: Booted, Key: withoutComments(corosyncExample()),
	Build: func(ctx context.Context, l *Lab) error {
		return l.StartCluster(ctx, corosyncExample())
	},
}

func corosyncExample() string {
	text, err := Example("vip/corosync.conf")
	if err != nil {
		return "" // StartCluster says so
	}
	return text
}

// withoutComments drops lines that begin with a number sign: a reworded comment
// builds no stage anew.
func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Nodes are the cluster's machines.
func (l *Lab) Nodes() []*Machine { return []*Machine{l.N1, l.N2} }

// StartCluster writes corosync.conf and a key to n1 and n2, starts corosync
// and Pacemaker there, and waits until both are online.
func (l *Lab) StartCluster(ctx context.Context, corosyncConf string) error {
	if corosyncConf == "" {
		return errors.New("lab: corosync.conf is empty; expected crm-examples/vip/corosync.conf in the project")
	}
	key := strings.Repeat("baton lab key, known to everybody ", 8)[:256]
	err := l.eachNode(func(m *Machine) error {
		if err := m.Upload(ctx, "/etc/corosync/corosync.conf", 0o644, []byte(corosyncConf)); err != nil {
			return err
		}
		if err := m.Upload(ctx, "/etc/corosync/authkey", 0o400, []byte(key)); err != nil {
			return err
		}
		_, err := m.Run(ctx, "systemctl start corosync pacemaker")
		return err
	})
	if err != nil {
		return err
	}
	return l.WaitOnline(ctx, onlineWithin, l.N1, l.N2)
}

func (l *Lab) eachNode(f func(*Machine) error) error {
	return l.each(func(m *Machine) error {
		if m != l.N1 && m != l.N2 {
			return nil
		}
		return f(m)
	})
}

// Status is what crm_mon says, as far as the lab needs it.
type Status struct {
	DC        string
	Nodes     []Node
	Resources []Resource
	Failures  []Failure
}

// Node is a cluster node.
type Node struct {
	Name                              string
	Online, Standby, Pending, Unclean bool
}

// Resource is one primitive, or one instance of a cloned one.
type Resource struct {
	ID      string
	Agent   string   // for example ocf:baton:vip
	Role    string   // Started, Stopped, Promoted, Unpromoted, Starting, …
	Nodes   []string // where it is active
	Failed  bool
	Blocked bool
	Managed bool
}

// Failure is a failed action that the cluster remembers.
type Failure struct {
	Op     string // for example vip_monitor_10000
	Node   string
	Code   int
	Reason string // the agent's own words
}

// monXML is the part of `crm_mon --output-as=xml` that is read; resources
// inside groups, clones and bundles are found at any depth.
type monXML struct {
	Summary struct {
		DC struct {
			Name string `xml:"name,attr"`
		} `xml:"current_dc"`
	} `xml:"summary"`
	Nodes []struct {
		Name    string `xml:"name,attr"`
		Online  bool   `xml:"online,attr"`
		Standby bool   `xml:"standby,attr"`
		Pending bool   `xml:"pending,attr"`
		Unclean bool   `xml:"unclean,attr"`
	} `xml:"nodes>node"`
	Resources tree `xml:"resources"`
	Failures  []struct {
		Op     string `xml:"op_key,attr"`
		Node   string `xml:"node,attr"`
		Code   int    `xml:"exitcode,attr"`
		Reason string `xml:"exitreason,attr"`
	} `xml:"failures>failure"`
}

type tree struct {
	Resources []struct {
		ID      string `xml:"id,attr"`
		Agent   string `xml:"resource_agent,attr"`
		Role    string `xml:"role,attr"`
		Failed  bool   `xml:"failed,attr"`
		Blocked bool   `xml:"blocked,attr"`
		Managed bool   `xml:"managed,attr"`
		Nodes   []struct {
			Name string `xml:"name,attr"`
		} `xml:"node"`
	} `xml:"resource"`
	Groups []tree `xml:"group"`
	Clones []tree `xml:"clone"`
}

func (t tree) flatten() []Resource {
	var out []Resource
	for _, r := range t.Resources {
		res := Resource{ID: r.ID, Agent: r.Agent, Role: r.Role, Failed: r.Failed, Blocked: r.Blocked, Managed: r.Managed}
		for _, n := range r.Nodes {
			res.Nodes = append(res.Nodes, n.Name)
		}
		out = append(out, res)
	}
	for _, g := range slices.Concat(t.Groups, t.Clones) {
		out = append(out, g.flatten()...)
	}
	return out
}

func parseStatus(text string) (Status, error) {
	var mon monXML
	if err := xml.Unmarshal([]byte(text), &mon); err != nil {
		return Status{}, fmt.Errorf("lab: crm_mon: %w in %q", err, text)
	}
	s := Status{DC: mon.Summary.DC.Name, Resources: mon.Resources.flatten()}
	for _, n := range mon.Nodes {
		s.Nodes = append(s.Nodes, Node(n))
	}
	for _, f := range mon.Failures {
		// Pacemaker 2.1.5 escapes the agent's words twice.
		f.Reason = html.UnescapeString(f.Reason)
		s.Failures = append(s.Failures, Failure(f))
	}
	return s, nil
}

// Active is where the resource (or any instance of it) is Started or has the
// role: "" means Started or Promoted or Unpromoted.
func (s Status) Active(id, role string) []string {
	var nodes []string
	for _, r := range s.Resources {
		base, _, _ := strings.Cut(r.ID, ":")
		if base != id || r.Failed && role != "" {
			continue
		}
		if r.Role == role || role == "" && (r.Role == "Started" || r.Role == "Promoted" || r.Role == "Unpromoted") {
			nodes = append(nodes, r.Nodes...)
		}
	}
	return nodes
}

// String is one line for each thing, short enough for a test's log.
func (s Status) String() string {
	var b strings.Builder
	for _, n := range s.Nodes {
		state := "online"
		switch {
		case n.Unclean:
			state = "UNCLEAN"
		case !n.Online:
			state = "offline"
		case n.Pending:
			state = "pending"
		case n.Standby:
			state = "standby"
		}
		fmt.Fprintf(&b, "%s %s; ", n.Name, state)
	}
	for _, r := range s.Resources {
		extra := ""
		if r.Failed {
			extra += " FAILED"
		}
		if r.Blocked {
			extra += " blocked"
		}
		fmt.Fprintf(&b, "%s %s on %s%s; ", r.ID, r.Role, strings.Join(r.Nodes, "+"), extra)
	}
	for _, f := range s.Failures {
		fmt.Fprintf(&b, "failed %s on %s: %d %s; ", f.Op, f.Node, f.Code, f.Reason)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// Status asks the first node that answers.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	var errs []error
	for _, m := range l.Nodes() {
		if m == nil || !m.On() {
			continue
		}
		s, err := m.Status(ctx)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return Status{}, errors.Join(append(errs, errors.New("lab: no node answers crm_mon"))...)
}

// Status is the cluster as this node sees it.
func (m *Machine) Status(ctx context.Context) (Status, error) {
	out, err := m.Run(ctx, "crm_mon -1 --output-as=xml")
	if err != nil {
		return Status{}, err
	}
	return parseStatus(out)
}

// WaitOnline waits until all the machines are online and see one another, and
// one of them is the DC.
func (l *Lab) WaitOnline(ctx context.Context, within time.Duration, nodes ...*Machine) error {
	for _, m := range nodes {
		_, err := Poll(ctx, within, "both nodes online as "+m.Name+" sees it", func(ctx context.Context) (bool, string) {
			s, err := m.Status(ctx)
			if err != nil {
				return false, err.Error()
			}
			for _, want := range nodes {
				if !slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Name == want.Name && n.Online && !n.Pending }) {
					return false, s.String()
				}
			}
			return s.DC != "", s.String()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Wait waits until the cluster, as the first living node sees it, satisfies
// want, and returns how long that took.
func (l *Lab) Wait(ctx context.Context, within time.Duration, what string, want func(Status) bool) (time.Duration, error) {
	return Poll(ctx, within, what, func(ctx context.Context) (bool, string) {
		s, err := l.Status(ctx)
		if err != nil {
			return false, err.Error()
		}
		return want(s), s.String()
	})
}

// WaitActive waits until the resource is active on exactly this node, in the
// role ("" for any active one), without a failure of its own.
func (l *Lab) WaitActive(ctx context.Context, id, role string, node *Machine, within time.Duration) (time.Duration, error) {
	what := fmt.Sprintf("%s active on %s", id, node.Name)
	if role != "" {
		what = fmt.Sprintf("%s %s on %s", id, role, node.Name)
	}
	took, err := l.Wait(ctx, within, what, func(s Status) bool {
		return slices.Equal(s.Active(id, role), []string{node.Name})
	})
	if err == nil {
		l.Timeline.Add("cluster: %s", what)
	}
	return took, err
}

// Standby tells the cluster to move everything off the node, in the way that
// `crm node standby` does and without the seconds that crm takes to start.
func (l *Lab) Standby(ctx context.Context, m *Machine) error { return l.standby(ctx, m, "on") }

// Unstandby lets the node carry resources again.
func (l *Lab) Unstandby(ctx context.Context, m *Machine) error { return l.standby(ctx, m, "off") }

func (l *Lab) standby(ctx context.Context, m *Machine, value string) error {
	on := m
	if !m.On() {
		on = l.Other(m)
	}
	l.Timeline.Add("cluster: standby of %s %s", m.Name, value)
	_, err := on.Run(ctx, "crm_attribute -N %s -n standby -v %s", m.Name, value)
	return err
}

// Settle waits until the cluster has nothing left to do.
func (l *Lab) Settle(ctx context.Context) error {
	_, err := l.N1.Run(ctx, "crm_resource --wait --timeout=110s")
	return err
}

// MustActive is WaitActive for tests.
func (l *Lab) MustActive(t testing.TB, id, role string, node *Machine, within time.Duration) time.Duration {
	t.Helper()
	took, err := l.WaitActive(t.Context(), id, role, node, within)
	require.NoError(t, err)
	return took
}
