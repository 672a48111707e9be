//! What the target namespace gets to hear: packets made here, and what an error of a host socket means in packets.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

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
pub(super) fn next_error(socket: impl AsFd) -> Option<Reported> {
    let socket = socket.as_fd().as_raw_fd();
    loop {
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let mut nothing = [0u8; 1];
        let mut iov = [IoSliceMut::new(&mut nothing)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(socket, &mut iov, Some(&mut control), flags).ok()?;
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
