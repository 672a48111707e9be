//! Limits of how many namespaces a user may have (namespaces(7), `/proc/sys/user`).

/// The kinds that rootlesskit and containers make, besides user namespaces, as their limits name them.
pub const KINDS: [&str; 6] = ["mnt", "net", "pid", "ipc", "uts", "cgroup"];

/// The sysctl with the limit of a kind, such as `user.max_net_namespaces`.
#[must_use]
pub fn limit(kind: &str) -> String {
    format!("user.max_{kind}_namespaces")
}
