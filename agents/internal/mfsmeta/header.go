// Package mfsmeta reads what a MooseFS master or metalogger keeps on disk: metadata files,
// changelogs, its configuration file and its locks. It changes nothing and starts nothing.
//
// Formats were observed on MooseFS 3.0.117; those of 1.6 are named where they differ.
package mfsmeta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrDamaged says that a file is not a whole metadata file.
var ErrDamaged = errors.New("damaged metadata file")

// Header is what the first bytes of a metadata file say.
type Header struct {
	// Format is the version behind the signature: "2.0" for MooseFS 2 to 4, "1.5" and "1.7" for 1.6.
	Format string
	// New marks the 8 bytes "MFSM NEW": a file system that never existed, version 1.
	New bool
	// Version is the id that the next change will have.
	Version uint64
	// MetaID names the file system for ever; 0 where the format has none.
	MetaID uint64
}

// A metadata file of MooseFS 2 to 4:
//
//	offset  0  8 bytes  "MFSM 2.0"
//	offset  8  u64 BE   metadata version
//	offset 16  u64 BE   meta id
//	offset 24  sections: 8 bytes name and version ("SESS 1.5"), u64 BE length, that many bytes
//	at last   16 bytes  "[MFS EOF MARKER]"
//
// A file of 1.6 has the signature "MFSM 1.5" or "MFSM 1.7", u32 highest inode, u64 version at
// offset 12, u32 next session, and no meta id; 1.7 has the sections from offset 24 on.
const (
	signature  = "MFSM "
	newFile    = "MFSM NEW"
	endMarker  = "[MFS EOF MARKER]"
	headerSize = 24
	sectionTop = 16
)

// ReadHeader reads and checks the metadata file at path. The error wraps ErrDamaged for a file
// whose signature, sections or ending are wrong; the header is filled as far as it could be read.
// Sections are stepped over by their lengths, so the time does not depend on the file's size, and
// damage inside a section is not seen. Symbolic links are not followed.
func ReadHeader(path string) (Header, error) {
	f, err := openRegular(path)
	if err != nil {
		return Header{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Header{}, err
	}
	h, err := parseMetadata(f, info.Size())
	if err != nil {
		return h, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

func parseMetadata(r io.ReaderAt, size int64) (Header, error) {
	head := make([]byte, headerSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Header{}, err
	}
	head = head[:n]
	if size == int64(len(newFile)) && string(head) == newFile {
		return Header{New: true, Version: 1}, nil
	}
	if size == 0 {
		return Header{}, fmt.Errorf("%w: empty", ErrDamaged)
	}
	if n < len(newFile) || string(head[:len(signature)]) != signature {
		return Header{}, fmt.Errorf("%w: no MFSM signature", ErrDamaged)
	}
	h := Header{Format: string(head[len(signature):len(newFile)])}
	if n < headerSize {
		return h, fmt.Errorf("%w: ends inside its header", ErrDamaged)
	}
	switch h.Format {
	case "2.0":
		h.Version, h.MetaID = binary.BigEndian.Uint64(head[8:]), binary.BigEndian.Uint64(head[16:])
		err = checkSections(r, size)
	case "1.7":
		h.Version = binary.BigEndian.Uint64(head[12:])
		err = checkSections(r, size)
	case "1.5", "1.6":
		// The body has no lengths to step over; only mfsmetarestore can tell whether it is whole.
		h.Version = binary.BigEndian.Uint64(head[12:])
	default:
		return h, fmt.Errorf("%w: unknown format %q", ErrDamaged, h.Format)
	}
	if err == nil && h.Version == 0 {
		err = fmt.Errorf("%w: version 0", ErrDamaged)
	}
	return h, err
}

// maxSections is far above the 14 that MooseFS 3 writes; it bounds the walk over a hostile file.
const maxSections = 1000

func checkSections(r io.ReaderAt, size int64) error {
	top := make([]byte, sectionTop)
	at := int64(headerSize)
	for range maxSections {
		if _, err := r.ReadAt(top, at); err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("%w: ends at byte %d without its end marker", ErrDamaged, size)
			}
			return err
		}
		if string(top) == endMarker {
			if at+sectionTop != size {
				return fmt.Errorf("%w: %d bytes behind its end marker", ErrDamaged, size-at-sectionTop)
			}
			return nil
		}
		length := binary.BigEndian.Uint64(top[8:])
		if !sectionName(top[:8]) || length > uint64(size-at-sectionTop) {
			return fmt.Errorf("%w: no section at byte %d of %d", ErrDamaged, at, size)
		}
		at += sectionTop + int64(length)
	}
	return fmt.Errorf("%w: more than %d sections", ErrDamaged, maxSections)
}

// sectionName: four capitals, a blank, and a version, such as "EDGE 1.1".
func sectionName(b []byte) bool {
	for _, c := range b[:4] {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return b[4] == ' ' && b[5] >= '0' && b[5] <= '9' && b[6] == '.' && b[7] >= '0' && b[7] <= '9'
}

// openRegular opens a file for reading, but neither a symbolic link nor a pipe or device, which
// could lead elsewhere or block.
func openRegular(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file: " + info.Mode().Type().String())}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// IsLink reports whether err says that a symbolic link stood where a file was expected.
func IsLink(err error) bool { return errors.Is(err, unix.ELOOP) && !errors.Is(err, fs.ErrNotExist) }
