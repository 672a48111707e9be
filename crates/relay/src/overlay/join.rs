//! Putting TCP segments of an overlay together, as the kernel does with those of a network card (GRO).

use super::cut::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM};
use super::frame::{ACK, CHECKSUM, FLAGS, PSH, SEQUENCE, Segment, narrow, put};

/// "Don't fragment", in the seventh byte of an IPv4 header. Without it the identification counts.
const DONT_FRAGMENT: u8 = 0x40;

/// The most segments in one run. A packet of 64 KiB has no room for more of the usual size, and the kernel takes at most so
/// many parts at a time (`UIO_MAXIOV`, 1024).
const MAX_SEGMENTS: usize = 64;

/// From linux/virtio_net.h (Linux ≥ 6.17): the outer headers are IPv4's or IPv6's, and UDP's.
const TUNNEL_IPV4: u8 = 0x20;
const TUNNEL_IPV6: u8 = 0x40;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// Consecutive segments of one connection, with the same headers but for what follows from their places.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// The first one.
    first: &'a [u8],
    segment: Segment,
    /// Payload of each but the last.
    size: usize,
    /// Payloads of the others.
    rest: Vec<&'a [u8]>,
    /// All payload.
    bytes: usize,
    /// Nothing fits behind it: the last one was shorter, or wants to be pushed.
    closed: bool,
    pushed: bool,
}

impl<'a> Run<'a> {
    /// Begins a run with a datagram. `None` if it has nothing that could be continued.
    pub(super) fn begin(datagram: &'a [u8]) -> Option<Self> {
        let segment = Segment::locate(datagram)?;
        let payload = &datagram[segment.payload..];
        let ordinary = datagram[segment.tcp + FLAGS] & !PSH == ACK;
        let whole = !segment.v4 || datagram[segment.ip + 6] & DONT_FRAGMENT != 0;
        if payload.is_empty() || !ordinary || !whole || !segment.is_intact(datagram) {
            return None;
        }
        let pushed = datagram[segment.tcp + FLAGS] & PSH != 0;
        Some(Self {
            first: datagram,
            segment,
            size: payload.len(),
            rest: Vec::new(),
            bytes: payload.len(),
            closed: pushed,
            pushed,
        })
    }

    /// Appends a datagram if it continues the run, which has then at most `room` bytes from the datagram's beginning on.
    pub(super) fn push(&mut self, datagram: &'a [u8], room: usize) -> bool {
        let segment = self.segment;
        if self.closed || self.count() == MAX_SEGMENTS || datagram.len() <= segment.payload {
            return false;
        }
        let payload = &datagram[segment.payload..];
        let fits =
            payload.len() <= self.size && segment.payload + self.bytes + payload.len() <= room;
        if !fits || !self.continues(datagram) || !segment.is_intact(datagram) {
            return false;
        }
        self.pushed = datagram[segment.tcp + FLAGS] & PSH != 0;
        self.closed = self.pushed || payload.len() < self.size;
        self.rest.push(payload);
        self.bytes += payload.len();
        true
    }

    /// Whether the headers are those of the first one, as far as they have to be, and the sequence number is the next.
    fn continues(&self, datagram: &[u8]) -> bool {
        let Segment { ip, tcp, payload, v4 } = self.segment;
        // Compared in stretches around the fields that differ: IPv4 length and identification, its checksum; IPv6 length;
        // sequence number, flags and checksum of TCP.
        let stretches = if v4 {
            [0..ip + 2, ip + 6..ip + 10, ip + 12..tcp + SEQUENCE]
        } else {
            [0..ip + 4, ip + 6..ip + 6, ip + 6..tcp + SEQUENCE]
        };
        let of_tcp = [
            tcp + SEQUENCE + 4..tcp + FLAGS,
            tcp + FLAGS + 1..tcp + CHECKSUM,
            tcp + CHECKSUM + 2..payload,
        ];
        let same = |range: std::ops::Range<usize>| self.first[range.clone()] == datagram[range];
        // A run has at most 64 KiB.
        let next = self.segment.sequence(self.first).wrapping_add(narrow(self.bytes).into());
        stretches.into_iter().chain(of_tcp).all(same)
            && datagram[tcp + FLAGS] & !PSH == ACK
            && self.segment.sequence(datagram) == next
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        1 + self.rest.len()
    }

    /// The first one, as it came.
    pub(super) fn first(&self) -> &'a [u8] {
        self.first
    }

    /// Bytes of all datagrams together, as they came.
    pub(super) fn received(&self) -> usize {
        self.bytes + self.count() * self.segment.payload
    }

    /// Bytes of the datagram that they make.
    pub(super) fn len(&self) -> usize {
        self.segment.payload + self.bytes
    }

    /// What the kernel has to know about the packet that they make (`struct virtio_net_hdr_v1_hash_tunnel` in little-endian
    /// order): where its headers are, and that it is to be cut and its checksum completed. `before` is what comes in front,
    /// Ethernet, IP and UDP; `v4` says that this IP is version 4.
    pub(super) fn offload(&self, before: usize, v4: bool) -> [u8; sys::tap::OFFLOAD_LEN] {
        let Segment { ip, tcp, payload, v4: inner_v4 } = self.segment;
        let inner = if inner_v4 { GSO_TCPV4 } else { GSO_TCPV6 };
        let outer = if v4 { TUNNEL_IPV4 } else { TUNNEL_IPV6 };
        let mut bytes = [0; sys::tap::OFFLOAD_LEN];
        put(&mut bytes, 0, [NEEDS_CSUM, inner | outer]);
        for (at, number) in [
            (2, before + payload),
            (4, self.size),
            (6, before + tcp),
            (8, CHECKSUM),
            (20, before - UDP_HEADER),
            (22, before + ip),
        ] {
            put(&mut bytes, at, narrow(number).to_le_bytes());
        }
        bytes
    }

    /// The headers of one long segment, whose checksum is that of its pseudo header.
    pub(super) fn headers(&self) -> Vec<u8> {
        let segment = self.segment;
        let mut headers = self.first[..segment.payload].to_vec();
        segment.write_ip(&mut headers, self.len(), 0);
        let sum = segment.pseudo_header(&headers, self.len()).ones_complement();
        put(&mut headers, segment.tcp + CHECKSUM, (!sum).to_ne_bytes());
        if self.pushed {
            headers[segment.tcp + FLAGS] |= PSH;
        }
        headers
    }

    /// What follows the headers.
    pub(super) fn payloads(&self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::once(&self.first[self.segment.payload..]).chain(self.rest.iter().copied())
    }
}

#[cfg(test)]
mod tests;
