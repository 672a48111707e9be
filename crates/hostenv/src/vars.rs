//! The name of every environment variable that the project reads or writes.

/// Where programs are looked for, separated by colons.
pub const PATH: &str = "PATH";
/// The user's home directory; dockerd keeps data and configuration below it.
pub const HOME: &str = "HOME";
/// The user's name, used when neither `/etc/passwd` nor `getent` knows the user.
pub const USER: &str = "USER";
/// Directory for temporary files; rootlesskit makes its default state directory there, else in `/tmp`.
pub const TMPDIR: &str = "TMPDIR";

/// Set to anything but the empty string: no colours (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";
/// The kind of terminal; `dumb` has no colours.
pub const TERM: &str = "TERM";

/// Base of sockets, pid files and the state directory; private to the user and gone at log-out (XDG Base Directory).
pub const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
/// The daemon that the docker CLI talks to; wins over every context.
pub const DOCKER_HOST: &str = "DOCKER_HOST";
/// Base of configuration, by default `$HOME/.config` (XDG Base Directory).
pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// Base of data, by default `$HOME/.local/share` (XDG Base Directory).
pub const XDG_DATA_HOME: &str = "XDG_DATA_HOME";

/// Program to run instead of `getsubids` (RootlessKit).
pub const GETSUBIDS: &str = "GETSUBIDS";

/// Decimal pid of the process that is to take over passed sockets (sd_listen_fds(3)).
pub const LISTEN_PID: &str = "LISTEN_PID";
/// Number of the pidfd's inode of that process (systemd 258); whoever knows it checks it if it is there.
pub const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";
/// Number of passed sockets, at descriptors 3 and up (sd_listen_fds(3)).
pub const LISTEN_FDS: &str = "LISTEN_FDS";
/// Names of the passed sockets, separated by colons (sd_listen_fds_with_names(3)).
pub const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// Socket for readiness messages to the service manager (sd_notify(3)); passed through to the target.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Microseconds within which the service manager wants to hear from the service (sd_watchdog_enabled(3)).
pub const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
/// Decimal pid of the process that is to tell it (sd_watchdog_enabled(3)).
pub const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// Absolute path of the state directory, set for the target. Its presence tells dockerd that it runs rootless.
pub const ROOTLESSKIT_STATE_DIR: &str = "ROOTLESSKIT_STATE_DIR";
/// Decimal effective user id of the parent on the host, set for the target; dockerd finds the user's slice with it.
pub const ROOTLESSKIT_PARENT_EUID: &str = "ROOTLESSKIT_PARENT_EUID";
/// Decimal effective group id of the parent on the host, set for the target.
pub const ROOTLESSKIT_PARENT_EGID: &str = "ROOTLESSKIT_PARENT_EGID";

/// Internal, parent to child: `<read fd>,<write fd>` of the handshake. Non-empty makes the program the child.
pub const ROOTLESSKIT_PIPEFD: &str = "_ROOTLESSKIT_PIPEFD_UNDOCUMENTED";
/// Internal, parent to child: whether the passed sockets were meant for the parent (`true` or `false`).
pub const ROOTLESSKIT_ACTIVATION_CHILD_USE: &str =
    "_ROOTLESSKIT_SYSTEMD_ACTIVATION_CHILD_USE_UNDOCUMENTED";
/// Internal: a true value makes the program the helper that rewrites `LISTEN_PID` and executes the target.
pub const ROOTLESSKIT_ACTIVATION_RUN_HELPER: &str =
    "_ROOTLESSKIT_SYSTEMD_ACTIVATION_RUN_HELPER_UNDOCUMENTED";
/// Internal: prefix of the counter that guards the child's re-execution against loops.
pub const ROOTLESSKIT_REEXEC_COUNT_PREFIX: &str = "_ROOTLESSKIT_REEXEC_COUNT_";

/// `--state-dir` of the launcher, by default `$XDG_RUNTIME_DIR/dockerd-rootless`.
pub const DOCKERD_ROOTLESS_STATE_DIR: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR";
/// `--net` of the launcher; empty means automatic.
pub const DOCKERD_ROOTLESS_NET: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_NET";
/// `--mtu` of the launcher in bytes; empty means the default of the network driver.
pub const DOCKERD_ROOTLESS_MTU: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_MTU";
/// `--port-driver` of the launcher; empty means `gateway` with gateway, `implicit` with pasta and
/// `builtin` otherwise.
pub const DOCKERD_ROOTLESS_PORT_DRIVER: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER";
/// `--slirp4netns-sandbox` of the launcher: `auto` (default), `true` or `false`.
pub const DOCKERD_ROOTLESS_SLIRP4NETNS_SANDBOX: &str =
    "DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX";
/// `--slirp4netns-seccomp` of the launcher: `auto` (default), `true` or `false`.
pub const DOCKERD_ROOTLESS_SLIRP4NETNS_SECCOMP: &str =
    "DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SECCOMP";
/// Only the exact value `false` lets the namespace reach the host's loopback.
pub const DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK: &str =
    "DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK";
/// `--host-loopback-allow` of the launcher: ports of the host's loopback that the namespace reaches all the same.
pub const DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW: &str =
    "DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW";
/// The user's file for `--egress-policy` of the launcher. Unlike with other variables, an empty value is one: no file.
pub const DOCKERD_ROOTLESS_EGRESS_POLICY: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_EGRESS_POLICY";
/// `--detach-netns` of the launcher: `1`, `true`, `0` or `false`; by default what the dockerd supports.
pub const DOCKERD_ROOTLESS_DETACH_NETNS: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS";
/// More rootlesskit flags, separated by spaces; see [`crate::shellwords`].
pub const DOCKERD_ROOTLESS_FLAGS: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS";
/// State directory of containerd-rootless, looked at for conflicts; by default `$XDG_RUNTIME_DIR/containerd-rootless`.
pub const CONTAINERD_ROOTLESS_STATE_DIR: &str = "CONTAINERD_ROOTLESS_ROOTLESSKIT_STATE_DIR";
/// Makes the daemon a node of a swarm; see [`crate::swarm`]. Unset: no port of a swarm is published.
pub const DOCKERD_ROOTLESS_SWARM: &str = "DOCKERD_ROOTLESS_SWARM";
/// The dockerd to start, by default `dockerd`.
pub const DOCKERD: &str = "DOCKERD";
/// Internal: `1` marks the launcher's second pass, inside the namespaces.
pub const DOCKERD_ROOTLESS_CHILD: &str = "_DOCKERD_ROOTLESS_CHILD";
/// Internal: processes that the launcher ends in their user namespace, as numbers separated by spaces.
pub const DOCKERD_ROOTLESS_END: &str = "_DOCKERD_ROOTLESS_END";
/// Internal: the name of the network driver in force, for the launcher's second pass.
pub const DOCKERD_ROOTLESS_NET_IN_FORCE: &str = "_DOCKERD_ROOTLESS_NET";
/// Internal: how many addresses (families) dockerd is to be told as `host-gateway`, for the launcher's second pass.
pub const DOCKERD_ROOTLESS_HOST_GATEWAY: &str = "_DOCKERD_ROOTLESS_HOST_GATEWAY";
/// Internal: `1` says that SELinux is on. dockerd reads it too and then refuses overlay2.
pub const DOCKERD_ROOTLESS_SELINUX: &str = "_DOCKERD_ROOTLESS_SELINUX";
