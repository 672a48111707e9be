//! The mode of SELinux.

use std::fs;
use std::path::Path;

/// Whether SELinux is in use, and whether it denies what the policy does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selinux {
    /// It is not in use.
    Off,
    /// It only logs.
    Permissive,
    /// It denies.
    Enforcing,
}

impl Selinux {
    /// The mode on the system with this root directory. SELinux is in use if selinuxfs is mounted and a policy is loaded
    /// (before that, every process has the context `kernel`): selinuxenabled(8) tells it in the same way.
    pub fn of(root: &Path) -> Self {
        let context = fs::read(root.join("proc/self/attr/current")).unwrap_or_default();
        let context = context.strip_suffix(b"\0").unwrap_or(&context);
        let enforce = root.join("sys/fs/selinux/enforce");
        if context.is_empty() || context == b"kernel" || !enforce.exists() {
            Self::Off
        } else if fs::read(enforce).is_ok_and(|text| text.trim_ascii() == b"1") {
            Self::Enforcing
        } else {
            Self::Permissive
        }
    }

    /// Whether it is in use, in either mode.
    pub fn on(self) -> bool {
        self != Self::Off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_the_file_system_and_a_policy() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let mode = || Selinux::of(root.path());
        assert!(!mode().on());
        put("proc/self/attr/current", "unconfined_u:unconfined_r:unconfined_t:s0\0");
        assert!(!mode().on());
        put("sys/fs/selinux/enforce", "0");
        assert!(mode().on());
        assert_eq!(mode(), Selinux::Permissive);
        put("sys/fs/selinux/enforce", "1");
        assert_eq!(mode(), Selinux::Enforcing);
        put("proc/self/attr/current", "kernel\0");
        assert!(!mode().on());
    }
}
