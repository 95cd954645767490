package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"baton/agents/internal/drbdstate"
	"baton/agents/internal/drbdusers"
	"baton/agents/internal/process"
)

// holdup says who holds the devices of the resource open, the most telling first.
func (a *agent) holdup(r drbdstate.Resource) string {
	for _, minor := range r.Minors() {
		if who := a.holders(minor); who != "" {
			return fmt.Sprintf("/dev/drbd%d is %s", minor, who)
		}
	}
	return fmt.Sprintf("/dev/drbd%v is held open by something that is neither a process nor a mount, swap, loop or stacked device",
		strings.Trim(fmt.Sprint(r.Minors()), "[]"))
}

// holders names at most three users of a device.
func (a *agent) holders(minor int) string {
	name := fmt.Sprintf("drbd%d", minor)
	device := drbdusers.Device{Name: name, Major: drbdMajor, Minor: minor}
	if text, err := os.ReadFile(filepath.Join(a.sys.root, "sys/block", name, "dev")); err == nil {
		_, _ = fmt.Sscanf(string(text), "%d:%d", &device.Major, &device.Minor)
	}
	users, err := drbdusers.Finder{Root: a.sys.root}.Users(device)
	if err != nil {
		a.Log.Debug("users of " + name + ": " + err.Error())
	}
	var words []string
	for _, u := range users {
		words = append(words, u.String())
	}
	procs, err := process.System{Proc: filepath.Join(a.sys.root, "proc")}.DeviceHolders(uint32(device.Major), uint32(device.Minor)) //nolint:gosec // the kernel's own 12 and 20 bits
	if err != nil {
		a.Log.Debug("processes that hold " + name + ": " + err.Error())
	}
	for _, p := range procs {
		words = append(words, "open in "+p.Process.String())
	}
	const most = 3
	if len(words) > most {
		words = append(words[:most], fmt.Sprintf("and %d more", len(words)-most))
	}
	return strings.Join(words, ", ")
}

// drbdMajor is DRBD's block device major number (Documentation/admin-guide/devices.txt).
const drbdMajor = 147
