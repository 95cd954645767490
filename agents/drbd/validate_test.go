package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/drbdconf"
	"baton/agents/internal/drbdstate"
	"baton/agents/internal/pacemaker"
	"baton/ocf"
)

var (
	v84 = drbdstate.Version{Major: 8, Minor: 4, Patch: 11}
	v9  = drbdstate.Version{Major: 9, Minor: 1, Patch: 7}
)

// conf builds a configuration from "section.name=value" words.
func conf(t *testing.T, words ...string) drbdconf.Resource {
	t.Helper()
	xml := `<resource name="r0" conf-file-line="/etc/drbd.d/r0.res:1"><host name="n1"/><host name="n2"/>`
	for _, word := range words {
		where, value, _ := strings.Cut(word, "=")
		section, name, _ := strings.Cut(where, ".")
		xml += `<section name="` + section + `"><option name="` + name + `" value="` + value + `"/></section>`
	}
	r, err := drbdconf.Parse([]byte(xml+`</resource>`), "r0")
	require.NoError(t, err)
	return r
}

func founds(list []ocf.Problem) []string {
	var words []string
	for _, p := range list {
		words = append(words, p.Found)
	}
	return words
}

func TestWarningsAboutWhatLosesData(t *testing.T) {
	const (
		fence84   = "handlers.fence-peer=/usr/lib/drbd/crm-fence-peer.sh"
		unfence84 = "handlers.after-resync-target=/usr/lib/drbd/crm-unfence-peer.sh"
		fence9    = "handlers.fence-peer=/usr/lib/drbd/crm-fence-peer.9.sh"
		unfence9  = "handlers.unfence-peer=/usr/lib/drbd/crm-unfence-peer.9.sh"
	)
	for name, tc := range map[string]struct {
		version drbdstate.Version
		words   []string
		want    []string // begins of what is found, in order
	}{
		"the example":        {v84, []string{"disk.fencing=resource-and-stonith", "disk.on-io-error=detach", fence84, unfence84}, nil},
		"the example on 9":   {v9, []string{"net.fencing=resource-and-stonith", fence9, unfence9, "options.auto-promote=no"}, nil},
		"quorum on 9":        {v9, []string{"options.quorum=majority", "options.auto-promote=no"}, nil},
		"nothing configured": {v84, nil, []string{"DRBD's fencing is dont-care"}},
		"quorum off":         {v9, []string{"options.quorum=off"}, []string{"DRBD's fencing is dont-care", "auto-promote is on"}},
		"resource-only":      {v84, []string{"disk.fencing=resource-only", fence84, unfence84}, []string{"DRBD's fencing is resource-only"}},
		"no handler":         {v84, []string{"disk.fencing=resource-and-stonith"}, []string{"no fence-peer handler"}},
		"9's handler on 8.4": {v84, []string{"disk.fencing=resource-and-stonith", fence9, unfence9}, []string{"the fence-peer handler /usr/lib/drbd/crm-fence-peer.9.sh is not the one"}},
		"8.4's handler on 9": {v9, []string{"net.fencing=resource-and-stonith", fence84, unfence84, "options.auto-promote=no"}, []string{"the fence-peer handler /usr/lib/drbd/crm-fence-peer.sh is not the one"}},
		"never unfenced":     {v84, []string{"disk.fencing=resource-and-stonith", fence84}, []string{"no handler removes the fencing constraint"}},
		"losing policies": {
			v84,
			[]string{"disk.fencing=resource-and-stonith", fence84, unfence84, "net.after-sb-0pri=discard-zero-changes", "net.after-sb-1pri=discard-secondary", "net.after-sb-2pri=disconnect", "net.rr-conflict=violently"},
			[]string{"after-sb-0pri is discard-zero-changes", "after-sb-1pri is discard-secondary", "rr-conflict is violently"},
		},
		"two primaries": {v84, []string{"disk.fencing=resource-and-stonith", fence84, unfence84, "net.allow-two-primaries=yes"}, []string{"allow-two-primaries is set"}},
		"errors passed": {v84, []string{"disk.fencing=resource-and-stonith", fence84, unfence84, "disk.on-io-error=pass_on"}, []string{"on-io-error is pass_on"}},
	} {
		t.Run(name, func(t *testing.T) {
			found := dataWarnings(conf(t, tc.words...), tc.version)
			require.Len(t, found, len(tc.want), "%v", founds(found))
			for i, p := range found {
				require.True(t, p.Warning)
				require.True(t, strings.HasPrefix(p.Found, tc.want[i]), "%q", p.Found)
				require.NotEmpty(t, p.Do)
			}
		})
	}
}

