//! IP packets as a TUN device hands them over: taken apart, put together again, and made.
//!
//! Pure: no sockets, no clock. [`parse`] allocates nothing, [`Builder`] only for errors about packets that are gone,
//! [`Reassembly`] for each datagram.
//!
//! # Checksums of what comes in
//! They are not verified. The kernel of the namespace has checked the header of IPv4 on the way in, and UDP and TCP
//! were either made by a kernel of this machine or are as wrong as their sender wanted them; only memory lies between.
//! The worst that a wrong one does is that its sender's own bytes leave with a right one. What does harm is wrong
//! lengths and impossible sources (an answer to a multicast address goes to everybody): those are refused.

mod build;
mod error;
mod reassembly;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpSlice, UdpSlice};

pub use build::{Builder, Unbuildable};
pub use error::{Original, Unreachable};
pub use reassembly::{Fragment, Reassembly};

/// Type of an ICMP echo request (RFC 792).
pub(crate) const ECHO_REQUEST: u8 = 8;
/// Type of an ICMPv6 echo request (RFC 4443, section 4.1).
pub(crate) const ECHO_REQUEST_V6: u8 = 128;
/// Type of an ICMP message that a destination is unreachable (RFC 792).
pub(crate) const UNREACHABLE: u8 = 3;
/// The same of ICMPv6 (RFC 4443, section 3.1).
pub(crate) const UNREACHABLE_V6: u8 = 1;
/// Type of an ICMPv6 message that a packet is too big (RFC 4443, section 3.2).
pub(crate) const TOO_BIG_V6: u8 = 2;
/// Longest chain of extension headers that is followed. RFC 8200 has four kinds that end at a host, each once but one.
const EXTENSION_HEADERS: usize = 8;

/// What a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The start of a TCP connection.
    Syn(Syn),
    /// A UDP datagram.
    Udp(Udp<'a>),
    /// An echo request.
    Echo(Echo<'a>),
    /// A part of a UDP datagram or an echo request, for [`Reassembly`].
    Fragment(Fragment<'a>),
    /// Another segment of TCP.
    Segment,
    /// Well formed, but none of these.
    Other,
}

/// A segment with SYN and without ACK, RST and FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// Who connects.
    pub src: SocketAddr,
    /// Where to.
    pub dst: SocketAddr,
    /// Its sequence number: a retransmission has the same, another connection between the same ends does not.
    pub seq: u32,
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Its sender.
    pub src: SocketAddr,
    /// Its destination.
    pub dst: SocketAddr,
    /// Its payload, at most 65,527 bytes.
    pub payload: &'a [u8],
    /// Time to live or hop limit that is left.
    pub ttl: u8,
    /// It must not be cut on its way. Packets of IPv6 never are.
    pub keep_whole: bool,
}

/// An ICMP or ICMPv6 echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Who asks.
    pub src: IpAddr,
    /// Who is asked.
    pub dst: IpAddr,
    /// Identifier: one per asking process.
    pub id: u16,
    /// Sequence number.
    pub seq: u16,
    /// What follows the 8 bytes of the header.
    pub payload: &'a [u8],
    /// Time to live or hop limit that is left.
    pub ttl: u8,
    /// As in [`Udp`].
    pub keep_whole: bool,
}

/// Why a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Neither IPv4 nor IPv6.
    Version,
    /// A header ends beyond the packet, or a length field contradicts another or the packet.
    Length,
    /// The source is no address that an answer can be sent to.
    Source,
    /// A fragment that is empty, not a multiple of 8 bytes, or ends beyond the largest packet.
    Fragment,
    /// More extension headers than anything sensible has.
    Extensions,
}

impl Packet<'_> {
    /// What was put together from fragments may be cut again.
    #[must_use]
    pub fn reassembled(self) -> Self {
        match self {
            Self::Udp(udp) => Self::Udp(Udp { keep_whole: false, ..udp }),
            Self::Echo(echo) => Self::Echo(Echo { keep_whole: false, ..echo }),
            other => other,
        }
    }
}

