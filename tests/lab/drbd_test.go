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
	drbdAddress = "192.0.2.50"
	storePort   = "7008"
	storeTool   = "/usr/local/bin/labstore"
	// drbdClone is the resource in the example.
	drbdClone = "drbd_r0"
)

// drbdLab is a cluster that serves the record store from a replicated device, by the example
// drbd-filesystem-vip, and c1 that writes records to it and notes what was acknowledged.
type drbdLab struct {
	*lab.Lab
}

// drbdOptions are what a scenario changes in the example.
type drbdOptions struct {
	fenced bool   // fencing as the example has it (needs sbd to run); else none, in DRBD and in the cluster
	params string // further parameters of the agent
	agent  string // another agent in its place
	r0     string // another configuration of r0 than drbdFast
	silent bool   // without notify=true
}

// fullSpeed is a rate of resynchronization that no emulated machine reaches.
const fullSpeed = "200M"

var drbdFast = lab.R0At(fullSpeed)

// drbdCRM is the example's configuration, with fencing taken out unless it is wanted.
func drbdCRM(t testing.TB, o drbdOptions) string {
	t.Helper()
	load := lab.Unfenced
	if o.fenced {
		load = lab.Example
	}
	text, err := load("drbd-filesystem-vip/drbd-filesystem-vip.crm")
	require.NoError(t, err)
	if o.params != "" {
		text = strings.Replace(text, "params drbd_resource=r0", "params drbd_resource=r0 "+o.params, 1)
	}
	if other := os.Getenv("LAB_VIP_AGENT"); other != "" {
		text = strings.ReplaceAll(text, "ocf:baton:vip", other)
	}
	if o.silent {
		text = strings.Replace(text, "notify=true ", "", 1)
		require.NotContains(t, text, "notify=true")
	}
	if o.agent != "" {
		text = strings.Replace(text, "ocf:baton:drbd", o.agent, 1)
	}
	return text
}

// startDRBD begins every scenario: n1 promoted, mounted and with the address, n2 unpromoted and
// UpToDate, c1 writing.
func startDRBD(t *testing.T, o drbdOptions) drbdLab {
	t.Helper()
	d := drbdLab{lab.Start(t, lab.DRBD)}
	d.installStore(t)
	if o.r0 == "" {
		o.r0 = drbdFast
	}
	for _, m := range d.Nodes() {
		require.NoError(t, lab.UseR0(t.Context(), m, o.r0))
	}
	d.Timeline.Add("cluster: load drbd-filesystem-vip.crm")
	begins := "\nlocation begins service 10: n1\n"
	if o.silent || o.agent != "" {
		// The node that starts first is not yet connected and has the lower score, until a monitor
		// or, where there are any, baton's notification.
		begins += "location first " + drbdClone + "-clone rule $role=Promoted 20000: #uname eq n1\n"
	}
	require.NoError(t, d.CrmText(t.Context(), drbdCRM(t, o)+begins))
	d.MustActive(t, "vip", "", d.N1, 6*aMinute)
	d.settled(t)
	d.client(t)
	return d
}

// settled waits until both nodes are as they should be after a scenario.
func (d drbdLab) settled(t testing.TB) {
	t.Helper()
	for _, m := range d.Nodes() {
		require.NoError(t, lab.WaitDRBD(t.Context(), m, "ds:UpToDate/UpToDate"))
	}
}

func (d drbdLab) installStore(t testing.TB) {
	t.Helper()
	root, err := lab.Root()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "labstore")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", file, "./tests/lab/cmd/labstore")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	tool, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, m := range []*lab.Machine{d.N1, d.N2, d.C1} {
		require.NoError(t, m.Upload(t.Context(), storeTool, 0o755, tool))
	}
	for _, m := range d.Nodes() {
		d.serve(t, m)
	}
}

// serve runs the store on a node, whether the device is there or not. It is restarted, since the
// Filesystem agent ends what it finds on the file system.
func (d drbdLab) serve(t testing.TB, m *lab.Machine) {
	t.Helper()
	m.Sh(t, "systemd-run --unit labstore -p Restart=always -p RestartSec=100ms -p StartLimitIntervalSec=0 %s serve -listen :%s", storeTool, storePort)
}

func (d drbdLab) client(t testing.TB) {
	t.Helper()
	d.C1.Sh(t, "mkdir -p /run/lab; systemd-run --unit client -p StandardOutput=append:/run/lab/acks %s send -to %s:%s", storeTool, drbdAddress, storePort)
	d.acknowledged(t, 5)
}

// acknowledged waits until that many more records were acknowledged.
func (d drbdLab) acknowledged(t testing.TB, more int) {
	t.Helper()
	count := func(ctx context.Context) int {
		out, err := d.C1.Run(ctx, "grep -c '^ack' /run/lab/acks || true")
		n, cerr := strconv.Atoi(strings.TrimSpace(out))
		if err != nil || cerr != nil {
			return 0
		}
		return n
	}
	begin := count(t.Context())
	lab.Eventually(t, 3*aMinute, fmt.Sprintf("%d more records acknowledged to c1", more), func(ctx context.Context) (bool, string) {
		n := count(ctx)
		return n >= begin+more, fmt.Sprintf("%d after %d", n, begin)
	})
}

