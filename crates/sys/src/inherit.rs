//! Descriptors that another process left us by number.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The number that was adopted last. The handshake passes exactly one descriptor, so one slot is enough
/// to refuse a second owner.
static ADOPTED: AtomicI32 = AtomicI32::new(-1);

/// Takes ownership of a descriptor that our parent process left open for us and makes it close-on-exec.
/// Standard descriptors are refused, and so is a second adoption.
///
/// # Errors
/// `EBADF` if the number is no open descriptor, `EINVAL` if it is below 3 or was already adopted.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 3 || ADOPTED.compare_exchange(-1, fd, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: F_GETFD below proves that it is open before anything uses it; std and our own code never
    // own a descriptor that was open before main, and the slot above forbids a second owner.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    if let Err(e) = fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        std::mem::forget(owned); // not open: closing it would be a bug of its own
        return Err(e.into());
    }
    Ok(owned)
}

/// Takes note of the sockets that systemd may have passed us at 3, 4, … (sd_listen_fds(3)): makes those
/// that are open close-on-exec and returns their numbers. Call first thing in `main`: later the numbers
/// may be descriptors of our own.
///
/// # Errors
/// Those of fcntl(2) other than `EBADF`, which means that the variable was stale.
pub fn claim_listen_fds(count: u16) -> io::Result<Vec<RawFd>> {
    let mut open = Vec::new();
    for fd in (3..).take(usize::from(count)) {
        // SAFETY: fcntl(2) on a number that is no descriptor answers EBADF; only a flag of it changes.
        match unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } {
            -1 => match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::EBADF) => {}
                e => return Err(e),
            },
            _ => open.push(fd),
        }
    }
    Ok(open)
}
