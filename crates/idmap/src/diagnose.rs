//! Why newuidmap(1) or newgidmap(1) refused, and what to do about it.
//!
//! The tools say little more than "Operation not permitted". The reasons, by how often they are met: the tool has neither
//! the set-user-ID bit nor file capabilities (copied, or unpacked from an image), its file system is mounted `nosuid`,
//! `no_new_privs` is set on us (sandboxes, `NoNewPrivileges=` of systemd), the ranges are not the user's, or we are in a
//! container that lacks the ids ([`crate::outer`]) or the capabilities. [`Facts::gather`] looks, [`obstacle`] concludes, and
//! [`hint`] says so.
//!
//! Which capabilities it takes depends on how the tool gets them. With file capabilities it runs as the user, who owns the
//! new namespace and so has every capability in it: CAP_SETUID is enough. A setuid tool runs as root, who owns neither the
//! namespace nor the file `uid_map`: it needs CAP_DAC_OVERRIDE to open the file and CAP_SYS_ADMIN to write it besides
//! (map_write and new_idmap_permitted in Linux's kernel/user_namespace.c). Kubernetes and Docker give containers no CAP_SYS_ADMIN.
//! A tool with both the bit and file capabilities runs as root with nothing but the latter (capabilities(7)), and fails
//! everywhere.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::Kind;

/// The mode bit that makes a program run as its owner.
const S_ISUID: u32 = 0o4000;

/// Numbers of capabilities (capabilities(7)), with their names.
const DAC_OVERRIDE: (u8, &str) = (1, "CAP_DAC_OVERRIDE");
const SETGID: (u8, &str) = (6, "CAP_SETGID");
const SETUID: (u8, &str) = (7, "CAP_SETUID");
const SYS_ADMIN: (u8, &str) = (21, "CAP_SYS_ADMIN");
const SETFCAP: (u8, &str) = (31, "CAP_SETFCAP");

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
    /// The capabilities that a program can gain at all, as bits; `None` when nobody knows.
    pub bounding: Option<u64>,
}

impl Facts {
    /// Looks at the tool and at `<root>/proc/self/status`. What cannot be seen counts as being in order.
    pub fn gather(root: &Path, tool: &Path) -> Facts {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        Facts {
            root: nix::unistd::geteuid().is_root(),
            setuid: fs::metadata(tool)
                .map_or(true, |meta| meta.uid() == 0 && meta.mode() & S_ISUID != 0),
            file_caps: sys::xattr::has(tool, "security.capability").unwrap_or(true),
            nosuid: statvfs(tool).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOSUID)),
            no_new_privs: field(&status, "NoNewPrivs:") == Some("1"),
            bounding: field(&status, "CapBnd:").and_then(|bits| u64::from_str_radix(bits, 16).ok()),
        }
    }

    /// Whether programs can gain this capability.
    fn can_have(self, (number, _): (u8, &str)) -> bool {
        self.bounding.is_none_or(|bits| bits >> number & 1 == 1)
    }

    /// Whether root may give a file capabilities here: where it may not, that belongs into the image.
    pub fn can_setcap(self) -> bool {
        self.can_have(SETFCAP)
    }
}

