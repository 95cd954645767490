// Package arrows proves which part of the project knows of which: the table of imports, each row
// with its reason, and what the code of the agents may not contain anywhere.
package arrows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath   string
	Dir          string
	Standard     bool
	Imports      []string // of the code itself
	Deps         []string // of the code, transitively
	TestImports  []string
	XTestImports []string
	GoFiles      []string
}

// packages lists the module's own packages, and tells which import paths are the standard library's.
func packages(t *testing.T) (own []listed, standard map[string]bool) {
	t.Helper()
	list := func(args ...string) []listed {
		cmd := exec.Command("go", append([]string{"list", "-e", "-tags", "lab,real", "-json=ImportPath,Dir,Standard,Imports,Deps,TestImports,XTestImports,GoFiles"}, args...)...)
		cmd.Dir = root
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		var all []listed
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var p listed
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				return all
			} else {
				require.NoError(t, err)
			}
			all = append(all, p)
		}
	}
	own = list("./...")
	require.Greater(t, len(own), 10)
	standard = map[string]bool{}
	for _, p := range list("std") {
		standard[p.ImportPath] = true
	}
	require.True(t, standard["os/exec"])
	return own, standard
}

// under: the path is the prefix or lies below it.
func under(importPath string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return importPath == p || strings.HasPrefix(importPath, strings.TrimSuffix(p, "/")+"/")
	})
}

// arrow is one row of the table.
type arrow struct {
	who func(importPath string) bool
	// may are what it imports besides the standard library.
	may []string
	// never are what must not even come in through another package.
	never []string
	why   string
}

const (
	agents    = "baton/agents"
	internals = "baton/agents/internal"
	children  = "baton/agents/internal/command"
	contract  = "baton/ocf"
	ground    = "baton/metadata"
	netlink   = "github.com/vishvananda/netlink"
	kernel    = "golang.org/x/sys"
	etree     = "github.com/beevik/etree"
)

// overTools are the areas of the system that are reached through command-line tools.
var overTools = []string{internals + "/pacemaker", internals + "/systemd"}

func is(paths ...string) func(string) bool {
	return func(p string) bool { return slices.Contains(paths, p) }
}

func isAgent(p string) bool { return path.Dir(p) == agents && p != internals }

func isArea(p string) bool {
	return under(p, internals) && p != children && !slices.Contains(overTools, p)
}

// arrows is the table. Everything of the project stands in exactly one row.
func arrows() []arrow {
	return []arrow{
		{
			who: is(ground), may: []string{etree}, never: []string{"os/exec", agents, contract, netlink, kernel},
			why: "metadata is the ground floor: plain data and its XML",
		},
		{
			who: is(contract), may: []string{ground, "github.com/spf13/pflag"}, never: []string{"os/exec", agents, netlink, kernel},
			why: "the contract touches only the environment, the standard streams and the log",
		},
		{
			who: is(children), never: []string{"baton"},
			why: "the door to child processes knows nothing of who goes through it",
		},
		{
			who: is(overTools...), may: []string{children, etree}, never: []string{contract, netlink},
			why: "Pacemaker and systemd are reached through their tools alone, and return states and errors",
		},
		{
			who: isArea, may: []string{kernel, netlink, etree, "github.com/moby/sys/mountinfo"}, never: []string{contract, ground, "os/exec", "baton"},
			why: "an area of the system returns states and errors, never exit codes, starts no children and knows no other area",
		},
		{
			who: isAgent, may: []string{contract, ground, internals, kernel}, never: nil,
			why: "an agent reaches kernel and children through agents/internal; x/sys gives it error numbers and flags of files",
		},
		{
			who:   func(p string) bool { return under(p, "baton/tests") },
			may:   []string{"baton/tests", "github.com/stretchr/testify", "golang.org/x/crypto/ssh", kernel, etree, netlink},
			never: []string{agents, contract, ground},
			why:   "tests see the built binaries alone",
		},
	}
}

