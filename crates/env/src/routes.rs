//! The routes of the network namespace that we are in, from `/proc/net/route` and `/proc/net/ipv6_route`.
//!
//! Two questions are asked: is there a way out over IPv4, over IPv6, or both; and does a network of the host have the
//! addresses that rootlesskit gives to its own.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

/// The network of the namespace unless `--cidr` says otherwise, of libslirp and of us.
pub const USUAL_CIDR: Cidr = Cidr { address: Ipv4Addr::new(10, 0, 2, 0), prefix: 24 };

/// `RTF_UP`, `RTF_REJECT` of linux/route.h.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// `None` if the prefix is longer than 32. Bits of hosts are cleared.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self { address: Ipv4Addr::from_bits(address.to_bits() & mask), prefix })
    }

    /// The length of the prefix, in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether there is an address that is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix)).unwrap_or_default();
        (self.address.to_bits() ^ other.address.to_bits()) & mask == 0
    }

    /// The address of the host as the namespace knows it: the second one, 10.0.2.2 usually.
    #[must_use]
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits().saturating_add(2))
    }
}

fn mask(prefix: u8) -> Option<u32> {
    let ones = 32u8.checked_sub(prefix)?;
    Some(u32::MAX.checked_shl(ones.into()).unwrap_or_default())
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        Self::new(address.parse().map_err(drop)?, prefix.parse().map_err(drop)?).ok_or(())
    }
}

/// The routes of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// A default route over IPv4.
    pub v4_default: bool,
    /// A default route over IPv6.
    pub v6_default: bool,
    /// Networks other than the default route.
    pub v4: Vec<Cidr>,
}

impl Routes {
    /// Reads both files below `root`. A file that is not there has no routes.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(root.join("proc/net").join(name));
        let (v4, v6) = (text("route").unwrap_or_default(), text("ipv6_route").unwrap_or_default());
        Self::parse(&v4, &v6)
    }

    fn parse(v4: &str, v6: &str) -> Self {
        let mut routes = Self { v6_default: v6.lines().any(is_v6_default), ..Self::default() };
        for network in v4.lines().filter_map(v4_network) {
            if network.prefix == 0 {
                routes.v4_default = true;
            } else {
                routes.v4.push(network);
            }
        }
        routes
    }

    /// The outside is reached over IPv6 and not over IPv4.
    #[must_use]
    pub fn only_v6(&self) -> bool {
        self.v6_default && !self.v4_default
    }

    /// The network of the host that shares addresses with `ours`, the one with the longest prefix.
    #[must_use]
    pub fn overlapping(&self, ours: Cidr) -> Option<Cidr> {
        let shared = self.v4.iter().copied().filter(|network| network.overlaps(ours));
        shared.max_by_key(|network| network.prefix)
    }

    /// A network for `--cidr` that shares no address with any of the host's.
    #[must_use]
    pub fn free_cidr(&self) -> Option<Cidr> {
        let of = |a, b, c| Cidr { address: Ipv4Addr::new(a, b, c, 0), prefix: 24 };
        let tens = (41..=60).map(|second| of(10, second, 0));
        let others = (240..=250).map(|third| of(192, 168, third)).chain([of(172, 31, 250)]);
        tens.chain(others).find(|cidr| self.overlapping(*cidr).is_none())
    }
}

/// `eth0 000200C0 00000000 0001 0 0 0 00FFFFFF …`: addresses are numbers as this machine has them in memory.
fn v4_network(line: &str) -> Option<Cidr> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let hex = |index: usize| u32::from_str_radix(words.get(index)?, 16).ok();
    let flags = hex(3)?;
    if flags & UP == 0 || flags & REJECT != 0 {
        return None;
    }
    let address = Ipv4Addr::from(hex(1)?.to_ne_bytes());
    let mask = u32::from_be_bytes(hex(7)?.to_ne_bytes());
    Cidr::new(address, u8::try_from(mask.leading_ones()).ok()?)
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

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    /// The line of a network, as this machine writes it.
    fn line(network: &str, flags: &str) -> String {
        let network = cidr(network);
        let raw = |bits: u32| u32::from_ne_bytes(bits.to_be_bytes());
        let (address, mask) = (network.address.to_bits(), mask(network.prefix).unwrap());
        format!(
            "eth0\t{:08X}\t00000000\t{flags}\t0\t0\t0\t{:08X}\t0\t0\t0\n",
            raw(address),
            raw(mask)
        )
    }

    #[test]
    fn defaults_and_networks_are_told_apart() {
        let v4 = [HEADER, &line("0.0.0.0/0", "0003"), &line("192.0.2.0/24", "0001")].concat();
        let both = Routes::parse(&v4, &[V6, REJECTING].concat());
        assert_eq!((both.v4_default, both.v6_default, both.only_v6()), (true, true, false));
        assert_eq!(both.v4, [cidr("192.0.2.0/24")]);
        let six = Routes::parse(&line("192.0.2.0/24", "0001"), V6);
        assert!(six.only_v6(), "a network without a way out");
        assert!(!Routes::parse(HEADER, REJECTING).only_v6(), "no way out at all");
        assert!(Routes::parse(&line("0.0.0.0/0", "0201"), V6).only_v6(), "unreachable default");
        assert_eq!(Routes::read(Path::new("/nonexistent")), Routes::default());
    }

    #[test]
    fn a_network_with_our_addresses_is_found() {
        let of = |networks: &[&str]| {
            let lines: String = networks.iter().map(|network| line(network, "0001")).collect();
            Routes::parse(&lines, "")
        };
        assert_eq!(of(&["10.0.2.0/24"]).overlapping(USUAL_CIDR), Some(cidr("10.0.2.0/24")));
        assert_eq!(of(&["10.0.2.7/32"]).overlapping(USUAL_CIDR), Some(cidr("10.0.2.7/32")));
        assert_eq!(
            of(&["10.0.0.0/8", "10.0.0.0/16"]).overlapping(USUAL_CIDR),
            Some(cidr("10.0.0.0/16"))
        );
        assert_eq!(of(&["10.0.3.0/24", "0.0.0.0/0"]).overlapping(USUAL_CIDR), None);
        assert_eq!(of(&["10.0.2.0/24"]).free_cidr(), Some(cidr("10.41.0.0/24")));
        assert_eq!(of(&["10.0.0.0/8"]).free_cidr(), Some(cidr("192.168.240.0/24")));
        assert_eq!(cidr("10.41.0.0/24").host(), Ipv4Addr::new(10, 41, 0, 2));
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(v4 in "[0-9A-F \t\n]{0,120}", v6 in "[0-9a-f \n]{0,120}", cidr in "[0-9./]{0,20}") {
            let routes = Routes::parse(&v4, &v6);
            let _ = (routes.free_cidr(), routes.overlapping(USUAL_CIDR), cidr.parse::<Cidr>());
        }
    }
}
