package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"baton/agents/internal/command"
	"baton/agents/internal/mfsmeta"
	"baton/agents/internal/mounts"
	"baton/agents/internal/process"
	"baton/ocf"
)

// agent is one call's view of the resource: its parameters, the master's configuration, and the
// doors to the system.
type agent struct {
	call *ocf.Call

	mode       string
	config     mfsmeta.Config
	dataDir    string
	user       string
	address    string // of the master's port for clients, as this node reaches it
	archiveDir string
	// logger is the configuration of this node's metalogger; nil in mode storage without one.
	logger *metalogger

	run       command.Runner
	processes process.System
	mounts    mounts.Table
	// root is prefixed to the places where a dying master leaves emergency files.
	root string
	now  func() time.Time
	// archived are the archives that this call has made.
	archived []string
	// spent is where the time of a start goes.
	spent struct{ inspecting, restoring, loading time.Duration }
}

// metalogger is the configuration of this node's metalogger.
type metalogger struct {
	config  mfsmeta.Config
	dataDir string
	// master is the address at which it looks for a master, for clients.
	master string
}

// The ports of MooseFS (MFSCommunication.h of 3.0): what the agent asks is answered on the port
// for clients.
const clientPort = "9421"

const defaultMetaloggerConfig = "/etc/mfs/mfsmetalogger.cfg"

// on makes the agent of a call and hands it to an action.
func on(f func(ctx context.Context, a *agent) (ocf.State, error)) func(context.Context, *ocf.Call) (ocf.State, error) {
	return func(ctx context.Context, c *ocf.Call) (ocf.State, error) {
		a, err := newAgent(c)
		if err != nil {
			return unconfigured(ctx, c, err)
		}
		return f(ctx, a)
	}
}

func onPlain(f func(ctx context.Context, a *agent) error) func(context.Context, *ocf.Call) error {
	wrapped := on(func(ctx context.Context, a *agent) (ocf.State, error) { return ocf.Running, f(ctx, a) })
	return func(ctx context.Context, c *ocf.Call) error {
		_, err := wrapped(ctx, c)
		return err
	}
}

// unconfigured is what an action answers whose configuration file cannot be used. Whatever this
// agent has started carries the name of its configuration file in its command line, so that a probe
// and a stop can tell whether anything of it is left, even now.
// A stop ends it: which processes are ours is certain, even if their directory is not known.
func unconfigured(ctx context.Context, c *ocf.Call, why error) (ocf.State, error) {
	stopping := c.Env.Action == "stop" || c.Env.Action == "demote"
	running, err := startedWith(process.System{}, c.Params.String("config"), loggerConfig(c))
	if err == nil && stopping && len(running) > 0 {
		c.Log.Warn(fmt.Sprintf("%v; ending %s, found by its command line", why, listed(running)))
		a := &agent{call: c}
		if err := a.processes.End(ctx, a.termPatience(ctx), ids(running)...); err != nil {
			return ocf.Stopped, a.notEnded(err)
		}
		running = nil
	}
	if dir := c.Params.String("data_dir"); err == nil && dir != "" {
		pid, lockErr := mfsmeta.LockOwner(dir, mfsmeta.MasterLock)
		if lockErr != nil && !errors.Is(lockErr, fs.ErrNotExist) || pid != 0 {
			return ocf.Stopped, stillThere(c, why)
		}
	}
	if err != nil || len(running) > 0 {
		return ocf.Stopped, stillThere(c, why)
	}
	switch c.Env.Action {
	case "stop", "demote":
		c.Log.Warn("nothing is left to stop: " + why.Error())
		return ocf.Running, nil
	case "monitor", "status":
		c.Note("%v", why)
		return ocf.Stopped, nil
	}
	return ocf.Stopped, why
}

// stillThere is why as monitor says it while a master runs, or may run: Pacemaker takes a probe's
// "not installed" for "not running".
func stillThere(c *ocf.Call, why error) error {
	var e *ocf.Error
	if (c.Env.Action == "monitor" || c.Env.Action == "status") && errors.As(why, &e) && e.Kind == ocf.NotInstalled {
		failed := *e
		failed.Kind = ocf.Failed
		return &failed
	}
	return why
}

// startedWith finds masters and metaloggers that were started with one of the configuration files. A
// container has files of the same names that are others: what runs there was not started by the agent.
func startedWith(sys process.System, paths ...string) ([]process.Process, error) {
	return sys.Find(func(p process.Process) bool {
		if !isMaster(p) && !isMetalogger(p) {
			return false
		}
		for i, arg := range p.Args {
			for _, path := range paths {
				if path != "" && (arg == "-c"+path || arg == path && i > 0 && p.Args[i-1] == "-c") {
					return !sys.Contained(p.PID)
				}
			}
		}
		return false
	})
}

