# Makes what a virtual machine boots from out of a root file system: vm/image.rs runs it under unshare(1).
# In: LOWER (the root file system), KERNEL (the files of a kernel's package), WORK (an empty folder), INIT and AGENT
# (scripts), OUT (the folder to make).
set -eu

mount -t tmpfs tmpfs "$WORK"
R=$WORK/root
mkdir "$OUT" "$WORK/upper" "$WORK/work" "$R"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$WORK/upper,workdir=$WORK/work" "$R"

# Debian 13 moved them to /usr.
for modules in "$KERNEL"/lib/modules/* "$KERNEL"/usr/lib/modules/*; do
	[ ! -d "$modules" ] || break
done
release=${modules##*/}
mkdir -p "$R/lib/modules"
cp -a "$modules" "$R/lib/modules/"
chroot "$R" depmod "$release"
# Since Linux 7, it is beside its modules.
for kernel in "$KERNEL/boot/vmlinuz-$release" "$modules/vmlinuz"; do
	[ ! -f "$kernel" ] || cp "$kernel" "$OUT/vmlinuz"
done

# What it takes to find the disk and to talk to the agent; most kernels have some of it built in. The names sort in
# the order in which they have to be loaded.
I=$R/initrd
mkdir -p "$I/bin" "$I/modules"
cp "$R/bin/busybox" "$I/bin/"
printf '%s' "$INIT" >"$I/init"
chmod 755 "$I/init"
number=100
for name in nvme ext4 virtio_pci virtio_console; do
	chroot "$R" modprobe --set-version "$release" --show-depends "$name"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
	number=$((number + 1))
	case $file in
	*.xz) chroot "$R" busybox xzcat "$file" ;;
	*) cat "$R$file" ;;
	esac >"$I/modules/$number.ko"
done
chroot "$R" sh -c 'cd /initrd && find . | busybox cpio -o -H newc | gzip -1' >"$OUT/initrd"
rm -r "$I"

cd "$R"
# What the documentation tells administrators to load, and what gateway and bridge need. No udev loads or permits
# anything.
printf '%s\n' overlay tun fuse bridge br_netfilter veth nf_tables nft_tproxy ip_tables iptable_nat ip6table_nat \
	nft_compat xt_addrtype xt_conntrack xt_MASQUERADE >etc/agent.modules
# Off: a rootful Docker, what waits for a console, and what works on its own account.
for unit in docker.service docker.socket containerd.service getty.target timers.target; do
	ln -sf /dev/null "etc/systemd/system/$unit"
done
mkdir -p var/lib/systemd/linger
touch var/lib/systemd/linger/tester
printf '/dev/root / ext4 defaults 0 0\n' >etc/fstab

printf '%s' "$AGENT" >usr/local/sbin/agent
cat >etc/systemd/system/agent.service <<-'UNIT'
	[Unit]
	After=multi-user.target
	[Service]
	ExecStart=/bin/bash /usr/local/sbin/agent
	[Install]
	WantedBy=multi-user.target
UNIT
ln -s ../agent.service etc/systemd/system/multi-user.target.wants/agent.service
# Services that only run when files changed would run at every start, since the disk is used again and again.
touch etc/.updated var/.updated
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id

# With a policy of SELinux, all files have a label, which the disk keeps. The kernel here need not know labels: -m has
# setfiles label what it would take for file systems without any. It gets all names, since it passes over what has
# another device than its directory, which is the case for files in an overlay.
policy=/etc/selinux/default/contexts/files/file_contexts
[ ! -f ".$policy" ] || chroot . sh -c "find / -print0 | setfiles -m -F -0 -f - $policy"

truncate -s 4G "$OUT/disk"
mkfs.ext4 -q -F -d . -L root -O '^has_journal' "$OUT/disk"
