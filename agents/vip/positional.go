package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// positional reads the haresources form of heartbeat's IPaddr:
//
//	IP[/prefix[/nic[:label][/broadcast]]]
//	IP/prefix/broadcast
//
// A third field that begins with a digit is the broadcast address, as IPaddr
// has it. Fields between slashes may be empty.
//
// heartbeat splits a resource at each "::", and so an IPv6 address in the
// middle: vip::2001:db8::50/64 arrives as "2001:db8" and "50/64". Such pieces are
// put together again.
func positional(args []string) (map[string]string, error) {
	if whole := strings.Join(args, "::"); len(args) > 1 {
		ip, _, _ := strings.Cut(whole, "/")
		if addr, err := netip.ParseAddr(ip); err == nil && addr.Is6() {
			args = []string{whole}
		}
	}
	if len(args) != 1 {
		return nil, fmt.Errorf("%d arguments (%s), expected one: IP[/prefix[/nic[:label][/broadcast]]], and NAME=VALUE", len(args), strings.Join(args, " "))
	}
	fields := strings.Split(args[0], "/")
	names := []string{"ip", "cidr_netmask", "nic", "broadcast"}
	if len(fields) > 2 && fields[2] != "" && fields[2][0] >= '0' && fields[2][0] <= '9' {
		names = []string{"ip", "cidr_netmask", "broadcast"}
	}
	if len(fields) > len(names) {
		return nil, fmt.Errorf("%q has %d fields, expected %s at most", args[0], len(fields), strings.Join(names, "/"))
	}
	values := map[string]string{}
	for i, field := range fields {
		if field != "" {
			values[names[i]] = field
		}
	}
	if values["ip"] == "" {
		return nil, fmt.Errorf("%q begins with no address, expected IP[/prefix[/nic[:label][/broadcast]]]", args[0])
	}
	return values, nil
}
