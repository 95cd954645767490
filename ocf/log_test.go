package ocf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 11, 5, 12, 34, 56, 0, time.UTC)

type logged struct {
	env    logEnv
	dial   func() (net.Conn, error)
	direct io.Writer
	stderr *bytes.Buffer
}

func (l *logged) logger() *slog.Logger {
	l.stderr = &bytes.Buffer{}
	if l.dial == nil {
		l.dial = func() (net.Conn, error) { return nil, errors.New("no log daemon") }
	}
	return slog.New(&logHandler{
		env: l.env, tag: "vip(ip)", direct: l.direct,
		sink: &logSink{dial: l.dial, now: func() time.Time { return noon }, stderr: l.stderr, reason: "ocf-exit-reason:"},
	})
}

// fakeSyslog listens where a log daemon would.
func fakeSyslog(t *testing.T) (dial func() (net.Conn, error), received func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	daemon, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = daemon.Close() })
	dial = func() (net.Conn, error) { return net.Dial("unixgram", path) }
	received = func() string {
		buf := make([]byte, 64<<10)
		require.NoError(t, daemon.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, err := daemon.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	return dial, received
}

func TestLinesReachTheLogDaemonWithFacilitySeverityAndTag(t *testing.T) {
	dial, received := fakeSyslog(t)
	l := &logged{env: logEnv{facility: "daemon", debug: true}, dial: dial}
	log := l.logger()
	for _, c := range []struct {
		write func(string, ...any)
		want  string // facility daemon is 3<<3; err 3, warning 4, info 6, debug 7
	}{
		{log.Error, "<27>Nov  5 12:34:56 vip(ip)[%d]: ERROR: text k=v"},
		{log.Warn, "<28>Nov  5 12:34:56 vip(ip)[%d]: WARNING: text k=v"},
		{log.Info, "<30>Nov  5 12:34:56 vip(ip)[%d]: INFO: text k=v"},
		{log.Debug, "<31>Nov  5 12:34:56 vip(ip)[%d]: DEBUG: text k=v"},
	} {
		c.write("text", "k", "v")
		require.Equal(t, fmt.Sprintf(c.want, os.Getpid()), received())
	}
	require.Empty(t, l.stderr.String(), "Pacemaker would log it a second time")
}

func TestAttributesOfADerivedLoggerStandInEachLine(t *testing.T) {
	dial, received := fakeSyslog(t)
	l := &logged{env: logEnv{facility: "local0"}, dial: dial}
	log := l.logger().With("address", "192.0.2.50").WithGroup("g").With("nic", "eth0")
	log.Info("added", "prefix", 24)
	require.Contains(t, received(), "INFO: added address=192.0.2.50 nic=eth0 prefix=24")
}

func TestDebugIsSilentUnlessAskedFor(t *testing.T) {
	l := &logged{}
	l.logger().Debug("details")
	require.Empty(t, l.stderr.String())
	l = &logged{env: logEnv{debug: true}}
	l.logger().Debug("details")
	require.Equal(t, "DEBUG: details\n", l.stderr.String())
}

func TestTheLogFileIsAppendedTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(file, []byte("before\n"), 0o600))
	l := &logged{env: logEnv{file: file}}
	log := l.logger()
	log.Error("one")
	log.Info("two")
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	head := fmt.Sprintf("Nov 05 12:34:56  vip(ip)[%d]:    ", os.Getpid())
	require.Equal(t, "before\n"+head+"ERROR: one\n"+head+"INFO: two\n", string(got))
	require.Empty(t, l.stderr.String())
}

func TestWithNowhereElseToGoLinesGoToStandardErrorWherePacemakerReadsThem(t *testing.T) {
	for about, env := range map[string]logEnv{
		"nothing set":              {},
		"no log daemon":            {facility: "daemon"},
		"a facility that is none":  {facility: "none"},
		"no file, in Pacemaker's":  {file: "none"},
		"a file that cannot be":    {file: "/proc/none/log"},
		"a file on a full device":  {file: "/dev/full"},
		"a directory for the file": {file: "/tmp"},
	} {
		l := &logged{env: env}
		log := l.logger()
		log.Error("one")
		log.Info("two")
		require.Equal(t, "ERROR: one\nINFO: two\n", l.stderr.String(), about)
	}
	require.NoFileExists(t, "none")
}

func TestAPersonReadsLinesDirectly(t *testing.T) {
	var direct bytes.Buffer
	file := filepath.Join(t.TempDir(), "log")
	l := &logged{env: logEnv{facility: "daemon", file: file}, direct: &direct}
	l.logger().Warn("careful")
	require.Equal(t, "warning: careful\n", direct.String())
	require.NoFileExists(t, file)
}

// A journal that is stuck (on the very disk that is failing) takes no more datagrams once the
// queue is full: a write would block for ever.
func TestALogDaemonThatIsStuckDoesNotHoldTheAction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	daemon, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer daemon.Close()
	filler, err := net.Dial("unixgram", path)
	require.NoError(t, err)
	defer filler.Close()
	for err = nil; err == nil; {
		require.NoError(t, filler.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		_, err = filler.Write([]byte("x"))
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the queue is full")

	l := &logged{env: logEnv{facility: "daemon"}, dial: func() (net.Conn, error) { return net.Dial("unixgram", path) }}
	log := l.logger()
	begin := time.Now()
	for range 20 {
		log.Error("stop: held")
	}
	require.Less(t, time.Since(begin), 3*time.Second, "one patience, not twenty")
	require.Equal(t, 20, strings.Count(l.stderr.String(), "ERROR: stop: held\n"))
}

func TestANamedPipeThatNobodyReadsDoesNotHoldTheAction(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	l := &logged{env: logEnv{file: pipe}}
	l.logger().Error("one")
	require.Equal(t, "ERROR: one\n", l.stderr.String())
}

func TestAStreamOfTheLogDaemonGetsItsLinesApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	daemon, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer daemon.Close()
	l := &logged{env: logEnv{facility: "daemon"}, dial: func() (net.Conn, error) { return net.Dial("unix", path) }}
	log := l.logger()
	log.Info("one")
	log.Info("two")
	conn, err := daemon.Accept()
	require.NoError(t, err)
	defer conn.Close()
	buf := make([]byte, 4096)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	var got string
	for strings.Count(got, "\n") < 2 {
		n, err := conn.Read(buf)
		require.NoError(t, err)
		got += string(buf[:n])
	}
	require.Regexp(t, `^<30>[^\n]* INFO: one\n<30>[^\n]* INFO: two\n$`, got)
}

func TestNoLineCanBeForgedOrRunOnForEver(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb":                    "a | b",
		"a\r\nb\n":                "a | b",
		"a\tb":                    "a b",
		"a\x1b[31mred\x00":        "a[31mred",
		"c1 \u009b31m":            "c1 31m",
		"\xff":                    "?",
		"ocf-exit-reason:forged":  "ocf-exit-reason :forged",
		strings.Repeat("x", 9000): strings.Repeat("x", 4096) + "…",
	} {
		l := &logged{}
		l.logger().Error(text)
		require.Equal(t, "ERROR: "+want+"\n", l.stderr.String())
	}
	require.Equal(t, "漢…", shorten("漢字漢字", 5), "cut between characters")
}

func TestAnInstanceNameCannotForgeALogLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	env := Env{Instance: "ip\nNov 05 fake" + strings.Repeat("x", 1000), log: logEnv{file: file}}
	newLogger(env, "vip", "ocf-exit-reason:", nil, io.Discard).Error("text")
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(got, []byte("\n")))
	require.Less(t, len(got), 300)
}
