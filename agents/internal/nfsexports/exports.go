// Package nfsexports reads what is to be exported (exports(5)) and what is (the etab file of
// exportfs), and checks that it can move from node to node.
package nfsexports

import (
	"crypto/sha1" //nolint:gosec // RFC 4122 derives names with SHA-1; nothing is protected by it
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// Export is one directory for one set of clients.
type Export struct {
	Dir     string
	Client  string   // as exports(5) has it: an address, a network, a name, @netgroup, *
	Options []string // "rw", "fsid=1", …; empty where none are given
}

// FSID is the value of the last fsid option, in a form that compares equal for equal ids, and
// whether there is one.
func (e Export) FSID() (id string, ok bool) {
	for _, o := range e.Options {
		if v, found := strings.CutPrefix(o, "fsid="); found {
			id, ok = Normalize(v), true
		}
	}
	return id, ok
}

// Normalize gives ids that mean the same to the kernel the same form: "root" is 0, numbers are
// decimal, UUIDs are 32 small hexadecimal digits whatever stands between them.
func Normalize(id string) string {
	if id == "root" {
		return "0"
	}
	if n, err := strconv.ParseUint(id, 10, 32); err == nil {
		return strconv.FormatUint(n, 10)
	}
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.ASCII_Hex_Digit, r) {
			return unicode.ToLower(r)
		}
		return -1
	}, id)
}

// ValidFSID reports whether exportfs takes the id: root, a number of 32 bits, or a UUID as 32
// hexadecimal digits with any punctuation (exports(5), fsid=).
func ValidFSID(id string) bool {
	if id == "root" {
		return true
	}
	if _, err := strconv.ParseUint(id, 10, 32); err == nil {
		return true
	}
	digits := 0
	for _, r := range id {
		switch {
		case unicode.Is(unicode.ASCII_Hex_Digit, r):
			digits++
		case r != '-' && r != ':' && r != '.':
			return false
		}
	}
	return digits == 32
}

// namespace is this project's own, for DeriveFSID (RFC 4122, 4.3): a random UUID.
var namespace = [16]byte{0x5b, 0x1f, 0x0c, 0x8e, 0x63, 0x2d, 0x4a, 0x97, 0x9d, 0x10, 0x3c, 0xa4, 0x77, 0xe8, 0x25, 0xb6}

// DeriveFSID is the id of a directory for which none is given: a UUID of version 5 made of its
// path alone, so that every node gives clients the same file handles. What the kernel would
// choose by itself, the device number, may differ between nodes, and clients get ESTALE.
func DeriveFSID(dir string) string {
	h := sha1.New() //nolint:gosec // as above
	h.Write(namespace[:])
	h.Write([]byte(filepath.Clean(dir)))
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	s := hex.EncodeToString(u)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// WithFSIDs gives each directory that has no fsid the derived one, and one that has it for some
// of its clients the same for all. The result is a copy.
func WithFSIDs(list []Export) []Export {
	byDir := map[string]string{}
	for _, e := range list {
		for _, o := range e.Options {
			if v, ok := strings.CutPrefix(o, "fsid="); ok {
				byDir[e.Dir] = v
			}
		}
	}
	out := make([]Export, len(list))
	for i, e := range list {
		out[i] = e
		if _, ok := e.FSID(); ok {
			continue
		}
		id := byDir[e.Dir]
		if id == "" {
			id = DeriveFSID(e.Dir)
		}
		out[i].Options = append(slices.Clone(e.Options), "fsid="+id)
	}
	return out
}

// ConflictError says which id means two things, or which directory has two ids.
type ConflictError struct {
	ID   string
	Dirs [2]string
}

func (e *ConflictError) Error() string {
	if e.Dirs[0] == e.Dirs[1] {
		return fmt.Sprintf("%s has two values of fsid, one of them %s", e.Dirs[0], e.ID)
	}
	return fmt.Sprintf("fsid %s is used for both %s and %s", e.ID, e.Dirs[0], e.Dirs[1])
}

// Conflict checks that each fsid names one directory and each directory has one fsid: with two,
// clients would reach the files of one under the handles of the other.
func Conflict(list []Export) error {
	dirs, ids := map[string]string{}, map[string]string{}
	for _, e := range list {
		id, ok := e.FSID()
		if !ok {
			continue
		}
		if dir, used := dirs[id]; used && dir != e.Dir {
			return &ConflictError{ID: id, Dirs: [2]string{dir, e.Dir}}
		}
		if other, has := ids[e.Dir]; has && other != id {
			return &ConflictError{ID: id, Dirs: [2]string{e.Dir, e.Dir}}
		}
		dirs[id], ids[e.Dir] = e.Dir, id
	}
	return nil
}

// SyntaxError is a line that cannot be understood.
type SyntaxError struct {
	File string
	Line int // 0 for a parameter
	Why  string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Why)
	}
	return fmt.Sprintf("%s line %d: %s", e.File, e.Line, e.Why)
}

