//! The packet rules of the gateway namespace: which mark a packet gets as it arrives.

use std::net::{IpAddr, Ipv6Addr};

use netlink::nft::Statement::{
    self, Accept, Drop, MatchDatagram, MatchDestination, MatchDestinationNotIn,
    MatchDestinationPort, MatchDontFragment, MatchIcmpCode, MatchIcmpType, MatchIn, MatchInput,
    MatchL4Proto, MatchTcpFlags, SetMark, Tproxy,
};
use netlink::nft::{Address, Batch, Hook, PRIORITY_MANGLE};
use netlink::{Family, Result};
use relay::overlay::{HEADERS, Header};

use super::links::{DATA, DIAL, Links, SOCKET};
use super::overlay::OVERLAY;
use super::{NOBODY, PORT, loopback};
use crate::network_config::{Net, NetworkConfig};
use crate::packet::{ECHO_REQUEST, ECHO_REQUEST_V6, TOO_BIG_V6, UNREACHABLE, UNREACHABLE_V6};

const TABLE: &str = "gateway";
const CHAIN: &str = "prerouting";

/// `IPPROTO_TCP` and `IPPROTO_UDP`.
const TCP: Statement = MatchL4Proto(6);
const UDP: Statement = MatchL4Proto(17);
/// Of FIN, SYN, RST and ACK only SYN: someone wants to connect.
const NEW: Statement = MatchTcpFlags { mask: 0x17, set: 0x02 };

/// The code of [`UNREACHABLE`] about sizes (RFC 792).
const FRAGMENTATION_NEEDED: u8 = 4;

const ECHO_V4: Statement = MatchIcmpType(Family::V4, ECHO_REQUEST);
const ECHO_V6: Statement = MatchIcmpType(Family::V6, ECHO_REQUEST_V6);
const UNREACHABLE_V4: Statement = MatchIcmpType(Family::V4, UNREACHABLE);

/// `fe80::/10`, neighbours.
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));
/// `ff00::/8`, which would not be forwarded.
const MULTICAST: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0));

/// Installs the rules of the gateway namespace, all or none. `overlay_exit` is the link at which datagrams of overlay
/// networks are read, if there is one.
pub(super) fn install(plan: &NetworkConfig, links: Links, overlay_exit: Option<u32>) -> Result<()> {
    let mut batch = Batch::new();
    batch.replace_table(TABLE);
    batch.add_chain(TABLE, CHAIN, Hook::Prerouting, PRIORITY_MANGLE);
    for rule in rules(plan, links, overlay_exit) {
        batch.add_rule(TABLE, CHAIN, &rule);
    }
    batch.commit()
}

fn rules(plan: &NetworkConfig, links: Links, overlay_exit: Option<u32>) -> Vec<Vec<Statement>> {
    let from_a = MatchInput(links.veth);
    // Nor does anything that begins in the target namespace come back to the target namespace's loopback by way of the
    // gateway namespace, of whatever protocol.
    let to_loopback = plan.nets().map(|net| {
        let (network, prefix) = loopback::seen_from_gateway(net.child);
        vec![from_a, MatchIn(Address::Destination, network, prefix), Drop]
    });
    let mut rules: Vec<_> = to_loopback.collect();
    rules.extend(from_loopback(plan, &[from_a, TCP, NEW]));
    rules.extend([
        lead(&[from_a, TCP, NEW], DIAL),
        // Each other segment belongs to a connection of the gateway namespace. Nobody listens at this port.
        lead(&[from_a, TCP, Tproxy(NOBODY)], SOCKET),
        // Or to none, or the kernel did not see it: for a moment it stands in no table, while it becomes established
        // (inet_ehash_insert(); seen on Linux 6.18). The first data after the handshake comes at that moment now and
        // then, and the listener would answer with a reset. So it takes the way round, by then the connection is found.
        lead(&[from_a, TCP], DIAL),
    ]);
    // DNS goes by the tun that a flood of datagrams does not fill.
    rules.extend(plan.nets().map(|net| {
        lead(&[from_a, MatchDestination(net.dns), UDP, MatchDestinationPort(53)], DIAL)
    }));
    // A socket would get overlay datagrams unfinished, so they are never given to one as they come. Those that must not be
    // cut take the tun device, which is where the gateway process looks at that.
    let overlay_mark = if overlay_exit.is_some() { OVERLAY } else { DATA };
    for Header { mask, value } in &HEADERS {
        let overlay = MatchDatagram { mask: *mask, value: *value };
        rules.push(lead(&[from_a, UDP, overlay, MatchDontFragment], DATA));
        rules.push(lead(&[from_a, UDP, overlay], overlay_mark));
    }
    // No datagram socket has this port, so this goes on only if a connected one of the gateway namespace fits.
    rules.push(lead(&[from_a, UDP, Tproxy(PORT)], SOCKET));
    rules.extend(from_loopback(plan, &[from_a, UDP]));
    rules.push(lead(&[from_a, UDP], DATA));
    if let Some(exit) = overlay_exit {
        // The packet socket has it.
        rules.push(vec![MatchInput(exit), Drop]);
        // Finished, and not of a flow that the gateway process knows. Now it may be given to a socket: answers of a
        // published server go to that of its client. What is for the target namespace is an answer of the gateway process.
        for net in plan.nets() {
            let outbound =
                MatchDestinationNotIn(net.child, if net.child.is_ipv4() { 32 } else { 128 });
            let from_dial = MatchInput(links.dial);
            rules.push(lead(&[from_dial, outbound, UDP, Tproxy(PORT)], SOCKET));
            rules.extend(from_loopback(plan, &[from_dial, outbound, UDP]));
            rules.push(lead(&[from_dial, outbound, UDP], DATA));
        }
    }
    for echo in [ECHO_V4, ECHO_V6] {
        rules.extend(from_loopback(plan, &[from_a, echo]));
    }
    for net in plan.nets() {
        rules.extend(icmp(from_a, net.gateway));
    }
    // What the gateway process gives back: a SYN whose connection may be, and segments, which the listener refuses if
    // they still belong to none.
    rules.push(lead(&[MatchInput(links.dial), TCP, Tproxy(PORT)], SOCKET));
    rules
}

