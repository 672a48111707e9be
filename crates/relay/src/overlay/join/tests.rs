//! Cutting and joining: what comes out is what a network card would have made, and what goes in comes out again.

use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader, TcpSlice};
use sys::mmsg::Datagram;

use crate::overlay::cut::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, Offload};
use crate::overlay::frame::Segment;
use crate::overlay::join::Run;
use crate::overlay::{MAX_FINISHED, Unfinishable, Writer, finish};

const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 42, 0];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// What is in front of a datagram: Ethernet, IPv4, UDP.
const BEFORE: usize = 42;
/// Room for the datagram in a packet of IPv4.
const ROOM: usize = 65_507;

/// What differs between segments.
#[derive(Clone, Copy)]
struct Shape {
    v4: bool,
    vlan: bool,
    sequence: u32,
    flags: u8,
}

const PLAIN: Shape = Shape { v4: true, vlan: false, sequence: u32::MAX - 3000, flags: 0x10 };

fn content(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

/// A datagram of an overlay with a TCP segment.
fn segment(shape: Shape, payload: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(40_000, 80, shape.sequence, 501);
    tcp.acknowledgment_number = 77;
    // Timestamps, with what aligns them.
    tcp.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    let ethernet = PacketBuilder::ethernet2(MAC, MAC);
    let ethernet = if shape.vlan {
        let vlan = ethernet.single_vlan(7.try_into().unwrap());
        ip(vlan, shape.v4)
    } else if shape.v4 {
        ethernet.ip(etherparse::IpHeaders::Ipv4(v4(), Default::default()))
    } else {
        ethernet.ipv6([1; 16], [2; 16], 64)
    };
    let mut datagram = VXLAN.to_vec();
    ethernet.tcp_header(tcp).write(&mut datagram, payload).unwrap();
    let place = Segment::locate(&datagram).unwrap();
    datagram[place.tcp + 13] = shape.flags;
    // The flags went in behind the checksum.
    let repaired = {
        let mut whole = datagram.clone();
        whole[place.tcp + 16..place.tcp + 18].fill(0);
        place.pseudo_header(&whole, whole.len()).add_slice(&whole[place.tcp..]).ones_complement()
    };
    datagram[place.tcp + 16..place.tcp + 18].copy_from_slice(&repaired.to_ne_bytes());
    datagram
}

fn ip(
    vlan: etherparse::PacketBuilderStep<etherparse::VlanHeader>,
    is_v4: bool,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    if is_v4 {
        vlan.ip(etherparse::IpHeaders::Ipv4(v4(), Default::default()))
    } else {
        vlan.ipv6([1; 16], [2; 16], 64)
    }
}

fn v4() -> etherparse::Ipv4Header {
    etherparse::Ipv4Header {
        identification: 65_535,
        dont_fragment: true,
        time_to_live: 64,
        source: Ipv4Addr::new(10, 0, 1, 2).octets(),
        destination: Ipv4Addr::new(10, 0, 1, 3).octets(),
        ..Default::default()
    }
}

/// What the kernel leaves to a network card: the checksum is that of the pseudo header.
fn unfinished(mut datagram: Vec<u8>, size: u16) -> (Offload, Vec<u8>) {
    let place = Segment::locate(&datagram).unwrap();
    let pseudo = !place.pseudo_header(&datagram, datagram.len()).ones_complement();
    datagram[place.tcp + 16..place.tcp + 18].copy_from_slice(&pseudo.to_ne_bytes());
    (of_tcp(place, size), datagram)
}

/// What a packet socket says about it.
fn of_tcp(place: Segment, size: u16) -> Offload {
    Offload {
        flags: NEEDS_CSUM,
        kind: if place.v4 { GSO_TCPV4 } else { GSO_TCPV6 },
        size,
        checksum_start: u16::try_from(BEFORE + place.tcp).unwrap(),
        checksum_offset: 16,
    }
}

/// Cuts into datagrams.
fn cut(offload: Offload, datagram: &[u8]) -> Result<Vec<Vec<u8>>, Unfinishable> {
    let mut out = b"before".to_vec();
    let size = finish(offload, BEFORE, datagram, &mut out)?;
    assert_eq!(&out[..6], b"before");
    let all = &out[6..];
    Ok(all.chunks(size.unwrap_or(all.len())).map(<[u8]>::to_vec).collect())
}

/// Joins everything, as it arrives in the namespace.
fn join(datagrams: &[Vec<u8>]) -> (usize, [u8; 24], Vec<u8>) {
    let mut run = Run::begin(&datagrams[0]).unwrap();
    let taken = 1 + datagrams[1..].iter().take_while(|one| run.push(one, ROOM)).count();
    let (offload, mut whole) = (run.offload(BEFORE, true), run.headers());
    run.payloads().for_each(|payload| whole.extend_from_slice(payload));
    assert_eq!(whole.len(), run.len());
    (taken, offload, whole)
}

fn tcp_of(datagram: &[u8]) -> TcpSlice<'_> {
    TcpSlice::from_slice(&datagram[Segment::locate(datagram).unwrap().tcp..]).unwrap()
}

