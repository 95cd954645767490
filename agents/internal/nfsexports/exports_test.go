package nfsexports

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestParseReadsWhatExportsAllows(t *testing.T) {
	list, err := Parse("/etc/exports", `
# the share
/data/share  192.0.2.0/24(rw,no_root_squash) 2001:db8::/64(ro) # both families
"/data/two words" -ro,sec=sys  @trusted(rw)  \
   *.example.com
/data/blank\040path	*(fsid=0x)
`)
	require.EqualError(t, err, `/etc/exports line 6: "fsid=0x": expected fsid=root, a number below 2^32, or a UUID`)
	require.Nil(t, list)

	list, err = Parse("/etc/exports", `
# the share
/data/share  192.0.2.0/24(rw,no_root_squash) 2001:db8::/64(ro) # both families
"/data/two words" -ro,sec=sys  @trusted(rw)  \
   *.example.com
/data/blank\040path	*(fsid=7)`)
	require.NoError(t, err)
	require.Equal(t, []Export{
		{Dir: "/data/share", Client: "192.0.2.0/24", Options: []string{"rw", "no_root_squash"}},
		{Dir: "/data/share", Client: "2001:db8::/64", Options: []string{"ro"}},
		{Dir: "/data/two words", Client: "@trusted", Options: []string{"ro", "sec=sys", "rw"}},
		{Dir: "/data/two words", Client: "*.example.com", Options: []string{"ro", "sec=sys"}},
		{Dir: "/data/blank path", Client: "*", Options: []string{"fsid=7"}},
	}, list)
	require.Equal(t, []string{"/data/share", "/data/two words", "/data/blank path"}, Dirs(list))
}

func TestParseRefusesWhatNobodyMeans(t *testing.T) {
	for text, why := range map[string]string{
		"/data":                     "/data has no clients",
		"/data # all":               "/data has no clients",
		"data *(rw)":                `"data" is no absolute path`,
		"/data/ *(rw)":              `"/data/" is not in its simplest form, "/data"`,
		"/a/../b *(rw)":             `"/a/../b" is not in its simplest form, "/b"`,
		"/data 192.0.2.1 (rw)":      `"(rw)" has no client before the parenthesis (a blank too many?); write * for everybody`,
		"/data *(rw":                `"*(rw": the parenthesis is not closed`,
		`"/data *(rw)`:              "a quote is not closed",
		"/data $(reboot)":           "is no client",
		"/data a;b(rw)":             "is no client",
		"/data *(rw;x)":             "is no option of an export",
		"/data x -ro":               `"-ro" is no client`,
		"/data *(fsid=4294967296)":  "expected fsid=root",
		"/data *(fsid=)":            "expected fsid=root",
		"/data *(fsid=zz-not-uuid)": "expected fsid=root",
	} {
		_, err := Parse("f", text)
		var syntax *SyntaxError
		require.ErrorAs(t, err, &syntax, text)
		require.ErrorContains(t, err, why, text)
		require.Equal(t, 1, syntax.Line)
	}
}

func TestParseListSeparatesBySemicolons(t *testing.T) {
	list, err := ParseList("exports", "/a 192.0.2.1(rw); /b *(ro) ;")
	require.NoError(t, err)
	require.Equal(t, []Export{
		{Dir: "/a", Client: "192.0.2.1", Options: []string{"rw"}},
		{Dir: "/b", Client: "*", Options: []string{"ro"}},
	}, list)
	_, err = ParseList("exports", "/a 192.0.2.1(rw); b *(ro)")
	require.EqualError(t, err, `exports: "b" is no absolute path`)
}

func TestReadFilesTakesTheDirectoryToo(t *testing.T) {
	root := t.TempDir()
	list, files, err := ReadFiles(root)
	require.NoError(t, err)
	require.Empty(t, list)
	require.Empty(t, files)

	dir := filepath.Join(root, "etc/exports.d")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644))
	}
	write("exports", "/a *\n")
	write("exports.d/b.exports", "/b *\n")
	write("exports.d/.hidden.exports", "/c *\n")
	write("exports.d/README", "hello")
	list, files, err = ReadFiles(root)
	require.NoError(t, err)
	require.Equal(t, []string{"/a", "/b"}, Dirs(list))
	require.Len(t, files, 2)

	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "z.exports"), 0o644))
	_, _, err = ReadFiles(root)
	require.ErrorContains(t, err, "no regular file")
}

func TestFSIDsAreTheSameOnEachNodeAndDifferentForEachDirectory(t *testing.T) {
	require.Equal(t, DeriveFSID("/data/share"), DeriveFSID("/data/share/"))
	require.NotEqual(t, DeriveFSID("/data/share"), DeriveFSID("/data/other"))
	require.True(t, ValidFSID(DeriveFSID("/data/share")))
	// Written down: another value would mean ESTALE for every mounted client after an update.
	require.Equal(t, "90d4e602-4630-5dd4-920f-82f75b0acf6f", DeriveFSID("/data/share"))

	list := WithFSIDs([]Export{
		{Dir: "/a", Client: "x", Options: []string{"rw"}},
		{Dir: "/a", Client: "y", Options: []string{"fsid=5"}},
		{Dir: "/b", Client: "x"},
	})
	require.Equal(t, []string{"rw", "fsid=5"}, list[0].Options)
	require.Equal(t, []string{"fsid=" + DeriveFSID("/b")}, list[2].Options)
}

