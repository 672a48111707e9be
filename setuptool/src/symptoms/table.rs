//! The messages. Special ones come before general ones: the first entry that occurs in a text explains it.

use super::Symptom;

const SUBIDS: &str = "run `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER` with a range that \
                      nobody has in these files; `dockerd-rootless-setuptool.sh check` computes one";
const MAP: &str = "run `sudo chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap`, `sudo setcap cap_setuid=ep /usr/bin/newuidmap` \
                   and `sudo setcap cap_setgid=ep /usr/bin/newgidmap`, where no mount option nosuid and no NoNewPrivileges= is in \
                   the way; in a container the ranges must be among the ids of /proc/self/uid_map";
const NO_OPEN: &str = "the program runs as root without CAP_DAC_OVERRIDE: setuid in a container that lacks it, or with file \
                       capabilities beside the setuid bit";
const LOGIN: &str = "log in directly (ssh, machinectl shell USER@) instead of through su or sudo";
const BUS: &str = "install dbus-user-session (Debian) or dbus-daemon (Fedora) and log in again";
const SANDBOX: &str =
    "the sandbox of slirp4netns does not work with the files or the kernel of this host";
const UNSANDBOXED: &str = "set DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false";

const fn of(
    code: &'static str,
    token: &'static str,
    cause: &'static str,
    fix: &'static str,
) -> Symptom {
    Symptom { code, token, cause, fix }
}