// wrong is everything that the package imports against the table.
func wrong(p listed, standard map[string]bool) []string {
	var rows []arrow
	for _, row := range arrows() {
		if row.who(p.ImportPath) {
			rows = append(rows, row)
		}
	}
	if len(rows) != 1 {
		return []string{fmt.Sprintf("%s stands in %d rows of the table, expected 1", p.ImportPath, len(rows))}
	}
	row := rows[0]
	var found []string
	for _, imported := range p.Imports {
		if !standard[imported] && !under(imported, row.may...) {
			found = append(found, fmt.Sprintf("%s imports %s: %s", p.ImportPath, imported, row.why))
		}
		if imported == "os/exec" && p.ImportPath != children && !under(p.ImportPath, "baton/tests") {
			found = append(found, fmt.Sprintf("%s imports os/exec: children run through %s alone, so that deadline, process group and errors are the same everywhere", p.ImportPath, children))
		}
		if isAgent(imported) {
			found = append(found, fmt.Sprintf("%s imports %s: nothing may know an agent from inside", p.ImportPath, imported))
		}
	}
	for _, dep := range p.Deps {
		if under(dep, row.never...) && dep != p.ImportPath && !permitted(p, dep) {
			found = append(found, fmt.Sprintf("%s depends on %s: %s", p.ImportPath, dep, row.why))
		}
	}
	return found
}

func TestEveryPackageImportsOnlyWhatTheTableAllows(t *testing.T) {
	own, standard := packages(t)
	for _, p := range own {
		for _, violation := range wrong(p, standard) {
			t.Error(violation)
		}
	}
}

func TestTheTableRefusesWhatItSays(t *testing.T) {
	standard := map[string]bool{"fmt": true, "os/exec": true}
	for _, c := range []struct {
		who, imports, dep string
		refused           bool
	}{
		{ground, etree, "", false},
		{ground, contract, "", true},
		{contract, ground, "", false},
		{contract, netlink, "", true},
		{contract, "fmt", "os/exec", true},
		{contract, internals + "/process", "", true},
		{children, "os/exec", "", false},
		{children, ground, "", true},
		{internals + "/systemd", children, children, false},
		{internals + "/systemd", contract, "", true},
		{internals + "/sockdiag", netlink + "/nl", "", false},
		{internals + "/sockdiag", children, "", true},
		{internals + "/sockdiag", internals + "/addresses", "", true},
		{internals + "/sockdiag", "fmt", contract, true},
		{internals + "/sockdiag", "os/exec", "", true},
		{agents + "/vip", internals + "/sockdiag", netlink, false},
		{agents + "/vip", netlink, "", true},
		{agents + "/vip", "os/exec", "", true},
		{agents + "/vip", agents + "/drbd", "", true},
		{"baton/tests/lab", "baton/tests/lab/internal/qmp", "", false},
		{"baton/tests/lab", "os/exec", "", false},
		{"baton/tests/lab", "fmt", contract, true},
		{"baton/somewhere", "fmt", "", true},
	} {
		p := listed{ImportPath: c.who, Imports: []string{"fmt", c.imports}, Deps: []string{"fmt", c.imports}}
		if c.dep != "" {
			p.Deps = append(p.Deps, c.dep)
		}
		require.Equal(t, c.refused, len(wrong(p, standard)) > 0, "%s imports %s, depends on %s: %v", c.who, c.imports, c.dep, wrong(p, standard))
	}
}

// permitted: a package of the tests is built of other packages of the tests.
func permitted(p listed, dep string) bool {
	return under(p.ImportPath, "baton/tests") && under(dep, "baton/tests")
}

// The agents' own tests may use what they like of the project, and the tests of an area may use
// its neighbors, but nobody tests the agents from outside by reaching into them.
func TestTheTestsOfThisFolderReachIntoNothing(t *testing.T) {
	own, _ := packages(t)
	for _, p := range own {
		if !under(p.ImportPath, "baton/tests") {
			continue
		}
		for _, imported := range append(p.TestImports, p.XTestImports...) {
			if under(imported, agents, contract, ground) {
				t.Errorf("%s tests with %s: tests see the built binaries alone", p.ImportPath, imported)
			}
		}
	}
}

func TestTheFourAgentsAreThere(t *testing.T) {
	own, _ := packages(t)
	var found []string
	for _, p := range own {
		if isAgent(p.ImportPath) {
			found = append(found, path.Base(p.ImportPath))
		}
	}
	require.Equal(t, []string{"drbd", "mfsmaster", "nfsd", "vip"}, found)
}
