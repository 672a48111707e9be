//! The kernel itself runs the programs, on datagrams of a unix socket, which it filters as it does frames. What it says
//! is compared with a matcher that reads frames in the plain way.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sys::capture::{Capture, Direction, Frame};

use super::*;

/// What the kernel leaves of a frame; `None` if it does not let it pass.
fn kernel(filter: &Filter, frame: &[u8]) -> Option<usize> {
    let (from, to) = UnixDatagram::pair().unwrap();
    sys::capture::attach_filter(to.as_fd(), &filter.program()).unwrap();
    to.set_nonblocking(true).unwrap();
    from.send(frame).unwrap();
    match to.recv(&mut [0; 2048]) {
        Ok(length) => Some(length),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            None
        }
    }
}

/// Whether a frame is wanted; `None` if it ends before that is known, which is as good as no.
fn wanted(filter: &Filter, frame: &[u8]) -> Option<bool> {
    if filter.addresses.is_empty() && filter.ports.is_empty() {
        return Some(true);
    }
    let half = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
    };
    let v4 = |at: usize| -> Option<IpAddr> {
        Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?))
    };
    let v6 = |at: usize| -> Option<IpAddr> {
        Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?))
    };
    let addresses = |read: &dyn Fn(usize) -> Option<IpAddr>, places: [usize; 2]| {
        for group in &filter.addresses {
            if !group.contains(&read(places[0])?) && !group.contains(&read(places[1])?) {
                return Some(false);
            }
        }
        Some(true)
    };
    let ports = |at: usize| {
        let matches = |at| Some(filter.ports.contains(&half(at)?));
        Some(matches(at)? || matches(at + 2)?)
    };
    let transport = |protocol: u8| [6, 17, 132].contains(&protocol);
    Some(match half(12)? {
        0x800 => {
            if !addresses(&v4, [26, 30])? || filter.ports.is_empty() {
                return addresses(&v4, [26, 30]);
            }
            let offset = half(20)? & 0x1fff;
            let header = usize::from(frame.get(14)? & 15) * 4;
            offset == 0 && transport(*frame.get(23)?) && ports(14 + header)?
        }
        0x86dd => {
            if !addresses(&v6, [22, 38])? || filter.ports.is_empty() {
                return addresses(&v6, [22, 38]);
            }
            let (mut next, mut at, mut passed) = (*frame.get(20)?, 54, 0);
            while !transport(next) {
                if passed == EXTENSION_HEADERS {
                    return Some(false);
                }
                match next {
                    0 | 43 | 60 => {
                        next = *frame.get(at)?;
                        at += 8 * (usize::from(*frame.get(at + 1)?) + 1);
                    }
                    44 if half(at + 2)? >> 3 == 0 => {
                        next = *frame.get(at)?;
                        at += 8;
                    }
                    _ => return Some(false),
                }
                passed += 1;
            }
            ports(at)?
        }
        0x806 if filter.ports.is_empty() => {
            frame.get(14..18)? == [0, 1, 8, 0] && addresses(&v4, [28, 38])?
        }
        _ => false,
    })
}

/// Few addresses and ports, so that many match.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0..3u8).prop_map(|n| IpAddr::from([172, 17, 0, n]));
    let v6 = (0..3u8, 0..4usize).prop_map(|(n, at)| {
        let mut octets = [0xfd; 16];
        octets[at * 4] ^= n;
        IpAddr::from(octets)
    });
    prop_oneof![v4, v6]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(53), Just(80), Just(0x0102)]
}

fn filter() -> impl Strategy<Value = Filter> {
    let groups = prop::collection::vec(prop::collection::vec(address(), 0..4), 0..3);
    (groups, prop::collection::vec(port(), 0..3), prop_oneof![Just(1 << 18), 1..60u32])
        .prop_map(|(addresses, ports, snaplen)| Filter { addresses, ports, snaplen })
}