// proof ends the client and verifies on the serving node that every acknowledged record is there.
// It returns the longest time that the client was without service.
func (d drbdLab) proof(t testing.TB, on *lab.Machine) {
	t.Helper()
	d.C1.Sh(t, "systemctl stop client")
	acks := d.C1.Sh(t, "cat /run/lab/acks")
	require.NoError(t, on.Upload(t.Context(), "/run/acks", 0o644, []byte(acks)))
	t.Logf("%s: %s", on.Name, strings.TrimSpace(on.Sh(t, "%s check -acks /run/acks", storeTool)))
	for _, gap := range regexp.MustCompile(`(?m)^gap .*$`).FindAllString(acks, -1) {
		t.Logf("c1: %s", gap)
		d.Timeline.Add("c1: %s", gap)
	}
}

// score is the promotion score that the cluster has for a node, "" for none.
func (d drbdLab) score(ctx context.Context, m *lab.Machine) string {
	out, err := d.onAny(ctx, "crm_attribute --promotion=%s -N %s -G -q 2>/dev/null || true", drbdClone, m.Name)
	if err != nil {
		return err.Error()
	}
	if out = strings.TrimSpace(out); out == "(null)" {
		return ""
	}
	return out
}

// onAny runs a command on a node that is on.
func (d drbdLab) onAny(ctx context.Context, format string, args ...any) (string, error) {
	m := d.N2
	if !m.On() {
		m = d.N1
	}
	return m.Run(ctx, format, args...)
}

func (d drbdLab) mustScore(t testing.TB, m *lab.Machine, want string) {
	t.Helper()
	lab.Eventually(t, 2*aMinute, fmt.Sprintf("promotion score %q of %s", want, m.Name), func(ctx context.Context) (bool, string) {
		got := d.score(ctx, m)
		return got == want, got
	})
}

// reasons are the exit reasons that crm_mon shows.
func (d drbdLab) reasons(t testing.TB) string {
	t.Helper()
	out, err := d.onAny(t.Context(), "crm_mon -1 --include=failures 2>&1")
	require.NoError(t, err)
	return out
}

// noFailures: the cluster saw no failed action.
func (d drbdLab) noFailures(t testing.TB) {
	t.Helper()
	require.NotContains(t, d.reasons(t), "Failed Resource Actions")
}

// actions prints how long each action took since a moment.
func (d drbdLab) actions(t testing.TB, since time.Time) {
	t.Helper()
	for _, m := range d.Nodes() {
		list, err := m.Actions(t.Context(), since)
		require.NoError(t, err)
		for _, a := range list {
			t.Logf("%s %-8s %-8s began after %5.1f s, took %5.1f s: %s", a.Node, a.Resource, a.Op, a.From.Sub(since).Seconds(), a.Took().Seconds(), a.Result)
		}
	}
}

func TestCoreDRBDSwitchoverLosesNoRecord(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	d.mustScore(t, d.N1, "10000")
	d.mustScore(t, d.N2, "10000")

	moved := time.Now()
	require.NoError(t, d.Standby(t.Context(), d.N1))
	took := d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	t.Logf("standby of n1 until the address is up on n2: %v", took)
	d.acknowledged(t, 20)
	d.actions(t, moved)
	require.NoError(t, d.Unstandby(t.Context(), d.N1))
	d.settled(t)
	d.mustScore(t, d.N1, "10000")
	d.MustActive(t, "vip", "", d.N2, aMinute)
	d.noFailures(t)
	d.proof(t, d.N2)
}

func TestCoreDRBDPowerLossOfThePromotedNodeLosesNoRecord(t *testing.T) {
	d := startDRBD(t, drbdOptions{})
	d.Timeline.Add("n1: power loss")
	require.NoError(t, d.N1.PowerOff(t.Context()))
	took := d.MustActive(t, "vip", "", d.N2, 3*aMinute)
	t.Logf("power loss of n1 until the address is up on n2: %v", took)
	d.acknowledged(t, 20)

	// The node that died comes back as the target of a resync: what it lacks is what the client
	// wrote meanwhile. It must not be a candidate before it is done.
	d.N2.Sh(t, "dd if=/dev/urandom of=/mnt/data/bulk bs=1M count=20 conv=fsync 2>/dev/null")
	require.NoError(t, d.N1.PowerOn(t.Context()))
	require.NoError(t, d.N1.WaitSSH(t.Context()))
	d.N1.Sh(t, "systemctl start corosync pacemaker")
	d.serve(t, d.N1)
	d.settled(t)
	d.mustScore(t, d.N1, "10000")
	d.MustActive(t, "vip", "", d.N2, aMinute)

	require.NoError(t, d.Standby(t.Context(), d.N2))
	d.MustActive(t, "vip", "", d.N1, 3*aMinute)
	d.acknowledged(t, 10)
	d.proof(t, d.N1)
}
