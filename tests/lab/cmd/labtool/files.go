package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"baton/tests/lab/internal/record"
)

// recordDigits is an appended record's length without its newline.
const recordDigits = 19

// content is what file number seq holds: recomputed by the check, so that a
// file with the right name and other bytes is found.
func content(seq uint64, size int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "record %d", seq))
	line := fmt.Appendf(nil, "%d %s\n", seq, hex.EncodeToString(sum[:]))
	return bytes.Repeat(line, max(1, size/len(line)))
}

func fileName(dir string, seq uint64) string {
	// Not all in one directory: 1000 names each.
	return filepath.Join(dir, fmt.Sprintf("%04d", seq/1000), fmt.Sprintf("%09d", seq))
}

func writeFiles(f *flag.FlagSet) func(context.Context, *logger) error {
	dir := f.String("dir", "", "directory, made if missing")
	every := f.Duration("every", 50*time.Millisecond, "pause between files")
	size := f.Int("size", 200, "bytes of a file, about")
	first := f.Uint64("first", 1, "number of the first file")
	rename := f.Bool("rename", false, "write under another name and rename before the record counts")
	return func(ctx context.Context, out *logger) error {
		paced(ctx, *every, func(n uint64) {
			seq := *first + n - 1
			out.result(seq, writeFile(*dir, seq, *size, *rename), "")
		})
		return nil
	}
}

func writeFile(dir string, seq uint64, size int, rename bool) error {
	path := fileName(dir, seq)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	name := path
	if rename {
		name += ".part"
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(content(seq, size)); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if rename {
		if err := os.Rename(name, path); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a new name durable. Network file systems answer EINVAL or
// ENOTSUP for directories: their server has done it already.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

func appendRecords(f *flag.FlagSet) func(context.Context, *logger) error {
	file := f.String("file", "", "file; opened once")
	every := f.Duration("every", 50*time.Millisecond, "pause between records")
	return func(ctx context.Context, out *logger) error {
		h, err := os.OpenFile(*file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer h.Close()
		paced(ctx, *every, func(seq uint64) { out.result(seq, appendRecord(h, seq), "") })
		return nil
	}
}

func appendRecord(h *os.File, seq uint64) error {
	if _, err := fmt.Fprintf(h, "%0*d\n", recordDigits, seq); err != nil {
		return err
	}
	return h.Sync()
}

// checkRecords prints what is missing or wrong; exit 1 when there is any.
func checkRecords(f *flag.FlagSet) func(context.Context, *logger) error {
	log := f.String("log", "", "log of write or append")
	dir := f.String("dir", "", "where write put its files")
	file := f.String("file", "", "where append put its records")
	size := f.Int("size", 200, "as given to write")
	return func(context.Context, *logger) error {
		text, err := os.ReadFile(*log)
		if err != nil {
			return err
		}
		acknowledged := record.Parse(string(text)).Of(record.OK)
		var there map[uint64]bool
		if *file != "" {
			if there, err = readRecords(*file); err != nil {
				return err
			}
		}
		bad := 0
		for _, e := range acknowledged {
			var err error
			switch {
			case *file != "":
				if !there[e.Seq] {
					err = errors.New("record is missing")
				}
			default:
				err = checkFile(*dir, e.Seq, *size)
			}
			if err != nil {
				bad++
				if bad <= 20 {
					fmt.Printf("record %d, acknowledged at %s: %v\n", e.Seq, e.Wall.UTC().Format("15:04:05.000"), err)
				}
			}
		}
		fmt.Printf("%d acknowledged, %d lost\n", len(acknowledged), bad)
		if bad > 0 {
			return fmt.Errorf("%d of %d acknowledged records are lost", bad, len(acknowledged))
		}
		return nil
	}
}

func checkFile(dir string, seq uint64, size int) error {
	got, err := os.ReadFile(fileName(dir, seq))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, content(seq, size)) {
		return fmt.Errorf("%d bytes with other content than was written", len(got))
	}
	return nil
}

func readRecords(path string) (map[uint64]bool, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	there := map[uint64]bool{}
	lines := bufio.NewScanner(h)
	for lines.Scan() {
		// A record that a crash tore is no record.
		if len(lines.Bytes()) != recordDigits {
			continue
		}
		if seq, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
			there[seq] = true
		}
	}
	return there, lines.Err()
}

// holdLock takes a POSIX record lock, which NFS carries to the server, and
// appends under it. A lock that the kernel gave up shows as EIO on writes.
func holdLock(f *flag.FlagSet) func(context.Context, *logger) error {
	file := f.String("file", "", "file; opened and locked once")
	every := f.Duration("every", 100*time.Millisecond, "pause between writes")
	return func(ctx context.Context, out *logger) error {
		h, err := os.OpenFile(*file, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer h.Close()
		if err := lock(h); err != nil {
			return fmt.Errorf("lock %s: %w", *file, err)
		}
		out.add(record.Note, 0, "locked")
		paced(ctx, *every, func(seq uint64) { out.result(seq, appendRecord(h, seq), "") })
		return nil
	}
}

func lock(h *os.File) error {
	return unix.FcntlFlock(h.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
}

func tryLock(f *flag.FlagSet) func(context.Context, *logger) error {
	file := f.String("file", "", "file")
	return func(context.Context, *logger) error {
		h, err := os.OpenFile(*file, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		defer h.Close()
		if err := lock(h); err != nil {
			return fmt.Errorf("refused: %w", err)
		}
		return nil
	}
}

func holdOpen(f *flag.FlagSet) func(context.Context, *logger) error {
	file := f.String("file", "", "file, directory or device")
	write := f.Bool("write", false, "open for writing")
	return func(ctx context.Context, out *logger) error {
		mode := os.O_RDONLY
		if *write {
			mode = os.O_RDWR
		}
		h, err := os.OpenFile(*file, mode, 0)
		if err != nil {
			return err
		}
		defer h.Close()
		out.add(record.Note, 0, "open")
		<-ctx.Done()
		return nil
	}
}
