package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab/internal/record"
)

// TestMain makes the test binary labtool when it is asked to: locks belong to
// processes, so a second one is needed.
func TestMain(m *testing.M) {
	if os.Getenv("LABTOOL") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func labtool(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "LABTOOL=1")
	return cmd
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) log() record.Log {
	b.mu.Lock()
	defer b.mu.Unlock()
	return record.Parse(b.b.String())
}

// start runs a job in this process and returns its log and how to end it.
func start(t *testing.T, name string, args ...string) (*buffer, func()) {
	t.Helper()
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	run := jobs()[name].make(flags)
	require.NoError(t, flags.Parse(args))
	ctx, cancel := context.WithCancel(t.Context())
	out := &buffer{}
	done := make(chan error, 1)
	go func() { done <- run(ctx, newLogger(out)) }()
	stop := sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return out, stop
}

func waitFor(t *testing.T, out *buffer, kind record.Kind, n int) record.Log {
	t.Helper()
	require.Eventually(t, func() bool { return len(out.log().Of(kind)) >= n }, 10*time.Second, 2*time.Millisecond)
	return out.log()
}

// records runs write or append for a while and returns its log as a file.
func records(t *testing.T, job string, args ...string) (path string, n int) {
	t.Helper()
	out, stop := start(t, job, append(args, "-every", "1ms")...)
	waitFor(t, out, record.OK, 5)
	stop()
	log := out.log()
	var b strings.Builder
	for _, e := range log {
		fmt.Fprintln(&b, e)
	}
	path = filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	return path, len(log.Of(record.OK))
}

func check(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := labtool(append([]string{"check"}, args...)...).CombinedOutput()
	return string(out), err
}

func TestCheckFindsEveryLostOrAlteredFile(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, third string)
		says  string
	}{
		"all there": {func(*testing.T, string) {}, ""},
		"missing":   {func(t *testing.T, p string) { require.NoError(t, os.Remove(p)) }, "no such file"},
		"emptied":   {func(t *testing.T, p string) { require.NoError(t, os.Truncate(p, 0)) }, "0 bytes with other content"},
		"shortened": {func(t *testing.T, p string) { require.NoError(t, os.Truncate(p, 10)) }, "10 bytes with other content"},
		"another record's bytes": {func(t *testing.T, p string) {
			require.NoError(t, os.WriteFile(p, content(4, 200), 0o644))
		}, "with other content"},
		"zeros of the right length": {func(t *testing.T, p string) {
			require.NoError(t, os.WriteFile(p, make([]byte, len(content(3, 200))), 0o644))
		}, "with other content"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log, n := records(t, "write", "-dir", dir)
			c.spoil(t, fileName(dir, 3))
			said, err := check(t, "-log", log, "-dir", dir)
			if c.says == "" {
				require.NoError(t, err, said)
				require.Contains(t, said, fmt.Sprintf("%d acknowledged, 0 lost", n))
				return
			}
			require.Error(t, err)
			require.Contains(t, said, "record 3")
			require.Contains(t, said, c.says)
			require.Contains(t, said, fmt.Sprintf("%d acknowledged, 1 lost", n))
		})
	}
}

func TestCheckFindsALostAppendedRecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records")
	log, n := records(t, "append", "-file", file)
	said, err := check(t, "-log", log, "-file", file)
	require.NoError(t, err, said)

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	third := fmt.Sprintf("%0*d\n", recordDigits, 3)
	require.NoError(t, os.WriteFile(file, bytes.Replace(text, []byte(third), []byte(third[5:]), 1), 0o644))
	said, err = check(t, "-log", log, "-file", file)
	require.Error(t, err)
	require.Contains(t, said, fmt.Sprintf("%d acknowledged, 1 lost", n))
}

func TestRefusedWriteIsNotAcknowledged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a file where a directory should be")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	out, _ := start(t, "write", "-dir", file, "-every", "1ms")
	log := waitFor(t, out, record.Fail, 2)
	require.Empty(t, log.Of(record.OK))
}

func TestSecondProcessIsRefusedTheLockUntilTheFirstEnds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "locked")
	require.NoError(t, labtool("trylock", "-file", file).Run())
	out, stop := start(t, "lock", "-file", file, "-every", "1ms")
	waitFor(t, out, record.OK, 1)

	said, err := labtool("trylock", "-file", file).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), "refused")
	stop()
	require.NoError(t, labtool("trylock", "-file", file).Run())
}

func TestProbesAreAnsweredByTheEchoServerAndNoteItsEnd(t *testing.T) {
	echo, stop := start(t, "echo", "-listen", "127.0.0.1:0")
	waitFor(t, echo, record.Note, 1)
	address := strings.TrimPrefix(echo.log()[0].Text, "listening on ")

	ask, _ := start(t, "tcp", "-to", address, "-every", "2ms")
	waitFor(t, ask, record.OK, 3)
	stop()
	waitFor(t, ask, record.Fail, 1)
}

func TestChecksumIsThatOfRFC1071(t *testing.T) {
	// The example of RFC 1071 section 3: the sum of these words is ddf2.
	require.Equal(t, uint16(0xffff^0xddf2), checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}))
}
