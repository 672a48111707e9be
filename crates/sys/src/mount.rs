//! Mounts as descriptors (open_tree(2), move_mount(2), both Linux 5.2): a tree of mounts can be held without
//! being attached anywhere.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

/// linux/mount.h; not in libc for every target.
const OPEN_TREE_CLONE: libc::c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;

/// A detached copy of the mount at a path, with the mounts below it. It goes away with its descriptor
/// unless it was attached.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    /// Copies the tree at `path`, like a recursive bind mount.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` over the mount namespace, those of path lookup, `ENOSYS` before
    /// Linux 5.2.
    pub fn copy(path: &Path) -> io::Result<Self> {
        let flags = OPEN_TREE_CLONE | libc::AT_RECURSIVE | libc::O_CLOEXEC;
        // SAFETY: the path is NUL-terminated and live; the rest are integers.
        let ret = path.with_nix_path(|path| unsafe {
            libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
        })?;
        let fd = RawFd::try_from(Errno::result(ret)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just returned this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Attaches the tree to a directory.
    ///
    /// # Errors
    /// `ENOENT` and others of path lookup, `EINVAL` where the target's mount is shared.
    pub fn attach(self, target: &Path) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        // SAFETY: both paths are NUL-terminated and live; the rest are integers.
        let ret = target.with_nix_path(|target| unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                fd,
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        })?;
        Errno::result(ret)?;
        Ok(())
    }
}