/// IP of both versions with options, extension headers and fragments; ARP; and anything.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let protocol = prop_oneof![Just(6u8), Just(17), Just(132), Just(1), any::<u8>()];
    // Each bit of the offset decides, and the flag above them does not.
    let offset = prop_oneof![3 => Just(0u16), 1 => (0..14u32).prop_map(|bit| 1 << bit)];
    let octets = |address: IpAddr, length: usize| {
        let mut octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        octets.resize(length, 0xfd);
        octets
    };
    let ends = || (address(), address(), port(), port());
    let v4 = (ends(), protocol.clone(), offset.clone(), 0..11u8).prop_map(
        move |((src, dst, from, to), protocol, offset, options)| {
            let mut frame = [vec![0; 12], vec![8, 0, 0x45 + options, 0, 0, 60, 0, 0]].concat();
            frame.extend(offset.to_be_bytes());
            frame.extend([64, protocol, 0, 0]);
            frame.extend([octets(src, 4), octets(dst, 4)].concat());
            frame.resize(frame.len() + usize::from(options) * 4, 1);
            frame.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
            frame
        },
    );
    let headers = prop::collection::vec(
        (prop_oneof![Just(0u8), Just(43), Just(60), Just(44)], 0..3u8, offset),
        0..EXTENSION_HEADERS + 2,
    );
    let v6 =
        (ends(), protocol, headers).prop_map(move |((src, dst, from, to), protocol, headers)| {
            let mut frame = [vec![0; 12], vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 40]].concat();
            let mut next = headers.iter().map(|(number, ..)| *number).chain([protocol]);
            frame.extend([next.next().unwrap(), 64]);
            frame.extend([octets(src, 16), octets(dst, 16)].concat());
            for &(number, length, offset) in &headers {
                let at = frame.len();
                frame.extend([next.next().unwrap(), if number == 44 { 0 } else { length }]);
                let size = if number == 44 { 8 } else { usize::from(length) * 8 + 8 };
                frame.extend(offset.rotate_left(3).to_be_bytes());
                frame.resize(at + size, 0);
            }
            frame.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
            frame
        });
    let arp = (ends(), 0..2u8).prop_map(move |((src, dst, ..), kind)| {
        let mut frame = [vec![0; 12], vec![8, 6, 0, 1, 8, kind * 6, 6, 4, 0, 1]].concat();
        frame.extend([vec![2; 6], octets(src, 4), vec![0; 6], octets(dst, 4)].concat());
        frame
    });
    let anything = prop::collection::vec(any::<u8>(), 1..80);
    let whole = prop_oneof![4 => v4, 4 => v6, 1 => arp, 1 => anything];
    let cut = prop_oneof![3 => Just(0usize), 1 => 0..60usize];
    (whole, cut).prop_map(|(mut frame, cut)| {
        frame.truncate(frame.len().saturating_sub(cut).max(1));
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8000))]

    #[test]
    #[cfg_attr(miri, ignore = "miri knows no packet filters")]
    fn the_kernel_wants_what_a_plain_matcher_wants(filter in filter(), frame in frame()) {
        let length = frame.len().min(filter.snaplen as usize);
        let expected = (wanted(&filter, &frame) == Some(true)).then_some(length);
        prop_assert_eq!(kernel(&filter, &frame), expected);
    }
}

/// A frame of UDP.
fn udp(src: [u8; 4], dst: [u8; 4], from: u16, to: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(src, dst, 64);
    builder.udp(from, to).write(&mut frame, b"payload").unwrap();
    frame
}

#[test]
#[cfg_attr(miri, ignore = "miri knows no packet filters")]
fn packets_of_a_container_with_a_host_at_a_port() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let filter = Filter {
        addresses: vec![vec![ip("172.17.0.2"), ip("fd99::2")], vec![ip("192.0.2.1")]],
        ports: vec![53],
        snaplen: 100,
    };
    let (container, host, other) = ([172, 17, 0, 2], [192, 0, 2, 1], [172, 17, 0, 3]);
    for (src, dst, from, to, expected) in [
        (container, host, 4000, 53, true),
        (host, container, 53, 4000, true),
        (container, host, 4000, 54, false),
        (container, other, 4000, 53, false),
        (other, host, 4000, 53, false),
    ] {
        let frame = udp(src, dst, from, to);
        assert_eq!(kernel(&filter, &frame).is_some(), expected, "{src:?} {dst:?} {to}");
    }
}

/// On the loopback, each frame is seen when it is sent and when it is received.
#[test]
#[cfg_attr(miri, ignore = "miri knows no packet sockets")]
fn received_frames_with_a_vlan_tag_are_not_wanted() {
    let ours = [198, 51, 100, 7];
    let plain = udp(ours, [198, 51, 100, 8], 1, 2);
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    for addresses in [vec![], vec![vec![IpAddr::from(ours)]]] {
        let filter = Filter { addresses, ports: vec![], snaplen: 2000 };
        let mut capture = Capture::open(1, &filter.program(), false).unwrap();
        let mut link = std::fs::File::from(sys::packet::open(1).unwrap());
        for frame in [&tagged, &plain] {
            // Behind a `struct virtio_net_hdr` that says nothing.
            link.write_all(&[&[0; 10], &frame[..]].concat()).unwrap();
        }
        let (mut seen, end) = (Vec::new(), Instant::now() + Duration::from_secs(60));
        while seen.len() < 2 {
            assert!(Instant::now() < end, "{seen:?}");
            std::thread::sleep(Duration::from_millis(1));
            let each = |frame: &Frame<'_>| {
                if frame.data == plain {
                    seen.push(matches!(frame.direction, Direction::Received(_)));
                }
                true
            };
            capture.read(each).unwrap();
        }
        // The one with a tag came first, and would look like a plain one that nobody has sent.
        assert_eq!(seen, [false, true]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "miri knows no packet filters")]
fn jumps_reach_over_many_addresses() {
    let many = (0..50u8).flat_map(|n| {
        let v6 = std::net::Ipv6Addr::from([n; 16]);
        [IpAddr::from([10, 0, 0, n]), v6.into()]
    });
    let filter = Filter { addresses: vec![many.collect()], ports: vec![], snaplen: 1 };
    assert!(filter.program().len() > 1000, "more than a condition of the machine reaches");
    assert_eq!(kernel(&filter, &udp([10, 0, 1, 0], [10, 0, 0, 49], 1, 2)), Some(1));
    assert_eq!(kernel(&filter, &udp([10, 0, 1, 0], [10, 0, 0, 50], 1, 2)), None);
}
