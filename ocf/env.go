package ocf

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"baton/metadata"
)

// Caller is who started the agent. It decides how results are told.
type Caller int

const (
	// Cluster is Pacemaker, drbd-reactor, ocf-tester: anyone who sets the OCF environment.
	Cluster Caller = iota
	// Heartbeat is heartbeat's ResourceManager in haresources mode.
	Heartbeat
	// Hand is a person or script without the OCF environment.
	Hand
)

// defaultRscTmp is HA_RSCTMP of resource-agents on every current distribution (ocf-directories);
// it lies on a tmpfs, so records in it end with the boot they speak of.
const defaultRscTmp = "/run/resource-agents"

// Env is what the caller said, apart from the parameters.
type Env struct {
	Caller   Caller
	Action   string
	Instance string // OCF_RESOURCE_INSTANCE; "vip:0" for an instance of a clone
	Type     string
	Provider string
	// Node is this node's name as the cluster knows it (CRM_meta_on_node); empty outside Pacemaker.
	Node string
	// Timeout is how long the caller waits (CRM_meta_timeout); 0 where it did not say.
	Timeout time.Duration
	// Interval is that of a recurring monitor; 0 otherwise.
	Interval time.Duration
	// Probe is a monitor that asks whether the resource happens to run: Pacemaker passes no interval then.
	Probe bool
	// CheckLevel is OCF_CHECK_LEVEL; LevelSet tells an explicit 0 from an absent one. An agent asks
	// whether it is at least 10 or at least 20: a level that it does not know means the next lower.
	CheckLevel int
	LevelSet   bool
	// Role is the role a recurring monitor was configured for, in the words of OCF 1.1.
	Role metadata.Role
	// RscTmp is the directory for records that must not outlive a boot (HA_RSCTMP).
	RscTmp string
	Clone  Clone
	// Notification is what the cluster said of its clone; empty lists without notify=true.
	Notification Notification
	log          logEnv
}

// Clone is what Pacemaker tells an instance of a clone. The zero value means: no clone.
type Clone struct {
	Max, NodeMax    int
	PromotedMax     int
	PromotedNodeMax int
	Notify          bool
	GloballyUnique  bool
}

// logEnv are the HA_* variables that ocf_log of resource-agents obeys.
type logEnv struct {
	facility string
	file     string
	date     string // HA_DATEFMT
	debug    bool
}

// environ is the environment as a map; the last definition of a name wins, as in libc's setenv.
type environ map[string]string

func newEnviron(list []string) environ {
	e := make(environ, len(list))
	for _, kv := range list {
		if name, value, ok := strings.Cut(kv, "="); ok {
			e[name] = value
		}
	}
	return e
}

const (
	resKey  = "OCF_RESKEY_"
	metaKey = "CRM_meta_"
	// traceKey is what `crm resource trace` sets on every kind of agent; shell agents write a trace
	// into the file traceFileKey then, these log their details.
	traceKey     = "trace_ra"
	traceFileKey = "trace_file"
)

func (e environ) meta(name string) string { return e[resKey+metaKey+name] }

// metaTwin reads a clone attribute under its OCF 1.1 name, else under its old one.
func (e environ) metaTwin(name, old string) string {
	if v, ok := e[resKey+metaKey+name]; ok {
		return v
	}
	return e.meta(old)
}

// parse fills the Env. What it cannot understand it leaves at its zero value: a cluster that
// says something odd about an interval must not keep a resource from stopping.
func (e environ) parse(action string, caller Caller) Env {
	env := Env{
		Caller:   caller,
		Action:   action,
		Instance: e["OCF_RESOURCE_INSTANCE"],
		Type:     e["OCF_RESOURCE_TYPE"],
		Provider: e["OCF_RESOURCE_PROVIDER"],
		Node:     e.meta("on_node"),
		Timeout:  millis(e.meta("timeout")),
		Interval: millis(e.meta("interval")),
		Role:     role(e.meta("role")),
		RscTmp:   e["HA_RSCTMP"],
		Clone: Clone{
			Max:             number(e.meta("clone_max")),
			NodeMax:         number(e.meta("clone_node_max")),
			PromotedMax:     number(e.metaTwin("promoted_max", "master_max")),
			PromotedNodeMax: number(e.metaTwin("promoted_node_max", "master_node_max")),
			Notify:          truth(e.meta("notify")),
			GloballyUnique:  truth(e.meta("globally_unique")),
		},
		Notification: e.notification(),
		log: logEnv{
			facility: e["HA_LOGFACILITY"],
			file:     e["HA_LOGFILE"],
			date:     e["HA_DATEFMT"],
			debug:    e["HA_debug"] != "" && e["HA_debug"] != "0" || truth(e[resKey+traceKey]),
		},
	}
	if env.log.facility == "" {
		env.log.facility = e["HA_logfacility"]
	}
	if env.log.file == "" {
		env.log.file = e["HA_logfile"]
	}
	if caller == Heartbeat && env.log.facility == "" && env.log.file == "" {
		// use_logd: heartbeat's own lines go through ha_logd, which writes to syslog as daemon
		// unless /etc/logd.cf says otherwise. Ours must not end in /dev/null.
		env.log.facility = "daemon"
	}
	if env.RscTmp == "" || !filepath.IsAbs(env.RscTmp) {
		env.RscTmp = defaultRscTmp
	}
	if level, err := strconv.Atoi(strings.TrimSpace(e["OCF_CHECK_LEVEL"])); err == nil && level >= 0 {
		env.CheckLevel, env.LevelSet = level, true
	}
	env.Probe = (action == "monitor" || action == "status") && env.Interval == 0
	return env
}

// parameters are the resource's own OCF_RESKEY_ values, without Pacemaker's.
func (e environ) parameters() map[string]string {
	params := map[string]string{}
	for name, value := range e {
		key, ok := strings.CutPrefix(name, resKey)
		if !ok || strings.HasPrefix(key, metaKey) || key == "crm_feature_set" {
			continue
		}
		params[key] = value
	}
	return params
}

// underCluster: Pacemaker sets all of these, drbd-reactor only OCF_ROOT and the instance.
func (e environ) underCluster() bool {
	for _, name := range []string{"OCF_ROOT", "OCF_RA_VERSION_MAJOR", "OCF_RESOURCE_INSTANCE"} {
		if e[name] != "" {
			return true
		}
	}
	return false
}

// role maps the names before OCF 1.1 (Master, Slave) to today's.
func role(word string) metadata.Role {
	switch word {
	case "Promoted", "Master":
		return metadata.Promoted
	case "Unpromoted", "Slave":
		return metadata.Unpromoted
	}
	return ""
}

// millis reads Pacemaker's plain milliseconds; a unit (ms, s) is accepted since people type it.
func millis(text string) time.Duration {
	text = strings.TrimSpace(text)
	const most = int(math.MaxInt64 / time.Millisecond)
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= most {
		return time.Duration(n) * time.Millisecond
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d
	}
	return 0
}

func number(text string) int {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// The truth words of ocf_is_true in resource-agents' ocf-shellfuncs, without regard to case,
// and their opposites.
var (
	trueWords  = []string{"yes", "true", "1", "ja", "on"}
	falseWords = []string{"no", "false", "0", "nein", "off"}
)

func truth(word string) bool {
	on, _ := parseBool(word)
	return on
}

func parseBool(word string) (bool, error) {
	for _, w := range trueWords {
		if strings.EqualFold(word, w) {
			return true, nil
		}
	}
	for _, w := range falseWords {
		if strings.EqualFold(word, w) {
			return false, nil
		}
	}
	return false, fmt.Errorf("%q is not a truth word", word)
}
