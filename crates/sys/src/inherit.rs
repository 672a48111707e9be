//! Descriptors that another process left us by number, or by accident.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
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
        match Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }) {
            Err(Errno::EBADF) => {}
            Err(e) => return Err(e.into()),
            Ok(_) => open.push(fd),
        }
    }
    Ok(open)
}

/// Closes every descriptor from `first` on: what a starter left open without wanting to, which would take part of our
/// limit and reach every program that we start. Call first thing in `main`, where nothing of ours is open yet.
///
/// # Errors
/// Those of close_range(2), and of reading `/proc/self/fd` on a kernel older than Linux 5.9 or where a seccomp filter
/// hides that call. `EINVAL` for a standard descriptor.
pub fn close_from(first: RawFd) -> io::Result<()> {
    if first < 3 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: neither std nor our own code owns a descriptor at the beginning of main, so nobody uses these numbers.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, RawFd::MAX, 0) };
    match Errno::result(closed) {
        Err(Errno::ENOSYS | Errno::EPERM) => close_one_by_one(first),
        other => Ok(other.map(drop)?),
    }
}

fn close_one_by_one(first: RawFd) -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    // The directory itself is among them, and closed by now.
    for fd in numbers.into_iter().filter(|fd| *fd >= first) {
        // SAFETY: as in `close_from`; a number that is no descriptor is answered by EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    const ALONE: &str = "inherit::tests::whatever_is_not_ours_is_closed";

    /// Opens a few descriptors, closes from the third of them on, and looks.
    fn closes(close: fn(RawFd) -> io::Result<()>) {
        let file = || std::fs::File::open("/proc/self/status").unwrap();
        let kept = [file(), file()];
        let first = kept[1].as_raw_fd() + 1;
        let left = [file(), file(), file()].map(std::os::fd::IntoRawFd::into_raw_fd);
        close(first).unwrap();
        // SAFETY: F_GETFD of a number changes nothing.
        let open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1;
        assert!(left.iter().all(|fd| *fd < first || !open(*fd)), "{left:?} from {first}");
        assert!(kept.iter().all(|file| open(file.as_raw_fd())));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri makes no processes")]
    fn whatever_is_not_ours_is_closed() {
        if std::env::args().any(|arg| arg == "--exact") {
            assert!(close_from(2).is_err());
            closes(close_from);
            return closes(close_one_by_one);
        }
        // Other tests have descriptors of their own.
        let program = std::env::current_exe().unwrap();
        let ran = std::process::Command::new(program).args(["--exact", ALONE]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    }
}
