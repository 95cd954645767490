package qemu

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func sample() Config {
	return Config{
		Name: "n1", MemoryMiB: 512, Kernel: "/k", Initrd: "/i", Append: "root=/dev/vda",
		Disks:   []Disk{{File: "/root.qcow2", Format: "qcow2"}, {File: "/shared.img", Format: "raw", Shared: true}},
		Links:   []Link{{ID: "lan", MAC: "52:54:00:00:00:01"}, {ID: "repl", MAC: "52:54:00:00:00:02"}},
		MgmtMAC: "52:54:00:00:00:09", SSHPort: 2222, Console: "/console", Journal: "/journal", Watchdog: true,
	}
}

func TestDisksNeverLieAboutDurability(t *testing.T) {
	line := strings.Join(sample().Args(), " ")
	require.Contains(t, line, "file=/root.qcow2,format=qcow2,if=none,id=disk0,cache=writeback")
	require.NotContains(t, line, "unsafe")
}

func TestManagementNetworkLeadsNowhereElse(t *testing.T) {
	line := strings.Join(sample().Args(), " ")
	require.Contains(t, line, "user,id=mgmt,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:2222-:22")
}

func TestCablesAreHandedOverInOrder(t *testing.T) {
	line := strings.Join(sample().Args(), " ")
	require.Contains(t, line, "socket,id=lan,fd=4")
	require.Contains(t, line, "socket,id=repl,fd=5")
	require.Contains(t, line, "socket,id=qmp,fd=3")
}

func TestSavedMachineHasTheSameDevicesAsTheRestoredOne(t *testing.T) {
	devices := func(c Config) (out []string) {
		args := c.Args()
		for i, a := range args {
			if a == "-device" {
				out = append(out, args[i+1])
			}
		}
		return out
	}
	booted := sample()
	booted.RAMFile, booted.RAMShared = "/ram", true
	restored := sample()
	restored.RAMFile, restored.Incoming, restored.SSHPort = "/ram", true, 3333
	require.Equal(t, devices(booted), devices(restored))
	require.Contains(t, strings.Join(restored.Args(), " "), "mem-path=/ram,share=off", "a restored machine must not write to the saved memory")
	require.Contains(t, restored.Args(), "defer")
}
