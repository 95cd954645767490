package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"baton/agents/internal/nfsconf"
	"baton/agents/internal/nfsexports"
	"baton/agents/internal/nfsproc"
	"baton/agents/internal/nfsscope"
	"baton/ocf"
)

// settings are what a call wants the server to be: the parameters, completed by nfs.conf.
type settings struct {
	state    string // directory of the state that travels
	scope    string // empty: the one kept in the state directory
	threads  int
	versions nfsproc.Versions
	ports    []nfsproc.Port // the server's own
	mountd   int            // ports of the helpers; 0: any
	statd    int
	statdOut int
	lockdTCP int
	lockdUDP int
	lease    time.Duration // 0: the kernel's
	grace    time.Duration
	maxGrace time.Duration // 0: never ended by us
	// hangTimeout is how long all threads may wait in the kernel; 0: for ever.
	hangTimeout time.Duration
	ips         []netip.Addr
	notify      bool
	retry       int
	pipefs      string
	tabDir      string // where exportfs keeps etab
	exports     []nfsexports.Export
	// local: exported directories may lie on the node's own disk.
	local bool
	// fromFiles says that exports are what /etc/exports held.
	fromFiles bool
}

func (w settings) v3() bool { return w.versions["3"] }

func (w settings) v4() bool { return w.versions["4.0"] || w.versions["4.1"] || w.versions["4.2"] }

// record is what a start with these settings leaves behind.
func (w settings) record() record {
	return record{Home: w.state, Exports: w.exports, FromFiles: w.fromFiles, Local: w.local, Versions: w.versions, Ports: w.ports}
}

// settings reads the parameters and nfs.conf, but not the exports, which only some actions need.
// An nfs.conf that cannot be read is an error for those that start something.
func (a *agent) settings() (settings, error) {
	conf, err := nfsconf.Read(a.sys.root)
	if err != nil {
		conf = nfsconf.Config{}
		err = &ocf.Error{Kind: ocf.NotInstalled, Object: "nfs.conf", Found: "cannot be read", Err: err, Do: "correct it on this node"}
	}
	p := a.Params
	w := settings{
		state:       a.state,
		scope:       p.String(parScope),
		threads:     number(p, parThreads, conf, "nfsd", "threads"),
		mountd:      number(p, parMountd, conf, "mountd", "port"),
		statd:       number(p, parStatd, conf, "statd", "port"),
		statdOut:    number(p, parStatdOut, conf, "statd", "outgoing-port"),
		lockdTCP:    number(p, parLockdTCP, conf, "lockd", "port"),
		lockdUDP:    number(p, parLockdUDP, conf, "lockd", "udp-port"),
		lease:       seconds(p, parLease, conf, "lease-time"),
		grace:       seconds(p, parGrace, conf, "grace-time"),
		maxGrace:    p.Seconds(parMaxGrace),
		hangTimeout: p.Seconds(parHang),
		ips:         addressList(p.String(parIP)),
		notify:      !p.Bool(parNoNotify),
		retry:       p.Int(parRetry),
		local:       p.Bool(parLocal),
		pipefs:      a.pipefs(conf),
		tabDir:      tabDir(conf),
		versions: nfsproc.Versions{
			"3":   !p.Bool(parV4Only) && boolean(p, parVers3, conf, "vers3"),
			"4.0": boolean(p, parVers40, conf, "vers4.0"),
			"4.1": boolean(p, parVers41, conf, "vers4.1"),
			"4.2": boolean(p, parVers42, conf, "vers4.2"),
		},
	}
	port := number(p, parPort, conf, "nfsd", "port")
	if port == 0 {
		port = 2049 // "port=0" of nfs.conf means the default
	}
	if boolean(p, parTCP, conf, "tcp") {
		w.ports = append(w.ports, nfsproc.Port{Transport: "tcp", Number: port})
	}
	if w.v3() && boolean(p, parUDP, conf, "udp") {
		w.ports = append(w.ports, nfsproc.Port{Transport: "udp", Number: port})
	}
	return w, err
}

