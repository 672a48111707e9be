//! Who may be reached.
//!
//! # What stays reachable
//! Everything that the user could connect to from the host, other than the host's loopback: also the host's own
//! addresses on its networks, and 169.254.0.0/16 with the metadata services of clouds, as from rootful containers.
//! Whoever wants less writes an egress policy, which judges what is allowed here once more ([`egress`]), or filters on the
//! host, by user.
//!
//! # The host's loopback
//! The gateway's address stands for it, all of it or some ports ([`HostLoopback`]). This is decided here, in the gateway
//! process, for each connection and each datagram that begins a flow. Nothing in the target namespace has a say in it: its
//! routes and packet rules change only what reaches the gateway process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
pub use netlink::conntrack::Protocol;

use crate::network_config::{HostLoopback, NetworkConfig};

/// Port of DNS over UDP and TCP.
pub const DNS: u16 = 53;

/// What becomes of a connection or datagram from the child namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on from the host's namespace, to this address.
    Dial(SocketAddr),
    /// Goes to the name servers of the host.
    Dns,
    /// Is refused, for this reason.
    Deny(&'static str),
}

/// Where something sent to `dst` in the child namespace goes. The port of a ping means nothing.
pub fn outbound(plan: &NetworkConfig, protocol: Protocol, dst: SocketAddr) -> Verdict {
    let (ip, port) = (dst.ip(), dst.port());
    if port == 0 {
        return Verdict::Deny("port 0 is not a valid port");
    }
    if let Some(reason) = means_nothing_outside(ip) {
        return Verdict::Deny(reason);
    }
    let Some(net) = plan.net_of(ip) else {
        return Verdict::Deny("this network has no IPv6");
    };
    if ip == net.dns && port == DNS {
        return Verdict::Dns;
    }
    if ip == net.gateway {
        if let Some(reason) = closed(&plan.host_loopback, protocol, port) {
            return Verdict::Deny(reason);
        }
        let loopback: IpAddr =
            if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        return Verdict::Dial(SocketAddr::new(loopback, port));
    }
    let inside = IpNet::new(net.gateway, net.prefix).is_ok_and(|network| network.contains(&ip));
    if inside || ip == net.child || ip == net.dns {
        return Verdict::Deny("an address of the gateway network itself");
    }
    // Made anew, so that no flow label or scope id of the packet's goes along.
    Verdict::Dial(SocketAddr::new(ip, port))
}

/// Why this port of the host's loopback may not be reached.
fn closed(loopback: &HostLoopback, protocol: Protocol, port: u16) -> Option<&'static str> {
    let (tcp, udp) = match loopback {
        HostLoopback::Open => return None,
        HostLoopback::Closed => {
            return Some("the gateway's address stands for the host's loopback, which is disabled");
        }
        HostLoopback::Ports { tcp, udp } => (tcp, udp),
    };
    let ranges = match protocol {
        Protocol::Tcp => &tcp[..],
        Protocol::Udp => udp,
        Protocol::Echo => &[],
    };
    let allowed = ranges.iter().any(|range| range.contains(&port));
    (!allowed).then_some(
        "the host's loopback is disabled except for some ports, and this is not one of them",
    )
}