// ReadFiles reads /etc/exports and then /etc/exports.d/*.exports in the order of their names, as
// exportfs does; files that begin with a dot are left out. root is the machine's root directory,
// empty means /. It returns the files it found as well; a missing file is no error.
func ReadFiles(root string) (list []Export, files []string, err error) {
	etc := filepath.Join("/", root, "etc")
	parts, err := filepath.Glob(filepath.Join(etc, "exports.d", "*.exports"))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(parts)
	for _, file := range append([]string{filepath.Join(etc, "exports")}, parts...) {
		if strings.HasPrefix(filepath.Base(file), ".") {
			continue
		}
		// Opened without waiting: a FIFO or a device in this place must not hang the agent.
		f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		text, err := readRegular(f)
		if err != nil {
			return nil, nil, err
		}
		found, err := Parse(file, text)
		if err != nil {
			return nil, nil, err
		}
		list, files = append(list, found...), append(files, file)
	}
	return list, files, nil
}

// maxFile is far above any table of exports.
const maxFile = 8 << 20

func readRegular(f *os.File) (string, error) {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return "", &fs.PathError{Op: "read", Path: f.Name(), Err: errors.New("is no regular file of a sensible size")}
	}
	text := make([]byte, info.Size())
	n, err := f.ReadAt(text, 0)
	if n < len(text) && err != nil {
		return "", err
	}
	return string(text), nil
}

// Parse reads exports(5): a directory and then its clients, each with its options, on one line.
// Blanks in a path stand in quotes or as \040. A backslash at the end joins lines, # begins a
// comment, and options for all clients of the line may follow the path after a dash:
//
//	/data/share  192.0.2.0/24(rw,no_root_squash) 2001:db8::/64(ro)
//	"/data/two words" -ro,sec=sys  @trusted(rw)  *
//
// Unlike exportfs, which exports to the whole world then, a blank before the parenthesis and a
// directory without clients are errors: nobody means that.
func Parse(file, text string) ([]Export, error) {
	var list []Export
	number, joined, start := 0, "", 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if joined == "" {
			start = number
		}
		if before, ok := strings.CutSuffix(line, "\\"); ok {
			joined += before + " "
			continue
		}
		found, err := parseLine(joined + line)
		if err != nil {
			return nil, &SyntaxError{File: file, Line: start, Why: err.Error()}
		}
		list, joined = append(list, found...), ""
	}
	if found, err := parseLine(joined); err != nil {
		return nil, &SyntaxError{File: file, Line: start, Why: err.Error()}
	} else if found != nil {
		list = append(list, found...)
	}
	return list, nil
}

// ParseList reads the same from a parameter: lines separated by semicolons.
func ParseList(name, text string) ([]Export, error) {
	var list []Export
	for part := range strings.SplitSeq(text, ";") {
		found, err := parseLine(part)
		if err != nil {
			return nil, &SyntaxError{File: name, Why: err.Error()}
		}
		list = append(list, found...)
	}
	return list, nil
}

