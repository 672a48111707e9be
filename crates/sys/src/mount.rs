//! Mounts as descriptors (open_tree(2), move_mount(2), both Linux 5.2): a tree of mounts can be held without
//! being attached anywhere.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// linux/mount.h; not in libc for every target.
const OPEN_TREE_CLONE: libc::c_uint = 1;
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
        let path = c_path(path)?;
        let at_recursive = libc::c_uint::try_from(libc::AT_RECURSIVE).map_err(io::Error::other)?;
        let cloexec = libc::c_uint::try_from(libc::O_CLOEXEC).map_err(io::Error::other)?;
        let flags = OPEN_TREE_CLONE | at_recursive | cloexec;
        // SAFETY: the path is NUL-terminated and live; the rest are integers.
        let ret =
            unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
        let fd = RawFd::try_from(crate::cvt(ret)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just returned this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Attaches the tree to a directory.
    ///
    /// # Errors
    /// `ENOENT` and others of path lookup, `EINVAL` where the target's mount is shared.
    pub fn attach(self, target: &Path) -> io::Result<()> {
        let target = c_path(target)?;
        let fd = self.0.as_raw_fd();
        // SAFETY: both paths are NUL-terminated and live; the rest are integers.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                fd,
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        };
        crate::cvt(ret).map(|_| ())
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}
