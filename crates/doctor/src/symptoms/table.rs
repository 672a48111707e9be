//! The messages. Special ones come before general ones: the first entry that occurs in a text explains it.

use super::Symptom;

const SUBIDS: &str = "run `sudo usermod --add-subuids START-END --add-subgids START-END USER` with 65536 IDs that are unused \
                      in /etc/subuid and /etc/subgid (`dockerd-rootless-setuptool.sh check` prints such a command)";
const MAP: &str = "run `sudo chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap`, `sudo setcap cap_setuid=ep /usr/bin/newuidmap` \
                   and `sudo setcap cap_setgid=ep /usr/bin/newgidmap`; in a container, use ranges in /etc/subuid and \
                   /etc/subgid that /proc/self/uid_map and /proc/self/gid_map contain";
const NO_IDS: &str =
    "newuidmap or newgidmap lacks privileges, or this machine is a container without these IDs";
const NO_OPEN: &str = "newuidmap or newgidmap is setuid, but runs without CAP_DAC_OVERRIDE";
const LOGIN: &str = "run `ssh USER@localhost` or `sudo machinectl shell USER@`, because su and sudo open no login session";
const BUS: &str = "as root, install dbus-user-session (Debian, Ubuntu) or dbus-daemon (Fedora, RHEL); then log out and in again";
const SANDBOX: &str = "slirp4netns's sandbox does not work with this host's files or kernel";
const NO_SPACE: &str = "the file system of the data root is full, or has no inodes left";
const MAKE_ROOM: &str = "delete files, or run `docker system prune`; if the daemon has stopped, delete files, and start it with \
                         `systemctl --user reset-failed docker.service` and `systemctl --user start docker.service`";
const NO_VIP: &str = "virtual IP addresses of services need IPVS, which the kernel does not offer in user namespaces";
const DNSRR: &str =
    "create the service with `--endpoint-mode dnsrr`, and publish its ports with `mode=host`";
const UNSANDBOXED: &str = "set DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false";