/// Takes apart a packet that was read from a TUN device (no link-layer header, `IFF_NO_PI`).
///
/// Bytes behind the packet's own length are ignored. IPv4 options and IPv6 extension headers are skipped. A packet with
/// a routing header that has segments left is [`Packet::Other`]: its destination is not its last one.
///
/// # Errors
/// What is malformed is [`Bad`]; it deserves to be counted and dropped.
pub fn parse(packet: &[u8]) -> Result<Packet<'_>, Bad> {
    let located = locate(packet)?;
    let Located { src, dst, protocol, ttl, data, .. } = located;
    if !is_host(src) {
        return Err(Bad::Source);
    }
    let echo = match src {
        IpAddr::V4(_) => IpNumber::ICMP,
        IpAddr::V6(_) => IpNumber::IPV6_ICMP,
    };
    if protocol != IpNumber::UDP && protocol != echo {
        return match protocol {
            IpNumber::TCP if located.piece.is_none() => tcp(&located),
            _ => Ok(Packet::Other),
        };
    }
    if let Some(Piece { id, offset, more }) = located.piece {
        let fragment = Fragment { src, dst, id, protocol: protocol.0, ttl, offset, more, data };
        return fragment.check().map(Packet::Fragment);
    }
    if protocol == echo { icmp(&located) } else { udp(&located) }
}

fn tcp<'a>(packet: &Located<'a>) -> Result<Packet<'a>, Bad> {
    let tcp = TcpSlice::from_slice(packet.data).map_err(|_| Bad::Length)?;
    if !tcp.syn() || tcp.ack() || tcp.rst() || tcp.fin() {
        return Ok(Packet::Segment);
    }
    Ok(Packet::Syn(Syn {
        src: SocketAddr::new(packet.src, tcp.source_port()),
        dst: SocketAddr::new(packet.dst, tcp.destination_port()),
        seq: tcp.sequence_number(),
    }))
}

fn udp<'a>(packet: &Located<'a>) -> Result<Packet<'a>, Bad> {
    let udp = UdpSlice::from_slice(packet.data).map_err(|_| Bad::Length)?;
    // Zero stands for "as long as the packet" in jumbograms only (RFC 2675), which do not fit a TUN device.
    if udp.length() == 0 {
        return Err(Bad::Length);
    }
    Ok(Packet::Udp(Udp {
        src: SocketAddr::new(packet.src, udp.source_port()),
        dst: SocketAddr::new(packet.dst, udp.destination_port()),
        payload: udp.slice().get(8..).unwrap_or_default(),
        ttl: packet.ttl,
        keep_whole: packet.keep_whole,
    }))
}

fn icmp<'a>(packet: &Located<'a>) -> Result<Packet<'a>, Bad> {
    let Some(([kind, code, _, _, id @ .., s0, s1], payload)) = packet.data.split_first_chunk::<8>()
    else {
        return Err(Bad::Length);
    };
    let request = if packet.src.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    if *kind != request || *code != 0 {
        return Ok(Packet::Other);
    }
    Ok(Packet::Echo(Echo {
        src: packet.src,
        dst: packet.dst,
        id: u16::from_be_bytes(*id),
        seq: u16::from_be_bytes([*s0, *s1]),
        payload,
        ttl: packet.ttl,
        keep_whole: packet.keep_whole,
    }))
}

#[derive(Clone, Copy)]
struct Piece {
    id: u32,
    /// In bytes.
    offset: usize,
    more: bool,
}

/// A packet whose IP headers have been read.
#[derive(Clone, Copy)]
struct Located<'a> {
    src: IpAddr,
    dst: IpAddr,
    protocol: IpNumber,
    /// Offset of the byte that names `protocol`, for ICMPv6 parameter problems.
    protocol_at: usize,
    ttl: u8,
    keep_whole: bool,
    /// `None` for a whole packet.
    piece: Option<Piece>,
    /// What follows the IP headers.
    data: &'a [u8],
    /// The packet without what trails it.
    whole: &'a [u8],
}