/// Why an address leads nowhere, or to the host itself, whatever the network.
fn means_nothing_outside(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) => match v4.octets()[0] {
            // Linux takes 0.0.0.0 as a destination for 127.0.0.1.
            0 | 127 => Some("a loopback address of the host"),
            224..=239 => Some("multicast stays in the child's network"),
            // Broadcast is one of them.
            240..=255 => Some("a reserved address"),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, _, _] => {
                Some("a loopback address of the host, or an IPv4-compatible IPv6 address")
            }
            [0, 0, 0, 0, 0, 0xffff, _, _] => Some("an IPv4-mapped IPv6 address"),
            [0xfe80..=0xfebf, ..] => Some("a link-local address"),
            [0xff00..=0xffff, ..] => Some("multicast stays in the child's network"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::network_config::Net;

    fn plan() -> NetworkConfig {
        let net = |child: &str, gateway: &str, dns: &str, prefix| Net {
            child: child.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            dns: dns.parse().unwrap(),
            prefix,
        };
        NetworkConfig {
            ifname: "tap0".into(),
            mtu: 1500,
            v4: net("10.0.2.100", "10.0.2.2", "10.0.2.3", 24),
            v6: Some(net("fd00::100", "fd00::2", "fd00::3", 64)),
            host_loopback: HostLoopback::Closed,
        }
    }

    const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_outside_is_dialled_as_it_is() {
        for dst in [
            "192.0.2.1:80",
            "10.0.3.1:443",
            "10.0.1.255:1",
            "169.254.169.254:80",
            "10.0.3.3:53",
            "[2001:db8::1]:65535",
            "[fd00:0:0:1::1]:53",
            "[64:ff9b::7f00:1]:80",
        ] {
            for protocol in ALL {
                assert_eq!(outbound(&plan(), protocol, at(dst)), Verdict::Dial(at(dst)), "{dst}");
            }
        }
    }

    #[test]
    fn own_network_loopback_and_nonsense_are_denied() {
        for dst in [
            "192.0.2.1:0",
            "10.0.2.0:80",
            "10.0.2.2:22",
            "10.0.2.3:80",
            "10.0.2.3:853",
            "10.0.2.100:80",
            "10.0.2.255:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "127.0.0.1:80",
            "127.255.255.254:80",
            "224.0.0.251:5353",
            "239.255.255.250:1900",
            "240.0.0.1:80",
            "255.255.255.255:67",
            "[::]:80",
            "[::1]:80",
            "[::127.0.0.1]:80",
            "[::8.8.8.8]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:0.0.0.0]:80",
            "[::ffff:192.0.2.1]:80",
            "[fe80::1]:80",
            "[febf::1]:80",
            "[ff02::fb]:5353",
            "[fd00::2]:80",
            "[fd00::3]:80",
            "[fd00::ffff:1]:53",
        ] {
            for protocol in ALL {
                let verdict = outbound(&plan(), protocol, at(dst));
                assert!(matches!(verdict, Verdict::Deny(_)), "{dst}: {verdict:?}");
            }
        }
    }

    #[test]
    fn the_gateway_is_the_host_only_if_that_is_allowed() {
        let open = NetworkConfig { host_loopback: HostLoopback::Open, ..plan() };
        for protocol in ALL {
            let outbound = |dst| outbound(&open, protocol, at(dst));
            assert_eq!(outbound("10.0.2.2:22"), Verdict::Dial(at("127.0.0.1:22")));
            assert_eq!(outbound("[fd00::2]:22"), Verdict::Dial(at("[::1]:22")));
            for dst in ["127.0.0.1:22", "[::1]:22", "[::ffff:127.0.0.1]:22", "10.0.2.100:22"] {
                assert!(matches!(outbound(dst), Verdict::Deny(_)), "{dst}");
            }
        }
    }

    fn some_ports() -> NetworkConfig {
        let (tcp, udp) = (vec![22..=22, 8000..=8010, 65535..=65535], vec![53..=53]);
        NetworkConfig { host_loopback: HostLoopback::Ports { tcp, udp }, ..plan() }
    }

    #[test]
    fn of_the_hosts_loopback_only_the_allowed_ports_of_the_protocol_are_dialled() {
        let plan = some_ports();
        for (gateway, loopback) in [("10.0.2.2", "127.0.0.1"), ("[fd00::2]", "[::1]")] {
            for (protocol, ports) in [
                (Protocol::Tcp, &[22, 8000, 8005, 8010, 65535][..]),
                (Protocol::Udp, &[53]),
                (Protocol::Echo, &[]),
            ] {
                for port in [1, 21, 22, 23, 53, 7999, 8000, 8005, 8010, 8011, 65534, 65535] {
                    let verdict = outbound(&plan, protocol, at(&format!("{gateway}:{port}")));
                    if ports.contains(&port) {
                        assert_eq!(verdict, Verdict::Dial(at(&format!("{loopback}:{port}"))));
                    } else {
                        assert!(
                            matches!(verdict, Verdict::Deny(_)),
                            "{protocol:?} {port}: {verdict:?}"
                        );
                    }
                }
            }
        }
        for dst in
            ["127.0.0.1:22", "[::1]:22", "[::ffff:127.0.0.1]:22", "10.0.2.100:22", "10.0.2.3:22"]
        {
            assert!(matches!(outbound(&plan, Protocol::Tcp, at(dst)), Verdict::Deny(_)), "{dst}");
        }
    }

    #[test]
    fn names_are_asked_for_at_one_port_also_if_the_gateway_has_that_address() {
        for host_loopback in [HostLoopback::Closed, some_ports().host_loopback, HostLoopback::Open]
        {
            let mut plan = NetworkConfig { host_loopback, ..plan() };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(outbound(&plan, protocol, at("10.0.2.3:53")), Verdict::Dns);
                assert_eq!(outbound(&plan, protocol, at("[fd00::3]:53")), Verdict::Dns);
            }
            plan.v4.dns = plan.v4.gateway;
            assert_eq!(outbound(&plan, Protocol::Udp, at("10.0.2.2:53")), Verdict::Dns);
        }
    }

    #[test]
    fn without_ipv6_there_is_none() {
        let plan = NetworkConfig { v6: None, ..plan() };
        assert!(matches!(outbound(&plan, Protocol::Tcp, at("[2001:db8::1]:80")), Verdict::Deny(_)));
    }

    #[test]
    fn what_the_api_describes_decides_as_the_gateway_does() {
        let open = NetworkConfig { host_loopback: HostLoopback::Open, ..plan() };
        for plan in [plan(), some_ports(), open, NetworkConfig { v6: None, ..some_ports() }] {
            let described = NetworkConfig::described(&plan.describe()).unwrap();
            for ip in
                ["10.0.2.2", "10.0.2.3", "[fd00::2]", "127.0.0.1", "192.0.2.1", "[2001:db8::1]"]
            {
                for port in [7, 22, 53, 8005, 8011] {
                    for protocol in ALL {
                        let dst = at(&format!("{ip}:{port}"));
                        // The kernel answers a ping to the gateway, which is not judged.
                        if protocol == Protocol::Echo && plan.nets().any(|n| n.gateway == dst.ip())
                        {
                            continue;
                        }
                        let verdicts =
                            [&plan, &described].map(|plan| outbound(plan, protocol, dst));
                        let same = matches!(
                            verdicts,
                            [Verdict::Deny(_), Verdict::Deny(_)] | [Verdict::Dns, Verdict::Dns]
                        ) || verdicts[0] == verdicts[1];
                        assert!(same, "{protocol:?} {dst}: {verdicts:?}");
                    }
                }
            }
        }
    }

    fn addresses() -> impl Strategy<Value = IpAddr> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
        let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
        // IPv4 in each of the forms that carry it, and small numbers, which hardly come up by chance.
        let loopback = any::<u32>().prop_map(|bits| 0x7f00_0000 | (bits & 0xff_ffff));
        let embedded = (prop_oneof![any::<u32>(), loopback], 0..4).prop_map(|(bits, form)| {
            let low = u128::from(bits);
            match form {
                0 => IpAddr::V4(Ipv4Addr::from_bits(bits)),
                1 => IpAddr::V6(Ipv6Addr::from_bits(low)),
                2 => IpAddr::V6(Ipv6Addr::from_bits(low | 0xffff_0000_0000)),
                _ => IpAddr::V6(Ipv6Addr::from_bits(low & 0xff)),
            }
        });
        prop_oneof![v4, v6, embedded]
    }

    fn protocols() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Echo)]
    }

    proptest! {
        #[test]
        fn the_hosts_loopback_is_never_dialled(
            protocol in protocols(), ip in addresses(), port: u16
        ) {
            for plan in [plan(), some_ports()] {
                let gateway = plan.nets().any(|net| net.gateway == ip);
                let closed = plan.host_loopback == HostLoopback::Closed || !gateway;
                let verdict = outbound(&plan, protocol, SocketAddr::new(ip, port));
                if let (true, Verdict::Dial(to)) = (closed, verdict) {
                    let to = to.ip();
                    prop_assert!(!to.is_loopback() && !to.is_unspecified() && !to.is_multicast());
                    prop_assert!(!to.to_canonical().is_loopback());
                    prop_assert_eq!(to, ip);
                }
            }
        }

        #[test]
        fn a_port_is_open_exactly_if_a_range_has_it(
            lengths in proptest::collection::vec((1..9u16, 0..5u16), 0..9), port in 1..130u16
        ) {
            let (mut ranges, mut next) = (Vec::new(), 0);
            for (gap, more) in lengths {
                ranges.push(next + gap..=next + gap + more);
                next += gap + more + 1;
            }
            let expected = ranges.iter().any(|range| range.contains(&port));
            let host_loopback = HostLoopback::Ports { tcp: ranges, udp: Vec::new() };
            let plan = NetworkConfig { host_loopback, ..plan() };
            let gateway = SocketAddr::new(plan.v4.gateway, port);
            let tcp = outbound(&plan, Protocol::Tcp, gateway);
            prop_assert_eq!(matches!(tcp, Verdict::Dial(_)), expected);
            let udp = outbound(&plan, Protocol::Udp, gateway);
            prop_assert!(matches!(udp, Verdict::Deny(_)));
        }
    }
}
