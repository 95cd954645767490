package ocf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// Host is what a process is given from outside. Run fills it from the operating system; tests
// fill it themselves.
type Host struct {
	Argv0          string
	Args           []string
	Environ        []string
	Stdout, Stderr io.Writer
	// Terminal says that a person reads Stderr.
	Terminal bool
	// Unprivileged says that the process does not run as root.
	Unprivileged bool
}

// Run carries out one call of the agent and returns the process's exit code.
func Run(p Program) int {
	return RunOn(p, Host{
		Argv0:    os.Args[0],
		Args:     os.Args[1:],
		Environ:  os.Environ(),
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Terminal: isTerminal(os.Stderr),

		Unprivileged: os.Geteuid() != 0,
	})
}

// isTerminal: a character device is a terminal for our purpose, except /dev/null, which daemons
// get as their standard streams.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// RunOn is Run with everything from outside given.
func RunOn(p Program, h Host) int {
	env := newEnviron(h.Environ)
	r := &run{program: p, host: h, environ: env, prefix: "ocf-exit-reason:"}
	if prefix := env["OCF_EXIT_REASON_PREFIX"]; prefix != "" {
		r.prefix = prefix
	}
	return r.main()
}

// run is one call on its way to an exit code.
type run struct {
	program Program
	host    Host
	environ environ
	prefix  string
	caller  Caller
	call    *Call
	// values are the parameters as given; unread is why they could not be had at all.
	values map[string]string
	unread error
}

func (r *run) main() (code int) {
	// The action itself has a recover of its own (bounded), that leaves time to end in order.
	// Without this one a panic in a check of values would be the runtime's exit code 2.
	defer func() {
		if p := recover(); p != nil {
			code = r.panicked(p)
		}
	}()
	if len(r.host.Args) > 0 {
		if internal, ok := r.program.Internal[r.host.Args[0]]; ok {
			return r.internal(internal)
		}
	}
	inv, done := r.understand()
	if done >= 0 {
		return done
	}
	r.call = r.newCall(inv)
	switch inv.action {
	case "meta-data":
		if err := r.program.Spec.WriteXML(r.host.Stdout); err != nil {
			return r.fail(err)
		}
		return codeSuccess
	case "usage", "help":
		usage(r.host.Stdout, r.program.Spec)
		return codeSuccess
	}
	return r.act()
}

func (r *run) panicked(p any) int {
	if r.call != nil {
		return r.answer(Stopped, r.internalError(p))
	}
	err := &Error{Found: fmt.Sprintf("internal error: %v", p), Do: "please report this"}
	if r.caller == Heartbeat && r.host.Args[len(r.host.Args)-1] == "status" {
		words, _ := statusWords(Stopped, err)
		fmt.Fprintln(r.host.Stdout, words)
	}
	r.reason("%v", err)
	return codeGeneric
}

