//! Options of sockets that are ints (setsockopt(2)).

use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, socklen_t};
use nix::errno::Errno;

pub(crate) fn set(
    sock: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> nix::Result<()> {
    let length = socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    let value = (&raw const value).cast();
    // SAFETY: the option is an int, which outlives the call and is only read by it.
    let ret = unsafe { libc::setsockopt(sock.as_raw_fd(), level, name, value, length) };
    Errno::result(ret).map(drop)
}
