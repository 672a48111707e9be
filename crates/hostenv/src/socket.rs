//! Asking whether somebody listens on a unix socket, without waiting for it.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

/// Connects to a stream socket. Somebody whose backlog is full listens, too: then the socket is not connected (unix(7),
/// `EAGAIN`), and does not know its peer.
///
/// # Errors
/// Nobody listens (`ENOENT`, `ECONNREFUSED`), or that cannot be told: the other errors of connect(2).
pub fn connect(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => Ok(stream),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_whose_backlog_is_full_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        assert_eq!(connect(&path).unwrap_err(), Errno::ENOENT);
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        assert_eq!(connect(&path).unwrap_err(), Errno::ECONNREFUSED);
        socket::listen(&listener, socket::Backlog::new(0).unwrap()).unwrap();
        // One connection fits; a blocking one would wait for ever after it.
        let _held: Vec<_> = (0..4).map(|_| connect(&path).unwrap()).collect();
    }
}