// internalError logs the stack, which is of use to whoever mends the agent alone.
func (r *run) internalError(p any) error {
	r.call.Log.Error(fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
	return &Error{Op: r.call.Env.Action, Found: fmt.Sprintf("internal error: %v", p), Do: "please report this with the log"}
}

// understand reads the command line. code is -1 when there is an action to carry out.
func (r *run) understand() (inv invocation, code int) {
	spec := r.program.Spec
	switch {
	case calledByHeartbeat(spec, r.host.Argv0, r.host.Args):
		r.caller = Heartbeat
		last := len(r.host.Args) - 1
		inv.action = r.host.Args[last]
		said, err := r.program.heartbeatValues(heartbeatConfig(r.host.Argv0, r.environ), r.host.Args[:last])
		r.values, r.unread = said.values, err
		inv.timeout = said.deadlines[inv.action]
		return inv, -1
	case r.environ.underCluster():
		r.caller = Cluster
	default:
		r.caller = Hand
	}
	inv, err := parseArgs(spec.Name, r.host.Args, r.caller)
	switch {
	case err != nil:
		r.reason("%v; see %s --help", err, spec.Name)
		return inv, codeArgs
	case inv.help:
		usage(r.host.Stdout, spec)
		return inv, codeSuccess
	case inv.vers:
		fmt.Fprintf(r.host.Stdout, "baton %s %s\n", spec.Name, version)
		return inv, codeSuccess
	}
	r.values = r.environ.parameters()
	for name, value := range inv.values {
		par, ok := spec.Parameter(name)
		if !ok {
			r.reason("-o %s: %s has no such parameter; see %s --help", quote(name), spec.Name, spec.Name)
			return inv, codeArgs
		}
		r.values[par.Name] = value
	}
	return inv, -1
}

func (r *run) newCall(inv invocation) *Call {
	env := r.environ.parse(inv.action, r.caller)
	if env.Type == "" {
		env.Type = r.program.Spec.Name
	}
	if env.Instance == "" {
		env.Instance = r.defaultInstance()
	}
	if inv.timeout > 0 {
		env.Timeout = inv.timeout
	}
	if inv.levelSet {
		env.CheckLevel, env.LevelSet = inv.level, true
	}
	env.log.debug = env.log.debug || inv.debug
	var direct io.Writer
	if r.caller == Hand || r.host.Terminal {
		direct = r.host.Stderr
	}
	return &Call{
		Env:    env,
		Params: newParams(r.program.Spec, r.values),
		Log:    newLogger(env, r.program.Spec.Name, r.prefix, direct, r.host.Stderr),
	}
}

// defaultInstance names the call in logs and records where no cluster gave a name: by the value
// that identifies the thing, as heartbeat's wrappers do (IPaddr_192.0.2.50).
func (r *run) defaultInstance() string {
	params := newParams(r.program.Spec, r.values)
	for _, par := range r.program.Spec.Parameters {
		if v := params.String(par.Name); par.Identifies && v != "" {
			return shorten(r.program.Spec.Name+"_"+strings.Map(nameRune, oneLine(v)), maxTag/2)
		}
	}
	return r.program.Spec.Name
}

func nameRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == ':', r == '-', r == '_':
		return r
	}
	return '_'
}

// handler is an action with its parameters bound; state is meaningful for monitors only.
type handler func(ctx context.Context, c *Call) (State, error)

func plain(f func(ctx context.Context, c *Call) error) handler {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, c *Call) (State, error) { return Running, f(ctx, c) }
}

func (r *run) handler() handler {
	p := r.program
	if r.caller == Heartbeat {
		if p.HeartbeatStart != nil {
			p.Start = p.HeartbeatStart
		}
		if p.HeartbeatStop != nil {
			p.Stop = p.HeartbeatStop
		}
		if p.HeartbeatMonitor != nil {
			p.Monitor = p.HeartbeatMonitor
		}
	}
	switch r.call.Env.Action {
	case "start":
		return plain(p.Start)
	case "stop":
		return plain(p.Stop)
	case "monitor", "status":
		return p.Monitor
	case "promote":
		return plain(p.Promote)
	case "demote":
		return plain(p.Demote)
	case "reload-agent":
		return plain(p.ReloadAgent)
	case "notify":
		if p.Notify == nil {
			return nil
		}
		return plain(func(ctx context.Context, c *Call) error { return p.Notify(ctx, c, c.Env.Notification) })
	case "validate-all":
		return plain(r.validate)
	}
	return nil
}

func (r *run) act() int {
	h := r.handler()
	if h == nil {
		return r.answer(Stopped, &Error{
			Kind: Unimplemented, Found: "action " + quote(r.call.Env.Action) + " is not supported",
			Expected: "one of " + strings.Join(actionNames(r.program.Spec), ", "),
		})
	}
	if r.call.Env.Action != "validate-all" {
		if state, err, done := r.settle(); done {
			return r.answer(state, err)
		}
	}
	return r.answer(r.bounded(h))
}

