//! Extended attributes (setxattr(2), getxattr(2)).

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Sets the attribute `name` of `path`, following symlinks, whether it exists or not.
///
/// # Errors
/// Those of setxattr(2): `ENOTSUP`, `EPERM`, `ENOENT` …
pub fn set(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let path = c_string(path.as_os_str().as_bytes())?;
    let name = c_string(name.as_bytes())?;
    // SAFETY: both strings are NUL-terminated and live, the value is a live slice of the given length.
    let ret = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    crate::cvt(ret.into()).map(|_| ())
}

/// Whether `path` has the attribute `name`, for instance `security.capability`.
///
/// # Errors
/// Those of getxattr(2) other than `ENODATA` and `ENOTSUP`.
pub fn has(path: &Path, name: &str) -> io::Result<bool> {
    let path = c_string(path.as_os_str().as_bytes())?;
    let name = c_string(name.as_bytes())?;
    // SAFETY: both strings are NUL-terminated and live; with a size of zero nothing is written.
    let ret = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    match crate::cvt(libc::c_long::try_from(ret).map_err(io::Error::other)?) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => Ok(false),
        Err(e) => Err(e),
    }
}
