// Command mfsmaster is the OCF resource agent ocf:baton:mfsmaster: the master server of MooseFS,
// on a replicated device or over metaloggers, with the recovery of its metadata.
package main

import (
	"os"

	"baton/ocf"
)

func main() { os.Exit(ocf.Run(program())) }
