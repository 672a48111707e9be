//! What is worth saying before anything is tried, and what a refusal of the kernel means.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use nix::libc;
use nix::unistd::geteuid;

use crate::cli::Cli;
use crate::exit::go_words;
use crate::limit::{self, sysctl};

/// Fewer user namespaces than this and a container-heavy host may run out.
const FEW_NAMESPACES: u64 = 1024;

pub(super) fn warnings(root: &Path, cli: &Cli) {
    if geteuid().is_root() {
        tracing::warn!("running RootlessKit as the root user is unsupported");
    }
    for hint in sysctl_hints(root) {
        tracing::warn!("{hint}");
    }
    if !cli.propagation.contains("private")
        && let Ok(mounts) = fs::read_to_string(root.join("proc/self/mountinfo"))
        && let Some(optional) = root_propagation(&mounts)
        && !optional.contains("shared")
    {
        tracing::warn!(
            "The host root filesystem is mounted as {optional:?}. Setting child propagation to {:?} is not supported.\nhint: sudo mount --make-rshared /",
            cli.propagation
        );
    }
}

/// The optional fields of `/` in mountinfo (proc_pid_mountinfo(5)).
fn root_propagation(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let end = fields.iter().position(|f| *f == "-")?;
        (fields.get(4) == Some(&"/")).then(|| fields.get(6..end).unwrap_or_default().join(" "))
    })
}

fn sysctl_hints(root: &Path) -> Vec<String> {
    let mut hints = Vec::new();
    if sysctl(root, "kernel.unprivileged_userns_clone") == Some(0) {
        hints.push("/proc/sys/kernel/unprivileged_userns_clone needs to be set to 1\nhint: sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned());
    }
    match sysctl(root, "user.max_user_namespaces") {
        Some(0) => hints.push("/proc/sys/user/max_user_namespaces needs to be set to non-zero\nhint: sudo sysctl -w user.max_user_namespaces=28633".to_owned()),
        Some(n) if n < FEW_NAMESPACES => {
            hints.push(format!("/proc/sys/user/max_user_namespaces={n} may be low\nhint: sudo sysctl -w user.max_user_namespaces=28633"));
        }
        _ => {}
    }
    hints
}

/// The error of making the child, with everything known about its cause.
pub(super) fn explain_spawn(root: &Path, error: &io::Error) -> anyhow::Error {
    let mut text =
        format!("failed to start the child: fork/exec /proc/self/exe: {}", go_words(error));
    for hint in sysctl_hints(root) {
        write!(text, "\n{hint}").unwrap_or_default();
    }
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) => text.push_str(&limit::hint(root)),
        Some(libc::EINVAL) => {
            text.push_str("\nhint: use a kernel with user namespaces (CONFIG_USER_NS)");
        }
        Some(libc::ENOSYS) => {
            text.push_str("\nhint: use Linux 5.3 or later; in a container, check that its seccomp filter does not hide clone(2)");
        }
        Some(libc::EPERM | libc::EACCES) => {
            if sysctl(root, "kernel.apparmor_restrict_unprivileged_userns") == Some(1) {
                let exe = fs::read_link("/proc/self/exe").unwrap_or_default();
                text.push_str(&apparmor_hint(&exe));
            } else {
                text.push_str("\nhint: check what blocks user namespaces: a sysctl, a security module, or a container's seccomp filter");
            }
        }
        _ => {}
    }
    anyhow::anyhow!(text)
}

/// The error of executing the program in the namespaces that were made. For AppArmor, the program lies in another mount
/// namespace then, so its path is disconnected (apparmor.d(5)), which profiles allow with a flag only.
pub(super) fn explain_exec(error: &io::Error) -> anyhow::Error {
    let mut text =
        format!("failed to start the child: fork/exec /proc/self/exe: {}", go_words(error));
    if error.raw_os_error() == Some(libc::EACCES) {
        text.push_str(
            "\nhint: check which security module confines rootlesskit; \
             if it is AppArmor, add attach_disconnected to the flags of the profile",
        );
    }
    anyhow::anyhow!(text)
}

