//! SELinux: the private `/run` needs a label that iptables may write to.
//!
//! iptables changes domain when it is executed and may then only write its lock file below a directory
//! labelled `iptables_var_run_t`; the tmpfs that rootlesskit mounts on `/run` has a generic label
//! (<https://github.com/moby/moby/issues/41230>).

use std::path::Path;

use crate::report::Failure;

/// As libselinux writes it, with the final NUL.
const LABEL: &[u8] = b"system_u:object_r:iptables_var_run_t:s0\0";

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
