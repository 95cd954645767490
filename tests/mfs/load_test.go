//go:build real

package mfs

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// generate writes the changelog of a file system with the given number of inodes that crashed
// before its first dump: the most that recovery can have to do for them.
func (s *site) generate(inodes int) {
	s.Helper()
	s.write(filepath.Join(s.data, "metadata.mfs.back"), "MFSM NEW")
	path := filepath.Join(s.data, "changelog.0.mfs")
	f, err := os.Create(path)
	require.NoError(s, err)
	w := bufio.NewWriter(f)
	now := time.Now().Unix()
	fmt.Fprintf(w, "1: %d|SETMETAID(7710588564285173315)\n", now)
	const perDir = 1000
	id, dir := 2, 0
	for inode := 2; inode < inodes+2; inode++ {
		if (inode-2)%perDir == 0 {
			fmt.Fprintf(w, "%d: %d|CREATE(1,directory%d,2,493,18,0,0,0):%d\n", id, now, inode, inode)
			dir = inode
		} else {
			fmt.Fprintf(w, "%d: %d|CREATE(%d,a-file-with-a-name-of-some-length-%d,1,420,18,0,0,0):%d\n", id, now, dir, inode, inode)
		}
		id++
	}
	require.NoError(s, w.Flush())
	require.NoError(s, f.Close())
	require.NoError(s, os.Chown(path, mfsID(s.T), mfsID(s.T)))
}

var spentTimes = regexp.MustCompile(`time: inspected in (\S+), restored in (\S+), loaded in (\S+)`)

// Each line of the result shows what the agent's own reading adds to MooseFS's work, first after a
// crash (all changes are replayed), then after a clean stop.
func TestInspectionAddsLessThanATenthToMooseFSsOwnTime(t *testing.T) {
	for _, inodes := range []int{10_000, 100_000, 1_000_000} {
		t.Run(fmt.Sprint(inodes), func(t *testing.T) {
			s := newSite(t)
			s.generate(inodes)
			for _, after := range []string{"crash", "clean stop"} {
				r := s.expect(ok, "start")
				m := spentTimes.FindStringSubmatch(r.stderr)
				require.NotNil(t, m, r.stderr)
				var spent [3]time.Duration
				for i := range spent {
					var err error
					spent[i], err = time.ParseDuration(m[i+1])
					require.NoError(t, err)
				}
				own := spent[1] + spent[2]
				share := float64(spent[0]) / float64(own)
				t.Logf("%d inodes after a %s: mfsmaster %v (restore %v, load %v), inspection %v: %.1f %%", inodes, after, own, spent[1], spent[2], spent[0], 100*share)
				require.Less(t, share, 0.1)
				s.expect(ok, "stop")
			}
		})
	}
}
