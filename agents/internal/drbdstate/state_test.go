package drbdstate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// head is the begin of /proc/drbd with Debian 12's in-tree driver.
const head = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: 3605238F092EFFCDC77483B \n"

// counters is the second line of a minor.
const counters = "    ns:0 nr:0 dw:0 dr:200 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:%d\n"

func dev(minor int, line string, oos int) string {
	return fmt.Sprintf("%2d: %s\n"+counters, minor, line, oos)
}

func TestProcOfEveryShape(t *testing.T) {
	const ganeti = `version: 8.4.2 (api:1/proto:86-101)
GIT-hash: 7ad5f850d711223713d6dcadc3dd48860321070c build by root@example.com, 2013-04-10 07:45:25
 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----
    ns:1048576 nr:0 dw:0 dr:1048776 al:0 bm:64 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0
 2: cs:Unconfigured

 4: cs:WFConnection ro:Primary/Unknown ds:UpToDate/DUnknown C r-----
    ns:0 nr:0 dw:0 dr:200 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:1048320

 8: cs:StandAlone ro:Secondary/Unknown ds:UpToDate/DUnknown   r-----
    ns:0 nr:0 dw:0 dr:200 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:7
`
	p, err := ParseProc([]byte(ganeti))
	require.NoError(t, err)
	require.Equal(t, Proc{Version: Version{8, 4, 2}, Devices: []Device{
		{Minor: 0, Configured: true, CState: "Connected", Role: Primary, PeerRole: Secondary, Disk: UpToDate, PeerDisk: UpToDate},
		{Minor: 2},
		{Minor: 4, Configured: true, CState: "WFConnection", Role: Primary, PeerRole: UnknownRole, Disk: UpToDate, PeerDisk: DUnknown, OutOfSync: 1048320},
		{Minor: 8, Configured: true, CState: "StandAlone", Role: Secondary, PeerRole: UnknownRole, Disk: UpToDate, PeerDisk: DUnknown, OutOfSync: 7},
	}}, p)

	for name, tc := range map[string]struct {
		text string
		want []Device
	}{
		"nothing configured": {head, nil},
		"gap before the first": {head + "\n" + dev(1, "cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate C r-----", 0), []Device{
			{Minor: 1, Configured: true, CState: "Connected", Role: Secondary, PeerRole: Primary, Disk: UpToDate, PeerDisk: UpToDate},
		}},
		"resync with its two more lines": {
			head + dev(0, "cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----", 32549852) +
				"        [>....................] sync'ed:  3.1% (31784/32764)M\n        finish: 0:14:01 speed: 38,656 (38,596) want: 50,280 K/sec\n",
			[]Device{{Minor: 0, Configured: true, CState: "SyncTarget", Role: Secondary, PeerRole: Primary, Disk: Inconsistent, PeerDisk: UpToDate, OutOfSync: 32549852}},
		},
		"frozen by a fencing handler": {head + dev(0, "cs:WFConnection ro:Primary/Unknown ds:UpToDate/DUnknown C s-----", 0), []Device{
			{Minor: 0, Configured: true, CState: "WFConnection", Role: Primary, PeerRole: UnknownRole, Disk: UpToDate, PeerDisk: DUnknown, Suspended: true},
		}},
		"minor above 99": {head + dev(1048575, "cs:StandAlone ro:Secondary/Unknown ds:Outdated/DUnknown   r-----", 0), []Device{
			{Minor: 1048575, Configured: true, CState: "StandAlone", Role: Secondary, PeerRole: UnknownRole, Disk: Outdated, PeerDisk: DUnknown},
		}},
		"fields and lines of a later driver": {head + "news: x\n" + dev(0, "cs:Connected xx:yy ro:Secondary/Secondary ds:UpToDate/UpToDate C r------- new", 0) + "    new:1 line:2\n", []Device{
			{Minor: 0, Configured: true, CState: "Connected", Role: Secondary, PeerRole: Secondary, Disk: UpToDate, PeerDisk: UpToDate},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := ParseProc([]byte(tc.text))
			require.NoError(t, err)
			require.Equal(t, tc.want, p.Devices)
		})
	}
}

