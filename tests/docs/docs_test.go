// Package docs proves that README.md, docs/ and crm-examples/ say what is true of this tree:
// links lead somewhere, make targets exist, parameters are declared, quoted files are the files.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// texts are all Markdown files that people read.
func texts(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "crm-examples/*.md", "crm-examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		for _, file := range found {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			name, err := filepath.Rel(root, file)
			require.NoError(t, err)
			files[name] = string(text)
		}
	}
	require.Contains(t, files, "README.md")
	return files
}

func TestEveryRelativeLinkInTheDocumentationLeadsToAFile(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	for name, text := range texts(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			require.FileExistsf(t, existing(filepath.Join(root, filepath.Dir(name), m[1])), "%s links to %s", name, m[1])
		}
	}
}

// existing makes a link to a folder point to something FileExists accepts.
func existing(path string) string {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		entries, _ := os.ReadDir(path)
		for _, e := range entries {
			if !e.IsDir() {
				return filepath.Join(path, e.Name())
			}
		}
	}
	return path
}

func TestEveryMakeTargetNamedInTheDocumentationExists(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	target := regexp.MustCompile("(?m)(?:^|`)(?:sudo )?make ([a-z][a-z-]*)")
	for name, text := range texts(t) {
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			require.Regexpf(t, `(?m)^`+m[1]+`:`, string(makefile), "%s names `make %s`", name, m[1])
		}
	}
}

// A line `<!-- file: PATH -->` before a fenced block says that the block quotes that file.
func TestEveryBlockThatQuotesAnExampleIsThatExample(t *testing.T) {
	quoted := regexp.MustCompile("(?s)<!-- file: ([^ ]+) -->\n```[a-z]*\n(.*?)```")
	for name, text := range texts(t) {
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			want, err := os.ReadFile(filepath.Join(root, m[1]))
			require.NoErrorf(t, err, "%s quotes %s", name, m[1])
			require.Equalf(t, string(want), m[2], "%s quotes %s", name, m[1])
		}
	}
}

// parameters are the names that an agent's generated meta-data declares.
func parameters(t *testing.T, agent string) map[string]bool {
	t.Helper()
	doc := etree.NewDocument()
	require.NoError(t, doc.ReadFromFile(filepath.Join(root, "metadata", agent+".xml")))
	names := map[string]bool{}
	for _, el := range doc.FindElements("//parameter") {
		names[el.SelectAttrValue("name", "")] = true
	}
	require.NotEmpty(t, names)
	return names
}

// In crm's and pcs's syntax alike the parameters follow the agent's name as NAME=VALUE words,
// until a keyword that opens another section.
func TestEveryParameterInTheExamplesIsDeclaredByItsAgent(t *testing.T) {
	var files []string
	for _, pattern := range []string{"README.md", "docs/*.md", "crm-examples/*/*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		files = append(files, found...)
	}
	agent := regexp.MustCompile(`ocf:baton:([a-z]+)((?:[ \t]+(?:params|[a-z_0-9]+=(?:"[^"]*"|'[^']*'|\S+))|[ \t]*\\\n)*)`)
	word := regexp.MustCompile(`(?:^|\s)([a-z_0-9]+)=(?:"[^"]*"|'[^']*'|\S+)`)
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a folder
		}
		for _, m := range agent.FindAllStringSubmatch(string(text), -1) {
			declared := parameters(t, m[1])
			for _, w := range word.FindAllStringSubmatch(m[2], -1) {
				require.Truef(t, declared[w[1]], "%s gives ocf:baton:%s a parameter %s, which it does not declare", file, m[1], w[1])
				seen++
			}
		}
	}
	require.NotZero(t, seen, "no parameter of any agent was found in the examples")
}

// A resource that pcs creates in the running cluster starts before the constraints that the next
// lines give it.
func TestExamplesByPcsReachTheClusterAtOnceWhereOneResourceDependsOnAnother(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "crm-examples", "*", "*.pcs.sh"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	live := regexp.MustCompile(`(?m)^pcs (?:stonith|property|resource|constraint) .*`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		if !strings.Contains(string(text), " constraint ") {
			continue
		}
		require.Emptyf(t, live.FindAllString(string(text), -1), "%s changes the running cluster step by step", file)
		require.Regexpf(t, `\npcs cluster cib-push [^\n]+\n$`, string(text), "%s", file)
	}
}

// heartbeat would call a bare nfsd without the directory that it cannot start without.
func TestEveryHaresourcesLineWithBatonsResourcesGivesNfsdItsDirectory(t *testing.T) {
	seen := 0
	for name, text := range texts(t) {
		for line := range strings.Lines(text) {
			if !strings.Contains(line, " drbd::") && !strings.Contains(line, " vip::") {
				continue
			}
			for _, word := range strings.Fields(line) {
				require.NotEqualf(t, "nfsd", word, "%s: %s", name, line)
				if strings.HasPrefix(word, "nfsd::/") {
					seen++
				}
			}
		}
	}
	require.NotZero(t, seen)
}

// docs/moving-over.md promises it in place of "restart once, then fail over".
func TestExamplesRestartAServerOnceAndThenMoveIt(t *testing.T) {
	for _, pattern := range []string{"*.crm", "*.pcs.sh"} {
		files, err := filepath.Glob(filepath.Join(root, "crm-examples", "*", pattern))
		require.NoError(t, err)
		seen := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			if strings.Contains(string(text), "ocf:baton:nfsd") || strings.Contains(string(text), "ocf:baton:mfsmaster") {
				require.Containsf(t, string(text), "migration-threshold=2", "%s", file)
				require.Containsf(t, string(text), "failure-timeout=600s", "%s", file)
				seen++
			}
		}
		require.Equal(t, 3, seen)
	}
}
