//! What a kernel means that makes no further namespace (`ENOSPC`).

use std::fs;
use std::path::Path;

use hostenv::namespaces;

/// What to do if the child cannot be made: a hint for each limit that is 0 (namespaces(7)), or for that of user
/// namespaces, which may be reached.
pub(crate) fn hint(root: &Path) -> String {
    let forbidden: String = namespaces::KINDS
        .into_iter()
        .map(namespaces::limit)
        .filter(|key| sysctl(root, key) == Some(0))
        .map(|key| {
            format!("\nhint: {key} is 0; allow these namespaces: sudo sysctl -w {key}=28633")
        })
        .collect();
    if forbidden.is_empty() { raise("user") } else { forbidden }
}

/// The hint to raise the limit of a kind. In a user namespace of our own, the limits that can be read are not those
/// that count.
pub(crate) fn raise(kind: &str) -> String {
    let key = namespaces::limit(kind);
    format!("\nhint: raise the limit of {kind} namespaces: sudo sysctl -w {key}=28633")
}

/// The number that a sysctl has, below the root directory `root`.
pub(crate) fn sysctl(root: &Path, key: &str) -> Option<u64> {
    let path = root.join("proc/sys").join(key.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