func TestProcOfTheNineDriverIsOnlyAVersion(t *testing.T) {
	p, err := ParseProc([]byte("version: 9.1.7 (api:2/proto:110-121)\nGIT-hash: abc build by x\nTransports (api:18): tcp (9.1.7)\n"))
	require.NoError(t, err)
	require.Equal(t, Proc{Version: Version{9, 1, 7}}, p)
	require.True(t, p.Version.Known())
	require.False(t, p.Version.Legacy())
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]Version{
		"8.4.11": {8, 4, 11}, "9.2.0-rc.1": {9, 2, 0}, "9.1.7-1": {9, 1, 7}, "8.3.16": {8, 3, 16}, " 9.2 \n": {9, 2, 0}, "8.4.7.1": {8, 4, 7},
	} {
		v, err := ParseVersion(text)
		require.NoError(t, err, text)
		require.Equal(t, want, v, text)
	}
	for _, bad := range []string{"", "8", "x.y", "8.-4.1", "8.4.11.2.3", "..", "٨.٤"} {
		_, err := ParseVersion(bad)
		require.Error(t, err, bad)
	}
	require.Negative(t, Version{8, 4, 2}.Compare(Version{8, 4, 11}))
	require.Positive(t, Version{9, 0, 0}.Compare(Version{8, 4, 11}))
	require.Zero(t, Version{9, 1, 7}.Compare(Version{9, 1, 7}))
	require.False(t, Version{8, 3, 16}.Known())
	require.False(t, Version{10, 0, 0}.Known())
}

// A state that is guessed is worse than none: every cut or distorted text must be an error.
func TestBrokenProcIsAnErrorNeverAState(t *testing.T) {
	good := dev(0, "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", 0)
	for name, text := range map[string]string{
		"empty":              "",
		"another file":       "MemTotal: 5 kB\n",
		"no version":         "version:\n",
		"odd version":        "version: eight\n",
		"device line cut":    head + " 0: cs:Connected ro:Primary/Seco\n",
		"no counters":        head + " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n",
		"counters cut":       head + strings.TrimSuffix(good, " oos:0\n") + "\n",
		"cut between minors": head + " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n" + strings.Replace(good, " 0:", " 1:", 1),
		"half a pair":        head + dev(0, "cs:Connected ro:Primary ds:UpToDate/UpToDate C r-----", 0),
		"empty half":         head + dev(0, "cs:Connected ro:/Secondary ds:UpToDate/UpToDate C r-----", 0),
		"no state":           head + dev(0, "ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", 0),
		"no flags":           head + dev(0, "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C", 0),
		"unknown role":       head + dev(0, "cs:Connected ro:Boss/Secondary ds:UpToDate/UpToDate C r-----", 0),
		"minor twice":        head + good + good,
		"oos no number":      head + strings.Replace(good, "oos:0", "oos:many", 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseProc([]byte(text))
			require.Error(t, err)
		})
	}
}

