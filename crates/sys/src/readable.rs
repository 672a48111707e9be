//! Waiting on a descriptor in a tokio runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime that is running, for reading and writing.
///
/// # Errors
/// Those of epoll_ctl(2), such as `EPERM` for a regular file.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open for as long as the AsyncFd owns it and always answers with the same number.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
