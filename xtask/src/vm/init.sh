#!/bin/busybox sh
# The guest's first process: makes a system that a tracer can run in, runs each command line in /commands in order,
# tells beginning and end of each on the second serial line, and powers off.

/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /var/tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root TERM=dumb LANG=C.UTF-8

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
for pair in tracefs:/sys/kernel/tracing debugfs:/sys/kernel/debug bpf:/sys/fs/bpf cgroup2:/sys/fs/cgroup; do
    mount -t "${pair%%:*}" "${pair%%:*}" "${pair#*:}" || echo "init: no ${pair%%:*}"
done
hostname linktracer-guest
ip link set lo up
date -s "@$(cat /now)" >/dev/null
ulimit -l unlimited
cd /root

tell() {
    echo "$*" >/dev/ttyS1
}

uptime_now() {
    cut -d ' ' -f 1 /proc/uptime
}

tell "up $(uptime_now)"
index=0
while [ -e "/commands/$index" ]; do
    echo "\$ $(cat "/commands/$index")"
    tell "begin $index $(uptime_now)"
    sh "/commands/$index" </dev/null
    tell "end $index $? $(uptime_now)"
    index=$((index + 1))
done
tell "done"
sync
poweroff -f
