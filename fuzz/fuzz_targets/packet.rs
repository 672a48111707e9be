//! Packets from the child namespace: taken apart, put together, quoted in errors.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use gateway::packet::{Builder, Original, Packet, Reassembly, Unreachable, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reassembly = Reassembly::new();
    let mut builder = Builder::new(1500, 0);
    let mut now = Instant::now();
    let mut rest = data;
    // A sequence of packets, each behind its length and the seconds since the one before.
    while let Some(([high, low, seconds], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (packet, next) = after.split_at(length);
        (rest, now) = (next, now + Duration::from_secs(u64::from(*seconds)));
        match parse(packet) {
            Ok(Packet::Fragment(fragment)) => {
                if let Some(whole) = reassembly.add(now, &fragment) {
                    let parsed = parse(whole);
                    assert!(!matches!(parsed, Ok(Packet::Fragment(_))), "a whole packet is whole");
                }
            }
            Ok(Packet::Udp(udp)) => {
                // The answer with the same payload, which is sent if the question could be.
                let mut length = 0;
                let emit = |packet: &[u8]| length += packet.len();
                builder.udp(udp.dst, udp.src, udp.payload, emit).expect("a payload that came fits");
                assert!(length >= udp.payload.len() + 28);
            }
            Ok(Packet::Echo(echo)) => {
                builder
                    .echo_reply(echo.dst, echo.src, (echo.id, echo.seq), echo.payload, |packet| {
                        assert!(
                            !matches!(parse(packet), Ok(Packet::Echo(_))),
                            "a reply is no request"
                        );
                    })
                    .expect("a payload that came fits");
            }
            Ok(Packet::Syn(syn)) => {
                let reset = builder.tcp_reset(&syn).expect("one family").to_vec();
                assert!(!matches!(parse(&reset), Ok(Packet::Syn(_))));
            }
            Ok(Packet::Segment | Packet::Other) | Err(_) => {}
        }
        let sources = [
            IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)),
            IpAddr::V6(Ipv6Addr::from_bits(0xfd << 120 | 2)),
        ];
        for source in sources {
            if let Ok(error) =
                builder.unreachable(Unreachable::Protocol, source, &Original::Packet(packet))
            {
                assert!(error.len() <= if source.is_ipv4() { 576 } else { 1280 });
                assert_eq!(parse(error), Ok(Packet::Other));
            }
        }
    }
});
