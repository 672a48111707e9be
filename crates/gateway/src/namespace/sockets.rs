//! The listeners of the gateway namespace.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use netlink::Family;
use socket2::{Domain, Protocol, Socket, Type};

use super::PORT;

/// Connections that wait to be accepted, at most `net.core.somaxconn` of them.
const BACKLOG: i32 = 4096;

/// A stream listener that takes connections to any address (`IP_TRANSPARENT`, ip(7)). What it accepts does not wait for
/// more data before it sends, and asks a silent peer whether it is still there (inherited, tcp(7)).
pub(super) fn listen(family: Family) -> io::Result<OwnedFd> {
    let (domain, address) = match family {
        Family::V4 => (Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))),
        Family::V6 => (Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT))),
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    relay::make_transparent(&socket, family == Family::V4)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    relay::factory::tune_tcp(&socket)?;
    relay::congestion::use_local(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
