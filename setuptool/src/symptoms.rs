//! Error messages of Docker and its helpers, and what they mean.
//!
//! The first entry whose token occurs in a text explains it, so special ones come before general ones. Tokens are
//! fragments that have been stable over the releases.

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symptom {
    /// What occurs in the message.
    pub(crate) token: &'static str,
    /// What it means.
    pub(crate) cause: &'static str,
    /// What to do.
    pub(crate) fix: &'static str,
}

/// The explanation of a text.
pub(crate) fn find(text: &str) -> Option<&'static Symptom> {
    SYMPTOMS.iter().find(|symptom| text.contains(symptom.token))
}

const fn of(token: &'static str, cause: &'static str, fix: &'static str) -> Symptom {
    Symptom { token, cause, fix }
}

const CHECK: &str = "run `dockerd-rootless-setuptool.sh check`, which has the commands";

/// The table.
pub(crate) const SYMPTOMS: &[Symptom] = &[
    of(
        "/run/xtables.lock: Permission denied",
        "SELinux and a Docker before 20.10.8 (https://github.com/moby/moby/issues/41230)",
        "upgrade Docker, or run `sudo dnf install -y policycoreutils-python-utils && sudo semanage permissive -a iptables_t`",
    ),
    of(
        "fork/exec /proc/self/exe: operation not permitted",
        "a kernel parameter or AppArmor forbids user namespaces",
        CHECK,
    ),
    of(
        "fork/exec /proc/self/exe: permission denied",
        "AppArmor forbids user namespaces to rootlesskit",
        CHECK,
    ),
    of(
        "fork/exec /proc/self/exe: no space left on device",
        "user.max_user_namespaces is too small",
        CHECK,
    ),
    of("No subuid ranges found", "the user has no line in /etc/subuid", CHECK),
    of("No subgid ranges found", "the user has no line in /etc/subgid", CHECK),
    of(
        "write to uid_map failed",
        "newuidmap has no privileges, or the range is not the user's",
        CHECK,
    ),
    of(
        "write to gid_map failed",
        "newgidmap has no privileges, or the range is not the user's",
        CHECK,
    ),
    of(
        "could not get XDG_RUNTIME_DIR",
        "XDG_RUNTIME_DIR is not set",
        "log in directly (ssh, machinectl shell USER@) instead of through su or sudo",
    ),
    of(
        "XDG_RUNTIME_DIR needs to be set",
        "XDG_RUNTIME_DIR is not set",
        "log in directly (ssh, machinectl shell USER@) instead of through su or sudo",
    ),
    of(
        "Failed to connect to bus",
        "the user has no bus, as after su or sudo",
        "log in directly (ssh, machinectl shell USER@) instead of through su or sudo",
    ),
    of(
        "Unit dbus.socket not found",
        "there is no bus for users, which the unit requires",
        "install dbus-user-session (Debian) or dbus-daemon (Fedora) and log in again",
    ),
    of(
        "systemd/private: read: connection reset by peer",
        "the user's bus is not running",
        "run `systemctl --user enable --now dbus.socket`, after installing dbus-user-session (Debian) or dbus-daemon (Fedora)",
    ),
    of(
        "Interactive authentication required",
        "dockerd reached the system's bus instead of the user's",
        "run `systemctl --user enable --now dbus.socket` and log in again",
    ),
    of(
        "conflicts with containerd-rootless",
        "a containerd-rootless runs, or left its directory behind",
        "stop it and remove the directory that is named",
    ),
    of(
        "another RootlessKit is running with the same state directory",
        "a second daemon of this user",
        "stop the other one: `systemctl --user stop docker.service`",
    ),
    of(
        "dockerd needs to be started with root privileges",
        "dockerd was started without rootlesskit",
        "start dockerd-rootless.sh instead",
    ),
    of(
        "rootless mode needs to be enabled for running with RootlessKit",
        "the configuration says that the daemon is not rootless",
        "remove that option from daemon.json",
    ),
    of(
        "native.cgroupdriver=systemd requires cgroup v2",
        "the configuration asks for the systemd driver on version 1",
        "remove native.cgroupdriver from exec-opts in daemon.json, or boot with cgroup v2",
    ),
    of(
        "invalid userland-proxy-path",
        "docker-proxy is not in PATH",
        "install it, or set \"userland-proxy\": false in daemon.json",
    ),
    of("RootlessKit binary is too old", "rootlesskit is older than 0.14", "upgrade rootlesskit"),
    of(
        "overlay is not supported for Rootless with SELinux",
        "SELinux is on",
        "install fuse-overlayfs",
    ),
    of(
        "cannot expose privileged port",
        "the port is below net.ipv4.ip_unprivileged_port_start",
        "publish a higher port, lower that parameter, or run `sudo setcap cap_net_bind_service=ep \"$(command -v rootlesskit)\"` and restart",
    ),
    of(
        "listen tcp 10.0.2.100",
        "Docker 29.0 binds published ports twice with the port driver slirp4netns (https://github.com/moby/moby/issues/51591)",
        "upgrade Docker, or set DOCKERD_ROOTLESS_ROOTLESSKIT_NET=pasta and DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=implicit",
    ),
    of("fsmount:fscontext", "a pre-release of Docker 29.5", "upgrade Docker"),
    of(
        "is not supported by the RootlessKit port driver",
        "the port driver slirp4netns knows IPv4 only",
        "nothing if that is enough; otherwise set DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=builtin",
    ),
    of(
        "destroy btrfs snapshot",
        "btrfs lets users delete subvolumes since Linux 4.18, or with a mount option",
        "mount the file system with user_subvol_rm_allowed, or use overlay2",
    ),
    of(
        "without cgroups",
        "no cgroup v2, or no systemd of the user: limits of containers are ignored",
        CHECK,
    ),
    of("Limitation discarded", "that controller is not delegated to the user", CHECK),
    of(
        "create_sandbox",
        "the sandbox of slirp4netns does not work with the files or the kernel of this host",
        "set DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false",
    ),
    of(
        "error mounting \"proc\"",
        "parts of /proc are hidden by mounts, as in a container",
        "run the outer container with --privileged or --security-opt systempaths=unconfined",
    ),
    of(
        "environment variable overrides the active context",
        "DOCKER_HOST or DOCKER_CONTEXT is set as well",
        "unset one of them",
    ),
    of(
        "permission denied while trying to connect",
        "DOCKER_HOST, or the current context, names the socket of another user or of root",
        "run `docker context use rootless` and unset DOCKER_HOST",
    ),
    of(
        "Cannot connect to the Docker daemon",
        "the daemon does not run, or listens elsewhere",
        "run `systemctl --user start docker.service` and look at DOCKER_HOST",
    ),
    of("failed to bind host port", "something else listens on that port", "publish another one"),
    of("address already in use", "something else has that address", "stop it, or choose another"),
    of(
        "x509: certificate signed by unknown authority",
        "a certificate of the host is not seen inside",
        "put it below /etc/ssl or /etc/docker/certs.d as a real file",
    ),
    of(
        "lchown",
        "the data directory cannot hold subordinate ids: there are too few of them, or it is on NFS",
        CHECK,
    ),
    of(
        "ip_forward",
        "/proc/sys cannot be written, as in a container",
        "run the outer container with --privileged",
    ),
    of(
        "Start request repeated too quickly",
        "the daemon failed three times in a minute",
        "look at the first error in `journalctl --user -u docker.service`, then run `systemctl --user reset-failed docker.service`",
    ),
    of(
        "executable file not found",
        "the PATH in the unit lacks a directory",
        "run `dockerd-rootless-setuptool.sh install` again, which brings the unit up to date",
    ),
    of(
        "is not found on the file system",
        "the current context of the docker command was deleted",
        "run `docker context use default`",
    ),
    of("/dev/net/tun", "the device /dev/net/tun is missing or closed", CHECK),
    of("fuse: device not found", "the device /dev/fuse is missing", "run `sudo modprobe fuse`"),
    of(
        "not shared",
        "the mounts of this container are private",
        "run `sudo mount --make-rshared /`, or ignore it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f150_f151_f152_f153_f154_f156_f157_f158_f159_f161_messages_are_explained() {
        for (text, part) in [
            (
                "[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: operation not permitted",
                "kernel parameter",
            ),
            ("fork/exec /proc/self/exe: permission denied", "AppArmor"),
            ("fork/exec /proc/self/exe: no space left on device", "max_user_namespaces"),
            (
                "failed to setup UID/GID map: No subuid ranges found for user 1001 (\"testuser\")",
                "/etc/subuid",
            ),
            ("could not get XDG_RUNTIME_DIR", "not set"),
            ("Failed to connect to bus: No such file or directory", "no bus"),
            ("Fatal: can't open lock file /run/xtables.lock: Permission denied", "SELinux"),
            ("failed to register layer: lchown /x: invalid argument", "too few"),
            ("lchown /x: operation not permitted", "NFS"),
            (
                "read unix @->/run/systemd/private: read: connection reset by peer: unknown.",
                "bus is not running",
            ),
            ("cannot expose privileged port 80, you can add", "below net.ipv4"),
            (
                "failed to bind host port: listen tcp 10.0.2.100:80: bind: address already in use",
                "binds published ports twice",
            ),
            ("apparmor failed to apply profile: write fsmount:fscontext:/proc", "pre-release"),
            ("protocol \"tcp6\" is not supported by the RootlessKit port driver", "IPv4 only"),
            ("Failed to destroy btrfs snapshot a for b: operation not permitted", "btrfs"),
            (
                "WARNING: Running in rootless-mode without cgroups. Systemd is required",
                "limits of containers are ignored",
            ),
            ("memory limit capabilities. Limitation discarded.", "not delegated"),
            (
                "error mounting \"proc\" to rootfs at \"/proc\": operation not permitted",
                "hidden by mounts",
            ),
            ("Warning: DOCKER_HOST environment variable overrides the active context", "as well"),
            (
                "permission denied while trying to connect to the Docker daemon socket at unix:///x",
                "another user",
            ),
            ("Cannot connect to the Docker daemon at unix:///x", "does not run"),
        ] {
            let symptom = find(text).unwrap_or_else(|| panic!("{text}"));
            assert!(symptom.cause.contains(part), "{text}: {symptom:?}");
        }
        assert_eq!(find("all is well"), None);
    }

    #[test]
    fn every_entry_can_be_found() {
        for (index, symptom) in SYMPTOMS.iter().enumerate() {
            let found = find(symptom.token).unwrap();
            assert_eq!(found, symptom, "entry {index} hides behind an earlier one");
        }
    }
}
