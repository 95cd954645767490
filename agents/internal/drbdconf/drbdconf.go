// Package drbdconf reads what `drbdadm dump-xml RES` says of a resource's configuration. Only
// validate-all looks at it: nothing that runs, watches or stops a resource depends on DRBD's
// configuration files.
//
// Source: user/v84/drbdadm_main.c and user/v9/drbdadm_dump.c of drbd-utils 9.22.
package drbdconf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// Resource is the configuration of one resource, merged from its file and the common section.
type Resource struct {
	Name string
	// Source is the file and line of the resource, "/etc/drbd.d/r0.res:1".
	Source string
	Hosts  []Host
	// options are the values by section ("net", "disk", "handlers", "options") and name. 8.4 has
	// fencing in disk, 9 in net; options of a single volume or connection are not merged in.
	options map[string]map[string]string
}

// Host is one "on NAME" of the resource.
type Host struct {
	Name    string
	Volumes []Volume
}

// Volume is one device of a host. Disk is "none" for an intentionally diskless one.
type Volume struct {
	Number, Minor int
	Device, Disk  string
}

// Parse reads
//
//	<resource name="r0" conf-file-line="/etc/drbd.d/r0.res:1">
//	  <host name="n1"><volume vnr="0"><device minor="0">/dev/drbd0</device><disk>/dev/vdb</disk></volume></host>
//	  <section name="disk"><option name="fencing" value="resource-and-stonith"/></section>
//	</resource>
//
// either as the root or, as dump-xml without a name prints it, below <config>.
func Parse(xml []byte, name string) (Resource, error) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(xml); err != nil {
		return Resource{}, fmt.Errorf("drbdadm dump-xml: not XML: %w", err)
	}
	for _, e := range doc.FindElements("//resource") {
		if e.SelectAttrValue("name", "") == name {
			return resource(e, doc.FindElement("//common"))
		}
	}
	return Resource{}, errors.New("drbdadm dump-xml does not name the resource " + name)
}

func resource(e, common *etree.Element) (Resource, error) {
	r := Resource{
		Name: e.SelectAttrValue("name", ""), Source: e.SelectAttrValue("conf-file-line", ""),
		options: map[string]map[string]string{},
	}
	for _, h := range e.SelectElements("host") {
		host := Host{Name: h.SelectAttrValue("name", "")}
		for _, v := range h.SelectElements("volume") {
			vol := Volume{Disk: text(v, "disk"), Device: text(v, "device")}
			var err error
			if vol.Number, err = strconv.Atoi(v.SelectAttrValue("vnr", "")); err != nil {
				return r, fmt.Errorf("host %s: volume without a number", host.Name)
			}
			if d := v.SelectElement("device"); d != nil {
				if vol.Minor, err = strconv.Atoi(d.SelectAttrValue("minor", "")); err != nil {
					return r, fmt.Errorf("host %s volume %d: device without a minor number", host.Name, vol.Number)
				}
			}
			host.Volumes = append(host.Volumes, vol)
		}
		r.Hosts = append(r.Hosts, host)
	}
	for _, from := range []*etree.Element{common, e} { // the resource's own values win
		if from == nil {
			continue
		}
		for _, s := range from.SelectElements("section") {
			section := s.SelectAttrValue("name", "")
			if r.options[section] == nil {
				r.options[section] = map[string]string{}
			}
			for _, o := range s.SelectElements("option") {
				r.options[section][o.SelectAttrValue("name", "")] = o.SelectAttrValue("value", "yes")
			}
		}
	}
	return r, nil
}

func text(e *etree.Element, child string) string {
	if c := e.SelectElement(child); c != nil {
		return strings.TrimSpace(c.Text())
	}
	return ""
}

// Host finds the section of a node.
func (r Resource) Host(name string) (Host, bool) {
	for _, h := range r.Hosts {
		if h.Name == name {
			return h, true
		}
	}
	return Host{}, false
}

// Option is a value of a section, empty where it is not set.
func (r Resource) Option(section, name string) string { return r.options[section][name] }

// Fencing is the fencing policy: "dont-care" (also where none is set), "resource-only" or
// "resource-and-stonith".
func (r Resource) Fencing() string {
	for _, section := range []string{"disk", "net"} {
		if v := r.Option(section, "fencing"); v != "" {
			return v
		}
	}
	return "dont-care"
}

// Flag reports a boolean option that is on. drbdadm writes "yes"; a bare keyword means yes.
func (r Resource) Flag(section, name string) bool {
	switch r.Option(section, name) {
	case "yes", "true", "1":
		return true
	}
	return false
}

// HandlerTimeout is how long the fence-peer handler may take: crm-fence-peer waits up to
// --timeout (default 90 s) for the peer and up to --dc-timeout (default 20 s) for the cluster.
// It is 0 where the handler is not one of crm-fence-peer*.sh.
func (r Resource) HandlerTimeout() time.Duration {
	line := r.Option("handlers", "fence-peer")
	if !strings.Contains(line, "crm-fence-peer") {
		return 0
	}
	seconds := max(argument(line, "--timeout", 90), argument(line, "--dc-timeout", 20))
	return time.Duration(seconds) * time.Second
}

// argument reads "--name N" or "--name=N" of a handler's command line.
func argument(line, name string, otherwise int) int {
	words := strings.Fields(line)
	for i, word := range words {
		value, joined := strings.CutPrefix(word, name+"=")
		if word == name && i+1 < len(words) {
			value, joined = words[i+1], true
		}
		if !joined {
			continue
		}
		if n, err := strconv.Atoi(strings.Trim(value, `"'`)); err == nil && n >= 0 {
			return n
		}
	}
	return otherwise
}
