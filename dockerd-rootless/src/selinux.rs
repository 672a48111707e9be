//! SELinux: the private `/run` needs a label that iptables may write to.
//!
//! iptables changes domain when it is executed and may then only write its lock file below a directory
//! labelled `iptables_var_run_t`; the tmpfs that rootlesskit mounts on `/run` has a generic label
//! (<https://github.com/moby/moby/issues/41230>).

use std::fs;
use std::path::Path;

use crate::report::Failure;

/// As libselinux writes it, with the final NUL.
const LABEL: &[u8] = b"system_u:object_r:iptables_var_run_t:s0\0";

/// Whether SELinux is in use, enforcing or not, as selinuxenabled(8) tells it: selinuxfs is mounted and a
/// policy is loaded (before that every process has the context `kernel`).
pub(crate) fn enabled(root: &Path) -> bool {
    let context = fs::read(root.join("proc/self/attr/current")).unwrap_or_default();
    let context = context.strip_suffix(b"\0").unwrap_or(&context);
    root.join("sys/fs/selinux/enforce").exists() && !context.is_empty() && context != b"kernel"
}

/// Labels a directory for iptables.
pub(crate) fn label_for_iptables(run: &Path) -> Result<(), Failure> {
    sys::xattr::set(run, "security.selinux", LABEL).map_err(|e| {
        Failure::new(format!(
            "cannot label {} as iptables_var_run_t, so SELinux would block iptables from using \
             /run/xtables.lock: {e}",
            run.display()
        ))
        .hint("install a policy that has this type (package selinux-policy-targeted), or make the iptables domain \
               permissive, as root: semanage permissive -a iptables_t")
    })
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
        assert!(!enabled(root.path()));
        put("proc/self/attr/current", "unconfined_u:unconfined_r:unconfined_t:s0\0");
        assert!(!enabled(root.path()));
        put("sys/fs/selinux/enforce", "0");
        assert!(enabled(root.path()));
        put("proc/self/attr/current", "kernel\0");
        assert!(!enabled(root.path()));
    }

    #[test]
    fn the_label_is_an_attribute() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!sys::xattr::has(dir.path(), "security.selinux").unwrap());
        label_for_iptables(dir.path()).unwrap();
        assert!(sys::xattr::has(dir.path(), "security.selinux").unwrap());
    }

    #[test]
    fn a_refused_label_says_what_it_was_for() {
        let e = label_for_iptables(Path::new("/nonexistent/run")).unwrap_err().to_string();
        assert!(
            e.contains("/nonexistent/run") && e.contains("xtables.lock") && e.contains("hint:"),
            "{e}"
        );
    }
}
