#!/usr/bin/env bash
# Ends the server that rgw_up.sh started in DIR, waits until it is gone, and removes DIR. At once: all of it was in memory.
set -u
dir=${1:?usage: rgw_down.sh DIR}
pids=$(cat "$dir"/{rgw,osd,mon}.pid 2> /dev/null)
[ -n "$pids" ] && kill -9 $pids 2> /dev/null
for _ in $(seq 50); do kill -0 $pids 2> /dev/null || break; sleep 0.1; done
rm -rf -- "$dir"
