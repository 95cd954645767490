// Nothing is an OCF agent that manages nothing but a file with its own state:
// the floor under every agent's times. What a cluster of such resources needs
// for a move is Pacemaker's own time, which no agent can save.
//
// It promises what Pacemaker asks of a promotable resource (OCF 1.1), and does
// no more than that: it runs no child process but one, in start, which sets
// the promotion score without which Pacemaker promotes nothing. Start of a
// clone's instance is no part of a move.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Exit codes of the OCF resource agent API 1.1.
const (
	success       = 0
	failed        = 1
	unimplemented = 3
	notRunning    = 7
	promoted      = 8
)

// What the state file holds.
const (
	isStarted  = "started\n"
	isPromoted = "promoted\n"
)

const metaData = `<?xml version="1.0"?>
<resource-agent name="nothing" version="1.0.0">
<version>1.1</version>
<longdesc lang="en">Keeps a file with its own state and does nothing else.</longdesc>
<shortdesc lang="en">Does nothing</shortdesc>
<parameters/>
<actions>
<action name="start" timeout="60s"/>
<action name="stop" timeout="60s"/>
<action name="monitor" timeout="60s" interval="10s"/>
<action name="monitor" timeout="60s" interval="10s" role="Promoted"/>
<action name="monitor" timeout="60s" interval="20s" role="Unpromoted"/>
<action name="promote" timeout="60s"/>
<action name="demote" timeout="60s"/>
<action name="notify" timeout="60s"/>
<action name="meta-data" timeout="5s"/>
</actions>
</resource-agent>
`

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: nothing start|stop|monitor|promote|demote|notify|meta-data")
		os.Exit(unimplemented)
	}
	code, err := act(os.Args[1], stateFile())
	if err != nil {
		fmt.Fprintf(os.Stderr, "nothing: %s: %v\n", os.Args[1], err)
	}
	os.Exit(code)
}

func act(action, file string) (int, error) {
	switch action {
	case "meta-data":
		fmt.Print(metaData)
		return success, nil
	case "start":
		// A clone's operations and notifications come with its meta attributes.
		if os.Getenv("OCF_RESKEY_CRM_meta_clone_max") != "" {
			if err := score(); err != nil {
				return failed, err
			}
		}
		return write(file, isStarted)
	case "promote":
		return write(file, isPromoted)
	case "demote":
		return write(file, isStarted)
	case "stop":
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failed, err
		}
		return success, nil
	case "monitor":
		return state(file)
	case "notify":
		return success, nil
	}
	return unimplemented, nil
}

// stateFile lies in memory (/run): a reboot ends what it stands for. Pacemaker
// numbers the instances of a clone, "drbd_r0:0", in some actions only.
func stateFile() string {
	dir := os.Getenv("HA_RSCTMP")
	if dir == "" {
		dir = "/run/resource-agents"
	}
	name, _, _ := strings.Cut(os.Getenv("OCF_RESOURCE_INSTANCE"), ":")
	return filepath.Join(dir, "nothing-"+name+".state")
}

func write(file, text string) (int, error) {
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return failed, err
	}
	return success, nil
}

func state(file string) (int, error) {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notRunning, nil
	case err != nil:
		return failed, err
	case string(text) == isPromoted:
		return promoted, nil
	}
	return success, nil
}

func score() error {
	out, err := exec.Command("crm_attribute", "--promotion", "--lifetime=reboot", "-v", "10").CombinedOutput()
	if err != nil {
		return fmt.Errorf("crm_attribute --promotion: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
