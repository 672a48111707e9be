//! Extended attributes (setxattr(2), getxattr(2)).

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

/// Sets the attribute `name` of `path`, following symlinks, whether it exists or not.
///
/// # Errors
/// Those of setxattr(2): `ENOTSUP`, `EPERM`, `ENOENT` …
pub fn set(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: both strings are NUL-terminated and live, the value is a live slice of the given length.
    let ret = path.with_nix_path(|path| unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })?;
    Errno::result(ret)?;
    Ok(())
}

/// Whether `path` has the attribute `name`, for instance `security.capability`.
///
/// # Errors
/// Those of getxattr(2) other than `ENODATA` and `ENOTSUP`.
pub fn has(path: &Path, name: &str) -> io::Result<bool> {
    let name = CString::new(name)?;
    // SAFETY: both strings are NUL-terminated and live; with a size of zero nothing is written.
    let ret = path.with_nix_path(|path| unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0)
    })?;
    match Errno::result(ret) {
        Err(Errno::ENODATA | Errno::ENOTSUP) => Ok(false),
        other => Ok(other.map(|_| true)?),
    }
}
