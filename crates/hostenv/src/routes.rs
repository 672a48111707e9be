//! The routes of the network namespace that we are in, from `/proc/net/route` and `/proc/net/ipv6_route`.
//!
//! They tell whether there is a way out over IPv4, over IPv6, or both, and which networks the host reaches.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;

/// `RTF_UP`, `RTF_REJECT` of linux/route.h.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// The routes of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// A default route over IPv4.
    pub v4_default: bool,
    /// A default route over IPv6.
    pub v6_default: bool,
    /// Networks other than the default route.
    pub v4: Vec<Ipv4Net>,
}

impl Routes {
    /// Reads both files below `root`. A file that is not there has no routes.
    pub fn read(root: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(root.join("proc/net").join(name));
        let (v4, v6) = (text("route").unwrap_or_default(), text("ipv6_route").unwrap_or_default());
        Self::parse(&v4, &v6)
    }

    fn parse(v4: &str, v6: &str) -> Self {
        let mut routes = Self { v6_default: v6.lines().any(is_v6_default), ..Self::default() };
        for network in v4.lines().filter_map(v4_network) {
            if network.prefix_len() == 0 {
                routes.v4_default = true;
            } else {
                routes.v4.push(network);
            }
        }
        routes
    }

    /// The outside is reached over IPv6 and not over IPv4.
    pub fn only_v6(&self) -> bool {
        self.v6_default && !self.v4_default
    }
}

/// `eth0 000200C0 00000000 0001 0 0 0 00FFFFFF …`: addresses are numbers as this machine has them in memory.
fn v4_network(line: &str) -> Option<Ipv4Net> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let hex = |index: usize| u32::from_str_radix(words.get(index)?, 16).ok();
    let flags = hex(3)?;
    if flags & UP == 0 || flags & REJECT != 0 {
        return None;
    }
    let address = Ipv4Addr::from(hex(1)?.to_ne_bytes());
    let mask = Ipv4Addr::from(hex(7)?.to_ne_bytes());
    Ipv4Net::with_netmask(address, mask).ok().map(|net| net.trunc())
}

/// Destination and its prefix, source and its prefix, next hop, metric, two counters, flags, interface. A kernel without any
/// way out has a default route that rejects, on `lo`.
fn is_v6_default(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[destination, prefix, _, _, _, _, _, _, flags, interface] = words.as_slice() else {
        return false;
    };
    let flags = u32::from_str_radix(flags, 16).unwrap_or_default();
    let default = prefix == "00" && destination.bytes().all(|byte| byte == b'0');
    default && flags & UP != 0 && flags & REJECT == 0 && interface != "lo"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    const V6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n";
    const REJECTING: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    /// The line of a network, as this machine writes it.
    fn line(network: &str, flags: &str) -> String {
        let network = net(network);
        let raw = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
        let (address, mask) = (raw(network.addr()), raw(network.netmask()));
        format!("eth0\t{address:08X}\t00000000\t{flags}\t0\t0\t0\t{mask:08X}\t0\t0\t0\n")
    }

    #[test]
    fn defaults_and_networks_are_told_apart() {
        let v4 = [HEADER, &line("0.0.0.0/0", "0003"), &line("192.0.2.0/24", "0001")].concat();
        let both = Routes::parse(&v4, &[V6, REJECTING].concat());
        assert_eq!((both.v4_default, both.v6_default, both.only_v6()), (true, true, false));
        assert_eq!(both.v4, [net("192.0.2.0/24")]);
        let networks = ["10.0.0.0/8", "10.0.0.0/16", "10.0.3.0/24", "10.0.2.7/32"];
        let lines: String = networks.iter().map(|network| line(network, "0001")).collect();
        let found = Routes::parse(&[lines, line("0.0.0.0/0", "0001")].concat(), "");
        assert_eq!(found.v4, networks.map(net));
        let six = Routes::parse(&line("192.0.2.0/24", "0001"), V6);
        assert!(six.only_v6(), "a network without a way out");
        assert!(!Routes::parse(HEADER, REJECTING).only_v6(), "no way out at all");
        assert!(Routes::parse(&line("0.0.0.0/0", "0201"), V6).only_v6(), "unreachable default");
        assert_eq!(Routes::read(Path::new("/nonexistent")), Routes::default());
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(v4 in "[0-9A-F \t\n]{0,120}", v6 in "[0-9a-f \n]{0,120}") {
            let _ = Routes::parse(&v4, &v6);
        }
    }
}
