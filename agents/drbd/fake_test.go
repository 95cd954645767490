package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is the model behind the fake tools: one DRBD resource r0, the module, and the cluster's
// two records of it. Each fake tool is a process of its own that loads it, acts, and stores it
// together with the files that the kernel would show.
type machine struct {
	Version  string   // of the module; empty: not loaded
	Loadable string   // the version that modprobe loads; empty: modprobe fails
	Up       bool     // the resource is in the kernel
	CS       string   // connection state, as 8.4 prints it
	Peer     string   // the peer's role
	Roles    []string // by volume
	Disks    []string // by volume
	PeerDisk string
	OOS      int

	Reachable bool   // a connect finds the peer
	Attached  string // what a disk is after attaching
	Fencing   string
	Quorum    string // empty: off
	Third     string // the connection to a third node; empty: there is none (9)
	Syntax    bool   // a configuration file is broken
	Slow      int    // so many calls of drbdadm end in its own alarm, after they did half their work
	Open      bool   // the device is held open
	// Refuse makes `drbdsetup primary` fail with this number, Times times (-1: always).
	Refuse, Times int
	RefuseMinor   int // only this minor; -1: any
	Slack         int // so many secondaries end with "Timeout in operation" (9)
	Truncated     bool
	NoDebugfs     bool
	// Ghost is another resource on its way out: /proc/drbd still lists its minor, debugfs and the
	// driver's answers do not. It is gone after so many answers.
	Ghost int

	Cluster    string // "yes", "down" (exit 102), "hangs"
	Score      string
	Attribute  string
	PromotedOn string // crm_mon's answer
	PeerScore  string

	Calls []string

	root string
	lock *os.File
}

func fresh() *machine {
	return &machine{
		Loadable: "8.4.11", CS: "Connected", Peer: "Secondary", Roles: []string{"Secondary"}, Disks: []string{"UpToDate"},
		PeerDisk: "UpToDate", Reachable: true, Attached: "UpToDate", Fencing: "dont-care", RefuseMinor: -1, Cluster: "yes",
	}
}

func rootDir() string { return os.Getenv("FAKE_ROOT") }

func load(root string) *machine {
	m := fresh()
	m.root = root
	data, err := os.ReadFile(filepath.Join(root, "model.json"))
	if err == nil {
		err = json.Unmarshal(data, m)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		panic(err)
	}
	return m
}