func TestConflict(t *testing.T) {
	e := func(dir, id string) Export { return Export{Dir: dir, Client: "*", Options: []string{"fsid=" + id}} }
	require.NoError(t, Conflict([]Export{e("/a", "1"), e("/a", "01"), e("/b", "2"), {Dir: "/c"}}))
	require.EqualError(t, Conflict([]Export{e("/a", "0"), e("/b", "root")}), "fsid 0 is used for both /a and /b")
	require.EqualError(t, Conflict([]Export{e("/a", "1"), e("/a", "2")}), "/a has two values of fsid, one of them 2")
	u := "5B1F0C8E-632D-4A97-9D10-3CA477E825B6"
	require.Error(t, Conflict([]Export{e("/a", u), e("/b", strings.ToLower(strings.ReplaceAll(u, "-", ":")))}))
}

func TestMissingComparesWithExportfssTable(t *testing.T) {
	table := ParseTab(`/data/share	192.0.2.0/24(rw,sync,wdelay,hide,nocrossmnt,secure,root_squash,fsid=1,sec=sys,rw,secure)
/data/share	c1.example.com(rw,fsid=1)
/data/a\040b	*(ro,fsid=2)
nonsense
/data/broken *(rw
`)
	require.Len(t, table, 3)
	e := func(dir, client, id string) Export {
		return Export{Dir: dir, Client: client, Options: []string{"fsid=" + id}}
	}
	require.Empty(t, Missing([]Export{e("/data/share", "192.0.2.0/24", "1"), e("/data/share", "c1", "1"), e("/data/a b", "*", "2")}, table))
	require.Equal(t, []string{"/data/share to *"}, Missing([]Export{e("/data/share", "*", "1")}, table))
	require.Equal(t, []string{"/data/a b to *"}, Missing([]Export{e("/data/a b", "*", "3")}, table), "another fsid is another export")
	require.Equal(t, []string{"/gone to c1"}, Missing([]Export{e("/gone", "c1", "1")}, table))
	require.Equal(t, []string{"/data/share to c3"},
		Missing([]Export{e("/data/share", "c1", "1"), e("/data/share", "192.0.2.0/24", "1"), e("/data/share", "c3", "1")}, table))
}

func TestADirectoryAndClientGivenTwiceAreOneEntry(t *testing.T) {
	table := ParseTab("/a\tc1.example.com(rw,fsid=1)\n/a\t192.0.2.0/24(rw,fsid=1)\n")
	list := []Export{
		{Dir: "/a", Client: "c1", Options: []string{"rw", "fsid=1"}},
		{Dir: "/a", Client: "192.0.2.0/24", Options: []string{"fsid=1"}},
		{Dir: "/a", Client: "C1", Options: []string{"ro", "fsid=1"}},
		{Dir: "/a", Client: "192.0.2.0/24", Options: []string{"fsid=1"}},
	}
	require.Empty(t, Missing(list, table))
	require.Equal(t, []Export{list[2], list[1]}, Unique(list), "the last one counts")
	require.Len(t, Unique([]Export{{Dir: "/a", Client: "@N"}, {Dir: "/a", Client: "@n"}, {Dir: "/b", Client: "@n"}}), 3)
}

func TestCompareTellsWhichOfSeveralNamesExportfsDidNotTake(t *testing.T) {
	e := func(client string) Export { return Export{Dir: "/a", Client: client, Options: []string{"fsid=1"}} }
	table := ParseTab("/a\tc2.example.com(rw,fsid=1)\n/a\tserver.example.com(rw,fsid=1)\n/b\t*(rw,fsid=2)\n")
	shown, missing, other := Compare([]Export{e("gone"), e("alias"), e("c2")}, table, "gone")
	require.Equal(t, []Export{e("alias"), e("c2")}, shown)
	require.Equal(t, []Export{e("gone")}, missing)
	require.Equal(t, table[2:], other)

	shown, missing, _ = Compare([]Export{e("c1"), e("c1.example.com")}, ParseTab("/a\tc1.example.com(rw,fsid=1)\n"))
	require.Equal(t, []Export{e("c1.example.com")}, shown)
	require.Equal(t, []Export{e("c1")}, missing, "two names of one host are one entry")
}

func TestArgumentPutsBracketsAroundIPv6(t *testing.T) {
	require.Equal(t, "192.0.2.0/24:/a", Export{Dir: "/a", Client: "192.0.2.0/24"}.Argument())
	require.Equal(t, "[2001:db8::/64]:/a", Export{Dir: "/a", Client: "2001:db8::/64"}.Argument())
}

func FuzzParse(f *testing.F) {
	f.Add("/data -ro 192.0.2.0/24(rw,fsid=0) \\\n*\n")
	f.Add("\"/a b\" @n(rw)\n\\")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := Parse("f", text)
		if err != nil {
			return
		}
		for _, e := range list {
			if e.Client == "" || e.Client[0] == '-' || !strings.HasPrefix(e.Dir, "/") {
				t.Fatalf("a line became %+v", e)
			}
		}
		Missing(WithFSIDs(list), ParseTab(text))
	})
}