/// All of them.
pub(crate) const SYMPTOMS: &[Symptom] = &[
    of(
        "log-xtables-lock",
        "/run/xtables.lock: Permission denied",
        "SELinux and a Docker before 20.10.8 (https://github.com/moby/moby/issues/41230)",
        "upgrade Docker, or run `sudo dnf install -y policycoreutils-python-utils && sudo semanage permissive -a iptables_t`",
    ),
    of(
        "log-userns-eperm",
        "fork/exec /proc/self/exe: operation not permitted",
        "kernel.unprivileged_userns_clone is 0, AppArmor forbids user namespaces, or the seccomp filter of a container does",
        "run `sudo sysctl -w kernel.unprivileged_userns_clone=1` where that parameter exists, `sudo dockerd-rootless-setuptool.sh apparmor` on Ubuntu; in a container, run that with --security-opt seccomp=unconfined",
    ),
    of(
        "log-userns-eacces",
        "fork/exec /proc/self/exe: permission denied",
        "AppArmor forbids user namespaces to rootlesskit",
        "run `sudo dockerd-rootless-setuptool.sh apparmor`, which writes and loads a profile for it",
    ),
    of(
        "log-userns-enospc",
        "fork/exec /proc/self/exe: no space left on device",
        "user.max_user_namespaces is too small",
        "run `sudo sysctl -w user.max_user_namespaces=28633`, and write that into a file of /etc/sysctl.d",
    ),
    of(
        "log-userns-einval",
        "fork/exec /proc/self/exe: invalid argument",
        "the kernel was built without user namespaces (CONFIG_USER_NS), or lacks one of the other kinds",
        "use a kernel of the distribution, or one with CONFIG_USER_NS=y",
    ),
    of(
        "log-userns-enosys",
        "fork/exec /proc/self/exe: function not implemented",
        "the kernel has no clone3(2) (Linux 5.3 brought it), or the seccomp filter of a container hides it",
        "upgrade the kernel; in a container, upgrade its engine or run it with --security-opt seccomp=unconfined",
    ),
    of("log-subuid", "No subuid ranges found", "the user has no line in /etc/subuid", SUBIDS),
    of("log-subgid", "No subgid ranges found", "the user has no line in /etc/subgid", SUBIDS),
    of(
        "log-uid-map",
        "write to uid_map failed",
        "newuidmap has no privileges or too few, or the container has no such ids",
        MAP,
    ),
    of(
        "log-gid-map",
        "write to gid_map failed",
        "newgidmap has no privileges or too few, or the container has no such ids",
        MAP,
    ),
    of("log-uid-map", "open of uid_map failed", NO_OPEN, MAP),
    of("log-gid-map", "open of gid_map failed", NO_OPEN, MAP),
    of("log-runtime-dir", "could not get XDG_RUNTIME_DIR", "XDG_RUNTIME_DIR is not set", LOGIN),
    of("log-runtime-dir", "XDG_RUNTIME_DIR needs to be set", "XDG_RUNTIME_DIR is not set", LOGIN),
    of("log-bus", "Failed to connect to bus", "the user has no bus, as after su or sudo", LOGIN),
    of("log-bus", "No medium found", "the user has no service manager, as after su or sudo", LOGIN),
    of(
        "log-no-systemd",
        "systemd not detected",
        "the user's service manager cannot be reached, as after su or sudo",
        LOGIN,
    ),
    of(
        "log-bus-unit",
        "Unit dbus.socket not found",
        "there is no bus for users, which the unit requires",
        BUS,
    ),
    of(
        "log-bus-reset",
        "systemd/private: read: connection reset by peer",
        "the user's bus is not running",
        "run `systemctl --user enable --now dbus.socket`, after installing dbus-user-session (Debian) or dbus-daemon (Fedora)",
    ),
    of(
        "log-bus-auth",
        "Interactive authentication required",
        "dockerd reached the system's bus instead of the user's",
        "run `systemctl --user enable --now dbus.socket` and log in again",
    ),
    of(
        "log-containerd-rootless",
        "conflicts with containerd-rootless",
        "a containerd-rootless runs, or left its directory behind",
        "stop it and remove the directory that is named",
    ),
    of(
        "log-second-daemon",
        "another RootlessKit is running with the same state directory",
        "a second daemon of this user",
        "stop the other one: `systemctl --user stop docker.service`",
    ),
    of(
        "log-no-rootlesskit",
        "dockerd needs to be started with root privileges",
        "dockerd was started without rootlesskit",
        "start dockerd-rootless.sh instead",
    ),
    of(
        "log-not-rootless",
        "rootless mode needs to be enabled for running with RootlessKit",
        "the configuration says that the daemon is not rootless",
        "remove that option from daemon.json",
    ),
    of(
        "log-cgroup-driver",
        "native.cgroupdriver=systemd requires cgroup v2",
        "the configuration asks for the systemd driver on version 1",
        "remove native.cgroupdriver from exec-opts in daemon.json, or boot with cgroup v2",
    ),
    of(
        "log-docker-proxy",
        "invalid userland-proxy-path",
        "docker-proxy is not in PATH",
        "install it, or set \"userland-proxy\": false in daemon.json",
    ),
    of(
        "log-old-rootlesskit",
        "RootlessKit binary is too old",
        "rootlesskit is older than 0.14",
        "upgrade rootlesskit",
    ),
    of(
        "log-overlay-selinux",
        "overlay is not supported for Rootless with SELinux",
        "SELinux is on",
        "install fuse-overlayfs",
    ),
    of(
        "log-low-port",
        "cannot expose privileged port",
        "the port is below net.ipv4.ip_unprivileged_port_start",
        "publish a higher port, lower that parameter, or run `sudo setcap cap_net_bind_service=ep \"$(command -v rootlesskit)\"` and restart",
    ),
    of(
        "log-port-twice",
        "listen tcp 10.0.2.100",
        "Docker 29.0 binds published ports twice with the port driver slirp4netns (https://github.com/moby/moby/issues/51591)",
        "upgrade Docker, or set DOCKERD_ROOTLESS_ROOTLESSKIT_NET=pasta and DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=implicit",
    ),
    of(
        "log-port-loopback",
        "127.0.0. … cannot assign requested address",
        "Docker 29.5 cannot publish on loopback addresses other than 127.0.0.1 (https://github.com/moby/moby/issues/52783)",
        "upgrade Docker to 29.6 or later, or publish on 127.0.0.1",
    ),
    of(
        "log-port-race",
        "AddPort … address already in use",
        "something else listens on that port, or two containers asked for any free port at the same time (https://github.com/moby/moby/issues/52903)",
        "publish another port; if none was named, try again or upgrade Docker",
    ),
    of("log-fsmount", "fsmount:fscontext", "a pre-release of Docker 29.5", "upgrade Docker"),
    of(
        "log-port-protocol",
        "is not supported by the RootlessKit port driver",
        "the port driver slirp4netns knows IPv4 only",
        "nothing if that is enough; otherwise set DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=builtin",
    ),
    of(
        "log-btrfs",
        "destroy btrfs snapshot",
        "btrfs lets users delete subvolumes since Linux 4.18, or with a mount option",
        "mount the file system with user_subvol_rm_allowed, or use overlay2",
    ),
    of(
        "log-cgroup-v1",
        "without cgroups. To enable cgroups",
        "the host uses control groups of version 1: limits of containers are ignored",
        "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line",
    ),
    of(
        "log-cgroup-systemd",
        "without cgroups. Systemd is required",
        "dockerd was not started by the user's systemd: limits of containers are ignored",
        "start it with `systemctl --user start docker.service`, from a login that is not through su or sudo",
    ),
    of(
        "log-cgroup-delegation",
        "Limitation discarded",
        "that controller is not delegated to the user",
        "write Delegate=cpu cpuset io memory pids below [Service] into /etc/systemd/system/user@.service.d/delegate.conf, and log in again",
    ),
    of(
        "log-iproute2",
        "ip tuntap",
        "the ip of busybox cannot make the interface that rootlesskit wants",
        "install iproute2 (Alpine: `sudo apk add iproute2-minimal`)",
    ),
    of("log-sandbox", "create_sandbox", SANDBOX, UNSANDBOXED),
    of("log-sandbox", "slirp4netns failed … sandbox", SANDBOX, UNSANDBOXED),
    of(
        "log-pasta",
        "Couldn't open … namespace … Permission denied",
        "AppArmor's profile of pasta keeps it from the namespaces of rootlesskit (Ubuntu 23.10 and 24.04, https://bugs.launchpad.net/bugs/2077158)",
        "upgrade the package passt, or set DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns",
    ),
    of(
        "log-proc",
        "error mounting \"proc\"",
        "parts of /proc are hidden by mounts, as in a container",
        "run the outer container with --privileged or --security-opt systempaths=unconfined",
    ),
    of(
        "log-docker-host",
        "environment variable overrides the active context",
        "DOCKER_HOST or DOCKER_CONTEXT is set as well",
        "unset one of them",
    ),
    of(
        "log-socket-denied",
        "permission denied while trying to connect",
        "DOCKER_HOST, or the current context, names the socket of another user or of root",
        "run `docker context use rootless` and unset DOCKER_HOST",
    ),
    of(
        "log-no-daemon",
        "Cannot connect to the Docker daemon",
        "the daemon does not run, or listens elsewhere",
        "run `systemctl --user start docker.service` and look at DOCKER_HOST",
    ),
    of(
        "log-proxy",
        "proxyconnect tcp … refused",
        "the proxy does not listen where the daemon looks for it: 127.0.0.1 is another loopback in its network namespace",
        "name the proxy by an address of the host's network, or by 10.0.2.2 with DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK=false, in `systemctl --user edit docker.service`",
    ),
    of(
        "log-port-taken",
        "failed to bind host port",
        "something else listens on that port",
        "publish another one",
    ),
    of(
        "log-no-address",
        "no IP addresses specified",
        "the port is published on an IPv6 address only, and the port driver has none for dockerd (slirp4netns, pesto, gvisor-tap-vsock of the original)",
        "publish it on all addresses (-p 8080:80), or unset DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER",
    ),
    of(
        "log-port-allocated",
        "port is already allocated",
        "another container publishes that port; or it is published on several addresses, which dockerd 28 and later cannot keep apart inside the namespace: before 29.6 any two of IPv4, since then any two but loopback addresses",
        "see `docker ps` and take another port, or publish it once on all addresses (-p 8080:80)",
    ),
    of(
        "log-address-taken",
        "address already in use",
        "something else has that address",
        "stop it, or choose another",
    ),
    of(
        "log-x509",
        "x509: certificate signed by unknown authority",
        "a certificate of the host is not seen inside",
        "put it below /etc/ssl or /etc/docker/certs.d as a real file",
    ),
    of(
        "log-lchown-nfs",
        "lchown … operation not permitted",
        "the data directory cannot hold subordinate ids, as on NFS",
        "put {\"data-root\":\"/another/directory\"} into ~/.config/docker/daemon.json, on a local file system",
    ),
    of(
        "log-lchown-ids",
        "lchown … invalid argument",
        "there are too few subordinate ids for the image",
        SUBIDS,
    ),
    of(
        "log-quota",
        "disk quota exceeded",
        "the quota of the user is used up",
        "run `docker system prune`, or ask for a larger quota",
    ),
    of(
        "log-sysctl",
        "ip_forward",
        "/proc/sys cannot be written, as in a container",
        "run the outer container with --privileged",
    ),
    of(
        "log-start-limit",
        "Start request repeated too quickly",
        "the daemon failed three times in a minute",
        "look at the first error in `journalctl --user -u docker.service`, then run `systemctl --user reset-failed docker.service`",
    ),
    of(
        "log-program",
        "executable file not found",
        "the PATH in the unit lacks a directory",
        "run `dockerd-rootless-setuptool.sh install` again, which brings the unit up to date",
    ),
    of(
        "log-context",
        "is not found on the file system",
        "the current context of the docker command was deleted",
        "run `docker context use default`",
    ),
    of(
        "log-tun",
        "/dev/net/tun",
        "the device /dev/net/tun is missing or closed",
        "run `sudo modprobe tun`, and `sudo chmod 0666 /dev/net/tun`; in a container, run that with --device /dev/net/tun",
    ),
    of(
        "log-fuse",
        "fuse: device not found",
        "the device /dev/fuse is missing",
        "run `sudo modprobe fuse`",
    ),
    of(
        "log-rslave",
        "not shared",
        "the mounts of this container are private",
        "run `sudo mount --make-rshared /`, or ignore it",
    ),
];
