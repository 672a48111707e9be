//! Packets as a tun carries them, read and made.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    InternetSlice, Ipv6ExtensionSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeader,
    TransportSlice,
};

/// Source, destination and what follows.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) packet: SlicedPacket<'a>,
}

pub(crate) fn parse(packet: &[u8]) -> Seen<'_> {
    let packet = SlicedPacket::from_ip(packet).unwrap();
    let (source, destination) = match &packet.net {
        Some(InternetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into())
        }
        Some(InternetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into())
        }
        other => panic!("{other:?}"),
    };
    Seen { source, destination, packet }
}

/// Asserts that it is a SYN with this source and destination.
pub(crate) fn assert_syn(packet: &[u8], from: SocketAddr, to: SocketAddr) {
    let seen = parse(packet);
    let Some(TransportSlice::Tcp(tcp)) = &seen.packet.transport else { panic!("{seen:?}") };
    assert!(tcp.syn() && !tcp.ack(), "{seen:?}");
    let (source, destination) = (tcp.source_port(), tcp.destination_port());
    assert_eq!(
        (SocketAddr::new(seen.source, source), SocketAddr::new(seen.destination, destination)),
        (from, to)
    );
}

/// Asserts that it is a datagram with this source, destination and content, and that its checksum is filled in.
pub(crate) fn assert_udp(packet: &[u8], from: SocketAddr, to: SocketAddr, payload: &[u8]) {
    let seen = parse(packet);
    let Some(TransportSlice::Udp(udp)) = &seen.packet.transport else { panic!("{seen:?}") };
    let (source, destination) = (udp.source_port(), udp.destination_port());
    assert_eq!(
        (SocketAddr::new(seen.source, source), SocketAddr::new(seen.destination, destination)),
        (from, to)
    );
    assert!(udp.payload() == payload, "{} bytes of payload", udp.payload().len());
    let header = udp.to_header();
    let expected = match (seen.source, seen.destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            header.calc_checksum_ipv4_raw(s.octets(), d.octets(), payload)
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            header.calc_checksum_ipv6_raw(s.octets(), d.octets(), payload)
        }
        _ => unreachable!(),
    };
    assert_eq!(header.checksum, expected.unwrap());
}

fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    }
}

pub(crate) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(from.ip(), to.ip()).udp(from.port(), to.port()).write(&mut packet, payload).unwrap();
    packet
}

/// The refusal of a SYN.
pub(crate) fn reset(syn: &[u8]) -> Vec<u8> {
    answer(syn, |step| step.rst())
}

/// What says that a SYN is accepted.
pub(crate) fn syn_ack(syn: &[u8]) -> Vec<u8> {
    answer(syn, |step| step.syn())
}

fn answer(
    syn: &[u8],
    flag: impl FnOnce(PacketBuilderStep<TcpHeader>) -> PacketBuilderStep<TcpHeader>,
) -> Vec<u8> {
    let seen = parse(syn);
    let Some(TransportSlice::Tcp(tcp)) = &seen.packet.transport else { panic!("{seen:?}") };
    let step = ip(seen.destination, seen.source)
        .tcp(tcp.destination_port(), tcp.source_port(), 0, 1000)
        .ack(tcp.sequence_number().wrapping_add(1));
    let mut packet = Vec::new();
    flag(step).write(&mut packet, &[]).unwrap();
    packet
}

/// The type of an ICMP message, and to whom it is sent.
pub(crate) fn icmp(packet: &[u8]) -> (u8, IpAddr) {
    let seen = parse(packet);
    let kind = match &seen.packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) => icmp.type_u8(),
        Some(TransportSlice::Icmpv6(icmp)) => icmp.type_u8(),
        _ => panic!("{seen:?}"),
    };
    (kind, seen.destination)
}

/// A part of a datagram; offset in bytes.
pub(crate) struct Fragment<'a> {
    pub(crate) offset: usize,
    pub(crate) more: bool,
    pub(crate) payload: &'a [u8],
}

pub(crate) fn fragment(packet: &[u8]) -> Fragment<'_> {
    let seen = parse(packet);
    match seen.packet.net {
        Some(InternetSlice::Ipv4(ip)) => Fragment {
            offset: ip.header().fragments_offset().byte_offset().into(),
            more: ip.header().more_fragments(),
            payload: ip.payload().payload,
        },
        Some(InternetSlice::Ipv6(ip)) => {
            let header =
                ip.extensions().clone().into_iter().find_map(|extension| match extension {
                    Ipv6ExtensionSlice::Fragment(header) => Some(header.to_header()),
                    _ => None,
                });
            let header = header.unwrap();
            Fragment {
                offset: header.fragment_offset.byte_offset().into(),
                more: header.more_fragments,
                payload: ip.payload().payload,
            }
        }
        other => panic!("{other:?}"),
    }
}
