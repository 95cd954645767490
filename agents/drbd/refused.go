package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"baton/agents/internal/command"
)

// verdict is what a refused state change means for the one who asked for it.
type verdict int

const (
	permanent verdict = iota // it will be refused again
	passing                  // it may pass by itself in a moment
	heldOpen                 // something has the device open
	unclear                  // the tool did not finish or could not run
)

func (v verdict) String() string {
	return [...]string{"permanent", "passing", "held open", "unclear"}[v]
}

// drbdsetup's exit codes (drbd-utils user/shared/drbd_nla and drbdsetup.c: the comment at
// error_messages, and drbdsetup(8) "RETURN VALUES").
const (
	exitRefused    = 11 // the kernel refused a state change; the number is on stderr
	exitNoGoodData = 17 // "Need access to UpToDate data"
)

// The kernel's reasons for refusing a state change (enum drbd_state_rv, include/linux/drbd.h),
// printed by drbdsetup as "State change failed: (-12) Device is held open by someone".
const (
	ssTwoPrimaries    = -1
	ssNoUpToDateDisk  = -2
	ssPrimaryNOP      = -7
	ssFailedByPeer    = -10
	ssDeviceInUse     = -12
	ssTransientState  = -18
	ssConcurrent      = -19
	ssPeerPrimaryVols = -20
	ssInterrupted     = -21 // 9: a signal ended the wait
	ssTimeout         = -23 // 9: the peers did not answer in time; drbd_set_role itself tries four times
)

// judge sorts a failed `drbdsetup primary`, `secondary` or `down`.
func judge(err error) (v verdict, words string) {
	var e *command.Error
	if !errors.As(err, &e) {
		return unclear, err.Error()
	}
	code, text := stateChange(e.Stderr)
	switch command.Code(err) {
	case -1:
		return unclear, err.Error()
	case exitNoGoodData:
		return permanent, orSay(text, "needs access to UpToDate data")
	case exitRefused:
	default:
		return permanent, orSay(text, err.Error())
	}
	switch code {
	case ssTwoPrimaries, ssPeerPrimaryVols:
		return passing, orSay(text, "the peer is Primary")
	case ssFailedByPeer, ssTransientState, ssConcurrent, ssInterrupted, ssTimeout:
		return passing, orSay(text, "refused for now")
	case ssDeviceInUse:
		return heldOpen, orSay(text, "the device is held open")
	case ssNoUpToDateDisk:
		return permanent, orSay(text, "needs access to UpToDate data")
	case ssPrimaryNOP:
		return permanent, orSay(text, "the peer could not be outdated")
	case 0:
		return passing, orSay(text, err.Error()) // refused without a reason: worth another try
	}
	return permanent, orSay(text, err.Error())
}

// stateChange takes the last "(-N) words" of the lines that drbdsetup prints:
//
//	0: State change failed: (-12) Device is held open by someone
//	additional info from kernel:
//	r0: State change failed: (-2) Need access to UpToDate data
func stateChange(stderr []byte) (code int, text string) {
	for line := range strings.Lines(string(stderr)) {
		_, rest, ok := strings.Cut(line, "State change failed: (")
		if !ok {
			continue
		}
		number, words, ok := strings.Cut(rest, ")")
		if n, err := strconv.Atoi(number); ok && err == nil {
			code, text = n, fmt.Sprintf("%s (%d)", strings.TrimSpace(words), n)
		}
	}
	return code, text
}

func orSay(text, instead string) string {
	if text == "" {
		return instead
	}
	return text
}

// complaint is what drbdadm said first: its parser stops at the first error and names file and
// line there, while later lines only follow from it.
func complaint(err error) string {
	var e *command.Error
	if !errors.As(err, &e) || e.Err != nil || e.Signal != 0 {
		return err.Error()
	}
	lines := strings.FieldsFunc(string(e.Stderr), func(r rune) bool { return r == '\n' })
	said := ""
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || noise(line) {
			continue
		}
		if said == "" || strings.Contains(line, "State change failed") || strings.Contains(line, "Failure:") {
			said = line
		}
	}
	return fmt.Sprintf("%s (exit %d)", orSay(said, "no message"), e.Code)
}

// alarmed reports whether drbdadm gave up on a child that was only slow: "Command '…' did not
// terminate within 5 seconds" (m__system in drbd-utils).
func alarmed(err error) bool {
	var e *command.Error
	return errors.As(err, &e) && strings.Contains(string(e.Stderr), "did not terminate within")
}

// noise are lines that drbdadm prints before what is wrong: about versions, and from the shell
// in which it calls modinfo.
func noise(line string) bool {
	for _, prefix := range []string{"DRBD module version", "you should upgrade", "sh: ", "modinfo: "} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// ended reports whether ctx is over, so that err need not be looked at.
func ended(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != nil
}
