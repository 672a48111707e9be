//! Packets for the namespace: datagrams, echo replies and resets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, TcpHeader};

use super::Syn;

/// Room in front of a message for the headers of IPv6 and its fragments. IPv4's are written into its end.
pub(super) const HEADROOM: usize = Ipv6Header::LEN + Ipv6FragmentHeader::LEN;
/// MTU that every IPv6 link has at least (RFC 8200, section 5).
const MIN_MTU_V6: usize = 1280;
/// Time to live and hop limit of what is made here (RFC 1700's default, as Linux').
const TTL: u8 = 64;
/// Type of an ICMP echo reply (RFC 792).
const ECHO_REPLY: u8 = 0;
/// Type of an ICMPv6 echo reply (RFC 4443, section 4.2).
const ECHO_REPLY_V6: u8 = 129;

/// Why a packet cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbuildable {
    /// One address is IPv4, another is IPv6.
    Family,
    /// The payload does not fit one datagram.
    TooLong,
    /// No error may be sent about such a packet (RFC 1122, section 3.2.2; RFC 4443, section 2.4 e).
    Silent,
}

impl fmt::Display for Unbuildable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Family => "addresses of different families in one packet",
            Self::TooLong => "the payload is too large for a datagram",
            Self::Silent => "no ICMP error may answer this packet",
        })
    }
}

impl std::error::Error for Unbuildable {}

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

    /// ICMP's protocol number in this family.
    pub(super) fn icmp(self) -> IpNumber {
        match self {
            Self::V4(..) => IpNumber::ICMP,
            Self::V6(..) => IpNumber::IPV6_ICMP,
        }
    }

    /// Most bytes behind the IP header. In IPv6 they count without it.
    fn room(self) -> usize {
        match self {
            Self::V4(..) => usize::from(u16::MAX) - Ipv4Header::MIN_LEN,
            Self::V6(..) => usize::from(u16::MAX),
        }
    }
}

/// Makes packets, one after the other in one buffer.
///
/// IPv4 packets are made whole and without "don't fragment": the namespace's kernel cuts them on their way out. It must
/// not do so with IPv6, so those that exceed the MTU are cut here.
#[derive(Debug)]
pub struct Builder {
    /// [`HEADROOM`], then a message of the layer above IP.
    pub(super) buffer: Vec<u8>,
    mtu: usize,
    id: u32,
}

