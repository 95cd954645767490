//go:build lab

package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

// Each example is there for crm and for pcs. Both are loaded, and what Pacemaker has in the end is
// compared; in maintenance, so that nothing of it starts.
func TestMatrixExamplesInPcsGiveWhatTheOnesInCrmGive(t *testing.T) {
	l := lab.Start(t, lab.Cluster)
	l.N1.Sh(t, "crm_attribute -n maintenance-mode -v true && cibadmin -Q -o configuration >/root/base.xml")
	pcs := func(name string) {
		t.Helper()
		script, err := lab.Example(name + ".pcs.sh")
		require.NoError(t, err)
		require.NoError(t, l.N1.Upload(t.Context(), "/root/example.sh", 0o755, []byte(script)))
		l.N1.Sh(t, "/root/example.sh")
	}
	// Some add to another, which is loaded first.
	for _, names := range [][]string{
		{"vip/vip"},
		{"drbd-filesystem-vip/drbd-filesystem-vip", "drbd-filesystem-vip/fencing-ping"},
		{"nfs/nfs"},
		{"mfs-drbd/mfs-drbd"},
		{"mfs-metalogger/mfs-metalogger"},
	} {
		have := map[string][]string{}
		for tool, load := range map[string]func(string){
			"crm": func(name string) { require.NoError(t, l.Crm(t.Context(), name+".crm")) },
			"pcs": pcs,
		} {
			l.N1.Sh(t, "cibadmin --replace -o configuration --xml-file /root/base.xml")
			before := configured(t, l.N1)
			for _, name := range names {
				load(name)
			}
			have[tool] = slices.DeleteFunc(configured(t, l.N1), func(line string) bool { return slices.Contains(before, line) })
		}
		require.NotEmpty(t, have["crm"])
		// pcs adds the operations of the meta-data that are not given.
		missing := slices.DeleteFunc(slices.Clone(have["crm"]), func(line string) bool { return slices.Contains(have["pcs"], line) })
		added := slices.DeleteFunc(have["pcs"], func(line string) bool {
			return slices.Contains(have["crm"], line) || strings.HasPrefix(line, "op ")
		})
		require.Emptyf(t, missing, "%s: in crm's form alone", names)
		require.Emptyf(t, added, "%s: in pcs's form alone", names)
	}
}

// configured is what a cluster is told to do, a line for each thing, whatever a tool has called the
// elements that hold it.
func configured(t testing.TB, m *lab.Machine) (lines []string) {
	t.Helper()
	doc := etree.NewDocument()
	require.NoError(t, doc.ReadFromString(m.Sh(t, "cibadmin -Q -o configuration")))
	attr := func(e *etree.Element, keys ...string) string {
		var b strings.Builder
		for _, k := range keys {
			value := e.SelectAttrValue(k, "")
			if k == "interval" && value == "0" {
				value = "0s"
			}
			fmt.Fprintf(&b, " %s=%s", k, value)
		}
		return b.String()
	}
	for _, e := range doc.FindElements("//*") {
		owner := e.Parent()
		switch e.Tag {
		case "primitive":
			lines = append(lines, fmt.Sprintf("primitive%s in %s", attr(e, "id", "class", "provider", "type"), owner.Tag))
		case "clone", "group":
			lines = append(lines, e.Tag+attr(e, "id"))
			for _, member := range e.ChildElements() {
				if member.SelectAttr("type") != nil {
					lines = append(lines, e.Tag+attr(e, "id")+" has"+attr(member, "id"))
				}
			}
		case "op":
			line := "op of" + attr(owner.Parent(), "id") + attr(e, "name", "interval", "timeout", "role")
			for _, pair := range e.FindElements(".//nvpair") {
				line += attr(pair, "name", "value")
			}
			lines = append(lines, line)
		case "nvpair":
			if holder := owner.Parent(); holder.Tag != "op" {
				name := holder.Tag
				if holder.SelectAttr("class") != nil || holder.Tag == "clone" || holder.Tag == "group" {
					name += attr(holder, "id")
				}
				lines = append(lines, name+" "+owner.Tag+attr(e, "name", "value"))
			}
		case "rsc_colocation":
			lines = append(lines, e.Tag+attr(e, "rsc", "with-rsc", "with-rsc-role", "score"))
		case "rsc_order":
			lines = append(lines, e.Tag+attr(e, "first", "first-action", "then", "then-action"))
		case "fencing-level":
			lines = append(lines, e.Tag+attr(e, "target", "index", "devices"))
		}
	}
	slices.Sort(lines)
	return lines
}
