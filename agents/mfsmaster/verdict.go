package main

import (
	"fmt"
	"strings"

	"baton/agents/internal/mfsproto"
	"baton/agents/internal/process"
)

// reply is what came back from the master's port.
type reply int

const (
	// refused: nobody listens there.
	refused reply = iota
	// silent: the connection was made, or not even that, and no answer came in time.
	silent
	// strange: something answers that is no master.
	strange
	// answered: a master gave its version and its directory.
	answered
)

// sighting is what was seen of the master at one moment.
type sighting struct {
	// master and writer are the owners of the two locks in the data directory: a pid, 0 for
	// nobody, -1 for somebody who cannot be seen from here.
	master, writer int
	// process is the owner of the master's lock, if there is one.
	process process.Process
	// ours are MooseFS's processes that hold the data directory; others are anybody else's.
	ours, others []process.Holder
	reply        reply
	replyError   error
	// elsewhere: the address at which the master is asked is none of this node's.
	elsewhere bool
	info      mfsproto.Info
	module    mfsproto.Module
	// dataPath is the DATA_PATH that the answering master runs with.
	dataPath string
	// loading: the lock is held and metadata.mfs is still there, so that it has not been read yet.
	loading bool
	// free is the space left for the data directory, in bytes.
	free uint64
}

// verdict is a row of the state table.
type verdict int

const (
	// absent: no locks, no process of MooseFS in the data directory, nobody on the port.
	absent verdict = iota
	// serving: our master answers.
	serving
	// deaf: our master lives and does not answer.
	deaf
	// leftovers: no master, but children of one hold the directory.
	leftovers
	// foreign: another master answers on our port.
	foreign
)

// judge sorts a sighting of the data directory dir into the state table. why is for the operator.
func judge(s sighting, dir string) (v verdict, why string) {
	locked := s.master != 0
	switch {
	case locked && s.reply == answered && (s.dataPath == dir || s.dataPath == ""):
		return serving, fmt.Sprintf("MooseFS %v serves metadata version %d", s.info.Version, s.info.MetaVersion)
	case locked && s.reply == answered:
		return deaf, fmt.Sprintf("%s holds the lock, but the master on the port runs in %s", s.name(), s.dataPath)
	case locked:
		return deaf, s.deafness()
	case s.writer != 0 || len(s.ours) > 0:
		return leftovers, "the master has gone, but " + s.holders() + " still there"
	case s.reply == answered:
		return foreign, fmt.Sprintf("a master that runs in %s answers on our port, and none holds the lock of %s", s.dataPath, dir)
	case s.reply == strange:
		return foreign, fmt.Sprintf("something else answers on the master's port: %v", s.replyError)
	case s.reply == silent:
		return foreign, "something accepts connections on the master's port and does not answer, and no master holds the lock"
	}
	return absent, "no master runs"
}

// name is the master's process for messages.
func (s sighting) name() string {
	if s.process.PID == 0 {
		return fmt.Sprintf("pid %d", s.master)
	}
	return fmt.Sprintf("mfsmaster (pid %d)", s.process.PID)
}

// deafness tells the reasons apart for which a living master does not answer.
func (s sighting) deafness() string {
	if st := s.process.State; st == process.Halted || st == process.Traced || st == process.Uninterruptible {
		return fmt.Sprintf("%s does not answer: %v", s.name(), st)
	}
	switch {
	case s.reply == strange:
		return fmt.Sprintf("%s holds the lock, but something else answers on its port: %v", s.name(), s.replyError)
	case s.reply == refused && s.loading:
		return s.name() + " is loading its metadata"
	case s.reply == refused && s.free == 0:
		return s.name() + " is stuck in termination: its disk is full"
	case s.elsewhere:
		return fmt.Sprintf("%s cannot be asked: %v", s.name(), s.replyError)
	case s.reply == refused:
		return s.name() + " has closed its ports: it is starting or terminating, or listens elsewhere than configured"
	}
	return fmt.Sprintf("%s hangs: %v", s.name(), s.replyError)
}

func (s sighting) holders() string {
	var names []string
	for _, h := range s.ours {
		names = append(names, fmt.Sprintf("%s (pid %d)", h.Title(), h.PID))
	}
	switch len(names) {
	case 0:
		return "the owner of the data writer's lock is"
	case 1:
		return names[0] + " is"
	}
	return strings.Join(names, ", ") + " are"
}
