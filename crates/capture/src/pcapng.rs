//! Capture files in the format pcapng (the IETF's draft-ietf-opsawg-pcapng): blocks that are appended to a buffer.
//!
//! A file begins with [`section`], then has a block of each [`interface`], which are numbered from 0, then [`packet`]s,
//! and at the end [`statistics`] of each interface. A file that ends earlier is valid up to its last whole block.
//!
//! # Why not a crate
//! Five blocks are written, none is read. Of the crates that write this format in 2026, `pcap-file` 2.0 needs a second
//! version of thiserror and its successor is a candidate that takes a newer compiler, `pcaparse` and they need syn 1,
//! `pcap-parser` writes by way of cookie-factory with the whole of futures, and the others are not kept. The tests read
//! what is written here with `pcap-parser`, and Wireshark reads it in the scenarios.

use std::ops::Range;
use std::time::Duration;

use sys::capture::{Direction, Reception};

/// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// Tells readers the byte order, which is little-endian on each machine.
const MAGIC: u32 = 0x1a2b_3c4d;
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;
/// Times are in units of 10⁻⁹ seconds.
const NANOSECONDS: u8 = 9;

/// Codes of options, of which each kind of block has its own beyond these two.
const END: u16 = 0;
const COMMENT: u16 = 1;
const USER_APPLICATION: u16 = 4;
const NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
const START_TIME: u16 = 2;
const END_TIME: u16 = 3;
const ACCEPTED: u16 = 6;
const DROPPED_BY_SYSTEM: u16 = 7;
const DELIVERED: u16 = 8;

/// The length of a block of [`statistics`] in bytes.
pub const STATISTICS_LENGTH: usize = 12 + 12 + 5 * 12 + 4;
/// The most that the block of a packet is longer than the packet, in bytes.
pub const PACKET_OVERHEAD: usize = 32 + 3 + 12;

/// An interface that packets are captured on.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// Anything for people.
    pub comment: &'a str,
    /// The most bytes of a packet that are written; 0 for all.
    pub snaplen: u32,
}

/// A packet, without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// The number of its interface.
    pub interface: u32,
    /// When it was seen, since 1970-01-01 00:00:00 UTC.
    pub time: Duration,
    /// The length of the whole packet in bytes, of which there may be less.
    pub length: u32,
    /// Which way it went.
    pub direction: Direction,
}

/// What was counted at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// The number of the interface.
    pub interface: u32,
    /// Beginning and end of the capture, since 1970-01-01 00:00:00 UTC.
    pub time: (Duration, Duration),
    /// Packets that the filter accepted.
    pub accepted: u64,
    /// Those of them that the kernel had no room for.
    pub dropped: u64,
    /// Packets in the file.
    pub delivered: u64,
}

/// Begins a file.
pub fn section(out: &mut Vec<u8>, application: &str) {
    block(out, SECTION, |out| {
        out.extend(MAGIC.to_le_bytes());
        // Version 1.0, of any length.
        out.extend([1, 0, 0, 0]);
        out.extend(u64::MAX.to_le_bytes());
        text(out, USER_APPLICATION, application);
        option(out, END, &[]);
    });
}

/// Adds an interface.
pub fn interface(out: &mut Vec<u8>, interface: &Interface<'_>) {
    block(out, INTERFACE, |out| {
        out.extend(ETHERNET.to_le_bytes());
        out.extend([0, 0]);
        out.extend(interface.snaplen.to_le_bytes());
        text(out, NAME, interface.name);
        text(out, COMMENT, interface.comment);
        option(out, TIME_RESOLUTION, &[NANOSECONDS]);
        option(out, END, &[]);
    });
}

/// Adds a packet and says where in the buffer its bytes are.
pub fn packet(out: &mut Vec<u8>, packet: &Packet, data: &[u8]) -> Range<usize> {
    let mut range = 0..0;
    block(out, PACKET, |out| {
        out.extend(packet.interface.to_le_bytes());
        time(out, packet.time);
        out.extend(length(data.len()).to_le_bytes());
        out.extend(packet.length.to_le_bytes());
        range = out.len()..out.len() + data.len();
        out.extend(data);
        pad(out, data.len());
        option(out, FLAGS, &flags(packet.direction).to_le_bytes());
        option(out, END, &[]);
    });
    range
}

/// Adds what was counted.
pub fn statistics(out: &mut Vec<u8>, statistics: &Statistics) {
    block(out, STATISTICS, |out| {
        out.extend(statistics.interface.to_le_bytes());
        let (start, end) = statistics.time;
        time(out, end);
        for (code, moment) in [(START_TIME, start), (END_TIME, end)] {
            let mut value = Vec::new();
            time(&mut value, moment);
            option(out, code, &value);
        }
        for (code, count) in [
            (ACCEPTED, statistics.accepted),
            (DROPPED_BY_SYSTEM, statistics.dropped),
            (DELIVERED, statistics.delivered),
        ] {
            option(out, code, &count.to_le_bytes());
        }
        option(out, END, &[]);
    });
}

/// Inbound or outbound, and how it was received.
fn flags(direction: Direction) -> u32 {
    match direction {
        Direction::Sent => 2,
        Direction::Received(Reception::Unicast) => 1 | 1 << 2,
        Direction::Received(Reception::Multicast) => 1 | 2 << 2,
        Direction::Received(Reception::Broadcast) => 1 | 3 << 2,
        Direction::Received(Reception::Promiscuous) => 1 | 4 << 2,
    }
}