/// A field of `/proc/<pid>/status` (proc_pid_status(5)).
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// What keeps a tool from its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// `no_new_privs` is set.
    NoNewPrivs,
    /// Its file system is mounted `nosuid`.
    Nosuid,
    /// It has neither the set-user-ID bit nor file capabilities.
    Powerless,
    /// It has both, which is less than either.
    Both,
    /// It is setuid, and these of the capabilities that it needs for that cannot be had here.
    Setuid(Vec<&'static str>),
    /// The container lacks this capability, without which there is no way.
    Container(&'static str),
}

/// What is in the way of a tool, as far as one can see.
pub fn obstacle(kind: Kind, facts: Facts) -> Option<Obstacle> {
    let own = kind.either(SETUID, SETGID);
    if !facts.root {
        if facts.no_new_privs {
            return Some(Obstacle::NoNewPrivs);
        }
        if facts.nosuid {
            return Some(Obstacle::Nosuid);
        }
        if !facts.setuid && !facts.file_caps {
            return Some(Obstacle::Powerless);
        }
    }
    if !facts.can_have(own) {
        return Some(Obstacle::Container(own.1));
    }
    if facts.root || !facts.setuid {
        return None;
    }
    if facts.file_caps {
        return Some(Obstacle::Both);
    }
    let lacking = [SYS_ADMIN, DAC_OVERRIDE].into_iter().filter(|cap| !facts.can_have(*cap));
    let lacking: Vec<&str> = lacking.map(|cap| cap.1).collect();
    (!lacking.is_empty()).then_some(Obstacle::Setuid(lacking))
}

/// The commands that let a tool do its work without the set-user-ID bit, for root; `path` is quoted if it needs that.
pub fn capable(kind: Kind, path: &str) -> [String; 2] {
    let cap = kind.either("cap_setuid", "cap_setgid");
    [format!("chmod u-s {path}"), format!("setcap {cap}=ep {path}")]
}

/// The most likely remedy for a refusal. `output` is what the tool said.
pub fn hint(kind: Kind, tool: &Path, output: &str, facts: Facts) -> String {
    let path = tool.display();
    if output.contains("not allowed") {
        return format!(
            "a range is not granted to this user: compare it with this user's entries in /etc/{} and with the output of `getsubids`",
            kind.subid()
        );
    }
    if output.contains("Invalid argument") {
        return "the kernel refused the map: use fewer ranges; Linux before 4.15 accepts only 5 lines"
            .to_owned();
    }
    let Some(obstacle) = obstacle(kind, facts) else {
        return format!(
            "something blocks {path}, such as a security module or a container's seccomp filter: if this is a \
             container, run it privileged"
        );
    };
    format!("{}: {}", obstacle.what(tool), obstacle.remedy(kind, tool, facts))
}

impl Obstacle {
    /// What is in the way of this tool, in words.
    pub fn what(&self, tool: &Path) -> String {
        let path = tool.display();
        match self {
            Obstacle::NoNewPrivs => format!("no_new_privs is set, so {path} gains no privileges"),
            Obstacle::Nosuid => format!("{path} is on a file system mounted nosuid"),
            Obstacle::Powerless => {
                format!("{path} is neither setuid root nor has file capabilities")
            }
            Obstacle::Both => format!(
                "{path} is setuid root and has file capabilities, so the kernel grants it only these capabilities, which are not enough for root"
            ),
            Obstacle::Setuid(lacking) => format!(
                "{path} is setuid root and therefore needs {}, which this container lacks",
                lacking.join(" and ")
            ),
            Obstacle::Container(cap) => format!("this container lacks {cap}"),
        }
    }

    fn remedy(&self, kind: Kind, tool: &Path, facts: Facts) -> String {
        let [chmod, setcap] = capable(kind, &tool.display().to_string());
        match self {
            Obstacle::NoNewPrivs => {
                "remove NoNewPrivileges= from the unit or the sandbox (Docker: --security-opt \
                 no-new-privileges, Kubernetes: allowPrivilegeEscalation: false)"
                    .to_owned()
            }
            Obstacle::Nosuid => {
                format!(
                    "remount the file system without nosuid, or put a {} on another file system into PATH",
                    kind.tool()
                )
            }
            Obstacle::Powerless => format!("run `sudo {setcap}` or reinstall its package"),
            Obstacle::Both => format!("run `sudo {chmod}`"),
            // With file capabilities it needs neither.
            Obstacle::Setuid(_) if facts.can_setcap() => {
                format!("run `sudo {chmod}` and `sudo {setcap}`")
            }
            Obstacle::Setuid(_) => {
                format!("add `RUN {chmod} && {setcap}` to the image's Dockerfile")
            }
            Obstacle::Container(_) => {
                "add the capabilities SETUID and SETGID (Docker: --cap-add, Kubernetes: \
                 securityContext.capabilities.add)"
                    .to_owned()
            }
        }
    }
}

/// How to install newuidmap and newgidmap, by the text of os-release(5).
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
    "install the package that contains newuidmap and newgidmap (uidmap, shadow-utils or shadow)"
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Facts = Facts {
        root: false,
        setuid: true,
        file_caps: false,
        nosuid: false,
        no_new_privs: false,
        bounding: None,
    };
    const EPERM: &str = "newuidmap: write to uid_map failed: Operation not permitted";
    /// SETUID and SETGID only, as in a pod that drops ALL and adds these.
    const POD: Option<u64> = Some(0xc0);
    /// Docker's.
    const DOCKER: Option<u64> = Some(0xa804_25fb);

    fn hint_for(output: &str, facts: Facts) -> String {
        hint(Kind::Uid, Path::new("/usr/bin/newuidmap"), output, facts)
    }

    #[test]
    fn every_cause_has_its_remedy() {
        let caps = Facts { setuid: false, file_caps: true, ..FINE };
        for (output, facts, part) in [
            ("newuidmap: uid range [1-5) -> [7-11) not allowed", FINE, "/etc/subuid"),
            ("newuidmap: write to uid_map failed: Invalid argument", FINE, "fewer ranges"),
            (EPERM, Facts { no_new_privs: true, nosuid: true, ..FINE }, "NoNewPrivileges="),
            (EPERM, Facts { nosuid: true, ..FINE }, "nosuid"),
            (EPERM, Facts { setuid: false, ..FINE }, "setcap cap_setuid=ep /usr/bin/newuidmap"),
            (EPERM, FINE, "privileged"),
            (EPERM, caps, "privileged"),
            (EPERM, Facts { root: true, setuid: false, no_new_privs: true, ..FINE }, "privileged"),
            (EPERM, Facts { file_caps: true, ..FINE }, "sudo chmod u-s /usr/bin/newuidmap"),
            (
                EPERM,
                Facts { bounding: Some(0), ..FINE },
                "lacks CAP_SETUID: add the capabilities SETUID and SETGID",
            ),
            (EPERM, Facts { bounding: Some(0x40), ..caps }, "lacks CAP_SETUID"),
        ] {
            let hint = hint_for(output, facts);
            assert!(hint.contains(part), "{output}: {hint}");
        }
    }

    #[test]
    fn a_setuid_tool_in_a_container_needs_more_than_a_capable_one() {
        let denied = "newuidmap: open of uid_map failed: Permission denied";
        let pod = hint_for(denied, Facts { bounding: POD, ..FINE });
        assert!(pod.contains("therefore needs CAP_SYS_ADMIN and CAP_DAC_OVERRIDE"), "{pod}");
        // No CAP_SETFCAP: nobody can run setcap there.
        let image = "RUN chmod u-s /usr/bin/newuidmap && setcap cap_setuid=ep /usr/bin/newuidmap`";
        assert!(pod.contains(image), "{pod}");
        let docker = hint_for(EPERM, Facts { bounding: DOCKER, ..FINE });
        assert!(docker.contains("therefore needs CAP_SYS_ADMIN,"), "{docker}");
        assert!(
            docker.contains("run `sudo chmod u-s /usr/bin/newuidmap` and `sudo setcap"),
            "{docker}"
        );
        for bounding in [POD, DOCKER] {
            let caps = Facts { setuid: false, file_caps: true, bounding, ..FINE };
            assert_eq!(obstacle(Kind::Uid, caps), None);
            assert_eq!(obstacle(Kind::Gid, caps), None);
            let root = Facts { root: true, bounding, ..FINE };
            assert_eq!(obstacle(Kind::Gid, root), None, "root owns its namespace");
        }
        let one = Facts { bounding: Some(0x80), ..FINE };
        assert_eq!(obstacle(Kind::Gid, one), Some(Obstacle::Container("CAP_SETGID")));
        assert_eq!(obstacle(Kind::Uid, Facts { bounding: Some(u64::MAX), ..FINE }), None);
    }

    #[test]
    fn facts_come_from_the_tool_and_the_status_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("newuidmap");
        fs::write(&tool, "").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let status = dir.path().join("proc/self/status");
        fs::write(&status, "Name:\tx\nNoNewPrivs:\t1\nCapBnd:\t00000000000000c0\n").unwrap();
        let facts = Facts::gather(dir.path(), &tool);
        assert!(!facts.setuid && !facts.file_caps && facts.no_new_privs);
        assert_eq!(facts.bounding, Some(0xc0));
        fs::write(&status, "NoNewPrivs:\t0\n").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
        let facts = Facts::gather(dir.path(), &tool);
        assert!(!facts.no_new_privs && facts.bounding.is_none());
        assert_eq!(facts.setuid, facts.root, "only root's setuid bit counts");
    }

    #[test]
    fn the_package_depends_on_the_distribution() {
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
