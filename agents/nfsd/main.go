// Command nfsd is the OCF resource agent ocf:baton:nfsd: the kernel's NFS server with its exports
// and with the state that its clients need to survive a move of the service.
package main

import (
	"os"

	"baton/ocf"
)

func main() { os.Exit(ocf.Run(program("/"))) }