fn locate(packet: &[u8]) -> Result<Located<'_>, Bad> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => locate_v4(packet),
        Some(6) => locate_v6(packet),
        Some(_) => Err(Bad::Version),
        None => Err(Bad::Length),
    }
}

fn locate_v4(packet: &[u8]) -> Result<Located<'_>, Bad> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| Bad::Length)?;
    let whole = packet.get(..usize::from(header.total_len())).ok_or(Bad::Length)?;
    let data = whole.get(header.slice().len()..).ok_or(Bad::Length)?;
    let piece = header.is_fragmenting_payload().then(|| Piece {
        id: header.identification().into(),
        offset: header.fragments_offset().byte_offset().into(),
        more: header.more_fragments(),
    });
    Ok(Located {
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        protocol: header.protocol(),
        protocol_at: 9,
        ttl: header.ttl(),
        keep_whole: header.dont_fragment(),
        piece,
        data,
        whole,
    })
}

fn locate_v6(packet: &[u8]) -> Result<Located<'_>, Bad> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Bad::Length)?;
    let start = header.slice().len();
    let whole = packet.get(..start + usize::from(header.payload_length())).ok_or(Bad::Length)?;
    let mut located = Located {
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        protocol: header.next_header(),
        protocol_at: 6,
        ttl: header.hop_limit(),
        keep_whole: true,
        piece: None,
        data: whole.get(start..).ok_or(Bad::Length)?,
        whole,
    };
    for _ in 0..=EXTENSION_HEADERS {
        if !skip_extension(&mut located)? {
            return Ok(located);
        }
    }
    Err(Bad::Extensions)
}

/// Moves past one extension header (RFC 8200, section 4); false if there is none that can be looked behind.
fn skip_extension(packet: &mut Located<'_>) -> Result<bool, Bad> {
    let fragment = packet.protocol == IpNumber::IPV6_FRAGMENTATION_HEADER;
    let routing = packet.protocol == IpNumber::IPV6_ROUTE_HEADER;
    let options = packet.protocol == IpNumber::IPV6_HEADER_HOP_BY_HOP
        || packet.protocol == IpNumber::IPV6_DESTINATION_OPTIONS;
    // What follows the header of a later fragment is a part of something, not a header.
    if packet.piece.is_some() || !(fragment || routing || options) {
        return Ok(false);
    }
    let start = packet.data.first_chunk::<8>().ok_or(Bad::Length)?;
    let [next, length, place @ .., i0, i1, i2, i3] = *start;
    if routing && place[1] != 0 {
        return Ok(false);
    }
    let mut size = 8;
    if fragment {
        let place = u16::from_be_bytes(place);
        let (offset, more) = (usize::from(place & !7), place & 1 != 0);
        // A fragment that is alone is a whole packet (RFC 6946).
        if offset != 0 || more {
            packet.piece = Some(Piece { id: u32::from_be_bytes([i0, i1, i2, i3]), offset, more });
        }
    } else {
        size += 8 * usize::from(length);
    }
    let rest = packet.data.get(size..).ok_or(Bad::Length)?;
    packet.protocol_at = packet.whole.len() - packet.data.len();
    packet.protocol = IpNumber(next);
    packet.data = rest;
    Ok(true)
}

/// Whether an answer to `address` can reach one host outside of this one.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] != 0
                && !v4.is_loopback()
                && !v4.is_multicast()
                && v4 != Ipv4Addr::BROADCAST
        }
        IpAddr::V6(v6) => {
            v6 != Ipv6Addr::UNSPECIFIED
                && !v6.is_loopback()
                && !v6.is_multicast()
                && v6.to_ipv4_mapped().is_none()
        }
    }
}
