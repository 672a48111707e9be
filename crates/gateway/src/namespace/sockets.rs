//! The sockets of the gateway namespace that take whatever is sent through it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink::Family;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4OrigDstAddr, Ipv6OrigDstAddr};
use socket2::{Domain, Protocol, Socket, Type};

use super::{OVERLAY_PORT, PORT};
use crate::Sockets;

/// Connections that wait to be accepted, at most `net.core.somaxconn` of them.
const BACKLOG: i32 = 4096;

/// The sockets of one family.
pub(super) fn open(family: Family) -> io::Result<Sockets> {
    Ok(Sockets { listener: listen(family)?.into(), overlay: take_overlays(family)?.into() })
}

/// A stream listener that takes connections to any address (`IP_TRANSPARENT`, ip(7)). What it accepts does not wait for
/// more data before it sends, and asks a silent peer whether it is still there (inherited, tcp(7)).
fn listen(family: Family) -> io::Result<Socket> {
    let socket = transparent(family, Type::STREAM, Protocol::TCP)?;
    relay::factory::tune_tcp(&socket)?;
    relay::congestion::use_local(&socket);
    bind(&socket, family, PORT)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A datagram socket that takes what `tproxy` gives it, and says where each datagram was sent to.
fn take_overlays(family: Family) -> io::Result<Socket> {
    let socket = transparent(family, Type::DGRAM, Protocol::UDP)?;
    relay::factory::tune_udp(&socket);
    match family {
        Family::V4 => setsockopt(&socket, Ipv4OrigDstAddr, &true)?,
        Family::V6 => setsockopt(&socket, Ipv6OrigDstAddr, &true)?,
    }
    bind(&socket, family, OVERLAY_PORT)?;
    Ok(socket)
}

fn transparent(family: Family, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    relay::make_transparent(&socket, family == Family::V4)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind(socket: &Socket, family: Family, port: u16) -> io::Result<()> {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, port).into())
}
