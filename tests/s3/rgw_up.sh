#!/usr/bin/env bash
# A real S3 server on loopback for the tests: Ceph's gateway over one in-memory OSD, no manager, no systemd.
#   apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-common
#   rgw_up.sh DIR PORT      DIR must not exist; PORT, PORT+1 and PORT+2 must be free
#   rgw_down.sh DIR
# Keys: test / testsecret, and reader / readersecret, who owns nothing.
set -euo pipefail
dir=${1:?usage: rgw_up.sh DIR PORT} port=${2:?usage: rgw_up.sh DIR PORT}
mkdir "$dir"; mkdir -p "$dir"/{mon,osd0,run}
keyring=$dir/keyring fsid=$(cat /proc/sys/kernel/random/uuid) osd_uuid=$(cat /proc/sys/kernel/random/uuid)

cat > "$dir/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
osd crush chooseleaf type = 0
run dir = $dir/run
admin socket = $dir/run/\$cluster-\$name.asok
log file = $dir/\$name.log
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
[mon]
mon data = $dir/mon
mon cluster log file = $dir/cluster.log
paxos propose interval = 0.05
[osd]
osd data = $dir/osd0
osd objectstore = memstore
memstore device bytes = 4294967296
osd memory target = 939524096
osd class load list = *
osd class default list = *
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port
rgw max concurrent requests = 256
CONF
export CEPH_CONF=$dir/ceph.conf CEPH_ARGS="-c $dir/ceph.conf"

start() {  # NAME COMMAND...: detached, its process id kept
  local name=$1; shift
  setsid "$@" > "$dir/$name.out" 2>&1 < /dev/null &
  echo $! > "$dir/$name.pid"
}

ceph-authtool --create-keyring "$keyring" --gen-key -n mon. --cap mon 'allow *' > /dev/null
for who in client.admin client.rgw; do
  ceph-authtool "$keyring" --gen-key -n $who --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' > /dev/null
done
ceph-authtool "$keyring" --gen-key -n osd.0 \
  --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd' > /dev/null
monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]" "$dir/monmap" > /dev/null
ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$keyring"
start mon ceph-mon -i a -f
timeout 60 ceph auth import -i "$keyring" 2> /dev/null
timeout 60 ceph osd new "$osd_uuid" 0 > /dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$osd_uuid" > "$dir/osd-mkfs.out" 2>&1
start osd ceph-osd -i 0 -f
start rgw radosgw -n client.rgw -f
for _ in $(seq 300); do curl -s -o /dev/null "http://127.0.0.1:$port/" && break; sleep 0.2; done
for user in test reader; do
  timeout 60 radosgw-admin -n client.rgw user create --uid=$user --display-name=$user \
    --access-key=$user --secret-key=${user}secret > "$dir/user-$user.json" 2> "$dir/user-$user.out"
done
