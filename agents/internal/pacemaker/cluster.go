package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// Cluster is what crm_mon says: nodes with their attributes, resources with their roles, and the
// options that decide how failures are dealt with.
type Cluster struct {
	DC          string // name of the designated controller; empty without one
	Quorum      bool
	Stonith     bool // stonith-enabled
	Maintenance bool // maintenance-mode of the whole cluster
	Nodes       []Node
	Resources   []Resource
}

// Node is one node of the cluster.
type Node struct {
	Name                                               string
	Online, Standby, Maintenance, Unclean, Pending, DC bool
	// Attributes are the node's permanent and transient attributes, promotion scores included
	// (master-RESOURCE).
	Attributes map[string]string
}

// Resource is one instance of a resource. Several instances of a clone share an ID.
type Resource struct {
	ID      string // without an instance number
	Agent   string // ocf:baton:drbd
	Role    string // Started, Stopped, Promoted, Unpromoted
	Active  bool
	Managed bool
	Failed  bool
	Nodes   []string // where it is active
}

// Node finds a node by name.
func (c Cluster) Node(name string) (Node, bool) {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// Promoted lists the nodes on which an instance of the resource is promoted.
func (c Cluster) Promoted(id string) []string {
	var nodes []string
	for _, r := range c.Resources {
		if r.ID == BaseName(id) && r.Active && r.Role == "Promoted" {
			nodes = append(nodes, r.Nodes...)
		}
	}
	return nodes
}

// BaseName is a resource's name without the instance number of a clone ("drbd:0" is "drbd").
func BaseName(instance string) string {
	name, number, found := strings.Cut(instance, ":")
	if _, err := strconv.Atoi(number); found && err == nil {
		return name
	}
	return instance
}

// Cluster asks crm_mon for the state of the cluster. One call takes 10 to 180 ms.
func (t Tools) Cluster(ctx context.Context) (Cluster, error) {
	const op = "read state"
	res, err := t.run(ctx, op, "the cluster", "crm_mon", "--output-as=xml", "-1")
	if err != nil {
		return Cluster{}, err
	}
	c, err := parseCluster(res.Stdout)
	if err != nil {
		return Cluster{}, &Error{Op: op, Object: "the cluster", Err: err}
	}
	return c, nil
}

// parseCluster reads the answer of crm_mon --output-as=xml (schema crm_mon-2.x.rng of Pacemaker):
//
//	<pacemaker-result api-version="2.25" request="crm_mon --output-as=xml -1">
//	  <summary><current_dc present="true" name="n1" with_quorum="true"/>
//	    <cluster_options stonith-enabled="false" maintenance-mode="false"/></summary>
//	  <nodes><node name="n1" id="1" online="true" standby="false" unclean="false" is_dc="true"/></nodes>
//	  <resources><clone id="ms"><resource id="r" resource_agent="ocf:baton:drbd" role="Promoted"
//	    active="true" managed="true" failed="false"><node name="n1"/></resource></clone></resources>
//	  <node_attributes><node name="n1"><attribute name="master-r" value="10000"/></node></node_attributes>
//	  <status code="0" message="OK"/>
//	</pacemaker-result>
//
// Before Pacemaker 2.1 the roles are called Master and Slave, and the root crm_mon.
func parseCluster(xml []byte) (Cluster, error) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(xml); err != nil {
		return Cluster{}, fmt.Errorf("crm_mon's answer is not XML: %w", err)
	}
	root := doc.Root()
	if root == nil || root.FindElement("nodes") == nil || root.FindElement("resources") == nil {
		return Cluster{}, errors.New("crm_mon's answer lacks the nodes or the resources")
	}
	if code := root.FindElement("status"); code != nil && attr(code, "code") != "0" && attr(code, "code") != "" {
		return Cluster{}, fmt.Errorf("crm_mon answers status %s (%s)", attr(code, "code"), attr(code, "message"))
	}
	var c Cluster
	if dc := root.FindElement("summary/current_dc"); dc != nil {
		c.DC, c.Quorum = attr(dc, "name"), yes(dc, "with_quorum")
	}
	if opt := root.FindElement("summary/cluster_options"); opt != nil {
		c.Stonith, c.Maintenance = yes(opt, "stonith-enabled"), yes(opt, "maintenance-mode")
	}
	for _, e := range root.FindElements("nodes/node") {
		c.Nodes = append(c.Nodes, Node{
			Name: attr(e, "name"), Online: yes(e, "online"), Standby: yes(e, "standby"),
			Maintenance: yes(e, "maintenance"), Unclean: yes(e, "unclean"), Pending: yes(e, "pending"),
			DC: yes(e, "is_dc"), Attributes: map[string]string{},
		})
	}
	for _, e := range root.FindElements("node_attributes/node") {
		n, ok := c.Node(attr(e, "name"))
		if !ok {
			continue
		}
		for _, a := range e.FindElements("attribute") {
			n.Attributes[attr(a, "name")] = attr(a, "value")
		}
	}
	for _, e := range root.FindElements("resources//resource") {
		r := Resource{
			ID: BaseName(attr(e, "id")), Agent: attr(e, "resource_agent"), Role: roleName(attr(e, "role")),
			Active: yes(e, "active"), Managed: yes(e, "managed"), Failed: yes(e, "failed"),
		}
		for _, n := range e.FindElements("node") {
			r.Nodes = append(r.Nodes, attr(n, "name"))
		}
		c.Resources = append(c.Resources, r)
	}
	return c, nil
}

