//! The file system of the data directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hostenv::vars;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{Statvfs, statvfs};
use nix::unistd::mkdtemp;

use crate::place::World;

/// Less free space than this (bytes) is used up by the first image.
pub const LITTLE_SPACE: u64 = 1 << 30;

/// The daemon does not start, or no container does, if less than this (bytes) can be written.
const LEAST: u64 = 1 << 20;
/// The same for files and directories, of which a new data root has about 80.
const LEAST_FILES: u64 = 100;

/// File systems that keep no owners but one, or none that their server does not know (magic numbers of statfs(2)).
const OWNERLESS: [(u32, &str); 7] = [
    (magic(NFS_SUPER_MAGIC), "NFS"),
    (0x0102_1997, "9p"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "SMB"),
    (0x4d44, "FAT"),
    (0x2011_bab0, "exFAT"),
];

/// The number has 32 bits; what holds it has a size and a sign of its own on each machine.
const fn magic(kind: FsType) -> u32 {
    let [a, b, c, d, ..] = kind.0.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn ownerless(kind: FsType) -> Option<&'static str> {
    OWNERLESS.iter().find(|(id, _)| *id == magic(kind)).map(|(_, name)| *name)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Nothing is wrong, or nobody knows.
    Fine,
    /// Too little for the daemon to start: the disk or the quota is used up.
    Full(Errno),
    /// This user may not write there.
    Closed(Errno),
    /// The disk has room for an image; the user's quota does not.
    Quota,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    User,
    /// Somebody else, though it is below the home and nobody has chosen it: a Docker of root made it.
    Intruder,
    /// Somebody else, who may need it, or nobody knows.
    Other,
}

/// Where images and containers go.
#[derive(Debug, Clone)]
pub struct Storage {
    pub data_root: Option<PathBuf>,
    pub owner: Owner,
    /// The nearest directory above it, or itself, that exists.
    pub existing: Option<PathBuf>,
    /// The classic storage driver that made what is in it (`scanPriorDrivers` in moby's daemon/graphdriver).
    pub earlier_driver: Option<&'static str>,
    pub btrfs: bool,
    /// The file system, if it is one of those that cannot hold the files of containers.
    pub ownerless: Option<&'static str>,
    pub free: Option<u64>,
    pub room: Room,
}

impl Storage {
    pub fn gather(world: &World) -> Self {
        let data_root = world.data_root();
        let existing = data_root.as_ref().and_then(|dir| dir.ancestors().find(|dir| dir.is_dir()));
        let existing = existing.map(Path::to_owned);
        let space = existing.as_ref().and_then(|dir| statvfs(dir).ok());
        let kind = existing.as_ref().and_then(|dir| Some(statfs(dir).ok()?.filesystem_type()));
        let free = space.map(|fs| {
            // Each has 32 bits on 32-bit machines, the product has not.
            let bytes = u128::from(fs.blocks_available()) * u128::from(fs.fragment_size());
            u64::try_from(bytes).unwrap_or(u64::MAX)
        });
        Self {
            owner: data_root.as_ref().map_or(Owner::Other, |dir| owner(world, dir)),
            earlier_driver: data_root.as_deref().and_then(earlier_driver),
            btrfs: kind == Some(BTRFS_SUPER_MAGIC),
            ownerless: kind.and_then(ownerless),
            room: existing.as_ref().map_or(Room::Fine, |dir| {
                // tmpfs would take memory for what is asked for.
                let much = kind != Some(TMPFS_MAGIC) && free > Some(2 * LITTLE_SPACE);
                match room(dir, much) {
                    // A file system that is never written to, such as squashfs, has no free inodes either.
                    Room::Fine | Room::Quota if space.is_some_and(has_few_files) => {
                        Room::Full(Errno::ENOSPC)
                    }
                    room => room,
                }
            }),
            free,
            data_root,
            existing,
        }
    }
}

fn owner(world: &World, dir: &Path) -> Owner {
    match fs::metadata(dir) {
        Ok(meta) if meta.uid() == world.uid => return Owner::User,
        Ok(_) => {}
        // A link to nothing is something.
        Err(_) => {
            let found = fs::symlink_metadata(dir).map_err(|error| error.kind());
            let missing = matches!(found, Err(ErrorKind::NotFound));
            return if missing { Owner::Nobody } else { Owner::Other };
        }
    }
    // A link may lead to what others use.
    let below_home = || {
        let home = fs::canonicalize(world.env.nonempty(vars::HOME)?).ok()?;
        Some(fs::canonicalize(dir).ok()?.starts_with(home))
    };
    let usual = world.default_data_root().as_deref() == Some(dir);
    if usual && below_home() == Some(true) { Owner::Intruder } else { Owner::Other }
}

/// Of several, the one that dockerd looks for first. vfs does not count there.
fn earlier_driver(data_root: &Path) -> Option<&'static str> {
    ["overlay2", "fuse-overlayfs", "btrfs", "zfs"].into_iter().find(|name| {
        fs::read_dir(data_root.join(name)).is_ok_and(|mut entries| entries.next().is_some())
    })
}

/// Whether inodes have run out. File systems that make them as they need say that they have none at all.
fn has_few_files(space: Statvfs) -> bool {
    // Each has 32 bits on 32-bit machines.
    #[allow(clippy::useless_conversion, reason = "32 bits on some machines")]
    let (all, free) = (u64::from(space.files()), u64::from(space.files_available()));
    all > 0 && free < LEAST_FILES
}

/// Does what the daemon does first, and leaves nothing: makes a directory, writes into a file, and sets [`LEAST`] aside.
/// The directory matters: where a quota is used up, XFS still takes a few bytes in a file without a name.
fn room(dir: &Path, much: bool) -> Room {
    let made = mkdtemp(&dir.join(".docker-probe-XXXXXX"));
    let written = made.and_then(|private| {
        let written = write(&private, much);
        // It is empty: nobody else writes there.
        let _ = fs::remove_dir(&private);
        written
    });
    match written {
        Ok(room) => room,
        Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) => Room::Full(errno),
        Err(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => Room::Closed(errno),
        Err(_) => Room::Fine,
    }
}

/// Writes into a file without a name, which is gone when it is closed. With `much`, the space of an image is set aside for
/// that moment, too: quotas are of many kinds, and all of them refuse that.
fn write(dir: &Path, much: bool) -> nix::Result<Room> {
    let write = |mut file: File| file.write_all(&[1; 4096]).map(|()| file);
    let file = tempfile::tempfile_in(dir)
        .and_then(write)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    let set_aside = |size: u64| {
        // Of 32 bits on 32-bit machines, into which it goes.
        let size = size.try_into().unwrap_or_default();
        match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, size) {
            Err(errno @ (Errno::ENOSPC | Errno::EDQUOT)) => Err(errno),
            // Not every file system can.
            _ => Ok(()),
        }
    };
    set_aside(LEAST)?;
    let low = much && set_aside(LITTLE_SPACE) == Err(Errno::EDQUOT);
    Ok(if low { Room::Quota } else { Room::Fine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_known_whatever_the_machine_holds_its_number_in() {
        assert_eq!(ownerless(NFS_SUPER_MAGIC), Some("NFS"));
        assert_eq!(ownerless(TMPFS_MAGIC), None);
        // 0xff534d42, the upper bits of which are set where there are more and the number has a sign.
        assert_eq!(ownerless(FsType(!0x00ac_b2bd)), Some("SMB"));
    }
}
