# PID 1 of a box, from its first namespace to the moment it only reaps: boxes.rs runs it under unshare(1).
# In: LOWER (the root file system), WORK (an empty folder), TUN (mode of /dev/net/tun), SYSTEMD (1: it becomes systemd).
set -eu

# Everything written goes to a tmpfs of this mount namespace: nothing to remove afterwards.
mount -t tmpfs -o mode=755 tmpfs "$WORK"
R=$WORK/root
mkdir "$WORK/upper" "$WORK/work" "$R" "$WORK/docker"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$WORK/upper,workdir=$WORK/work" "$R"

mount -t proc proc "$R/proc"
mount -t sysfs sysfs "$R/sys"
mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup"
mount -t tmpfs -o nosuid,mode=755 tmpfs "$R/dev"
mkdir -m 755 "$R/dev/pts" "$R/dev/shm" "$R/dev/net" "$R/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$R/dev/shm"
mount -t mqueue mqueue "$R/dev/mqueue"
# Nodes of its own: a bind mount would let the box change the mode of the machine's.
for node in null:1:3:666 zero:1:5:666 full:1:7:666 random:1:8:666 urandom:1:9:666 tty:5:0:666 \
	net/tun:10:200:"$TUN" fuse:10:229:666; do
	IFS=: read -r name major minor mode <<<"$node"
	mknod -m "$mode" "$R/dev/$name" c "$major" "$minor"
done
ln -s /proc/self/fd "$R/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${n%:*}" "$R/dev/${n#*:}"; done
mount -t tmpfs -o mode=755 tmpfs "$R/run"
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
mkdir -m 1777 "$R/run/box"
# overlayfs cannot be the upper layer of overlayfs, so docker's data lies on the tmpfs itself.
if [ "$SYSTEMD" = 1 ]; then
	# The whole home does: what the setup tool makes and removes below it are folders, not mount points.
	cp -a "$R/home/tester" "$WORK/home"
	mount --bind "$WORK/home" "$R/home/tester"
else
	mkdir -p "$R/run/user/1001" "$R/run/lock"
	chown 1001:1001 "$R/run/user/1001"
	chmod 700 "$R/run/user/1001"
	mkdir -p "$R/home/tester/.local/share/docker"
	chown 1001:1001 "$WORK/docker"
	chown -R 1001:1001 "$R/home/tester/.local"
	mount --bind "$WORK/docker" "$R/home/tester/.local/share/docker"
fi
# Tools that look for the module of a feature find it "built in", as it is on kernels without modules.
modules=$R/lib/modules/$(uname -r)
mkdir -p "$modules"
printf '%s\n' kernel/net/netfilter/nf_tables.ko kernel/net/ipv4/netfilter/ip_tables.ko >"$modules/modules.builtin"

hostname testbox
cd "$R"
mkdir -p oldroot
pivot_root . oldroot
cd /
umount -l /oldroot
rmdir /oldroot
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# As systemd leaves the root of a real host.
mount --make-rshared /

sysctl -qw net.ipv4.ping_group_range='0 2147483647'
ip link set lo up
ip netns add peer
ip link add eth0 type veth peer name eth1
ip link set eth1 netns peer
for line in "- eth0 10.77.0.1/24 fd77::1/64" "peer eth1 10.77.0.2/24 fd77::2/64"; do
	read -r where device v4 v6 <<<"$line"
	in=; [ "$where" = - ] || in="ip netns exec $where"
	$in sysctl -qw "net.ipv6.conf.$device.accept_dad=0"
	$in ip addr add "$v4" dev "$device"
	$in ip -6 addr add "$v6" dev "$device" nodad
	$in ip link set "$device" up
done
ip -n peer link set lo up
ip route add default via 10.77.0.2
ip -6 route add default via fd77::2

touch /run/box/ready
if [ "$SYSTEMD" = 1 ]; then
	# Off: what would start a rootful Docker, wait for a console, use the network by itself, or write to kernel
	# parameters, which a box shares with its machine.
	for unit in docker.service docker.socket containerd.service getty.target console-getty.service timers.target \
		systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount; do
		ln -sf /dev/null "/etc/systemd/system/$unit"
	done
	mkdir -p /var/lib/systemd/linger
	touch /var/lib/systemd/linger/tester
	exec env -i container=box TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		/sbin/init --log-target=console --show-status=yes
fi
# PID 1 does nothing but reap. busybox's shell waits for children it never started, too.
exec setsid busybox sh -c 'trap : TERM INT HUP; while :; do sleep 3600 & wait $!; done'