func parseLine(line string) ([]Export, error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil, nil
	}
	dir, rest, err := parsePath(line)
	if err != nil {
		return nil, err
	}
	if err := CheckDir(dir); err != nil {
		return nil, err
	}
	var common []string
	var list []Export
	for i, word := range strings.Fields(rest) {
		if strings.HasPrefix(word, "#") {
			break
		}
		if opts, ok := strings.CutPrefix(word, "-"); ok && i == 0 {
			if common, err = SplitOptions(opts); err != nil {
				return nil, err
			}
			continue
		}
		e, err := parseClient(dir, word, common)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no clients", dir)
	}
	return list, nil
}

func parsePath(line string) (dir, rest string, err error) {
	if line[0] == '"' {
		dir, rest, ok := strings.Cut(line[1:], `"`)
		if !ok {
			return "", "", errors.New("a quote is not closed")
		}
		return unescape(dir), rest, nil
	}
	if i := strings.IndexFunc(line, unicode.IsSpace); i >= 0 {
		return unescape(line[:i]), line[i:], nil
	}
	return unescape(line), "", nil
}

// unescape reads octal escapes such as \040 and \134.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// CheckDir says what is wrong with the path of a directory to export.
func CheckDir(dir string) error {
	switch {
	case !strings.HasPrefix(dir, "/"):
		return fmt.Errorf("%q is no absolute path", dir)
	case filepath.Clean(dir) != dir:
		return fmt.Errorf("%q is not in its simplest form, %q", dir, filepath.Clean(dir))
	}
	return nil
}

func parseClient(dir, word string, common []string) (Export, error) {
	client, opts, hasOpts := strings.Cut(word, "(")
	e := Export{Dir: dir, Client: client, Options: slices.Clone(common)}
	if hasOpts {
		inner, ok := strings.CutSuffix(opts, ")")
		if !ok {
			return e, fmt.Errorf("%q: the parenthesis is not closed", word)
		}
		own, err := SplitOptions(inner)
		if err != nil {
			return e, err
		}
		e.Options = append(e.Options, own...)
	}
	if client == "" {
		return e, fmt.Errorf("%q has no client before the parenthesis (a blank too many?); write * for everybody", word)
	}
	return e, CheckClient(client)
}

