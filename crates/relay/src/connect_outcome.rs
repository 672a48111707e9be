//! How a connection attempt has ended.

use nix::errno::Errno;
use socket2::Socket;

/// What became of a non-blocking connect(2) of a TCP socket that epoll(7) has reported. `None` if that is not decided yet;
/// the kernel reports the socket again when it is.
///
/// A socket without an error is not always connected. When an attempt fails, another processor can see that the kernel has
/// closed the socket a moment before it sees the error (Linux 6.18).
pub fn connect_outcome(socket: &Socket) -> Option<Result<(), Errno>> {
    let error = || match socket.take_error() {
        Ok(error) => error,
        Err(error) => Some(error),
    };
    let errno = |error: std::io::Error| {
        Err(error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw))
    };
    if let Some(error) = error() {
        return Some(errno(error));
    }
    match socket.peer_addr() {
        Err(none) if none.raw_os_error() == Some(Errno::ENOTCONN as i32) => error().map(errno),
        _ => Some(Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::AsFd as _;

    use nix::poll::{PollFd, PollFlags, poll};
    use socket2::{Domain, Type};

    use super::*;

    fn bound() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    fn connecting(to: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        let error = socket.connect(&to.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EINPROGRESS as i32));
        socket
    }

    fn outcome(socket: &Socket) -> Result<(), Errno> {
        loop {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            assert_eq!(poll(&mut fds, 5000u16).unwrap(), 1);
            if let Some(outcome) = connect_outcome(socket) {
                return outcome;
            }
        }
    }

    #[test]
    fn an_attempt_succeeds_fails_or_is_not_decided() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(outcome(&connecting(listener.local_addr().unwrap())), Ok(()));
        let (_closed, closed_port) = bound();
        assert_eq!(outcome(&connecting(closed_port)), Err(Errno::ECONNREFUSED));
        // The kernel drops what comes to a listener whose queue is full.
        let (full, silent) = bound();
        full.listen(0).unwrap();
        let _first = std::net::TcpStream::connect(silent).unwrap();
        assert_eq!(connect_outcome(&connecting(silent)), None);
    }
}
