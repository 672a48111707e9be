//! TCP segments in overlay datagrams: where their parts are, and their checksums.

use etherparse::checksum::Sum16BitWords;

use super::{ETHERNET, frame_at};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Tags of VLANs, customers' and providers' (IEEE 802.1Q).
const VLAN: [u16; 2] = [0x8100, 0x88a8];
/// Bytes of a tag.
const TAG: usize = 4;
const MOST_TAGS: usize = 2;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;

pub(super) const IPV6_HEADER: usize = 40;

/// Flags of a TCP header, in its fourteenth byte.
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

/// Places in a TCP header: sequence number, flags, checksum.
pub(super) const SEQUENCE: usize = 4;
pub(super) const FLAGS: usize = 13;
pub(super) const CHECKSUM: usize = 16;

/// Where the parts of a TCP segment are, in bytes from the beginning of the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The IP header.
    pub(super) ip: usize,
    pub(super) tcp: usize,
    pub(super) payload: usize,
    pub(super) v4: bool,
}

impl Segment {
    /// Finds the segment. `None` for anything but TCP right behind the IP header, and for fragments. Length fields are not
    /// looked at.
    pub(super) fn locate(datagram: &[u8]) -> Option<Self> {
        let mut ethertype = frame_at(datagram)? + ETHERNET - 2;
        for _ in 0..MOST_TAGS {
            if VLAN.contains(&be16(datagram, ethertype)?) {
                ethertype += TAG;
            }
        }
        let ip = ethertype + 2;
        let header = datagram.get(ip..)?;
        let v4 = match be16(datagram, ethertype)? {
            IPV4 => true,
            IPV6 => false,
            _ => return None,
        };
        let tcp = ip + if v4 { header_v4(header)? } else { header_v6(header)? };
        let offset = datagram.get(tcp + 12)? >> 4;
        let payload = tcp + 4 * usize::from(offset);
        (payload >= tcp + 20 && payload <= datagram.len()).then_some(Self { ip, tcp, payload, v4 })
    }

    /// The sum of the pseudo header in a datagram of `length` bytes, of which at least the headers are there (RFC 9293,
    /// section 3.1).
    pub(super) fn pseudo_header(self, datagram: &[u8], length: usize) -> Sum16BitWords {
        let addresses =
            if self.v4 { self.ip + 12..self.ip + 20 } else { self.ip + 8..self.ip + 40 };
        let length = narrow(length - self.tcp);
        Sum16BitWords::new()
            .add_slice(&datagram[addresses])
            .add_2bytes([0, TCP])
            .add_2bytes(length.to_be_bytes())
    }

    /// Writes length and checksum of the IP header as a datagram of `end` bytes has them, with an identification that is
    /// `later`.
    pub(super) fn write_ip(self, datagram: &mut [u8], end: usize, later: u16) {
        if !self.v4 {
            put16(datagram, self.ip + 4, narrow(end - self.ip - IPV6_HEADER));
            return;
        }
        put16(datagram, self.ip + 2, narrow(end - self.ip));
        let id = u16::from_be_bytes([datagram[self.ip + 4], datagram[self.ip + 5]]);
        put16(datagram, self.ip + 4, id.wrapping_add(later));
        put16(datagram, self.ip + 10, 0);
        let sum = Sum16BitWords::new().add_slice(&datagram[self.ip..self.tcp]);
        put(datagram, self.ip + 10, sum.ones_complement().to_ne_bytes());
    }

    /// Whether both headers have the right length and checksum.
    pub(super) fn is_intact(self, datagram: &[u8]) -> bool {
        let length = datagram.len() - self.ip;
        let field = if self.v4 { self.ip + 2 } else { self.ip + 4 };
        let stated = be16(datagram, field).map(usize::from);
        let right = if self.v4 { length } else { length - IPV6_HEADER };
        let header = Sum16BitWords::new().add_slice(&datagram[self.ip..self.tcp]);
        let sum = self.pseudo_header(datagram, datagram.len()).add_slice(&datagram[self.tcp..]);
        stated == Some(right)
            && (!self.v4 || header.ones_complement() == 0)
            && sum.ones_complement() == 0
    }

    /// The sequence number, in a datagram in which the segment was found.
    pub(super) fn sequence(self, datagram: &[u8]) -> u32 {
        let at = self.tcp + SEQUENCE;
        u32::from_be_bytes([datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]])
    }
}

/// The length of an IPv4 header in front of a TCP segment that is no fragment.
fn header_v4(header: &[u8]) -> Option<usize> {
    let length = 4 * usize::from(header.first()? & 0x0f);
    let fragment = be16(header, 6)? & 0x3fff != 0;
    let whole = header[0] >> 4 == 4 && length >= 20 && !fragment && *header.get(9)? == TCP;
    (whole && header.len() >= length).then_some(length)
}

/// The same of IPv6, without extension headers.
fn header_v6(header: &[u8]) -> Option<usize> {
    let whole = header.len() >= IPV6_HEADER && header[0] >> 4 == 6 && header[6] == TCP;
    whole.then_some(IPV6_HEADER)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A length or a place in a packet of at most 64 KiB, as its headers have it. What does not fit is in no such packet, and
/// becomes a value that fits nowhere.
pub(super) fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, value.to_be_bytes());
}

pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