// problems are all that is wrong with the parameters by themselves. The agent's own check sees
// only values that fit their declaration.
func (r *run) problems() []Problem {
	found := r.call.Params.problems()
	if r.program.Check == nil {
		return found
	}
	clean := r.call.Params
	for _, p := range found {
		clean = clean.without(p.Param)
	}
	c := &Call{Env: r.call.Env, Params: clean, Log: r.call.Log}
	for _, p := range r.program.Check(c) {
		if !mentions(found, p.Param) {
			found = append(found, p)
		}
	}
	return found
}

func mentions(list []Problem, param string) bool {
	for _, p := range list {
		if p.Param == param && param != "" {
			return true
		}
	}
	return false
}

// settle is the policy on bad parameters, for all agents in one place. A start, promotion or
// reload needs all of them right. What ends or watches a resource goes on without those that do
// not name it: a typo in an announcement interval must never fail a stop, for that gets the node
// fenced. Where the name itself is bad, nothing of ours can be running under it (start refuses
// it): a probe and a stop say so; a recurring monitor, which implies a start that succeeded, is
// an error.
func (r *run) settle() (State, error, bool) {
	if r.unread != nil && r.needsAll() {
		return r.settleUnread()
	}
	for _, p := range r.problems() {
		switch {
		case p.Warning:
			if r.needsAll() { // a monitor would say it each time
				r.call.Log.Warn(p.Error())
			}
		case r.needsAll():
			return Stopped, p.asError(), true
		case r.identifies(p.Param) && r.unread != nil:
			return r.settleUnread()
		case r.identifies(p.Param):
			return r.nameless(p.asError())
		default:
			r.call.Log.Warn("ignored: " + p.Error())
			if p.Param != "" {
				r.call.Params = r.call.Params.without(p.Param)
			}
		}
	}
	if r.unread != nil {
		r.call.Log.Warn("ignored: " + r.unread.Error())
	}
	return Stopped, nil, false
}

// settleUnread: the haresources line or the file of defaults cannot be understood. A start needs
// all of it; a stop or status only what names the thing, without which nothing can be said to be
// stopped.
func (r *run) settleUnread() (State, error, bool) {
	return Stopped, &Error{Kind: BadConfig, Found: r.unread.Error(), Do: "correct haresources or the file of defaults"}, true
}

func (r *run) needsAll() bool {
	switch r.call.Env.Action {
	case "monitor", "status", "stop", "demote", "notify":
		return false
	}
	return true
}

func (r *run) identifies(param string) bool {
	par, ok := r.program.Spec.Parameter(param)
	return ok && par.Identifies
}

func (r *run) nameless(why *Error) (State, error, bool) {
	switch r.call.Env.Action {
	case "stop":
		r.call.Log.Warn("nothing to stop: " + why.Error())
		return Running, nil, true
	case "monitor", "status":
		if r.call.Env.Probe {
			r.call.Note("%s", why.Error())
			return Stopped, nil, true
		}
	}
	why.Kind = Failed
	return Stopped, why, true
}

// validate tells every problem; the first that is no warning decides the code.
func (r *run) validate(ctx context.Context, c *Call) error {
	if r.unread != nil {
		_, err, _ := r.settleUnread()
		return err
	}
	found := r.problems()
	for _, name := range unknown(r.program.Spec, r.values) {
		found = append(found, Problem{
			Param: name, Kind: BadConfig, Warning: true, Found: "is not a parameter of " + r.program.Spec.Name,
			Expected: "a name listed by --help", Do: "remove it or correct its name",
		})
	}
	// OCF 1.1: at check level 0 validate-all must not depend on this host. Nobody sets a level by
	// accident, so without one everything is checked.
	if r.program.Validate != nil && !fatal(found) && (!c.Env.LevelSet || c.Env.CheckLevel > 0) {
		found = append(found, r.program.Validate(ctx, c)...)
	}
	var first *Error
	for _, p := range found {
		if p.Warning {
			c.Log.Warn(p.Error())
			continue
		}
		if first == nil {
			first = p.asError()
			continue
		}
		c.Log.Error(p.Error())
	}
	if first != nil {
		return first
	}
	c.Note("the configuration is valid")
	return nil
}