func TestTruncationAtEveryByteNeverChangesARole(t *testing.T) {
	text := head + dev(0, "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", 12345) +
		dev(1, "cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----", 9)
	whole, err := ParseProc([]byte(text))
	require.NoError(t, err)
	for n := range len(text) {
		p, err := ParseProc([]byte(text[:n]))
		if err != nil {
			continue
		}
		for _, d := range p.Devices {
			w, ok := whole.Device(d.Minor)
			require.True(t, ok)
			d.OutOfSync = w.OutOfSync // a number at the very end can lose digits; no decision hangs on it
			require.Equal(t, w, d, "cut after %d bytes", n)
		}
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add([]byte(head + dev(0, "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", 0)))
	f.Add([]byte(head + " 2: cs:Unconfigured\n\n" + dev(4, "cs:StandAlone ro:Secondary/Unknown ds:UpToDate/DUnknown   s-----", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseProc(data)
		if err != nil {
			return
		}
		for _, d := range p.Devices {
			if d.Configured && (d.Role == "" || d.Disk == "" || d.CState == "") {
				t.Fatalf("half a state was accepted: %+v", d)
			}
			_, _ = p.Assemble("r", map[int]int{0: d.Minor})
		}
	})
}

func TestAssembledStateOfTwoVolumes(t *testing.T) {
	p, err := ParseProc([]byte(head + dev(3, "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", 0) +
		dev(7, "cs:SyncSource ro:Secondary/Primary ds:UpToDate/Inconsistent C s-----", 40) + " 9: cs:Unconfigured\n"))
	require.NoError(t, err)
	r, err := p.Assemble("r0", map[int]int{1: 7, 0: 3})
	require.NoError(t, err)
	require.Equal(t, Resource{
		Name: "r0", Version: Version{8, 4, 11}, Suspended: true,
		Volumes: []Volume{
			{Number: 0, Minor: 3, Role: Primary, Disk: UpToDate, Configured: true, Quorum: true},
			{Number: 1, Minor: 7, Role: Secondary, Disk: UpToDate, Configured: true, Quorum: true},
		},
		Peers: []Peer{{Name: "peer", Connection: Connected, Role: Primary, Volumes: []PeerVolume{
			{Number: 0, Disk: UpToDate, Replication: Established},
			{Number: 1, Disk: Inconsistent, Replication: SyncSource, OutOfSync: 40},
		}}},
	}, r)
	require.True(t, r.AnyPrimary())
	require.False(t, r.AllPrimary())
	require.Equal(t, []int{3, 7}, r.Minors())
	r.Peers[0].Name = "n2"
	require.Equal(t, "r0 volume 0 (minor 3) Primary UpToDate volume 1 (minor 7) Secondary UpToDate; "+
		"peer n2 Connected Primary UpToDate Inconsistent (SyncSource); I/O suspended", r.String())

	down, err := p.Assemble("r1", map[int]int{0: 9})
	require.NoError(t, err)
	require.False(t, down.Configured())
	_, err = p.Assemble("r0", map[int]int{0: 3, 1: 8})
	require.ErrorContains(t, err, "minor 8")
}

func TestUnknownConnectionWordIsAnError(t *testing.T) {
	p, err := ParseProc([]byte(head + dev(0, "cs:Dreaming ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", 0)))
	require.NoError(t, err, "another resource's odd state must not matter")
	_, err = p.Assemble("r0", map[int]int{0: 0})
	require.ErrorContains(t, err, `"Dreaming"`)
}

// linked are events2 lines of DRBD 9 with three nodes, one of them a diskless client.
const linked = `exists resource name:r0 role:Primary suspended:no force-io-failures:no may_promote:no promotion_score:10102
exists connection name:r0 peer-node-id:1 conn-name:n2 connection:Connected role:Secondary
exists connection name:r0 peer-node-id:2 conn-name:n3 connection:StandAlone role:Unknown
exists device name:r0 volume:0 minor:1000 backing_dev:/dev/disk/by-path/pci-0000:00:04.0 disk:UpToDate client:no open:yes quorum:yes
exists path name:r0 peer-node-id:1 conn-name:n2 local:ipv4:192.0.2.1:7789 peer:ipv4:192.0.2.2:7789 established:yes
exists peer-device name:r0 peer-node-id:1 conn-name:n2 volume:0 replication:SyncSource peer-disk:Inconsistent peer-client:no done:37.50 out-of-sync:640
exists peer-device name:r0 peer-node-id:2 conn-name:n3 volume:0 replication:Off peer-disk:Diskless peer-client:yes
`

var linkedState = Resource{
	Name: "r0", Version: Version{9, 1, 7},
	Volumes: []Volume{{Number: 0, Minor: 1000, Role: Primary, Disk: UpToDate, Configured: true, Quorum: true, Open: true, OpenKnown: true}},
	Peers: []Peer{
		{NodeID: 1, Name: "n2", Connection: Connected, Role: Secondary, Volumes: []PeerVolume{{Disk: Inconsistent, Replication: SyncSource, OutOfSync: 640}}},
		{NodeID: 2, Name: "n3", Connection: StandAlone, Role: UnknownRole, Volumes: []PeerVolume{{Disk: Diskless, Client: true, Replication: Off}}},
	},
}

func TestEventsInEveryOrderAndWithUnknownKeys(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(linked), "\n")
	random := rand.New(rand.NewSource(1)) //nolint:gosec // an order, not a secret
	for range 300 {
		shuffled := append([]string{}, lines...)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i, line := range shuffled {
			words := strings.Fields(line)
			keys := append(words[2:], "future-key:a:b:c", "word-alone", ":x", "k:")
			random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
			shuffled[i] = strings.Join(append(words[:2:2], keys...), " ")
		}
		text := "exists wormhole name:r0 x:y\ncall helper name:r0 helper:before-resync\n\n" + strings.Join(shuffled, "\n") + "\nexists -\n"
		e, err := ParseEvents([]byte(text), Version{9, 1, 7})
		require.NoError(t, err, text)
		got, found := e.Resource("r0")
		require.True(t, found)
		require.Equal(t, linkedState, got, text)
	}
}

func TestEventsOfTheLegacyDriver(t *testing.T) {
	e, err := ParseEvents([]byte(`exists resource name:r0 role:Secondary suspended:no
exists device name:r0 volume:0 minor:0 disk:UpToDate
exists connection name:r0 peer-node-id:0 conn-name:peer connection:Connected role:Primary
exists peer-device name:r0 peer-node-id:0 conn-name:peer volume:0 replication:Established peer-disk:UpToDate resync-suspended:no
exists resource name:r1 role:Secondary suspended:no
exists device name:r1 volume:0 minor:1 disk:Diskless
exists -
`), Version{8, 4, 11})
	require.NoError(t, err)
	require.Len(t, e.Resources, 2)
	r0, _ := e.Resource("r0")
	require.Equal(t, []Volume{{Role: Secondary, Disk: UpToDate, Configured: true, Quorum: true}}, r0.Volumes)
	r1, _ := e.Resource("r1")
	require.False(t, r1.Configured())
	_, found := e.Resource("r2")
	require.False(t, found)
}

func TestQuorumSuspensionAndClientAreSeen(t *testing.T) {
	e, err := ParseEvents([]byte(`exists resource name:r0 role:Primary suspended:quorum force-io-failures:yes
exists device name:r0 volume:0 minor:0 disk:Diskless client:yes quorum:no
exists -
`), Version{9, 2, 0})
	require.NoError(t, err)
	r, _ := e.Resource("r0")
	require.True(t, r.Suspended)
	require.True(t, r.FailIO)
	require.False(t, r.Volumes[0].Quorum)
	require.True(t, r.Volumes[0].Client)
}

func TestNoResourceIsAnAnswer(t *testing.T) {
	e, err := ParseEvents([]byte("exists -\n"), Version{9, 1, 7})
	require.NoError(t, err)
	require.Empty(t, e.Resources)
}

func TestBrokenEventsAreErrors(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":               "",
		"no closing line":       linked,
		"cut inside":            linked[:200],
		"no name":               "exists resource role:Primary\nexists -\n",
		"no role":               "exists resource name:r0\nexists -\n",
		"odd role":              "exists resource name:r0 role:Boss\nexists -\n",
		"no resource line":      "exists device name:r0 volume:0 minor:0 disk:UpToDate\nexists -\n",
		"no connection line":    "exists resource name:r0 role:Primary\nexists peer-device name:r0 peer-node-id:1 volume:0 peer-disk:UpToDate\nexists -\n",
		"volume no number":      "exists resource name:r0 role:Primary\nexists device name:r0 volume:x minor:0 disk:UpToDate\nexists -\n",
		"negative minor":        "exists resource name:r0 role:Primary\nexists device name:r0 volume:0 minor:-1 disk:UpToDate\nexists -\n",
		"no disk":               "exists resource name:r0 role:Primary\nexists device name:r0 volume:0 minor:0\nexists -\n",
		"no peer disk":          "exists resource name:r0 role:Primary\nexists connection name:r0 peer-node-id:1 connection:Connected\nexists peer-device name:r0 peer-node-id:1 volume:0\nexists -\n",
		"out-of-sync no number": "exists resource name:r0 role:Primary\nexists peer-device name:r0 peer-node-id:1 volume:0 peer-disk:UpToDate out-of-sync:x\nexists -\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseEvents([]byte(text), Version{9, 1, 7})
			require.Error(t, err)
		})
	}
	_, err := ParseEvents([]byte(linked), Version{9, 1, 7})
	require.ErrorIs(t, err, ErrTruncated)
}