impl Builder {
    /// `mtu` is the one of the link that the packets will cross, in bytes (less than 1280 counts as 1280).
    /// `seed` is where identifications of packets start: any number that differs between runs.
    #[must_use]
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
        let mut header = [0; 8];
        header[..2].copy_from_slice(&src.port().to_be_bytes());
        header[2..4].copy_from_slice(&dst.port().to_be_bytes());
        header[4..6].copy_from_slice(&length.to_be_bytes());
        self.message(ends, &header, payload)?;
        self.seal(ends, IpNumber::UDP, 6);
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
        let mut header = [0; 8];
        header[0] = if src.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
        header[4..6].copy_from_slice(&id.to_be_bytes());
        header[6..].copy_from_slice(&seq.to_be_bytes());
        self.message(ends, &header, payload)?;
        self.seal(ends, ends.icmp(), 2);
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
        self.message(ends, &header.to_bytes(), &[])?;
        self.seal(ends, IpNumber::TCP, 16);
        Ok(self.whole(ends, IpNumber::TCP))
    }

    /// Puts a message into the buffer, behind the headroom.
    pub(super) fn message(
        &mut self,
        ends: Ends,
        header: &[u8],
        body: &[u8],
    ) -> Result<(), Unbuildable> {
        if header.len() + body.len() > ends.room() {
            return Err(Unbuildable::TooLong);
        }
        self.buffer.clear();
        self.buffer.resize(HEADROOM, 0);
        self.buffer.extend_from_slice(header);
        self.buffer.extend_from_slice(body);
        Ok(())
    }

    /// Writes the message's checksum to its place in the message, which holds zeros.
    pub(super) fn seal(&mut self, ends: Ends, protocol: IpNumber, at: usize) {
        let message = &self.buffer[HEADROOM..];
        // No message is longer than `Ends::room`.
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        let message = Sum16BitWords::new().add_slice(message);
        // The pseudo header, in no particular order: a sum does not depend on it.
        let (source, destination) = match &ends {
            Ends::V4(src, dst) => (&src.octets()[..], &dst.octets()[..]),
            Ends::V6(src, dst) => (&src.octets()[..], &dst.octets()[..]),
        };
        let sum = if protocol == IpNumber::ICMP {
            message
        } else {
            message
                .add_slice(source)
                .add_slice(destination)
                .add_2bytes([0, protocol.0])
                .add_2bytes(length.to_be_bytes())
        };
        // Zero means "none" for UDP, and for UDP only.
        let checksum = if protocol == IpNumber::UDP {
            sum.to_ones_complement_with_no_zero()
        } else {
            sum.ones_complement()
        };
        // The sum is kept in the order of the bytes in memory.
        self.buffer[HEADROOM + at..HEADROOM + at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }

    /// The message as one packet, whatever its size.
    pub(super) fn whole(&mut self, ends: Ends, protocol: IpNumber) -> &[u8] {
        let start = match ends {
            Ends::V4(src, dst) => {
                let id = self.next_id();
                let length = self.buffer.len() - HEADROOM;
                let header = header_v4(src, dst, protocol, length, id);
                let start = HEADROOM - header.len();
                self.buffer[start..HEADROOM].copy_from_slice(&header);
                start
            }
            Ends::V6(src, dst) => {
                let start = HEADROOM - Ipv6Header::LEN;
                let header = header_v6(src, dst, protocol, self.buffer.len() - HEADROOM);
                self.buffer[start..HEADROOM].copy_from_slice(&header);
                start
            }
        };
        &self.buffer[start..]
    }

    fn emit(&mut self, ends: Ends, protocol: IpNumber, mut emit: impl FnMut(&[u8])) {
        let length = self.buffer.len() - HEADROOM;
        match ends {
            Ends::V6(src, dst) if Ipv6Header::LEN + length > self.mtu => {
                let id = self.next_id();
                self.fragments(src, dst, protocol, id, emit);
            }
            _ => emit(self.whole(ends, protocol)),
        }
    }

    /// Cuts the message. The headers of each fragment are written over the end of the one before, which is gone by
    /// then.
    fn fragments(
        &mut self,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        protocol: IpNumber,
        id: u32,
        mut emit: impl FnMut(&[u8]),
    ) {
        let step = (self.mtu - HEADROOM) & !7;
        let length = self.buffer.len() - HEADROOM;
        for offset in (0..length).step_by(step) {
            let size = step.min(length - offset);
            // In units of 8 bytes; 65,535 of them fit 13 bits.
            let place = u16::try_from(offset / 8).unwrap_or(u16::MAX);
            let place = IpFragOffset::try_new(place).unwrap_or(IpFragOffset::ZERO);
            let last = offset + size == length;
            let fragment = Ipv6FragmentHeader::new(protocol, place, !last, id);
            let outer = header_v6(
                src,
                dst,
                IpNumber::IPV6_FRAGMENTATION_HEADER,
                Ipv6FragmentHeader::LEN + size,
            );
            let packet = &mut self.buffer[offset..offset + HEADROOM + size];
            packet[..outer.len()].copy_from_slice(&outer);
            packet[outer.len()..HEADROOM].copy_from_slice(&fragment.to_bytes());
            emit(packet);
        }
    }

    fn next_id(&mut self) -> u32 {
        self.id = self.id.wrapping_add(1);
        self.id
    }
}

/// The header of an IPv4 packet with `length` bytes behind it.
pub(super) fn header_v4(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: IpNumber,
    length: usize,
    id: u32,
) -> [u8; Ipv4Header::MIN_LEN] {
    let [_, _, i0, i1] = id.to_be_bytes();
    let mut header = Ipv4Header {
        total_len: u16::try_from(Ipv4Header::MIN_LEN + length).unwrap_or(u16::MAX),
        identification: u16::from_be_bytes([i0, i1]),
        dont_fragment: false,
        time_to_live: TTL,
        protocol,
        source: src.octets(),
        destination: dst.octets(),
        ..Default::default()
    };
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = [0; Ipv4Header::MIN_LEN];
    // There are no options, so it is that long.
    for (byte, made) in bytes.iter_mut().zip(header.to_bytes()) {
        *byte = made;
    }
    bytes
}

/// The header of an IPv6 packet with `length` bytes behind it.
pub(super) fn header_v6(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    protocol: IpNumber,
    length: usize,
) -> [u8; Ipv6Header::LEN] {
    let header = Ipv6Header {
        payload_length: u16::try_from(length).unwrap_or(u16::MAX),
        next_header: protocol,
        hop_limit: TTL,
        source: src.octets(),
        destination: dst.octets(),
        ..Default::default()
    };
    header.to_bytes()
}