func fatal(list []Problem) bool {
	for _, p := range list {
		if !p.Warning {
			return true
		}
	}
	return false
}

// margin is what the agent keeps of the caller's timeout for itself, so that it can end with a
// reason before Pacemaker kills it without one.
func margin(timeout time.Duration) time.Duration {
	const least, most = 500 * time.Millisecond, 3 * time.Second
	return min(max(timeout/10, least), most, timeout/2)
}

// unwind is how long a handler may take to return once its context has ended.
func unwind(margin time.Duration) time.Duration { return margin / 2 }

// signals delivers those that shall end an action in order. Whoever called may be gone before it
// has ended: a line that nobody reads must not kill it half way, so SIGPIPE is caught too (Notify,
// unlike Ignore, is not inherited by children). What changes nothing may be killed at any point and
// goes without: to catch signals costs a monitor a tenth of its time.
func (r *run) signals() <-chan os.Signal {
	ended := make(chan os.Signal, 1)
	switch r.call.Env.Action {
	case "monitor", "status", "validate-all":
	default:
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
		signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	}
	return ended
}

type outcome struct {
	state State
	err   error
}

// bounded runs the handler under its deadline and under SIGTERM, SIGINT and SIGHUP. A handler
// that does not return in time after either is left behind: the process ends.
func (r *run) bounded(h handler) (State, error) {
	timeout := r.call.Env.Timeout
	if timeout <= 0 {
		timeout = r.program.Spec.Timeout(strings.Replace(r.call.Env.Action, "status", "monitor", 1))
	}
	if timeout <= 0 {
		timeout = 20 * time.Second // the default operation timeout of Pacemaker
	}
	keep := margin(timeout)
	allowed := timeout - keep
	signals := r.signals()
	ctx, cancel := context.WithTimeout(context.Background(), allowed)
	defer cancel()

	done := make(chan outcome, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- outcome{err: r.internalError(p)}
			}
		}()
		state, err := h(ctx, r.call)
		done <- outcome{state, err}
	}()

	var ended *Error
	select {
	case out := <-done:
		return out.state, r.late(ctx, out.err, allowed)
	case sig := <-signals:
		cancel()
		ended = &Error{Op: r.call.Env.Action, Found: fmt.Sprintf("ended by signal %v%s", sig, r.whileWaiting())}
	case <-ctx.Done():
		ended = r.timedOut(allowed, nil)
	}
	timer := time.NewTimer(unwind(keep))
	defer timer.Stop()
	select {
	case out := <-done:
		if out.err == nil {
			return out.state, nil // finished at the last moment: what was done is done
		}
		// The handler's own words name the holder better than the driver can.
		if specific(out.err) {
			return out.state, out.err
		}
		ended.Err = told(out.err)
		return Stopped, ended
	case <-timer.C:
		return Stopped, ended
	}
}

// late puts what the action was waiting for before an error of the handler that came of the
// deadline, which knows at most which tool or call was cut off.
func (r *run) late(ctx context.Context, err error, allowed time.Duration) error {
	if err != nil && ctx.Err() != nil && !specific(err) {
		return r.timedOut(allowed, err)
	}
	return err
}

