//! The messages. Special ones come before general ones: the first entry that occurs in a text explains it.

use super::Symptom;

const SUBIDS: &str = "run `sudo usermod --add-subuids START-END --add-subgids START-END USER` with a range of 65536 IDs \
                      that is unused in /etc/subuid and /etc/subgid (`dockerd-rootless-setuptool.sh check` prints the \
                      command with such a range)";
const MAP: &str = "run `sudo chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap`, `sudo setcap cap_setuid=ep /usr/bin/newuidmap` \
                   and `sudo setcap cap_setgid=ep /usr/bin/newgidmap`, and make sure that neither a nosuid mount nor \
                   NoNewPrivileges= takes these capabilities away; in a container, use only ranges that \
                   /proc/self/uid_map and /proc/self/gid_map contain";
const NO_OPEN: &str = "newuidmap or newgidmap runs as root without CAP_DAC_OVERRIDE: it is setuid in a container that lacks \
                       this capability, or it has both the setuid bit and file capabilities";
const LOGIN: &str = "log in directly (ssh, machinectl shell USER@) instead of using su or sudo";
const BUS: &str = "install dbus-user-session (Debian) or dbus-daemon (Fedora) and log in again";
const SANDBOX: &str = "slirp4netns's sandbox does not work with this host's files or kernel";
const NO_VIP: &str = "virtual IP addresses of a swarm's services need IPVS, which the kernel does not offer in user namespaces";
const DNSRR: &str = "create the service with `--endpoint-mode dnsrr` and publish its ports with `mode=host`; or use the name tasks.SERVICE";
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
        "run `sudo sysctl -w kernel.unprivileged_userns_clone=1` if that parameter exists; on Ubuntu, run `sudo \"$(command -v dockerd-rootless-setuptool.sh)\" apparmor`; if this host is a container, start it with --security-opt seccomp=unconfined";
    "log-userns-eacces", "fork/exec /proc/self/exe: permission denied":
        "AppArmor blocks user namespaces for rootlesskit";
        "run `sudo \"$(command -v dockerd-rootless-setuptool.sh)\" apparmor`, which installs and loads a profile for rootlesskit";
    "log-userns-enospc", "fork/exec /proc/self/exe: no space left on device":
        "user.max_user_namespaces is too small";
        "run `sudo sysctl -w user.max_user_namespaces=28633`, and put the line `user.max_user_namespaces = 28633` into a file in /etc/sysctl.d";
    "log-userns-einval", "fork/exec /proc/self/exe: invalid argument":
        "the kernel was built without user namespaces (CONFIG_USER_NS) or without another namespace type that rootlesskit needs";
        "use the distribution's kernel, or one with CONFIG_USER_NS=y";
    "log-userns-enosys", "fork/exec /proc/self/exe: function not implemented":
        "the kernel lacks clone3(2), added in Linux 5.3, or a container's seccomp filter hides it";
        "upgrade the kernel; if this host is a container, upgrade its engine or start the container with --security-opt seccomp=unconfined";
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
        "install dbus-user-session (Debian) or dbus-daemon (Fedora) if it is missing, then run `systemctl --user enable --now dbus.socket`";
    "log-bus-auth", "Interactive authentication required":
        "dockerd connected to the system bus instead of the user's bus";
        "run `systemctl --user enable --now dbus.socket` and log in again";
    "log-containerd-rootless", "conflicts with containerd-rootless":
        "containerd-rootless is running, or (with Docker's own dockerd-rootless.sh) left its directory behind";
        "stop containerd-rootless, and remove the directory that the message names";
    "log-second-daemon", "another RootlessKit is running with the same state directory":
        "this user already has a running daemon";
        "stop the other daemon: run `systemctl --user stop docker.service`, or stop the service that `install --supervise` created; if you started the daemon by hand, run `pkill -x dockerd`";
    "log-no-rootlesskit", "dockerd needs to be started with root privileges":
        "dockerd was started without rootlesskit";
        "start dockerd-rootless.sh instead";
    "log-not-rootless", "rootless mode needs to be enabled for running with RootlessKit":
        "daemon.json disables rootless mode";
        "remove the \"rootless\" option from daemon.json";
    "log-cgroup-driver", "native.cgroupdriver=systemd requires cgroup v2":
        "daemon.json requests the systemd cgroup driver, but the host uses cgroup v1";
        "remove native.cgroupdriver from exec-opts in daemon.json, or boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line";
    "log-docker-proxy", "invalid userland-proxy-path":
        "docker-proxy is not in PATH, or \"userland-proxy-path\" in daemon.json is not the path of a program";
        "remove \"userland-proxy-path\" from daemon.json, and add the directory of docker-proxy, which is in the same package as dockerd (docker-ce, docker.io), to PATH; with Docker 28 or later, you can set \"userland-proxy\": false in daemon.json instead";
    "log-old-rootlesskit", "RootlessKit binary is too old":
        "rootlesskit is older than 0.14";
        "upgrade rootlesskit";
    "log-overlay-selinux", "overlay is not supported for Rootless with SELinux":
        "SELinux is enabled";
        "install fuse-overlayfs";
    "log-low-port", "cannot expose privileged port":
        "the port is below net.ipv4.ip_unprivileged_port_start";
        "publish a higher port; or run `sudo sysctl -w net.ipv4.ip_unprivileged_port_start=0` (or, unless the network driver is pasta, `sudo setcap cap_net_bind_service=ep \"$(command -v rootlesskit)\"`) and then restart the daemon";
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
        "add the mount option user_subvol_rm_allowed to the file system in /etc/fstab and remount it, or put {\"storage-driver\": \"overlay2\"} into ~/.config/docker/daemon.json and pull the images again";
    "log-cgroup-v1", "without cgroups. To enable cgroups":
        "the host uses cgroup v1: container resource limits are ignored";
        "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line";
    "log-cgroup-systemd", "without cgroups. Systemd is required":
        "dockerd was not started by the user's systemd: container resource limits are ignored";
        "log in directly, not with su or sudo, and start it with `systemctl --user start docker.service`";
    "log-cgroup-delegation", "Limitation discarded":
        "the controller is not delegated to the user";
        "as root, put the lines `[Service]` and `Delegate=cpu cpuset io memory pids` into /etc/systemd/system/user@.service.d/delegate.conf, and run `systemctl daemon-reload`; then reboot, or run `sudo systemctl restart user@UID.service`, which ends all services and containers of the user";
    "log-iproute2", "ip tuntap":
        "BusyBox's `ip` cannot create the interface that rootlesskit needs";
        "install iproute2 (Alpine: `apk add iproute2` as root)";
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
        "to use the selected context, unset DOCKER_HOST and DOCKER_CONTEXT";
    "log-socket-denied", "permission denied while trying to connect":
        "DOCKER_HOST or the current context points to another user's socket or to root's";
        "run `docker context use rootless` and unset DOCKER_HOST";
    "log-no-daemon", "Cannot connect to the Docker daemon":
        "the daemon is not running, or listens on another socket";
        "run `systemctl --user start docker.service`, and check DOCKER_HOST";
    "log-proxy", "proxyconnect tcp … refused":
        "the daemon cannot reach the proxy: in the daemon's network namespace, 127.0.0.1 is a different loopback";
        "run `systemctl --user edit docker.service`, and set the proxy to an address of the host's network, or to 10.0.2.2 with DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK=false";
    "log-port-taken", "failed to bind host port":
        "another program listens on that port";
        "publish another port";
    "log-no-address", "no IP addresses specified":
        "the port is published only on an IPv6 address, and the port driver offers dockerd no IPv6 address (slirp4netns, pesto, RootlessKit's own gvisor-tap-vsock)";
        "publish the port on all addresses (-p 8080:80), or unset DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER";
    "log-port-allocated", "port is already allocated":
        "another container publishes that port; or the port is published on several addresses that dockerd cannot tell apart inside the namespace: two IPv6 addresses, or, with Docker 28 and later, two IPv4 addresses (since Docker 29.6, loopback addresses other than 127.0.0.1 no longer cause this)";
        "use a port that `docker ps` does not list, or publish the port once on all addresses (-p 8080:80)";
    "log-address-taken", "address already in use":
        "another program uses that address";
        "stop the other program, or choose another address";
    "log-x509", "x509: certificate signed by unknown authority":
        "the host's CA certificate is not visible inside the namespace";
        "put the certificate below /etc/ssl or /etc/docker/certs.d as a regular file";
    "log-lchown-nfs", "lchown … operation not permitted":
        "the data directory is on a file system that does not support subordinate IDs, such as NFS";
        "put {\"data-root\":\"/another/directory\"} into ~/.config/docker/daemon.json; choose a directory on a local file system";
    "log-lchown-ids", "lchown … invalid argument":
        "the image needs more subordinate IDs than the user has";
        SUBIDS;
    "log-quota", "disk quota exceeded":
        "the user's quota is exhausted";
        "run `docker system prune`, or ask the administrator for a larger quota";
    "log-swarm-directory", "mkdir /var/lib/docker:":
        "dockerd keeps files of a swarm's networks below /var/lib/docker, whatever its data directory is, and a user cannot create that";
        "run `dockerd-rootless-setuptool.sh install --swarm=ADDRESS,peers=NETWORK` and restart the daemon, or set DOCKERD_ROOTLESS_SWARM to this value; ADDRESS is the address at which the other nodes reach this host, NETWORK is that of the other nodes";
    "log-swarm-vxlan", "error creating vxlan interface … not supported":
        "the kernel has no VXLAN, which overlay networks consist of";
        "run `sudo modprobe vxlan`; if there is no such module, install the rest of the kernel's modules (on Ubuntu, the package linux-modules-extra-$(uname -r))";
    "log-sysctl", "ip_forward":
        "/proc/sys is read-only, as is usual in a container";
        "start this container with --privileged";
    "log-start-limit", "Start request repeated too quickly":
        "the daemon failed three times in a minute";
        "find the first error in `journalctl --user -u docker.service`, fix its cause, then run `systemctl --user reset-failed docker.service`";
    "log-program", "executable file not found":
        "the unit's PATH lacks a directory";
        "run `dockerd-rootless-setuptool.sh install` again to update the unit";
    "log-context", "is not found on the file system":
        "the docker CLI's current context was deleted";
        "run `docker --context=default context use default`";
    "log-tun", "/dev/net/tun":
        "the device /dev/net/tun is missing or not accessible";
        "run `sudo modprobe tun` and `sudo chmod 0666 /dev/net/tun`; if this host is a container, start it with --device /dev/net/tun";
    "log-fuse", "fuse: device not found":
        "the device /dev/fuse is missing";
        "run `sudo modprobe fuse`";
    "log-rslave", "not shared":
        "this container's mounts are private";
        "run `sudo mount --make-rshared /`, or ignore the message";
    "log-swarm-vip", "Failed to create an ipvs handle":
        NO_VIP;
        DNSRR;
    "log-swarm-vip", "Failed to create a new service for vip":
        NO_VIP;
        DNSRR;
}
