//go:build lab

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"baton/tests/lab"
)

func TestCoreLabMachinesKeepTimeAndReachEachOther(t *testing.T) {
	l := lab.Start(t, lab.Booted)
	for _, m := range l.Machines {
		before := time.Now()
		seconds, err := strconv.ParseFloat(m.Sh(t, "date +%s.%N"), 64)
		require.NoError(t, err)
		off := time.UnixMicro(int64(seconds * 1e6)).Sub(before)
		require.Less(t, off.Abs(), 5*time.Second, "%s: its clock is off by %s", m.Name, off)
	}
	l.C1.Sh(t, "ping -c 1 -W 5 192.0.2.11 && ping -c 1 -W 5 192.0.2.12 && ping -c 1 -W 5 2001:db8::11")
	l.N1.Sh(t, "ping -c 1 -W 5 198.51.100.12")
}

// victim runs in a process of its own, which is killed while its lab is up.
func TestLabVictim(t *testing.T) {
	if os.Getenv("LAB_VICTIM") == "" {
		t.Skip("the other half of TestCoreLabDiesWithItsTest")
	}
	l, err := lab.Open(t.Context(), lab.Booted, t.Logf)
	require.NoError(t, err)
	for _, m := range l.Machines {
		fmt.Printf("PID %d\n", m.Pid())
	}
	fmt.Println("UP")
	<-t.Context().Done()
}

func TestCoreLabDiesWithItsTest(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestLabVictim$", "-test.v")
	cmd.Env = append(os.Environ(), "LAB_VICTIM=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })

	var pids []int
	var said strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "UP" {
		fmt.Fprintln(&said, lines.Text())
		if text, ok := strings.CutPrefix(lines.Text(), "PID "); ok {
			pid, err := strconv.Atoi(text)
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	require.Len(t, pids, 3, said.String())

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed: its error says no more than that
	lab.Eventually(t, 20*time.Second, "all machines to be gone", func(context.Context) (bool, string) {
		for _, pid := range pids {
			if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
				return false, fmt.Sprintf("process %d: %v", pid, err)
			}
		}
		return true, ""
	})
}
