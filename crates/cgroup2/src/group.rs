//! Which group a process is in, and where the group's directory is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::mounts::Mount;

/// The cgroup2 group of a process as `<proc>/<pid>/cgroup` names it, relative to the root of our cgroup namespace. `None`:
/// the kernel or the namespace has none.
///
/// # Errors
/// The file cannot be read, for instance since the process has ended.
pub fn group_of(proc: &Path, pid: u32) -> io::Result<Option<PathBuf>> {
    Ok(parse(&fs::read(proc.join(pid.to_string()).join("cgroup"))?))
}

/// The path of the `0::` line (cgroups(7)).
fn parse(text: &[u8]) -> Option<PathBuf> {
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    // The kernel says so about a group that was removed while a process, being a zombie, was still in it.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    path.starts_with(b"/").then(|| OsStr::from_bytes(path).into())
}

/// The directory of a group. `None`: the mount does not show it, since it is a mount of another part of the tree, or the
/// group lies outside of our cgroup namespace (`/../…`).
pub fn directory(mount: &Mount, group: &Path) -> Option<PathBuf> {
    let below = group.strip_prefix(&mount.root).ok()?;
    let outside = below.components().any(|part| part == Component::ParentDir);
    (!outside).then(|| mount.point.join(below))
}

/// The group of a user's service manager, whose sub-groups are the user's own. systemd(1) delegates it.
pub fn user_service(uid: u32) -> PathBuf {
    format!("/user.slice/user-{uid}.slice/user@{uid}.service").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_line_with_hierarchy_0() {
        let text = b"12:memory:/v1\n1:name=systemd:/x\n0::/user.slice/a b\n";
        assert_eq!(parse(text), Some("/user.slice/a b".into()));
        assert_eq!(parse(b"0::/gone (deleted)\n"), Some("/gone".into()));
        assert_eq!(parse(b"12:memory:/v1\n10::/x\n"), None);
        assert_eq!(parse(b"0::\n"), None);
    }

    #[test]
    fn processes_are_found_below_the_given_proc() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("42")).unwrap();
        fs::write(proc.path().join("42/cgroup"), "0::/theirs\n").unwrap();
        assert_eq!(group_of(proc.path(), 42).unwrap(), Some("/theirs".into()));
        assert!(group_of(proc.path(), 43).is_err());
    }

    #[test]
    fn directories_depend_on_what_the_mount_shows() {
        let mount = |root: &str| Mount { root: root.into(), point: "/m".into() };
        assert_eq!(directory(&mount("/"), Path::new("/a/b")), Some("/m/a/b".into()));
        assert_eq!(directory(&mount("/"), Path::new("/")), Some("/m".into()));
        assert_eq!(directory(&mount("/a"), Path::new("/a/b")), Some("/m/b".into()));
        assert_eq!(directory(&mount("/x"), Path::new("/a/b")), None);
        assert_eq!(directory(&mount("/"), Path::new("/../x")), None);
    }

    #[test]
    fn the_users_service_manager() {
        assert_eq!(user_service(1000), Path::new("/user.slice/user-1000.slice/user@1000.service"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_leave_the_mount(text: Vec<u8>) {
            let mount = Mount { root: "/".into(), point: "/m".into() };
            if let Some(directory) = parse(&text).and_then(|group| directory(&mount, &group)) {
                prop_assert!(directory.starts_with("/m"));
            }
        }
    }
}
