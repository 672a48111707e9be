//! ICMP and ICMPv6 errors: why a packet did not get where it was sent.
//!
//! A receiver finds the socket, and connection tracking the connection, by the packet that the error quotes. An error
//! of a host socket comes without it, so what those two look at is made again from the addresses.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use etherparse::IpNumber;

use super::build::{Builder, Ends, TTL, Unbuildable, words};
use super::{ECHO_REQUEST, ECHO_REQUEST_V6, Located, is_host, locate};

/// Largest ICMP error, IP header included (RFC 1812, section 4.3.2.3).
const LARGEST_V4: usize = 576;
/// Largest ICMPv6 error, IP header included (RFC 4443, section 2.4 c).
const LARGEST_V6: usize = 1280;
/// Smallest MTU of IPv4 (RFC 791).
const MIN_MTU_V4: u16 = 68;

/// Why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No route to the network (`ENETUNREACH`).
    Net,
    /// The host does not answer on its link (`EHOSTUNREACH`).
    Host,
    /// Nobody listens there (`ECONNREFUSED`).
    Port,
    /// The protocol is not passed on. In IPv6 this is a parameter problem.
    Protocol,
    /// Forbidden by rule (`EACCES`, or a verdict of the policy).
    Prohibited,
    /// Larger than the path allows (`EMSGSIZE`); holds the path's MTU in bytes. For IPv4 "fragmentation needed".
    TooBig(u32),
    /// Time to live or hop limit ran out on the way.
    TimeExceeded,
}

/// The packet that an error is about.
#[derive(Clone, Copy, Debug)]
pub enum Original<'a> {
    /// As it was read from the TUN device.
    Packet(&'a [u8]),
    /// A UDP datagram that is not at hand any more.
    Udp {
        /// Its sender, who gets the error.
        src: SocketAddr,
        /// Its destination.
        dst: SocketAddr,
    },
    /// An echo request that is not at hand any more.
    Echo {
        /// Its sender, who gets the error.
        src: IpAddr,
        /// Its destination.
        dst: IpAddr,
        /// Its identifier.
        id: u16,
        /// Its sequence number.
        seq: u16,
    },
}

impl<'a> Original<'a> {
    /// The packet, or what is known of it: its IP header and the eight bytes behind it.
    fn bytes(&self) -> Result<Cow<'a, [u8]>, Unbuildable> {
        let (src, dst, protocol, fields) = match *self {
            Self::Packet(packet) => return Ok(packet.into()),
            Self::Udp { src, dst } => {
                (src.ip(), dst.ip(), IpNumber::UDP, [src.port(), dst.port(), 8, 0])
            }
            Self::Echo { src, dst, id, seq } => {
                let (request, protocol) = match src {
                    IpAddr::V4(_) => (ECHO_REQUEST, IpNumber::ICMP),
                    IpAddr::V6(_) => (ECHO_REQUEST_V6, IpNumber::IPV6_ICMP),
                };
                (src, dst, protocol, [u16::from_be_bytes([request, 0]), 0, id, seq])
            }
        };
        let ends = Ends::new(src, dst)?;
        let mut packet = vec![0; ends.header_len()];
        ends.write_header(&mut packet, protocol, TTL, 0, 8);
        packet.extend(words(fields));
        Ok(packet.into())
    }
}

impl Builder {
    /// The error that `source` (the gateway, or for [`Unreachable::Port`] the destination itself) sends to the sender
    /// of `original`.
    ///
    /// # Errors
    /// [`Unbuildable::Silent`] if no error may be sent: about ICMP other than echo requests, fragments other than the
    /// first, destinations or sources that are no single host, and packets that do not parse. [`Unbuildable::Family`]
    /// if `source` is of the other family.
    pub fn unreachable(
        &mut self,
        kind: Unreachable,
        source: IpAddr,
        original: &Original<'_>,
    ) -> Result<&[u8], Unbuildable> {
        let original = original.bytes()?;
        let original = locate(&original).map_err(|_| Unbuildable::Silent)?;
        if !may_answer(&original) {
            return Err(Unbuildable::Silent);
        }
        let ends = Ends::new(source, original.src)?;
        let header = header(kind, ends, original.protocol_at);
        let largest = if source.is_ipv4() { LARGEST_V4 } else { LARGEST_V6 };
        let room = largest - ends.header_len() - header.len();
        let quoted = original.whole.get(..room).unwrap_or(original.whole);
        self.message(ends, ends.icmp(), &header, 2, quoted)?;
        Ok(self.whole(ends, ends.icmp()))
    }
}

/// Whether an error may be sent about a packet.
fn may_answer(packet: &Located<'_>) -> bool {
    let request = match packet.protocol {
        IpNumber::ICMP => Some(ECHO_REQUEST),
        IpNumber::IPV6_ICMP => Some(ECHO_REQUEST_V6),
        _ => None,
    };
    is_host(packet.src)
        && is_host(packet.dst)
        && packet.piece.is_none_or(|piece| piece.offset == 0)
        && request.is_none_or(|request| packet.data.first() == Some(&request))
}

/// The eight bytes in front of the quote, with a checksum of zero.
fn header(kind: Unreachable, ends: Ends, protocol_at: usize) -> [u8; 8] {
    let pointer = u32::try_from(protocol_at).unwrap_or_default();
    let (class, code, value) = match ends {
        // RFC 792 and 1812: type 3 is "destination unreachable", 11 "time exceeded".
        Ends::V4(..) => match kind {
            Unreachable::Net => (3, 0, 0),
            Unreachable::Host => (3, 1, 0),
            Unreachable::Protocol => (3, 2, 0),
            Unreachable::Port => (3, 3, 0),
            Unreachable::TooBig(mtu) => {
                (3, 4, u16::try_from(mtu).unwrap_or(u16::MAX).max(MIN_MTU_V4).into())
            }
            Unreachable::Prohibited => (3, 13, 0),
            Unreachable::TimeExceeded => (11, 0, 0),
        },
        // RFC 4443: type 1 is "destination unreachable", 2 "packet too big", 3 "time exceeded", 4 "parameter problem".
        Ends::V6(..) => match kind {
            Unreachable::Net => (1, 0, 0),
            Unreachable::Host => (1, 3, 0),
            Unreachable::Port => (1, 4, 0),
            Unreachable::Prohibited => (1, 1, 0),
            Unreachable::TooBig(mtu) => (2, 0, mtu.max(1280)),
            Unreachable::TimeExceeded => (3, 0, 0),
            Unreachable::Protocol => (4, 1, pointer),
        },
    };
    let [v0, v1, v2, v3] = u32::to_be_bytes(value);
    [class, code, 0, 0, v0, v1, v2, v3]
}
