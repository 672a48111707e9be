//! Packets made, cut, mutilated and taken apart again.
//!
//! The file is long because its tests share the packets that they start from.

use std::time::Instant;

use etherparse::{Icmpv4Slice, Icmpv6Slice, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice};
use proptest::prelude::*;

use super::*;

mod fragments;

use fragments::piece;

const HERE: [&str; 2] = ["10.0.2.100", "fd00::100"];
const THERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

fn udp_packets(family: usize, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let (src, dst) = (at(HERE[family], 4000), at(THERE[family], 53));
    Builder::new(1500, 7).udp(src, dst, payload, |packet| packets.push(packet.to_vec())).unwrap();
    packets
}

fn udp_packet(family: usize, payload: &[u8]) -> Vec<u8> {
    let packets = udp_packets(family, payload);
    assert_eq!(packets.len(), 1);
    packets.into_iter().next().unwrap()
}

/// Replies made here are requests with another type, which the checksum has to follow.
fn echo_packet(family: usize, payload: &[u8]) -> Vec<u8> {
    let mut packets = Vec::new();
    Builder::new(1500, 7)
        .echo_reply(ip(HERE[family]), ip(THERE[family]), (3, 4), payload, |packet| {
            packets.push(packet.to_vec());
        })
        .unwrap();
    assert_eq!(packets.len(), 1);
    let mut packet = packets.remove(0);
    let start = [20, 40][family];
    assert_eq!(packet[start], [0, 129][family]);
    packet[start] = [8, 128][family];
    packet
}

