//! How the gateway namespace reaches servers on the loopback addresses of the target namespace, as their clients.
//!
//! dockerd may be told one address of the namespace for all published ports, or none, and then takes loopback
//! addresses: another one for each family and, since release 29.6, for each loopback address of the host. Only the
//! second way lets one port be published on several addresses, so published ports lead to loopback addresses of the
//! target namespace.
//!
//! Packets to these cannot come over a link: the target namespace's kernel drops them, as do dockerd's own rules in the
//! raw table. So they travel under addresses that nobody has, and the target namespace's end of the link translates,
//! bit by bit and without memory:
//!
//! | in the gateway namespace and on the link | in the target namespace |
//! |---|---|
//! | 247.x.y.z | 127.x.y.z |
//! | `fd00:0:0:7f::1` | `::1` |
//!
//! Inward this happens behind the raw table and before connection tracking: Docker's destination NAT finds the address
//! that it expects, and the container its client's. Outward it happens after everything else. An ICMP error quotes the
//! packet that it is about, and the quotation is translated, too: the sockets of the gateway namespace recognize it by
//! that.
//!
//! Since Linux 7.3, nf_tables changes packets for the host's root only (`nft_payload_set_init()` in
//! net/netfilter/nft_payload.c). Published ports that lead to loopback addresses are then relayed from inside the target
//! namespace, as the port driver `builtin` does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use netlink::nft::Address::{Destination, Quoted, Source};
use netlink::nft::Statement::{MatchIcmpType, MatchIn, MatchInput, MatchOutput, Move};
use netlink::nft::{Batch, Hook, PRIORITY_BEFORE_TRACKING, PRIORITY_LAST};
use netlink::{Result, Rt, sysctl};

use crate::network_config::NetworkConfig;
use crate::packet::{TOO_BIG_V6, UNREACHABLE, UNREACHABLE_V6};

/// The table in the target namespace.
const TABLE: &str = "rootlesskit-gateway";

/// The loopback network of the target namespace, and the one that stands for it: reserved (RFC 1112, class E), so
/// nobody publishes a port there, but routable on Linux.
const V4: (Ipv4Addr, Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(247, 0, 0, 0), 8);
/// The same of IPv6, a single address; the other one is of the network of which libslirp's addresses are.
const V6: (Ipv6Addr, Ipv6Addr, u8) =
    (Ipv6Addr::LOCALHOST, Ipv6Addr::new(0xfd00, 0, 0, 0x7f, 0, 0, 0, 1), 128);

/// The network of the family of `address` that stands for the target namespace's loopback, with the length of its
/// prefix in bits.
pub(super) fn seen_from_gateway(address: IpAddr) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(_) => (V4.1.into(), V4.2),
        IpAddr::V6(_) => (V6.1.into(), V6.2),
    }
}

/// The address under which the gateway namespace reaches a loopback address of the target namespace; any other address
/// is itself.
pub fn reached_at(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() => (V4.1 | (v4 & !Ipv4Addr::new(255, 0, 0, 0))).into(),
        IpAddr::V6(v6) if v6.is_loopback() => V6.1.into(),
        other => other,
    }
}

/// The address of the target namespace that [`reached_at`] was told.
pub fn meant_by(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == V4.1.octets()[0] => {
            (V4.0 | (v4 & !Ipv4Addr::new(255, 0, 0, 0))).into()
        }
        IpAddr::V6(v6) if v6 == V6.1 => V6.0.into(),
        other => other,
    }
}

/// Lets the gateway namespace reach the loopback addresses of the target namespace, which is the network namespace of
/// the calling thread. The target namespace's end of the veth pair has to be up; `proc_sys` is `/proc/sys`, writable.
/// False if the kernel lets nobody but the host's root translate, and nothing was changed.
///
/// # Errors
/// The kernel refuses the rules for another reason, or the parameter.
pub fn admit(plan: &NetworkConfig, proc_sys: &Path) -> Result<bool> {
    let mut rt = Rt::open()?;
    let link = rt.link_index(&plan.ifname)?;
    match rules(plan, link).commit() {
        Err(e) if e.raw_os_error() == Some(nix::libc::EPERM) => return Ok(false),
        committed => committed?,
    }
    // Servers that listen on such an address themselves answer from it.
    let key = format!("net.ipv4.conf.{}.route_localnet", plan.ifname);
    sysctl::write(proc_sys, &key, "1")?;
    if plan.v6.is_some() {
        // The kernel takes a packet to `::1` only if the route has the link that it came by (rt6_need_strict()).
        rt.add_local_route(V6.0.into(), link)?;
    }
    Ok(true)
}

fn rules(plan: &NetworkConfig, link: u32) -> Batch {
    let mut batch = Batch::new();
    batch.replace_table(TABLE);
    batch.add_chain(TABLE, "prerouting", Hook::Prerouting, PRIORITY_BEFORE_TRACKING);
    batch.add_chain(TABLE, "postrouting", Hook::Postrouting, PRIORITY_LAST);
    let (from, to) = (MatchInput(link), MatchOutput(link));
    let families: [(IpAddr, IpAddr, u8); 2] =
        [(V4.0.into(), V4.1.into(), V4.2), (V6.0.into(), V6.1.into(), V6.2)];
    for (inside, outside, prefix) in families {
        if plan.net_of(inside).is_none() {
            continue;
        }
        let inward =
            [from, MatchIn(Destination, outside, prefix), Move(Destination, inside, prefix)];
        batch.add_rule(TABLE, "prerouting", &inward);
        let outward = [to, MatchIn(Source, inside, prefix), Move(Source, outside, prefix)];
        batch.add_rule(TABLE, "postrouting", &outward);
        let family = netlink::Family::of(inside);
        let kinds: &[u8] =
            if inside.is_ipv4() { &[UNREACHABLE] } else { &[UNREACHABLE_V6, TOO_BIG_V6] };
        for &kind in kinds {
            let quoted = [
                to,
                MatchIcmpType(family, kind),
                MatchIn(Quoted, inside, prefix),
                Move(Quoted, outside, prefix),
            ];
            batch.add_rule(TABLE, "postrouting", &quoted);
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loopback_address_has_one_of_its_own() {
        for (inside, outside) in [
            ("127.0.0.1", "247.0.0.1"),
            ("127.1.2.3", "247.1.2.3"),
            ("::1", "fd00:0:0:7f::1"),
            ("10.0.2.100", "10.0.2.100"),
            ("fd00::100", "fd00::100"),
        ] {
            assert_eq!(reached_at(inside.parse().unwrap()).to_string(), outside);
            assert_eq!(meant_by(outside.parse().unwrap()).to_string(), inside);
        }
    }
}
