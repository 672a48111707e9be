//! The messages. Special ones come before general ones: the first entry that occurs in a text explains it.

use super::Symptom;

const SUBIDS: &str = "run `sudo usermod --add-subuids START-END --add-subgids START-END USER` with a range of 65536 IDs \
                      that is unused in /etc/subuid and /etc/subgid (`dockerd-rootless-setuptool.sh check` prints the \
                      command with such a range)";
const MAP: &str = "run `sudo chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap`, `sudo setcap cap_setuid=ep /usr/bin/newuidmap` \
                   and `sudo setcap cap_setgid=ep /usr/bin/newgidmap`; if their file system is mounted with nosuid, run `sudo \
                   mount -o remount,suid MOUNTPOINT`; if the daemon's unit contains NoNewPrivileges=, remove that line; in a \
                   container, replace the ranges in /etc/subuid and /etc/subgid that /proc/self/uid_map and \
                   /proc/self/gid_map do not contain";
const NO_OPEN: &str = "newuidmap or newgidmap runs as root without CAP_DAC_OVERRIDE: it is setuid in a container that lacks \
                       this capability, or it has both the setuid bit and file capabilities";
const LOGIN: &str = "open a login session (su and sudo do not open one): run `ssh USER@localhost` or `sudo machinectl shell USER@`";
const BUS: &str = "as root, install dbus-user-session (Debian, Ubuntu) or dbus-daemon (Fedora, RHEL); then log out and in again";
const SANDBOX: &str = "slirp4netns's sandbox does not work with this host's files or kernel";
const NO_SPACE: &str = "the file system of the data root is full, or has no inodes left";
const MAKE_ROOM: &str = "delete files (`df -h` and `df -i` show what has run out); if the daemon is running, `docker system prune` \
                         deletes what no container uses; if it has stopped, run `systemctl --user reset-failed \
                         docker.service` and `systemctl --user start docker.service` when there is room";
const NO_VIP: &str = "virtual IP addresses of a swarm's services need IPVS, which the kernel does not offer in user namespaces";
const DNSRR: &str = "create the service with `--endpoint-mode dnsrr`, or use the name tasks.SERVICE; in both cases, publish its ports with `mode=host`";
const UNSANDBOXED: &str = "set DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false";

/// A line each for code and message, cause, and fix.
macro_rules! symptoms {
    ($($code:literal, $token:literal: $cause:expr; $fix:expr;)+) => {
        pub const SYMPTOMS: &[Symptom] =
            &[$(Symptom { code: $code, token: $token, cause: $cause, fix: $fix }),+];
    };
}

