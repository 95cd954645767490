//go:build lab

package lab_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab"
)

const (
	nothingAgent = "/usr/lib/ocf/resource.d/lab/nothing"
	// compareWithin bounds one move: the peers' takes more than a minute, and the whole grace
	// period of 90 s may come after that.
	compareWithin = 6 * time.Minute
)

// graph is one way to build the same service: a promotable clone and on it a group that begins
// with fs_r0 and ends with vip.
type graph struct {
	name   string
	crm    func(t testing.TB) string
	serves bool // an NFS server is behind it
	// nodes is what an administrator runs on each node beforehand.
	nodes string
}

func testdata(name string) func(t testing.TB) string {
	return func(t testing.TB) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("testdata", "compare", name))
		require.NoError(t, err)
		return string(text)
	}
}

// TestMatrixNFSSwitchoverBesidePeersAndFloor moves the NFS server by standby and at a power loss,
// in three graphs of the same shape on the same machines: with agents that do nothing (the floor:
// Pacemaker's own time and that of Filesystem), with the agents that everybody uses today, and with
// baton's. What the client saw is measured, and where the time went is printed action by action.
func TestMatrixNFSSwitchoverBesidePeersAndFloor(t *testing.T) {
	var all []measured
	for _, g := range []graph{
		{name: "floor", crm: testdata("floor.crm")},
		{name: "baton", crm: func(t testing.TB) string { return nfsCRM(t, nfsOptions{}) }, serves: true},
		// nfsserver starts rpc.statd by itself on Debian 12, but not the rpcbind that this needs.
		{name: "peers", crm: testdata("peers.crm"), serves: true, nodes: "systemctl start rpcbind"},
	} {
		t.Run(g.name, func(t *testing.T) {
			all = append(all, moveThrice(t, g)...)
		})
	}
	t.Logf("\n%s", compareTable(all))
	compareGoals(t, all)
}

// moveThrice starts the graph on n1, moves it by standby to n2 and back, and takes n1's power.
func moveThrice(t *testing.T, g graph) []measured {
	c := startCompared(t, g)
	var moves []measured
	measure := func(m measured) {
		// At once: what a later move spoils, this one has shown all the same.
		t.Logf("\n%s\n%s", compareTable([]measured{m}), whereTheTimeGoes([]measured{m}))
		moves = append(moves, m)
	}
	measure(c.move(t, "standby", c.N1, c.N2, func() error { return c.Standby(t.Context(), c.N1) }))
	c.mend(t, c.N1)
	measure(c.move(t, "standby back", c.N2, c.N1, func() error { return c.Standby(t.Context(), c.N2) }))
	c.mend(t, c.N2)
	measure(c.move(t, "power loss", c.N1, c.N2, func() error { return c.N1.PowerOff(t.Context()) }))
	return moves
}

// compared is a running graph with, if it serves, the client on c1.
type compared struct {
	drbdLab
	graph
	jobs int
}

func startCompared(t *testing.T, g graph) *compared {
	t.Helper()
	c := &compared{drbdLab: drbdLab{lab.Start(t, lab.NFS)}, graph: g}
	nothing := buildNothing(t)
	for _, m := range c.Nodes() {
		require.NoError(t, m.Upload(t.Context(), nothingAgent, 0o755, nothing))
		require.NoError(t, lab.UseR0(t.Context(), m, strings.Replace(drbdFast, "protocol C;", "protocol C; ping-int 3;", 1))) // as the example's
		if g.nodes != "" {
			m.Sh(t, g.nodes)
		}
	}
	c.Timeline.Add("cluster: load %s", g.name)
	// What decides the first place must not decide later ones.
	// LINBIT's agent gives the node that starts first the lower score for its first half minute, so
	// that the first promotion is told where to be; the rest of the run is not.
	require.NoError(t, c.CrmText(t.Context(), g.crm(t)+`
location begins service 10: n1
location first drbd_r0-clone rule $role=Promoted 20000: #uname eq n1
`))
	c.MustActive(t, "vip", "", c.N1, compareWithin)
	c.N1.Sh(t, "crm configure delete first")
	require.NoError(t, c.Settle(t.Context()))
	if c.serves {
		c.settled(t)
		c.C1.Sh(t, "mount -t nfs -o vers=4.2,hard,proto=tcp %s:%s %s", drbdAddress, lab.NFSShare, lab.NFSMount)
		c.secondClient(t)
	}
	return c
}

func buildNothing(t testing.TB) []byte {
	t.Helper()
	root, err := lab.Root()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "nothing")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "./tests/lab/cmd/nothing")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return text
}

// secondClient prepares a client with an address and a name of its own on c1: a network namespace
// has its own NFS client, whose locks the first one's kernel does not decide about.
func (c *compared) secondClient(t testing.TB) {
	t.Helper()
	c.C1.Sh(t, `mkdir -p /mnt/second && ip netns add second && ip link add link eth0 name second0 netns second type macvlan mode bridge &&
ip -n second link set lo up && ip -n second address add 192.0.2.22/24 dev second0 && ip -n second link set second0 up`)
}

