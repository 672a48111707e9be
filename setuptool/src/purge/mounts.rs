//! Mounts, read from mountinfo (proc_pid_mountinfo(5)): which of them lie below a directory, and how to unmount them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use hostenv::shellwords::quoted;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor` of the file system.
    pub(super) device: Vec<u8>,
    /// What of the file system is mounted.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) kind: String,
    /// The options of the file system; those of overlays name directories.
    pub(super) options: Vec<u8>,
}

impl Mount {
    /// Whether it is the same part of the same file system, at the same place.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.device == other.device && self.root == other.root && self.point == other.point
    }

    /// The command that unmounts it. Whoever mounted it with FUSE unmounts it without root.
    fn umount(&self) -> String {
        let program = if self.kind.split('.').next() == Some("fuse") {
            "fusermount3 -u"
        } else {
            "sudo umount"
        };
        format!("{program} {}", quoted(&self.point))
    }
}

/// The mounts of the process's mount namespace: `/proc/self/mountinfo`, or that of another process.
pub(super) fn of(process: &Path) -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read(process.join("mountinfo"))?))
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(text: &[u8]) -> Option<Mount> {
    let mut fields = text.split(|byte| *byte == b' ');
    let device = fields.nth(2)?.to_vec();
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    // Any number of optional fields, up to a dash.
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let options = unescaped(fields.nth(1).unwrap_or_default());
    point.is_absolute().then_some(Mount { device, root, point, kind, options })
}

fn path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescaped(field)).into()
}

/// Blanks, line breaks and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| (b'0'..=b'7').contains(&byte).then(|| u32::from(byte - b'0'));
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a, b, c, after @ ..]) = (first, tail) {
            let digits = [digit(*a), digit(*b), digit(*c)];
            if let [Some(a), Some(b), Some(c)] = digits
                && let Ok(byte) = u8::try_from(a * 64 + b * 8 + c)
            {
                text.push(byte);
                rest = after;
                continue;
            }
        }
        text.push(*first);
        rest = tail;
    }
    text
}

/// The mounts below a directory, the last one first, which is the order to unmount them in. One on the directory itself
/// is none of them.
pub(super) fn below(mounts: &[Mount], dir: &Path) -> Vec<Mount> {
    let inside = |mount: &&Mount| mount.point != dir && mount.point.starts_with(dir);
    mounts.iter().rev().filter(inside).cloned().collect()
}

/// Where a directory is in its file system, and in which.
pub(super) fn in_file_system(mounts: &[Mount], dir: &Path) -> Option<(Vec<u8>, PathBuf)> {
    // Of those at the same place, the last one is seen.
    let above = mounts.iter().filter(|mount| dir.starts_with(&mount.point));
    let mount = above.max_by_key(|mount| mount.point.components().count())?;
    let rest = dir.strip_prefix(&mount.point).ok()?;
    let path = if rest.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(rest) };
    Some((mount.device.clone(), path))
}

/// Why the directory cannot be deleted: the list of mounts, and the commands that unmount them.
pub(super) fn refusal(dir: &Path, mounts: &[Mount]) -> String {
    let mut lines = vec![format!(
        "file systems are mounted below {}, and deleting it would delete their contents:",
        dir.display()
    )];
    lines.extend(
        mounts.iter().map(|mount| format!("  {} ({})", crate::ui::name(&mount.point), mount.kind)),
    );
    lines.push("hint: unmount them, then run this again:".to_owned());
    lines.extend(mounts.iter().map(|mount| format!("  {}", mount.umount())));
    lines.join("\n")
}

/// Whether an option of an overlay names something below the directory.
pub(super) fn options_name(mount: &Mount, dir: &Path) -> bool {
    let mut needle = dir.as_os_str().as_bytes().to_vec();
    needle.push(b'/');
    mount.kind == "overlay"
        && mount.options.windows(needle.len()).any(|window| window == needle.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &[u8] = b"\
21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
30 21 8:1 /home/u /home/u rw - ext4 /dev/sda1 rw\n\
31 30 0:40 / /home/u/data/volumes/n\\040as/_data rw,relatime shared:5 master:1 - nfs4 srv:/x rw\n\
32 31 0:41 / /home/u/data/volumes/n\\040as/_data/deep rw - fuse.sshfs me@h:/ rw,user_id=1000\n\
33 30 0:42 / /home/u/database rw - tmpfs none rw\n\
34 30 8:1 /srv /home/u/data rw - ext4 /dev/sda1 rw\n\
broken line\n";

    #[test]
    fn mounts_below_a_directory_are_found_and_come_with_their_commands() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 6);
        let dir = Path::new("/home/u/data");
        let found = below(&mounts, dir);
        let points: Vec<_> = found.iter().map(|mount| mount.point.to_str().unwrap()).collect();
        assert_eq!(
            points,
            ["/home/u/data/volumes/n as/_data/deep", "/home/u/data/volumes/n as/_data"]
        );
        let text = refusal(dir, &found);
        for line in [
            "  /home/u/data/volumes/n as/_data (nfs4)",
            "  fusermount3 -u '/home/u/data/volumes/n as/_data/deep'\n  sudo umount '/home/u/data/volumes/n as/_data'",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(below(&mounts, Path::new("/home/u/dat")).is_empty());
    }

    #[test]
    fn the_place_in_the_file_system_follows_the_nearest_mount() {
        let mounts = parse(TEXT);
        for (dir, device, place) in [
            ("/home/u/data", "8:1", "/srv"),
            ("/home/u/data/a", "8:1", "/srv/a"),
            ("/home/u/x", "8:1", "/home/u/x"),
            ("/home/u/database/y", "0:42", "/y"),
            ("/etc", "8:1", "/etc"),
        ] {
            let expected = (device.as_bytes().to_vec(), PathBuf::from(place));
            assert_eq!(in_file_system(&mounts, Path::new(dir)), Some(expected), "{dir}");
        }
    }

    #[test]
    fn overlays_name_their_directories() {
        let text = b"50 21 0:50 / /var/x rw - overlay overlay rw,lowerdir=/d/overlay2/l/A:/d/b,upperdir=/e\n";
        let mount = &parse(text)[0];
        assert!(options_name(mount, Path::new("/d")) && !options_name(mount, Path::new("/e")));
        assert!(!options_name(mount, Path::new("/d/overlay")));
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_passed_over(text: Vec<u8>) {
            for mount in parse(&text) {
                prop_assert!(mount.point.is_absolute());
            }
        }

        #[test]
        fn names_come_back_as_they_were(name in "[ -~\n\t]{1,20}") {
            let escaped: String = name
                .bytes()
                .map(|byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}"),
                    other => char::from(other).to_string(),
                })
                .collect();
            let text = format!("1 2 8:1 / /{escaped} rw - ext4 d rw\n");
            let mounts = parse(text.as_bytes());
            prop_assert_eq!(&mounts[0].point, &PathBuf::from(format!("/{name}")));
        }
    }
}
