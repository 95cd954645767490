package main

import (
	"context"
	"time"

	"baton/agents/internal/command"
	"baton/metadata"
	"baton/ocf"
)

// agent is the agent with everything it takes from the host that tests replace.
type agent struct {
	// netns is the directory of named network namespaces.
	netns string
	// sysctl is the root of the network settings.
	sysctl string
	// detach starts a copy of this agent for one of its internal actions, which lives on by itself.
	detach func(args ...string) (pid int, err error)
}

func program() ocf.Program {
	a := agent{netns: "/run/netns", sysctl: "/proc/sys/net", detach: func(args ...string) (int, error) {
		// The running binary, also when its file has been replaced by an update meanwhile.
		return command.Runner{}.Detach("/proc/self/exe", args...)
	}}
	return a.program()
}

func (a agent) program() ocf.Program {
	return ocf.Program{
		Spec:        spec(),
		Positional:  positional,
		Check:       check,
		Validate:    a.validate,
		Monitor:     a.monitor,
		Start:       a.start,
		Stop:        a.stop,
		ReloadAgent: a.reload,
		Internal: map[string]func(ctx context.Context, c *ocf.Call, args []string) error{
			repeatAction: a.repeatAnnouncements,
			storeAction:  a.recorder(storeAction),
			fetchAction:  a.recorder(fetchAction),
		},
	}
}

const longDesc = `Gives a virtual IPv4 or IPv6 address to this node, announces it to the network, and takes it away again, so that the address moves with the service behind it.

Before it takes an address, it asks the network whether another host has it (by ARP probes, or by IPv6 duplicate address detection) and refuses with that host's hardware address if so. After that it announces the address by gratuitous ARP requests and replies or unsolicited neighbor advertisements, and wakes up the clients of the previous node (tickle_dir). When the address goes, its TCP connections on this node are closed.

The parameters are those of ocf:heartbeat:IPaddr2 wherever the meaning is the same, so that the configuration of a plain failover address needs only another provider. Those of load sharing (clusterip_hash, mac, unique_clone_address) and of LVS are refused with a reason. tickle_dir replaces ocf:heartbeat:portblock.

In heartbeat's haresources: vip::IP[/prefix[/nic[:label][/broadcast]]], further parameters as NAME=VALUE, for example vip::192.0.2.50/24/eth0::tickle_dir=/data/tickle.`

func spec() metadata.Agent {
	return metadata.Agent{
		Name:       "vip",
		Version:    "1.0",
		ShortDesc:  "Virtual IPv4 or IPv6 address that moves between nodes",
		LongDesc:   longDesc,
		Positional: "IP[/prefix[/nic[:label][/broadcast]]]",
		Parameters: append(parameters(), refusedParameters()...),
		Actions: []metadata.Action{
			{Name: "start", Timeout: 20 * time.Second},
			{Name: "stop", Timeout: 20 * time.Second},
			{Name: "monitor", Timeout: 20 * time.Second, Interval: 10 * time.Second},
			{Name: "reload-agent", Timeout: 20 * time.Second},
			{Name: "validate-all", Timeout: 20 * time.Second},
			{Name: "meta-data", Timeout: 5 * time.Second},
		},
	}
}

