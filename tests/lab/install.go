package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// toolPath is where labtool lies in the machines.
const toolPath = "/usr/local/bin/labtool"

// Root is the project's top directory on the host.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", fmt.Errorf("lab: no go.mod above the working directory; expected to run inside the project")
		}
		dir = filepath.Dir(dir)
	}
}

// Example is the text of a file below crm-examples, such as "vip/vip.crm".
func Example(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(root, "crm-examples", name))
	return string(text), err
}

// Unfenced is an example's configuration without its fencing, which costs each
// fault a minute more and which scenarios of its own prove.
func Unfenced(example string) (string, error) {
	text, err := Example(example)
	if err != nil {
		return "", err
	}
	before, rest, found := strings.Cut(text, "primitive fencing")
	_, after, found2 := strings.Cut(rest, "property cib-bootstrap")
	if !found || !found2 {
		return "", fmt.Errorf("lab: %s has no fencing to leave out; expected it before its properties", example)
	}
	return strings.Replace(before+"property cib-bootstrap"+after, "stonith-enabled=true", "stonith-enabled=false", 1), nil
}

// built is what was built once in this process: tars to be unpacked at /.
var built struct {
	sync.Mutex
	agents, tool []byte
}

// Install puts the project, as `make install` lays it, into the nodes, and
// labtool into every machine. It builds once in a process.
func (l *Lab) Install(ctx context.Context) error {
	agents, err := buildAgents(ctx)
	if err != nil {
		return err
	}
	if err := l.InstallTool(ctx); err != nil {
		return err
	}
	return l.each(func(m *Machine) error {
		if m == l.C1 {
			return nil
		}
		return m.unpack(ctx, agents)
	})
}

// InstallTool puts labtool into every machine. Start does it for tests; a
// stage whose Build spawns jobs calls it itself.
func (l *Lab) InstallTool(ctx context.Context) error {
	tool, err := buildTool(ctx)
	if err != nil {
		return err
	}
	return l.each(func(m *Machine) error { return m.unpack(ctx, tool) })
}

// The files are written out: after a power cut an agent would be an empty file otherwise, which the
// cluster runs with success, whatever it asks for.
func (m *Machine) unpack(ctx context.Context, archive []byte) error {
	_, err := m.Exec(ctx, bytes.NewReader(archive), "tar -C / --no-same-owner -xf - && sync -f /")
	return err
}

func buildAgents(ctx context.Context) ([]byte, error) {
	built.Lock()
	defer built.Unlock()
	if built.agents != nil {
		return built.agents, nil
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	dest, err := os.MkdirTemp("", "baton-dest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dest)
	agents, err := agentNames(root)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", root, "install", "DESTDIR="+dest, "HA_D=/etc/ha.d", "BUILD="+filepath.Join(dest, "build"), "AGENTS="+strings.Join(agents, " "))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("lab: make install: %w\n%s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(dest, "build")); err != nil {
		return nil, err
	}
	built.agents, err = tarTree(dest)
	return built.agents, err
}

// agentNames are the agents to install: those in LAB_AGENTS ("none" for none),
// or all that there are.
func agentNames(root string) ([]string, error) {
	if text := os.Getenv("LAB_AGENTS"); text == "none" {
		return nil, nil
	} else if names := strings.Fields(text); len(names) > 0 {
		return names, nil
	}
	mains, err := filepath.Glob(filepath.Join(root, "agents", "*", "main.go"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, path := range mains {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	if len(names) == 0 {
		return nil, errors.New("lab: no agents/*/main.go in the project; nothing to install")
	}
	return names, nil
}

func buildTool(ctx context.Context) ([]byte, error) {
	built.Lock()
	defer built.Unlock()
	if built.tool != nil {
		return built.tool, nil
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	dest, err := os.MkdirTemp("", "baton-tool-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dest)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dest+toolPath, "./tests/lab/cmd/labtool")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("lab: building labtool: %w\n%s", err, out)
	}
	built.tool, err = tarTree(dest)
	return built.tool, err
}

// tarTree packs regular files and links; directories come with their files.
func tarTree(root string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if header.Name, err = filepath.Rel(root, path); err != nil {
			return err
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if link != "" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = w.Close()
	return slices.Clip(b.Bytes()), err
}
