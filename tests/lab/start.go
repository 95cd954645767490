package lab

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Start gives a test a lab in the state of a stage, with the project's agents
// installed in the nodes and the lab's own tool in every machine, and ends it
// with the test. When the test fails, the log gets everything that is needed
// to understand why.
func Start(t testing.TB, s *Stage) *Lab {
	t.Helper()
	l, err := Open(t.Context(), s, t.Logf)
	require.NoError(t, err)
	t.Cleanup(func() {
		defer l.Close()
		if t.Failed() {
			t.Log(l.Dump(context.Background()))
		} else if testing.Verbose() {
			t.Logf("timeline:\n%s", l.Timeline)
		}
	})
	require.NoError(t, l.Install(t.Context()))
	return l
}

// Eventually polls until probe says ok, and fails the test with the last state
// that it named when that takes longer than within.
func Eventually(t testing.TB, within time.Duration, what string, probe func(ctx context.Context) (ok bool, state string)) time.Duration {
	t.Helper()
	took, err := Poll(t.Context(), within, what, probe)
	require.NoError(t, err)
	return took
}