#[test]
fn a_long_segment_becomes_intact_ones_and_is_the_same_when_they_are_joined() {
    for v4 in [true, false] {
        for vlan in [true, false] {
            let shape = Shape { v4, vlan, flags: 0x18, ..PLAIN };
            for (length, count) in [(60_001, 43), (2800, 2), (2801, 3), (1400, 1), (1, 1)] {
                let (offload, long) = unfinished(segment(shape, &content(length)), 1400);
                let pieces = cut(offload, &long).unwrap();
                assert_eq!(pieces.len(), count, "{length}");
                for (index, piece) in pieces.iter().enumerate() {
                    let place = Segment::locate(piece).unwrap();
                    assert!(place.is_intact(piece), "{length} {index}");
                    let tcp = tcp_of(piece);
                    let sequence =
                        PLAIN.sequence.wrapping_add(1400 * u32::try_from(index).unwrap());
                    assert_eq!(tcp.sequence_number(), sequence);
                    assert_eq!(tcp.psh(), index + 1 == count, "only the last one pushes");
                }
                let (taken, again, whole) = join(&pieces);
                assert_eq!((taken, whole.len()), (count, long.len()));
                // The identification of IPv4 is that of the first one, as before.
                assert_eq!(whole, long, "{length}");
                let kind = offload.kind | 0x20;
                assert_eq!(again[..2], [1, kind], "{length}");
                let word = |at: usize| u16::from_le_bytes([again[at], again[at + 1]]);
                let size = u16::try_from(length.min(1400)).unwrap();
                assert_eq!((word(4), word(6), word(8)), (size, offload.checksum_start, 16));
                let place = Segment::locate(&long).unwrap();
                assert_eq!((word(20), usize::from(word(22))), (34, BEFORE + place.ip));
            }
        }
    }
}

#[test]
fn a_short_packet_gets_its_checksum_and_nothing_else() {
    for v4 in [true, false] {
        let right = segment(Shape { v4, ..PLAIN }, &content(101));
        let (offload, short) = unfinished(right.clone(), 0);
        let offload = Offload { kind: 0, ..offload };
        assert_eq!(cut(offload, &short), Ok(vec![right.clone()]));
        assert_eq!(cut(Offload::default(), &short), Ok(vec![short.clone()]), "finished, it says");
        // The checksum that is missing is the outer one.
        let outer = Offload { checksum_start: 34, checksum_offset: 6, ..offload };
        assert_eq!(cut(outer, &short), Ok(vec![short]));
    }
}

#[test]
fn what_cannot_be_finished_is_refused_and_leaves_nothing() {
    let (offload, long) = unfinished(segment(PLAIN, &content(60_000)), 1400);
    let udp = [&VXLAN[..], &[0; 12], &[8, 0], &[0x45], &[0; 40]].concat();
    for (offload, datagram) in [
        (Offload { size: 0, ..offload }, &long[..]),
        (Offload { size: 31, ..offload }, &long),
        (Offload { kind: 3, ..offload }, &long),
        (Offload { kind: 5, ..offload }, &long),
        (offload, &udp),
        (offload, b"short"),
        (offload, &long[..Segment::locate(&long).unwrap().payload]),
        (Offload { kind: 0, checksum_start: 65_000, ..offload }, &long[..200]),
        (Offload { kind: 0, checksum_offset: 65_000, ..offload }, &long[..200]),
    ] {
        assert_eq!(cut(offload, datagram), Err(Unfinishable), "{offload:?}");
    }
    // As small as Linux cuts.
    let smallest = cut(Offload { size: 88, ..offload }, &long).unwrap();
    assert!(smallest.iter().map(Vec::len).sum::<usize>() <= MAX_FINISHED);
}

