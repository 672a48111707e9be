#!/bin/busybox sh
# The first process: loads the modules beside it, mounts the disk, and becomes the disk's init. vm/image.sh puts it
# into the initial RAM disk.
export PATH=/bin
busybox mkdir -p /proc /dev /disk
busybox mount -t devtmpfs dev /dev
for module in /modules/*; do
	busybox insmod "$module"
done
until [ -b /dev/nvme0n1 ]; do
	busybox sleep 0.05
done
busybox mount -t ext4 /dev/nvme0n1 /disk
busybox mount -o move /dev /disk/dev
exec busybox switch_root /disk /sbin/init
