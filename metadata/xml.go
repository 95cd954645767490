package metadata

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// doctype names the DTD that ocf-tester validates against (resource-agents' ra-api-1.dtd).
// That DTD stems from OCF 1.0: it knows neither unique-group nor reloadable, and lists the
// names of actions, without reload-agent. The first declaration of an attribute wins in XML
// (XML 1.0, section 3.3), and the internal subset is read first, so these three lines make an
// OCF 1.1 document valid there while it stays valid against OCF's ra-api.rng.
const doctype = `DOCTYPE resource-agent SYSTEM "ra-api-1.dtd" [
<!ATTLIST parameter unique-group CDATA #IMPLIED reloadable (1|0) "0">
<!ATTLIST action name CDATA #REQUIRED role CDATA #IMPLIED>
]`

// ocfVersion is the version of the OCF resource agent API the XML follows. Pacemaker offers
// reload-agent only to agents that say 1.1 or later (controld_metadata.c).
const ocfVersion = "1.1"

// WriteXML writes the agent's OCF 1.1 meta-data document.
func (a Agent) WriteXML(w io.Writer) error {
	doc := etree.NewDocument()
	doc.CreateProcInst("xml", `version="1.0"`)
	doc.CreateDirective(doctype)
	root := doc.CreateElement("resource-agent")
	root.CreateAttr("name", a.Name)
	root.CreateAttr("version", a.Version)
	root.CreateElement("version").SetText(ocfVersion)
	describe(root, a.longDesc(), a.ShortDesc)

	params := root.CreateElement("parameters")
	for _, p := range a.Parameters {
		p.appendTo(params)
	}
	actions := root.CreateElement("actions")
	for _, act := range a.Actions {
		act.appendTo(actions)
	}
	doc.Indent(2)
	if _, err := doc.WriteTo(w); err != nil {
		return fmt.Errorf("writing the meta-data of %s: %w", a.Name, err)
	}
	return nil
}

// XML is the document of WriteXML in memory.
func (a Agent) XML() ([]byte, error) {
	var buf bytes.Buffer
	if err := a.WriteXML(&buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (a Agent) longDesc() string {
	text := strings.TrimSpace(a.LongDesc)
	if a.Positional == "" {
		return appendSentence(text, fmt.Sprintf("\nIn heartbeat's haresources: %s (any parameter can follow as ::name=value).", a.Name))
	}
	return appendSentence(text, fmt.Sprintf("\nIn heartbeat's haresources: %s::%s (any parameter can follow as ::name=value).", a.Name, a.Positional))
}

func (p Parameter) appendTo(parent *etree.Element) {
	el := parent.CreateElement("parameter")
	el.CreateAttr("name", p.Name)
	if p.UniqueGroup != "" {
		el.CreateAttr("unique-group", p.UniqueGroup)
	}
	el.CreateAttr("unique", flag(p.Unique))
	el.CreateAttr("required", flag(p.Required))
	if p.Reloadable {
		el.CreateAttr("reloadable", "1")
	}
	describe(el, p.Describe(), p.ShortDesc)
	content := el.CreateElement("content")
	content.CreateAttr("type", p.Type.content())
	if p.Default != "" {
		content.CreateAttr("default", p.Default)
	}
}

// content is the word for the type that both the DTD and the RNG know: select came with
// OCF 1.1 and cannot be added to an enumerated attribute of the DTD, so it is written as string.
func (t Type) content() string {
	switch t {
	case Integer, Seconds:
		return "integer"
	case Boolean:
		return "boolean"
	case String, Select:
		return "string"
	}
	return "string"
}

func (act Action) appendTo(parent *etree.Element) {
	el := parent.CreateElement("action")
	el.CreateAttr("name", act.Name)
	el.CreateAttr("timeout", seconds(act.Timeout))
	if act.Interval > 0 {
		el.CreateAttr("interval", seconds(act.Interval))
	}
	if act.Name == "monitor" {
		el.CreateAttr("depth", strconv.Itoa(act.Depth))
	}
	if act.Role != "" {
		el.CreateAttr("role", string(act.Role))
	}
}

func describe(parent *etree.Element, long, short string) {
	for _, d := range []struct{ name, text string }{{"longdesc", long}, {"shortdesc", short}} {
		el := parent.CreateElement(d.name)
		el.CreateAttr("lang", "en")
		el.SetText(d.text)
	}
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// seconds always carries the unit: resource-agents' own checks refuse a bare number. A part of a
// second is rounded up, for a timeout of 0 would mean none.
func seconds(d time.Duration) string {
	return strconv.Itoa(int((d+time.Second-1)/time.Second)) + "s"
}
