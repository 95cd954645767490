package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/mfsproto"
	"baton/agents/internal/process"
)

func TestTheStateTableOfTheProcess(t *testing.T) {
	const dir = "/data/mfs"
	info := mfsproto.Info{Version: mfsproto.Version{Major: 3, Patch: 117}, MetaVersion: 42, HasMetaVersion: true}
	master := process.Process{ID: process.ID{PID: 100}, Comm: "mfsmaster", State: 'S'}
	halted, waiting := master, master
	halted.State, waiting.State = process.Halted, process.Uninterruptible
	saver := process.Holder{Process: process.Process{ID: process.ID{PID: 101}, Args: []string{"mfsmaster (metadata saver)"}}}
	hang := errors.New("no answer on 127.0.0.1:9421 within 5s")
	for name, c := range map[string]struct {
		s    sighting
		want verdict
		says string
	}{
		"P0 nothing at all":             {sighting{free: 1}, absent, "no master runs"},
		"P1 serves":                     {sighting{master: 100, process: master, reply: answered, info: info, dataPath: dir}, serving, "version 42"},
		"P1 1.6 tells no directory":     {sighting{master: 100, process: master, reply: answered, info: info}, serving, ""},
		"P2 halted":                     {sighting{master: 100, process: halted, reply: silent, replyError: hang}, deaf, "stopped by a signal (T)"},
		"P2 in D state":                 {sighting{master: 100, process: waiting, reply: silent, replyError: hang}, deaf, "(D)"},
		"P2 hangs":                      {sighting{master: 100, process: master, reply: silent, replyError: hang}, deaf, "hangs: no answer"},
		"P2 loads":                      {sighting{master: 100, process: master, reply: refused, loading: true}, deaf, "is loading"},
		"P2 stuck, disk full":           {sighting{master: 100, process: master, reply: refused, free: 0}, deaf, "disk is full"},
		"P2 ports closed":               {sighting{master: 100, process: master, reply: refused, free: 1}, deaf, "closed its ports"},
		"P2 its address elsewhere":      {sighting{master: 100, process: master, reply: refused, elsewhere: true, replyError: errors.New("no interface"), free: 1}, deaf, "no interface"},
		"P2 another one on the port":    {sighting{master: 100, process: master, reply: answered, dataPath: "/other"}, deaf, "/other"},
		"P2 no master on the port":      {sighting{master: 100, process: master, reply: strange, replyError: hang}, deaf, "something else answers"},
		"P2 owner in another namespace": {sighting{master: -1, reply: silent, replyError: hang}, deaf, "pid -1"},
		"P3 writer's lock":              {sighting{writer: 5}, leftovers, "data writer's lock"},
		"P3 orphaned saver":             {sighting{ours: []process.Holder{saver}}, leftovers, "mfsmaster (metadata saver) (pid 101) is still there"},
		"P3 beats P4":                   {sighting{writer: 5, reply: answered, dataPath: "/other"}, leftovers, ""},
		"P4 another directory":          {sighting{reply: answered, dataPath: "/other"}, foreign, "/other"},
		"P4 our directory, no lock":     {sighting{reply: answered, dataPath: dir}, foreign, "none holds the lock"},
		"P4 no master":                  {sighting{reply: strange, replyError: hang}, foreign, "something else"},
		"P4 accepts and is silent":      {sighting{reply: silent, replyError: hang}, foreign, "does not answer"},
		"P0 with a shell in it":         {sighting{others: []process.Holder{{}}}, absent, ""},
	} {
		v, why := judge(c.s, dir)
		require.Equal(t, c.want, v, "%s: %s", name, why)
		require.Contains(t, why, c.says, name)
	}
}

func TestTheCauseIsFoundInWhatMfsmasterSays(t *testing.T) {
	for want, said := range map[string]string{
		"can't listen on 127.0.0.1:9421: EADDRINUSE (Address already in use)": "open files limit has been set to: 16384\nworking directory: /data\nlockfile created and locked\ninitializing mfsmaster modules ...\ncan't listen on 127.0.0.1:9421: EADDRINUSE (Address already in use)\ninit: main master server module failed !!!\nerror occurred during initialization - exiting\n",
		"can't find metadata.mfs - try using option '-a'":                     "working directory: /data\nloading metadata ...\ncan't find metadata.mfs - try using option '-a'\ninit: file system manager failed !!!\n",
		"nosuch: no such user !!!":                                            "nosuch: no such user !!!\n",
		"no words":                                                            "",
		"loading metadata ...":                                                "loading metadata ...\n",
		"loading storage classes data ... error: EINVAL":                      "loading metadata ...\nloading storage classes data ... error: EINVAL\nmore\n",
	} {
		require.Equal(t, want, cause(said))
	}
}

func TestEachVersionRecoversInItsWay(t *testing.T) {
	for said, want := range map[string]method{
		"version: 3.0.117-1 ; build: 1341\nusage: …": methodRestore,
		"version: 3.0.106-1 ; build: 1":              methodRestore,
		"version: 3.0.105-1 ; build: 1":              methodAuto,
		"version: 2.0.60-1":                          methodAuto,
		"version: 4.16.0-1 ; build: 1":               methodAuto,
		"version: 4.16.1-1 ; build: 1":               methodRestore,
		"version: 4.58.4-1 ; build: 3341":            methodRestore,
		"version: 1.6.27":                            methodLegacy,
		"version: 1.7.12":                            methodAuto,
	} {
		how, err := methodFor(said)
		require.NoError(t, err, said)
		require.Equal(t, want, how, said)
	}
	for _, said := range []string{"", "usage: mfsmaster", "version: ", "version: x.y", "version: 5.0.1-1", "version: 1.5.12", "version: 4.44.4 PRO ; build: 1", "version: 0.9.1"} {
		_, err := methodFor(said)
		require.Error(t, err, said)
	}
}
