#!/bin/busybox sh
# First process of a test VM: makes the file systems that a distribution would have made, loads the modules, runs
# /command and says how it ended. The @WORDS@ are filled in by initramfs.rs.
/bin/busybox --install -s /bin
# This machine's own programs, where there are any, before busybox's.
export PATH=/usr/bin:/bin HOME=/root TERM=linux

if [ "$1" != again ]; then
    # A root that can be pivoted away from and that is a mount of its own, as on a real machine: the same files once more.
    mkdir /new && mount --bind / /new && cd /new && mount --move . /
    exec chroot . /init again
fi

mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t tracefs tracing /sys/kernel/tracing
mount -t securityfs security /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount --make-rshared /

case @CGROUPS@ in
v2) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
*)
    mount -t tmpfs cgroup /sys/fs/cgroup
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids net_cls; do
        mkdir /sys/fs/cgroup/$controller
        mount -t cgroup -o $controller $controller /sys/fs/cgroup/$controller
    done
    if [ @CGROUPS@ = hybrid ]; then
        mkdir /sys/fs/cgroup/unified
        mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    fi
    ;;
esac

for module in /modules/*.ko; do
    [ -e "$module" ] && { insmod "$module" || echo "init: cannot load $module"; }
done
ip link set lo up
hostname vm
cd /root

if [ -e /command ]; then
    echo "@BEGIN@"
    sh /command </dev/null 2>&1
    echo "@END@ $?"
else
    setsid cttyhack sh
fi
poweroff -f
