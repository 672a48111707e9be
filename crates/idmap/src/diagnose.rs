//! Why newuidmap(1) or newgidmap(1) refused, and what to do about it.
//!
//! The tools say little more than "Operation not permitted". The reasons, by how often they are met: the tool has neither
//! the set-user-ID bit nor file capabilities (copied, or unpacked from an image), its file system is mounted `nosuid`,
//! `no_new_privs` is set on us (sandboxes, `NoNewPrivileges=` of systemd), the ranges are not the user's, or we are in a
//! container that lacks CAP_SETUID. [`Facts::gather`] looks, [`hint`] concludes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::Kind;

/// The mode bit that makes a program run as its owner.
const S_ISUID: u32 = 0o4000;

/// What can be found out about a tool that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// We are root: the tool needs no privileges of its own.
    pub root: bool,
    /// The tool has the set-user-ID bit and belongs to root.
    pub setuid: bool,
    /// The tool has file capabilities.
    pub file_caps: bool,
    /// The tool's file system ignores both.
    pub nosuid: bool,
    /// This process can gain no privileges by executing anything.
    pub no_new_privs: bool,
}

impl Facts {
    /// Looks at the tool and at `<root>/proc/self/status`. What cannot be seen counts as being in order.
    #[must_use]
    pub fn gather(root: &Path, tool: &Path) -> Facts {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        Facts {
            root: nix::unistd::geteuid().is_root(),
            setuid: fs::metadata(tool)
                .map_or(true, |meta| meta.uid() == 0 && meta.mode() & S_ISUID != 0),
            file_caps: sys::xattr::has(tool, "security.capability").unwrap_or(true),
            nosuid: statvfs(tool).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOSUID)),
            no_new_privs: no_new_privs(&status),
        }
    }
}

/// Whether a text in the format of `/proc/<pid>/status` (proc_pid_status(5)) has `NoNewPrivs` set.
fn no_new_privs(status: &str) -> bool {
    status
        .lines()
        .filter_map(|line| line.strip_prefix("NoNewPrivs:"))
        .any(|value| value.trim() == "1")
}

/// The most likely remedy for a refusal. `output` is what the tool said.
#[must_use]
pub fn hint(kind: Kind, tool: &Path, output: &str, facts: Facts) -> String {
    let path = tool.display();
    let cap = match kind {
        Kind::Uid => "cap_setuid",
        Kind::Gid => "cap_setgid",
    };
    if output.contains("not allowed") {
        return format!(
            "a range is not granted to this user: compare it with /etc/{} and `getsubids`, both for the user who runs this",
            kind.subid()
        );
    }
    if output.contains("Invalid argument") {
        return "the kernel refused the map: before Linux 4.15 it takes 5 lines, and inside of a container only ids that the \
                container has; use fewer ranges or smaller ones"
            .to_owned();
    }
    if !facts.root {
        if facts.no_new_privs {
            return format!(
                "no_new_privs is set, so {path} gains no privileges: remove NoNewPrivileges= from the unit or the sandbox"
            );
        }
        if facts.nosuid {
            return format!(
                "{path} is on a file system mounted nosuid: remount it without nosuid or put a {} elsewhere into PATH",
                kind.tool()
            );
        }
        if !facts.setuid && !facts.file_caps {
            return format!(
                "{path} is neither setuid root nor has file capabilities: run `sudo setcap {cap}=ep {path}` or reinstall its \
                 package"
            );
        }
    }
    format!(
        "if this is a container, give it {} (or run it privileged) and let it have the ids of /etc/{}",
        cap.to_uppercase(),
        kind.subid()
    )
}