const CGROUP_V2: &str = "as root, add systemd.unified_cgroup_hierarchy=1 to the kernel command line (on Debian and Ubuntu: to \
                         GRUB_CMDLINE_LINUX in /etc/default/grub, then `update-grub`), and reboot";

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
        "on Debian, put the line `kernel.unprivileged_userns_clone = 1` into a file in /etc/sysctl.d, and run `sudo sysctl --system`; on Ubuntu, run `sudo \"$(command -v dockerd-rootless-setuptool.sh)\" apparmor`; if this machine is a container, start it with --security-opt seccomp=unconfined";
    "log-userns-eacces", "fork/exec /proc/self/exe: permission denied":
        "AppArmor does not let rootlesskit create user namespaces or run in them";
        "run `sudo \"$(command -v dockerd-rootless-setuptool.sh)\" apparmor`, which loads a profile for rootlesskit; if rootlesskit already has one, add the line `userns,` to that profile and, unless it is unconfined, `attach_disconnected` to its flags, and run `sudo apparmor_parser -r FILE`";
    "log-userns-enospc", "fork/exec /proc/self/exe: no space left on device":
        "user.max_user_namespaces, or the limit on another kind of namespace, is too small";
        "put the line `user.max_user_namespaces = 28633` into a file in /etc/sysctl.d, and run `sudo sysctl --system`; `sysctl -a --pattern '^user.max'` shows all limits";
    "log-userns-einval", "fork/exec /proc/self/exe: invalid argument":
        "the kernel lacks user namespaces, or another namespace type that rootlesskit needs";
        "use the distribution's kernel, or one with CONFIG_USER_NS=y";
    "log-userns-enosys", "fork/exec /proc/self/exe: function not implemented":
        "the kernel lacks clone3(2), added in Linux 5.3, or a container's seccomp filter hides it";
        "upgrade the kernel; if this machine is a container, start it with --security-opt seccomp=unconfined";
    "log-subuid", "No subuid ranges found":
        "the user has no entry in /etc/subuid";
        SUBIDS;
    "log-subgid", "No subgid ranges found":
        "the user has no entry in /etc/subgid";
        SUBIDS;
    "log-uid-map", "write to uid_map failed":
        NO_IDS;
        MAP;
    "log-gid-map", "write to gid_map failed":
        NO_IDS;
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
        "run `systemctl --user enable --now dbus.socket`; if there is no such unit, first install dbus-user-session (Debian, Ubuntu) or dbus-daemon (Fedora, RHEL)";
    "log-bus-auth", "Interactive authentication required":
        "dockerd connected to the system bus instead of the user's bus";
        "run `systemctl --user enable --now dbus.socket`, then log out and in again";
    "log-containerd-rootless", "conflicts with containerd-rootless":
        "containerd-rootless is running, or left its directory behind";
        "run `systemctl --user stop containerd.service`, and remove the directory that the message names";
    "log-second-daemon", "another RootlessKit is running with the same state directory":
        "this user already has a running daemon";
        "stop the other daemon with `systemctl --user stop docker.service`, with the command of your supervisor, or, if you started it by hand, with `pkill -x dockerd`";
    "log-no-rootlesskit", "dockerd needs to be started with root privileges":
        "dockerd was started without rootlesskit";
        "start dockerd-rootless.sh instead of dockerd";
    "log-not-rootless", "rootless mode needs to be enabled for running with RootlessKit":
        "daemon.json disables rootless mode";
        "remove the \"rootless\" option from daemon.json";
    "log-cgroup-driver", "native.cgroupdriver=systemd requires cgroup v2":
        "daemon.json requests the systemd cgroup driver, but the host uses cgroup v1";
        "remove native.cgroupdriver from exec-opts in daemon.json";
    "log-docker-proxy", "invalid userland-proxy-path":
        "docker-proxy is not in PATH, or \"userland-proxy-path\" in daemon.json is wrong";
        "remove \"userland-proxy-path\" from daemon.json, and add the directory of docker-proxy, which belongs to Docker's package, to PATH";
    "log-old-rootlesskit", "RootlessKit binary is too old":
        "rootlesskit is older than 0.14";
        "upgrade rootlesskit";
    "log-overlay-selinux", "overlay is not supported for Rootless with SELinux":
        "SELinux is on, so dockerd does not start with its classic storage driver overlay2";
        "as root, install the package fuse-overlayfs; if the daemon still does not start, set \"storage-driver\" to \"fuse-overlayfs\" in ~/.config/docker/daemon.json, which hides the images that you have";
    "log-low-port", "cannot expose privileged port":
        "the port is below net.ipv4.ip_unprivileged_port_start";
        "publish a higher port; or put the line `net.ipv4.ip_unprivileged_port_start = 0` into a file in /etc/sysctl.d, run `sudo sysctl --system`, and restart the daemon";
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
        "the file system is mounted without user_subvol_rm_allowed, and the kernel does not let users delete this btrfs subvolume without it";
        "add the mount option user_subvol_rm_allowed in /etc/fstab, and remount the file system; or set \"storage-driver\" to \"overlay2\" in ~/.config/docker/daemon.json, which hides the images that you have";
    "log-cgroup-v1", "without cgroups. To enable cgroups":
        "the host uses cgroup v1: container resource limits are ignored";
        CGROUP_V2;
    "log-cgroup-systemd", "without cgroups. Systemd is required":
        "dockerd was not started by the user's systemd: container resource limits are ignored";
        "stop the daemon, open a login session (`ssh USER@localhost`), and run `systemctl --user start docker.service`";
    "log-cgroup-delegation", "Limitation discarded":
        "the controller is not delegated to the user";
        "as root, put the lines `[Service]` and `Delegate=cpu cpuset io memory pids` into /etc/systemd/system/user@.service.d/delegate.conf, and reboot";
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
        "pasta's AppArmor profile denies it access to rootlesskit's namespaces (https://bugs.launchpad.net/bugs/2077158)";
        "upgrade the passt package, or install slirp4netns and set DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns";
    "log-proc", "error mounting \"proc\"":
        "mounts hide parts of /proc, as is usual in a container";
        "start this container with --privileged or --security-opt systempaths=unconfined";
    "log-docker-host", "environment variable overrides the active context":
        "DOCKER_HOST or DOCKER_CONTEXT is set and overrides the selected context";
        "run `unset DOCKER_HOST DOCKER_CONTEXT`, and remove both from ~/.bashrc and similar files";
    "log-socket-denied", "permission denied while trying to connect":
        "DOCKER_HOST or the current context points to another user's socket or to root's";
        "run `unset DOCKER_HOST` and `docker context use rootless`, and remove DOCKER_HOST from ~/.bashrc and similar files";
    "log-no-daemon", "Cannot connect to the Docker daemon":
        "the daemon is not running, or listens on another socket";
        "run `systemctl --user start docker.service`; if DOCKER_HOST is set, set it to `unix://$XDG_RUNTIME_DIR/docker.sock` or unset it";
    "log-proxy", "proxyconnect tcp … refused":
        "the daemon cannot reach the proxy: in the daemon's network namespace, 127.0.0.1 is a different loopback";
        "make the proxy listen on an address of the host's network, and use that address; or, with the network driver gateway, use 10.0.2.2, and add tcp:PORT to DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW";
    "log-port-taken", "failed to bind host port":
        "another program listens on that port";
        "publish another port";
    "log-no-address", "no IP addresses specified":
        "the port is published only on an IPv6 address, which the port driver does not support";
        "publish the port on all addresses (-p 8080:80), or remove DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER from the daemon's settings";
    "log-port-allocated", "port is already allocated":
        "another container publishes that port, or the port is published on two addresses that dockerd cannot tell apart inside the namespace";
        "use a port that `docker ps` does not list, or publish the port once on all addresses (-p 8080:80)";
    "log-address-taken", "address already in use":
        "another program uses that address";
        "stop the other program, or choose another address";
    "log-x509", "x509: certificate signed by unknown authority":
        "the host's CA certificate is not visible inside the namespace";
        "put the CA's certificate into ~/.config/docker/certs.d/REGISTRY/ca.crt, where REGISTRY is the registry as in image names, such as registry.example.org:5000";
    "log-lchown-nfs", "lchown … operation not permitted":
        "the data root is on a file system that does not support subordinate IDs, such as NFS";
        "in ~/.config/docker/daemon.json, set \"data-root\" to a directory on a local file system";
    "log-lchown-ids", "lchown … invalid argument":
        "the image needs more subordinate IDs than the user has";
        "run `sudo usermod --add-subuids START-END --add-subgids START-END USER` with a range that is unused in /etc/subuid and /etc/subgid, and restart the daemon";
    "log-quota", "disk quota exceeded":
        "the user's quota is exhausted";
        MAKE_ROOM;
    "log-cgroup-space", "mkdir /sys/fs/cgroup/ … no space left on device":
        "the kernel's limit of 65535 control groups is reached; the groups of removed containers count until their memory is freed";
        "run `sudo sysctl -w vm.drop_caches=3`, which frees the control groups of removed containers; if that is not enough, stop containers";
    "log-cgroup-cpuset", "write /sys/fs/cgroup/ … no space left on device":
        "the control group has no CPU that is online, or no memory node";
        "correct the container's --cpuset-cpus and --cpuset-mems; if neither option is set, find the topmost directory on the message's path in which cpuset.cpus.effective is empty, and set AllowedCPUs= in the systemd unit that has the same name as this directory";
    "log-space", "mkdir … no space left on device":
        NO_SPACE;
        MAKE_ROOM;
    "log-space", "write … no space left on device":
        NO_SPACE;
        MAKE_ROOM;
    "log-snapshotter", "containerd-mount … operation not permitted":
        "the storage driver, such as btrfs or zfs, mounts file systems, which an ordinary user cannot do";
        "remove \"storage-driver\" from ~/.config/docker/daemon.json, restart the daemon, and pull the images again";
    "log-swarm-directory", "mkdir /var/lib/docker:":
        "as a node of a swarm, dockerd writes to /var/lib/docker, which an ordinary user cannot create";
        "run `dockerd-rootless-setuptool.sh install --swarm=ADDRESS,peers=NETWORK` with the address of this host and the network of the other nodes, and restart the daemon";
    "log-swarm-vxlan", "error creating vxlan interface … not supported":
        "the kernel does not support VXLAN, which overlay networks use";
        "run `sudo modprobe vxlan`, and put the line `vxlan` into a file in /etc/modules-load.d; on Ubuntu, the module is in the package linux-modules-extra-$(uname -r)";
    "log-sysctl", "ip_forward":
        "/proc/sys is read-only, as is usual in a container";
        "start this container with --privileged";
    "log-start-limit", "Start request repeated too quickly":
        "the daemon failed three times in a minute";
        "fix the first error in `journalctl --user -u docker.service`, then run `systemctl --user reset-failed docker.service` and `systemctl --user start docker.service`";
    "log-program", "executable file not found":
        "the unit's PATH lacks a directory";
        "add the directory of the program to PATH, run `dockerd-rootless-setuptool.sh install`, which writes PATH into the unit, and `systemctl --user restart docker.service`";
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