/// A profile that allows user namespaces to the binary where it lies, ready to paste.
fn apparmor_hint(exe: &Path) -> String {
    let path = exe.to_string_lossy();
    let file = path.trim_start_matches('/').replace('/', ".");
    format!(
        "\nhint: AppArmor blocks unprivileged user namespaces for programs without a profile. To allow rootlesskit, run:

cat <<EOT | sudo tee \"/etc/apparmor.d/{file}\"
abi <abi/4.0>,
include <tunables/global>

\"{path}\" flags=(unconfined) {{
  userns,

  include if exists <local/{file}>
}}
EOT
sudo systemctl restart apparmor.service"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join("proc/sys").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn sysctls_that_forbid_user_namespaces() {
        let none = root(&[]);
        assert!(sysctl_hints(none.path()).is_empty());
        let fine = root(&[
            ("kernel/unprivileged_userns_clone", "1\n"),
            ("user/max_user_namespaces", "28633\n"),
        ]);
        assert!(sysctl_hints(fine.path()).is_empty());
        let bad = root(&[
            ("kernel/unprivileged_userns_clone", "0\n"),
            ("user/max_user_namespaces", "0\n"),
        ]);
        let hints = sysctl_hints(bad.path()).join("\n");
        assert!(
            hints.contains("unprivileged_userns_clone=1")
                && hints.contains("max_user_namespaces=28633"),
            "{hints}"
        );
        let low = root(&[("user/max_user_namespaces", "100\n")]);
        assert!(sysctl_hints(low.path())[0].contains("may be low"));
    }

    #[test]
    fn refusals_are_explained() {
        let explain = |root: &Path, errno| {
            explain_spawn(root, &io::Error::from_raw_os_error(errno)).to_string()
        };
        let plain = root(&[]);
        let text = explain(plain.path(), libc::ENOSPC);
        assert!(text.contains("fork/exec /proc/self/exe: no space left on device"), "{text}");
        assert!(text.contains("max_user_namespaces"), "{text}");
        let net =
            root(&[("user/max_user_namespaces", "2000\n"), ("user/max_net_namespaces", "0\n")]);
        let text = explain(net.path(), libc::ENOSPC);
        assert!(text.ends_with("hint: user.max_net_namespaces is 0; allow these namespaces: sudo sysctl -w user.max_net_namespaces=28633"), "{text}");
        assert!(
            explain(plain.path(), libc::EPERM)
                .contains("fork/exec /proc/self/exe: operation not permitted")
        );
        let apparmor = root(&[("kernel/apparmor_restrict_unprivileged_userns", "1\n")]);
        let text = explain(apparmor.path(), libc::EACCES);
        assert!(
            text.contains("permission denied")
                && text.contains("/etc/apparmor.d/")
                && text.contains("userns,"),
            "{text}"
        );
        assert!(
            apparmor_hint(Path::new("/home/u/bin/rootlesskit"))
                .contains("/etc/apparmor.d/home.u.bin.rootlesskit")
        );
    }

    #[test]
    fn a_refusal_to_execute_in_the_namespaces_is_explained() {
        let explain = |errno| explain_exec(&io::Error::from_raw_os_error(errno)).to_string();
        let text = explain(libc::EACCES);
        assert!(text.contains("fork/exec /proc/self/exe: permission denied\nhint: "), "{text}");
        assert!(text.contains("attach_disconnected"), "{text}");
        let text = explain(libc::ENOMEM);
        assert!(text.ends_with("fork/exec /proc/self/exe: cannot allocate memory"), "{text}");
    }

    #[test]
    fn propagation_of_the_root() {
        let text = "22 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/x rw\n23 22 0:5 / /dev rw - tmpfs x rw\n";
        assert_eq!(root_propagation(text).as_deref(), Some("shared:1 master:2"));
        assert_eq!(root_propagation("22 1 8:1 / / rw - ext4 x rw\n").as_deref(), Some(""));
    }
}
