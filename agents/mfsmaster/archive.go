package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// archive keeps what recovery takes away. It is a directory that is made when something has to be
// kept, named after the time, with a file that tells what came from where and why.
type archive struct {
	root string
	keep int
	// need is the room below which old archives go even if they are young.
	need uint64
	why  string
	now  time.Time
	dir  string // "" until it exists
	note strings.Builder
	// made are the archives of this call, of all those that share the list.
	made *[]string
}

const archiveNote = "README"

// archiveName sorts by time; nothing in it begins with "metadata" or "changelog", which mfsmaster
// would take for its own.
const archiveName = "20060102T150405.000Z"

func (a *agent) newArchive(why string) *archive {
	return &archive{
		root: a.archiveDir, keep: a.call.Params.Int("archive_keep"), need: roomBeside(a.dumpSize(a.dataDir)),
		why: why, now: a.now().UTC(), made: &a.archived,
	}
}

// roomBeside is the room that archives leave for what is more urgent: the dumps that MooseFS keeps, the
// one that it is writing, the reserve, and changelogs. It is more than what monitor calls little.
func roomBeside(dump uint64) uint64 {
	return 4*dump + 256<<20
}

// open makes the directory, private to root: metadata tell the names of everybody's files.
func (v *archive) open() error {
	if v.dir != "" {
		return nil
	}
	if err := os.MkdirAll(v.root, 0o700); err != nil {
		return err
	}
	if info, err := os.Lstat(v.root); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not a directory (%w)", v.root, errors.Join(err, fs.ErrInvalid))
	}
	dir := filepath.Join(v.root, v.now.Format(archiveName))
	for n := 1; ; n++ {
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || n == 100 {
			return err
		}
		dir = filepath.Join(v.root, fmt.Sprintf("%s-%02d", v.now.Format(archiveName), n))
	}
	v.dir = dir
	*v.made = append(*v.made, dir)
	fmt.Fprintf(&v.note, "Kept by the agent mfsmaster on %s: %s\n\n", v.now.Format(time.RFC3339), v.why)
	return v.write()
}

func (v *archive) write() error {
	return atomicfile.Write(filepath.Join(v.dir, archiveNote), []byte(v.note.String()), 0o600)
}

func (v *archive) record(format string, args ...any) error {
	fmt.Fprintf(&v.note, format+"\n", args...)
	return v.write()
}

// target is a name in the archive that is not taken yet.
func (v *archive) target(path string) (string, error) {
	if err := v.open(); err != nil {
		return "", err
	}
	name := filepath.Join(v.dir, filepath.Base(path))
	for n := 1; ; n++ {
		_, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil || n == 1000 {
			return "", fmt.Errorf("no free name for %s: %w", path, err)
		}
		name = filepath.Join(v.dir, fmt.Sprintf("%s.%d", filepath.Base(path), n))
	}
}

// tail keeps the bytes from keep on, before they are cut off: together with the rest of the file
// that is all of it.
func (v *archive) tail(path string, keep, size int64) error {
	target, err := v.target(path + ".tail")
	if err != nil {
		return err
	}
	in, err := openNoFollow(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := copyNew(target, io.NewSectionReader(in, keep, size-keep), -1, -1, 0o600); err != nil {
		return err
	}
	return v.record("%s: the %d bytes behind offset %d of %s, which are no whole change", filepath.Base(target), size-keep, keep, path)
}

// take moves a file into the archive.
func (v *archive) take(path string) error {
	target, err := v.target(path)
	if err != nil {
		return err
	}
	err = os.Rename(path, target)
	if errors.Is(err, unix.EXDEV) {
		if err = v.copy(path, target); err == nil {
			err = os.Remove(path)
		}
	}
	if err != nil {
		return err
	}
	return v.record("%s: was %s", filepath.Base(target), path)
}

// wasBefore ends the note of a file that was replaced.
const wasBefore = " was before"

// link keeps a file that will be replaced by another of the same name. Metadata files are only
// ever replaced as a whole, so a hard link is a copy that costs nothing.
func (v *archive) link(path string) error {
	target, err := v.target(path)
	if err != nil {
		return err
	}
	err = os.Link(path, target)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) {
		err = v.copy(path, target)
	}
	if err != nil {
		return err
	}
	return v.record("%s: as %s"+wasBefore, filepath.Base(target), path)
}

