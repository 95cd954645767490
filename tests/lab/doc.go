// Package lab runs real Debian machines under QEMU for the scenarios of this
// directory: two cluster nodes n1 and n2, a client c1, two networks between
// them, and every fault that a test wants to make.
//
// # A scenario
//
//	//go:build lab
//
//	package lab_test
//
//	func TestCoreAddressMovesAtStandby(t *testing.T) {
//		l := lab.Start(t, lab.Cluster) // n1 and n2 online in Pacemaker, the agents installed
//		require.NoError(t, l.Crm(t.Context(), "vip/vip.crm"))
//		l.MustActive(t, "vip", "", l.N1, time.Minute)
//
//		ping := l.C1.Tool(t, "ping", "ping -to 192.0.2.50 -every 50ms")
//		ping.WaitOK(t, time.Time{}, 10*time.Second)
//		moved := time.Now()
//		require.NoError(t, l.Standby(t.Context(), l.N1))
//		l.MustActive(t, "vip", "", l.N2, time.Minute)
//		ping.WaitOK(t, moved, 10*time.Second)
//		t.Log(ping.Stopped(t).LongestGap())
//	}
//
// Names: TestCore… runs in `make test`, TestMatrix… in the full matrix. Run one
// with
//
//	go test -tags lab ./tests/lab -run TestCoreAddressMovesAtStandby -v
//
// # Machines
//
//	name  eth0 (lab.LAN)                  eth1 (lab.Repl)   disks
//	n1    192.0.2.11/24 2001:db8::11/64   198.51.100.11/24  /dev/vdb 1 GiB, /dev/vdc 16 MiB shared
//	n2    192.0.2.12/24 2001:db8::12/64   198.51.100.12/24  /dev/vdb 1 GiB, /dev/vdc the same disk
//	c1    192.0.2.21/24 2001:db8::21/64   none              /dev/vdb 1 GiB
//
// The last NIC is the way of the test into the machine (ssh) and stays up
// whatever is cut. n1 and n2 have an i6300esb watchdog (modprobe i6300esb).
// All packages of the cluster and of what it carries are installed, and none
// of their services is enabled. Root's commands run by Sh (fails the test),
// Run (returns output and error) or Exec (with standard input); files come in
// by Upload.
//
// # Faults
//
//	m.PowerOff(ctx)            the power is gone; PowerOn boots from the disks as they are
//	m.Reset(ctx)               the reset button
//	m.Freeze(ctx), m.Thaw      the processor stands still
//	m.Cut(ctx, lab.LAN), Mend  the cable is pulled: the machine sees the carrier go
//	m.Silence(lab.Repl, on)    all frames are lost, the carrier stays
//	m.QMP(ctx, command, …)     anything else that QEMU can do
//
// A machine under emulation is 15 to 20 times slower than a real one in all
// that forks: give cluster actions a minute, and print times rather than
// asserting tight ones, except against something measured in the same run.
//
// # Stages
//
// A boot takes a minute, a cluster half a minute more. A [Stage] is a state of
// all machines that is reached once, frozen with their memory into the cache
// (see [Cache]), and thawed in a few seconds by each test that starts from it.
// [Booted], [Cluster], [DRBD] and [NFS] are here, for the tests and the demo; an
// area makes its own on top (Key: all text that Build puts in, so that a change
// builds the stage anew):
//
//	var webStage = &lab.Stage{
//		Name: "web", Base: lab.DRBD,
//		Key: siteConf,
//		Build: func(ctx context.Context, l *lab.Lab) error {
//			for _, m := range l.Nodes() {
//				if err := m.Upload(ctx, "/etc/site.conf", 0o644, []byte(siteConf)); err != nil {
//					return err
//				}
//			}
//			return nil
//		},
//	}
//
// The agents under test never go into a stage: [Start] installs them freshly
// with `make install`. A Build that needs labtool calls InstallTool.
//
// # Load and proof
//
// Machine.Tool starts a labtool command in a machine's background (see
// cmd/labtool, `labtool` prints the list): ping, tcp and hold ask an address,
// echo answers, write and append make fsynced records on any file system,
// lock holds a POSIX lock, open keeps a device busy. Each notes what was
// acknowledged and when; Job.Stopped returns the Log, Log.LongestGap the
// longest time without an answer, and
//
//	m.Sh(t, "labtool check -log %s -dir /mnt/data", job.LogPath())
//
// fails unless every acknowledged record is there.
//
// # When it fails
//
// The test's log gets the timeline (lab events; add yours by
// l.Timeline.Add), the cluster's state and configuration, /proc/drbd, each
// machine's journal and console. The journal is copied to the host line by
// line, so a dead machine's last words are there too (Machine.Journal).
//
// # The host
//
// At most LAB_SLOTS labs (1 when unset) run at once on a host; a further one
// waits. The kernel kills every QEMU when the test process dies, however it
// dies. What the cache holds is removed two weeks after its last use; all of it
// may be removed at any time.
//
//	LAB_CACHE=DIR       the cache (~/.cache/baton-lab or /var/cache/baton-lab)
//	LAB_SLOTS=N         labs at once, never more than processors
//	LAB_AGENTS="a b"    build and install only these agents ("none": none)
//	LAB_ACCEL=tcg|kvm   no trial boot under KVM, but this
//	LAB_CRM=always      ask crm each time (see CrmText)
//	LAB_KEEP=1          keep a run's directory: disks, console, journal
package lab
