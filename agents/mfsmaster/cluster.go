package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/atomicfile"
	"baton/agents/internal/command"
	"baton/agents/internal/pacemaker"
	"baton/ocf"
)

// clusterLimit bounds one call of Pacemaker's tools.
const clusterLimit = 10 * time.Second

// tools are Pacemaker's, for this instance.
func (a *agent) tools() pacemaker.Tools {
	return pacemaker.Tools{Runner: a.run, Instance: a.call.Env.Instance, Node: a.call.Env.Node, Limit: clusterLimit}
}

// inCluster says that Pacemaker runs the agent. ocf-tester and heartbeat name no node.
func (a *agent) inCluster() bool { return a.call.Env.Caller == ocf.Cluster && a.call.Env.Node != "" }

// property is the cluster property with the history of this resource's file system.
func (a *agent) property() string {
	return "mfsmaster-" + pacemaker.BaseName(a.call.Env.Instance)
}

// exitNoSuch is crm_attribute's exit code for a property that is not set (CRM_EX_NOSUCH in
// Pacemaker's include/crm/common/results.h).
const exitNoSuch = 105

// known reads what the cluster has recorded. Outside a cluster it is what this node's own record
// says. A cluster that does not answer is an error: without its memory an old copy could pass for
// the newest.
func (a *agent) known(ctx context.Context) (history, error) {
	if !a.inCluster() {
		return a.recorded()
	}
	h, err := a.query(ctx)
	if err != nil {
		return history{}, err
	}
	if err := a.note(h); err != nil {
		a.call.Log.Debug(err.Error())
	}
	return h, nil
}

// query reads the cluster property.
func (a *agent) query(ctx context.Context) (history, error) {
	ctx, cancel := context.WithTimeout(ctx, clusterLimit)
	defer cancel()
	res, err := a.run.Run(ctx, "crm_attribute", "--type", "crm_config", "--name", a.property(), "--query", "--quiet")
	text := strings.TrimSpace(string(res.Stdout))
	if command.Code(err) == exitNoSuch {
		text, err = "", nil
	}
	var h history
	if err == nil {
		h, err = parseHistory(text)
	}
	if err != nil {
		return history{}, &ocf.Error{
			Object: "cluster property " + a.property(), Found: "cannot be read", Err: err,
			Expected: "the record of the metadata's history", Do: "check that the cluster answers (cibadmin -Q)",
		}
	}
	h.property = a.property()
	return h, nil
}

// record writes the history to the cluster, if it says anything new.
func (a *agent) record(ctx context.Context, h history) error {
	old, _ := a.recorded()
	h.property = a.property()
	if err := a.note(h); err != nil {
		a.call.Log.Debug(err.Error())
	}
	if !a.inCluster() || old == h {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clusterLimit)
	defer cancel()
	_, err := a.run.Run(ctx, "crm_attribute", "--type", "crm_config", "--name", a.property(), "--update", h.String())
	if err != nil {
		if f, ferr := a.recordFile("history"); ferr == nil {
			_ = os.Remove(f) // what the cluster holds is not known any more
		}
		return &ocf.Error{
			Object: "cluster property " + a.property(), Found: "cannot be written", Err: err,
			Do: "check that the cluster has quorum and answers",
		}
	}
	return nil
}

// note keeps a copy of the history for monitors, which seldom start a child. It ends with this boot.
func (a *agent) note(h history) error {
	if err := a.keep("history", h.String()); err != nil {
		return err
	}
	f, err := a.recordFile("history")
	if err != nil {
		return err
	}
	return os.Chtimes(f, time.Time{}, a.now())
}

func (a *agent) keep(what, text string) error {
	f, err := a.recordFile(what)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(f); err == nil && string(old) == text {
		return nil
	}
	return atomicfile.Write(f, []byte(text), 0o600)
}

func (a *agent) kept(what string) string {
	f, err := a.recordFile(what)
	if err != nil {
		return ""
	}
	data, err := os.ReadFile(f)
	if err != nil {
		return ""
	}
	return string(data)
}

// recordAge is how long ago this node has last read or written the cluster's record.
func (a *agent) recordAge() time.Duration { return a.keptAge("history") }

// keptAge is how long ago something else was kept last.
func (a *agent) keptAge(what string) time.Duration {
	f, err := a.recordFile(what)
	if err != nil {
		return 0
	}
	info, err := os.Stat(f)
	if err != nil {
		return 0
	}
	return a.now().Sub(info.ModTime())
}

func (a *agent) recordFile(what string) (string, error) {
	dir, err := a.call.Records()
	if err != nil {
		return "", err
	}
	name := strings.ReplaceAll(pacemaker.BaseName(a.call.Env.Instance), "/", "_")
	return filepath.Join(dir, "mfsmaster-"+name+"."+what), nil
}

// recorded is this node's copy of the history.
func (a *agent) recorded() (history, error) {
	h, err := parseHistory(a.kept("history"))
	if err != nil {
		return history{}, nil //nolint:nilerr // a damaged copy of this boot's record counts as none
	}
	h.property = a.property()
	return h, nil
}

// recalled is this node's copy of the history, or the cluster's where this node has none: what could
// not be written is not known until it has been read again.
func (a *agent) recalled(ctx context.Context) (history, error) {
	if a.kept("history") == "" {
		return a.known(ctx)
	}
	return a.recorded()
}

// ledger remembers what the cluster was told, so that monitors start a child on changes only.
func (a *agent) ledger() pacemaker.Ledger {
	boot, _ := pacemaker.BootID("/")
	executor, _ := pacemaker.Executor("/", os.Getppid())
	file, _ := a.recordFile("cluster")
	return pacemaker.Ledger{File: file, Boot: boot, Executor: executor, Now: a.now()}
}

// setScore publishes the promotion score; failing to do so is logged, and never fails an action.
func (a *agent) setScore(ctx context.Context, score int, force bool) {
	if !a.inCluster() {
		return
	}
	if _, err := a.tools().KeepScore(ctx, a.ledger(), score, force); err != nil {
		a.call.Log.Warn(err.Error())
	}
	if score > 0 {
		a.publish(ctx, copyAttribute, "")
	}
}

// notPromotable takes the promotion score away and shows why: nothing else tells an operator that the
// cluster does not even try to promote this node.
func (a *agent) notPromotable(ctx context.Context, why, brief string, force bool) {
	a.call.Log.Info("no promotion score: " + why)
	a.setScore(ctx, 0, force)
	a.publish(ctx, copyAttribute, brief)
}

// copyAttribute is the end of the name of the attribute.
const copyAttribute = "copy"

// publish sets a node attribute, or removes it where the value is empty; crm_mon -A shows it.
func (a *agent) publish(ctx context.Context, name, value string) {
	if !a.inCluster() || value == "" && a.ledger().Unset(a.property()+"-"+name) {
		return
	}
	if _, err := a.tools().KeepAttribute(ctx, a.ledger(), a.property()+"-"+name, value, false); err != nil {
		a.call.Log.Warn(err.Error())
	}
}

// The mark of a copy of the metadata: a file in its directory with the epoch that it belongs to.
const epochMark = ".baton-epoch"

func readEpoch(dir string) (uint64, error) {
	data, err := os.ReadFile(filepath.Join(dir, epochMark))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %.20q is no epoch", filepath.Join(dir, epochMark), data)
	}
	return n, nil
}

func writeEpoch(dir string, epoch uint64) error {
	return atomicfile.Write(filepath.Join(dir, epochMark), []byte(strconv.FormatUint(epoch, 10)+"\n"), 0o644)
}
