//! Which controllers a group may hand out to its sub-groups.

use std::fs;
use std::io;
use std::path::Path;

/// The controllers that Docker uses to limit containers.
pub const WANTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// The controllers of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Those the group has (`cgroup.controllers`).
    pub available: Vec<String>,
    /// Those its sub-groups have (`cgroup.subtree_control`).
    pub enabled: Vec<String>,
    /// Those of [`WANTED`] that the group does not have.
    pub missing: Vec<String>,
}

/// Reads the controllers of the group with this directory.
///
/// # Errors
/// A file cannot be read; `NotFound` usually means that this is no cgroup2 or that the group does not exist.
pub fn delegation(group: &Path) -> io::Result<Delegation> {
    let available = words(&fs::read_to_string(group.join("cgroup.controllers"))?);
    let enabled = words(&fs::read_to_string(group.join("cgroup.subtree_control"))?);
    let missing = WANTED.into_iter().filter(|wanted| !available.iter().any(|has| has == wanted));
    Ok(Delegation { missing: missing.map(str::to_owned).collect(), available, enabled })
}

impl Delegation {
    /// Commands for the administrator that delegate every controller to all users; `None` if nothing is missing.
    ///
    /// They use `tee`, because in `sudo cat > FILE` it is the unprivileged shell that opens the file.
    pub fn remedy(&self) -> Option<String> {
        if self.missing.is_empty() {
            return None;
        }
        let cpuset = self.missing.iter().any(|name| name == "cpuset");
        let note = if cpuset { " (cpuset needs systemd 244 or later)" } else { "" };
        Some(format!(
            "controllers {} are not delegated{note}; run\n\
             sudo mkdir -p /etc/systemd/system/user@.service.d\n\
             printf '[Service]\\nDelegate={}\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf\n\
             sudo systemctl daemon-reload\n\
             and log in again",
            self.missing.join(", "),
            WANTED.join(" "),
        ))
    }
}

/// The words of a controller list.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(controllers: &str, subtree: &str) -> Delegation {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(group.path().join("cgroup.subtree_control"), subtree).unwrap();
        delegation(group.path()).unwrap()
    }

    #[test]
    fn the_default_is_memory_and_pids() {
        let found = of("memory pids\n", "pids\n");
        assert_eq!(found.available, ["memory", "pids"]);
        assert_eq!(found.enabled, ["pids"]);
        assert_eq!(found.missing, ["cpu", "cpuset", "io"]);
        let remedy = found.remedy().unwrap();
        assert!(
            remedy.contains("Delegate=cpu cpuset io memory pids")
                && remedy.contains("cpu, cpuset, io are"),
            "{remedy}"
        );
    }

    #[test]
    fn the_remedy_works_without_a_root_shell() {
        let remedy = of("cpu io memory pids\n", "").remedy().unwrap();
        assert!(
            remedy.contains("| sudo tee /etc/systemd/") && remedy.contains("systemd 244"),
            "{remedy}"
        );
        assert!(!of("cpuset io memory pids", "").remedy().unwrap().contains("244"));
    }

    #[test]
    fn nothing_to_do_when_all_are_there() {
        assert_eq!(of("cpuset cpu io memory hugetlb pids rdma misc\n", "\n").remedy(), None);
    }

    #[test]
    fn no_group_is_an_error() {
        let error = delegation(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
