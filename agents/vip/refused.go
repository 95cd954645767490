package main

import (
	"strconv"
	"strings"

	"baton/agents/internal/addresses"
	"baton/ocf"
)

// refused are the parameters of IPaddr2 that ask for what this agent does not do. They are
// answered on every node alike, so that nobody believes to have what he has not.
func refused(p ocf.Params) []ocf.Problem {
	var problems []ocf.Problem
	refuse := func(param, expected, do string) {
		problems = append(problems, ocf.Problem{
			Param: param, Kind: ocf.BadConfig, Found: strconv.Quote(p.String(param)) + " is not supported by vip", Expected: expected, Do: do,
		})
	}
	for _, param := range []string{"clusterip_hash", "mac"} {
		if p.IsSet(param) {
			refuse(param, "no value: load sharing by iptables CLUSTERIP was removed from Linux 6.4",
				"use a load balancer, or stay with ocf:heartbeat:IPaddr2")
		}
	}
	if p.Bool("unique_clone_address") {
		refuse("unique_clone_address", "false", "configure one vip resource for each address")
	}
	if p.Bool("lvs_support") {
		refuse("lvs_support", "false", "keep the address on lo of the real servers by the system's network configuration, or stay with ocf:heartbeat:IPaddr2")
	}
	if p.Bool("lvs_ipv6_addrlabel") {
		refuse("lvs_ipv6_addrlabel", "false", "set preferred_lft=0, which keeps the address from being used as a source")
	}
	switch p.String("arp_sender") {
	case "", "send_arp", "iputils_arping", "libnet_arping":
	case "ipoibarping":
		refuse("arp_sender", "no value: addresses are not announced on InfiniBand", "stay with ocf:heartbeat:IPaddr2 there")
	default:
		refuse("arp_sender", "no value: the agent sends announcements by itself", "remove it")
	}
	for _, opt := range strings.Fields(p.String("send_arp_opts")) {
		if opt != "-A" && opt != "-U" {
			refuse("send_arp_opts", "no value: there is no helper program to pass options to; requests and replies are both sent", "remove it")
			break
		}
	}
	return problems
}

// refusedClone: the same address on several nodes at once is a conflict, which
// IPaddr2 understands as load sharing. On lo nobody else sees it.
func refusedClone(c *ocf.Call) []ocf.Problem {
	cfg, _ := parse(c.Params)
	if c.Env.Clone.Max <= 1 || cfg.nic == "lo" || cfg.ip.IsLoopback() {
		return nil
	}
	return []ocf.Problem{{
		Kind: ocf.BadConfig, Found: "the resource is a clone of " + strconv.Itoa(c.Env.Clone.Max) + " instances",
		Expected: "one node that has the address: load sharing is not supported",
		Do:       "remove the clone, or set clone-max=1",
	}}
}

// withoutEffect are the parameters that are accepted for IPaddr2's sake and change nothing.
func withoutEffect(p ocf.Params, cfg config) []ocf.Problem {
	var problems []ocf.Problem
	warn := func(param, expected string) {
		problems = append(problems, ocf.Problem{
			Param: param, Warning: true, Found: strconv.Quote(p.String(param)) + " has no effect", Expected: expected, Do: "remove it",
		})
	}
	if p.IsSet("arp_sender") {
		warn("arp_sender", "no value: the agent sends announcements by itself")
	}
	if p.IsSet("send_arp_opts") {
		warn("send_arp_opts", "no value: gratuitous ARP requests and replies are both sent")
	}
	if p.Bool("flush_routes") {
		warn("flush_routes", "no value: the kernel has no route cache that outlives an address")
	}
	if cfg.ip.Is6() {
		for _, param := range []string{"broadcast", "iflabel"} {
			if p.IsSet(param) {
				warn(param, "no value: IPv6 addresses have none")
			}
		}
	} else {
		if p.Bool("nodad") {
			warn("nodad", "no value: it is for IPv6; run_arping is its counterpart")
		}
		if cfg.preferred != addresses.Forever {
			warn("preferred_lft", "no value: it is for IPv6")
		}
	}
	return problems
}
