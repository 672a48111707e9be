# Becomes the emulator: vm/mod.rs runs it under unshare(1).
# In: EMULATOR (a tree), IMAGE (the folder of the kernel and the disk, not written), WORK (for the console's output),
# PROCESSORS, MEMORY (in MiB), APPEND (more options for the kernel).
set -eu

# What the guest writes goes to an unnamed file on this tmpfs.
mount -t tmpfs tmpfs "$EMULATOR/tmp"
mkdir "$EMULATOR/tmp/work" "$EMULATOR/tmp/image"
mount --bind "$WORK" "$EMULATOR/tmp/work"
mount --bind "$IMAGE" "$EMULATOR/tmp/image"

# Emulated, since few machines of continuous integration lend out KVM. Without: instructions that copy strings, which
# are emulated byte by byte, and a fifth level of page tables. A single disk, since the kernel names several in any
# order, and with one path to it, since limits of input and output do not apply to a disk with several.
exec chroot "$EMULATOR" env TMPDIR=/tmp qemu-system-x86_64 \
	-accel tcg,thread=multi,tb-size=512 -cpu max,-erms,-fsrm,-la57 -smp "$PROCESSORS" -m "$MEMORY" -M q35 \
	-display none -monitor none -nic none -serial file:/tmp/work/console \
	-kernel /tmp/image/vmlinuz -initrd /tmp/image/initrd \
	-append "console=ttyS0 quiet mitigations=off nvme_core.multipath=0 TERM=dumb $APPEND" \
	-drive if=none,id=root,format=raw,snapshot=on,file=/tmp/image/disk -device nvme,drive=root,serial=root \
	-chardev stdio,id=agent,signal=off -device virtio-serial-pci -device virtserialport,chardev=agent
