package lab

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/tests/lab/internal/record"
)

// What labtool's logs are made of, under names that tests can use.
type (
	// Log is what a job noted, in order.
	Log = record.Log
	// Entry is one line of it.
	Entry = record.Entry
	// Gap is a time without an acknowledgement.
	Gap = record.Gap
)

// The kinds of entries.
const (
	OK   = record.OK
	Fail = record.Fail
	Note = record.Note
)

// Job is a labtool command that runs in the background of a machine.
type Job struct {
	m    *Machine
	name string
	args string
}

// jobDir lies in memory: a job's log costs the machine's disk nothing.
const jobDir = "/run/lab"

// Spawn starts `labtool ARGS` in the machine's background under a name of its
// own; args is a shell command line, for example "ping -to 192.0.2.50 -every
// 50ms". The job's log is in memory: it dies with the machine.
func (m *Machine) Spawn(ctx context.Context, name, args string) (*Job, error) {
	j := &Job{m: m, name: name, args: args}
	_, err := m.Run(ctx, "mkdir -p %[1]s && cd / && { setsid %[2]s %[3]s >%[1]s/%[4]s.log 2>%[1]s/%[4]s.err </dev/null & echo $! >%[1]s/%[4]s.pid; }", jobDir, toolPath, args, name)
	if err != nil {
		return nil, err
	}
	m.lab.Timeline.Add("%s: %s starts: %s", m.Name, name, args)
	return j, nil
}

// Tool starts a job, fails the test if that fails, and ends the job with it.
func (m *Machine) Tool(t testing.TB, name, args string) *Job {
	t.Helper()
	j, err := m.Spawn(t.Context(), name, args)
	require.NoError(t, err)
	return j
}

// Log reads what the job has noted so far.
func (j *Job) Log(ctx context.Context) (Log, error) {
	out, err := j.m.Run(ctx, "cat %s/%s.log", jobDir, j.name)
	if err != nil {
		return nil, err
	}
	return record.Parse(out), nil
}

// Stop asks the job to end, waits until it has, and returns its log. A job
// that had ended by itself with a complaint is an error, with its words.
func (j *Job) Stop(ctx context.Context) (Log, error) {
	_, err := j.m.Run(ctx, `p=$(cat %[1]s/%[2]s.pid); kill $p 2>/dev/null; i=0; while kill -0 $p 2>/dev/null; do i=$((i+1)); if [ $i -gt 100 ]; then kill -9 $p; fi; sleep 0.1; done; true`, jobDir, j.name)
	if err != nil {
		return nil, err
	}
	said, err := j.m.Run(ctx, "cat %s/%s.err", jobDir, j.name)
	if err != nil {
		return nil, err
	}
	if said = strings.TrimSpace(said); said != "" {
		return nil, fmt.Errorf("%s: %s: %s", j.m.Name, j.name, said)
	}
	return j.Log(ctx)
}

// Logged is Log for tests.
func (j *Job) Logged(t testing.TB) Log {
	t.Helper()
	log, err := j.Log(t.Context())
	require.NoError(t, err)
	return log
}

// Stopped is Stop for tests.
func (j *Job) Stopped(t testing.TB) Log {
	t.Helper()
	log, err := j.Stop(t.Context())
	require.NoError(t, err)
	return log
}

// LogPath is the job's log in the machine, for `labtool check -log`.
func (j *Job) LogPath() string { return fmt.Sprintf("%s/%s.log", jobDir, j.name) }

// WaitOK waits until the job has an acknowledgement that is newer than a time.
func (j *Job) WaitOK(t testing.TB, since time.Time, within time.Duration) Entry {
	t.Helper()
	var found Entry
	Eventually(t, within, fmt.Sprintf("an answer to %s (%s) on %s", j.name, j.args, j.m.Name), func(ctx context.Context) (bool, string) {
		out, err := j.m.Run(ctx, "grep -F ' ok ' %s | tail -n 1; tail -n 1 %[1]s", j.LogPath())
		if err != nil {
			return false, err.Error()
		}
		for _, e := range record.Parse(out).Of(record.OK) {
			if e.Wall.After(since) {
				found = e
				return true, ""
			}
		}
		return false, strings.TrimSpace(out)
	})
	return found
}
