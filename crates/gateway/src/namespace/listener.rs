//! The listeners of the gateway namespace, which take whatever connection is made through it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use netlink::Family;
use socket2::{Domain, Protocol, Socket, Type};

use super::PORT;

/// Connections that wait to be accepted, at most `net.core.somaxconn` of them.
const BACKLOG: i32 = 4096;

/// A stream listener that takes connections to any address (`IP_TRANSPARENT`, ip(7)). What it accepts does not wait for
/// more data before it sends, and asks a silent peer whether it is still there (inherited, tcp(7)).
pub(super) fn open(family: Family) -> io::Result<OwnedFd> {
    let (domain, any): (Domain, IpAddr) = match family {
        Family::V4 => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    relay::make_transparent(&socket, family == Family::V4)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    relay::factory::tune_tcp(&socket)?;
    relay::congestion::use_local(&socket);
    socket.bind(&SocketAddr::new(any, PORT).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
