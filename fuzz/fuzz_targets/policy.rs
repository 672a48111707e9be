//! Whom containers may reach, for any address, protocol and gateway network: of the host's loopback only what is allowed.
#![no_main]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use drivers::{Cidr, NetworkDriver};
use gateway::NetworkConfig;
use gateway::network_config::{HostLoopback, Net};
use gateway::policy::{DNS, Protocol, Verdict, outbound};
use libfuzzer_sys::fuzz_target;

/// Every address that Linux takes for the host itself, also in IPv6.
fn is_own(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            let embedded = v6.to_ipv4().is_some_and(|v4| v4.is_loopback() || v4.is_unspecified());
            v6.is_loopback() || v6.is_unspecified() || embedded
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([flags, a, b, c, bits, p0, p1, first, length], rest)) = data.split_first_chunk::<9>()
    else {
        return;
    };
    let network = format!("{a}.{b}.{c}.0/{}", bits % 26);
    let Ok(cidr) = network.parse::<Cidr>() else { return };
    let v4 = Net {
        child: cidr.child().into(),
        gateway: cidr.gateway(NetworkDriver::Gateway).into(),
        dns: if flags & 1 == 0 { cidr.dns() } else { cidr.gateway(NetworkDriver::Gateway) }.into(),
        prefix: cidr.prefix(),
    };
    let of_v6 = |last| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    let v6 = Net { child: of_v6(0x100), gateway: of_v6(2), dns: of_v6(3), prefix: 64 };
    // Of TCP, so that the same port of UDP is closed.
    let first = u16::from(*first);
    let ports = first..=first + u16::from(*length);
    let plan = NetworkConfig {
        ifname: "tap0".into(),
        mtu: 1500,
        v4,
        v6: (flags & 2 == 0).then_some(v6),
        host_loopback: match flags >> 2 & 3 {
            0 => HostLoopback::Closed,
            1 => HostLoopback::Open,
            _ => HostLoopback::Ports { tcp: vec![ports.clone()], udp: Vec::new() },
        },
    };
    let protocol = match flags >> 4 & 3 {
        0 => Protocol::Udp,
        1 => Protocol::Echo,
        _ => Protocol::Tcp,
    };
    let ip: IpAddr = match (rest.first_chunk::<16>(), rest.first_chunk::<4>()) {
        (Some(v6), _) => (*v6).into(),
        (None, Some(v4)) => (*v4).into(),
        _ => return,
    };
    let to = SocketAddr::new(ip, u16::from_be_bytes([*p0, *p1]));
    match outbound(&plan, protocol, to) {
        Verdict::Dial(at) if at == to => {
            assert!(!is_own(ip) && !ip.is_multicast() && to.port() != 0, "{to}");
            assert!(plan.net_of(ip).is_some(), "{to}");
            assert!(
                plan.nets().all(|net| ![net.gateway, net.child, net.dns].contains(&ip)),
                "{to}"
            );
        }
        Verdict::Dial(at) => {
            let gateway = plan.net_of(ip).map(|net| net.gateway);
            let allowed = match plan.host_loopback {
                HostLoopback::Closed => false,
                HostLoopback::Open => true,
                HostLoopback::Ports { .. } => {
                    protocol == Protocol::Tcp && ports.contains(&to.port())
                }
            };
            assert!(allowed && gateway == Some(ip), "{protocol:?} {to} led to {at}");
            assert!(
                at.ip().is_loopback() && at.port() == to.port() && at.is_ipv4() == to.is_ipv4()
            );
        }
        Verdict::Dns => {
            assert_eq!((plan.net_of(ip).map(|net| net.dns), to.port()), (Some(ip), DNS));
        }
        Verdict::Deny(reason) => assert!(!reason.is_empty()),
    }
});