// CheckClient says what is wrong with a client. The value ends up in an argument of exportfs.
func CheckClient(client string) error {
	if client == "" || client[0] == '-' {
		return fmt.Errorf("%q is no client", client)
	}
	for _, r := range client {
		if !alphanumeric(r) && !strings.ContainsRune(".:/@*?-_[]", r) {
			return fmt.Errorf("%q is no client: it holds %q", client, r)
		}
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// SplitOptions splits options at their commas and checks that each can be one.
func SplitOptions(text string) ([]string, error) {
	var list []string
	for o := range strings.SplitSeq(text, ",") {
		o = strings.TrimSpace(o)
		if o == "" {
			continue
		}
		for _, r := range o {
			if !alphanumeric(r) && !strings.ContainsRune("=_-:./@+*[]", r) {
				return nil, fmt.Errorf("%q is no option of an export: it holds %q", o, r)
			}
		}
		if id, ok := strings.CutPrefix(o, "fsid="); ok && !ValidFSID(id) {
			return nil, fmt.Errorf("%q: expected fsid=root, a number below 2^32, or a UUID", o)
		}
		list = append(list, o)
	}
	return list, nil
}

// ParseTab reads etab, exportfs's table of what is exported at this moment; paths are escaped in
// octal. Lines of another form are skipped.
//
//	/data	192.0.2.0/24(rw,sync,wdelay,hide,…,fsid=1,anonuid=65534,anongid=65534,sec=sys,rw,…)
func ParseTab(text string) []Export {
	var list []Export
	for line := range strings.SplitSeq(text, "\n") {
		words := strings.Fields(line)
		if len(words) != 2 || !strings.HasPrefix(words[0], "/") {
			continue
		}
		client, opts, ok := strings.Cut(words[1], "(")
		inner, closed := strings.CutSuffix(opts, ")")
		if !ok || !closed {
			continue
		}
		list = append(list, Export{Dir: unescape(words[0]), Client: client, Options: strings.Split(inner, ",")})
	}
	return list
}

// Unique leaves one entry for each directory and client, the last that is given, for exportfs keeps
// one as well. The result is a copy.
func Unique(list []Export) []Export {
	at := map[[2]string]int{}
	var out []Export
	for _, e := range list {
		k := [2]string{e.Dir, fold(e.Client)}
		if i, ok := at[k]; ok {
			out[i] = e
			continue
		}
		at[k] = len(out)
		out = append(out, e)
	}
	return out
}

// fold makes clients equal that are the same: the names of hosts know no capital letters, those of
// netgroups do.
func fold(client string) string {
	if strings.HasPrefix(client, "@") {
		return client
	}
	return strings.ToLower(client)
}

// Compare matches the wanted exports with the table: those that it shows, those that are missing
// there, and what else it has. exportfs writes the full name of a client that was given by a short
// one or an alias, so that an entry of the same directory and fsid with an unknown name stands for
// one that is wanted, unless that is known not to resolve.
func Compare(wanted, table []Export, unresolved ...string) (shown, missing, other []Export) {
	type key struct{ dir, id string }
	keyOf := func(e Export) key {
		id, _ := e.FSID()
		return key{e.Dir, id}
	}
	left := map[key][]int{}
	for i, e := range table {
		left[keyOf(e)] = append(left[keyOf(e)], i)
	}
	wanted = Unique(wanted)
	found, used := make([]bool, len(wanted)), make([]bool, len(table))
	// The surest first, so that no entry is taken for another client than its own.
	for _, same := range []func(client, entry string) bool{
		func(client, entry string) bool { return fold(client) == fold(entry) },
		func(client, entry string) bool {
			return strings.HasPrefix(fold(entry), fold(client)+".") && renamed(client)
		},
		func(client, _ string) bool { return renamed(client) && !slices.Contains(unresolved, client) },
	} {
		for i, e := range wanted {
			k := keyOf(e)
			j := slices.IndexFunc(left[k], func(n int) bool { return same(e.Client, table[n].Client) })
			if found[i] || j < 0 {
				continue
			}
			found[i], used[left[k][j]] = true, true
			left[k] = slices.Delete(left[k], j, j+1)
		}
	}
	for i, e := range wanted {
		if found[i] {
			shown = append(shown, e)
		} else {
			missing = append(missing, e)
		}
	}
	for i, e := range table {
		if !used[i] {
			other = append(other, e)
		}
	}
	return shown, missing, other
}

// Missing are those of the wanted exports that the table does not show, as "DIR to CLIENT".
func Missing(wanted, table []Export) []string {
	var missing []string
	_, list, _ := Compare(wanted, table)
	for _, e := range list {
		missing = append(missing, e.Dir+" to "+e.Client)
	}
	return missing
}

// renamed reports whether exportfs may write the client in another form than it was given in:
// names of hosts, and IPv6 addresses and networks.
func renamed(client string) bool {
	if strings.ContainsAny(client, "*?@") {
		return false
	}
	return strings.ContainsFunc(client, unicode.IsLetter) || strings.Contains(client, ":")
}

// Argument is the export as exportfs takes it on its command line: CLIENT:/DIR, with brackets
// around a client that holds colons.
func (e Export) Argument() string {
	if strings.Contains(e.Client, ":") && !strings.HasPrefix(e.Client, "[") {
		return "[" + e.Client + "]:" + e.Dir
	}
	return e.Client + ":" + e.Dir
}

// Dirs are the exported directories, each once, in order.
func Dirs(list []Export) []string {
	var dirs []string
	for _, e := range list {
		if !slices.Contains(dirs, e.Dir) {
			dirs = append(dirs, e.Dir)
		}
	}
	return dirs
}
