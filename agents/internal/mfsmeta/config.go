package mfsmeta

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Config is a parsed mfsmaster.cfg, mfsmetalogger.cfg or other configuration file of MooseFS.
type Config struct {
	Path   string
	values map[string]string
	// Ignored are the lines that MooseFS warns of and steps over: a value in one of them does not
	// hold, whatever it looks like.
	Ignored []string
}

// maxConfig bounds a configuration file; real ones have a few kilobytes.
const maxConfig = 1 << 20

// ReadConfig reads the file. A missing one is an error that wraps fs.ErrNotExist: mfsmaster would
// silently go on with its defaults if it was not given the name.
func ReadConfig(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{Path: path}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfig {
		return Config{Path: path}, &os.PathError{Op: "read", Path: path, Err: errors.New("not a regular file of at most 1 MiB")}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{Path: path}, err
	}
	c := parseConfig(data)
	c.Path = path
	return c, nil
}

// parseConfig follows cfg.c of MooseFS 3: NAME = VALUE, blanks around each; '#' begins a comment
// only as the first character of a line (inside a value it is a part of it); names are capitals,
// digits and underscores by habit, but any word is accepted; the last definition wins; lines of
// another form are ignored.
func parseConfig(data []byte) Config {
	c := Config{values: map[string]string{}}
	for line := range bytes.Lines(data) {
		text := strings.TrimRight(string(line), "\r\n")
		if strings.HasPrefix(text, "#") || strings.TrimSpace(text) == "" {
			continue
		}
		name, value, found := strings.Cut(text, "=")
		name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
		if !found || name == "" || strings.ContainsAny(name, " \t") || strings.ContainsRune(text, 0) {
			c.Ignored = append(c.Ignored, strings.TrimSpace(text))
			continue
		}
		c.values[name] = value
	}
	return c
}

// Get is the value, or the default if the file does not set it.
func (c Config) Get(name, def string) string {
	if v, ok := c.values[name]; ok {
		return v
	}
	return def
}

// IsSet reports whether the file sets the name.
func (c Config) IsSet(name string) bool {
	_, ok := c.values[name]
	return ok
}

// Number is a decimal value. MooseFS takes its default where it cannot read a number, without a
// word; here that is an error.
func (c Config) Number(name string, def int) (int, error) {
	text := c.Get(name, "")
	if text == "" {
		return def, nil
	}
	n, rest, ok := number([]byte(text))
	if !ok || len(rest) > 0 || n > 1<<31 {
		return def, fmt.Errorf("%s: %s = %s is not a number; MooseFS would use %d", c.Path, name, text, def)
	}
	return int(n), nil
}

// DefaultDataPath is the compiled-in DATA_PATH of Debian's and MooseFS's own packages.
const DefaultDataPath = "/var/lib/mfs"

// DataPath is the cleaned DATA_PATH.
func (c Config) DataPath() string { return filepath.Clean(c.Get("DATA_PATH", DefaultDataPath)) }

// User is WORKING_USER.
func (c Config) User() string { return c.Get("WORKING_USER", "mfs") }

// Absent reports whether err only says that a file does not exist.
func Absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
