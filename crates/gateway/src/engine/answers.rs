//! What the target namespace gets to hear: packets made here, and what an error of a host socket means in packets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::tun::Tun;
use crate::network_config::NetworkConfig;
use crate::packet::{Builder, Original, Syn, Unbuildable, Unreachable};

/// The way back into the gateway namespace.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) tun: Tun,
    builder: RefCell<Builder>,
}

impl Answers {
    pub(super) fn new(tun: Tun, plan: &NetworkConfig) -> Self {
        // Identifications of packets only have to differ from those of a predecessor.
        let seed = std::process::id().wrapping_mul(0x9e37_79b9);
        Self { tun, builder: RefCell::new(Builder::new(plan.mtu, seed)) }
    }

    /// A datagram of somebody outside.
    pub(super) fn udp(&self, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        self.udp_to(&self.tun, src, dst, payload);
    }

    /// A datagram, into another tun device.
    pub(super) fn udp_to(&self, tun: &Tun, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        let mut builder = self.builder.borrow_mut();
        note(builder.udp(src, dst, payload, |packet| tun.write(packet)));
    }

    pub(super) fn echo(&self, src: IpAddr, dst: IpAddr, number: (u16, u16), payload: &[u8]) {
        let mut builder = self.builder.borrow_mut();
        note(builder.echo_reply(src, dst, number, payload, |packet| self.tun.write(packet)));
    }

    /// "Connection refused".
    pub(super) fn reset(&self, syn: &Syn) {
        note(self.builder.borrow_mut().tcp_reset(syn).map(|packet| self.tun.write(packet)));
    }

    /// Why a packet did not arrive, as `source` says.
    pub(super) fn unreachable(&self, why: Unreachable, source: IpAddr, original: &Original<'_>) {
        let mut builder = self.builder.borrow_mut();
        note(builder.unreachable(why, source, original).map(|packet| self.tun.write(packet)));
    }
}

fn note(built: Result<(), Unbuildable>) {
    if let Err(e) = built {
        tracing::debug!("cannot build an answer: {e}");
    }
}

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// What to tell the sender when the host says this; `None` if there is no packet for it.
pub(super) fn meaning(errno: Errno) -> Option<Unreachable> {
    match errno {
        Errno::ENETUNREACH | Errno::ENETDOWN | Errno::ENONET => Some(Unreachable::Net),
        Errno::EHOSTUNREACH | Errno::EHOSTDOWN | Errno::EINVAL => Some(Unreachable::Host),
        Errno::ECONNREFUSED => Some(Unreachable::Port),
        Errno::EPROTONOSUPPORT | Errno::ENOPROTOOPT | Errno::EAFNOSUPPORT => {
            Some(Unreachable::Protocol)
        }
        Errno::EACCES | Errno::EPERM => Some(Unreachable::Prohibited),
        _ => None,
    }
}

/// An entry of a socket's error queue (ip(7), `IP_RECVERR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) why: Unreachable,
    /// Who said so, if it was not our own kernel.
    pub(super) source: Option<IpAddr>,
}

/// Takes the next entry out of the error queue. Entries that nobody needs to hear of are skipped.
pub(super) fn next_error(socket: &Socket) -> Option<Reported> {
    loop {
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let mut nothing = [0u8; 1];
        let mut iov = [IoSliceMut::new(&mut nothing)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)
                .ok()?;
        let reported = message.cmsgs().ok()?.find_map(|cmsg| match cmsg {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let source =
                    from.map(|a| Ipv4Addr::from_bits(u32::from_be(a.sin_addr.s_addr)).into());
                understand(&error, source)
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                let source = from.map(|a| Ipv6Addr::from(a.sin6_addr.s6_addr).into());
                understand(&error, source)
            }
            _ => None,
        });
        if reported.is_some() {
            return reported;
        }
    }
}

