package ocf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// logHandler follows the rules of ocf_log in resource-agents: syslog with HA_LOGFACILITY and tag
// Type(instance)[pid], a line in HA_LOGFILE, debug only with HA_debug; standard error where the
// caller is a person, or where neither takes the line: Pacemaker logs what it reads there.
type logHandler struct {
	env    logEnv
	tag    string
	direct io.Writer // a person's terminal; nil elsewhere
	attrs  string    // attributes of WithAttrs
	sink   *logSink
}

// logSink holds what is opened at the first line, shared by all derived handlers.
type logSink struct {
	mu     sync.Mutex
	dial   func() (net.Conn, error)
	conn   net.Conn
	failed bool
	now    func() time.Time
	stderr io.Writer
	// reason is the prefix of an exit reason, which no line on stderr may forge.
	reason string
}

// The log daemon is waited for this long at most. log/syslog knows no bound: behind a journal that
// is stuck on a dying disk it would hold the very stop that is to move the service away.
const syslogPatience = 200 * time.Millisecond

// dialSyslog connects to the local log daemon, at the places and in the order of log/syslog.
func dialSyslog() (net.Conn, error) {
	var errs []error
	for _, network := range []string{"unixgram", "unix"} {
		for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
			conn, err := net.DialTimeout(network, path, syslogPatience)
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, errors.Join(errs...)
}

// facilities are the names that logger(1) takes for -p.
var facilities = map[string]syslog.Priority{
	"kern": syslog.LOG_KERN, "user": syslog.LOG_USER, "mail": syslog.LOG_MAIL, "daemon": syslog.LOG_DAEMON,
	"auth": syslog.LOG_AUTH, "syslog": syslog.LOG_SYSLOG, "lpr": syslog.LOG_LPR, "news": syslog.LOG_NEWS,
	"uucp": syslog.LOG_UUCP, "cron": syslog.LOG_CRON, "authpriv": syslog.LOG_AUTHPRIV, "ftp": syslog.LOG_FTP,
	"local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1, "local2": syslog.LOG_LOCAL2, "local3": syslog.LOG_LOCAL3,
	"local4": syslog.LOG_LOCAL4, "local5": syslog.LOG_LOCAL5, "local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.env.debug
}

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	line := shorten(oneLine(b.String()), maxLine)
	h.sink.mu.Lock()
	defer h.sink.mu.Unlock()
	if h.direct != nil {
		fmt.Fprintf(h.direct, "%s: %s\n", strings.ToLower(levelWord(r.Level)), unforged(line, h.sink.reason))
		return nil
	}
	logged := false
	if facility, ok := facilities[h.env.facility]; ok {
		logged = h.toSyslog(facility, r.Level, line)
	}
	// Pacemaker says "none" in HA_LOGFILE for no file; a relative name would lie anywhere.
	if filepath.IsAbs(h.env.file) {
		logged = h.toFile(r.Level, line) || logged
	}
	if !logged {
		fmt.Fprintf(h.sink.stderr, "%s: %s\n", levelWord(r.Level), unforged(line, h.sink.reason))
	}
	return nil
}

// toSyslog sends the line in the form of syslog(3): `<PRI>Mon DD HH:MM:SS Type(instance)[pid]: text`.
func (h *logHandler) toSyslog(facility syslog.Priority, level slog.Level, line string) bool {
	if h.sink.failed {
		return false
	}
	if h.sink.conn == nil {
		conn, err := h.sink.dial()
		if err != nil {
			h.sink.failed = true // no log daemon: the action itself must not suffer
			return false
		}
		h.sink.conn = conn
	}
	now := h.sink.now()
	end := ""
	if h.sink.conn.LocalAddr().Network() == "unix" {
		end = "\n" // a stream needs the lines told apart
	}
	_ = h.sink.conn.SetWriteDeadline(time.Now().Add(syslogPatience))
	_, err := fmt.Fprintf(h.sink.conn, "<%d>%s %s[%d]: %s: %s%s",
		facility|severity(level), now.Format(time.Stamp), h.tag, os.Getpid(), levelWord(level), line, end)
	h.sink.failed = err != nil
	return err == nil
}