func (m *machine) store() {
	data, err := json.MarshalIndent(m, "", " ")
	must(err)
	must(os.MkdirAll(m.root, 0o755))
	must(os.WriteFile(filepath.Join(m.root, "model.json"), data, 0o600))
	m.show()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (m *machine) legacy() bool { return strings.HasPrefix(m.Version, "8.") }

// show writes /proc/drbd and debugfs.
func (m *machine) show() {
	proc, debug := filepath.Join(m.root, "proc/drbd"), filepath.Join(m.root, "sys/kernel/debug/drbd")
	must(os.RemoveAll(proc))
	must(os.RemoveAll(debug))
	if m.Version == "" {
		return
	}
	text := "version: " + m.Version + " (api:1/proto:86-101)\n"
	for i := range m.Roles {
		if !m.Up || !m.legacy() {
			break
		}
		if m.CS == "StandAlone" && m.Disks[i] == "Diskless" && m.Roles[i] == "Secondary" {
			text += fmt.Sprintf("%2d: cs:Unconfigured\n", i)
		} else {
			text += fmt.Sprintf("%2d: cs:%s ro:%s/%s ds:%s/%s C r-----\n    ns:0 nr:0 oos:%d\n", i, m.CS, m.Roles[i], m.Peer, m.Disks[i], m.PeerDisk, m.OOS)
		}
		if !m.NoDebugfs {
			must(os.MkdirAll(filepath.Join(debug, "minors"), 0o755))
			must(os.Symlink(fmt.Sprintf("../resources/r0/volumes/%d", i), filepath.Join(debug, "minors", strconv.Itoa(i))))
		}
		must(os.MkdirAll(filepath.Join(m.root, "sys/block", fmt.Sprintf("drbd%d", i)), 0o755))
		must(os.WriteFile(filepath.Join(m.root, "sys/block", fmt.Sprintf("drbd%d", i), "diskseq"), []byte("1\n"), 0o600))
	}
	if m.Ghost > 0 && m.legacy() {
		text += " 7: cs:Unconfigured\n"
	}
	must(os.MkdirAll(filepath.Dir(proc), 0o755))
	must(os.WriteFile(proc, []byte(text), 0o600))
}

// fakeTool is the main function of every fake tool.
func fakeTool(name string) func() {
	return func() {
		// The agent runs two at the same time when it stops. The lock ends with the process.
		lock, err := os.OpenFile(filepath.Join(rootDir(), "model.lock"), os.O_CREATE|os.O_RDWR, 0o600)
		must(err)
		must(unix.Flock(int(lock.Fd()), unix.LOCK_EX))
		m := load(rootDir())
		m.lock = lock
		m.Calls = append(m.Calls, strings.Join(append([]string{name}, os.Args[1:]...), " "))
		var code int
		switch name {
		case "modprobe":
			code = m.modprobe()
		case "drbdsetup":
			code = m.drbdsetup(os.Args[1:])
		case "drbdadm":
			code = m.drbdadm(os.Args[1:])
		default:
			code = m.pacemaker(name, os.Args[1:])
		}
		m.store()
		os.Exit(code) //nolint:forbidigo // the main function of a fake tool
	}
}

func (m *machine) modprobe() int {
	if m.Loadable == "" {
		fmt.Fprintln(os.Stderr, "modprobe: FATAL: Module drbd not found in directory /lib/modules/x")
		return 1
	}
	if m.Version == "" {
		m.Version = m.Loadable
	}
	return 0
}

func refuse(number int, words string, code int) int {
	fmt.Fprintf(os.Stderr, "0: State change failed: (%d) %s\n", number, words)
	return code
}

func (m *machine) drbdsetup(args []string) int {
	if m.Version == "" { // the real one loads the module by itself
		fmt.Fprintln(os.Stderr, "FAKE: drbdsetup called without the module")
		m.modprobe()
	}
	which := func() (volumes []int) {
		for i := range m.Roles {
			if !m.legacy() || args[1] == strconv.Itoa(i) {
				volumes = append(volumes, i)
			}
		}
		return volumes
	}
	switch args[0] {
	case "events2":
		fmt.Print(m.events())
		m.Ghost = max(m.Ghost-1, 0)
	case "show":
		fmt.Printf("resource r0 {\n    disk {\n")
		if m.Fencing != "dont-care" {
			fmt.Printf("        fencing         \t%s;\n", m.Fencing)
		}
		fmt.Printf("    }\n")
		if m.Quorum != "" {
			fmt.Printf("    options {\n        quorum          \t%s;\n    }\n", m.Quorum)
		}
		fmt.Printf("}\n")
	case "primary":
		for _, i := range which() {
			if m.Times != 0 && m.Refuse != 0 && (m.RefuseMinor < 0 || m.RefuseMinor == i) {
				m.Times--
				if m.Refuse == -2 {
					return refuse(-2, "Need access to UpToDate data", 17)
				}
				return refuse(m.Refuse, "refused by the fake", 11)
			}
			m.Roles[i] = "Primary"
		}
	case "secondary":
		if m.Open {
			return refuse(-12, "Device is held open by someone", 11)
		}
		if m.Slack > 0 {
			m.Slack--
			return refuse(-23, "Timeout in operation", 11)
		}
		for _, i := range which() {
			m.Roles[i] = "Secondary"
		}
	case "down":
		if m.Open {
			return refuse(-12, "Device is held open by someone", 11)
		}
		m.Up = false
		for i := range m.Roles {
			m.Roles[i] = "Secondary"
		}
	default:
		fmt.Fprintln(os.Stderr, "FAKE: unknown command", args)
		return 20
	}
	return 0
}

func (m *machine) events() string {
	text := ""
	if m.Up {
		text = fmt.Sprintf("exists resource name:r0 role:%s suspended:no\n", m.Roles[0])
		link, repl := m.CS, "Off"
		if m.CS == "Connected" {
			repl = "Established"
		}
		text += fmt.Sprintf("exists connection name:r0 peer-node-id:1 conn-name:n2 connection:%s role:%s\n", link, m.Peer)
		for i := range m.Roles {
			text += fmt.Sprintf("exists device name:r0 volume:%d minor:%d disk:%s client:no quorum:yes\n", i, i, m.Disks[i])
			text += fmt.Sprintf("exists peer-device name:r0 peer-node-id:1 conn-name:n2 volume:%d replication:%s peer-disk:%s\n", i, repl, m.PeerDisk)
		}
		if m.Third != "" {
			text += fmt.Sprintf("exists connection name:r0 peer-node-id:2 conn-name:n3 connection:%s role:Unknown\n", m.Third)
			text += "exists peer-device name:r0 peer-node-id:2 conn-name:n3 volume:0 replication:Off peer-disk:DUnknown\n"
		}
	}
	if m.Truncated {
		return text
	}
	return text + "exists -\n"
}

func (m *machine) drbdadm(args []string) int {
	if len(args) < 3 || args[0] != "-c" {
		return 1
	}
	if m.Syntax {
		fmt.Fprintln(os.Stderr, "/etc/drbd.d/other.res:3: Parse error: '{' expected,\n\tbut got 'garbage'")
		return 10
	}
	switch args = args[2:]; args[0] {
	case "up", "adjust":
		if m.Slow > 0 {
			m.Slow--
			m.Up, m.CS, m.Peer, m.PeerDisk = true, "StandAlone", "Unknown", "DUnknown"
			fmt.Fprintln(os.Stderr, "Command 'drbdsetup-84 connect r0 ipv4:x ipv4:y' did not terminate within 5 seconds")
			return 20
		}
		if !m.Up {
			m.Up = true
			for i := range m.Disks {
				m.Disks[i] = m.Attached
			}
		}
		m.connect()
	case "connect":
		m.connect()
	case "disconnect":
		m.CS, m.Peer, m.PeerDisk = "StandAlone", "Unknown", "DUnknown"
	case "dump-xml":
		fmt.Print(`<resource name="r0" conf-file-line="/etc/drbd.d/r0.res:1"><host name="elsewhere"/>
<section name="net"><option name="after-sb-0pri" value="discard-zero-changes"/><option name="allow-two-primaries" value="yes"/></section>
</resource>`)
	default:
		return 1
	}
	return 0
}

func (m *machine) connect() {
	m.CS, m.Peer, m.PeerDisk = "WFConnection", "Unknown", "DUnknown"
	if m.Reachable {
		m.CS, m.Peer, m.PeerDisk = "Connected", "Secondary", "UpToDate"
	}
}

func (m *machine) pacemaker(name string, args []string) int {
	switch m.Cluster {
	case "down":
		fmt.Fprintln(os.Stderr, name+": Could not connect to the CIB")
		return 102
	case "hangs":
		m.store()
		must(m.lock.Close())
		<-time.After(time.Hour) // until it is killed
	}
	value := func(flag string) (string, bool) {
		for i, arg := range args {
			if arg == flag && i+1 < len(args) {
				return args[i+1], true
			}
		}
		return "", false
	}
	has := func(flag string) bool {
		for _, arg := range args {
			if arg == flag {
				return true
			}
		}
		return false
	}
	switch name {
	case "crm_attribute":
		switch v, set := value("-v"); {
		case set:
			m.Score = v
		case has("-D"):
			m.Score = ""
		case m.Score == "":
			return 105
		default:
			fmt.Println(m.Score)
		}
	case "attrd_updater":
		m.Attribute, _ = value("-U")
	case "crm_mon":
		fmt.Print(m.crmMon())
	default:
		return 105
	}
	return 0
}

func (m *machine) crmMon() string {
	resources := `<resource id="drbd_r0" role="Unpromoted" active="true" managed="true"><node name="n1"/></resource>`
	if m.PromotedOn != "" {
		resources += `<resource id="drbd_r0" role="Promoted" active="true" managed="true"><node name="` + m.PromotedOn + `"/></resource>`
	}
	return `<pacemaker-result><summary><current_dc present="true" name="n1" with_quorum="true"/>
<cluster_options stonith-enabled="false" maintenance-mode="false"/></summary>
<nodes><node name="n1" online="true"/><node name="n2" online="true"/></nodes>
<resources>` + resources + `</resources>
<node_attributes><node name="n2"><attribute name="master-drbd_r0" value="` + m.PeerScore + `"/></node></node_attributes>
<status code="0"/></pacemaker-result>`
}
