// Package heartbeat proves that the agents work from heartbeat's haresources.
//
// Without machines: heartbeat's own ResourceManager over a built agent, and two real heartbeats in
// namespaces of this machine that move an address between them (build tag real; root). What needs
// a kernel of its own, DRBD and the NFS server, is shown in tests/lab.
package heartbeat