// loggerConfig is the configuration file of the metalogger that the agent looks at, or "".
func loggerConfig(c *ocf.Call) string {
	path := c.Params.String("metalogger_config")
	if path == "" && c.Params.String("mode") == modeMetaloggers {
		return defaultMetaloggerConfig
	}
	return path
}

func newAgent(c *ocf.Call) (*agent, error) {
	a := &agent{call: c, mode: c.Params.String("mode"), root: "/", now: time.Now}
	path := c.Params.String("config")
	cfg, err := mfsmeta.ReadConfig(path)
	if err != nil {
		return nil, configError(path, err, "config")
	}
	a.config = cfg
	for _, line := range cfg.Ignored {
		c.Log.Warn(fmt.Sprintf("%s: MooseFS ignores the line %q", path, line))
	}
	a.dataDir, a.user = cfg.DataPath(), cfg.User()
	if want := c.Params.String("data_dir"); want != "" && want != a.dataDir {
		return nil, &ocf.Error{
			Kind: ocf.BadConfig, Object: path, Found: "DATA_PATH is " + a.dataDir,
			Expected: "data_dir, " + want, Do: "make both the same directory",
		}
	}
	if !filepath.IsAbs(a.dataDir) || a.dataDir == "/" {
		return nil, &ocf.Error{
			Kind: ocf.BadConfig, Object: path, Found: fmt.Sprintf("DATA_PATH is %q", a.dataDir),
			Expected: "an absolute path", Do: "correct DATA_PATH",
		}
	}
	if a.address, err = clientAddress(cfg, "MATOCL_LISTEN_HOST", "MATOCL_LISTEN_PORT"); err != nil {
		return nil, &ocf.Error{Kind: ocf.BadConfig, Object: path, Found: err.Error()}
	}
	if a.archiveDir = c.Params.String("archive_dir"); a.archiveDir == "" {
		a.archiveDir = filepath.Join(a.dataDir, "baton-archive")
	}
	if err := a.readMetalogger(); err != nil {
		if a.mode == modeMetaloggers || a.mustKnowAll() {
			return nil, err
		}
		c.Log.Warn("ignored: " + err.Error())
	}
	return a, nil
}

// mustKnowAll: what ends or watches a master goes on without what it does not need for that.
func (a *agent) mustKnowAll() bool {
	switch a.call.Env.Action {
	case "stop", "demote", "monitor", "status":
		return false
	}
	return true
}

// clientAddress is where a master listens, as its own node reaches it. MooseFS 3 and 4 take "*"
// for every address; the port may be a service name.
func clientAddress(cfg mfsmeta.Config, host, port string) (string, error) {
	h, p := cfg.Get(host, "*"), cfg.Get(port, clientPort)
	if h == "*" || h == "0.0.0.0" || h == "" {
		h = "127.0.0.1"
	}
	if _, err := strconv.ParseUint(p, 10, 16); err != nil {
		n, err := net.LookupPort("tcp", p)
		if err != nil {
			return "", fmt.Errorf("%s = %s is not a port", port, p)
		}
		p = strconv.Itoa(n)
	}
	return net.JoinHostPort(h, p), nil
}

func (a *agent) readMetalogger() error {
	path := loggerConfig(a.call)
	if path == "" {
		return nil
	}
	cfg, err := mfsmeta.ReadConfig(path)
	if err != nil {
		return configError(path, err, "metalogger_config")
	}
	l := &metalogger{config: cfg, dataDir: cfg.DataPath()}
	if l.dataDir == a.dataDir {
		return &ocf.Error{
			Kind: ocf.BadConfig, Object: path, Found: "DATA_PATH is " + l.dataDir + ", the master's own",
			Expected: "a directory of its own for the metalogger, so that its copies cannot be taken for the master's files",
			Do:       "set DATA_PATH in " + path + ", for example to /var/lib/mfs-metalogger",
		}
	}
	// A metalogger's configuration has no port for clients; it is the master's own.
	_, port, _ := net.SplitHostPort(a.address)
	l.master = net.JoinHostPort(cfg.Get("MASTER_HOST", "mfsmaster"), port)
	a.logger = l
	return nil
}

func configError(path string, err error, parameter string) error {
	e := &ocf.Error{
		Kind: ocf.NotInstalled, Object: path, Err: err, Expected: "a configuration file of MooseFS",
		Do: "create it on this node or correct " + parameter,
	}
	if errors.Is(err, fs.ErrPermission) {
		e.Kind = ocf.NoPermission
	}
	return e
}

// fail words an error about the data directory.
func (a *agent) fail(kind ocf.Kind, found, expected, do string) error {
	return &ocf.Error{Kind: kind, Object: a.dataDir, Found: found, Expected: expected, Do: do}
}
