#!/bin/sh
# One address that is served by one of two nodes: vip.crm in pcs's language.
# See vip.crm for why each value is what it is.
set -e

pcs property set stonith-enabled=false no-quorum-policy=stop
pcs resource defaults update resource-stickiness=100

pcs resource create vip ocf:baton:vip \
	ip=192.0.2.50 cidr_netmask=24 nic=eth0 \
	op start interval=0 timeout=20s \
	op stop interval=0 timeout=20s \
	op monitor interval=5s timeout=20s \
	meta migration-threshold=3 failure-timeout=60s