func FuzzParseEvents(f *testing.F) {
	f.Add([]byte(linked + "exists -\n"))
	f.Add([]byte("exists resource name:r0 role:Secondary suspended:no\nexists -\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEvents(data, Version{9, 1, 7})
		if err != nil {
			return
		}
		for _, r := range e.Resources {
			if r.Name == "" || !strings.Contains(r.String(), r.Name) {
				t.Fatalf("a resource without a name: %+v", r)
			}
			for _, p := range r.Peers {
				if p.Connection == "" {
					t.Fatalf("a peer without a state: %+v", r)
				}
			}
		}
	})
}

// machine is a root directory with the files that the kernel would have.
type machine struct {
	t      *testing.T
	reader Reader
	asked  []string // arguments of drbdsetup
	events string
	fails  error
	moves  func(asked int) // what happens in the kernel after drbdsetup answered
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t}
	m.reader = Reader{
		Root: t.TempDir(), Boot: "boot-1", Record: filepath.Join(t.TempDir(), "minors"),
		Events: func(_ context.Context, args ...string) ([]byte, error) {
			m.asked = append(m.asked, strings.Join(args, " "))
			answer := m.events
			if m.moves != nil {
				m.moves(len(m.asked))
			}
			return []byte(answer), m.fails
		},
	}
	return m
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	file := filepath.Join(m.reader.Root, path)
	require.NoError(m.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(m.t, os.WriteFile(file, []byte(text), 0o600))
}