fn syn_packet(family: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let start = [20, 40][family];
    packet.extend_from_slice(&udp_packet(family, &[0; 12])[..start]);
    packet[[9, 6][family]] = 6;
    packet
        .extend([0x0f, 0xa0, 0, 80, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
    packet
}

fn numbers(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Both IP checksums and the one of the layer above, calculated by functions that the builder does not use.
fn assert_checksums(packet: &[u8]) {
    let located = locate(packet).unwrap();
    assert_eq!(located.whole.len(), packet.len());
    let (protocol, data) = (located.protocol, located.data);
    if packet[0] >> 4 == 4 {
        let header = Ipv4HeaderSlice::from_slice(packet).unwrap();
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        let ends = (header.source(), header.destination());
        let (made, right) = match protocol {
            IpNumber::UDP => {
                let udp = UdpHeaderSlice::from_slice(data).unwrap().to_header();
                (udp.checksum, udp.calc_checksum_ipv4_raw(ends.0, ends.1, &data[8..]).unwrap())
            }
            IpNumber::TCP => {
                let tcp = TcpSlice::from_slice(data).unwrap();
                let header = tcp.to_header();
                (
                    tcp.checksum(),
                    header.calc_checksum_ipv4_raw(ends.0, ends.1, tcp.payload()).unwrap(),
                )
            }
            _ => {
                let icmp = Icmpv4Slice::from_slice(data).unwrap();
                (icmp.checksum(), icmp.header().icmp_type.calc_checksum(icmp.payload()))
            }
        };
        assert_eq!(made, right);
    } else {
        let header = Ipv6HeaderSlice::from_slice(packet).unwrap();
        let ends = (header.source(), header.destination());
        let (made, right) = match protocol {
            IpNumber::UDP => {
                let udp = UdpHeaderSlice::from_slice(data).unwrap().to_header();
                (udp.checksum, udp.calc_checksum_ipv6_raw(ends.0, ends.1, &data[8..]).unwrap())
            }
            IpNumber::TCP => {
                let tcp = TcpSlice::from_slice(data).unwrap();
                let header = tcp.to_header();
                (
                    tcp.checksum(),
                    header.calc_checksum_ipv6_raw(ends.0, ends.1, tcp.payload()).unwrap(),
                )
            }
            _ => {
                let icmp = Icmpv6Slice::from_slice(data).unwrap();
                assert!(icmp.is_checksum_valid(ends.0, ends.1));
                (0, 0)
            }
        };
        assert_eq!(made, right);
    }
}

#[test]
fn syn_is_only_what_starts_a_connection() {
    for family in [0, 1] {
        let mut packet = syn_packet(family);
        let (src, dst) = (at(HERE[family], 4000), at(THERE[family], 80));
        assert_eq!(parse(&packet), Ok(Packet::Syn(Syn { src, dst, seq: u32::MAX })));
        let flags = packet.len() - 7;
        // ECN's bits may be set (RFC 3168).
        for (value, starts) in
            [(0xc2, true), (0x12, false), (0x06, false), (0x03, false), (0x10, false), (0, false)]
        {
            packet[flags] = value;
            assert_eq!(matches!(parse(&packet), Ok(Packet::Syn(_))), starts, "{value:#x}");
        }
    }
}

#[test]
fn a_reset_answers_its_syn() {
    for family in [0, 1] {
        let Ok(Packet::Syn(syn)) = parse(&syn_packet(family)) else { panic!("no SYN") };
        let mut builder = Builder::new(1500, 0);
        let packet = builder.tcp_reset(&syn).unwrap();
        assert_checksums(packet);
        let located = locate(packet).unwrap();
        let tcp = TcpSlice::from_slice(located.data).unwrap();
        assert_eq!((located.src, tcp.source_port()), (syn.dst.ip(), syn.dst.port()));
        assert_eq!((located.dst, tcp.destination_port()), (syn.src.ip(), syn.src.port()));
        assert!(tcp.rst() && tcp.ack() && !tcp.syn());
        // The sequence number of the SYN is the last one before it wraps around.
        assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (0, 0));
        let mixed = Syn { src: at(HERE[0], 1), dst: at(THERE[1], 1), seq: 0 };
        assert_eq!(builder.tcp_reset(&mixed), Err(Unbuildable::Family));
    }
}

#[test]
fn lengths_are_held_to_the_packet() {
    for family in [0, 1] {
        for whole in
            [udp_packet(family, b"hello"), echo_packet(family, b"hello"), syn_packet(family)]
        {
            for length in 0..whole.len() {
                assert_eq!(
                    parse(&whole[..length]),
                    Err(Bad::Length),
                    "{length} of {}",
                    whole.len()
                );
            }
            let mut trailed = whole.clone();
            trailed.extend([0; 9]);
            assert_eq!(parse(&trailed), parse(&whole));
        }
        let mut packet = udp_packet(family, b"hello");
        let length = [24, 44][family] + 1;
        for (value, good) in
            [(13, true), (12, true), (8, true), (7, false), (0, false), (14, false)]
        {
            packet[length] = value;
            assert_eq!(parse(&packet).is_ok(), good, "UDP length {value}");
        }
    }
    assert_eq!(parse(&[0x50; 40]), Err(Bad::Version));
}

#[test]
fn options_and_extension_headers_are_skipped() {
    let plain = udp_packet(0, b"hello");
    let mut options = plain.clone();
    options.splice(20..20, [1; 8]);
    options[0] = 0x47;
    options[3] += 8;
    assert_eq!(parse(&options), parse(&plain));

    let plain = udp_packet(1, b"hello");
    let extended = |headers: &[[u8; 8]], first: u8| {
        let mut packet = plain.clone();
        packet.splice(40..40, headers.concat());
        packet[6] = first;
        packet[5] += u8::try_from(8 * headers.len()).unwrap();
        packet
    };
    // Hop-by-hop, destination options, routing with nothing left, a fragment that is whole.
    let chain = [
        [60, 0, 1, 4, 0, 0, 0, 0],
        [43, 0, 1, 4, 0, 0, 0, 0],
        [44, 0, 0, 0, 0, 0, 0, 0],
        [17, 0, 0, 0, 0, 0, 0, 9],
    ];
    assert_eq!(parse(&extended(&chain, 0)), parse(&plain));
    assert_eq!(
        parse(&extended(&[[17, 0, 4, 1, 0, 0, 0, 0]], 43)),
        Ok(Packet::Other),
        "a stop is left"
    );
    assert_eq!(parse(&extended(&[[17, 9, 1, 4, 0, 0, 0, 0]], 60)), Err(Bad::Length));
    assert_eq!(parse(&extended(&[[60, 0, 1, 4, 0, 0, 0, 0]; 20], 60)), Err(Bad::Extensions));
    assert_eq!(
        parse(&extended(&[[17, 0, 0, 0, 0, 0, 0, 0]], 51)),
        Ok(Packet::Other),
        "authentication"
    );
}

#[test]
fn sources_that_are_no_host_are_refused() {
    for source in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "::ffff:10.0.2.100",
    ] {
        let source = ip(source);
        let mut packet = udp_packet(usize::from(source.is_ipv6()), b"");
        match source {
            IpAddr::V4(v4) => packet[12..16].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => packet[8..24].copy_from_slice(&v6.octets()),
        }
        assert_eq!(parse(&packet), Err(Bad::Source), "{source}");
    }
}

#[test]
fn the_largest_datagrams_fit_and_no_larger_ones() {
    for (family, largest) in [(0, 65_507), (1, 65_527)] {
        let mut builder = Builder::new(1500, 0);
        let (src, dst) = (at(HERE[family], 1), at(THERE[family], 2));
        let mut packets = 0;
        builder.udp(src, dst, &vec![0; largest], |_| packets += 1).unwrap();
        assert_eq!(packets, [1, 46][family]);
        let too_long = vec![0; largest + 1];
        assert_eq!(
            builder.udp(src, dst, &too_long, |_| panic!("emitted")),
            Err(Unbuildable::TooLong)
        );
        let (src, dst) = (src.ip(), dst.ip());
        assert_eq!(
            builder.echo_reply(src, dst, (1, 1), &too_long, |_| panic!("emitted")),
            Err(Unbuildable::TooLong)
        );
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ones() {
    // The last two bytes make the sum come out as zero.
    let mut packet = udp_packet(0, &[0, 0]);
    let sum = [packet[26], packet[27]];
    packet = udp_packet(0, &sum);
    assert_eq!(packet[26..28], [0xff, 0xff]);
    assert_checksums(&packet);
}

/// What each kind is in ICMP and in ICMPv6: type and code.
const KINDS: [(Unreachable, [(u8, u8); 2]); 7] = [
    (Unreachable::Net, [(3, 0), (1, 0)]),
    (Unreachable::Host, [(3, 1), (1, 3)]),
    (Unreachable::Port, [(3, 3), (1, 4)]),
    (Unreachable::Protocol, [(3, 2), (4, 1)]),
    (Unreachable::Prohibited, [(3, 13), (1, 1)]),
    (Unreachable::TooBig(1400), [(3, 4), (2, 0)]),
    (Unreachable::TimeExceeded, [(11, 0), (3, 0)]),
];

#[test]
fn errors_quote_what_was_sent() {
    for family in [0, 1] {
        let original = udp_packet(family, &numbers(1400));
        let rebuilt = Original::Udp { src: at(HERE[family], 4000), dst: at(THERE[family], 53) };
        for (kind, codes) in KINDS {
            for (original_form, limit) in
                [(Original::Packet(&original), [576, 1280][family]), (rebuilt, [56, 96][family])]
            {
                let mut builder = Builder::new(1500, 0);
                let packet = builder.unreachable(kind, ip(THERE[family]), &original_form).unwrap();
                assert_checksums(packet);
                assert_eq!(packet.len(), limit);
                let located = locate(packet).unwrap();
                assert_eq!((located.src, located.dst), (ip(THERE[family]), ip(HERE[family])));
                assert_eq!((located.data[0], located.data[1]), codes[family]);
                let value = u32::from_be_bytes(*located.data[4..].first_chunk().unwrap());
                let expected = match kind {
                    Unreachable::TooBig(mtu) => mtu,
                    Unreachable::Protocol if family == 1 => 6,
                    _ => 0,
                };
                assert_eq!(value, expected);
                // Addresses, protocol and ports are the original's.
                let quote = &located.data[8..];
                let ports = [20, 40][family];
                assert_eq!(quote[ports..ports + 4], original[ports..ports + 4]);
                assert_eq!(quote[[9, 6][family]], 17);
                let addresses = [12..20, 8..40][family].clone();
                assert_eq!(quote[addresses.clone()], original[addresses]);
                if family == 0 {
                    let inner = Ipv4HeaderSlice::from_slice(quote).unwrap();
                    assert_eq!(inner.header_checksum(), inner.to_header().calc_header_checksum());
                }
            }
        }
    }
}

#[test]
fn rebuilt_quotes_have_what_receivers_look_for() {
    for family in [0, 1] {
        let (src, dst) = (at(HERE[family], 4000), at(THERE[family], 80));
        let mut builder = Builder::new(1500, 0);
        let start = [20 + 8 + 20, 40 + 8 + 40][family];
        let echo = Original::Echo { src: src.ip(), dst: dst.ip(), id: 3, seq: 4 };
        let packet = builder.unreachable(Unreachable::Host, dst.ip(), &echo).unwrap();
        assert_eq!(packet[start..], [[8, 128][family], 0, 0, 0, 0, 3, 0, 4]);
    }
}

#[test]
fn a_parameter_problem_points_at_the_byte_that_names_the_protocol() {
    let mut packet = udp_packet(1, b"hello");
    packet.splice(40..40, [[60, 0, 1, 4, 0, 0, 0, 0], [132, 0, 1, 4, 0, 0, 0, 0]].concat());
    packet[6] = 0;
    packet[5] += 16;
    let mut builder = Builder::new(1500, 0);
    let original = Original::Packet(&packet);
    let error = builder.unreachable(Unreachable::Protocol, ip(THERE[1]), &original).unwrap();
    assert_eq!(error[40..42], [4, 1]);
    assert_eq!(error[44..48], [0, 0, 0, 48]);
}

#[test]
fn no_errors_about_errors_groups_and_later_fragments() {
    let mut builder = Builder::new(1500, 0);
    let mut silent = |packet: &[u8], source: &str| {
        builder.unreachable(Unreachable::Host, ip(source), &Original::Packet(packet)).err()
    };
    for family in [0, 1] {
        let request = echo_packet(family, b"");
        assert_eq!(silent(&request, THERE[family]), None);
        assert_eq!(silent(&request, THERE[1 - family]), Some(Unbuildable::Family));
        let mut error = request.clone();
        error[[20, 40][family]] = [3, 1][family];
        assert_eq!(silent(&error, THERE[family]), Some(Unbuildable::Silent));
        assert_eq!(silent(&request[..request.len() - 1], THERE[family]), Some(Unbuildable::Silent));
    }
    let mut group = udp_packet(0, b"");
    group[16] = 224;
    assert_eq!(silent(&group, THERE[0]), Some(Unbuildable::Silent));
    let fragments = udp_packets(1, &numbers(3000));
    assert_eq!(silent(&fragments[0], THERE[1]), None);
    assert_eq!(silent(&fragments[1], THERE[1]), Some(Unbuildable::Silent));
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => (0usize..5000).prop_map(numbers),
    ]
}

#[test]
fn what_must_not_be_cut_says_so() {
    for (family, flags, whole) in [(0, 0x00, false), (0, 0x40, true), (1, 0, true)] {
        let mut packet = udp_packet(family, b"x");
        if family == 0 {
            packet[6] = flags;
        }
        let parsed = parse(&packet).unwrap();
        let Packet::Udp(udp) = parsed else { panic!("{parsed:?}") };
        assert_eq!(udp.keep_whole, whole);
        let Packet::Udp(udp) = parsed.reassembled() else { panic!("{parsed:?}") };
        assert!(!udp.keep_whole, "its sender has let it be cut");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120), version in 0..3u8) {
        let mut bytes = bytes;
        if let (Some(first), 1..) = (bytes.first_mut(), version) {
            *first = [0, 0x45, 0x60][usize::from(version)];
        }
        let _ = parse(&bytes);
        let mut builder = Builder::new(1500, 0);
        let _ = builder.unreachable(Unreachable::Protocol, ip(THERE[0]), &Original::Packet(&bytes));
    }

    #[test]
    fn mutated_packets_are_parsed_or_refused(
        family in 0..2usize,
        kind in 0..4usize,
        changes in proptest::collection::vec((0..120usize, any::<u8>()), 1..5),
    ) {
        let mut packet = match kind {
            0 => udp_packet(family, &numbers(60)),
            1 => echo_packet(family, &numbers(60)),
            2 => syn_packet(family),
            _ => piece(&udp_packet(family, &numbers(60)), 8..40, true),
        };
        for (at, value) in changes {
            let at = at % packet.len();
            packet[at] = value;
        }
        let mut reassembly = Reassembly::new();
        if let Ok(Packet::Fragment(fragment)) = parse(&packet) {
            let _ = reassembly.add(Instant::now(), &fragment);
        }
        let mut builder = Builder::new(1500, 0);
        let _ = builder.unreachable(Unreachable::Net, ip(THERE[family]), &Original::Packet(&packet));
    }

    #[test]
    fn datagrams_come_out_as_they_went_in(family in 0..2usize, payload in payloads()) {
        let packets = udp_packets(family, &payload);
        prop_assume!(packets.len() == 1);
        assert_checksums(&packets[0]);
        prop_assert!(family == 1 || packets[0][6] == 0, "the kernel may cut IPv4");
        let (src, dst) = (at(HERE[family], 4000), at(THERE[family], 53));
        prop_assert_eq!(parse(&packets[0]), Ok(Packet::Udp(Udp { src, dst, payload: &payload, ttl: 64, keep_whole: dst.is_ipv6() })));
    }

    #[test]
    fn echoes_come_out_as_they_went_in(family in 0..2usize, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut packets = Vec::new();
        let (src, dst) = (ip(HERE[family]), ip(THERE[family]));
        Builder::new(1500, 0)
            .echo_reply(src, dst, (3, 4), &payload, |packet| packets.push(packet.to_vec()))
            .unwrap();
        assert_checksums(&packets[0]);
        prop_assert_eq!(parse(&packets[0]), Ok(Packet::Other), "a reply is no request");
        let request = echo_packet(family, &payload);
        prop_assert_eq!(parse(&request), Ok(Packet::Echo(Echo { src, dst, id: 3, seq: 4, payload: &payload, ttl: 64, keep_whole: dst.is_ipv6() })));
    }
}
