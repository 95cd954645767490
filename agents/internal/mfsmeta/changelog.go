package mfsmeta

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// A changelog is text, one change a line, ids counting up by one:
//
//	1: 1795261298|SETMETAID(7710588564285173315)
//	2: 1795261301|CREATE(1,name,1,420,0,0,0,0):5
//
// that is id, colon, blank, seconds since 1970, bar, operation, arguments in parentheses (special
// bytes as %XX), and for some operations a colon and the result. A crash leaves a part of a line
// at the end, or NUL bytes where the file system had allocated a block and not written it.

// maxLine bounds a line: the longest is a SETXATTR of 64 KiB, each byte written as %XX.
const maxLine = 512 << 10

// lineID is the id of a well-formed change (without its line break).
func lineID(line []byte) (id uint64, ok bool) {
	id, rest, ok := number(line)
	if !ok || id == 0 || !bytes.HasPrefix(rest, []byte(": ")) {
		return 0, false
	}
	_, rest, ok = number(rest[2:])
	if !ok || len(rest) < 4 || rest[0] != '|' || rest[1] < 'A' || rest[1] > 'Z' {
		return 0, false
	}
	open := bytes.IndexByte(rest, '(')
	if open < 0 || bytes.IndexByte(rest, 0) >= 0 {
		return 0, false
	}
	return id, bytes.LastIndexByte(rest, ')') > open
}

// number reads the digits in front of b. Nothing that fits 19 digits overflows.
func number(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && i < 19 && b[i] >= '0' && b[i] <= '9' {
		n = n*10 + uint64(b[i]-'0')
		i++
	}
	return n, b[i:], i > 0
}

// metaIDOf reads the number of a SETMETAID change, the first of each file system.
func metaIDOf(line []byte) (uint64, bool) {
	const op = "|SETMETAID("
	at := bytes.Index(line[:min(len(line), 64)], []byte(op))
	if at < 0 {
		return 0, false
	}
	// Meta ids use all 64 bits, so 20 digits are possible.
	var id uint64
	for _, c := range line[at+len(op):] {
		if c < '0' || c > '9' {
			break
		}
		id = id*10 + uint64(c-'0')
	}
	return id, id != 0
}

// lines reads a changelog once from front to back in constant memory.
type lines struct {
	name string
	in   *bufio.Reader
	file *os.File // nil in tests
	// good is the offset behind the last well-formed line, at the offset read up to.
	good, at int64
	// bad is the offset of the first bytes that are no well-formed line, -1 while there are none.
	bad int64
	// resumed says that well-formed lines follow after bad: the damage is not a tail.
	resumed bool
}

func newLines(name string, r io.Reader) *lines {
	return &lines{name: name, in: bufio.NewReaderSize(r, maxLine), bad: -1}
}

func openLines(path string) (*lines, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	l := newLines(path, f)
	l.file = f
	return l, nil
}

func (l *lines) close() {
	if l.file != nil {
		l.file.Close()
	}
}

// next gives the next well-formed line without its line break, valid until the next call. At the
// end of the file the error is io.EOF. Malformed lines are stepped over and remembered.
func (l *lines) next() (id uint64, line []byte, err error) {
	for {
		line, err := l.in.ReadSlice('\n')
		start := l.at
		l.at += int64(len(line))
		if err == nil {
			if id, ok := lineID(line[:len(line)-1]); ok {
				l.good = l.at
				l.resumed = l.resumed || l.bad >= 0
				return id, line[:len(line)-1], nil
			}
		}
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return 0, nil, io.EOF
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull):
			return 0, nil, fmt.Errorf("%s: %w", l.name, err)
		}
		if l.bad < 0 {
			l.bad = start
		}
	}
}

// ends looks at both ends of a changelog of any size: the first and last well-formed ids in the
// first and last block, and whether bytes follow the last one. Where a block holds no such line,
// the id is 0: only reading the file can tell then.
func ends(path string) (first, last uint64, torn bool, err error) {
	f, err := openRegular(path)
	if err != nil {
		return 0, 0, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, false, err
	}
	const block = 64 << 10
	size := info.Size()
	buf := make([]byte, min(size, block))
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, false, err
	}
	if end := bytes.IndexByte(buf[:n], '\n'); end >= 0 {
		first, _ = lineID(buf[:end])
	}
	if n, err = f.ReadAt(buf, size-int64(len(buf))); err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, false, err
	}
	last, torn = lastID(buf[:n], int64(len(buf)) == size)
	return first, last, torn, nil
}

// lastID finds the last well-formed line of a block that ends where the file ends; whole says that
// it also begins there.
func lastID(block []byte, whole bool) (id uint64, torn bool) {
	end := bytes.LastIndexByte(block, '\n')
	torn = end+1 != len(block)
	for end >= 0 {
		start := bytes.LastIndexByte(block[:end], '\n')
		if start < 0 && !whole {
			break
		}
		if id, ok := lineID(block[start+1 : end]); ok {
			return id, torn
		}
		end, torn = start, true
	}
	return 0, torn
}