/// The segment behind [`PLAIN`] with 1000 bytes.
fn next(change: impl FnOnce(&mut Shape)) -> Shape {
    let mut shape = Shape { sequence: PLAIN.sequence.wrapping_add(1000), ..PLAIN };
    change(&mut shape);
    shape
}

#[test]
fn only_what_continues_a_segment_is_joined_with_it() {
    let first = segment(PLAIN, &content(1000));
    let follows = |second: &[u8]| Run::begin(&first).unwrap().push(second, ROOM);
    let good = segment(next(|_| {}), &content(1000));
    assert!(follows(&good));
    assert!(follows(&segment(next(|shape| shape.flags = 0x18), &content(7))), "the last one");
    for (what, second) in [
        ("a gap", segment(next(|shape| shape.sequence += 1), &content(1000))),
        ("the end", segment(next(|shape| shape.flags = 0x11), &content(1000))),
        ("urgent", segment(next(|shape| shape.flags = 0x30), &content(1000))),
        ("longer", segment(next(|_| {}), &content(1001))),
        ("an acknowledgement", segment(next(|_| {}), &[])),
        ("another family", segment(next(|shape| shape.v4 = false), &content(1000))),
        ("a VLAN", segment(next(|shape| shape.vlan = true), &content(1000))),
        ("cut off", good[..good.len() - 1].to_vec()),
        ("with something behind", [&good[..], b"x"].concat()),
        ("nothing", Vec::new()),
    ] {
        assert!(!follows(&second), "{what}");
    }
    // Any other byte of the headers or of the payload.
    for at in 0..good.len() {
        let mut other = good.clone();
        other[at] ^= 0x55;
        assert!(!follows(&other), "byte {at}");
    }
    let mut run = Run::begin(&first).unwrap();
    assert!(!run.push(&good, first.len() + 999), "no room");
    assert!(run.push(&good, first.len() + 1000) && run.count() == 2);
    let short = segment(next(|_| {}), &content(999));
    let mut run = Run::begin(&first).unwrap();
    assert!(run.push(&short, ROOM), "a short one ends it");
    assert!(!run.push(&segment(next(|shape| shape.sequence += 999), &content(999)), ROOM));
}

#[test]
fn what_is_damaged_or_says_something_begins_no_run() {
    assert!(Run::begin(&segment(PLAIN, &content(10))).is_some());
    for flags in [0x02, 0x11, 0x14, 0x30, 0x50, 0x90] {
        let segment = segment(Shape { flags, ..PLAIN }, &content(10));
        assert!(Run::begin(&segment).is_none(), "{flags:#x}");
    }
    assert!(Run::begin(&segment(PLAIN, &[])).is_none());
    let mut damaged = segment(PLAIN, &content(10));
    *damaged.last_mut().unwrap() ^= 1;
    assert!(Run::begin(&damaged).is_none());
    let mut may_be_cut = segment(PLAIN, &content(10));
    let ip = Segment::locate(&may_be_cut).unwrap().ip;
    may_be_cut[ip + 6] = 0;
    assert!(Run::begin(&may_be_cut).is_none());
}

