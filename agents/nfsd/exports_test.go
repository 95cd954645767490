package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"baton/agents/internal/nfsexports"
	"baton/agents/internal/nfsproc"
)

// program puts a shell script into the PATH; $root is the machine's root.
func (m *machine) program(name, script string) {
	m.t.Helper()
	m.write("bin/"+name, "#!/bin/sh\nroot='"+m.root+"'\n"+script)
	require.NoError(m.t, os.Chmod(filepath.Join(m.root, "bin", name), 0o755))
}

// exportfs plays the tool of nfs-utils 2.6.2: names of hosts are written in full, one that does not
// resolve is told on stderr and passed over, also where it stood in the table, and the exit code
// is 0 all the same.
func (m *machine) exportfs() {
	m.t.Helper()
	m.write("unresolved", "")
	m.program("exportfs", `
tab=$root/var/lib/nfs/etab
[ -e "$tab" ] || { echo "exportfs: can't open $tab for reading" >&2; exit 1; }
resolve() {
	if grep -qx "$1" "$root/unresolved"; then
		echo "exportfs: Failed to resolve $1" >&2
		return 1
	fi
	case $1 in alias) echo c1.example.com ;; c[0-9]) echo "$1.example.com" ;; *) echo "$1" ;; esac
}
while read -r dir rest; do
	client=${rest%%(*}
	resolve "${client%%.example.com}" >/dev/null && printf '%s\t%s\n' "$dir" "$rest"
done <"$tab" >"$tab.new"
mv "$tab.new" "$tab"
has() { cut -d'(' -f1 "$tab" | grep -qxF "$1	$2"; }
drop() { while read -r line; do case $line in "$1	$2("*) ;; *) printf '%s\n' "$line" ;; esac; done <"$tab" >"$tab.new"; mv "$tab.new" "$tab"; }
if [ "$1" = -u ]; then
	name=$(resolve "${3%%:*}" 2>/dev/null) || name=${3%%:*}
	has "${3#*:}" "$name" || { echo "exportfs: Could not find '$3' to unexport." >&2; exit 1; }
	drop "${3#*:}" "$name"
	exit 0
fi
opts=$3
shift 4
for arg; do
	name=$(resolve "${arg%%:*}") || continue
	drop "${arg#*:}" "$name"
	printf '%s\t%s(%s)\n' "${arg#*:}" "$name" "$opts" >>"$tab"
done
`)
	m.t.Setenv("PATH", filepath.Join(m.root, "bin")+":"+os.Getenv("PATH"))
}

func (m *machine) recorded() record {
	m.t.Helper()
	var r record
	require.NoError(m.t, json.Unmarshal([]byte(m.read(recordPlace)), &r))
	return r
}

func clientsOf(list []nfsexports.Export) (clients []string) {
	for _, e := range list {
		clients = append(clients, e.Client)
	}
	return clients
}

// startable is a machine on which a start gets as far as the server's port, which is taken.
func startable(t *testing.T) (m *machine, env []string) {
	t.Helper()
	taken, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	m = newMachine(t)
	m.exportfs()
	table := m.read("proc/self/mountinfo")
	m.write("proc/self/mountinfo", table+"43 28 0:30 / "+m.root+"/proc/fs/nfsd rw - nfsd none rw\n"+
		"44 28 0:31 / "+m.root+"/run/rpc_pipefs rw - rpc_pipefs none rw\n")
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "data/share"), 0o755))
	m.write("proc/fs/nfsd/threads", "0\n")
	m.write("proc/fs/nfsd/versions", "-3 +4 +4.1 +4.2\n")
	m.write("proc/fs/nfsd/portlist", "")
	// A daemon is a real process, which can be ended, and leaves the table then.
	const daemon = `
(dir=$root/proc/$(exec sh -c 'echo $PPID'); trap 'rm "$dir/stat"; rm -rf "$dir"; exit' TERM; touch "$root/ready.$name"; while [ -e "$root/ready.$name" ]; do sleep 0.02; done) >/dev/null 2>&1 &
dir=$root/proc/$!
mkdir -p "$dir/fd"
echo "$name" >"$dir/comm"
echo "$! ($name) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99000 0 0" >"$dir/stat"
printf '%s\0' "$name" >"$dir/cmdline"
printf '` + markName + `=/data/.nfs\0' >"$dir/environ"
`
	m.program("nfsdcld", "name=nfsdcld"+daemon+`ln -s "$root/data/.nfs/nfsdcld/main.sqlite" "$dir/fd/3"; ln -s anon_inode:inotify "$dir/fd/4"`+"\n")
	m.program("rpc.mountd", "name=rpc.mountd"+daemon+`ln -s "$root/proc/net/rpc/nfsd.fh/channel" "$dir/fd/3"`+"\n")
	return m, []string{
		"OCF_RESKEY_nfs_server_scope=x", "OCF_RESKEY_rpcpipefs_dir=/run/rpc_pipefs",
		fmt.Sprintf("OCF_RESKEY_port=%d", taken.Addr().(*net.TCPAddr).Port),
	}
}

