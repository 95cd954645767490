// Package nfsproc reads and writes the files by which the kernel's NFS server is ruled: the nfsd
// file system, lockd's files and the export caches of sunrpc.
//
// All writes to the nfsd file system are calls into fs/nfsd/nfsctl.c: each file takes one write.
package nfsproc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Server is the kernel's NFS server of this process's network namespace.
type Server struct {
	// Proc is the mount point of procfs; empty means /proc.
	Proc string
}

func (s Server) proc(parts ...string) string {
	root := s.Proc
	if root == "" {
		root = "/proc"
	}
	return filepath.Join(append([]string{root}, parts...)...)
}

// Mountpoint is where the nfsd file system belongs.
func (s Server) Mountpoint() string { return s.proc("fs/nfsd") }

// Available reports whether the nfsd file system is there to be read. Where it is not, nothing
// has started the server through it since the machine came up.
func (s Server) Available() (bool, error) {
	_, err := os.Lstat(s.proc("fs/nfsd/threads"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ParseError says which file held something that it should not.
type ParseError struct {
	File, Text string
}

func (e *ParseError) Error() string {
	text := e.Text
	if len(text) > 60 {
		text = text[:60] + "…"
	}
	return fmt.Sprintf("%s: cannot be understood: %q", e.File, text)
}

// read returns the text without the NUL that lockd's files end in (nlm_end_grace_read in
// fs/lockd/procfs.c gives out its whole buffer, "Y\n\0").
func (s Server) read(name string) (string, error) {
	text, err := os.ReadFile(s.proc(name))
	return strings.Trim(string(text), " \t\n\x00"), err
}

func (s Server) number(name string) (int, error) {
	text, err := s.read(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, &ParseError{File: s.proc(name), Text: text}
	}
	return n, nil
}

func (s Server) yes(name string) (bool, error) {
	text, err := s.read(name)
	switch {
	case err != nil:
		return false, err
	case text == "Y":
		return true, nil
	case text == "N":
		return false, nil
	}
	return false, &ParseError{File: s.proc(name), Text: text}
}

// write gives the whole text to the kernel in one call, as nfsctl.c wants it.
func (s Server) write(name, text string) error {
	f, err := os.OpenFile(s.proc(name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Threads is the number of running server threads; 0 means that the server does not run.
func (s Server) Threads() (int, error) { return s.number("fs/nfsd/threads") }

// SetThreads starts or stops the server. The kernel takes the name of its server scope from the
// UTS namespace of the calling thread (nfsd_svc in fs/nfsd/nfssvc.c). The call returns when the
// threads run or have ended, which a disk that does not answer can delay without bound.
func (s Server) SetThreads(n int) error { return s.write("fs/nfsd/threads", strconv.Itoa(n)+"\n") }

// GraceEnded reports whether the grace period of NFSv4 is over. It answers false for a server
// that does not run.
func (s Server) GraceEnded() (bool, error) { return s.yes("fs/nfsd/v4_end_grace") }

// EndGrace ends the grace period of NFSv4 now: clients that have not reclaimed their locks by
// now lose them. The error wraps unix.EBUSY where it is over already or nothing runs.
func (s Server) EndGrace() error { return s.write("fs/nfsd/v4_end_grace", "Y\n") }

// LockdGraceEnded is GraceEnded for NFSv3's lock manager. The error wraps fs.ErrNotExist while
// lockd's module is not loaded.
func (s Server) LockdGraceEnded() (bool, error) { return s.yes("fs/lockd/nlm_end_grace") }

// EndLockdGrace ends the grace period of NFSv3's lock manager now.
func (s Server) EndLockdGrace() error { return s.write("fs/lockd/nlm_end_grace", "Y\n") }

// LeaseTime is how long a client's state lives without a word from the client.
func (s Server) LeaseTime() (time.Duration, error) { return s.seconds("fs/nfsd/nfsv4leasetime") }

// GraceTime is how long the server waits for clients to reclaim after a start.
func (s Server) GraceTime() (time.Duration, error) { return s.seconds("fs/nfsd/nfsv4gracetime") }

// SetLeaseTime and SetGraceTime take whole seconds from 10 to 3600, and only while there are
// neither threads nor sockets: afterwards the error wraps unix.EBUSY (__nfsd4_write_time).
func (s Server) SetLeaseTime(d time.Duration) error {
	return s.setSeconds("fs/nfsd/nfsv4leasetime", d)
}

// SetGraceTime is like SetLeaseTime.
func (s Server) SetGraceTime(d time.Duration) error {
	return s.setSeconds("fs/nfsd/nfsv4gracetime", d)
}

func (s Server) seconds(name string) (time.Duration, error) {
	n, err := s.number(name)
	return time.Duration(n) * time.Second, err
}

func (s Server) setSeconds(name string, d time.Duration) error {
	return s.write(name, strconv.Itoa(int(d/time.Second))+"\n")
}

// UnlockFilesystem drops the locks that clients of NFSv3 hold on the file system of the path
// (and, from Linux 6.12 on, the state of NFSv4's).
func (s Server) UnlockFilesystem(path string) error {
	return s.write("fs/nfsd/unlock_filesystem", path+"\n")
}

// LockdPorts pins the ports of NFSv3's lock manager; 0 leaves a port as it is. It must be done
// before lockd starts. The files belong to lockd's module, which the nfsd module loads.
func (s Server) LockdPorts(tcp, udp int) error {
	for name, port := range map[string]int{"nlm_tcpport": tcp, "nlm_udpport": udp} {
		if port == 0 {
			continue
		}
		if err := s.write(filepath.Join("sys/fs/nfs", name), strconv.Itoa(port)+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// Versions are the versions of the protocol and whether each is served: 3, and the minor
// versions of 4 as 4.0, 4.1, 4.2. A version that the kernel does not have is absent.
type Versions map[string]bool

// Versions reads which versions are (to be) served.
func (s Server) Versions() (Versions, error) {
	text, err := s.read("fs/nfsd/versions")
	if err != nil {
		return nil, err
	}
	return parseVersions(text), nil
}

// parseVersions reads fs/nfsd/versions (nfsd_print_version_support in fs/nfsd/nfsctl.c):
//
//	+3 +4 -4.0 +4.1 +4.2
//
// 4.0 is told only where it is switched off; +4 implies it otherwise. Unknown words are skipped.
func parseVersions(text string) Versions {
	v := Versions{}
	told40 := false
	for _, word := range strings.Fields(text) {
		on := word[0] == '+'
		if !on && word[0] != '-' {
			continue
		}
		switch name := word[1:]; name {
		case "2", "3", "4", "4.1", "4.2", "4.3":
			v[name] = on
		case "4.0":
			v[name], told40 = on, true
		}
	}
	if four, ok := v["4"]; ok {
		if !told40 {
			v["4.0"] = four
		}
		if !four {
			for _, minor := range []string{"4.0", "4.1", "4.2", "4.3"} {
				delete(v, minor)
			}
			v["4.0"] = false
		}
		delete(v, "4")
	}
	return v
}

// Word is what to write to fs/nfsd/versions to serve exactly the wanted versions.
func (v Versions) word() string {
	sign := func(on bool) string {
		if on {
			return "+"
		}
		return "-"
	}
	minors := []string{"4.0", "4.1", "4.2"}
	any4 := false
	for _, m := range minors {
		any4 = any4 || v[m]
	}
	words := []string{sign(v["3"]) + "3", sign(any4) + "4"}
	if any4 {
		for _, m := range minors {
			words = append(words, sign(v[m])+m)
		}
	}
	return strings.Join(words, " ") + "\n"
}

// SetVersions switches versions 3, 4.0, 4.1 and 4.2 on and off; only while the server does not
// run, else the error wraps unix.EBUSY.
func (s Server) SetVersions(v Versions) error { return s.write("fs/nfsd/versions", v.word()) }

// Port is a socket that the server listens on.
type Port struct {
	Transport string // "tcp", "udp", "rdma"
	Number    int
}

// Ports lists the server's sockets, one for each address family.
func (s Server) Ports() ([]Port, error) {
	text, err := s.read("fs/nfsd/portlist")
	if err != nil {
		return nil, err
	}
	return parsePorts(text), nil
}

// parsePorts reads fs/nfsd/portlist (svc_xprt_names in net/sunrpc/svc_xprt.c), a line for each
// socket; lines of another form are skipped:
//
//	tcp 2049
//	udp 2049
func parsePorts(text string) []Port {
	var ports []Port
	for line := range strings.SplitSeq(text, "\n") {
		words := strings.Fields(line)
		if len(words) != 2 {
			continue
		}
		if n, err := strconv.Atoi(words[1]); err == nil && n > 0 && n < 1<<16 {
			ports = append(ports, Port{Transport: words[0], Number: n})
		}
	}
	return ports
}