func roleName(word string) string {
	switch word {
	case "Master":
		return "Promoted"
	case "Slave":
		return "Unpromoted"
	}
	return word
}

func attr(e *etree.Element, name string) string { return e.SelectAttrValue(name, "") }

func yes(e *etree.Element, name string) bool { return attr(e, name) == "true" }

// Configuration is how the CIB configures one resource.
type Configuration struct {
	Operations []Operation
	// Clone says that the resource is cloned; Meta holds the clone's meta attributes
	// (promotable, notify, promoted-max …).
	Clone bool
	Meta  map[string]string
}

// Operation is one op of a resource.
type Operation struct {
	Name, Role        string
	Interval, Timeout time.Duration // Timeout 0: not configured
}

// Timeout is the configured timeout of an action without interval, 0 where there is none.
func (c Configuration) Timeout(action string) time.Duration {
	for _, op := range c.Operations {
		if op.Name == action && op.Interval == 0 {
			return op.Timeout
		}
	}
	return 0
}

// Configuration asks the CIB how the resource of these Tools is configured.
func (t Tools) Configuration(ctx context.Context) (Configuration, error) {
	const op = "read configuration"
	id := BaseName(t.Instance)
	if strings.ContainsAny(id, "'\"[]<>&") {
		return Configuration{}, &Error{Op: op, Object: id, Err: errors.New("not a resource id")}
	}
	res, err := t.run(ctx, op, id, "cibadmin", "-Q", "--xpath", "//resources")
	if err != nil {
		return Configuration{}, err
	}
	c, err := parseConfiguration(res.Stdout, id)
	if err != nil {
		return Configuration{}, &Error{Op: op, Object: id, Err: err}
	}
	return c, nil
}

// parseConfiguration reads the resources section of the CIB (resources-3.x.rng of Pacemaker).
func parseConfiguration(xml []byte, id string) (Configuration, error) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(xml); err != nil {
		return Configuration{}, fmt.Errorf("cibadmin's answer is not XML: %w", err)
	}
	for _, p := range doc.FindElements("//primitive") {
		if attr(p, "id") != id {
			continue
		}
		c := Configuration{Meta: map[string]string{}}
		for _, o := range p.FindElements("operations/op") {
			c.Operations = append(c.Operations, Operation{
				Name: attr(o, "name"), Role: roleName(attr(o, "role")),
				Interval: span(attr(o, "interval")), Timeout: span(attr(o, "timeout")),
			})
		}
		for e := p.Parent(); e != nil; e = e.Parent() {
			if e.Tag != "clone" && e.Tag != "master" {
				continue
			}
			c.Clone = true
			if e.Tag == "master" {
				c.Meta["promotable"] = "true"
			}
			for _, nv := range e.FindElements("meta_attributes/nvpair") {
				c.Meta[attr(nv, "name")] = attr(nv, "value")
			}
		}
		return c, nil
	}
	return Configuration{}, errors.New("not in the cluster's configuration")
}

// span reads Pacemaker's time values (crm_parse_interval_spec): a number with us, ms, s, m or h;
// without a unit it means seconds. What it cannot read is 0.
func span(text string) time.Duration {
	text = strings.ToLower(strings.TrimSpace(text))
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	switch strings.TrimSpace(text[len(digits):]) {
	case "us", "usec":
		return time.Duration(n) * time.Microsecond
	case "ms", "msec":
		return time.Duration(n) * time.Millisecond
	case "", "s", "sec":
		return time.Duration(n) * time.Second
	case "m", "min":
		return time.Duration(n) * time.Minute
	case "h", "hr":
		return time.Duration(n) * time.Hour
	}
	return 0
}