// specific: an *Error was worded by the agent; an error of the context was not.
func specific(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// told is err, unless it is the bare error of a context, which says nothing more.
func told(err error) error {
	if err == context.DeadlineExceeded || err == context.Canceled { //nolint:errorlint // a wrapped one says what was cut off
		return nil
	}
	return err
}

func (r *run) timedOut(allowed time.Duration, cause error) *Error {
	return &Error{
		Op: r.call.Env.Action, Found: fmt.Sprintf("not finished after %v%s", allowed.Round(100*time.Millisecond), r.whileWaiting()),
		Err: told(cause), Do: "remove what holds it, or raise the action's timeout",
	}
}

func (r *run) whileWaiting() string {
	if w := r.call.waitingFor(); w != "" {
		return ", waiting for " + w
	}
	return ""
}

// classify gives an error that the agent left unclassified the kind that its cause speaks of: a
// tool that is not there, a right that is missing.
func (r *run) classify(err error) error {
	if err == nil || KindOf(err) != Failed {
		return err
	}
	var tool interface{ NotInstalled() bool }
	switch {
	// Pacemaker takes code 5 of a probe for "not running", and a missing tool alone proves nothing.
	case !r.monitors() && errors.As(err, &tool) && tool.NotInstalled():
		return &Error{Kind: NotInstalled, Err: err}
	case r.host.Unprivileged && errors.Is(err, fs.ErrPermission):
		return &Error{Kind: NoPermission, Err: err, Do: "run it as root"}
	}
	return err
}

func (r *run) monitors() bool {
	return r.call.Env.Action == "monitor" || r.call.Env.Action == "status"
}

// internal runs a helper of the agent: no contract, no deadline, only an exit code.
func (r *run) internal(f func(ctx context.Context, c *Call, args []string) error) int {
	r.caller = Cluster
	r.values = r.environ.parameters()
	r.call = r.newCall(invocation{action: r.host.Args[0]})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := f(ctx, r.call, r.host.Args[1:]); err != nil {
		r.call.Log.Error(err.Error())
		return codeGeneric
	}
	return codeSuccess
}

// answer tells the outcome in the caller's way and gives the exit code.
func (r *run) answer(state State, err error) int {
	action := r.call.Env.Action
	err = r.classify(err)
	if action == "status" && KindOf(err) != Unimplemented {
		words, code := statusWords(state, err)
		fmt.Fprintln(r.host.Stdout, words)
		if err != nil {
			r.fail(err)
		}
		if r.caller == Heartbeat {
			return code
		}
	}
	if err != nil {
		return r.fail(err)
	}
	if !r.monitors() {
		r.say(action + ": done")
		return codeSuccess
	}
	if failure(state, r.call.Env.Probe) {
		note := r.call.noted()
		if note == "" {
			note = "found " + state.String()
		}
		r.tell(note)
		return state.code()
	}
	r.say(state.String())
	return state.code()
}

// failure: what a recurring monitor must not find, and what no monitor must.
func failure(state State, probe bool) bool {
	switch state {
	case Stopped:
		return !probe
	case FailedPromoted, DegradedRunning, DegradedPromoted:
		return true
	case Running, Promoted:
		return false
	}
	return true
}

// say tells a person what was found; a cluster's log needs none of it.
func (r *run) say(what string) {
	if r.caller != Hand {
		return
	}
	if note := r.call.noted(); note != "" {
		what += " (" + note + ")"
	}
	fmt.Fprintln(r.host.Stdout, oneLine(r.call.Env.Instance+": "+what))
}

// fail tells the error once as exit reason and once in the log.
func (r *run) fail(err error) int {
	r.tell(err.Error())
	return KindOf(err).code()
}

// tell writes the exit reason and the line of the log.
func (r *run) tell(text string) {
	if r.caller == Heartbeat {
		text = strings.Replace(text, Recovered, unwatched, 1)
	}
	r.reason("%s", text)
	if r.caller != Hand {
		r.call.Log.Error(text)
	}
}

// reason writes the one line that Pacemaker keeps: the text after the last ocf-exit-reason: on
// standard error, cut at 128 characters there.
func (r *run) reason(format string, args ...any) {
	text := shorten(oneLine(fmt.Sprintf(format, args...)), maxLine)
	fmt.Fprintf(r.host.Stderr, "%s%s\n", r.prefix, unforged(text, r.prefix))
}
