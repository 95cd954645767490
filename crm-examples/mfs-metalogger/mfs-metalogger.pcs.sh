#!/bin/sh
# mfs-metalogger.crm in pcs's language. See there for why each value is what
# it is.
#
# All of it is made in a file and given to the cluster at once: one by one each
# resource would start as soon as it is there, without the constraints that say
# where and after what.
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
new=$dir/new.xml
pcs cluster cib "$dir/old.xml"
cp "$dir/old.xml" "$new"

pcs -f "$new" stonith create fencing fence_sbd devices=/dev/vdc pcmk_delay_max=5s \
	op monitor interval=300s timeout=60s

pcs -f "$new" property set stonith-enabled=true stonith-timeout=60s priority-fencing-delay=15s no-quorum-policy=stop
pcs -f "$new" resource defaults update resource-stickiness=200 failure-timeout=600s

pcs -f "$new" resource create mfsmaster ocf:baton:mfsmaster \
	mode=metaloggers config=/etc/mfs/mfsmaster.cfg data_dir=/var/lib/mfs-master \
	metalogger_config=/etc/mfs/mfsmetalogger.cfg durability=sync min_chunkservers=1 \
	op start interval=0 timeout=120s \
	op stop interval=0 timeout=600s \
	op promote interval=0 timeout=600s \
	op demote interval=0 timeout=600s \
	op notify interval=0 timeout=120s \
	op monitor interval=11s role=Promoted timeout=30s \
	op monitor interval=60s role=Promoted timeout=30s OCF_CHECK_LEVEL=10 \
	op monitor interval=13s role=Unpromoted timeout=30s \
	promotable promoted-max=1 promoted-node-max=1 \
	clone-max=2 clone-node-max=1 notify=true interleave=true \
	migration-threshold=2 failure-timeout=600s

pcs -f "$new" resource create vip ocf:baton:vip \
	ip=192.0.2.50 cidr_netmask=24 nic=eth0 \
	op start interval=0 timeout=20s \
	op stop interval=0 timeout=20s \
	op monitor interval=10s timeout=20s \
	meta priority=10 failure-timeout=60s

pcs -f "$new" constraint colocation add vip with Promoted mfsmaster-clone INFINITY
pcs -f "$new" constraint order start vip then promote mfsmaster-clone

pcs -f "$new" resource create cgiserv systemd:moosefs-cgiserv \
	op start interval=0 timeout=60s \
	op stop interval=0 timeout=60s \
	op monitor interval=60s timeout=60s \
	clone interleave=true migration-threshold=5 failure-timeout=300s

pcs cluster cib-push "$new" diff-against="$dir/old.xml"
