//go:build real

package mfs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ocfTester runs the real ocf-tester of resource-agents over the agent. It needs the agent in a
// place that everybody can reach: it asks for the meta-data as nobody.
func (s *site) ocfTester(parameters ...string) {
	s.Helper()
	tester, err := exec.LookPath("ocf-tester")
	require.NoError(s, err, "run make deps")
	agent := filepath.Join(s.dir, "mfsmaster")
	require.NoError(s, os.Link(agentBinary, agent))
	args := []string{tester, "-n", "mfs"}
	for _, p := range parameters {
		args = append(args, "-o", p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := s.command(ctx, append(args, agent)...)
	cmd.Env = append(os.Environ(), "HA_RSCTMP="+filepath.Join(s.dir, "rsctmp"))
	out, err := cmd.CombinedOutput()
	s.Logf("%s", out)
	require.NoError(s, err)
	require.Contains(s, string(out), "passed all tests")
}

func TestOcfTesterPassesOnAReplicatedDevice(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	s.expect(ok, "stop")
	s.ocfTester("config="+s.cfg, "require_mount=false")
	require.Empty(t, s.masters())
}

func TestOcfTesterPassesOverMetaloggers(t *testing.T) {
	t.Parallel()
	s := newSite(t).born()
	s.expect(ok, "stop")
	s.ocfTester("config="+s.cfg, "mode=metaloggers", "metalogger_config="+s.loggerCfg)
	require.Empty(t, s.masters())
}
