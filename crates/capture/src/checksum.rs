//! Checksums of TCP and UDP that a sender left to the network card.
//!
//! Between programs of one machine there is no network card, so nobody computes them: a packet from a container has a
//! checksum of its pseudo header only, and Wireshark would call it wrong. The kernel says which packets these are
//! (`PACKET_AUXDATA`, packet(7)); what a sender got wrong itself stays wrong.
//!
//! Only the outermost IP header counts. What is inside of a tunnel keeps what it has, and so does SCTP, which has a
//! checksum of another kind.

use etherparse::checksum::Sum16BitWords;

const ETHERNET: usize = 14;
const TYPE_V4: [u8; 2] = [0x08, 0x00];
const TYPE_V6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Finishes the checksum of an Ethernet frame. One that is not there as a whole, is a fragment, or is no TCP or UDP
/// stays as it is.
pub fn finish(frame: &mut [u8]) {
    if let Some(place) = place(frame)
        && let Some(segment) = frame.get_mut(place.begin..place.end)
        && let Some(field) = place.field.checked_sub(place.begin)
        && let Some([one, two]) = segment.get_mut(field..field + 2)
    {
        // UDP without a checksum, as tunnels send it.
        if place.protocol == UDP && (*one, *two) == (0, 0) {
            return;
        }
        (*one, *two) = (0, 0);
        let sum = place.pseudo_header.add_slice(segment);
        // 0 means none in UDP, and the other zero is as good in TCP.
        let sum = sum.to_ones_complement_with_no_zero().to_ne_bytes();
        segment[field..field + 2].copy_from_slice(&sum);
    }
}

/// Where the transport protocol is in a frame.
struct Place {
    protocol: u8,
    begin: usize,
    end: usize,
    field: usize,
    pseudo_header: Sum16BitWords,
}

fn place(frame: &[u8]) -> Option<Place> {
    let packet = frame.get(ETHERNET..)?;
    let kind: [u8; 2] = frame.get(12..14)?.try_into().ok()?;
    let (protocol, header, length, addresses) = match kind {
        TYPE_V4 => v4(packet)?,
        TYPE_V6 => v6(packet)?,
        _ => return None,
    };
    let begin = ETHERNET + header;
    let field = match protocol {
        TCP => begin + 16,
        UDP => begin + 6,
        _ => return None,
    };
    let size = u32::try_from(length.checked_sub(header)?).ok()?;
    let mut pseudo_header = Sum16BitWords::new().add_slice(addresses);
    pseudo_header = pseudo_header.add_4bytes(size.to_be_bytes());
    pseudo_header = pseudo_header.add_2bytes([0, protocol]);
    Some(Place { protocol, begin, end: ETHERNET + length, field, pseudo_header })
}

/// Protocol, length of the headers, length of the packet, both addresses.
type Parts<'a> = (u8, usize, usize, &'a [u8]);

fn v4(packet: &[u8]) -> Option<Parts<'_>> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let length = usize::from(half(packet, 2)?);
    // More fragments, or the offset of one.
    let whole = half(packet, 6)? & 0x3fff == 0;
    (whole && header >= 20).then_some(())?;
    Some((*packet.get(9)?, header, length, packet.get(12..20)?))
}

fn v6(packet: &[u8]) -> Option<Parts<'_>> {
    let length = 40 + usize::from(half(packet, 4)?);
    let (mut protocol, mut header) = (*packet.get(6)?, 40);
    loop {
        let next = packet.get(header..)?;
        match protocol {
            // Hop-by-hop options, destination options: RFC 8200. With a routing header, another address counts.
            0 | 60 => {
                protocol = *next.first()?;
                header += (usize::from(*next.get(1)?) + 1) * 8;
            }
            _ => return Some((protocol, header, length, packet.get(8..40)?)),
        }
    }
}

