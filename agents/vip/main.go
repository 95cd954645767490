// Command vip is the resource agent ocf:baton:vip: it gives a virtual IP address to this host,
// takes it away, and watches it, so that it can move between the nodes of a cluster.
package main

import (
	"os"

	"baton/ocf"
)

func main() { os.Exit(ocf.Run(program())) }
