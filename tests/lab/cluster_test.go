package lab

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab/internal/image"
)

// Shortened from crm_mon -1 --output-as=xml of Pacemaker 2.1.5.
const monSample = `<pacemaker-result api-version="2.25" request="crm_mon -1 --output-as=xml">
  <summary><stack type="corosync"/><current_dc present="true" version="2.1.5" name="n2" id="2" with_quorum="true"/></summary>
  <nodes>
    <node name="n1" id="1" online="true" standby="true" standby_onfail="false" maintenance="false" pending="false" unclean="false" health="green"/>
    <node name="n2" id="2" online="true" standby="false" pending="false" unclean="false"/>
  </nodes>
  <resources>
    <clone id="drbd-clone" multi_state="true" unique="false">
      <resource id="drbd" resource_agent="ocf:baton:drbd" role="Promoted" active="true" blocked="false" managed="true" failed="false"><node name="n2" id="2" cached="true"/></resource>
      <resource id="drbd" resource_agent="ocf:baton:drbd" role="Stopped" active="false" blocked="false" managed="true" failed="false"/>
    </clone>
    <group id="g" number_resources="2">
      <resource id="fs" resource_agent="ocf:heartbeat:Filesystem" role="Started" active="true" blocked="false" managed="true" failed="false"><node name="n2" id="2" cached="true"/></resource>
      <resource id="vip" resource_agent="ocf:baton:vip" role="Started" active="true" blocked="true" managed="true" failed="true"><node name="n1" id="1" cached="true"/></resource>
    </group>
    <bundle id="future"/>
  </resources>
  <failures>
    <failure op_key="vip_stop_0" node="n1" exitstatus="error" exitreason="eth0: &amp;quot;held&amp;quot;" exitcode="1" call="31" status="complete"/>
  </failures>
  <status code="0" message="OK"/>
</pacemaker-result>`

func TestStatusIsReadAtAnyDepth(t *testing.T) {
	s, err := parseStatus(monSample)
	require.NoError(t, err)
	require.Equal(t, Status{
		DC:    "n2",
		Nodes: []Node{{Name: "n1", Online: true, Standby: true}, {Name: "n2", Online: true}},
		Resources: []Resource{
			{ID: "fs", Agent: "ocf:heartbeat:Filesystem", Role: "Started", Nodes: []string{"n2"}, Managed: true},
			{ID: "vip", Agent: "ocf:baton:vip", Role: "Started", Nodes: []string{"n1"}, Managed: true, Failed: true, Blocked: true},
			{ID: "drbd", Agent: "ocf:baton:drbd", Role: "Promoted", Nodes: []string{"n2"}, Managed: true},
			{ID: "drbd", Agent: "ocf:baton:drbd", Role: "Stopped", Managed: true},
		},
		Failures: []Failure{{Op: "vip_stop_0", Node: "n1", Code: 1, Reason: `eth0: "held"`}},
	}, s)
	require.Equal(t, []string{"n2"}, s.Active("drbd", ""))
	require.Equal(t, []string{"n2"}, s.Active("drbd", "Promoted"))
	require.Empty(t, s.Active("drbd", "Unpromoted"))
	require.Empty(t, s.Active("dr", ""))
}

func TestAnswerThatIsNoXMLIsAnError(t *testing.T) {
	_, err := parseStatus("crm_mon: Could not connect to cluster")
	require.Error(t, err)
}

func TestStageKeyFollowsEverythingBelow(t *testing.T) {
	base := &Stage{Name: "base", Key: "1"}
	top := &Stage{Name: "top", Base: base, Key: "1"}
	key := top.hash("image", "host")

	require.Equal(t, key, top.hash("image", "host"))
	for name, other := range map[string]string{
		"the image":     top.hash("image2", "host"),
		"the host":      top.hash("image", "host2"),
		"its own key":   (&Stage{Name: "top", Base: base, Key: "2"}).hash("image", "host"),
		"its name":      (&Stage{Name: "pot", Base: base, Key: "1"}).hash("image", "host"),
		"the base":      (&Stage{Name: "top", Base: &Stage{Name: "base", Key: "2"}, Key: "1"}).hash("image", "host"),
		"the machines":  (&Stage{Name: "top", Base: &Stage{Name: "base", Key: "1", Specs: Machines()[:2]}, Key: "1"}).hash("image", "host"),
		"having a base": (&Stage{Name: "top", Key: "1"}).hash("image", "host"),
	} {
		require.NotEqual(t, key, other, "a change of %s leaves an old stage in use", name)
	}
}

func TestTimelineIsInTheOrderOfTime(t *testing.T) {
	began := time.Unix(1_700_000_000, 0)
	line := NewTimeline(began)
	line.AddAt(began.Add(3*time.Second), "third")
	line.AddAt(began.Add(1500*time.Millisecond), "first")
	line.AddAt(began.Add(2*time.Second), "second %d", 2)
	require.Equal(t, "    1.50 s    +1.50  first\n    2.00 s    +0.50  second 2\n    3.00 s    +1.00  third\n", line.String())
}

func TestPollQuotesTheLastStateItSaw(t *testing.T) {
	_, err := Poll(t.Context(), 10*time.Millisecond, "the moon", func(context.Context) (bool, string) { return false, "a cloud" })
	require.EqualError(t, err, "waited 10ms for the moon; last seen: a cloud")
}

func TestPruneKeepsWhatIsInUse(t *testing.T) {
	cache := t.TempDir()
	long := time.Now().Add(-2 * unused)
	for _, name := range []string{"stage-old-1", "stage-new-2", "image-old", "crm-1.xml", "else"} {
		require.NoError(t, os.Mkdir(filepath.Join(cache, name), 0o755))
		require.NoError(t, os.Chtimes(filepath.Join(cache, name), long, long))
	}
	used(filepath.Join(cache, "stage-new-2"))
	prune(cache)
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(cache, "else"), filepath.Join(cache, "stage-new-2")}, left)
}

func TestSweepRemovesOnlyTheDead(t *testing.T) {
	cache := t.TempDir()
	for _, name := range []string{"run-dead", "run-alive"} {
		require.NoError(t, os.Mkdir(filepath.Join(cache, name), 0o755))
		unlock, err := image.Lock(t.Context(), filepath.Join(cache, name, "lock"))
		require.NoError(t, err)
		if name == "run-dead" {
			unlock()
		} else {
			defer unlock()
		}
	}
	sweep(cache)
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(cache, "run-alive")}, left)
}

func TestSlotsAreLimitedAndSayWhatTheyWaitFor(t *testing.T) {
	t.Setenv("LAB_CACHE", t.TempDir())
	t.Setenv("LAB_SLOTS", "1")
	release, err := takeSlot(t.Context(), t.Logf)
	require.NoError(t, err)

	var said []string
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = takeSlot(ctx, func(format string, _ ...any) { said = append(said, format) })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, said, 1)

	release()
	release, err = takeSlot(t.Context(), t.Logf)
	require.NoError(t, err)
	release()

	t.Setenv("LAB_SLOTS", "many")
	_, err = takeSlot(t.Context(), t.Logf)
	require.ErrorContains(t, err, `LAB_SLOTS is "many"`)
}

func TestCommentsDoNotChangeAStage(t *testing.T) {
	require.Equal(t, "a: 1\nb: 2\n", withoutComments("# why\na: 1\n\t# more\nb: 2\n"))
}
