//! Packets in pieces.

use std::time::Duration;

use super::*;

/// Cuts a packet as a router (IPv4) or sender (IPv6) would, at the given multiples of 8 bytes.
fn cut(packet: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let v4 = packet[0] >> 4 == 4;
    let header = if v4 { 20 } else { 40 };
    let data = &packet[header..];
    let mut places: Vec<usize> =
        cuts.iter().map(|place| place * 8).filter(|place| *place < data.len()).collect();
    places.extend([0, data.len()]);
    places.sort_unstable();
    places.dedup();
    places
        .windows(2)
        .map(|window| piece(packet, window[0]..window[1], window[1] != data.len()))
        .collect()
}

pub(super) fn piece(packet: &[u8], range: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let place = u16::try_from(range.start).unwrap();
    if packet[0] >> 4 == 4 {
        let mut piece = packet[..20].to_vec();
        let length = u16::try_from(20 + range.len()).unwrap();
        piece[2..4].copy_from_slice(&length.to_be_bytes());
        piece[6..8].copy_from_slice(&((place / 8) | (u16::from(more) << 13)).to_be_bytes());
        piece.extend(&packet[20..][range]);
        piece
    } else {
        let mut piece = packet[..40].to_vec();
        let length = u16::try_from(8 + range.len()).unwrap();
        piece[4..6].copy_from_slice(&length.to_be_bytes());
        piece[6] = 44;
        piece.extend([packet[6], 0]);
        piece.extend((place | u16::from(more)).to_be_bytes());
        piece.extend([0, 0, 0, 9]);
        piece.extend(&packet[40..][range]);
        piece
    }
}

fn add(reassembly: &mut Reassembly, now: Instant, packet: &[u8]) -> Option<Vec<u8>> {
    let Ok(Packet::Fragment(fragment)) = parse(packet) else { panic!("no fragment: {packet:?}") };
    reassembly.add(now, &fragment).map(<[u8]>::to_vec)
}

#[test]
fn fragments_made_here_are_understood_here() {
    let payload = numbers(60_000);
    let mut reassembly = Reassembly::new();
    let packets = udp_packets(1, &payload);
    let now = Instant::now();
    assert!(packets.iter().all(|packet| packet.len() <= 1500));
    let (last, others) = packets.split_last().unwrap();
    for packet in others {
        assert_eq!(add(&mut reassembly, now, packet), None);
    }
    let whole = add(&mut reassembly, now, last).unwrap();
    assert_checksums(&whole);
    let Ok(Packet::Udp(udp)) = parse(&whole) else { panic!("no UDP") };
    assert_eq!(udp.payload, payload);
    assert_eq!((udp.src, udp.dst), (at(HERE[1], 4000), at(THERE[1], 53)));
}

#[test]
fn impossible_fragments_are_refused() {
    for family in [0, 1] {
        let packet = udp_packet(family, &numbers(1000));
        assert_eq!(parse(&piece(&packet, 0..12, true)), Err(Bad::Fragment), "not a multiple of 8");
        assert_eq!(parse(&piece(&packet, 16..16, false)), Err(Bad::Fragment), "empty");
        let mut beyond = piece(&packet, 8..808, false);
        let place = [6, 42][family];
        beyond[place..place + 2].copy_from_slice(&[[0x1f, 0xff], [0xff, 0xf8]][family]);
        assert_eq!(parse(&beyond), Err(Bad::Fragment), "beyond 65,535 bytes");
    }
    // Only UDP and echo messages are put together.
    let mut tcp = piece(&udp_packet(0, &numbers(100)), 0..16, true);
    tcp[9] = 6;
    assert_eq!(parse(&tcp), Ok(Packet::Other));
}

