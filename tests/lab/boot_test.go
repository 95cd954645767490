//go:build lab

package lab_test

import (
	"testing"

	"baton/tests/lab"
)

func TestCoreBoots(t *testing.T) {
	l := lab.Start(t, lab.Booted)
	for _, m := range l.Machines {
		t.Log(m.Sh(t, "hostname; ip -br a; date; uptime; lsblk; systemd-analyze; systemd-analyze blame | head -15; free -m"))
	}
	t.Log(l.C1.Sh(t, "ping -c 3 192.0.2.11; ping -c 2 2001:db8::12"))
}
