# Makes the disk of a virtual machine out of a root file system: vm/image.rs runs it under unshare(1).
# In: LOWER (the root file system), EMULATOR (the tree that has the kernel), WORK (an empty folder), AGENT (a script), OUT
# (the file to make).
set -eu

mount -t tmpfs tmpfs "$WORK"
R=$WORK/root
mkdir "$WORK/upper" "$WORK/work" "$R"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$WORK/upper,workdir=$WORK/work" "$R"

cp -a "$EMULATOR/usr/lib/modules" "$R/usr/lib/"
chroot "$R" depmod "$(ls "$R/usr/lib/modules")"
cd "$R"
mkdir -p etc/sysctl.d
# What the documentation tells administrators to load, and what gateway and bridge need. No udev loads or permits anything.
printf '%s\n' overlay tun fuse bridge br_netfilter veth nf_tables nft_tproxy ip_tables iptable_nat ip6table_nat \
	nft_compat xt_addrtype xt_conntrack xt_MASQUERADE >etc/modules
printf 'net.ipv4.ping_group_range = 0 2147483647\n' >etc/sysctl.d/docker.conf
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

truncate -s 4G "$OUT"
mkfs.ext4 -q -F -d . -L root -O '^has_journal' "$OUT"