func TestAClientWhoseNameDoesNotResolveIsNoReasonNotToStart(t *testing.T) {
	m, env := startable(t)
	m.write("unresolved", "c9\n")
	got := m.run("start", append(env, "OCF_RESKEY_exports=/data/share c1(rw,fsid=1) c9(rw,fsid=1)")...)
	require.Contains(t, got.reason, "is in use", "the exports were passed: %s", got.output)
	require.Equal(t, 1, strings.Count(m.read("log"), "/data/share is not exported to c9: exportfs did not take it, for its name does not resolve"))

	got = m.run("start", append(env, "OCF_RESKEY_exports=/data/share c9(rw,fsid=1)")...)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.reason, "export of /data/share: exportfs took none of its clients: c9", got.output)
	require.NoFileExists(t, filepath.Join(m.root, recordPlace))
}

func TestAnExportMayLieOnTheNodesOwnDiskOnPurpose(t *testing.T) {
	m, env := startable(t)
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "srv/share"), 0o755))
	env = append(env, "OCF_RESKEY_exports=/srv/share *(rw,fsid=1); /data/share *(rw)")
	got := m.run("start", env...)
	require.Contains(t, got.reason, "exported directory /srv/share: lies on the node's own disk")
	got = m.run("start", append(env, "OCF_RESKEY_local_exports=true")...)
	require.Contains(t, got.reason, "is in use", got.output)
}

func TestAReloadByHandKnowsThatExportsMayBeLocal(t *testing.T) {
	m := newMachine(t)
	m.exportfs()
	m.serving()
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "srv/share"), 0o755))
	m.write("etc/exports", "/srv/share *(rw,fsid=1)\n")
	m.record(record{FromFiles: true})
	reload := []string{"reload-agent", "-o", "nfs_shared_infodir=/data/.nfs"}
	require.Contains(t, m.byHand(reload...).output, "lies on the node's own disk")
	m.record(record{FromFiles: true, Local: true})
	got := m.byHand(reload...)
	require.Equal(t, 0, got.code, got.output)
	require.True(t, m.recorded().Local)
}

func TestKerberosWithoutItsDaemonIsToldByValidateAndStart(t *testing.T) {
	const told = "export of /data/share: asks for Kerberos, and neither rpc.svcgssd nor gssproxy runs on this node"
	for name, c := range map[string]struct {
		export, daemon string
		told           bool
	}{
		"no Kerberos":    {"*(rw,sec=sys)", "", false},
		"krb5p":          {"*(rw,sec=sys:krb5p)", "", true},
		"as a client":    {"gss/krb5i(rw)", "", true},
		"with svcgssd":   {"*(rw,sec=krb5)", "rpc.svcgssd", false},
		"with gssproxy":  {"*(rw,sec=krb5)", "gssproxy", false},
		"another daemon": {"*(rw,sec=krb5)", "rpc.gssd", true},
	} {
		t.Run(name, func(t *testing.T) {
			m, env := startable(t)
			if c.daemon != "" {
				m.process(50, 1, c.daemon, "S", c.daemon+"\x00", "")
			}
			env = append(env, "OCF_RESKEY_exports=/data/share "+c.export)
			m.write("log", "")
			require.Equal(t, 0, m.run("validate-all", env...).code)
			require.Equal(t, c.told, strings.Contains(m.read("log"), told))
			m.write("log", "")
			require.Contains(t, m.run("start", env...).reason, "is in use")
			require.Equal(t, c.told, strings.Contains(m.read("log"), told))
		})
	}
}

