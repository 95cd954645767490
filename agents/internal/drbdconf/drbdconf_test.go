package drbdconf

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDumpOfBothDrivers(t *testing.T) {
	for _, version := range []string{"8.4.11", "9.1.7"} {
		t.Run(version, func(t *testing.T) {
			xml, err := os.ReadFile("testdata/dump-" + version + ".xml")
			require.NoError(t, err)
			r, err := Parse(xml, "r0")
			require.NoError(t, err)
			require.Equal(t, "/etc/drbd.d/r0.res:1", r.Source)
			require.Equal(t, []Host{
				{Name: "n1", Volumes: []Volume{{Device: "/dev/drbd0", Disk: "/dev/vdb"}}},
				{Name: "n2", Volumes: []Volume{{Device: "/dev/drbd0", Disk: "/dev/vdb"}}},
			}, r.Hosts)
			require.Equal(t, "resource-and-stonith", r.Fencing())
			require.True(t, r.Flag("net", "allow-two-primaries"))
			require.False(t, r.Flag("net", "always-asbp"))
			require.Equal(t, "discard-zero-changes", r.Option("net", "after-sb-0pri"))
			require.Equal(t, 60*time.Second, r.HandlerTimeout())
			_, known := r.Host("n2")
			require.True(t, known)
			_, known = r.Host("n3")
			require.False(t, known)
			_, err = Parse(xml, "r1")
			require.ErrorContains(t, err, "r1")
		})
	}
}

func TestCommonSectionCountsUnlessTheResourceSaysOtherwise(t *testing.T) {
	r, err := Parse([]byte(`<config><common><section name="disk"><option name="fencing" value="resource-only"/></section>
	  <section name="net"><option name="after-sb-1pri" value="discard-secondary"/></section></common>
	  <resource name="r0"><section name="net"><option name="after-sb-1pri" value="disconnect"/></section></resource></config>`), "r0")
	require.NoError(t, err)
	require.Equal(t, "resource-only", r.Fencing())
	require.Equal(t, "disconnect", r.Option("net", "after-sb-1pri"))
	none, err := Parse([]byte(`<resource name="r0"/>`), "r0")
	require.NoError(t, err)
	require.Equal(t, "dont-care", none.Fencing())
	require.Zero(t, none.HandlerTimeout())
}

func TestTimeoutOfTheHandler(t *testing.T) {
	for line, want := range map[string]int{
		"/usr/lib/drbd/crm-fence-peer.sh":                              90,
		"/usr/lib/drbd/crm-fence-peer.9.sh --timeout 30":               30,
		"/usr/lib/drbd/crm-fence-peer.sh --timeout=30 --dc-timeout=45": 45,
		"/usr/lib/drbd/crm-fence-peer.sh --timeout":                    90,
		"/usr/lib/drbd/crm-fence-peer.sh --timeout soon":               90,
		"/usr/lib/drbd/rhcs_fence":                                     0,
		"":                                                             0,
	} {
		r := Resource{options: map[string]map[string]string{"handlers": {"fence-peer": line}}}
		require.Equal(t, time.Duration(want)*time.Second, r.HandlerTimeout(), line)
	}
}

func TestBrokenDumpsAreErrors(t *testing.T) {
	for name, xml := range map[string]string{
		"empty": "", "text": "'r0' not defined in your config", "cut": `<resource name="r0"><host`,
		"volume without number": `<resource name="r0"><host name="a"><volume/></host></resource>`,
		"minor no number":       `<resource name="r0"><host name="a"><volume vnr="0"><device minor="x"/></volume></host></resource>`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(xml), "r0")
			require.Error(t, err)
		})
	}
}

func FuzzParse(f *testing.F) {
	xml, err := os.ReadFile("testdata/dump-8.4.11.xml")
	require.NoError(f, err)
	f.Add(xml)
	f.Fuzz(func(_ *testing.T, xml []byte) {
		if r, err := Parse(xml, "r0"); err == nil {
			r.Fencing()
			r.HandlerTimeout()
		}
	})
}
