package guest

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuoteMakesOneWordOfAnything(t *testing.T) {
	for _, word := range []string{"plain", "two words", "it's", `$HOME "x" \ ` + "`id`", "line\nbreak", "", "''"} {
		out, err := exec.Command("sh", "-c", "printf %s "+Quote(word)).Output()
		require.NoError(t, err)
		require.Equal(t, word, string(out))
	}
}

func TestErrorNamesMachineCommandStatusAndWords(t *testing.T) {
	err := &ExitError{Machine: "n1", Command: "drbdadm up r0", Result: Result{Stdout: "out\n", Stderr: "no such resource\n", Code: 3}}
	require.EqualError(t, err, "n1: drbdadm up r0: exit 3\nout\nno such resource\n")
}
