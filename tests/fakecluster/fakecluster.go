// Package fakecluster plays Pacemaker's tools crm_attribute and attrd_updater over a directory of
// files: cluster properties, promotion scores and node attributes. It keeps state and knows nothing
// of any agent. It is for tests that need several nodes and no cluster; what the real one does is
// proven in tests/lab.
package fakecluster

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The codes of crm_exit_t that the tools end with.
const (
	exitNoSuch     = 105
	exitDisconnect = 102
)

// Cluster is a cluster whose state lies in Dir, a file for each value: property@NAME, score@NODE@NAME
// (NAME is the resource without the number of its instance), attribute@NODE@NAME.
type Cluster struct {
	Dir string // empty: there is no cluster
	// Broken makes "write" fail whatever would change something, and anything else that is not empty
	// each call.
	Broken string
	// Set is called before a value is written, if it is not nil.
	Set func(kind, name, value string)
}

// Run is a call of the tool; the result is its exit code.
func (c Cluster) Run(tool string, args []string, stdout, stderr io.Writer) int {
	value := func(names ...string) (string, bool) {
		for i, a := range args {
			for _, n := range names {
				if a == n && i+1 < len(args) {
					return args[i+1], true
				}
				if v, ok := strings.CutPrefix(a, n+"="); ok {
					return v, true
				}
			}
		}
		return "", false
	}
	node, _ := value("-N")
	name, _ := value("--name", "-n")
	kind := "property"
	if tool == "attrd_updater" {
		kind = "attribute@" + node
	}
	if instance, ok := value("--promotion"); ok {
		kind = "score@" + node
		name, _, _ = strings.Cut(instance, ":")
	}
	file := filepath.Join(c.Dir, kind+"@"+name)
	text, update := value("--update", "-U", "-v")
	remove := slices.Contains(args, "--delete") || slices.Contains(args, "-D")
	if c.Dir == "" || c.Broken != "" && (c.Broken != "write" || update || remove) {
		fmt.Fprintln(stderr, "Could not connect to the CIB: Transport endpoint is not connected")
		return exitDisconnect
	}
	switch {
	case update:
		if c.Set != nil {
			c.Set(kind, name, text)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
	case remove:
		_ = os.Remove(file) // what is not there need not be removed
	default:
		data, err := os.ReadFile(file)
		if err != nil {
			return exitNoSuch
		}
		fmt.Fprintln(stdout, string(data))
	}
	return 0
}
