package arrows

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// source is one file of the agents, the contract or the ground floor, without their tests.
type source struct {
	pkg, name string
	fset      *token.FileSet
	file      *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	own, _ := packages(t)
	var all []source
	for _, p := range own {
		if !under(p.ImportPath, agents, contract, ground) {
			continue
		}
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			all = append(all, source{p.ImportPath, name, fset, file})
		}
	}
	require.Greater(t, len(all), 20)
	return all
}

// local is the name under which the file uses the package, or nothing.
func (s source) local(importPath string) string {
	for _, spec := range s.file.Imports {
		if got, _ := strconv.Unquote(spec.Path.Value); got == importPath {
			if spec.Name != nil {
				return spec.Name.Name
			}
			return importPath[strings.LastIndexByte(importPath, '/')+1:]
		}
	}
	return ""
}

// uses finds each pkg.name in the tree.
func (s source) uses(root ast.Node, importPath string, names ...string) []token.Position {
	local := s.local(importPath)
	var found []token.Position
	ast.Inspect(root, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || local == "" {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local && (len(names) == 0 || slices.Contains(names, sel.Sel.Name)) {
			found = append(found, s.fset.Position(sel.Pos()))
		}
		return true
	})
	return found
}

func TestOnlyMainExits(t *testing.T) {
	exits := 0
	for _, s := range sources(t) {
		for _, at := range s.uses(s.file, "os", "Exit") {
			exits++
			if s.file.Name.Name != "main" || s.name != "main.go" {
				t.Errorf("%v: os.Exit: only main.go exits, so that every path goes through the contract", at)
			}
		}
		for _, at := range s.uses(s.file, "log", "Fatal", "Fatalf", "Fatalln") {
			t.Errorf("%v: log.Fatal exits: only main.go does", at)
		}
	}
	require.NotZero(t, exits, "the check sees the exits of the agents' main.go")
}

func TestOnlyTheContractReadsTheEnvironment(t *testing.T) {
	for _, s := range sources(t) {
		for _, at := range s.uses(s.file, "os", "Getenv", "LookupEnv", "Environ", "ExpandEnv") {
			if s.pkg != contract && s.pkg != children {
				t.Errorf("%v: the environment is read by the contract alone (and handed to children by %s)", at, children)
			}
		}
	}
}

func TestNothingIsDoneAtImport(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%v: init(): a monitor pays for it each time", s.fset.Position(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, at := range s.uses(d, "regexp") {
					t.Errorf("%v: a package-level regexp is compiled at each start of the agent", at)
				}
			}
		}
	}
}

func TestNoShellIsNamedInTheAgents(t *testing.T) {
	shells := []string{"sh", "bash", "dash", "/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"}
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(lit.Value); err == nil && slices.Contains(shells, text) {
				t.Errorf("%v: %s: children get an argument vector, never a shell", s.fset.Position(lit.Pos()), lit.Value)
			}
			return true
		})
	}
}

func TestAMainIsThreeLines(t *testing.T) {
	for _, s := range sources(t) {
		if s.name != "main.go" {
			continue
		}
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok {
				require.Equalf(t, "main", f.Name.Name, "%s/main.go holds main alone", s.pkg)
				require.Lenf(t, f.Body.List, 1, "%s: main hands over to the contract", s.pkg)
			}
		}
	}
}
