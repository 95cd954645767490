package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"baton/agents/internal/mfsmeta"
)

// The fake MooseFS of these tests is a state model of the versions that no Debian package of this
// release has: 1.6, 2 and 4. It keeps metadata as a header and replays changelogs by counting
// them; it locks, listens and answers as the real ones do. FAKE_VERSION chooses.

// fakeMaster is mfsmaster.
func fakeMaster() {
	if os.Getenv("FAKE_DAEMON") != "" {
		fakeDaemon()
		return
	}
	version := os.Getenv("FAKE_VERSION")
	var config, action string
	auto := false
	for i := 1; i < len(os.Args); i++ {
		switch a := os.Args[i]; a {
		case "-v":
			fmt.Printf("version: %s ; build: 1\n", version)
			exit(0)
		case "-c", "-t":
			i++
			if a == "-c" {
				config = os.Args[i]
			}
		case "-a":
			auto = true
		case "-i":
			die("the agent must never ask to ignore errors")
		default:
			action = a
		}
	}
	cfg, err := mfsmeta.ReadConfig(config)
	must(err)
	note("mfsmaster %s auto=%v", action, auto)
	dir := cfg.DataPath()
	if pid, err := mfsmeta.LockOwner(dir, mfsmeta.MasterLock); err != nil || pid != 0 {
		die("lockfile is already locked by another process")
	}
	if said := os.Getenv("FAKE_FAILS_" + strings.ToUpper(action)); said != "" {
		die(said)
	}
	switch action {
	case "start":
		if auto {
			if version[0] == '1' {
				die("invalid option -- 'a'")
			}
			fakeReplay(dir)
		}
		fakeStart(dir, config)
	case "restore":
		if version[0] == '1' || strings.HasPrefix(version, "2.") {
			die("usage: mfsmaster [-vdu] [-t locktimeout] [-c cfgfile] [start|stop|restart|reload|test|kill]")
		}
		fakeReplay(dir)
	default:
		die("unexpected action " + action)
	}
}

func die(text string) {
	fmt.Fprintln(os.Stderr, text)
	exit(1)
}

// exit ends the stand-in as the program that it plays would end.
func exit(code int) { os.Exit(code) } //nolint:forbidigo // a program of its own

func must(err error) {
	if err != nil {
		die(err.Error())
	}
}

