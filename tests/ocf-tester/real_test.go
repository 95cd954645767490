//go:build real

package ocftester

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/stretchr/testify/require"
)

// needs makes sure of a tool: as root its Debian package is installed where it is missing.
func needs(t *testing.T, tool, debian string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Geteuid() != 0 {
		t.Skipf("%s is missing, and only root can install its package: apt-get install %s", tool, debian)
	}
	t.Logf("%s is missing: installing the Debian package %s", tool, debian)
	said, err := exec.Command("sh", filepath.Join(root, "tests", "install-packages"), debian).CombinedOutput()
	require.NoError(t, err, string(said))
}

// install puts the built agents where a cluster looks for them, for the sandbox alone.
func (s *sandbox) install() {
	s.sh(`
		mkdir -p /run/ra
		cp -a /usr/lib/ocf/resource.d/. /run/ra/ 2>/dev/null || true
		mkdir -p /run/ra/baton /usr/lib/ocf/resource.d
		install -m 0755 "$1"/* /run/ra/baton/
		mount --bind /run/ra /usr/lib/ocf/resource.d`, bin)
}

func TestTheRealOcfTesterPassesVIP(t *testing.T) {
	needs(t, "ocf-tester", "resource-agents")
	needs(t, "xmllint", "libxml2-utils")
	a, s := find(t, "vip"), newSandbox(t)
	s.install()
	s.network()
	clean := s.sh("ip -o addr; ip route show table all")
	for about, options := range map[string][]string{
		"IPv4, found interface": {"-o", "ip=192.0.2.50"},
		"IPv4, all given":       {"-o", "ip=192.0.2.50", "-o", "cidr_netmask=24", "-o", "nic=eth0", "-o", "iflabel=v"},
		"IPv6":                  {"-o", "ip=2001:db8::50", "-o", "cidr_netmask=64", "-o", "nic=eth0"},
	} {
		t.Run(about, func(t *testing.T) {
			s.t = t
			args := append([]string{"ocf-tester", "-v", "-n", "test"}, options...)
			got := s.run([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, append(args, "/usr/lib/ocf/resource.d/baton/vip")...)
			t.Logf("%s%s", got.stdout, got.stderr)
			require.Equal(t, 0, got.code)
			require.Contains(t, got.stdout, "passed all tests")
			require.NotContains(t, got.stdout, "rc=3: Your agent")
			require.Equal(t, clean, s.sh("ip -o addr; ip route show table all"))
		})
	}
	_ = a
}

// The tool finds what is wrong, or its praise would be worth nothing.
func TestTheRealOcfTesterFailsOnAnAddressThatCannotBe(t *testing.T) {
	needs(t, "ocf-tester", "resource-agents")
	needs(t, "xmllint", "libxml2-utils")
	find(t, "vip")
	s := newSandbox(t)
	s.install()
	s.network()
	got := s.run([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "ocf-tester", "-n", "test", "-o", "ip=999.0.2.50", "/usr/lib/ocf/resource.d/baton/vip")
	require.NotEqual(t, 0, got.code)
}

// words are a text's words, so that a tool may wrap it as it likes.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestTheClustersToolsShowTheMetaData(t *testing.T) {
	needs(t, "crm_resource", "pacemaker-cli-utils")
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		s.install()
		path := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/run", "TERM=dumb", "COLUMNS=200"}
		spec := "ocf:baton:" + a.name
		doc := etree.NewDocument()
		require.NoError(t, doc.ReadFromBytes(a.doc))
		short := doc.FindElement("/resource-agent/shortdesc").Text()

		t.Run("crm_resource", func(t *testing.T) {
			s.t = t
			got := s.run(path, "crm_resource", "--show-metadata", spec)
			require.Equal(t, 0, got.code, got.stderr)
			require.Equal(t, strings.TrimSpace(string(a.doc)), strings.TrimSpace(got.stdout))
			require.Contains(t, strings.Fields(s.run(path, "crm_resource", "--list-agents", "ocf:baton").stdout), a.name)
		})
		t.Run("crm", func(t *testing.T) {
			needs(t, "crm", "crmsh")
			s.t = t
			got := s.run(path, "crm", "ra", "info", spec)
			require.Equal(t, 0, got.code, got.stderr)
			require.Contains(t, words(got.stdout), words(short)+" ("+spec+")")
			for _, p := range a.params {
				line := `(?m)^` + p.name
				if p.required {
					line += `\*`
				}
				line += ` \(` + p.kind
				if p.fallback != "" {
					line += `, \[` + regexp.QuoteMeta(p.fallback) + `\]`
				}
				require.Regexp(t, line+`\): \S`, got.stdout)
			}
		})
		t.Run("pcs", func(t *testing.T) {
			needs(t, "pcs", "pcs")
			s.t = t
			got := s.run(path, "pcs", "resource", "describe", spec)
			require.Equal(t, 0, got.code, got.stderr)
			require.NotContains(t, got.stderr, "Warning")
			require.Contains(t, words(got.stdout), spec+" - "+words(short))
			for _, p := range a.params {
				line := `(?m)^  ` + p.name
				if p.required {
					line += ` \(required`
				}
				require.Regexp(t, line, got.stdout)
			}
		})
	})
}

