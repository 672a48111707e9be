//! Packets for the namespace: datagrams, echo replies and resets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, TcpHeader};

use super::Syn;

/// Room in front of a message for the headers of IPv6 and its fragments. IPv4's are written into its end.
const HEADROOM: usize = Ipv6Header::LEN + Ipv6FragmentHeader::LEN;
/// MTU that every IPv6 link has at least (RFC 8200, section 5).
const MIN_MTU_V6: usize = 1280;
/// Time to live and hop limit of what is made here (RFC 1700's default, as Linux').
pub(super) const TTL: u8 = 64;
/// Type of an ICMP echo reply (RFC 792).
const ECHO_REPLY: u8 = 0;
/// Type of an ICMPv6 echo reply (RFC 4443, section 4.2).
const ECHO_REPLY_V6: u8 = 129;

/// Why a packet cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbuildable {
    /// One address is IPv4, another is IPv6.
    #[error("addresses of different families in one packet")]
    Family,
    /// The payload does not fit one datagram.
    #[error("the payload is too large for a datagram")]
    TooLong,
    /// No error may be sent about such a packet (RFC 1122, section 3.2.2; RFC 4443, section 2.4 e).
    #[error("no ICMP error may answer this packet")]
    Silent,
}

/// Source and destination, of one family.
#[derive(Clone, Copy)]
pub(super) enum Ends {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Ends {
    pub(super) fn new(src: IpAddr, dst: IpAddr) -> Result<Self, Unbuildable> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Ok(Self::V4(src, dst)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Ok(Self::V6(src, dst)),
            _ => Err(Unbuildable::Family),
        }
    }

    pub(super) fn icmp(self) -> IpNumber {
        match self {
            Self::V4(..) => IpNumber::ICMP,
            Self::V6(..) => IpNumber::IPV6_ICMP,
        }
    }

    /// Most bytes behind the IP header. In IPv6 they count without it.
    pub(super) fn room(self) -> usize {
        match self {
            Self::V4(..) => usize::from(u16::MAX) - Ipv4Header::MIN_LEN,
            Self::V6(..) => usize::from(u16::MAX),
        }
    }

    pub(super) fn header_len(self) -> usize {
        match self {
            Self::V4(..) => Ipv4Header::MIN_LEN,
            Self::V6(..) => Ipv6Header::LEN,
        }
    }

    /// Writes an IP header with `length` bytes behind it to `to`, which is [`Ends::header_len`] bytes long. IPv6 has no
    /// place for `id`.
    pub(super) fn write_header(
        self,
        to: &mut [u8],
        protocol: IpNumber,
        ttl: u8,
        id: u32,
        length: usize,
    ) {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        match self {
            Self::V4(src, dst) => {
                let [_, _, high, low] = id.to_be_bytes();
                let mut header = Ipv4Header {
                    total_len: length.saturating_add(Ipv4Header::MIN_LEN_U16),
                    identification: u16::from_be_bytes([high, low]),
                    dont_fragment: false,
                    time_to_live: ttl,
                    protocol,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Default::default()
                };
                header.header_checksum = header.calc_header_checksum();
                to.copy_from_slice(&header.to_bytes());
            }
            Self::V6(src, dst) => {
                let header = Ipv6Header {
                    payload_length: length,
                    next_header: protocol,
                    hop_limit: ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Default::default()
                };
                to.copy_from_slice(&header.to_bytes());
            }
        }
    }
}

/// Four fields of 16 bits, as they are sent.
pub(super) fn words(fields: [u16; 4]) -> [u8; 8] {
    let [[a0, a1], [b0, b1], [c0, c1], [d0, d1]] = fields.map(u16::to_be_bytes);
    [a0, a1, b0, b1, c0, c1, d0, d1]
}

/// Makes packets, one after the other in one buffer.
///
/// IPv4 packets are made whole and without "don't fragment": the namespace's kernel cuts them on their way out. It must
/// not do so with IPv6, so those that exceed the MTU are cut here.
#[derive(Debug)]
pub struct Builder {
    /// [`HEADROOM`], then a message of the layer above IP.
    buffer: Vec<u8>,
    mtu: usize,
    id: u32,
}

impl Builder {
    /// `mtu` is the one of the link that the packets will cross, in bytes (less than 1280 counts as 1280).
    /// `seed` is where identifications of packets start: any number that differs between runs.
    pub fn new(mtu: u32, seed: u32) -> Self {
        let mtu = usize::try_from(mtu).unwrap_or(usize::MAX).max(MIN_MTU_V6);
        Self { buffer: Vec::new(), mtu, id: seed }
    }

    /// A UDP datagram: one packet, or several fragments for IPv6; each is given to `emit`.
    ///
    /// # Errors
    /// [`Unbuildable::TooLong`] above 65,507 bytes of payload (IPv6: 65,527), [`Unbuildable::Family`]. Nothing was
    /// emitted then.
    pub fn udp(
        &mut self,
        src: SocketAddr,
        dst: SocketAddr,
        payload: &[u8],
        emit: impl FnMut(&[u8]),
    ) -> Result<(), Unbuildable> {
        let ends = Ends::new(src.ip(), dst.ip())?;
        let length = u16::try_from(8 + payload.len()).map_err(|_| Unbuildable::TooLong)?;
        let header = words([src.port(), dst.port(), length, 0]);
        self.message(ends, IpNumber::UDP, &header, 6, payload)?;
        self.emit(ends, IpNumber::UDP, emit);
        Ok(())
    }