// note writes down what was asked for; scripts compare it.
func note(format string, args ...any) {
	f, err := os.OpenFile(os.Getenv("FAKE_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(err)
	defer f.Close()
	fmt.Fprintf(f, format+"\n", args...)
}

// fakeReplay applies all changelogs of the directory to its newest metadata file.
func fakeReplay(dir string) {
	inv, err := mfsmeta.List(dir)
	must(err)
	if len(inv.Bases) == 0 || !inv.Bases[0].Usable() {
		die("can't find valid metadata file")
	}
	if os.Getenv("FAKE_BAD_BASE") == inv.Bases[0].Name() {
		die("loading node: unrecognized node type: 255\nerror loading metadata file (" + inv.Bases[0].Name() + ")\nrestore: metadata restore failed !!!")
	}
	must(os.WriteFile(filepath.Join(dir, cleanName), fakeMetadata(fakeCount(inv.Bases[0].Version, inv.Logs)), 0o644))
}

// fakeCount is the version that the changelogs lead to; a file with a torn tail is skipped as a
// whole, as MooseFS does.
func fakeCount(version uint64, logs []mfsmeta.Log) uint64 {
	have := map[uint64]bool{}
	for _, l := range logs {
		data, err := os.ReadFile(l.Path)
		must(err)
		if len(data) == 0 || data[len(data)-1] != '\n' {
			continue
		}
		scanner := bufio.NewScanner(bytes.NewReader(data))
		for scanner.Scan() {
			id, _, _ := strings.Cut(scanner.Text(), ":")
			n, err := strconv.ParseUint(id, 10, 64)
			must(err)
			have[n] = true
		}
	}
	for have[version] {
		version++
	}
	return version
}

// fakeMetadata is a metadata file of FAKE_VERSION.
func fakeMetadata(version uint64) []byte {
	if strings.HasPrefix(os.Getenv("FAKE_VERSION"), "1.6") {
		b := binary.BigEndian.AppendUint32([]byte("MFSM 1.5"), 100)
		b = binary.BigEndian.AppendUint64(b, version)
		return append(binary.BigEndian.AppendUint32(b, 7), "body"...)
	}
	return []byte(meta(version, 7))
}

// fakeRestore is mfsmetarestore of 1.6: -m OLD -o NEW changelogs.
func fakeRestore() {
	var old, next string
	var logs []mfsmeta.Log
	for i := 1; i < len(os.Args); i++ {
		switch a := os.Args[i]; a {
		case "-m":
			i++
			old = os.Args[i]
		case "-o":
			i++
			next = os.Args[i]
		default:
			logs = append(logs, mfsmeta.Log{Path: a})
		}
	}
	note("mfsmetarestore -m %s with %d changelogs", filepath.Base(old), len(logs))
	h, err := mfsmeta.ReadHeader(old)
	must(err)
	must(os.WriteFile(next, fakeMetadata(fakeCount(h.Version, logs)), 0o644))
}

// fakeStart runs the daemon and returns when it listens.
func fakeStart(dir, config string) {
	h, err := mfsmeta.ReadHeader(filepath.Join(dir, cleanName))
	if err != nil {
		die("can't find metadata.mfs - try using option '-a'")
	}
	if os.Getenv("FAKE_DIES") != "" {
		exit(0) // the daemon was killed while loading: exit code 0 all the same
	}
	detach(config, dir, strconv.FormatUint(h.Version, 10))
}

// detach runs this fake once more as a daemon, with what FAKE_DAEMON tells it, and returns when it has
// written to its descriptor 3 that it is ready.
func detach(config, dir, told string) {
	r, w, err := os.Pipe()
	must(err)
	cmd := exec.Command(os.Args[0], "-c", config, "start")
	cmd.Env = append(os.Environ(), "FAKE_DAEMON="+told)
	cmd.Dir = dir
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(cmd.Start())
	must(w.Close())
	if _, err := r.Read(make([]byte, 1)); err != nil {
		die("the fake daemon did not come up")
	}
}

func fakeDaemon() {
	config := os.Args[2]
	cfg, err := mfsmeta.ReadConfig(config)
	must(err)
	dir := cfg.DataPath()
	lock, err := os.OpenFile(filepath.Join(dir, mfsmeta.MasterLock), os.O_CREATE|os.O_RDWR, 0o644)
	must(err)
	must(unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}))
	listener, err := net.Listen("tcp", "127.0.0.1:"+cfg.Get("MATOCL_LISTEN_PORT", ""))
	must(err)
	must(os.Rename(filepath.Join(dir, cleanName), filepath.Join(dir, "metadata.mfs.back")))
	version, err := strconv.ParseUint(os.Getenv("FAKE_DAEMON"), 10, 64)
	must(err)
	if lie := os.Getenv("FAKE_SERVES"); lie != "" {
		version, err = strconv.ParseUint(lie, 10, 64)
		must(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	ready := os.NewFile(3, "ready")
	_, err = ready.Write([]byte{1})
	must(err)
	ready.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go fakeServe(conn, dir, version)
		}
	}()
	<-signals
	must(os.WriteFile(filepath.Join(dir, cleanName), fakeMetadata(version), 0o644))
	exit(0)
}

// fakeServe answers as the version does: 1.6 knows INFO alone and tells no metadata version.
func fakeServe(conn net.Conn, dir string, version uint64) {
	defer conn.Close()
	var v [3]int
	_, _ = fmt.Sscanf(os.Getenv("FAKE_VERSION"), "%d.%d.%d", &v[0], &v[1], &v[2])
	legacy := v[0] == 1 && v[1] < 7
	patch := byte(v[2])
	if !legacy {
		patch *= 2
	}
	packed := []byte{0, byte(v[0]), byte(v[1]), patch}
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(conn, data); err != nil {
			return
		}
		request := binary.BigEndian.Uint32(head)
		var reply []byte
		switch {
		case request == 510 && legacy:
			reply = append(bytes.Clone(packed), make([]byte, 72)...)
		case request == 510:
			size, at := 205, 125
			if v[0] < 4 {
				size, at = 137, 121
			}
			reply = append(bytes.Clone(packed), make([]byte, size-4)...)
			binary.BigEndian.PutUint64(reply[at:], version)
		case request == 530 && !legacy:
			reply = append(append([]byte{1}, packed...), 0, 0)
			reply = binary.BigEndian.AppendUint64(reply, 7)
			reply = append(reply, make([]byte, 6)...)
		case request == 80 && !legacy:
			reply = append(bytes.Clone(data[:4]), byte(len(dir)))
			reply = append(reply, dir...)
		case request == 500 && !legacy:
		default:
			return
		}
		frame := append(binary.BigEndian.AppendUint32(nil, 0), 0, 0, 0, 0) // a NOP before each answer
		frame = binary.BigEndian.AppendUint32(frame, request+1)
		frame = binary.BigEndian.AppendUint32(frame, uint32(len(reply)))
		if _, err := conn.Write(append(frame, reply...)); err != nil {
			return
		}
	}
}
