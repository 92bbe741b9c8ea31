#!/bin/busybox sh
# First process of the second node's VM: loads the modules and goes over to the disk.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    insmod "$module" || echo "init: cannot load $module"
done
# The disk appears when its driver has looked at it.
for _ in $(seq 100); do
    [ -b /dev/vda ] && break
    sleep 0.1
done
mount -t ext4 -o noatime /dev/vda /disk || { echo "init: cannot mount the disk"; poweroff -f; }
mount --move /dev /disk/dev
exec switch_root /disk /init
