# Becomes the emulator: vm/mod.rs runs it under unshare(1).
# In: EMULATOR (a tree), KERNEL (a file in it), DISK (the guest's root, not written), WORK (for the console's output).
set -eu

# What the guest writes goes to an unnamed file on this tmpfs.
mount -t tmpfs tmpfs "$EMULATOR/tmp"
mkdir "$EMULATOR/tmp/work"
mount --bind "$WORK" "$EMULATOR/tmp/work"
touch "$EMULATOR/tmp/disk"
mount --bind "$DISK" "$EMULATOR/tmp/disk"

# Emulated, since few machines of continuous integration lend out KVM. Without: instructions that copy strings, which
# are emulated byte by byte, and a fifth level of page tables. A single disk, since the kernel names several in any order.
exec chroot "$EMULATOR" env TMPDIR=/tmp qemu-system-x86_64 \
	-accel tcg,thread=multi,tb-size=512 -cpu max,-erms,-fsrm,-la57 -smp 2 -m 2048 -M q35 \
	-display none -monitor none -nic none -no-reboot -serial file:/tmp/work/console \
	-kernel "$KERNEL" -append "root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1 mitigations=off TERM=dumb" \
	-drive if=none,id=root,format=raw,snapshot=on,file=/tmp/disk -device nvme,drive=root,serial=root \
	-chardev stdio,id=agent,signal=off -device virtio-serial-pci -device virtserialport,chardev=agent