func parameters() []metadata.Parameter {
	return []metadata.Parameter{
		{
			Name: "ip", Required: true, Unique: true, Identifies: true,
			ShortDesc: "IPv4 or IPv6 address",
			LongDesc:  "The address, without its prefix: 192.0.2.50 or 2001:db8::50. A link-local IPv6 address needs nic.",
		},
		{
			Name: "nic", ShortDesc: "Network interface",
			LongDesc: "The interface that gets the address. Without it, the interface of the directly connected network that contains the address. The interface must exist, be up and have a carrier before the address is started; it may be named by an alternative name. The form eth0:label sets iflabel as well.",
		},
		{
			Name: "cidr_netmask", Aliases: []string{"netmask"}, ShortDesc: "Prefix length",
			LongDesc: "The length of the network prefix: 24, 64. An IPv4 netmask (255.255.255.0) is accepted. Without it, the prefix of the directly connected network that contains the address.",
		},
		{
			Name: "broadcast", ShortDesc: "Broadcast address (IPv4)",
			LongDesc: "An address, + for the last one of the prefix, or - for none. Without it, that of the node's own address in the same network.",
		},
		{
			Name: "iflabel", ShortDesc: "Label of the address (IPv4)",
			LongDesc: "The address is labeled NIC:iflabel, as tools show that expect alias interfaces. Interface, colon and label have 15 characters at most. The monitor fails when the address has lost its label.",
		},
		{
			Name: "proto", ShortDesc: "Protocol of the route that decides",
			LongDesc: "Where interface or prefix are to be found from the routing table, only routes of this protocol count: kernel, boot, static, ra, dhcp, or a number.",
		},
		{
			Name: "arp_interval", Type: metadata.Integer, Default: "200", Min: 1, Max: 10000, Reloadable: true,
			ShortDesc: "Milliseconds between two announcements",
			LongDesc:  "The time between two announcements after a start, in milliseconds.",
		},
		{
			Name: "arp_count", Type: metadata.Integer, Default: "5", Min: 1, Max: 1000, Reloadable: true,
			ShortDesc: "Number of announcements after a start",
			LongDesc:  "How often the address is announced after a start: each time a gratuitous ARP request and reply, or an unsolicited neighbor advertisement. The first goes out before start returns. Three late ones follow these, 2, 4 and 8 seconds later, for switch ports that begin to forward late and for hosts that believe only one announcement a second.",
		},
		{
			Name: "arp_count_refresh", Type: metadata.Integer, Default: "0", Max: 1000, Reloadable: true,
			ShortDesc: "Number of announcements at each monitor",
			LongDesc:  "How often each recurring monitor announces the address again. Useful where switches or neighbors keep a stale entry, for example after a split brain.",
		},
		{
			Name: "arp_bg", Type: metadata.Boolean, Default: "true", Reloadable: true,
			ShortDesc: "Announce in the background",
			LongDesc:  "Whether start returns after the first announcement, and a detached process of this agent sends the others. When false, start sends all of arp_count itself, and none later.",
		},
		{
			Name: "run_arping", Type: metadata.Boolean, Default: "true", Reloadable: true,
			ShortDesc: "Refuse an address that another host has",
			LongDesc:  "Whether start asks the network for another holder of the address before it takes it: by ARP probes, and with nodad by neighbor solicitations. Without nodad, IPv6 duplicate address detection does that in any case. Switch it off only where a router answers for every address (proxy ARP).",
		},
		{
			Name: "conflict_wait", Type: metadata.Integer, Default: "200", Min: 20, Max: 10000, Reloadable: true,
			ShortDesc: "Milliseconds to wait for another holder's answer",
			LongDesc:  "How long run_arping waits for an answer. Hosts of one switched network answer within a millisecond; raise it where the network spans slow links.",
		},
		{
			Name: "nodad", Type: metadata.Boolean, Default: "false",
			ShortDesc: "Skip duplicate address detection (IPv6)",
			LongDesc:  "Whether an IPv6 address is used at once, instead of after the kernel's duplicate address detection, which takes one to two seconds. With run_arping the agent asks the network itself, which takes conflict_wait.",
		},
		{
			Name: "noprefixroute", Type: metadata.Boolean, Default: "false",
			ShortDesc: "Add no route for the prefix",
			LongDesc:  "Whether the kernel shall not add a route to the network of the address. Use it where the node's own address makes that route already and the virtual one must not take part in it.",
		},
		{
			Name: "preferred_lft", Default: "forever", Reloadable: true,
			ShortDesc: "Preferred lifetime of the address (IPv6)",
			LongDesc:  "forever, or seconds. With 0 the node does not use the address as the source of connections that it opens itself.",
		},
		{
			Name: "check_link_status", Type: metadata.Boolean, Default: "true", Reloadable: true,
			ShortDesc: "Fail when the interface has no carrier",
			LongDesc:  "Whether start and monitor fail when the interface is down or has no carrier, so that the cluster moves the address to a node that is connected.",
		},
		{
			Name: "network_namespace", ShortDesc: "Network namespace",
			LongDesc: "The name of the network namespace (ip netns) that the address lives in. Without it, that of the cluster manager.",
		},
		{
			Name: "tickle_dir", Reloadable: true, ShortDesc: "Directory for the TCP connections of the address",
			LongDesc: "A directory on storage that moves with the address, such as the file system on the replicated device. Monitor and stop record there the TCP connections of the address; start sends the peers of those recorded one acknowledgment each, so that they notice at once that their connection is gone and reconnect, instead of at their next retransmission. The file is named like the address and has one connection a line, local and remote address, separated by a tab. This replaces ocf:heartbeat:portblock with tickle_dir.",
		},
	}
}

// refusedParameters are those of IPaddr2 that this agent knows and does not take over. They are
// declared so that a configuration that uses them gets a reason; see refused.go.
func refusedParameters() []metadata.Parameter {
	return []metadata.Parameter{
		{
			Name: "clusterip_hash", ShortDesc: "Not supported: load sharing",
			LongDesc: "Load sharing by iptables CLUSTERIP is not supported: Linux 6.4 removed it. A value is refused.",
		},
		{
			Name: "mac", ShortDesc: "Not supported: load sharing",
			LongDesc: "The multicast hardware address of load sharing is not supported. A value is refused.",
		},
		{
			Name: "unique_clone_address", Type: metadata.Boolean, Default: "false", ShortDesc: "Not supported: an address a clone instance",
			LongDesc: "Adding the clone's number to the address is not supported: use one resource for each address. Only false is accepted.",
		},
		{
			Name: "lvs_support", Type: metadata.Boolean, Default: "false", ShortDesc: "Not supported: addresses left on lo",
			LongDesc: "Moving the address to lo at stop is not supported, since a stopped address must be gone from the node. Only false is accepted.",
		},
		{
			Name: "lvs_ipv6_addrlabel", Type: metadata.Boolean, Default: "false", ShortDesc: "Not supported: use preferred_lft=0",
			LongDesc: "An address label that keeps an IPv6 address from being used as a source is not supported: preferred_lft=0 does that. Only false is accepted.",
		},
		{
			Name: "lvs_ipv6_addrlabel_value", Type: metadata.Integer, Default: "99", ShortDesc: "Without effect: see lvs_ipv6_addrlabel",
			LongDesc: "Accepted without effect, since lvs_ipv6_addrlabel is not supported.",
		},
		{
			Name: "arp_sender", ShortDesc: "Without effect: the agent sends by itself",
			LongDesc: "IPaddr2 chooses its helper program by it. This agent needs none: send_arp, iputils_arping and libnet_arping are accepted without effect, ipoibarping (InfiniBand) is refused.",
		},
		{
			Name: "send_arp_opts", ShortDesc: "Not supported: options of IPaddr2's helper",
			LongDesc: "Options for IPaddr2's helper program. -A (send replies) is accepted without effect, since requests and replies are always sent; anything else is refused.",
		},
		{
			Name: "flush_routes", Type: metadata.Boolean, Default: "false", ShortDesc: "Without effect: there is no route cache to flush",
			LongDesc: "Accepted without effect: the kernel drops what it has cached for an address together with the address.",
		},
	}
}
