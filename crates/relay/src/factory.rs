//! Makes sockets inside the namespace for the engine outside (see the crate's theory of operation).
//!
//! The wire is a `SOCK_SEQPACKET` pair, so messages have boundaries. A request is a kind (`SocketKind`) and a count;
//! each reply has a kind, how many sockets failed to be made and with which errno, and the sockets as
//! `SCM_RIGHTS`. A request may be answered by several replies, together accounting for the whole count.
//! One request is of another kind: to arm the namespace for connections that keep their client's address. It is answered
//! by [`ARMED`] or [`NOT_ARMED`].
//! Both ends are this crate in the same executable, so there is no version to negotiate.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::congestion;

/// Sockets in one reply. Fewer than `SCM_MAX_FD` (253), so that the first of a large batch are in use
/// while the rest are being made.
const PER_REPLY: usize = 64;
/// Keep-alive of TCP sockets, idle time and interval; Go's default for both legs.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long sockets wait for a shortage to pass before the request fails.
const SHORTAGE_TIMEOUT: Duration = Duration::from_millis(200);

/// The request to arm the namespace, one byte; no kind has this number.
pub(crate) const ARM: u8 = 0xff;
/// The answers to it, one byte each.
pub(crate) const ARMED: u8 = 0xfe;
pub(crate) const NOT_ARMED: u8 = 0xfd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SocketKind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

impl SocketKind {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp4, Self::Tcp6, Self::Udp4, Self::Udp6];

    pub(crate) fn tcp(ipv4: bool) -> Self {
        if ipv4 { Self::Tcp4 } else { Self::Tcp6 }
    }

    pub(crate) fn udp(ipv4: bool) -> Self {
        if ipv4 { Self::Udp4 } else { Self::Udp6 }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    fn make(self) -> io::Result<Socket> {
        let domain =
            if matches!(self, Self::Tcp4 | Self::Udp4) { Domain::IPV4 } else { Domain::IPV6 };
        match self {
            Self::Tcp4 | Self::Tcp6 => {
                let sock = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
                tune_tcp(&sock)?;
                // It will be connected to something in its namespace.
                congestion::use_local(&sock);
                // Its local port must not be in the way of a server that wants to listen there.
                sock.set_reuse_address(true)?;
                Ok(sock)
            }
            Self::Udp4 | Self::Udp6 => {
                let sock = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
                tune_udp(&sock);
                Ok(sock)
            }
        }
    }
}

/// `TCP_NODELAY` and keep-alive, as upstream has them on both legs. Accepted sockets inherit them from
/// their listener on Linux.
///
/// # Errors
/// `sock` is no TCP socket.
pub fn tune_tcp(sock: &Socket) -> io::Result<()> {
    sock.set_tcp_nodelay(true)?;
    sock.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// Larger receive queues and coalesced reception; both only save work, so a refusal does not matter.
pub fn tune_udp(sock: &Socket) {
    let _ = sock.set_recv_buffer_size(4 << 20);
    let _ = nix::sys::socket::setsockopt(sock, nix::sys::socket::sockopt::UdpGroSegment, &true);
}

pub(crate) fn request(kind: SocketKind, count: u16) -> [u8; 3] {
    let [lo, hi] = count.to_le_bytes();
    [kind as u8, lo, hi]
}

/// The fixed part of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: SocketKind,
    /// Sockets that could not be made, and why.
    pub(crate) failed: u16,
    pub(crate) errno: i32,
}

impl Reply {
    pub(crate) const LEN: usize = 7;

    fn encode(self) -> [u8; Self::LEN] {
        let [f0, f1] = self.failed.to_le_bytes();
        let [e0, e1, e2, e3] = self.errno.to_le_bytes();
        [self.kind as u8, f0, f1, e0, e1, e2, e3]
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let &[kind, f0, f1, e0, e1, e2, e3] = bytes else { return None };
        Some(Self {
            kind: SocketKind::from_byte(kind)?,
            failed: u16::from_le_bytes([f0, f1]),
            errno: i32::from_le_bytes([e0, e1, e2, e3]),
        })
    }
}

/// Two ends of a wire: one for [`serve`], one for the engine.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Serves requests from the engine until it closes its end. Blocks; run it on a thread that is in the
/// network namespace for good. `arm` is called when the first client comes whose address could be kept, see
/// [`crate::Transparent::OnDemand`]; false means that it cannot.
///
/// # Errors
/// When the socket fails or carries something that is no request. Failure to make sockets is reported
/// to the engine instead.
pub fn serve(sock: OwnedFd, mut arm: impl FnMut() -> bool) -> io::Result<()> {
    let sock = Socket::from(sock);
    loop {
        match answer(sock.as_fd(), &mut arm) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // The engine has closed its end, perhaps with replies unread.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(());
            }
            Err(e) => return Err(e),
        }
    }
}

