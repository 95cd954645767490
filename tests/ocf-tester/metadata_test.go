package ocftester

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/beevik/etree"
	"github.com/stretchr/testify/require"
)

func TestTheCommittedMetaDataIsWhatTheAgentPrints(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		file := filepath.Join(root, "metadata", a.name+".xml")
		committed, err := os.ReadFile(file)
		require.NoErrorf(t, err, "run `make metadata`")
		was, is := strings.Split(string(committed), "\n"), strings.Split(string(a.doc), "\n")
		for i := range min(len(was), len(is)) {
			require.Equalf(t, was[i], is[i], "%s is stale in line %d: run `make metadata`", file, i+1)
		}
		require.Lenf(t, was, len(is), "%s is stale: run `make metadata`", file)
	})
}

func TestMetaDataIsOneDocumentForNobodyWithAnEmptyEnvironment(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, a.file, "meta-data")
		cmd.Env = []string{}
		cmd.Dir = "/"
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Chroot: chroot(t, a, dir)}
			cmd.Path, cmd.Args = "/"+a.name, []string{a.name, "meta-data"}
		} else {
			t.Log("not root: called as this user instead of nobody, and not alone on its root")
		}
		require.Equal(t, heard{stdout: string(a.doc)}, run(t, cmd))
	})
}

// chroot makes a root that holds nothing but the agent: no library, no device, no /proc.
func chroot(t *testing.T, a *agent, dir string) string {
	t.Helper()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Link(a.file, filepath.Join(dir, a.name)))
	return dir
}

func TestMetaDataIsTheSameWhateverTheEnvironmentSays(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		for about, environ := range map[string][]string{
			"Pacemaker":      a.cluster(nil),
			"broken values":  a.cluster(map[string]string{a.identity: "\n"}, "OCF_CHECK_LEVEL=x", "OCF_RESKEY_CRM_meta_timeout=-1"),
			"no directories": {"HA_RSCTMP=/proc/none", "HA_LOGFILE=/proc/none/log", "PATH="},
			"ocf-tester":     {"OCF_ROOT=/usr/lib/ocf", "OCF_TESTER_FAIL_HAVE_BINARY=1", "__OCF_ACTION=start"},
		} {
			require.Equal(t, heard{stdout: string(a.doc)}, a.call(t, environ, "meta-data"), about)
		}
	})
}

func TestMetaDataIsValid(t *testing.T) {
	const dtd = "/usr/share/resource-agents/ra-api-1.dtd"
	each(t, func(t *testing.T, a *agent) {
		for about, schema := range map[string]struct {
			file string
			args []string
		}{
			"the DTD of ocf-tester":         {dtd, []string{"--valid", "--path", filepath.Dir(dtd)}},
			"OCF 1.1 and our own promises":  {filepath.Join(root, "metadata", "testdata", "strict.rng"), []string{"--relaxng"}},
			"what pcs refuses agents by":    {"/usr/share/pcs/data/ocf-1.1.rng", []string{"--relaxng"}},
			"well-formed by another parser": {"/dev/null", nil},
		} {
			t.Run(about, func(t *testing.T) {
				tool, err := exec.LookPath("xmllint")
				if err != nil {
					t.Skip("xmllint is missing: install libxml2-utils")
				}
				if _, err := os.Stat(schema.file); err != nil {
					t.Skipf("the schema is missing: %v", err)
				}
				args := schema.args
				if slices.Contains(args, "--relaxng") {
					args = append(slices.Clone(args), schema.file)
				}
				cmd := exec.Command(tool, append(slices.Clone(args), "--noout", "-")...)
				cmd.Stdin = bytes.NewReader(a.doc)
				said, err := cmd.CombinedOutput()
				require.NoErrorf(t, err, "%s", said)
			})
		}
	})
}

func TestTheDeclarationIsComplete(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		doc := etree.NewDocument()
		require.NoError(t, doc.ReadFromBytes(a.doc))
		require.Equal(t, a.name, doc.Root().SelectAttrValue("name", ""))
		for _, path := range []string{"/resource-agent", "//parameter"} {
			for _, el := range doc.FindElements(path) {
				for _, kind := range []string{"longdesc", "shortdesc"} {
					text := el.FindElement(kind)
					require.NotNilf(t, text, "%s of %s", kind, el.SelectAttrValue("name", ""))
					require.Regexpf(t, `\pL{2}`, text.Text(), "%s of %s", kind, el.SelectAttrValue("name", ""))
				}
				require.LessOrEqual(t, len(el.FindElement("shortdesc").Text()), 80, el.SelectAttrValue("name", ""))
			}
		}
		seconds := regexp.MustCompile(`^[1-9][0-9]*s$`)
		for _, el := range doc.FindElements("//action") {
			require.Regexp(t, seconds, el.SelectAttrValue("timeout", ""), el.SelectAttrValue("name", ""))
			if el.SelectAttr("interval") != nil {
				require.Regexp(t, seconds, el.SelectAttrValue("interval", ""))
			}
		}
		for _, name := range []string{"start", "stop", "monitor", "meta-data", "validate-all"} {
			require.Truef(t, a.declares(name), "%s is mandatory, or promised", name)
		}
		require.Equal(t, a.declares("promote"), a.declares("demote"))
		seen := map[string]bool{}
		for _, p := range a.params {
			require.Falsef(t, seen[p.name], "parameter %s twice", p.name)
			seen[p.name] = true
		}
		require.True(t, seen[a.identity], "the identity is a parameter")
	})
}

// Pacemaker schedules two monitors of one resource by their interval alone: two of the same would
// be one operation with two roles.
func TestNoTwoMonitorsAreAdvisedWithTheSameInterval(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		doc := etree.NewDocument()
		require.NoError(t, doc.ReadFromBytes(a.doc))
		seen := map[string]bool{}
		for _, el := range doc.FindElements("//action[@name='monitor']") {
			interval := el.SelectAttrValue("interval", "")
			require.NotEmpty(t, interval)
			require.Falsef(t, seen[interval], "two monitors every %s", interval)
			seen[interval] = true
		}
	})
}

// everyAction is each action that OCF or Pacemaker knows.
var everyAction = []string{
	"start", "stop", "monitor", "promote", "demote", "notify", "reload", "reload-agent", "validate-all",
	"meta-data", "migrate_to", "migrate_from", "recover", "restart",
}

func TestAnActionIsSupportedExactlyWhenItIsDeclared(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		s := newSandbox(t)
		for _, name := range everyAction {
			// A hopeless identity keeps every action from doing anything.
			got := s.run(a.cluster(map[string]string{a.identity: a.hopeless}), a.file, name)
			if a.declares(name) {
				require.NotEqualf(t, 3, got.code, "%s is declared: %s", name, got.stderr)
			} else {
				require.Equalf(t, 3, got.code, "%s is not declared: %s", name, got.stderr)
				require.Len(t, got.reasons(), 1)
			}
		}
	})
}
