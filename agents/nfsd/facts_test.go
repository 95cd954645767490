package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/nfsexports"
	"baton/agents/internal/nfsproc"
	"baton/agents/internal/process"
	"baton/ocf"
)

func daemon(pid int, name string, state process.State) process.Process {
	return process.Process{ID: process.ID{PID: pid, Start: 100}, Comm: name, State: state, Args: []string{name}}
}

func share() nfsexports.Export {
	return nfsexports.Export{Dir: "/data/share", Client: "*", Options: []string{"rw", "fsid=1"}}
}

// healthy is a server in order, and the settings it was started with.
func healthy() (facts, settings) {
	versions := nfsproc.Versions{"3": false, "4.0": true, "4.1": true, "4.2": true}
	f := facts{
		household: household{ours: []process.Process{daemon(10, "nfsdcld", 'S'), daemon(11, "rpc.mountd", 'S')}},
		mounted:   true, threads: 8, versions: versions,
		ports: []nfsproc.Port{{Transport: "tcp", Number: 2049}, {Transport: "tcp", Number: 2049}},
		table: []nfsexports.Export{share()}, pipe: true,
	}
	w := settings{
		state: "/data/.nfs", versions: versions, threads: 8,
		ports: []nfsproc.Port{{Transport: "tcp", Number: 2049}}, exports: []nfsexports.Export{share()},
	}
	return f, w
}

func TestJudgeNamesEachFault(t *testing.T) {
	cases := map[string]struct {
		change func(f *facts, w *settings)
		state  ocf.State
		fault  string
	}{
		"in order": {func(*facts, *settings) {}, ocf.Running, ""},
		"threads ended": {
			func(f *facts, _ *settings) { f.threads = 0 }, ocf.Stopped,
			"the server threads have ended, but there still is daemons",
		},
		"mountd killed": {
			func(f *facts, _ *settings) { f.ours = f.ours[:1] }, ocf.Stopped, "rpc.mountd has ended",
		},
		"nfsdcld killed": {
			func(f *facts, _ *settings) { f.ours = f.ours[1:] }, ocf.Stopped, "nfsdcld has ended",
		},
		"nfsdcld not needed for version 3 alone": {
			func(f *facts, w *settings) {
				f.ours = []process.Process{daemon(11, "rpc.mountd", 'S'), daemon(12, "rpc.statd", 'S')}
				f.versions, f.pipe = nfsproc.Versions{"3": true}, false
				w.versions = nfsproc.Versions{"3": true}
			}, ocf.Running, "",
		},
		"statd killed": {
			func(f *facts, w *settings) {
				v := nfsproc.Versions{"3": true, "4.0": true, "4.1": true, "4.2": true}
				f.versions, w.versions = v, v
			}, ocf.Stopped, "rpc.statd has ended",
		},
		"mountd halted": {
			func(f *facts, _ *settings) { f.ours[1].State = process.Halted }, ocf.Stopped,
			"rpc.mountd (pid 11) hangs: stopped by a signal (T)",
		},
		"version switched off": {
			func(f *facts, _ *settings) {
				f.versions = nfsproc.Versions{"4.0": true, "4.1": true, "4.2": false}
			}, ocf.Stopped, "NFSv4.2 is off, expected on",
		},
		"version switched on": {
			func(_ *facts, w *settings) {
				w.versions = nfsproc.Versions{"4.1": true, "4.2": true}
			}, ocf.Stopped, "NFSv4.0 is on, expected off",
		},
		"no socket": {
			func(f *facts, _ *settings) { f.ports = []nfsproc.Port{{Transport: "udp", Number: 2049}} }, ocf.Stopped,
			"the server does not listen on tcp port 2049",
		},
		"state directory read-only": {
			func(f *facts, _ *settings) { f.readOnly = "/data (ext4 on /dev/drbd0)" }, ocf.Stopped,
			"its state directory cannot be written any more: /data (ext4 on /dev/drbd0) is read-only",
		},
		"unexported by hand": {
			func(f *facts, _ *settings) { f.table = nil }, ocf.Stopped, "not exported any more: /data/share to *",
		},
		"another tracker": {
			func(f *facts, _ *settings) { f.pipe = false }, ocf.DegradedRunning,
			"the kernel does not keep its clients in the shared database",
		},
	}
	for name, c := range cases {
		f, w := healthy()
		c.change(&f, &w)
		v := judge(f, w, "daemons")
		require.Equal(t, c.state, v.state, name)
		require.Equal(t, c.fault, v.fault, name)
		require.Equal(t, c.fault == "", v.do == "", "%s: a fault comes with what to do", name)
	}
	f, w := healthy()
	require.Equal(t, verdict{state: ocf.Stopped}, judge(f, w, ""), "nothing left is stopped")
}

func TestGraceEndsOnlyWhenItHasLastedAndMay(t *testing.T) {
	for _, c := range []struct {
		ended            bool
		running, longest time.Duration
		want             bool
	}{
		{false, 11 * time.Second, 12 * time.Second, false},
		{false, 12 * time.Second, 12 * time.Second, true},
		{true, time.Hour, 12 * time.Second, false},
		{false, time.Hour, 0, false},
	} {
		require.Equal(t, c.want, graceEnds(c.ended, c.running, c.longest), "%+v", c)
	}
}

func TestNeededDaemonsFollowTheVersions(t *testing.T) {
	require.Equal(t, []string{"rpc.mountd", "nfsdcld"}, needed(nfsproc.Versions{"4.2": true}))
	require.Equal(t, []string{"rpc.mountd", "rpc.statd"}, needed(nfsproc.Versions{"3": true}))
}