/// Answers one request; false if there will be no more.
fn answer(sock: BorrowedFd<'_>, arm: &mut impl FnMut() -> bool) -> io::Result<bool> {
    let mut buf = [0; 16];
    let (n, _) = sys::fdpass::recv(sock, &mut buf)?;
    let (kind, mut left) = match buf[..n] {
        [] => return Ok(false),
        [ARM] => {
            let answer = if arm() { ARMED } else { NOT_ARMED };
            sys::fdpass::send(sock, &[answer], &[])?;
            return Ok(true);
        }
        [kind, lo, hi] => (SocketKind::from_byte(kind), u16::from_le_bytes([lo, hi])),
        _ => (None, 0),
    };
    let kind = kind.ok_or_else(|| {
        let text = format!("not a socket request: {:?}", &buf[..n]);
        io::Error::new(io::ErrorKind::InvalidData, text)
    })?;
    while left > 0 {
        left -= batch(sock, kind, left)?.min(left);
    }
    Ok(true)
}

/// Makes and sends one reply; returns how much of the request it settles.
fn batch(sock: BorrowedFd<'_>, kind: SocketKind, left: u16) -> io::Result<u16> {
    let want = usize::from(left).min(PER_REPLY);
    let mut made = Vec::with_capacity(want);
    let mut reply = Reply { kind, failed: 0, errno: 0 };
    let mut given = 0u16;
    while made.len() < want {
        match kind.make() {
            Ok(sock) => made.push(sock),
            Err(e) => {
                // Whatever is short now stays short for the rest of the request.
                reply.errno = e.raw_os_error().unwrap_or(Errno::EIO as i32);
                reply.failed = left - given;
                break;
            }
        }
        given += 1;
    }
    let fds: Vec<BorrowedFd<'_>> = made.iter().map(AsFd::as_fd).collect();
    match sys::fdpass::send_until(sock, &reply.encode(), &fds, Instant::now() + SHORTAGE_TIMEOUT) {
        Err(e) if sys::fdpass::is_passing(&e) => {
            let errno = e.raw_os_error().unwrap_or(Errno::EIO as i32);
            let reply = Reply { kind, failed: left, errno };
            sys::fdpass::send(sock, &reply.encode(), &[])?;
            Ok(left)
        }
        other => other.map(|_| given + reply.failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, std::thread::JoinHandle<io::Result<()>>) {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        (a, std::thread::spawn(move || serve(b, || true)))
    }

    #[test]
    fn a_request_is_answered_in_full_and_eof_ends_it() {
        let (sock, thread) = pair();
        for (kind, domain, ty) in [
            (SocketKind::Tcp4, Domain::IPV4, Type::STREAM),
            (SocketKind::Tcp6, Domain::IPV6, Type::STREAM),
            (SocketKind::Udp4, Domain::IPV4, Type::DGRAM),
            (SocketKind::Udp6, Domain::IPV6, Type::DGRAM),
        ] {
            sys::fdpass::send(sock.as_fd(), &request(kind, 100), &[]).unwrap();
            let mut got = 0;
            while got < 100 {
                let mut buf = [0; 16];
                let (n, fds) = sys::fdpass::recv(sock.as_fd(), &mut buf).unwrap();
                assert_eq!(Reply::decode(&buf[..n]), Some(Reply { kind, failed: 0, errno: 0 }));
                got += fds.len();
                for fd in fds {
                    let s = Socket::from(fd);
                    assert_eq!((s.domain().unwrap(), s.r#type().unwrap()), (domain, ty));
                    assert!(s.nonblocking().unwrap());
                    if ty == Type::STREAM {
                        assert!(s.tcp_nodelay().unwrap() && s.keepalive().unwrap());
                        assert_eq!(s.tcp_keepalive_time().unwrap(), KEEPALIVE);
                    }
                }
            }
            assert_eq!(got, 100);
        }
        drop(sock);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn nonsense_ends_it_with_an_error() {
        let (sock, thread) = pair();
        sys::fdpass::send(sock.as_fd(), &[9, 1, 0], &[]).unwrap();
        let e = thread.join().unwrap().unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
    }
}