/// How to install newuidmap and newgidmap, by the text of os-release(5).
#[must_use]
pub fn install_hint(os_release: &str) -> &'static str {
    let field = |name: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim().trim_matches(['"', '\''])
    };
    let version = field("VERSION_ID");
    for family in [field("ID")].into_iter().chain(field("ID_LIKE").split_whitespace()) {
        return match family {
            "debian" | "ubuntu" => "run `sudo apt-get install -y uidmap`",
            "centos" | "rhel" if version.split('.').next() == Some("7") => {
                "run `sudo yum copr enable vbatts/shadow-utils-newxidmap && sudo yum install -y shadow-utils46-newxidmap`"
            }
            "fedora" | "rhel" | "centos" => "run `sudo dnf install -y shadow-utils`",
            "suse" | "opensuse" | "sles" | "opensuse-tumbleweed" | "opensuse-leap" => {
                "run `sudo zypper install -y shadow`"
            }
            "alpine" => "run `sudo apk add shadow-subids`",
            "arch" => "run `sudo pacman -S shadow`",
            "nixos" => "add /run/wrappers/bin to PATH",
            _ => continue,
        };
    }
    "install the package with newuidmap and newgidmap (uidmap, shadow-utils or shadow)"
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Facts =
        Facts { root: false, setuid: true, file_caps: false, nosuid: false, no_new_privs: false };
    const EPERM: &str = "newuidmap: write to uid_map failed: Operation not permitted";

    fn hint_for(output: &str, facts: Facts) -> String {
        hint(Kind::Uid, Path::new("/usr/bin/newuidmap"), output, facts)
    }

    #[test]
    fn every_cause_has_its_remedy() {
        for (output, facts, part) in [
            ("newuidmap: uid range [1-5) -> [7-11) not allowed", FINE, "/etc/subuid"),
            ("newuidmap: write to uid_map failed: Invalid argument", FINE, "fewer ranges"),
            (EPERM, Facts { no_new_privs: true, nosuid: true, ..FINE }, "NoNewPrivileges="),
            (EPERM, Facts { nosuid: true, ..FINE }, "nosuid"),
            (EPERM, Facts { setuid: false, ..FINE }, "setcap cap_setuid=ep /usr/bin/newuidmap"),
            (EPERM, FINE, "CAP_SETUID"),
            (EPERM, Facts { file_caps: true, setuid: false, ..FINE }, "CAP_SETUID"),
            (EPERM, Facts { root: true, setuid: false, no_new_privs: true, ..FINE }, "CAP_SETUID"),
        ] {
            let hint = hint_for(output, facts);
            assert!(hint.contains(part), "{output}: {hint}");
        }
    }

    #[test]
    fn facts_come_from_the_tool_and_the_status_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("newuidmap");
        fs::write(&tool, "").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        fs::write(dir.path().join("proc/self/status"), "Name:\tx\nNoNewPrivs:\t1\n").unwrap();
        let facts = Facts::gather(dir.path(), &tool);
        assert!(!facts.setuid && !facts.file_caps && facts.no_new_privs);
        fs::write(dir.path().join("proc/self/status"), "NoNewPrivs:\t0\n").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
        let facts = Facts::gather(dir.path(), &tool);
        assert!(!facts.no_new_privs);
        assert_eq!(facts.setuid, facts.root, "only root's setuid bit counts");
    }

    #[test]
    fn f003_f009_f021_the_package_depends_on_the_distribution() {
        for (text, part) in [
            ("ID=debian\nVERSION_ID=\"12\"", "apt-get install -y uidmap"),
            (
                "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"",
                "apt-get install -y uidmap",
            ),
            ("ID=\"centos\"\nVERSION_ID=\"7\"", "vbatts/shadow-utils-newxidmap"),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.3\"",
                "dnf install -y shadow-utils",
            ),
            ("ID=fedora\nVERSION_ID=40", "dnf install -y shadow-utils"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", "zypper install -y shadow"),
            ("ID=alpine", "apk add shadow-subids"),
            ("ID=manjaro\nID_LIKE=arch", "pacman -S shadow"),
            ("ID=nixos", "/run/wrappers/bin"),
            ("ID=other", "install the package"),
            ("", "install the package"),
        ] {
            assert!(install_hint(text).contains(part), "{text}");
        }
    }
}
