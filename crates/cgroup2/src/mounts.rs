//! Where control groups are mounted, read from mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The place where a host that has cgroup2 only mounts it.
const USUAL_PLACE: &str = "/sys/fs/cgroup";

/// Which versions of control groups a host uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// cgroup2 alone.
    Unified,
    /// cgroup2 beside version 1, which has the controllers.
    Hybrid,
    /// Version 1 alone.
    V1,
    /// No control groups are mounted.
    None,
}

/// A mounted cgroup2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The group that is seen at the mount point, `/` unless it is a bind mount or the mount of a container.
    pub root: PathBuf,
    /// The mount point.
    pub point: PathBuf,
}

/// Reads `<root>/proc/self/mountinfo`. `root` is `/` outside of tests.
///
/// # Errors
/// The file cannot be read.
pub fn detect(root: &Path) -> io::Result<Mode> {
    Ok(mode(&fs::read(root.join("proc/self/mountinfo"))?))
}

fn mode(mountinfo: &[u8]) -> Mode {
    let (mut v1, mut v2, mut v2_in_its_place) = (false, false, false);
    for (kind, mount) in entries(mountinfo) {
        match kind {
            Kind::V1 => v1 = true,
            Kind::V2 => {
                v2 = true;
                v2_in_its_place |= mount.point == Path::new(USUAL_PLACE);
            }
        }
    }
    match (v1, v2) {
        // Somebody may mount a version 1 hierarchy somewhere, for instance an LXC host; the controllers stay in version 2.
        (_, true) if v2_in_its_place => Mode::Unified,
        (true, true) => Mode::Hybrid,
        (false, true) => Mode::Unified,
        (true, false) => Mode::V1,
        (false, false) => Mode::None,
    }
}

/// The first cgroup2 of a mountinfo text. If there are several, a warning names the one that is taken.
pub fn mountpoint(mountinfo: &[u8]) -> Option<Mount> {
    let mut mounts =
        entries(mountinfo).filter(|(kind, _)| *kind == Kind::V2).map(|(_, mount)| mount);
    let first = mounts.next()?;
    if mounts.next().is_some() {
        tracing::warn!("cgroup2 is mounted more than once; using {}", first.point.display());
    }
    Some(first)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    V1,
    V2,
}

fn entries(mountinfo: &[u8]) -> impl Iterator<Item = (Kind, Mount)> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(entry)
}

/// `36 35 98:0 <root> <mount point> <options> [optional fields…] - <type> <source> <super options>`
fn entry(line: &[u8]) -> Option<(Kind, Mount)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    let kind = match fields.skip_while(|field| *field != b"-").nth(1)? {
        b"cgroup" => Kind::V1,
        b"cgroup2" => Kind::V2,
        _ => return None,
    };
    Some((kind, Mount { root: unescape(root), point: unescape(point) }))
}

/// Blank, tab, line break and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNIFIED: &str = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
        30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:3 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "30 22 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n";
    const V1: &str = "32 30 0:28 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n";

    #[test]
    fn modes() {
        assert_eq!(mode(UNIFIED.as_bytes()), Mode::Unified);
        assert_eq!(mode(HYBRID.as_bytes()), Mode::Hybrid);
        assert_eq!(mode(V1.as_bytes()), Mode::V1);
        assert_eq!(mode(b"22 1 8:1 / / rw - ext4 /dev/cgroup2 rw"), Mode::None);
        assert_eq!(mode(format!("{UNIFIED}{V1}").as_bytes()), Mode::Unified);
    }

    #[test]
    fn detect_reads_the_roots_own_file() {
        let root = tempfile::tempdir().unwrap();
        assert!(detect(root.path()).is_err());
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), HYBRID).unwrap();
        assert_eq!(detect(root.path()).unwrap(), Mode::Hybrid);
    }

    #[test]
    fn the_first_cgroup2_is_the_one() {
        let mount =
            |root: &str, point: &str| Some(Mount { root: root.into(), point: point.into() });
        assert_eq!(mountpoint(UNIFIED.as_bytes()), mount("/", "/sys/fs/cgroup"));
        assert_eq!(mountpoint(HYBRID.as_bytes()), mount("/", "/sys/fs/cgroup/unified"));
        assert_eq!(
            mountpoint(format!("{HYBRID}{UNIFIED}").as_bytes()),
            mount("/", "/sys/fs/cgroup/unified")
        );
        assert_eq!(mountpoint(V1.as_bytes()), None);
        let odd = br"1 2 0:1 /a\134b /mnt/a\040b rw - cgroup2 none rw";
        assert_eq!(mountpoint(odd), mount(r"/a\b", "/mnt/a b"));
    }

    proptest! {
        #[test]
        fn no_mountinfo_makes_it_panic(text: Vec<u8>) {
            let _ = (mode(&text), mountpoint(&text));
        }

        #[test]
        fn plausible_mountinfo_never_panics(text in r"([0-9/ \\-]|cgroup2?|\n){0,80}") {
            let _ = (mode(text.as_bytes()), mountpoint(text.as_bytes()));
        }
    }
}