#[test]
fn runs_and_others_are_delivered_in_order() {
    let (mut read, write) = std::io::pipe().unwrap();
    let writer = Writer::new(write.into(), 1530);
    writer.learn(4789);
    let (offload, long) = unfinished(segment(PLAIN, &content(4200)), 1400);
    let pieces = cut(offload, &long).unwrap();
    let other = [&VXLAN[..], &[0; 12], &[8, 6], b"who has"].concat();
    let one = std::slice::from_ref(&other);
    let all = [one, &pieces, one, &pieces[..1]].concat();
    for ends in [("10.9.0.1:5", "10.0.2.100:4789"), ("[fd00::1]:5", "[fd00::100]:4789")] {
        let ends: (SocketAddr, SocketAddr) = (ends.0.parse().unwrap(), ends.1.parse().unwrap());
        let mut alone = Vec::new();
        let datagrams = all.iter().map(|data| Datagram::alone(data));
        let bytes = writer.deliver(ends, datagrams, |data| {
            alone.push(data.iter().map(|data| data.len()).collect::<Vec<_>>());
            data.iter().map(|data| data.len() as u64).sum()
        });
        assert_eq!(bytes, all.iter().map(|data| data.len() as u64).sum::<u64>());
        assert_eq!(alone, [vec![other.len()], vec![other.len(), pieces[0].len()]]);
        let before = if ends.0.is_ipv4() { BEFORE } else { BEFORE + 20 };
        let mut written = vec![0; 24 + before + long.len()];
        read.read_exact(&mut written).unwrap();
        let mut run = Run::begin(&pieces[0]).unwrap();
        assert!(pieces[1..].iter().all(|piece| run.push(piece, ROOM)));
        assert_eq!(written[..24], run.offload(before, ends.0.is_ipv4()));
        let ip = etherparse::IpSlice::from_slice(&written[24 + 14..]).unwrap();
        let (source, destination) = (ip.source_addr(), ip.destination_addr());
        assert_eq!((source, destination), (ends.0.ip(), ends.1.ip()));
        let udp = etherparse::UdpSlice::from_slice(ip.payload().payload).unwrap();
        assert_eq!((udp.source_port(), udp.destination_port()), (5, 4789));
        assert_eq!((udp.payload(), udp.checksum() != 0), (&long[..], ends.0.is_ipv6()));
    }
}

#[test]
fn segments_are_joined_only_for_links_that_fit_and_while_the_kernel_takes_them() {
    let (offload, long) = unfinished(segment(PLAIN, &content(2800)), 1400);
    let pieces = cut(offload, &long).unwrap();
    let alone = |writer: &Writer, port: u16| {
        let ends = ((Ipv4Addr::LOCALHOST, 1).into(), (Ipv4Addr::LOCALHOST, port).into());
        let mut count = 0;
        let datagrams = pieces.iter().map(|data| Datagram::alone(data));
        writer.deliver(ends, datagrams, |data| {
            count += data.len();
            0
        });
        count
    };
    let (_read, write) = std::io::pipe().unwrap();
    let writer = Writer::new(write.into(), 1530);
    assert_eq!(alone(&writer, 4789), 2, "perhaps a program");
    writer.learn(4789);
    assert_eq!((alone(&writer, 4789), alone(&writer, 4790)), (0, 2));
    let (_read, write) = std::io::pipe().unwrap();
    let narrow = Writer::new(write.into(), 1500);
    narrow.learn(4789);
    assert_eq!(alone(&narrow, 4789), 2, "1508 bytes with IP and UDP");
    let refuses = Writer::new(std::fs::File::open("/dev/null").unwrap().into(), 1530);
    refuses.learn(4789);
    assert_eq!((alone(&refuses, 4789), alone(&refuses, 4789)), (0, 2));
}

#[test]
fn a_mixed_pair_of_addresses_is_refused() {
    let (_read, write) = std::io::pipe().unwrap();
    let writer = Writer::new(write.into(), 1500);
    let ends = ((Ipv4Addr::LOCALHOST, 1).into(), (Ipv6Addr::LOCALHOST, 2).into());
    let data = segment(PLAIN, &content(10));
    assert_eq!(writer.deliver(ends, [Datagram::alone(&data)].into_iter(), |_| 1), 0);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_finished_or_refused_and_delivered_or_left_alone(
        offload: [u8; Offload::LEN],
        kind in 0..6u8,
        at in 0..120usize,
        bit in 0..8u8,
        length in 0..3000usize,
    ) {
        // One damaged bit of something sound, with whatever is to be done about it.
        let mut datagram = segment(PLAIN, &content(length));
        if let Some(byte) = datagram.get_mut(at) {
            *byte ^= 1 << bit;
        }
        let offload = Offload { kind, ..Offload::from_bytes(offload) };
        let mut out = Vec::new();
        let size = finish(offload, BEFORE, &datagram, &mut out);
        proptest::prop_assert!(size.is_ok() || out.is_empty());
        proptest::prop_assert!(out.len() <= MAX_FINISHED);
        if let Some(mut run) = Run::begin(&datagram) {
            run.push(&datagram, ROOM);
        }
    }
}