func TestPcsHoldsAResourceAgainstTheDeclaration(t *testing.T) {
	needs(t, "pcs", "pcs")
	needs(t, "cibadmin", "pacemaker-cli-utils")
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		s.install()
		s.sh("cibadmin --empty >/run/cib.xml")
		create := func(over map[string]string) heard {
			args := []string{"pcs", "-f", "/run/cib.xml", "resource", "create", "test", "ocf:baton:" + a.name}
			for name, value := range a.good {
				if _, ok := over[name]; !ok {
					args = append(args, name+"="+value)
				}
			}
			for name, value := range over {
				if value != "" {
					args = append(args, name+"="+value)
				}
			}
			return s.run([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/run"}, args...)
		}
		got := create(map[string]string{"no_such_parameter": "1"})
		require.NotEqual(t, 0, got.code)
		require.Contains(t, got.stderr, "no_such_parameter")
		for _, p := range a.params {
			if p.required {
				got := create(map[string]string{p.name: ""})
				require.NotEqual(t, 0, got.code)
				require.Contains(t, got.stderr, "required resource option '"+p.name+"' is missing")
			}
		}
		got = create(nil)
		require.Equal(t, 0, got.code, got.stderr)
		require.NotContains(t, got.stderr, "Warning")
	})
}

// configured is what a cluster is told to do, a line for each thing, whatever the tool that made the
// CIB calls the elements that hold it.
func configured(t *testing.T, cib string) (lines []string) {
	t.Helper()
	doc := etree.NewDocument()
	require.NoError(t, doc.ReadFromString(cib))
	same := strings.NewReplacer("=Master", "=Promoted", "=Slave", "=Unpromoted")
	attr := func(e *etree.Element, keys ...string) string {
		var b strings.Builder
		for _, k := range keys {
			value := e.SelectAttrValue(k, "")
			if k == "interval" {
				value = strings.TrimSuffix(value, "s")
			}
			fmt.Fprintf(&b, " %s=%s", k, value)
		}
		return same.Replace(b.String())
	}
	for _, e := range doc.FindElements("//configuration//*") {
		owner := e.Parent()
		switch e.Tag {
		case "primitive":
			lines = append(lines, e.Tag+attr(e, "id", "class", "provider", "type"))
		case "clone", "group":
			for _, member := range e.ChildElements() {
				if member.SelectAttr("type") != nil {
					lines = append(lines, e.Tag+attr(e, "id")+" has"+attr(member, "id"))
				}
			}
		case "op":
			line := "op of" + attr(owner.Parent(), "id") + attr(e, "name", "interval", "timeout", "role")
			if level := e.SelectAttr("OCF_CHECK_LEVEL"); level != nil {
				line += " name=OCF_CHECK_LEVEL value=" + level.Value
			}
			for _, pair := range e.FindElements(".//nvpair") {
				line += attr(pair, "name", "value")
			}
			lines = append(lines, line)
		case "nvpair":
			if holder := owner.Parent(); holder.Tag != "op" {
				lines = append(lines, strings.TrimSpace(holder.Tag+attr(holder, "id")+" "+owner.Tag)+attr(e, "name", "value"))
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

// additions are the examples that are loaded after another.
var additions = map[string]string{"fencing-ping": "drbd-filesystem-vip"}

// The examples are loaded as their readers load them, into a configuration that is a file: the
// tools hold each resource against the agents' meta-data, and Pacemaker judges the whole.
func TestTheExamplesLoadInBothLanguagesAndSayTheSame(t *testing.T) {
	needs(t, "pcs", "pcs")
	needs(t, "crm", "crmsh")
	needs(t, "crm_verify", "pacemaker-cli-utils")
	examples, err := filepath.Glob(filepath.Join(root, "crm-examples", "*", "*.crm"))
	require.NoError(t, err)
	require.NotEmpty(t, examples)
	for _, crm := range examples {
		t.Run(filepath.Base(crm), func(t *testing.T) {
			s := newSandbox(t)
			s.install()
			file, err := filepath.Abs(strings.TrimSuffix(crm, ".crm"))
			require.NoError(t, err)
			files := []string{file}
			if base, ok := additions[filepath.Base(file)]; ok {
				files = []string{filepath.Join(filepath.Dir(file), base), file}
			}
			forms := map[string][]string{}
			for name, script := range map[string]string{
				// crm asks crm_verify by itself, and fails without these names in the CIB.
				"crm": `crm -F -n configure load update "$1"`,
				// The cluster that a script reads from and pushes to is CIB_file. The fence agent and the
				// systemd units of the examples need not be here.
				"pcs": `mkdir -p /run/bin; cat >/run/bin/pcs <<-"END"
						#!/bin/sh
						case "$1" in cluster) exec /usr/sbin/pcs "$@";; -f) ;; *) set -- -f "$CIB_file" "$@";; esac
						case "$3 $6" in stonith*|*\ systemd:*) set -- "$@" --force;; esac
						exec /usr/sbin/pcs "$@"
						END
					chmod 755 /run/bin/pcs; PATH=/run/bin:$PATH sh "$1"`,
			} {
				cib := "/run/" + name + ".xml"
				s.sh("cibadmin --empty >" + cib + `
					CIB_file=` + cib + ` cibadmin --create -o nodes -X '<node id="1" uname="n1"/>'
					CIB_file=` + cib + ` cibadmin --create -o nodes -X '<node id="2" uname="n2"/>'`)
				for _, file := range files {
					file += map[string]string{"crm": ".crm", "pcs": ".pcs.sh"}[name]
					got := s.run([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/run", "TERM=dumb", "CIB_file=" + cib}, "sh", "-ec", script, "sh", file)
					require.Equal(t, 0, got.code, "%s\n%s%s", name, got.stdout, got.stderr)
				}
				// Nodes of which no state is known would be a warning.
				s.sh("sed -i '/<node /d' " + cib)
				verdict := s.run([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "crm_verify", "--xml-file", cib, "-V")
				require.Equal(t, 0, verdict.code, "%s\n%s", name, verdict.stderr)
				forms[name] = configured(t, s.sh("cat "+cib))
				require.NotEmpty(t, forms[name])
			}
			// pcs adds every operation that the meta-data advises and the line does not name.
			more := slices.DeleteFunc(slices.Clone(forms["pcs"]), func(line string) bool {
				return slices.Contains(forms["crm"], line) || strings.HasPrefix(line, "op of")
			})
			less := slices.DeleteFunc(slices.Clone(forms["crm"]), func(line string) bool { return slices.Contains(forms["pcs"], line) })
			require.Empty(t, more, "what pcs alone has")
			require.Empty(t, less, "what crm alone has")
		})
	}
}
