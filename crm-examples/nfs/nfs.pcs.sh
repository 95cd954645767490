#!/bin/sh
# nfs.crm in pcs's language. See there for why each value is what it is.
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

pcs -f "$new" resource create drbd_r0 ocf:baton:drbd drbd_resource=r0 \
	op start interval=0 timeout=240s \
	op promote interval=0 timeout=150s \
	op demote interval=0 timeout=90s \
	op stop interval=0 timeout=100s \
	op notify interval=0 timeout=90s \
	op monitor interval=10s role=Promoted timeout=20s \
	op monitor interval=20s role=Unpromoted timeout=20s \
	promotable promoted-max=1 promoted-node-max=1 \
	clone-max=2 clone-node-max=1 notify=true interleave=true

pcs -f "$new" resource create fs_r0 ocf:heartbeat:Filesystem \
	device=/dev/drbd0 directory=/mnt/data fstype=ext4 options=noatime \
	op start interval=0 timeout=60s \
	op stop interval=0 timeout=60s \
	op monitor interval=20s timeout=40s \
	--group service

pcs -f "$new" resource create nfsd ocf:baton:nfsd \
	nfs_shared_infodir=/mnt/data/.nfs \
	"exports=/mnt/data/share 192.0.2.0/24(rw,no_root_squash)" \
	nfs_ip=192.0.2.50 \
	op start interval=0 timeout=60s \
	op stop interval=0 timeout=60s \
	op monitor interval=10s timeout=20s OCF_CHECK_LEVEL=10 \
	meta migration-threshold=2 \
	--group service

pcs -f "$new" resource create vip ocf:baton:vip \
	ip=192.0.2.50 cidr_netmask=24 nic=eth0 tickle_dir=/mnt/data/.nfs \
	op start interval=0 timeout=20s \
	op stop interval=0 timeout=20s \
	op monitor interval=10s timeout=20s \
	meta priority=10 failure-timeout=60s \
	--group service

pcs -f "$new" constraint colocation add service with Promoted drbd_r0-clone INFINITY
pcs -f "$new" constraint order promote drbd_r0-clone then start service

pcs cluster cib-push "$new" diff-against="$dir/old.xml"