func TestWarningsAboutNames(t *testing.T) {
	require.Empty(t, hostWarnings(conf(t), "n1", "n1"))
	require.Empty(t, hostWarnings(conf(t), "n2", ""))
	require.Equal(t, []string{`/etc/drbd.d/r0.res:1 has no section "on host7", only n1, n2`}, founds(hostWarnings(conf(t), "host7", "host7")))
	require.Equal(t, []string{"the cluster calls this node one, uname -n says n1"}, founds(hostWarnings(conf(t), "n1", "one")))
}

func TestWarningsAboutTheClone(t *testing.T) {
	good := pacemaker.Configuration{
		Clone: true, Meta: map[string]string{"promotable": "true", "notify": "true", "promoted-max": "1", "clone-node-max": "1"},
		Operations: []pacemaker.Operation{{Name: "promote", Timeout: 150 * time.Second}},
	}
	require.Empty(t, resourceWarnings(good, 90*time.Second, true))
	require.Empty(t, resourceWarnings(good, 0, false))

	short := good
	short.Operations = []pacemaker.Operation{{Name: "promote", Timeout: 90 * time.Second}}
	require.Equal(t, []string{"the promote timeout is 1m30s, the fence-peer handler may take 1m30s"}, founds(resourceWarnings(short, 90*time.Second, false)))
	short.Operations = nil
	require.Equal(t, []string{"the promote timeout is 20s, the fence-peer handler may take 1m30s"}, founds(resourceWarnings(short, 90*time.Second, false)))

	odd := good
	odd.Meta = map[string]string{"promotable": "true", "master-max": "2"}
	require.Equal(t, []string{"master-max is 2", "split_brain_recovery=discard-unpromoted without notify=true: the promoted node is not told to connect again"},
		founds(resourceWarnings(odd, 0, true)))
	require.Equal(t, []string{"the resource is not a promotable clone"}, founds(resourceWarnings(pacemaker.Configuration{}, 0, false)))
}

func TestServiceOfTheBootIsForHeartbeatAloneAndMustBeThere(t *testing.T) {
	s := system{root: t.TempDir()}
	require.Empty(t, s.bootWarnings(false))
	require.Equal(t, []string{"drbd.service is not enabled"}, founds(s.bootWarnings(true)))
	wants := filepath.Join(s.root, "etc/systemd/system/multi-user.target.wants")
	require.NoError(t, os.MkdirAll(wants, 0o755))
	require.NoError(t, os.Symlink("/lib/systemd/system/drbd.service", filepath.Join(wants, "drbd.service")))
	require.Len(t, s.bootWarnings(false), 1)
	require.Empty(t, s.bootWarnings(true))
}

