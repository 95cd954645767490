package ocf

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"strings"
	"sync"
	"time"
)

// logHandler follows the rules of ocf_log in resource-agents: syslog with HA_LOGFACILITY and tag
// Type(instance)[pid], a line in HA_LOGFILE, debug only with HA_debug; standard error where the
// caller is a person, or where neither is set.
type logHandler struct {
	env    logEnv
	tag    string
	direct io.Writer // a person's terminal; nil elsewhere
	prefix string    // attributes and groups of With…
	sink   *logSink
}

// logSink holds what is opened at the first line, shared by all derived handlers.
type logSink struct {
	mu     sync.Mutex
	dial   func(facility syslog.Priority, tag string) (*syslog.Writer, error)
	writer *syslog.Writer
	failed bool
	now    func() time.Time
	stderr io.Writer
}

func dialSyslog(facility syslog.Priority, tag string) (*syslog.Writer, error) {
	return syslog.New(facility, tag)
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
	b.WriteString(h.prefix)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	line := oneLine(b.String())
	h.sink.mu.Lock()
	defer h.sink.mu.Unlock()
	if h.direct != nil {
		fmt.Fprintf(h.direct, "%s: %s\n", strings.ToLower(levelWord(r.Level)), line)
		return nil
	}
	facility, toSyslog := facilities[h.env.facility]
	if toSyslog {
		h.toSyslog(facility, r.Level, line)
	}
	if h.env.file != "" {
		h.toFile(r.Level, line)
	}
	if !toSyslog && h.env.file == "" {
		fmt.Fprintf(h.sink.stderr, "%s: %s\n", levelWord(r.Level), line)
	}
	return nil
}

func (h *logHandler) toSyslog(facility syslog.Priority, level slog.Level, line string) {
	if h.sink.failed {
		return
	}
	if h.sink.writer == nil {
		w, err := h.sink.dial(facility|syslog.LOG_INFO, h.tag)
		if err != nil {
			h.sink.failed = true // no log daemon: the action itself must not suffer
			return
		}
		h.sink.writer = w
	}
	line = levelWord(level) + ": " + line
	switch {
	case level >= slog.LevelError:
		_ = h.sink.writer.Err(line)
	case level >= slog.LevelWarn:
		_ = h.sink.writer.Warning(line)
	case level >= slog.LevelInfo:
		_ = h.sink.writer.Info(line)
	default:
		_ = h.sink.writer.Debug(line)
	}
}

// toFile appends in the form of ocf_log: `DATE  Type(instance)[pid]:    LEVEL: text`.
func (h *logHandler) toFile(level slog.Level, line string) {
	f, err := os.OpenFile(h.env.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return
	}
	defer f.Close()
	stamp := strings.TrimSpace(h.sink.now().Format(layout(h.env.date)))
	fmt.Fprintf(f, "%s  %s[%d]:    %s: %s\n", stamp, h.tag, os.Getpid(), levelWord(level), line)
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
	next.prefix += b.String()
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
		case r < ' ' || r == 0x7f:
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// newLogger is the log of one call. direct is the terminal of a person, nil under a cluster.
func newLogger(env Env, agent string, direct, stderr io.Writer) *slog.Logger {
	name := env.Type
	if name == "" {
		name = agent
	}
	return slog.New(&logHandler{
		env:    env.log,
		tag:    fmt.Sprintf("%s(%s)", name, env.Instance),
		direct: direct,
		sink:   &logSink{dial: dialSyslog, now: time.Now, stderr: stderr},
	})
}