fn understand(error: &libc::sock_extended_err, source: Option<IpAddr>) -> Option<Reported> {
    let from_network =
        matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
    let source = source.filter(|ip| from_network && !ip.is_unspecified());
    let errno = i32::try_from(error.ee_errno).map_or(Errno::UnknownErrno, Errno::from_raw);
    let expired = match error.ee_origin {
        // Time exceeded (RFC 792; RFC 4443, section 3.3); both are EHOSTUNREACH here.
        libc::SO_EE_ORIGIN_ICMP => error.ee_type == 11,
        libc::SO_EE_ORIGIN_ICMP6 => error.ee_type == 3,
        _ => false,
    };
    // Communication with the network, with the host, or altogether is forbidden (RFC 1812, section 5.2.7.1), all of
    // which EHOSTUNREACH and ENETUNREACH do not tell.
    let prohibited = error.ee_origin == libc::SO_EE_ORIGIN_ICMP
        && error.ee_type == 3
        && matches!(error.ee_code, 9 | 10 | 13);
    let why = match errno {
        _ if expired => Unreachable::TimeExceeded,
        _ if prohibited => Unreachable::Prohibited,
        Errno::EMSGSIZE => Unreachable::TooBig(error.ee_info),
        errno => meaning(errno)?,
    };
    Some(Reported { why, source })
}

/// Has what a socket sends to `to` kept whole from now on, or cut where it has to be; `is` is what it does at present.
pub(super) fn keep_whole(socket: &Socket, to: IpAddr, is: &mut bool, keep: bool) {
    if *is == keep {
        return;
    }
    match sys::whole::keep_whole(socket.as_fd(), to.is_ipv4(), keep) {
        Ok(()) => *is = keep,
        Err(e) => {
            tracing::debug!("cannot set whether packets to {to} may be fragmented: {}", e.desc());
        }
    }
}

/// Sets the time to live or hop limit of what a socket sends; `is` is what it has at present.
pub(super) fn set_ttl(socket: &Socket, ipv4: bool, is: &mut u8, ttl: u8) {
    if std::mem::replace(is, ttl) == ttl {
        return;
    }
    let set = if ipv4 {
        socket.set_ttl_v4(u32::from(ttl))
    } else {
        socket.set_unicast_hops_v6(u32::from(ttl))
    };
    if let Err(e) = set {
        tracing::debug!("cannot send with a TTL of {ttl}: {e}");
    }
}

/// Sends one datagram. The first error may be about an earlier one, of which the error queue tells.
pub(super) fn send(socket: &Socket, message: &[u8]) -> nix::Result<usize> {
    let fd = socket.as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    socket::send(fd, message, flags).or_else(|_| socket::send(fd, message, flags))
}

/// Whether this error of a connected socket may mean that the host has lost the address that the socket sends from. A
/// socket of IPv6 gives no error then, and goes on sending ([`AddressCheck`]).
pub(super) fn may_have_lost_address(error: Errno) -> bool {
    matches!(error, Errno::EINVAL | Errno::ENETUNREACH)
}

/// Another socket in the place of a connected one, if it sends from another address of the host. `connect` gets the port of
/// the old one.
pub(super) fn moved(
    socket: &Socket,
    connect: impl FnOnce(u16) -> io::Result<Socket>,
) -> Option<Socket> {
    let address = |socket: &Socket| socket.local_addr().ok()?.as_socket();
    let old = address(socket)?;
    let new = connect(old.port()).ok()?;
    address(&new).is_some_and(|new| new.ip() != old.ip()).then_some(new)
}

/// Finds connected sockets of IPv6 whose address the host has lost. Each address is looked up once.
#[derive(Debug, Default)]
pub(super) struct AddressCheck {
    lost: HashMap<SocketAddrV6, bool>,
}

impl AddressCheck {
    /// Whether the host has lost the address that a socket sends from.
    pub(super) fn has_lost(&mut self, socket: &Socket) -> bool {
        let address = socket.local_addr().ok().and_then(|address| address.as_socket_ipv6());
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

/// Has errors of the network reported for a datagram socket.
pub(super) fn report_errors(socket: &Socket, ipv4: bool) -> nix::Result<()> {
    if ipv4 {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)
    } else {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)
    }
}