func TestAStateDirectoryThatClientsReachIsToldByValidateAndStart(t *testing.T) {
	for dir, told := range map[string]bool{"/data": true, "/data/.nfs": true, "/link": true, "/data/share": false, "/data/.nf": false} {
		t.Run(dir, func(t *testing.T) {
			m, env := startable(t)
			for _, d := range []string{"data/.nfs", "data/.nf"} {
				require.NoError(t, os.MkdirAll(filepath.Join(m.root, d), 0o755))
			}
			require.NoError(t, os.Symlink(filepath.Join(m.root, "data"), filepath.Join(m.root, "link")))
			env = append(env, "OCF_RESKEY_exports="+dir+" *(rw)")
			words := "nfs_shared_infodir: lies in the exported directory " + dir
			m.write("log", "")
			require.Equal(t, 0, m.run("validate-all", env...).code)
			require.Equal(t, told, strings.Contains(m.read("log"), words))
			m.write("log", "")
			require.Contains(t, m.run("start", env...).reason, "is in use")
			require.Equal(t, told, strings.Contains(m.read("log"), words))
		})
	}
}

func TestTheMonitorExpectsWhatExportfsTookAndNothingElse(t *testing.T) {
	m := newMachine(t)
	m.exportfs()
	m.write("unresolved", "c9\n")
	const param = "/data/share c1(rw,fsid=1) c9(rw,fsid=1) alias(rw,fsid=1) c1(rw,fsid=1)"
	a := system{root: m.root}.agent(callWith(t, m, "exports="+param))
	w, err := a.settings()
	require.NoError(t, err)
	require.NoError(t, a.exports(&w))
	require.NoError(t, a.export(t.Context(), w))
	require.NoError(t, a.settle(&w))
	m.serving()
	m.write("var/lib/nfs/etab", "/data/share\tc1.example.com(rw,fsid=1)\n")
	m.record(w.record())
	require.Equal(t, []string{"c1"}, clientsOf(m.recorded().Exports))

	got := m.run("monitor", recurring, "OCF_RESKEY_exports="+param)
	require.Equal(t, 0, got.code, got.output)
	m.write("var/lib/nfs/etab", "")
	got = m.run("monitor", recurring, "OCF_RESKEY_exports="+param)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.reason, "not exported any more: /data/share to c1")
}

func TestAReloadTakesInAClientWhoseNameResolvesAgain(t *testing.T) {
	m := newMachine(t)
	m.exportfs()
	m.serving()
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "data/share"), 0o755))
	const param = "OCF_RESKEY_exports=/data/share c1(rw,fsid=1) c9(rw,fsid=1)"
	e := func(client string) nfsexports.Export {
		return nfsexports.Export{Dir: "/data/share", Client: client, Options: []string{"rw", "fsid=1"}}
	}
	m.write("var/lib/nfs/etab", "/data/share\tc1.example.com(rw,fsid=1)\n")
	m.record(record{
		Exports: []nfsexports.Export{e("c1")}, Versions: nfsproc.Versions{"3": false, "4.0": true, "4.1": true, "4.2": true},
		Ports: []nfsproc.Port{{Transport: "tcp", Number: 2049}},
	})
	reload := func(param string) answer {
		t.Helper()
		got := m.run("reload-agent", param)
		require.Equal(t, 0, m.run("monitor", recurring, param).code)
		return got
	}
	m.write("unresolved", "c9\n")
	got := reload(param)
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, []string{"c1"}, clientsOf(m.recorded().Exports))

	m.write("unresolved", "")
	got = reload(param)
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, []string{"c1", "c9"}, clientsOf(m.recorded().Exports))
	require.Contains(t, m.read("var/lib/nfs/etab"), "c9.example.com")

	// The host is gone, first from the DNS, then from the configuration.
	m.write("unresolved", "c9\n")
	got = reload("OCF_RESKEY_exports=/data/share c1(rw,fsid=1)")
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, "/data/share\tc1.example.com(rw,fsid=1)\n", m.read("var/lib/nfs/etab"))

	got = reload("OCF_RESKEY_exports=/data/share alias(rw,fsid=1)")
	require.Equal(t, 0, got.code, got.output)
	require.Equal(t, "/data/share\tc1.example.com(rw,fsid=1)\n", m.read("var/lib/nfs/etab"), "another name of the same host is not withdrawn")

	m.write("unresolved", "c8\n")
	got = reload("OCF_RESKEY_exports=/data/share c8(rw,fsid=1)")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.reason, "exportfs took none of its clients: c8")
	require.Equal(t, []string{"alias"}, clientsOf(m.recorded().Exports), "what was in effect still is")
}