// number is the parameter where given, else the setting of nfs.conf, else the parameter's default.
func number(p ocf.Params, name string, conf nfsconf.Config, section, key string) int {
	if !p.IsSet(name) {
		if n, ok := conf.Int(section, key); ok && n > 0 && n <= 65535 {
			return n
		}
	}
	return p.Int(name)
}

func boolean(p ocf.Params, name string, conf nfsconf.Config, key string) bool {
	if !p.IsSet(name) {
		if on, ok := conf.Bool("nfsd", key); ok {
			return on
		}
	}
	return p.Bool(name)
}

// The bounds of __nfsd4_write_time in fs/nfsd/nfsctl.c.
const minLease, maxLease = 10 * time.Second, time.Hour

func seconds(p ocf.Params, name string, conf nfsconf.Config, key string) time.Duration {
	if !p.IsSet(name) {
		if n, ok := conf.Int("nfsd", key); ok {
			return min(max(time.Duration(n)*time.Second, minLease), maxLease)
		}
	}
	return p.Seconds(name)
}

// pipefs is where nfsdcld looks for rpc_pipefs. Debian builds it with /run/rpc_pipefs written into
// its nfs.conf; everybody else has /var/lib/nfs/rpc_pipefs.
func (a *agent) pipefs(conf nfsconf.Config) string {
	if dir := a.Params.String(parPipefs); dir != "" {
		return dir
	}
	if dir, ok := conf.Get("general", "pipefs-directory"); ok && filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	if info, err := os.Lstat(filepath.Join(a.sys.root, "run/rpc_pipefs")); err == nil && info.IsDir() {
		return "/run/rpc_pipefs"
	}
	return "/var/lib/nfs/rpc_pipefs"
}

// tabDir is where exportfs and mountd keep etab: both read the same two settings (main in
// nfs-utils utils/exportfs/exportfs.c).
func tabDir(conf nfsconf.Config) string {
	for _, section := range []string{"mountd", "exportd"} {
		if dir, ok := conf.Get(section, "state-directory-path"); ok && filepath.IsAbs(dir) {
			return filepath.Clean(dir)
		}
	}
	return "/var/lib/nfs"
}

func addressList(text string) []netip.Addr {
	var list []netip.Addr
	for _, word := range splitList(text) {
		if ip, err := netip.ParseAddr(word); err == nil {
			list = append(list, ip)
		}
	}
	return list
}

func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' })
}

// exports completes the settings by what is to be exported, with an fsid for each directory.
func (a *agent) exports(w *settings) error {
	list, given, err := paramExports(a.Params)
	if err == nil && !given {
		w.fromFiles = true
		list, _, err = nfsexports.ReadFiles(a.sys.root)
	}
	if err != nil {
		return &ocf.Error{Kind: w.exportsKind(), Object: "exports", Found: err.Error(), Do: "correct it" + w.exportsWhere()}
	}
	if err := nfsexports.Conflict(list); err != nil {
		return &ocf.Error{
			Kind: w.exportsKind(), Object: "exports", Found: err.Error(),
			Expected: "one fsid for each directory", Do: "correct it" + w.exportsWhere(),
		}
	}
	if len(list) == 0 {
		return &ocf.Error{
			Kind: w.exportsKind(), Object: "exports", Found: "no directory is exported",
			Do: "set exports, or directory and clientspec, or fill /etc/exports on both nodes",
		}
	}
	w.exports = nfsexports.Unique(nfsexports.WithFSIDs(list))
	return nil
}

// exportsKind: a parameter is wrong on every node, a file only on this one.
func (w settings) exportsKind() ocf.Kind {
	if w.fromFiles {
		return ocf.NotInstalled
	}
	return ocf.BadConfig
}

func (w settings) exportsWhere() string {
	if w.fromFiles {
		return " on this node"
	}
	return ""
}