/// A block has its length at both ends.
fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    fill(out);
    let total = length(out.len() + 4 - begin).to_le_bytes();
    out.extend(total);
    out[begin + 4..begin + 8].copy_from_slice(&total);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_le_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(value);
    pad(out, value.len());
}

/// An option for people, as much of it as fits.
fn text(out: &mut Vec<u8>, code: u16, value: &str) {
    let most = value.len().min(u16::MAX.into());
    let end = (0..=most).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    option(out, code, &value.as_bytes()[..end]);
}

/// Upper half first.
fn time(out: &mut Vec<u8>, time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes();
    out.extend(&nanos[4..]);
    out.extend(&nanos[..4]);
}

/// Fields are aligned to 4 bytes.
fn pad(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + length.next_multiple_of(4) - length, 0);
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use pcap_parser::traits::PcapReaderIterator as _;
    use pcap_parser::{Block, OptionCode, PcapBlockOwned, PcapError, PcapNGOption, PcapNGReader};
    use proptest::prelude::*;

    use super::*;

    fn value(options: &[PcapNGOption<'_>], code: u16) -> Vec<u8> {
        let found = options.iter().find(|option| option.code == OptionCode(code)).unwrap();
        found.value()[..found.len.into()].to_vec()
    }

    /// Has each block read by somebody else.
    fn read(file: &[u8], mut each: impl FnMut(Block<'_>)) {
        let mut reader = PcapNGReader::new(1 << 20, file).unwrap();
        loop {
            match reader.next() {
                Ok((used, PcapBlockOwned::NG(block))) => {
                    each(block);
                    reader.consume(used);
                }
                Ok(_) => panic!("not a block of pcapng"),
                Err(PcapError::Eof) => return,
                Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn another_program_reads_the_whole_file() {
        let mut out = Vec::new();
        section(&mut out, "capture 1.0");
        let comment = "é".repeat(40_000);
        interface(&mut out, &Interface { name: "docker0", comment: "web", snaplen: 0 });
        interface(&mut out, &Interface { name: "br-1", comment: &comment, snaplen: 96 });
        let time = Duration::new(1_700_000_000, 123_456_789);
        let sent = Packet { interface: 1, time, length: 1500, direction: Direction::Sent };
        let range = packet(&mut out, &sent, b"12345");
        assert_eq!(&out[range], b"12345");
        let before = out.len();
        let later = time + Duration::from_secs(1);
        let counts =
            Statistics { interface: 1, time: (time, later), accepted: 3, dropped: 2, delivered: 1 };
        statistics(&mut out, &counts);
        assert_eq!(out.len() - before, STATISTICS_LENGTH);
        let mut seen = Vec::new();
        read(&out, |block| match block {
            Block::SectionHeader(block) => {
                assert_eq!(value(&block.options, 4), b"capture 1.0");
                seen.push("section");
            }
            Block::InterfaceDescription(block) => {
                assert_eq!((block.linktype.0, block.if_tsresol), (1, 9));
                let name = value(&block.options, 2);
                let comment = String::from_utf8(value(&block.options, 1)).unwrap();
                if block.snaplen == 96 {
                    assert_eq!(name, b"br-1");
                    assert!(comment == "é".repeat(32_767), "cut to {} bytes", comment.len());
                } else {
                    assert_eq!((&name[..], &*comment), (&b"docker0"[..], "web"));
                }
                seen.push("interface");
            }
            Block::EnhancedPacket(block) => {
                let nanos = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
                assert_eq!(u128::from(nanos), time.as_nanos());
                assert_eq!((block.if_id, block.caplen, block.origlen), (1, 5, 1500));
                assert_eq!(&block.data[..5], b"12345");
                assert_eq!(value(&block.options, 2), [2, 0, 0, 0]);
                seen.push("packet");
            }
            Block::InterfaceStatistics(block) => {
                let nanos = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
                assert_eq!((block.if_id, u128::from(nanos)), (1, later.as_nanos()));
                for (code, count) in [(6, 3), (7, 2), (8, 1)] {
                    assert_eq!(value(&block.options, code), [count, 0, 0, 0, 0, 0, 0, 0]);
                }
                seen.push("statistics");
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(seen, ["section", "interface", "interface", "packet", "statistics"]);
    }

    #[test]
    fn directions_are_told() {
        let received = |how| flags(Direction::Received(how));
        let all = [
            flags(Direction::Sent),
            received(Reception::Unicast),
            received(Reception::Multicast),
            received(Reception::Broadcast),
            received(Reception::Promiscuous),
        ];
        assert_eq!(all, [0b0_0010, 0b0_0101, 0b0_1001, 0b0_1101, 0b1_0001]);
    }

    proptest! {
        #[test]
        fn packets_of_any_length_are_read_back(packets in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..70), 0..8))
        {
            let mut out = Vec::new();
            section(&mut out, "");
            interface(&mut out, &Interface { name: "", comment: "", snaplen: 0 });
            let of = Packet {
                interface: 0, time: Duration::ZERO, length: 99, direction: Direction::Sent,
            };
            for data in &packets {
                let before = out.len();
                packet(&mut out, &of, data);
                prop_assert!(out.len() - before <= data.len() + PACKET_OVERHEAD);
            }
            let mut back = Vec::new();
            read(&out, |block| if let Block::EnhancedPacket(block) = block {
                back.push(block.data[..block.caplen as usize].to_vec());
            });
            prop_assert_eq!(back, packets);
        }
    }
}
