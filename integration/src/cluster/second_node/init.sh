#!/bin/busybox sh
# The second node, from its disk: the file systems and settings that a distribution would have made, its network,
# containerd, its images, the kubelet. The @WORDS@ are filled in by second_node.rs. Whatever it says is on the console.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec </dev/null 2>&1

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
mount -t tracefs tracing /sys/kernel/tracing
mount -t securityfs security /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
mkdir -p /run/lock
ln -sf /proc/self/fd /dev/fd

hostname @NODE@
ip link set lo up
ip address add @ADDRESS@ dev eth0
ip link set eth0 up
ip route add default via @GATEWAY@
echo 1 > /proc/sys/net/ipv4/ip_forward
echo "init: Linux $(uname -r), security modules $(cat /sys/kernel/security/lsm), up for $(cut -d ' ' -f 1 /proc/uptime) s"

containerd --config @CONTAINERD@ &
until ctr --address @SOCKET@ version >/dev/null 2>&1; do
    kill -0 $! || poweroff -f
    sleep 0.2
done
echo "init: containerd is up after $(cut -d ' ' -f 1 /proc/uptime) s"
for image in /images/*.tar; do
    ctr --address @SOCKET@ --namespace k8s.io images import --local "$image" && rm "$image" || poweroff -f
done
echo "init: the images are loaded after $(cut -d ' ' -f 1 /proc/uptime) s"
kubelet @KUBELET@
echo "init: the kubelet ended with $?"
poweroff -f