/// Packets that fit get a mark, and no further rule.
fn lead(fitting: &[Statement], mark: u32) -> Vec<Statement> {
    [fitting, &[SetMark(mark), Accept]].concat()
}

/// Servers on loopback addresses of the target namespace answer; nobody there begins. The kernel would drop such
/// packets on their way out of the target namespace as martians, but under their other addresses ([`loopback`]) it does
/// not know them.
fn from_loopback(plan: &NetworkConfig, begins: &[Statement]) -> Vec<Vec<Statement>> {
    let drop = |net: &Net| {
        let (network, prefix) = loopback::seen_from_gateway(net.child);
        [begins, &[MatchIn(Address::Source, network, prefix), Drop]].concat()
    };
    plan.nets().map(drop).collect()
}

/// Echo requests are answered by who is asked: the kernel of the gateway namespace for the gateway, else someone
/// beyond. Errors are for the sockets of the gateway namespace that they tell about; they end waiting for a closed
/// port. Those about sizes are not among them: the kernel would keep the size for the address of the target namespace,
/// which is that of everybody in the target namespace, and any container can make one. The gateway namespace fits a
/// narrow link in the target namespace without them, see `parameters`.
fn icmp(from_a: Statement, gateway: IpAddr) -> Vec<Vec<Statement>> {
    let error = |kind| lead(&[from_a, kind], SOCKET);
    match gateway {
        IpAddr::V4(_) => vec![
            lead(&[from_a, MatchDestinationNotIn(gateway, 32), ECHO_V4], DATA),
            vec![from_a, UNREACHABLE_V4, MatchIcmpCode(FRAGMENTATION_NEEDED), Drop],
            error(UNREACHABLE_V4),
        ],
        IpAddr::V6(_) => vec![
            vec![
                from_a,
                MatchDestinationNotIn(gateway, 128),
                MatchDestinationNotIn(LINK_LOCAL, 10),
                MatchDestinationNotIn(MULTICAST, 8),
                ECHO_V6,
                SetMark(DATA),
                Accept,
            ],
            error(MatchIcmpType(Family::V6, UNREACHABLE_V6)),
            vec![from_a, MatchIcmpType(Family::V6, TOO_BIG_V6), Drop],
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network_config::HostLoopback;

    #[test]
    fn without_the_pair_overlay_datagrams_stay_on_the_tun_device() {
        let net = |child: &str, gateway: &str, dns: &str, prefix| Net {
            child: child.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            dns: dns.parse().unwrap(),
            prefix,
        };
        let plan = NetworkConfig {
            ifname: "tap0".into(),
            mtu: 1500,
            v4: net("10.0.2.100", "10.0.2.2", "10.0.2.3", 24),
            v6: Some(net("fd00::100", "fd00::2", "fd00::3", 64)),
            host_loopback: HostLoopback::Closed,
        };
        let links = Links { veth: 2, dial: 3, data: 4 };
        let text = |exit| {
            let rules = rules(&plan, links, exit).into_iter();
            rules.map(|rule| rule.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        let of_overlays = |rule: &String| rule.contains("@th,");
        let (with, without): (Vec<_>, Vec<_>) = (text(Some(7)).collect(), text(None).collect());
        for (rules, mark) in [(&with, OVERLAY), (&without, DATA)] {
            let found: Vec<_> = rules.iter().filter(|rule| of_overlays(rule)).collect();
            assert_eq!(found.len(), 2 * HEADERS.len());
            for pair in found.chunks(2) {
                assert!(pair[0].ends_with(&format!("!= 0 meta mark set {DATA:#x} accept")));
                assert!(pair[1].ends_with(&format!("meta mark set {mark:#x} accept")));
            }
            // Before any socket could get one.
            let place = |of: &dyn Fn(&String) -> bool| rules.iter().position(of).unwrap();
            assert!(place(&of_overlays) < place(&|rule| rule.contains("17 tproxy")));
        }
        assert!(with.iter().any(|rule| rule.starts_with("iif 7 ")));
        assert!(!without.iter().any(|rule| rule.contains("iif 7")));
    }
}