func (m *machine) link(minor int, to string) {
	m.t.Helper()
	dir := filepath.Join(m.reader.Root, "sys/kernel/debug/drbd/minors")
	require.NoError(m.t, os.MkdirAll(dir, 0o755))
	require.NoError(m.t, os.Symlink(to, filepath.Join(dir, fmt.Sprint(minor))))
}

const twoResources = `exists resource name:r0 role:Primary suspended:no
exists device name:r0 volume:0 minor:0 disk:UpToDate
exists resource name:r1 role:Secondary suspended:no
exists device name:r1 volume:0 minor:1 disk:UpToDate
exists -
`

func (m *machine) two() *machine {
	m.write("proc/drbd", head+dev(0, "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", 0)+
		dev(1, "cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate C r-----", 0))
	m.write("sys/block/drbd0/diskseq", "17\n")
	m.write("sys/block/drbd1/diskseq", "18\n")
	m.events = twoResources
	return m
}

func TestWithoutTheModuleNothingRunsAndNothingIsAsked(t *testing.T) {
	m := newMachine(t)
	_, found, err := m.reader.Read(context.Background(), "r0")
	require.NoError(t, err)
	require.False(t, found)
	require.Empty(t, m.asked, "drbdsetup would load the module")
	_, err = m.reader.Version()
	require.ErrorIs(t, err, ErrNoModule)
}

func TestNamesComeFromDebugfsWithoutAChild(t *testing.T) {
	m := newMachine(t).two()
	m.link(0, "../resources/r0/volumes/0")
	m.link(1, "../resources/r1/volumes/0")
	for name, role := range map[string]Role{"r0": Primary, "r1": Secondary} {
		r, found, err := m.reader.Read(context.Background(), name)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, role, r.Volumes[0].Role)
	}
	_, found, err := m.reader.Read(context.Background(), "r2")
	require.NoError(t, err)
	require.False(t, found, "every minor is known to belong to another resource")
	require.Empty(t, m.asked)
}

func TestWithoutDebugfsDrbdsetupIsAskedOnce(t *testing.T) {
	m := newMachine(t).two()
	for range 3 {
		r, found, err := m.reader.Read(context.Background(), "r0")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, Primary, r.Volumes[0].Role)
	}
	require.Equal(t, []string{"--statistics"}, m.asked)
}

func TestRecordIsNotBelievedForAnotherDevice(t *testing.T) {
	for name, change := range map[string]func(*machine){
		"the minor was made anew": func(m *machine) { m.write("sys/block/drbd0/diskseq", "99\n") },
		"another minor appeared": func(m *machine) {
			m.write("proc/drbd", head+" 0: cs:Unconfigured\n 1: cs:Unconfigured\n 5: cs:Unconfigured\n")
		},
		"the machine was booted":      func(m *machine) { m.reader.Boot = "boot-2" },
		"the record is broken":        func(m *machine) { m.brokenRecord("{") },
		"the record names no owner":   func(m *machine) { m.brokenRecord(`{"boot":"boot-1","minors":{"0":{"identity":"diskseq 17"}}}`) },
		"the block device is unknown": func(m *machine) { require.NoError(m.t, os.RemoveAll(filepath.Join(m.reader.Root, "sys/block/drbd0"))) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t).two()
			_, _, err := m.reader.Read(context.Background(), "r0")
			require.NoError(t, err)
			change(m)
			m.fails = errors.New("drbdsetup hangs")
			_, found, err := m.reader.Read(context.Background(), "r0")
			require.ErrorContains(t, err, "drbdsetup hangs")
			require.False(t, found)
		})
	}
}