fn half(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    /// A right frame, and where its checksum is.
    fn frame(v6: bool, udp: bool, payload: &[u8]) -> (Vec<u8>, usize) {
        let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let ip = if v6 {
            ethernet.ipv6([7; 16], [9; 16], 64)
        } else {
            ethernet.ipv4([172, 17, 0, 2], [192, 0, 2, 1], 64)
        };
        let mut out = Vec::new();
        if udp {
            ip.udp(1000, 53).write(&mut out, payload).unwrap();
        } else {
            ip.tcp(1000, 80, 77, 500).write(&mut out, payload).unwrap();
        }
        let transport = ETHERNET + if v6 { 40 } else { 20 };
        (out, transport + if udp { 6 } else { 16 })
    }

    proptest! {
        #[test]
        fn an_unfinished_checksum_becomes_the_right_one(
            v6: bool, udp: bool, unfinished in 1..u16::MAX,
            payload in prop::collection::vec(any::<u8>(), 0..200), padding in 0..3usize,
        ) {
            let (mut right, field) = frame(v6, udp, &payload);
            // Behind a packet that is shorter than the smallest frame.
            right.resize(right.len() + padding, 0xee);
            let mut found = right.clone();
            found[field..field + 2].copy_from_slice(&unfinished.to_be_bytes());
            finish(&mut found);
            prop_assert_eq!(found, right);
        }

        #[test]
        fn any_frame_is_finished_or_left(
            mut frame in prop::collection::vec(any::<u8>(), 0..100), kind in 0..2usize,
        ) {
            if let Some(place) = frame.get_mut(12..14) {
                place.copy_from_slice(&[TYPE_V4, TYPE_V6][kind]);
            }
            let before = frame.clone();
            finish(&mut frame);
            let changed: Vec<usize> =
                (0..frame.len()).filter(|at| frame[*at] != before[*at]).collect();
            // The field of the checksum at most.
            if let [first, .., last] = changed[..] {
                prop_assert!(last == first + 1 && changed.len() == 2, "{changed:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_or_a_fragment_or_has_none_stays_as_it_is() {
        let (whole, field) = frame(false, true, b"payload");
        let same = |mut frame: Vec<u8>| {
            let before = frame.clone();
            finish(&mut frame);
            frame == before
        };
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut frame = whole.clone();
            frame[field] ^= 0x55;
            change(&mut frame);
            frame
        };
        assert!(!same(changed(|_| {})));
        assert!(same(changed(|frame| frame.truncate(frame.len() - 1))));
        assert!(same(changed(|frame| frame[ETHERNET + 6] = 0x20)), "the first fragment");
        assert!(same(changed(|frame| frame[ETHERNET + 7] = 1)), "another fragment");
        assert!(same(changed(|frame| frame[ETHERNET + 9] = 132)), "SCTP");
        assert!(same(changed(|frame| frame[12] = 9)), "no IP");
        let mut none = whole.clone();
        none[field..field + 2].fill(0);
        assert!(same(none), "UDP without a checksum");
    }

    #[test]
    fn options_are_passed_by() {
        let (mut v6, _) = frame(true, false, b"payload");
        // Destination options, of 16 bytes.
        v6[ETHERNET + 6] = 60;
        v6.splice(ETHERNET + 40..ETHERNET + 40, [6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let length = u16::try_from(v6.len() - ETHERNET - 40).unwrap();
        v6[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
        v6[ETHERNET + 56 + 16] ^= 0xff;
        finish(&mut v6);
        let mut v4 = frame(false, false, b"odd").0;
        v4[ETHERNET] = 0x46;
        v4.splice(ETHERNET + 20..ETHERNET + 20, [1; 4]);
        let length = u16::try_from(v4.len() - ETHERNET).unwrap();
        v4[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&length.to_be_bytes());
        v4[ETHERNET + 24 + 16] ^= 0xff;
        finish(&mut v4);
        let sliced = SlicedPacket::from_ethernet(&v6).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("{sliced:?}") };
        assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6([7; 16], [9; 16]).unwrap());
        let sliced = SlicedPacket::from_ethernet(&v4).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("{sliced:?}") };
        let right = tcp.calc_checksum_ipv4([172, 17, 0, 2], [192, 0, 2, 1]).unwrap();
        assert_eq!(tcp.checksum(), right);
    }
}