func (v *archive) copy(path, target string) error {
	in, err := openNoFollow(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	return copyNew(target, in, -1, -1, 0o600)
}

// pruneAge is how long an archive stays although there are more than archive_keep, as long as there is
// room: that many recoveries can follow each other within half an hour.
const pruneAge = 7 * 24 * time.Hour

// prune removes the oldest archives beyond the limit. Only directories with our kind of name and
// our note are touched; of each, its files and itself, never anything below. What this call has kept
// stays in any case: it is the newest, whatever its name says after the clock was set back.
//
// What each recovery keeps of the files that it replaces by the same with more changes is counted by
// itself, so that a master that crashes again and again does not push out what exists nowhere else.
func (v *archive) prune() error {
	entries, err := os.ReadDir(v.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var routine, others kept
	for _, e := range entries {
		dir := filepath.Join(v.root, e.Name())
		stamp, _, _ := strings.Cut(e.Name(), "-")
		at, err := time.Parse(archiveName, stamp)
		if err != nil || !e.IsDir() {
			continue
		}
		note, err := readNote(dir)
		if err != nil {
			continue
		}
		class := &others
		if replacedOnly(note) {
			class = &routine
		}
		if slices.Contains(*v.made, dir) {
			class.made++
			continue
		}
		class.list = append(class.list, archived{dir, at})
	}
	err = routine.shrink(v.keep, func(archived) bool { return true })
	return errors.Join(err, others.shrink(v.keep, func(old archived) bool { return v.now.Sub(old.at) > pruneAge || v.tight() }))
}

// archived is an archive of an earlier call; kept are those of one kind, and how many this call has made.
type archived struct {
	dir string
	at  time.Time
}

type kept struct {
	list []archived
	made int
}

// shrink removes the oldest beyond the limit, until one of them is to stay.
func (k kept) shrink(limit int, spare func(archived) bool) error {
	slices.SortFunc(k.list, func(a, b archived) int { return strings.Compare(a.dir, b.dir) })
	for len(k.list) > max(limit-k.made, 0) && spare(k.list[0]) {
		if err := removeFlat(k.list[0].dir); err != nil {
			return err
		}
		k.list = k.list[1:]
	}
	return nil
}

// tight says that the archives take room that the next dumps may need. Where it cannot be told, they do.
func (v *archive) tight() bool {
	free, _, err := mfsmeta.Space(v.root)
	return err != nil || free < v.need
}

func readNote(dir string) (string, error) {
	f, err := openNoFollow(filepath.Join(dir, archiveNote), os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	return string(data), err
}

// replacedOnly says that an archive holds nothing but links to the files that a restore has replaced.
func replacedOnly(note string) bool {
	_, records, _ := strings.Cut(note, "\n\n")
	found := false
	for line := range strings.Lines(records) {
		path, ok := strings.CutSuffix(strings.TrimSpace(line), wasBefore)
		if !ok || !slices.Contains(replaced, filepath.Base(path)) {
			return false
		}
		found = true
	}
	return found
}

func removeFlat(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// openNoFollow opens a regular file, never through a symbolic link.
func openNoFollow(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// copyNew writes a file that must not exist yet, and does not return before it is on the disk.
func copyNew(path string, from io.Reader, uid, gid int, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	if uid >= 0 {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// archiveFailed words an error of the archive: without it nothing is taken away.
func (a *agent) archiveFailed(err error) error {
	return &ocf.Error{
		Object: a.archiveDir, Found: "what recovery would replace cannot be kept", Err: err,
		Expected: "a directory with room for it", Do: "free space there or set archive_dir to another file system",
	}
}
