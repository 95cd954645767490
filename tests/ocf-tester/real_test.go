//go:build real

package ocftester

import (
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

// operation and primitive are what two forms of one configuration must agree in.
type operation struct{ name, interval, timeout, role, level string }

type primitive struct {
	kind   string
	params map[string]string
	ops    []operation
}

// primitives reads the resources of a CIB.
func primitives(t *testing.T, cib string) map[string]primitive {
	t.Helper()
	doc := etree.NewDocument()
	require.NoError(t, doc.ReadFromString(cib))
	found := map[string]primitive{}
	for _, el := range doc.FindElements("//resources//primitive") {
		attr := func(e *etree.Element, name string) string { return e.SelectAttrValue(name, "") }
		p := primitive{attr(el, "class") + ":" + attr(el, "provider") + ":" + attr(el, "type"), map[string]string{}, nil}
		for _, nv := range el.FindElements("instance_attributes/nvpair") {
			p.params[attr(nv, "name")] = attr(nv, "value")
		}
		for _, op := range el.FindElements("operations/op") {
			o := operation{attr(op, "name"), strings.TrimSuffix(attr(op, "interval"), "s"), attr(op, "timeout"), attr(op, "role"), ""}
			o.role = strings.NewReplacer("Master", "Promoted", "Slave", "Unpromoted").Replace(o.role)
			for _, nv := range append(op.FindElements("instance_attributes/nvpair"), op) {
				if attr(nv, "name") == "OCF_CHECK_LEVEL" {
					o.level = attr(nv, "value")
				}
			}
			if level := attr(op, "OCF_CHECK_LEVEL"); level != "" {
				o.level = level
			}
			p.ops = append(p.ops, o)
		}
		slices.SortFunc(p.ops, func(a, b operation) int {
			return strings.Compare(a.name+a.interval, b.name+b.interval)
		})
		found[attr(el, "id")] = p
	}
	return found
}

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
			forms := map[string]map[string]primitive{}
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
				file, err := filepath.Abs(crm)
				require.NoError(t, err)
				if name == "pcs" {
					file = strings.TrimSuffix(file, ".crm") + ".pcs.sh"
				}
				cib := "/run/" + name + ".xml"
				s.sh("cibadmin --empty >" + cib)
				got := s.run([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/run", "TERM=dumb", "CIB_file=" + cib}, "sh", "-ec", script, "sh", file)
				require.Equal(t, 0, got.code, "%s\n%s%s", name, got.stdout, got.stderr)
				verdict := s.run([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "crm_verify", "--xml-file", cib, "-V")
				require.Equal(t, 0, verdict.code, "%s\n%s", name, verdict.stderr)
				forms[name] = primitives(t, s.sh("cat "+cib))
				require.NotEmpty(t, forms[name])
			}
			for id, said := range forms["crm"] {
				// pcs adds every operation that the meta-data advises and the line does not name.
				p := forms["pcs"][id]
				p.ops = slices.DeleteFunc(p.ops, func(o operation) bool {
					return !slices.ContainsFunc(said.ops, func(named operation) bool { return named.name == o.name })
				})
				forms["pcs"][id] = p
			}
			require.Equal(t, forms["crm"], forms["pcs"])
		})
	}
}
