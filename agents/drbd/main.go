// Command drbd is the resource agent ocf:baton:drbd: it starts, promotes, demotes, stops and
// watches a DRBD resource, on the driver 8.4 and 9, without ever putting its data at risk.
package main

import (
	"os"

	"baton/ocf"
)

func main() { os.Exit(ocf.Run(program("/"))) }