func (m *machine) brokenRecord(text string) {
	require.NoError(m.t, os.WriteFile(m.reader.Record, []byte(text), 0o600))
}

func TestAnswerThatMissesAMinorIsNoAnswer(t *testing.T) {
	m := newMachine(t).two()
	m.events = "exists resource name:r1 role:Secondary suspended:no\nexists device name:r1 volume:0 minor:1 disk:UpToDate\nexists -\n"
	_, found, err := m.reader.Read(context.Background(), "r0")
	require.ErrorContains(t, err, "drbdsetup names the minors [1], /proc/drbd has [0 1]")
	require.False(t, found)
}

// drbd_delete_device takes a minor out of debugfs and of its resource before /proc/drbd forgets it.
func TestAnotherResourceThatGoesOrComesMeanwhileIsWaitedFor(t *testing.T) {
	one := dev(0, "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----", 0)
	other := dev(1, "cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate C r-----", 0)
	first, _, _ := strings.Cut(twoResources, "exists resource name:r1")
	first += "exists -\n"
	for name, tc := range map[string]struct {
		proc, events string // what the first look finds
		moves        func(*machine)
	}{
		"it goes":          {head + one + other, first, func(m *machine) { m.write("proc/drbd", head+one) }},
		"it comes":         {head + one + other, first, func(m *machine) { m.events = twoResources }},
		"a volume comes":   {head + other, twoResources, func(m *machine) { m.write("proc/drbd", head+one+other) }},
		"it goes in a bit": {head + one + other, first, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.reader.Record = ""
			m.write("proc/drbd", tc.proc)
			m.link(0, "../resources/r0/volumes/0")
			if name == "a volume comes" {
				require.NoError(t, os.RemoveAll(filepath.Join(m.reader.Root, "sys")))
			}
			m.events = tc.events
			m.moves = func(asked int) {
				switch {
				case tc.moves != nil:
					tc.moves(m)
				case asked == 3:
					m.write("proc/drbd", head+one)
				}
			}
			r, found, err := m.reader.Read(context.Background(), "r0")
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, Primary, r.Volumes[0].Role)
		})
	}
}

func TestModuleThatGoesMeanwhileHasNoResource(t *testing.T) {
	m := newMachine(t).two()
	m.events = "exists -\n"
	m.moves = func(int) { require.NoError(t, os.Remove(filepath.Join(m.reader.Root, "proc/drbd"))) }
	_, found, err := m.reader.Read(context.Background(), "r0")
	require.NoError(t, err)
	require.False(t, found)
}

func TestInodeIdentifiesDevicesOfOldKernels(t *testing.T) {
	m := newMachine(t).two()
	require.NoError(t, os.Remove(filepath.Join(m.reader.Root, "sys/block/drbd0/diskseq")))
	for range 2 {
		_, found, err := m.reader.Read(context.Background(), "r0")
		require.NoError(t, err)
		require.True(t, found)
	}
	require.Len(t, m.asked, 1)
	var f recordFile
	data, err := os.ReadFile(m.reader.Record)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &f))
	require.Contains(t, f.Minors[0].Identity, "inode ")
}

func TestNineDriverIsReadByOneChild(t *testing.T) {
	m := newMachine(t)
	m.write("proc/drbd", "version: 9.1.7 (api:2/proto:110-121)\n")
	m.events = linked + "exists -\n"
	r, found, err := m.reader.Read(context.Background(), "r0")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, linkedState, r)
	require.Equal(t, []string{"--statistics r0"}, m.asked)

	m.events = linked
	_, found, err = m.reader.Read(context.Background(), "r0")
	require.ErrorIs(t, err, ErrTruncated, "a truncated answer is not a stopped resource")
	require.False(t, found)

	m.events = "exists -\n"
	_, found, err = m.reader.Read(context.Background(), "r0")
	require.NoError(t, err)
	require.False(t, found)
}

