// Package qemu runs one QEMU process: its command line, its life, its death.
package qemu

import (
	"fmt"
	"strconv"
)

// Disk is one virtio disk, in the order vda, vdb, …
type Disk struct {
	File     string
	Format   string // raw or qcow2
	Shared   bool   // several machines write to it at once
	ReadOnly bool
}

// Link is one NIC on a switch of the test process, in the order eth0, eth1, …
type Link struct {
	ID  string // its QMP name, for set_link
	MAC string
}

// Config is a machine. Its devices stay in one order, so that a saved state
// fits a later process with the same Config.
type Config struct {
	Name      string
	KVM       bool
	MemoryMiB int
	RAMFile   string // backs the memory; anonymous memory when empty
	RAMShared bool   // writes go to RAMFile; otherwise they stay in this process
	Kernel    string
	Initrd    string
	Append    string // kernel command line
	Disks     []Disk
	Links     []Link
	MgmtMAC   string
	SSHPort   int    // on 127.0.0.1, forwarded to the machine's port 22
	Console   string // file that takes the serial console
	Journal   string // file that takes /dev/hvc0
	Watchdog  bool   // an i6300esb whose bite resets the machine
	Incoming  bool   // wait for a saved state instead of booting
}

// QMPFd and the first link's descriptor as the child sees them; the links
// follow one another.
const (
	qmpFd       = 3
	firstLinkFd = 4
)

// Args is the command line for the configuration.
func (c Config) Args() []string {
	memory := fmt.Sprintf("%dM", c.MemoryMiB)
	args := []string{
		"-name", c.Name,
		"-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
		"-machine", "pc-i440fx-7.2,usb=off,vmport=off,hpet=off,smm=off,memory-backend=ram",
		"-m", memory, "-smp", "1",
		// Time inside stands still while the machine is frozen.
		"-rtc", "base=utc,clock=vm",
	}
	if c.KVM {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		// The plain model: programs that find AVX and its like use them, and
		// those are the slowest to emulate (forks take 40 % longer with max).
		// The translation buffer holds the whole userland; a full one is
		// thrown away and translated again.
		args = append(args, "-accel", "tcg,tb-size=256,thread=multi", "-cpu", "qemu64")
	}
	if c.RAMFile != "" {
		args = append(args, "-object", fmt.Sprintf("memory-backend-file,id=ram,size=%s,mem-path=%s,share=%s", memory, c.RAMFile, onOff(c.RAMShared)))
	} else {
		args = append(args, "-object", "memory-backend-ram,id=ram,size="+memory)
	}
	args = append(args, "-kernel", c.Kernel, "-initrd", c.Initrd, "-append", c.Append)

	// Fixed PCI slots: an added device must not move the others.
	slot := 3
	next := func() string {
		s := strconv.Itoa(slot)
		slot++
		return s
	}
	for i, l := range c.Links {
		args = append(args,
			"-netdev", fmt.Sprintf("socket,id=%s,fd=%d", l.ID, firstLinkFd+i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=%s,id=nic-%s,mac=%s,romfile=,addr=%s", l.ID, l.ID, l.MAC, next()))
	}
	args = append(args,
		"-netdev", fmt.Sprintf("user,id=mgmt,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:%d-:22", c.SSHPort),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=mgmt,id=nic-mgmt,mac=%s,romfile=,addr=%s", c.MgmtMAC, next()))
	for i, d := range c.Disks {
		// Writeback: what the machine flushes is in the host's file; what it
		// did not flush dies with it. Never unsafe, which would lie about that.
		id := "disk" + strconv.Itoa(i)
		drive := fmt.Sprintf("file=%s,format=%s,if=none,id=%s,cache=writeback,discard=unmap", d.File, d.Format, id)
		device := fmt.Sprintf("virtio-blk-pci,drive=%s,id=dev-%s,addr=%s", id, id, next())
		if d.ReadOnly {
			drive += ",readonly=on"
		}
		if d.Shared {
			drive += ",file.locking=off"
			device += ",share-rw=on"
		}
		args = append(args, "-drive", drive, "-device", device)
	}
	args = append(args,
		"-chardev", "file,id=console,append=on,path="+c.Console, "-serial", "chardev:console",
		"-device", "virtio-serial-pci,id=vser,addr=0x10",
		"-chardev", "file,id=journal,append=on,path="+c.Journal, "-device", "virtconsole,bus=vser.0,chardev=journal",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng,addr=0x11",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", qmpFd), "-mon", "chardev=qmp,mode=control")
	if c.Watchdog {
		args = append(args, "-device", "i6300esb,id=watchdog,addr=0x12", "-action", "watchdog=reset")
	}
	if c.Incoming {
		args = append(args, "-incoming", "defer")
	}
	return args
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