#[test]
fn overlaps_lose_the_datagram_and_repetitions_do_not() {
    let now = Instant::now();
    for family in [0, 1] {
        let packet = udp_packet(family, &numbers(100));
        let size = packet.len() - [20, 40][family];
        let (first, second) = (piece(&packet, 0..48, true), piece(&packet, 48..size, false));

        let mut reassembly = Reassembly::new();
        assert_eq!(add(&mut reassembly, now, &first), None);
        assert_eq!(add(&mut reassembly, now, &first), None);
        assert_eq!(parse(&add(&mut reassembly, now, &second).unwrap()), parse(&packet));
        assert_eq!(reassembly.given_up(), 0);

        let mut other = first.clone();
        *other.last_mut().unwrap() ^= 1;
        for overlap in [
            piece(&packet, 40..size, false),
            piece(&packet, 40..56, true),
            piece(&packet, 40..48, false),
            other,
        ] {
            let mut reassembly = Reassembly::new();
            add(&mut reassembly, now, &first);
            assert_eq!(add(&mut reassembly, now, &overlap), None);
            assert_eq!(reassembly.given_up(), 1);
            // What still comes of it is swallowed.
            assert_eq!(add(&mut reassembly, now, &first), None);
            assert_eq!(add(&mut reassembly, now, &second), None);
            assert_eq!(reassembly.given_up(), 1);
        }

        // Something behind the end, found out either way round, and two ends.
        let end = piece(&packet, 48..56, false);
        for behind in [piece(&packet, 64..80, true), piece(&packet, 64..80, false)] {
            for pieces in [[&end, &behind], [&behind, &end]] {
                let mut reassembly = Reassembly::new();
                for piece in pieces {
                    assert_eq!(add(&mut reassembly, now, piece), None);
                }
                assert_eq!(reassembly.given_up(), 1);
                assert_eq!(add(&mut reassembly, now, &first), None);
            }
        }
    }
}

#[test]
fn reassembly_is_bounded_in_time_number_and_bytes() {
    let now = Instant::now();
    let packet = udp_packet(0, &numbers(60_000));
    let numbered = |id: u8, range: std::ops::Range<usize>, more| {
        let mut piece = piece(&packet, range, more);
        piece[4..6].copy_from_slice(&[0, id]);
        piece
    };
    let mut reassembly = Reassembly::new();
    add(&mut reassembly, now, &numbered(0, 0..8, true));
    reassembly.expire(now + Duration::from_millis(29_999));
    assert_eq!(reassembly.given_up(), 0);
    reassembly.expire(now + Duration::from_secs(30));
    assert_eq!(reassembly.given_up(), 1);

    for id in 0..65 {
        add(&mut reassembly, now, &numbered(id, 0..8, true));
    }
    assert_eq!(reassembly.given_up(), 2, "the 65th pushed the first out");

    // Each takes 60,000 bytes, of which 17 fit 1 MiB; what was there is older and goes first.
    let mut reassembly = Reassembly::new();
    for id in 0..18 {
        add(&mut reassembly, now, &numbered(id, 59_992..60_000, true));
    }
    assert_eq!(reassembly.given_up(), 1);

    // Every other piece: more and more gaps.
    let mut reassembly = Reassembly::new();
    for number in 0..65 {
        add(&mut reassembly, now, &numbered(0, number * 16..number * 16 + 8, true));
    }
    assert_eq!(reassembly.given_up(), 1);
}

proptest! {
    #[test]
    fn fragments_in_any_order_give_the_datagram_once(
        family in 0..2usize,
        length in 17..1400usize,
        cuts in proptest::collection::vec(1..170usize, 1..30),
        (order, again) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        seed: u64,
    ) {
        let packet = udp_packet(family, &numbers(length));
        let mut pieces = cut(&packet, &cuts);
        prop_assume!(pieces.len() > 1);
        // A shuffle that the seed decides, and one fragment twice.
        pieces.sort_by_key(|piece| piece.iter().fold(seed, |sum, byte| sum.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte)));
        let twice = pieces[again.index(pieces.len())].clone();
        pieces.insert(order.index(pieces.len()), twice);
        let mut reassembly = Reassembly::new();
        let now = Instant::now();
        let whole: Vec<Vec<u8>> = pieces.iter().filter_map(|piece| add(&mut reassembly, now, piece)).collect();
        prop_assert_eq!(whole.len(), 1);
        prop_assert_eq!(parse(&whole[0]), parse(&packet));
        assert_checksums(&whole[0]);
    }

    #[test]
    fn fragments_that_may_overlap_give_the_datagram_or_nothing(
        family in 0..2usize,
        ranges in proptest::collection::vec((0..14usize, 1..14usize, any::<bool>()), 1..40),
    ) {
        let packet = udp_packet(family, &numbers(104));
        let mut reassembly = Reassembly::new();
        let now = Instant::now();
        for (start, size, lie) in ranges {
            let end = (start + size).min(14);
            let mut piece = piece(&packet, start * 8..end * 8, end < 14);
            if lie {
                *piece.last_mut().unwrap() ^= 1;
            }
            if start == 0 && end == 14 {
                continue;
            }
            if let Some(whole) = add(&mut reassembly, now, &piece) {
                // A lie that nothing contradicted is as good as the truth; sizes and ends must be right.
                prop_assert_eq!(whole.len(), packet.len());
                prop_assert_eq!(locate(&whole).unwrap().dst, ip(THERE[family]));
            }
        }
    }
}