func TestUnknownDriverIsRefused(t *testing.T) {
	for _, version := range []string{"8.3.16", "10.0.0", "7.0.0"} {
		m := newMachine(t)
		m.write("proc/drbd", "version: "+version+" (api:88/proto:86-97)\n")
		_, _, err := m.reader.Read(context.Background(), "r0")
		require.ErrorIs(t, err, ErrUnknownVersion)
		_, err = m.reader.Version()
		require.ErrorIs(t, err, ErrUnknownVersion)
	}
}

func TestSplitBrainIsRecognisedInTheKernelLog(t *testing.T) {
	const sb = "3,900,100,-;block drbd0: Split-Brain detected but unresolved, dropping connection!\n"
	const nine = "3,900,100,-;drbd r0/0 drbd0 n2: Split-Brain detected but unresolved, dropping connection!\n"
	const up = "6,1,1,-;drbd r0 n2: conn( Unconnected -> Connecting )\n6,1,1,-;drbd r0 n2: conn( Connecting -> Connected ) peer( Unknown -> Secondary )\n"
	for name, tc := range map[string]struct {
		log  string
		want bool
	}{
		"nothing":                    {"", false},
		"by minor (8.4)":             {sb, true},
		"by resource (9)":            {"<3>drbd r0/0 drbd0 n2: Split-Brain detected but unresolved, dropping connection!\n", true},
		"longer name":                {"drbd r01/0 drbd5 n2: Split-Brain detected but unresolved, dropping connection!\n", false},
		"another resource":           {"block drbd1: Split-Brain detected but unresolved, dropping connection!\n", false},
		"longer minor":               {"block drbd01: Split-Brain detected but unresolved, dropping connection!\n", false},
		"resolved since":             {sb + "6,1,1,-;block drbd0: conn( WFBitMapS -> Connected )\n", false},
		"disconnected by hand since": {sb + "6,1,1,-;drbd r0: conn( Unconnected -> WFConnection )\n6,1,1,-;drbd r0: conn( Connected -> Disconnecting ) \n", false},
		"dropped by DRBD 9 itself (protocol below 117)": {nine + "6,1,1,-;drbd r0 n2: conn( Connected -> Disconnecting ) peer( Secondary -> Unknown )\n", true},
		"found again, dropped again":                    {nine + up + nine + "6,1,1,-;drbd r0 n2: conn( Connected -> Disconnecting )\n", true},
		"linked, and disconnected by hand":              {nine + up + "6,1,1,-;drbd r0 n2: conn( Connected -> Disconnecting )\n", false},
		"looked for (8.4), then disconnected by hand": {
			sb + "6,1,1,-;drbd r0: conn( Unconnected -> WFConnection )\n6,1,1,-;drbd r0: conn( WFConnection -> Disconnecting )\n", false,
		},
		"again": {sb + "6,1,1,-;block drbd0: conn( WFBitMapS -> Connected )\n" + sb, true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, SplitBrainLogged([]byte(tc.log), "r0", []int{0}))
		})
	}
}

func TestFencingPolicyOfTheDriver(t *testing.T) {
	require.Equal(t, "resource-and-stonith", ParseFencing([]byte("resource r0 {\n    disk {\n        fencing         \tresource-and-stonith;\n    }\n}\n")))
	require.Equal(t, "resource-only", ParseFencing([]byte("net {\n fencing resource-only; # bytes\n}\n")))
	require.Equal(t, "dont-care", ParseFencing([]byte("resource r0 {\n options {\n }\n}\n")))
	require.Equal(t, "dont-care", ParseFencing(nil))
}

func TestQuorumOfTheDriver(t *testing.T) {
	require.Equal(t, "majority", ParseQuorum([]byte("resource r0 {\n    options {\n        quorum          \tmajority;\n        on-no-quorum    io-error;\n    }\n}\n")))
	require.Equal(t, "2", ParseQuorum([]byte("options {\n quorum 2;\n}\n")))
	require.Equal(t, "off", ParseQuorum([]byte("options {\n on-no-quorum io-error;\n}\n")))
}
