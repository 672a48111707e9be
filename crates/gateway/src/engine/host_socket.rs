//! Connected datagram sockets of the host: how their packets travel, and what becomes of them when the host gets another
//! address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{self, MsgFlags, setsockopt, sockopt};
use relay::EventLoop;
use relay::event_handler::Tag;
use socket2::{Domain, Protocol, Socket, Type};

use super::answers::errno;

/// What a socket sends with, unless told otherwise (ip(7), `ip_default_ttl`).
pub(super) const ORDINARY_LIFE: u8 = 64;

#[derive(Debug)]
pub(super) struct HostSocket {
    socket: Socket,
    to: IpAddr,
    /// Time to live or hop limit.
    ttl: u8,
    /// Whether its packets may not be cut ("don't fragment").
    whole: bool,
}

impl HostSocket {
    /// A socket that is connected to this address and has no other options than those of [`report_errors`].
    pub(super) fn new(socket: Socket, to: IpAddr) -> Self {
        Self { socket, to, ttl: ORDINARY_LIFE, whole: false }
    }

    /// The port that it sends from.
    pub(super) fn port(&self) -> Option<u16> {
        Some(self.socket.local_addr().ok()?.as_socket()?.port())
    }

    /// Has what it sends kept whole from now on, or cut where it has to be.
    pub(super) fn keep_whole(&mut self, keep: bool) {
        if self.whole == keep {
            return;
        }
        match sys::whole::keep_whole(self.socket.as_fd(), self.to.is_ipv4(), keep) {
            Ok(()) => self.whole = keep,
            Err(e) => {
                let (to, why) = (self.to, e.desc());
                tracing::debug!("cannot set whether packets to {to} may be fragmented: {why}");
            }
        }
    }

    pub(super) fn set_ttl(&mut self, ttl: u8) {
        if std::mem::replace(&mut self.ttl, ttl) == ttl {
            return;
        }
        let set = if self.to.is_ipv4() {
            self.socket.set_ttl_v4(u32::from(ttl))
        } else {
            self.socket.set_unicast_hops_v6(u32::from(ttl))
        };
        if let Err(e) = set {
            tracing::debug!("cannot send with a TTL of {ttl}: {e}");
        }
    }

    /// Sends one datagram. The first error may be about an earlier one, of which the error queue tells.
    pub(super) fn send(&self, message: &[u8]) -> nix::Result<usize> {
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        socket::send(fd, message, flags).or_else(|_| socket::send(fd, message, flags))
    }

    /// Takes the place of itself with another address of the host, if there is one. A container knows nothing of that
    /// address, so it does not notice that the host is in another network. `connect` gets the port. True if what was not sent
    /// can be sent again.
    pub(super) fn reconnect(
        &mut self,
        host: &EventLoop,
        tag: Tag,
        connect: impl FnOnce(u16) -> io::Result<Socket>,
    ) -> bool {
        let address = |socket: &Socket| socket.local_addr().ok()?.as_socket();
        let Some(old) = address(&self.socket) else { return false };
        let Ok(socket) = connect(old.port()) else { return false };
        let is_other = address(&socket).is_some_and(|new| new.ip() != old.ip());
        if !is_other || host.watch(&socket, tag, EpollFlags::EPOLLIN).is_err() {
            return false;
        }
        let Self { ttl, whole, .. } = std::mem::replace(self, Self::new(socket, self.to));
        self.set_ttl(ttl);
        self.keep_whole(whole);
        true
    }
}

impl AsFd for HostSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Has errors of the network reported for a datagram socket.
pub(super) fn report_errors(socket: &Socket, ipv4: bool) -> nix::Result<()> {
    if ipv4 {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)
    } else {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)
    }
}

/// Whether this error of a send may mean that the host has lost the address that the socket sends from. A socket of IPv6
/// gives no error then, and goes on sending ([`AddressCheck`]).
pub(super) fn may_have_lost_address(error: Errno) -> bool {
    matches!(error, Errno::EINVAL | Errno::ENETUNREACH)
}

/// Finds sockets of IPv6 whose address the host has lost. Each address is looked up once.
#[derive(Debug, Default)]
pub(super) struct AddressCheck {
    lost: HashMap<SocketAddrV6, bool>,
}

impl AddressCheck {
    /// Whether the host has lost the address that a socket sends from.
    pub(super) fn has_lost(&mut self, socket: &HostSocket) -> bool {
        if socket.to.is_ipv4() {
            return false;
        }
        let address = socket.socket.local_addr().ok().and_then(|address| address.as_socket_ipv6());
        address.is_some_and(|mut address| {
            address.set_port(0);
            *self.lost.entry(address).or_insert_with(|| is_lost(address))
        })
    }
}

/// Whether no socket can be bound to this address because the host does not have it (ip(7), `EADDRNOTAVAIL`).
fn is_lost(address: SocketAddrV6) -> bool {
    let kind = Type::DGRAM.cloexec();
    let bound = Socket::new(Domain::IPV6, kind, Some(Protocol::UDP))
        .and_then(|socket| socket.bind(&address.into()));
    bound.is_err_and(|error| errno(&error) == Errno::EADDRNOTAVAIL)
}
