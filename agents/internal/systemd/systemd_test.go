package systemd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/command"
)

// fakeInit is a model of a machine's units that answers as systemctl 252 does.
type fakeInit struct {
	units map[string]Unit
	fail  error
}

func (f *fakeInit) Run(_ context.Context, name string, args ...string) (command.Result, error) {
	if f.fail != nil {
		return command.Result{}, f.fail
	}
	at := 0
	for i, a := range args {
		if a == "--" {
			at = i + 1
		}
	}
	if name != "systemctl" || at == 0 || at == len(args) {
		return command.Result{}, errors.New("unexpected call: " + name + " " + strings.Join(args, " "))
	}
	var out strings.Builder
	for i, unit := range args[at:] {
		u, ok := f.units[unit]
		switch {
		case args[0] == "start" && ok:
			u.Active, u.Sub = "active", "running"
		case args[0] == "stop" && ok:
			u.Active, u.Sub = "inactive", "dead"
		case args[0] == "show" && !ok:
			u = Unit{Load: "not-found", Active: "inactive", Sub: "dead"}
		case args[0] == "show":
		default:
			return command.Result{}, &command.Error{Argv: append([]string{name}, args...), Code: 5}
		}
		if ok {
			f.units[unit] = u
		}
		if args[0] == "show" {
			if i > 0 {
				out.WriteString("\n")
			}
			out.WriteString("MainPID=0\nLoadState=" + u.Load + "\nActiveState=" + u.Active + "\nSubState=" + u.Sub + "\nUnitFileState=" + u.File + "\n")
		}
	}
	return command.Result{Stdout: []byte(out.String())}, nil
}

func debian() *fakeInit {
	return &fakeInit{units: map[string]Unit{
		"nfs-server.service": {Load: "loaded", Active: "active", Sub: "exited", File: "enabled"},
		"nfsdcld.service":    {Load: "loaded", Active: "inactive", Sub: "dead", File: "static"},
		"drbd.service":       {Load: "masked", Active: "inactive", Sub: "dead", File: "masked"},
	}}
}

func TestShowAnswersInTheOrderAsked(t *testing.T) {
	m := Manager{Runner: debian()}
	units, err := m.Show(t.Context(), "nfsdcld.service", "no-such.service", "nfs-server.service", "drbd.service")
	require.NoError(t, err)
	require.Equal(t, []Unit{
		{Name: "nfsdcld.service", Load: "loaded", Active: "inactive", Sub: "dead", File: "static"},
		{Name: "no-such.service", Load: "not-found", Active: "inactive", Sub: "dead"},
		{Name: "nfs-server.service", Load: "loaded", Active: "active", Sub: "exited", File: "enabled"},
		{Name: "drbd.service", Load: "masked", Active: "inactive", Sub: "dead", File: "masked"},
	}, units)
	require.True(t, units[2].Enabled() && units[2].Running() && units[2].Exists())
	require.False(t, units[0].Enabled() || units[0].Running())
	require.False(t, units[1].Exists())
	require.False(t, units[3].Enabled())
}

func TestStartAndStopChangeTheUnit(t *testing.T) {
	init := debian()
	m := Manager{Runner: init}
	require.NoError(t, m.Start(t.Context(), "nfsdcld.service"))
	require.Equal(t, "active", init.units["nfsdcld.service"].Active)
	require.NoError(t, m.Stop(t.Context(), "nfsdcld.service"))
	require.Equal(t, "inactive", init.units["nfsdcld.service"].Active)

	err := m.Start(t.Context(), "no-such.service")
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, 5, command.Code(e.Err))
	require.ErrorContains(t, err, "systemctl start no-such.service")
}

func TestASilentSystemdIsAnErrorAndNoAnswer(t *testing.T) {
	_, err := Manager{Runner: &fakeInit{fail: context.DeadlineExceeded}}.Show(t.Context(), "a.service")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestParseShow(t *testing.T) {
	cases := map[string]struct {
		text string
		want []Unit
	}{
		"empty":            {"", nil},
		"no end of line":   {"LoadState=loaded", []Unit{{Load: "loaded"}}},
		"unknown property": {"Property=x\nLoadState=loaded\nMainPID=17\n", []Unit{{Load: "loaded", MainPID: 17}}},
		"junk":             {"nonsense\n\n\nSubState=dead\r\n\n", []Unit{{Sub: "dead"}}},
		"value with equal": {"SubState=a=b\n", []Unit{{Sub: "a=b"}}},
		"bad pid":          {"MainPID=soon\nLoadState=loaded\n", []Unit{{Load: "loaded"}}},
	}
	for name, c := range cases {
		require.Equal(t, c.want, parseShow(c.text), name)
	}
}

func TestPresentAndStartedAtBootReadFilesOnly(t *testing.T) {
	root := t.TempDir()
	m := Manager{Root: root, Runner: &fakeInit{fail: errors.New("no child may be started")}}
	require.False(t, m.Present())
	require.NoError(t, os.MkdirAll(filepath.Join(root, "run/systemd/system"), 0o755))
	require.True(t, m.Present())

	etc := filepath.Join(root, "etc/systemd/system")
	wants := filepath.Join(etc, "multi-user.target.wants")
	require.NoError(t, os.MkdirAll(wants, 0o755))
	for _, unit := range []string{"nfs-server.service", "drbd.service"} {
		require.NoError(t, os.Symlink("/lib/systemd/system/"+unit, filepath.Join(wants, unit)))
	}
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(etc, "drbd.service")))
	found, err := m.StartedAtBoot("nfs-server.service", "drbd.service", "rpcbind.socket")
	require.NoError(t, err)
	require.Equal(t, []string{"nfs-server.service"}, found)
}

func FuzzParseShow(f *testing.F) {
	f.Add("MainPID=0\nLoadState=loaded\n\nLoadState=not-found\n")
	f.Fuzz(func(_ *testing.T, text string) { parseShow(text) })
}
