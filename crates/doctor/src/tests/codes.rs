//! All codes of the doctor, for the documentation, with what each means.
//! [`super::pages`] holds this table to what the doctor really says.

/// A code.
pub(super) struct Code {
    pub(super) name: &'static str,
    /// When it is given.
    pub(super) when: &'static str,
}

const fn code(name: &'static str, when: &'static str) -> Code {
    Code { name, when }
}

pub(super) const CODES: &[Code] = &[
    code("root", "the command was run as root"),
    code("not-linux", "the host is WSL 1, or another system that emulates Linux"),
    code("proc-missing", "`/proc` is not mounted"),
    code("home-unset", "`HOME` is not set"),
    code("home-relative", "`HOME` is not an absolute path"),
    code("home-missing", "`HOME` is not a directory"),
    code("home-foreign", "`HOME` belongs to another user (common after sudo)"),
    code("home-read-only", "`HOME` belongs to the user but is not writable"),
    code(
        "config-closed",
        "the user cannot write to the directory of the unit or of the docker CLI's contexts",
    ),
    code(
        "runtime-dir",
        "`XDG_RUNTIME_DIR` is not set, does not exist, belongs to another user, or is not writable",
    ),
    code("runtime-dir-found", "`XDG_RUNTIME_DIR` is not set, but `/run/user/UID` exists"),
    code("runtime-dir-open", "other users can access `XDG_RUNTIME_DIR`"),
    code("runtime-dir-tmp", "`XDG_RUNTIME_DIR` is below `/tmp`"),
    code("runtime-dir-long", "socket paths in `XDG_RUNTIME_DIR` would be too long"),
    code("user-manager", "`systemctl --user` does not work"),
    code("no-systemd", "the host was not booted with systemd"),
    code("system-unit", "the command runs in a system unit with `User=`"),
    code("daemon-stopped", "the daemon is installed but not running"),
    code("unit-stale", "the program that the unit starts is missing or not executable"),
    code("unit-masked", "a unit is masked (a link to `/dev/null`, or an empty file)"),
    code("file-edited", "a file that `install` wrote was edited, so `install` keeps it"),
    code(
        "file-foreign",
        "a file that `install` would write was not written by this tool, so `install` keeps it",
    ),
    code(
        "file-blocked",
        "a file that `install` writes is not writable: its path is a directory, or a link whose target directory \
         does not exist",
    ),
    code("user-bus", "D-Bus for user sessions is not installed"),
    code("user-bus-stopped", "the user's D-Bus session is not running"),
    code("linger", "lingering is off, so the daemon stops when the last session ends"),
    code("newuidmap-missing", "newuidmap or newgidmap is not in PATH"),
    code(
        "newuidmap-powerless",
        "newuidmap or newgidmap has neither the setuid bit nor file capabilities",
    ),
    code("newuidmap-nosuid", "newuidmap or newgidmap is on a file system mounted nosuid"),
    code(
        "newuidmap-both",
        "newuidmap or newgidmap has both the setuid bit and file capabilities, so it runs as root without CAP_DAC_OVERRIDE",
    ),
    code(
        "newuidmap-setuid",
        "newuidmap or newgidmap is setuid, but the container lacks the capabilities that a setuid program needs",
    ),
    code("container-caps", "the container lacks CAP_SETUID or CAP_SETGID"),
    code("no-new-privs", "this process cannot gain privileges (`NoNewPrivileges=`)"),
    code("subid-missing", "the user has no subordinate IDs"),
    code("subid-few", "the user has fewer than 65536 subordinate IDs"),
    code("subid-malformed", "an entry of the user in `/etc/subuid` or `/etc/subgid` is malformed"),
    code("subid-unreadable", "the user cannot read `/etc/subuid` or `/etc/subgid`"),
    code(
        "subid-outside",
        "this machine is a container that does not have the user's subordinate IDs",
    ),
    code("subid-overlap", "the user's subordinate IDs overlap those of another user"),
    code("rootlesskit-fails", "`rootlesskit true` fails, and no other finding explains why"),
    code("userns-clone", "`kernel.unprivileged_userns_clone` is 0"),
    code("userns-none", "`user.max_user_namespaces` is 0"),
    code(
        "namespaces-none",
        "the limit on another kind of namespace, such as `user.max_net_namespaces`, is 0",
    ),
    code("userns-few", "`user.max_user_namespaces` is below 1024"),
    code(
        "apparmor-userns",
        "AppArmor restricts user namespaces, and no profile allows them for rootlesskit",
    ),
    code("apparmor-not-loaded", "an AppArmor profile for rootlesskit exists but has no effect"),
    code(
        "apparmor-unconfined",
        "AppArmor also restricts unconfined programs, so starting rootlesskit with aa-exec does not help; only a profile does",
    ),
    code("tun-missing", "`/dev/net/tun` does not exist, or its kernel module is not loaded"),
    code("tun-closed", "`/dev/net/tun` exists, but the user cannot open it"),
    code(
        "network-helper-missing",
        "no network driver can be used: `gateway` does not work or does not suit the settings, and no network helper that works is installed",
    ),
    code(
        "network-fails",
        "rootlesskit works, but not with the network driver that the launcher selects",
    ),
    code("gateway-fails", "the gateway network driver does not work"),
    code(
        "ports-relayed",
        "the kernel does not let the gateway keep the addresses of clients of published ports (Linux 7.3 and later, and some earlier kernels)",
    ),
    code(
        "swarm-limits",
        "`DOCKERD_ROOTLESS_SWARM` is set, so the daemon is set up as a node of a swarm",
    ),
    code("swarm-value", "the launcher does not understand the value of `DOCKERD_ROOTLESS_SWARM`"),
    code("swarm-address", "the address in `DOCKERD_ROOTLESS_SWARM` is not one of this host's"),
    code(
        "swarm-advertise",
        "the daemon is in a swarm, but does not advertise the address in `DOCKERD_ROOTLESS_SWARM`",
    ),
    code(
        "swarm-port-taken",
        "a program of another user uses a port that a node of a swarm needs (2377, 7946, 4789)",
    ),
    code(
        "swarm-driver",
        "`DOCKERD_ROOTLESS_SWARM` is set, but the network driver and port driver are not both `gateway`",
    ),
    code(
        "swarm-vxlan",
        "`DOCKERD_ROOTLESS_SWARM` is set, but the kernel cannot create VXLAN links",
    ),
    code(
        "host-loopback-value",
        "`DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW`, or `--host-loopback-allow` in `DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS`, is not a list of ports",
    ),
    code(
        "host-loopback-driver",
        "`DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW` or `--host-loopback-allow` is set, but the network driver is not `gateway`",
    ),
    code(
        "host-loopback-open",
        "`DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW` or `--host-loopback-allow` is set, but `DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK=false` or `--disable-host-loopback=false` opens all ports",
    ),
    code("egress-policy-file", "an egress policy file is missing or has an error"),
    code(
        "egress-policy-driver",
        "there is an egress policy, but the network driver is neither `gateway` nor `gvisor-tap-vsock`",
    ),
    code(
        "egress-policy-restart",
        "the daemon runs without the egress policy, because it was not restarted",
    ),
    code("egress-policy-dry-run", "the egress policy is in dry-run mode"),
    code("iptables-missing", "iptables is not installed"),
    code(
        "nft-missing",
        "daemon.json sets `\"firewall-backend\": \"nftables\"`, but nft is not installed",
    ),
    code("nat-fails", "iptables cannot create a NAT chain"),
    code("br-netfilter", "the kernel module br_netfilter is not loaded"),
    code(
        "iproute2",
        "the installed rootlesskit is not this project's and needs iproute2's `ip`, which is missing",
    ),
    code("nsenter-missing", "nsenter, which dockerd 29.5 and later uses, is not in PATH"),
    code("ps-missing", "ps, which `docker top` uses, is not installed"),
    code(
        "overlay",
        "overlayfs cannot be mounted, or dockerd does not use it because of SELinux; and fuse-overlayfs is not \
         installed, or cannot be used by the containerd image store",
    ),
    code(
        "overlay-selinux",
        "SELinux is on, and the data root or `daemon.json` requires the storage driver `overlay2`",
    ),
    code("fuse-closed", "fuse-overlayfs cannot use `/dev/fuse`"),
    code("kernel-old", "the kernel is older than Linux 5.3, and `rootlesskit true` fails"),
    code("cgroup-v1", "the host uses cgroup v1"),
    code(
        "cgroup-controllers",
        "cgroup v2 does not have all controllers, because cgroup v1 uses them or the kernel lacks them",
    ),
    code("cgroup-delegation", "not all controllers are delegated to the user"),
    code("ping", "`net.ipv4.ping_group_range` does not include the user"),
    code(
        "low-ports",
        "`net.ipv4.ip_unprivileged_port_start` is above 80, and ports below its value cannot be published",
    ),
    code("data-root-nfs", "the data root is on NFS"),
    code(
        "storage-driver",
        "the containerd image store cannot use the storage driver of daemon.json",
    ),
    code("data-root-fs", "the data root is on a file system that does not store file ownership"),
    code("daemon-json", "daemon.json is not a JSON object"),
    code("rootful-docker", "rootful Docker is installed, and the user can access it"),
    code(
        "rootful-docker-beside",
        "rootful Docker is installed or running, and the user cannot access it",
    ),
    code("docker-host-elsewhere", "`DOCKER_HOST` or `DOCKER_CONTEXT` points to another daemon"),
    code("selinux", "SELinux is enforcing or permissive"),
    code("lxc-usernet", "the user is not listed in `/etc/lxc/lxc-usernet`"),
    code("resolv-conf-link", "`/etc/resolv.conf` is a link to a path outside `/etc` and `/run`"),
    code("launcher-missing", "dockerd-rootless.sh is not installed"),
    code("rootlesskit-missing", "rootlesskit is not installed"),
    code(
        "not-executable",
        "the launcher or rootlesskit exists but is not executable (for example, on a noexec mount)",
    ),
    code("dockerd-missing", "dockerd is not installed"),
    code("docker-cli-missing", "the docker CLI is not installed"),
    code("context-missing", "the docker CLI's current context does not exist"),
    code("context-elsewhere", "the context `rootless` points to another daemon"),
    code("containerd-rootless", "containerd-rootless is running"),
    code("ipv6-off", "the kernel does not support IPv6"),
    code(
        "ipv6-only",
        "the host reaches other networks only over IPv6, but bridge networks have only IPv4",
    ),
    code("cidr-overlap", "one of the host's networks overlaps the namespace's network"),
    code("docker-network-overlap", "a Docker network overlaps the namespace's network"),
    code(
        "swarm-pool",
        "the addresses that a swarm assigns to overlay networks include the namespace's network",
    ),
    code(
        "proxy-loopback",
        "a proxy is set to a loopback address, which the daemon or its containers cannot reach",
    ),
    code("space-low", "less than 1 GiB is free for the data root"),
    code(
        "space-full",
        "the disk has no room for the data root (less than 1 MiB, or hardly any inodes)",
    ),
    code("quota-full", "the user's quota leaves no room for the data root"),
    code("quota-low", "the user's quota has less than 1 GiB left"),
    code("data-root-closed", "the user cannot write to the data root"),
    code("inotify-low", "the limit on inotify instances or watches is low"),
    code("nofile-low", "the open-file limit is low"),
    code("in-container", "this machine is a container"),
    code("proc-masked", "a new `/proc` cannot be mounted"),
];