    /// The answer of `src` to an echo request of `dst`, with its identifier, sequence number and payload.
    ///
    /// # Errors
    /// As for [`Self::udp`].
    pub fn echo_reply(
        &mut self,
        src: IpAddr,
        dst: IpAddr,
        (id, seq): (u16, u16),
        payload: &[u8],
        emit: impl FnMut(&[u8]),
    ) -> Result<(), Unbuildable> {
        let ends = Ends::new(src, dst)?;
        let kind = if src.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
        let header = words([u16::from_be_bytes([kind, 0]), 0, id, seq]);
        self.message(ends, ends.icmp(), &header, 2, payload)?;
        self.emit(ends, ends.icmp(), emit);
        Ok(())
    }

    /// "Connection refused": the reset that answers a SYN to a closed port (RFC 9293, section 3.10.7.1).
    ///
    /// # Errors
    /// [`Unbuildable::Family`].
    pub fn tcp_reset(&mut self, syn: &Syn) -> Result<&[u8], Unbuildable> {
        let ends = Ends::new(syn.dst.ip(), syn.src.ip())?;
        let mut header = TcpHeader::new(syn.dst.port(), syn.src.port(), 0, 0);
        header.rst = true;
        header.ack = true;
        header.acknowledgment_number = syn.seq.wrapping_add(1);
        self.message(ends, IpNumber::TCP, &header.to_bytes(), 16, &[])?;
        Ok(self.whole(ends, IpNumber::TCP))
    }

    /// Puts a message into the buffer, behind the headroom. Its checksum, zero in `header`, is at `checksum_at`.
    pub(super) fn message(
        &mut self,
        ends: Ends,
        protocol: IpNumber,
        header: &[u8],
        checksum_at: usize,
        body: &[u8],
    ) -> Result<(), Unbuildable> {
        if header.len() + body.len() > ends.room() {
            return Err(Unbuildable::TooLong);
        }
        self.buffer.clear();
        self.buffer.resize(HEADROOM, 0);
        self.buffer.extend_from_slice(header);
        self.buffer.extend_from_slice(body);
        let message = &mut self.buffer[HEADROOM..];
        // No message is longer than `Ends::room`.
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        let mut sum = Sum16BitWords::new().add_slice(message);
        if protocol != IpNumber::ICMP {
            // The pseudo header, in no particular order: a sum does not depend on it.
            sum = match ends {
                Ends::V4(src, dst) => sum.add_4bytes(src.octets()).add_4bytes(dst.octets()),
                Ends::V6(src, dst) => sum.add_16bytes(src.octets()).add_16bytes(dst.octets()),
            };
            sum = sum.add_2bytes([0, protocol.0]).add_2bytes(length.to_be_bytes());
        }
        // Zero means "none" for UDP, and for UDP only.
        let checksum = if protocol == IpNumber::UDP {
            sum.to_ones_complement_with_no_zero()
        } else {
            sum.ones_complement()
        };
        // The sum is kept in the order of the bytes in memory.
        message[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_ne_bytes());
        Ok(())
    }

    /// The message as one packet, whatever its size.
    pub(super) fn whole(&mut self, ends: Ends, protocol: IpNumber) -> &[u8] {
        let id = self.next_id();
        let length = self.buffer.len() - HEADROOM;
        let start = HEADROOM - ends.header_len();
        ends.write_header(&mut self.buffer[start..HEADROOM], protocol, TTL, id, length);
        &self.buffer[start..]
    }

    fn emit(&mut self, ends: Ends, protocol: IpNumber, mut emit: impl FnMut(&[u8])) {
        let length = self.buffer.len() - HEADROOM;
        match ends {
            Ends::V6(..) if Ipv6Header::LEN + length > self.mtu => {
                self.fragments(ends, protocol, emit);
            }
            _ => emit(self.whole(ends, protocol)),
        }
    }

    /// Cuts a message of IPv6. The headers of each fragment are written over the end of the one before, which is gone by
    /// then.
    fn fragments(&mut self, ends: Ends, protocol: IpNumber, mut emit: impl FnMut(&[u8])) {
        let id = self.next_id();
        let step = (self.mtu - HEADROOM) & !7;
        let length = self.buffer.len() - HEADROOM;
        for offset in (0..length).step_by(step) {
            let size = step.min(length - offset);
            // In units of 8 bytes; 65,535 of them fit 13 bits.
            let place = u16::try_from(offset / 8).unwrap_or(u16::MAX);
            let place = IpFragOffset::try_new(place).unwrap_or(IpFragOffset::ZERO);
            let last = offset + size == length;
            let fragment = Ipv6FragmentHeader::new(protocol, place, !last, id);
            let packet = &mut self.buffer[offset..offset + HEADROOM + size];
            let (header, rest) = packet.split_at_mut(Ipv6Header::LEN);
            let behind = Ipv6FragmentHeader::LEN + size;
            ends.write_header(header, IpNumber::IPV6_FRAGMENTATION_HEADER, TTL, 0, behind);
            rest[..Ipv6FragmentHeader::LEN].copy_from_slice(&fragment.to_bytes());
            emit(packet);
        }
    }

    fn next_id(&mut self) -> u32 {
        self.id = self.id.wrapping_add(1);
        self.id
    }
}
