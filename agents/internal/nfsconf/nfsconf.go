// Package nfsconf reads nfs.conf(5), the configuration of the NFS tools. It never writes it.
package nfsconf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Config maps section and key, both in lower case, to the value.
type Config map[string]map[string]string

// Get is the value, and whether there is one.
func (c Config) Get(section, key string) (string, bool) {
	v, ok := c[section][strings.ToLower(key)]
	return v, ok
}

// Int is the value as a number; ok is false where it is absent or no number.
func (c Config) Int(section, key string) (n int, ok bool) {
	v, ok := c.Get(section, key)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(v)
	return n, err == nil
}

// Bool is the value as a truth value, by the words of conf_get_bool in nfs-utils
// (support/nfs/conffile.c); ok is false where it is absent or no such word.
func (c Config) Bool(section, key string) (on, ok bool) {
	v, _ := c.Get(section, key)
	switch strings.ToLower(v) {
	case "1", "t", "true", "y", "yes", "on":
		return true, true
	case "0", "f", "false", "n", "no", "off":
		return false, true
	}
	return false, false
}

// Read reads /etc/nfs.conf and then /etc/nfs.conf.d/*.conf in order, as the tools do; a later
// value replaces an earlier one. root is the root directory of the machine, empty means /. A
// missing file is an empty one.
func Read(root string) (Config, error) {
	etc := filepath.Join("/", root, "etc")
	parts, err := filepath.Glob(filepath.Join(etc, "nfs.conf.d", "*.conf"))
	if err != nil {
		return nil, err
	}
	slices.Sort(parts)
	c := Config{}
	for _, file := range append([]string{filepath.Join(etc, "nfs.conf")}, parts...) {
		if err := c.readFile(file, 0); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// maxDepth bounds files that include each other.
const maxDepth = 8

func (c Config) readFile(file string, depth int) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, include := range c.parse(string(text)) {
		if depth >= maxDepth {
			return &fs.PathError{Op: "include", Path: file, Err: errors.New("files that include each other")}
		}
		if !filepath.IsAbs(include) {
			include = filepath.Join(filepath.Dir(file), include)
		}
		if err := c.readFile(include, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// parse adds the settings of the text and returns the files it includes (nfs.conf(5)):
//
//	[general]
//	pipefs-directory=/run/rpc_pipefs
//	# a comment
//	[nfsd]
//	 vers4.0 = n
//	include = -/etc/more.conf
//
// A section's name may carry an argument in quotes, which no NFS server tool uses; such sections
// are kept under their whole heading. A line that ends in a backslash goes on in the next. Lines
// of no known form are skipped, as the tools do.
func (c Config) parse(text string) (includes []string) {
	section := ""
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			if end := strings.IndexByte(line, ']'); end > 0 {
				section = strings.ToLower(strings.TrimSpace(line[1:end]))
			}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		key = strings.ToLower(strings.TrimSpace(key))
		value = unquote(strings.TrimSpace(value))
		if key == "include" {
			includes = append(includes, strings.TrimPrefix(value, "-"))
			continue
		}
		if section == "" || key == "" {
			continue
		}
		if c[section] == nil {
			c[section] = map[string]string{}
		}
		c[section][key] = value
	}
	return includes
}

// unquote takes quotes off a value, or a trailing comment off an unquoted one.
func unquote(v string) string {
	if len(v) > 1 && (v[0] == '"' || v[0] == '\'') {
		if end := strings.IndexByte(v[1:], v[0]); end >= 0 {
			return v[1 : 1+end]
		}
	}
	if before, _, ok := strings.Cut(v, " #"); ok {
		return strings.TrimSpace(before)
	}
	return v
}
