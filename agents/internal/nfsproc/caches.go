package nfsproc

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// caches of sunrpc that hold what exportfs and mountd told the kernel, in the order in which
// exportfs flushes them (cache_flush in nfs-utils support/nfs/cacheio.c).
var caches = []string{"auth.unix.ip", "auth.unix.gid", "nfsd.fh", "nfsd.export"}

// FlushExports makes the kernel forget all exports and file handles that it had resolved; what
// is still exported it asks mountd for anew. Any number flushes everything (write_flush in
// net/sunrpc/cache.c, since Linux 4.19; before, the time now does).
func (s Server) FlushExports(now int64) error {
	var failed error
	for _, c := range caches {
		err := s.write("net/rpc/"+c+"/flush", strconv.FormatInt(now+1, 10)+"\n")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// Held are the paths that the kernel's export caches hold on to at this moment: each keeps the
// file system it lies on from being unmounted. Without the nfsd module there are none.
func (s Server) Held() ([]string, error) {
	var held []string
	for _, c := range []string{"nfsd.export", "nfsd.fh"} {
		text, err := os.ReadFile(s.proc("net/rpc", c, "content"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		held = append(held, parseContent(string(text))...)
	}
	slices.Sort(held)
	return slices.Compact(held), nil
}

// parseContent takes the paths from the content file of nfsd.export or nfsd.fh, whose words are
// escaped as in mountinfo (svc_export_show and expkey_show in fs/nfsd/export.c). A line that begins
// with '#' is a heading; with "# ", an entry that is expired, pending or negative (c_show in
// net/sunrpc/cache.c). Such an entry cannot be used, but it holds its path like any other from the
// moment at which it was made (svc_export_init) until it is flushed:
//
//	#path domain(flags)
//	/data	192.0.2.0/24(rw,root_squash,sync,wdelay,no_subtree_check,fsid=1)
//	# /data/share	192.0.2.0/24()
//	#domain fsidtype fsid [path]
//	192.0.2.0/24 1 0x00000001 /data
func parseContent(text string) []string {
	var paths []string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimPrefix(line, "# ")
		if strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		for i, w := range words {
			if strings.HasPrefix(w, "/") && (i == 0 || i == 3) {
				paths = append(paths, Unescape(w))
				break
			}
		}
	}
	return paths
}

// Unescape reads the octal escapes (\040 for a blank) that the kernel and exportfs put into paths.
func Unescape(word string) string {
	if !strings.Contains(word, `\`) {
		return word
	}
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] == '\\' && i+3 < len(word) {
			if n, err := strconv.ParseUint(word[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(word[i])
	}
	return b.String()
}