// paramExports are the exports that the parameters name; given is false where they name none.
func paramExports(p ocf.Params) (list []nfsexports.Export, given bool, err error) {
	if text := p.String(parExports); text != "" {
		list, err := nfsexports.ParseList(parExports, text)
		return list, true, err
	}
	if !p.IsSet(parDir) {
		return nil, false, nil
	}
	options, err := nfsexports.SplitOptions(p.String(parOptions))
	if err != nil {
		return nil, true, err
	}
	clients := splitList(p.String(parClients))
	for i, dir := range strings.Fields(p.String(parDir)) {
		if err := nfsexports.CheckDir(dir); err != nil {
			return nil, true, err
		}
		opts := options
		if id := p.String(parFSID); id != "" {
			id, err := nthFSID(id, i)
			if err != nil {
				return nil, true, err
			}
			opts = append(append([]string{}, options...), "fsid="+id)
		}
		for _, client := range clients {
			if err := nfsexports.CheckClient(client); err != nil {
				return nil, true, err
			}
			list = append(list, nfsexports.Export{Dir: dir, Client: client, Options: opts})
		}
	}
	return list, true, nil
}

// nthFSID gives several directories consecutive ids, as ocf:heartbeat:exportfs does.
func nthFSID(id string, i int) (string, error) {
	if i == 0 {
		return id, nil
	}
	n, err := strconv.ParseUint(nfsexports.Normalize(id), 10, 32)
	if err != nil {
		return "", fmt.Errorf("fsid %s cannot be counted up for a second directory: give a number, or leave it out", id)
	}
	return strconv.FormatUint(n+uint64(i), 10), nil
}

// check looks at the parameters alone.
func check(c *ocf.Call) []ocf.Problem {
	var found []ocf.Problem
	bad := func(param, what, expected string) {
		found = append(found, ocf.Problem{Param: param, Kind: ocf.BadConfig, Found: what, Expected: expected, Do: "correct " + param})
	}
	p := c.Params
	for _, name := range []string{parState, parPipefs} {
		if dir := p.String(name); dir != "" && (!filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/") {
			bad(name, strconv.Quote(dir), "an absolute path in its simplest form, not /")
		}
	}
	switch {
	case p.IsSet(parExports) && p.IsSet(parDir):
		bad(parExports, "given together with directory", "one of the two")
	case p.IsSet(parDir) && !p.IsSet(parClients):
		bad(parClients, "no value given", "the clients that may mount directory")
	}
	if id := p.String(parFSID); id != "" && !nfsexports.ValidFSID(id) {
		bad(parFSID, strconv.Quote(id), "a number, root, or a UUID")
	} else if list, _, err := paramExports(p); err != nil {
		name := parExports
		if p.IsSet(parDir) {
			name = parDir
		}
		bad(name, err.Error(), "exports as in exports(5)")
	} else if err := nfsexports.Conflict(list); err != nil {
		bad(parExports, err.Error(), "one fsid for each directory")
	}
	if scope := p.String(parScope); len(scope) > nfsscope.MaxLen || strings.ContainsAny(scope, " \t") {
		bad(parScope, strconv.Quote(scope), "1 to 64 characters without blanks")
	}
	for _, word := range splitList(p.String(parIP)) {
		if _, err := netip.ParseAddr(word); err != nil {
			bad(parIP, strconv.Quote(word), "an IP address")
		}
	}
	if p.Bool(parV4Only) && p.Bool(parVers3) {
		bad(parVers3, "true together with nfsv4_only=true", "one of the two")
	}
	return append(found, checkVersions(p)...)
}

func checkVersions(p ocf.Params) []ocf.Problem {
	v4 := p.Bool(parVers40) || p.Bool(parVers41) || p.Bool(parVers42)
	switch {
	case !v4 && !p.Bool(parVers3):
		return []ocf.Problem{{
			Param: parVers42, Kind: ocf.BadConfig, Found: "every version of NFS is switched off",
			Expected: "at least one", Do: "set vers4_2=true",
		}}
	case v4 && !p.Bool(parTCP):
		return []ocf.Problem{{
			Param: parTCP, Kind: ocf.BadConfig, Found: "false with NFSv4 on", Expected: "true", Do: "NFSv4 has no UDP: set tcp=true",
		}}
	}
	return nil
}
