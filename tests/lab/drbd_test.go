//go:build lab

package lab_test

import (
	"testing"

	"baton/tests/lab"
)

// The stage itself: both copies are UpToDate, and each node can be promoted and mount.
func TestCoreDRBDStageMountsOnEitherNode(t *testing.T) {
	l := lab.Start(t, drbdStage)
	for _, m := range l.Nodes() {
		m.Sh(t, "drbdadm up r0")
	}
	for _, m := range l.Nodes() {
		m.Sh(t, "drbdadm wait-connect r0 && drbdadm primary r0 && mount /dev/drbd0 /mnt/data && umount /mnt/data && drbdadm secondary r0")
	}
}