func severity(level slog.Level) syslog.Priority {
	switch {
	case level >= slog.LevelError:
		return syslog.LOG_ERR
	case level >= slog.LevelWarn:
		return syslog.LOG_WARNING
	case level >= slog.LevelInfo:
		return syslog.LOG_INFO
	}
	return syslog.LOG_DEBUG
}

// toFile appends in the form of ocf_log: `DATE  Type(instance)[pid]:    LEVEL: text`.
func (h *logHandler) toFile(level slog.Level, line string) bool {
	// Without O_NONBLOCK a named pipe that nobody reads would hold the action.
	f, err := os.OpenFile(h.env.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return false
	}
	defer f.Close()
	_ = f.SetWriteDeadline(time.Now().Add(syslogPatience)) // a pipe that is full; files know no deadline
	stamp := strings.TrimSpace(h.sink.now().Format(layout(h.env.date)))
	_, err = fmt.Fprintf(f, "%s  %s[%d]:    %s: %s\n", stamp, h.tag, os.Getpid(), levelWord(level), line)
	return err == nil
}

// layout turns HA_DATEFMT, a format of strftime (heartbeat passes "%Y/%m/%d_%T"), into Go's. One
// that is absent or holds what is not known here gives the default of resource-agents.
func layout(strftime string) string {
	const standard = "Jan 02 15:04:05"
	known := strings.NewReplacer("%Y", "2006", "%y", "06", "%m", "01", "%b", "Jan", "%d", "02", "%e", "_2",
		"%F", "2006-01-02", "%T", "15:04:05", "%H", "15", "%M", "04", "%S", "05").Replace(strftime)
	if strings.TrimSpace(known) == "" || strings.Contains(known, "%") {
		return standard
	}
	return known
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, a)
	}
	next := *h
	next.attrs += b.String()
	return &next
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }

func writeAttr(b *strings.Builder, a slog.Attr) {
	fmt.Fprintf(b, " %s=%v", a.Key, a.Value)
}

func levelWord(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "ERROR"
	case level >= slog.LevelWarn:
		return "WARNING"
	case level >= slog.LevelInfo:
		return "INFO"
	}
	return "DEBUG"
}

// oneLine folds a text into one line: line breaks become " | ", other control characters vanish.
func oneLine(text string) string {
	text = strings.TrimSpace(text)
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(text, "?") {
		switch {
		case r == '\n':
			b.WriteString(" | ")
		case r == '\t':
			b.WriteByte(' ')
		case unicode.IsControl(r):
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// maxLine bounds a log line and an exit reason: a tool may say megabytes in one line, and a
// datagram to the log daemon that is too long is lost whole.
const (
	maxLine = 4096
	maxTag  = 128
)

func shorten(line string, most int) string {
	if len(line) <= most {
		return line
	}
	for most > 0 && !utf8.RuneStart(line[most]) {
		most--
	}
	return line[:most] + "…"
}

// unforged keeps a text that came from outside from posing as an exit reason: Pacemaker takes
// what follows the last prefix on standard error.
func unforged(line, prefix string) string {
	if len(prefix) < 2 {
		return line
	}
	last := len(prefix) - 1
	return strings.ReplaceAll(line, prefix, prefix[:last]+" "+prefix[last:])
}

// newLogger is the log of one call. direct is the terminal of a person, nil under a cluster.
func newLogger(env Env, agent, reasonPrefix string, direct, stderr io.Writer) *slog.Logger {
	name := env.Type
	if name == "" {
		name = agent
	}
	return slog.New(&logHandler{
		env:    env.log,
		tag:    shorten(oneLine(fmt.Sprintf("%s(%s)", name, env.Instance)), maxTag),
		direct: direct,
		sink:   &logSink{dial: dialSyslog, now: time.Now, stderr: stderr, reason: reasonPrefix},
	})
}
