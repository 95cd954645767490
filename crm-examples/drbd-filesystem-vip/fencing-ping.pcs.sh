#!/bin/sh
# fencing-ping.crm in pcs's language. See there for what it is good for.
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
new=$dir/new.xml
pcs cluster cib "$dir/old.xml"
cp "$dir/old.xml" "$new"

pcs -f "$new" stonith create router fence_heuristics_ping \
	ping_targets=192.0.2.1 ping_count=3 ping_good_count=2 \
	op monitor interval=300s timeout=60s
pcs -f "$new" stonith level add 1 n1 router fencing
pcs -f "$new" stonith level add 1 n2 router fencing
pcs -f "$new" stonith update fencing pcmk_off_action=reboot

pcs cluster cib-push "$new" diff-against="$dir/old.xml"