symptoms! {
    "log-xtables-lock", "/run/xtables.lock: Permission denied":
        "SELinux blocks Docker before 20.10.8 (https://github.com/moby/moby/issues/41230)";
        "upgrade Docker, or run `sudo dnf install -y policycoreutils-python-utils && sudo semanage permissive -a iptables_t`";
    "log-userns-eperm", "fork/exec /proc/self/exe: operation not permitted":
        "user namespaces are blocked by kernel.unprivileged_userns_clone, by AppArmor or by a container's seccomp filter";
        "if the parameter exists, run `sudo sysctl -w kernel.unprivileged_userns_clone=1`, and put the line `kernel.unprivileged_userns_clone = 1` into a file in /etc/sysctl.d; on Ubuntu, run `sudo \"$(command -v dockerd-rootless-setuptool.sh)\" apparmor`; if this machine is a container, start it with --security-opt seccomp=unconfined";
    "log-userns-eacces", "fork/exec /proc/self/exe: permission denied":
        "AppArmor does not let rootlesskit create user namespaces or run in them";
        "run `sudo \"$(command -v dockerd-rootless-setuptool.sh)\" apparmor`, which installs and loads a profile for rootlesskit; if rootlesskit already has a profile, add the line `userns,` to that profile instead, and `attach_disconnected` to its flags unless they have `unconfined`; then load it with `sudo apparmor_parser -r FILE`";
    "log-userns-enospc", "fork/exec /proc/self/exe: no space left on device":
        "user.max_user_namespaces, or the limit of another kind of namespaces, is too small";
        "run `sysctl -a --pattern '^user.max'` to see the limits; for user namespaces, run `sudo sysctl -w user.max_user_namespaces=28633`, and put the line `user.max_user_namespaces = 28633` into a file in /etc/sysctl.d";
    "log-userns-einval", "fork/exec /proc/self/exe: invalid argument":
        "the kernel was built without user namespaces (CONFIG_USER_NS) or without another namespace type that rootlesskit needs";
        "use the distribution's kernel, or one with CONFIG_USER_NS=y";
    "log-userns-enosys", "fork/exec /proc/self/exe: function not implemented":
        "the kernel lacks clone3(2), added in Linux 5.3, or a container's seccomp filter hides it";
        "upgrade the kernel; if this machine is a container, upgrade its engine or start the container with --security-opt seccomp=unconfined";
    "log-subuid", "No subuid ranges found":
        "the user has no entry in /etc/subuid";
        SUBIDS;
    "log-subgid", "No subgid ranges found":
        "the user has no entry in /etc/subgid";
        SUBIDS;
    "log-uid-map", "write to uid_map failed":
        "newuidmap lacks privileges, or the container does not have these IDs";
        MAP;
    "log-gid-map", "write to gid_map failed":
        "newgidmap lacks privileges, or the container does not have these IDs";
        MAP;
    "log-uid-map", "open of uid_map failed":
        NO_OPEN;
        MAP;
    "log-gid-map", "open of gid_map failed":
        NO_OPEN;
        MAP;
    "log-runtime-dir", "could not get XDG_RUNTIME_DIR":
        "XDG_RUNTIME_DIR is not set";
        LOGIN;
    "log-runtime-dir", "XDG_RUNTIME_DIR needs to be set":
        "XDG_RUNTIME_DIR is not set";
        LOGIN;
    "log-bus", "Failed to connect to bus":
        "the user has no D-Bus session (common after su or sudo)";
        LOGIN;
    "log-bus", "No medium found":
        "the user has no service manager (common after su or sudo)";
        LOGIN;
    "log-no-systemd", "systemd not detected":
        "the user's service manager cannot be reached (common after su or sudo)";
        LOGIN;
    "log-bus-unit", "Unit dbus.socket not found":
        "the unit requires dbus.socket, but D-Bus for user sessions is not installed";
        BUS;
    "log-bus-reset", "systemd/private: read: connection reset by peer":
        "the user's D-Bus session is not running";
        "if D-Bus for user sessions is missing, install dbus-user-session (Debian, Ubuntu) or dbus-daemon (Fedora, RHEL) as root; then run `systemctl --user enable --now dbus.socket`";
    "log-bus-auth", "Interactive authentication required":
        "dockerd connected to the system bus instead of the user's bus";
        "run `systemctl --user enable --now dbus.socket`, then log out and in again";
    "log-containerd-rootless", "conflicts with containerd-rootless":
        "containerd-rootless is running, or (with Docker's own dockerd-rootless.sh) left its directory behind";
        "run `systemctl --user stop containerd.service`, and remove the directory that the message names";
    "log-second-daemon", "another RootlessKit is running with the same state directory":
        "this user already has a running daemon";
        "stop the other daemon: run `systemctl --user stop docker.service`; with `install --supervise`, run the command for your supervisor in docs/install.md (\"Without systemd\"); if you started the daemon by hand, run `pkill -x dockerd`";
    "log-no-rootlesskit", "dockerd needs to be started with root privileges":
        "dockerd was started without rootlesskit";
        "start dockerd-rootless.sh instead of dockerd";
    "log-not-rootless", "rootless mode needs to be enabled for running with RootlessKit":
        "daemon.json disables rootless mode";
        "remove the \"rootless\" option from daemon.json";
    "log-cgroup-driver", "native.cgroupdriver=systemd requires cgroup v2":
        "daemon.json requests the systemd cgroup driver, but the host uses cgroup v1";
        "remove native.cgroupdriver from exec-opts in daemon.json, or boot with cgroup v2 only: as root, add systemd.unified_cgroup_hierarchy=1 to GRUB_CMDLINE_LINUX in /etc/default/grub, run `update-grub` (on SUSE: `grub2-mkconfig -o /boot/grub2/grub.cfg`; on Fedora and RHEL, instead of both: `grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1`), and reboot";
    "log-docker-proxy", "invalid userland-proxy-path":
        "docker-proxy is not in PATH, or \"userland-proxy-path\" in daemon.json is not the path of a program";
        "remove \"userland-proxy-path\" from daemon.json, and add the directory of docker-proxy, which is in the same package as dockerd (docker-ce, docker.io), to PATH; with Docker 28 or later, you can set \"userland-proxy\": false in daemon.json instead";
    "log-old-rootlesskit", "RootlessKit binary is too old":
        "rootlesskit is older than 0.14";
        "upgrade rootlesskit";
    "log-overlay-selinux", "overlay is not supported for Rootless with SELinux":
        "SELinux is enabled";
        "as root, install the package fuse-overlayfs";
    "log-low-port", "cannot expose privileged port":
        "the port is below net.ipv4.ip_unprivileged_port_start";
        "publish a higher port; or run `sudo sysctl -w net.ipv4.ip_unprivileged_port_start=0`, and put the line `net.ipv4.ip_unprivileged_port_start = 0` into a file in /etc/sysctl.d; or, unless the network driver is pasta, run `sudo setcap cap_net_bind_service=ep \"$(command -v rootlesskit)\"`; after either command, restart the daemon";
    "log-port-twice", "listen tcp 10.0.2.100":
        "Docker 29.0 binds published ports twice with the port driver slirp4netns (https://github.com/moby/moby/issues/51591)";
        "upgrade Docker, or install pasta (package passt) and set DOCKERD_ROOTLESS_ROOTLESSKIT_NET=pasta and DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=implicit";
    "log-port-loopback", "127.0.0. … cannot assign requested address":
        "Docker 29.5 cannot publish on IPv4 loopback addresses other than 127.0.0.1 (https://github.com/moby/moby/issues/52783)";
        "upgrade Docker to 29.6 or later, or publish on 127.0.0.1";
    "log-port-race", "AddPort … address already in use":
        "another program listens on that port, or two containers asked for any free port at the same time (https://github.com/moby/moby/issues/52903)";
        "publish another port; if you did not specify a port, try again or upgrade Docker";
    "log-fsmount", "fsmount:fscontext":
        "this is a bug in a pre-release of Docker 29.5";
        "upgrade Docker";
    "log-port-protocol", "is not supported by the RootlessKit port driver":
        "the slirp4netns port driver supports only IPv4";
        "if IPv4 is enough, ignore this message; otherwise set DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=builtin";
    "log-btrfs", "destroy btrfs snapshot":
        "the file system is mounted without user_subvol_rm_allowed, so users cannot delete btrfs subvolumes";
        "add the mount option user_subvol_rm_allowed to the file system in /etc/fstab and remount it, or, in ~/.config/docker/daemon.json, set \"storage-driver\" to \"overlay2\", restart the daemon, and pull the images again";
    "log-cgroup-v1", "without cgroups. To enable cgroups":
        "the host uses cgroup v1: container resource limits are ignored";
        "as root, add systemd.unified_cgroup_hierarchy=1 to GRUB_CMDLINE_LINUX in /etc/default/grub, run `update-grub` (on SUSE: `grub2-mkconfig -o /boot/grub2/grub.cfg`; on Fedora and RHEL, instead of both: `grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1`), and reboot";
    "log-cgroup-systemd", "without cgroups. Systemd is required":
        "dockerd was not started by the user's systemd: container resource limits are ignored";
        "open a login session (`ssh USER@localhost` or `sudo machinectl shell USER@`), stop the daemon, and run `systemctl --user start docker.service`";
    "log-cgroup-delegation", "Limitation discarded":
        "the controller is not delegated to the user";
        "as root, put the lines `[Service]` and `Delegate=cpu cpuset io memory pids` into /etc/systemd/system/user@.service.d/delegate.conf, and run `systemctl daemon-reload`; then reboot, or run `sudo systemctl restart user@UID.service`, which ends all services and containers of the user";
    "log-iproute2", "ip tuntap":
        "BusyBox's `ip` cannot create the interface that rootlesskit needs";
        "as root, install iproute2 (on Alpine: `apk add iproute2`)";
    "log-sandbox", "create_sandbox":
        SANDBOX;
        UNSANDBOXED;
    "log-sandbox", "slirp4netns failed … sandbox":
        SANDBOX;
        UNSANDBOXED;
    "log-pasta", "Couldn't open … namespace … Permission denied":
        "pasta's AppArmor profile denies it access to rootlesskit's namespaces (Ubuntu 23.10 and 24.04, https://bugs.launchpad.net/bugs/2077158)";
        "upgrade the passt package, or install slirp4netns and set DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns";
    "log-proc", "error mounting \"proc\"":
        "mounts hide parts of /proc, as is usual in a container";
        "start this container with --privileged or --security-opt systempaths=unconfined";
    "log-docker-host", "environment variable overrides the active context":
        "DOCKER_HOST or DOCKER_CONTEXT is set and overrides the selected context";
        "to use the selected context, run `unset DOCKER_HOST DOCKER_CONTEXT`, and remove both from ~/.bashrc and similar files";
    "log-socket-denied", "permission denied while trying to connect":
        "DOCKER_HOST or the current context points to another user's socket or to root's";
        "run `unset DOCKER_HOST` and `docker context use rootless`, and remove DOCKER_HOST from ~/.bashrc and similar files";
    "log-no-daemon", "Cannot connect to the Docker daemon":
        "the daemon is not running, or listens on another socket";
        "run `systemctl --user start docker.service`; if DOCKER_HOST is set, set it to `unix://$XDG_RUNTIME_DIR/docker.sock` or unset it";
    "log-proxy", "proxyconnect tcp … refused":
        "the daemon cannot reach the proxy: in the daemon's network namespace, 127.0.0.1 is a different loopback";
        "make the proxy listen on an address of the host's network, and use that address; or set the proxy to 10.0.2.2 (10.0.2.1 with the network driver gvisor-tap-vsock), and either add tcp:PORT to DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW (network driver gateway) or set DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK=false, after which containers can reach every service on the host's loopback";
    "log-port-taken", "failed to bind host port":
        "another program listens on that port";
        "publish another port";
    "log-no-address", "no IP addresses specified":
        "the port is published only on an IPv6 address, and the port driver offers dockerd no IPv6 address (slirp4netns, pesto, RootlessKit's own gvisor-tap-vsock)";
        "publish the port on all addresses (-p 8080:80), or remove DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER from the daemon's settings";
    "log-port-allocated", "port is already allocated":
        "another container publishes that port; or the port is published on several addresses that dockerd cannot tell apart inside the namespace: two IPv6 addresses, or, with Docker 28 and later, two IPv4 addresses (since Docker 29.6, loopback addresses other than 127.0.0.1 no longer cause this)";
        "use a port that `docker ps` does not list, or publish the port once on all addresses (-p 8080:80)";
    "log-address-taken", "address already in use":
        "another program uses that address";
        "stop the other program, or choose another address";
    "log-x509", "x509: certificate signed by unknown authority":
        "the host's CA certificate is not visible inside the namespace";
        "for one registry, put the CA's certificate into ~/.config/docker/certs.d/REGISTRY/ca.crt, where REGISTRY is the name and, if the image names contain one, the port of the registry; for all registries, as root, put it into /etc/ssl/certs as a regular file, and restart the daemon";
    "log-lchown-nfs", "lchown … operation not permitted":
        "the data root is on a file system that does not support subordinate IDs, such as NFS";
        "in ~/.config/docker/daemon.json, set \"data-root\" to a directory on a local file system";
    "log-lchown-ids", "lchown … invalid argument":
        "the image needs more subordinate IDs than the user has";
        "run `sudo usermod --add-subuids START-END --add-subgids START-END USER` with a further range that is unused in /etc/subuid and /etc/subgid, such as 165536-231071; then restart the daemon";
    "log-quota", "disk quota exceeded":
        "the user's quota is exhausted";
        "delete files, or ask the administrator for a larger quota; if the daemon is running, `docker system prune` deletes what no container uses; if it has stopped, run `systemctl --user reset-failed docker.service` and `systemctl --user start docker.service` when there is room";
    "log-cgroup-space", "mkdir /sys/fs/cgroup/ … no space left on device":
        "the kernel has too many control groups: at most 65535 can have the memory controller, and those of removed containers count while they still have memory";
        "`cat /sys/fs/cgroup/cgroup.stat` shows how many exist (nr_descendants) and how many were removed but still have memory (nr_dying_descendants); for the former, stop containers and services that you do not need; for the latter, run `sudo sysctl -w vm.drop_caches=3`, and if they become many again, upgrade the kernel";
    "log-cgroup-cpuset", "write /sys/fs/cgroup/ … no space left on device":
        "the control group has no CPU that is online, or no memory node";
        "find the topmost directory on the path in the message whose cpuset.cpus.effective is empty (cgroup v1: cpuset.cpus or cpuset.mems), and give it CPUs that are online: with AllowedCPUs= in the unit of this name, or as root with a write to cpuset.cpus; if it belongs to the container, correct --cpuset-cpus and --cpuset-mems";
    "log-space", "mkdir … no space left on device":
        NO_SPACE;
        MAKE_ROOM;
    "log-space", "write … no space left on device":
        NO_SPACE;
        MAKE_ROOM;
    "log-snapshotter", "containerd-mount … operation not permitted":
        "the containerd image store has a storage driver that mounts file systems, such as btrfs or zfs, which a user cannot do";
        "remove \"storage-driver\" from ~/.config/docker/daemon.json, restart the daemon, and pull the images again";
    "log-swarm-directory", "mkdir /var/lib/docker:":
        "as a node of a swarm, dockerd writes to /var/lib/docker, regardless of its data root, and an ordinary user cannot create this directory";
        "run `dockerd-rootless-setuptool.sh install --swarm=ADDRESS,peers=NETWORK` and restart the daemon, or set DOCKERD_ROOTLESS_SWARM to ADDRESS,peers=NETWORK; ADDRESS is the address at which the other nodes reach this host, and NETWORK is the network of the other nodes";
    "log-swarm-vxlan", "error creating vxlan interface … not supported":
        "the kernel does not support VXLAN, which overlay networks use";
        "run `sudo modprobe vxlan`, and put the line `vxlan` into a file in /etc/modules-load.d; if there is no such module, install the package with the kernel's additional modules (on Ubuntu, linux-modules-extra-$(uname -r))";
    "log-sysctl", "ip_forward":
        "/proc/sys is read-only, as is usual in a container";
        "start this container with --privileged";
    "log-start-limit", "Start request repeated too quickly":
        "the daemon failed three times in a minute";
        "find the first error in `journalctl --user -u docker.service`, fix its cause, then run `systemctl --user reset-failed docker.service` and `systemctl --user start docker.service`";
    "log-program", "executable file not found":
        "the unit's PATH lacks a directory";
        "add the directory of the program that the message names to PATH, run `dockerd-rootless-setuptool.sh install`, which writes PATH into the unit, and run `systemctl --user restart docker.service`";
    "log-context", "is not found on the file system":
        "the docker CLI's current context was deleted";
        "run `docker --context=default context use default`";
    "log-tun", "/dev/net/tun":
        "the device /dev/net/tun is missing or not accessible";
        "run `sudo modprobe tun` and `sudo chmod 0666 /dev/net/tun`, and put the line `tun` into a file in /etc/modules-load.d; if this machine is a container, start it with --device /dev/net/tun";
    "log-fuse", "fuse: device not found":
        "the device /dev/fuse is missing";
        "run `sudo modprobe fuse`, and put the line `fuse` into a file in /etc/modules-load.d";
    "log-rslave", "not shared":
        "the propagation of the mount / is private, as is usual in a container";
        "run `sudo mount --make-rshared /`; if your containers do not use shared or slave mounts, ignore the message";
    "log-swarm-vip", "Failed to create an ipvs handle":
        NO_VIP;
        DNSRR;
    "log-swarm-vip", "Failed to create a new service for vip":
        NO_VIP;
        DNSRR;
}