// lockKept asks, as the second client, for the lock that the first one holds.
func (c *compared) lockKept(t testing.TB, file string) (bool, error) {
	t.Helper()
	out, err := c.C1.Run(t.Context(), `ip netns exec second unshare --uts sh -c 'hostname second &&
mount -t nfs -o vers=4.2,hard,proto=tcp %s:%s /mnt/second && { labtool trylock -file /mnt/second/%s 2>&1; echo "code $?"; umount /mnt/second; }'`,
		drbdAddress, lab.NFSShare, file)
	if err != nil {
		return false, err
	}
	c.Timeline.Add("c1: second client's lock: %s", strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "))
	return strings.Contains(out, "code 1") && strings.Contains(out, "refused"), nil
}

// The client's three kinds of work.
var compareWork = []string{"create and fsync", "write under the lock", "list"}

func (c *compared) work(t testing.TB) (jobs []*lab.Job, dir, locked string) {
	t.Helper()
	c.jobs++
	dir, locked = fmt.Sprintf("files%d", c.jobs), fmt.Sprintf("locked%d", c.jobs)
	c.C1.Sh(t, "mkdir -p %s/%s", lab.NFSMount, dir)
	for i, args := range []string{
		"write -every 50ms -dir " + lab.NFSMount + "/" + dir,
		"lock -every 50ms -file " + lab.NFSMount + "/" + locked,
		"list -every 100ms -dir " + lab.NFSMount + "/" + dir,
	} {
		jobs = append(jobs, c.C1.Tool(t, fmt.Sprintf("job%d-%d", c.jobs, i), args))
	}
	return jobs, dir, locked
}

// move makes one move and measures it. The machines are left alone meanwhile: that the address is
// up is read in the journal that comes out of the machine by itself.
func (c *compared) move(t *testing.T, event string, from, to *lab.Machine, fault func() error) measured {
	t.Helper()
	m := measured{graph: c.name, event: event}
	var jobs []*lab.Job
	var dir, locked string
	if c.serves {
		jobs, dir, locked = c.work(t)
		for _, j := range jobs {
			j.WaitOK(t, time.Time{}, compareWithin)
		}
	}
	up := "Result of start operation for vip on " + to.Name + ": ok"
	before := strings.Count(to.Journal(), up)

	began := time.Now()
	require.NoError(t, fault())
	lab.Eventually(t, compareWithin, up, func(context.Context) (bool, string) {
		return strings.Count(to.Journal(), up) > before, to.JournalTail(5)
	})
	c.Timeline.Add("%s: the address is up", to.Name)
	if c.serves {
		c.served(t, &m, to, jobs, dir, locked)
	}

	for _, node := range c.Nodes() {
		if !node.On() {
			continue
		}
		actions, err := node.Actions(t.Context(), began)
		require.NoError(t, err)
		m.actions = append(m.actions, actions...)
	}
	m.began = began
	for _, a := range m.actions {
		require.NotContains(t, a.Result, "error", "%s of %s on %s", a.Op, a.Resource, a.Node)
		if a.Resource == "vip" && a.Op == "start" && a.Node == to.Name && m.address == 0 {
			m.address = a.To.Sub(began)
		}
	}
	require.Positive(t, m.address)
	return m
}

// served measures the client: it goes on until each kind of work was answered after the address
// was up, and is then compared with what the serving node has.
func (c *compared) served(t *testing.T, m *measured, on *lab.Machine, jobs []*lab.Job, dir, locked string) {
	t.Helper()
	// Seconds pass between a standby and the address's stop, in which the old server answers.
	moved := time.Now()
	for i, j := range jobs {
		lab.Eventually(t, compareWithin, "an answer to "+compareWork[i]+" after the move", func(ctx context.Context) (bool, string) {
			// An error is an answer as well: a lost lock gives nothing else.
			out, err := c.C1.Run(ctx, "tail -n 1 %s", j.LogPath())
			if err != nil {
				return false, err.Error()
			}
			last := strings.Fields(out)
			if len(last) == 0 {
				return false, out
			}
			wall, err := strconv.ParseInt(last[0], 10, 64)
			return err == nil && time.Unix(0, wall).After(moved), out
		})
	}
	c.Timeline.Add("c1: works again")
	kept, err := c.lockKept(t, locked)
	require.NoError(t, err)
	for i, j := range jobs {
		log := j.Stopped(t)
		gap := log.LongestGap()
		m.stalls = append(m.stalls, gap.Long)
		for _, e := range log.Of(lab.Fail) {
			m.errors++
			if m.firstError == "" {
				m.firstError = compareWork[i] + ": " + e.Text
			}
		}
		c.Timeline.Add("c1: %s: %s", compareWork[i], gap)
	}
	m.lockKept = kept && len(jobs[1].Logged(t).Of(lab.Fail)) == 0
	m.count(t, c, on, jobs[0], "-dir "+lab.NFSShare+"/"+dir)
	m.count(t, c, on, jobs[1], "-file "+lab.NFSShare+"/"+locked)
}

// count compares what was acknowledged with what the serving node has.
func (m *measured) count(t *testing.T, c *compared, on *lab.Machine, j *lab.Job, where string) {
	t.Helper()
	acks := c.C1.Sh(t, "cat %s", j.LogPath())
	require.NoError(t, on.Upload(t.Context(), "/run/acks", 0o644, []byte(acks+"\n")))
	out, err := on.Run(t.Context(), "labtool check -log /run/acks %s || true", where)
	require.NoError(t, err)
	found := regexp.MustCompile(`(\d+) acknowledged, (\d+) lost`).FindStringSubmatch(out)
	require.NotNil(t, found, out)
	acknowledged, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	lost, err := strconv.Atoi(found[2])
	require.NoError(t, err)
	m.acknowledged += acknowledged
	m.lost += lost
}

// mend brings a node back after its standby, to the state before it.
func (c *compared) mend(t *testing.T, m *lab.Machine) {
	t.Helper()
	require.NoError(t, c.Unstandby(t.Context(), m))
	_, err := c.Wait(t.Context(), compareWithin, "drbd_r0 unpromoted on "+m.Name, func(s lab.Status) bool {
		nodes := s.Active("drbd_r0", "Unpromoted")
		return len(nodes) == 1 && nodes[0] == m.Name
	})
	require.NoError(t, err)
	require.NoError(t, c.Settle(t.Context()))
	if c.serves {
		c.settled(t)
	}
}