func TestHeartbeatIsKnownByItsResources(t *testing.T) {
	for text, want := range map[string]bool{
		"n1 drbd::r0 Filesystem::/dev/drbd0::/srv/nfs::ext4 nfsd::/srv/nfs/state\n":   true,
		"n1 192.0.2.1 \\\n  drbddisk::r0\n":                                           true,
		"# n1 drbd::r0\nn1 vip::192.0.2.50/24/eth0\n":                                 false,
		"n1 Filesystem::/dev/drbd0::/srv/nfs::ext4 # drbd::r0 is another cluster's\n": false,
		"": false,
	} {
		s := system{root: t.TempDir()}
		require.False(t, s.heartbeats())
		require.NoError(t, os.MkdirAll(filepath.Join(s.root, "etc/ha.d"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(s.root, "etc/ha.d/haresources"), []byte(text), 0o600))
		require.Equal(t, want, s.heartbeats(), text)
	}
}

// Each condition alone keeps the node from giving up its changes.
func TestChangesAreGivenUpOnlyUnderAllConditions(t *testing.T) {
	sane := func() conditions {
		return conditions{
			Here: "n1", SplitBrain: true, Resource: "drbd_r0:1", Best: 10000,
			Local: legacy(t, "StandAlone Secondary/Unknown UpToDate/DUnknown"),
			Cluster: pacemaker.Cluster{
				DC: "n2",
				Nodes: []pacemaker.Node{
					{Name: "n1", Online: true, Attributes: map[string]string{}},
					{Name: "n2", Online: true, Attributes: map[string]string{"master-drbd_r0": "10000"}},
				},
				Resources: []pacemaker.Resource{
					{ID: "drbd_r0", Role: "Promoted", Active: true, Nodes: []string{"n2"}},
					{ID: "drbd_r0", Role: "Unpromoted", Active: true, Nodes: []string{"n1"}},
				},
			},
		}
	}
	require.Empty(t, mayDiscard(sane()))
	waiting := sane()
	waiting.Local = legacy(t, "WFConnection Secondary/Unknown UpToDate/DUnknown")
	require.Empty(t, mayDiscard(waiting))

	for name, change := range map[string]func(*conditions){
		"only a lost link":             func(c *conditions) { c.SplitBrain = false },
		"Primary here":                 func(c *conditions) { c.Local = legacy(t, "StandAlone Primary/Unknown UpToDate/DUnknown") },
		"not up":                       func(c *conditions) { c.Local = legacy(t, "Unconfigured") },
		"connected":                    func(c *conditions) { c.Local = legacy(t, "Connected Secondary/Primary UpToDate/UpToDate") },
		"three nodes":                  func(c *conditions) { c.Local.Peers = append(c.Local.Peers, c.Local.Peers[0]) },
		"own name unknown":             func(c *conditions) { c.Here = "" },
		"no coordinator":               func(c *conditions) { c.Cluster.DC = "" },
		"maintenance":                  func(c *conditions) { c.Cluster.Maintenance = true },
		"promoted here by the cluster": func(c *conditions) { c.Cluster.Resources[0].Nodes = []string{"n1"} },
		"nobody promoted":              func(c *conditions) { c.Cluster.Resources = c.Cluster.Resources[1:] },
		"two promoted":                 func(c *conditions) { c.Cluster.Resources[0].Nodes = []string{"n2", "n3"} },
		"promoted node offline":        func(c *conditions) { c.Cluster.Nodes[1].Online = false },
		"promoted node unclean":        func(c *conditions) { c.Cluster.Nodes[1].Unclean = true },
		"promoted node still joining":  func(c *conditions) { c.Cluster.Nodes[1].Pending = true },
		"promoted node unknown":        func(c *conditions) { c.Cluster.Nodes = c.Cluster.Nodes[:1] },
		"promoted node not UpToDate":   func(c *conditions) { c.Cluster.Nodes[1].Attributes["master-drbd_r0"] = "10" },
		"promoted node without score":  func(c *conditions) { delete(c.Cluster.Nodes[1].Attributes, "master-drbd_r0") },
		"odd score":                    func(c *conditions) { c.Cluster.Nodes[1].Attributes["master-drbd_r0"] = "high" },
		"scores of nothing":            func(c *conditions) { c.Best = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			c := sane()
			change(&c)
			require.NotEmpty(t, mayDiscard(c))
		})
	}
}

func TestKernelLogIsReadToItsEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kmsg")
	text := strings.Repeat("6,1,1,-;something\n", 5000)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	got, err := kernelLog(file)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
	_, err = kernelLog(file + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestPositionalForm(t *testing.T) {
	values, err := positional([]string{"r0"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"drbd_resource": "r0"}, values)
	_, err = positional([]string{"r0", "r1"})
	require.Error(t, err)
}

func TestDeclarationIsWhatTheClusterNeeds(t *testing.T) {
	s := spec()
	for _, name := range []string{"start", "promote", "demote", "notify", "stop", "monitor", "reload-agent", "meta-data", "validate-all"} {
		require.True(t, s.Declares(name), name)
	}
	require.Greater(t, s.Timeout("promote"), 90*time.Second, "the fence-peer handler's default")
	p, ok := s.Parameter("drbd_resource")
	require.True(t, ok, "crm-fence-peer looks for this name")
	require.True(t, p.Required && p.Unique && p.Identifies)
}
