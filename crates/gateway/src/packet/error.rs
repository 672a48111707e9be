//! ICMP and ICMPv6 errors: why a packet did not get where it was sent.
//!
//! A receiver finds the socket, and connection tracking the connection, by the packet that the error quotes. An error
//! of a host socket comes without it, so what those two look at is made again from the addresses.

use std::net::{IpAddr, SocketAddr};

use etherparse::IpNumber;

use super::build::{Builder, Ends, Unbuildable, header_v4, header_v6};
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
    /// A TCP segment that is not at hand any more.
    Tcp {
        /// Its sender, who gets the error.
        src: SocketAddr,
        /// Its destination.
        dst: SocketAddr,
        /// Its sequence number; receivers ignore errors about others than those in flight (RFC 5927).
        seq: u32,
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

/// The headers of the original as far as they are quoted, made from what is known.
struct Quote {
    src: IpAddr,
    dst: IpAddr,
    protocol: IpNumber,
    /// What the packet had behind its IP header at least, in bytes.
    length: usize,
    /// The first eight of them.
    start: [u8; 8],
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
        let quote = match *original {
            Original::Packet(packet) => return self.quote_packet(kind, source, packet),
            Original::Udp { src, dst } => Quote::udp(src, dst),
            Original::Tcp { src, dst, seq } => Quote::tcp(src, dst, seq),
            Original::Echo { src, dst, id, seq } => Quote::echo(src, dst, id, seq),
        };
        self.quote_known(kind, source, &quote)
    }

    fn quote_packet(
        &mut self,
        kind: Unreachable,
        source: IpAddr,
        packet: &[u8],
    ) -> Result<&[u8], Unbuildable> {
        let located = locate(packet).map_err(|_| Unbuildable::Silent)?;
        if !may_answer(&located) {
            return Err(Unbuildable::Silent);
        }
        let ends = Ends::new(source, located.src)?;
        let room = match ends {
            Ends::V4(..) => LARGEST_V4 - 20 - 8,
            Ends::V6(..) => LARGEST_V6 - 40 - 8,
        };
        let quoted = located.whole.get(..room).unwrap_or(located.whole);
        self.message(ends, &header(kind, ends, located.protocol_at), quoted)?;
        self.seal(ends, ends.icmp(), 2);
        Ok(self.whole(ends, ends.icmp()))
    }

    fn quote_known(
        &mut self,
        kind: Unreachable,
        source: IpAddr,
        quote: &Quote,
    ) -> Result<&[u8], Unbuildable> {
        let ends = Ends::new(source, quote.src)?;
        let inner = Ends::new(quote.src, quote.dst)?;
        if !is_host(quote.src) || !is_host(quote.dst) {
            return Err(Unbuildable::Silent);
        }
        let pointer = if quote.src.is_ipv4() { 9 } else { 6 };
        self.message(ends, &header(kind, ends, pointer), &[])?;
        match inner {
            Ends::V4(src, dst) => {
                self.buffer.extend_from_slice(&header_v4(
                    src,
                    dst,
                    quote.protocol,
                    quote.length,
                    0,
                ));
            }
            Ends::V6(src, dst) => {
                self.buffer.extend_from_slice(&header_v6(src, dst, quote.protocol, quote.length));
            }
        }
        self.buffer.extend_from_slice(&quote.start);
        self.seal(ends, ends.icmp(), 2);
        Ok(self.whole(ends, ends.icmp()))
    }
}

impl Quote {
    fn udp(src: SocketAddr, dst: SocketAddr) -> Self {
        let start = words([src.port(), dst.port(), 8, 0]);
        Self { src: src.ip(), dst: dst.ip(), protocol: IpNumber::UDP, length: 8, start }
    }

    fn tcp(src: SocketAddr, dst: SocketAddr, seq: u32) -> Self {
        let mut start = words([src.port(), dst.port(), 0, 0]);
        start[4..].copy_from_slice(&seq.to_be_bytes());
        Self { src: src.ip(), dst: dst.ip(), protocol: IpNumber::TCP, length: 20, start }
    }

    fn echo(src: IpAddr, dst: IpAddr, id: u16, seq: u16) -> Self {
        let (request, protocol) = match src {
            IpAddr::V4(_) => (ECHO_REQUEST, IpNumber::ICMP),
            IpAddr::V6(_) => (ECHO_REQUEST_V6, IpNumber::IPV6_ICMP),
        };
        let start = words([u16::from_be_bytes([request, 0]), 0, id, seq]);
        Self { src, dst, protocol, length: 8, start }
    }
}

/// Four fields of 16 bits, as they are sent.
fn words(fields: [u16; 4]) -> [u8; 8] {
    let mut bytes = [0; 8];
    for (pair, field) in bytes.chunks_exact_mut(2).zip(fields) {
        pair.copy_from_slice(&field.to_be_bytes());
    }
    bytes
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
