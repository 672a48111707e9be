//! The IPv4 network of a driver and the addresses that RootlessKit derives from it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use crate::NetworkDriver;

/// A value of `--cidr`: an IPv4 network with room for the child, which gets the address number 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(Ipv4Net);

/// Why a network was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// It is no IPv4 network.
    #[error("invalid CIDR address: {0} (must have the form A.B.C.D/LEN, such as 10.0.2.0/24)")]
    Syntax(String),
    /// It is the address of a host in a network.
    #[error("cidr must be {network} instead of {0}: the bits after the prefix must be zero", network = .0.trunc())]
    HostBits(Ipv4Net),
    /// It has fewer than 128 addresses.
    #[error(
        "cidr {0} is too small: the child uses host address 100, so the prefix must be /25 or shorter"
    )]
    Small(Ipv4Net),
    /// Its addresses are not those of hosts.
    #[error("cidr {0} is not usable: it must contain unicast host addresses")]
    Unusable(Ipv4Net),
}

impl Cidr {
    /// 10.0.2.0/24, what every driver uses unless told otherwise.
    pub const DEFAULT: Self = Self(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 2, 0), 24));

    /// The shortest prefix (bits) of a network of the host for which a start of the daemon warns of an overlap. A shorter
    /// one, such as the 10.0.0.0/8 of a company's VPN, is a summary most of which is elsewhere: the warning would come with
    /// each start, and mostly for nothing. `check`, which somebody asks, tells more ([`Self::SHORTEST_CHECKED`]).
    pub const SHORTEST_WARNED: u8 = 16;

    /// The same for `check`, where it is advice. What is left out are halves of the Internet, such as the 0.0.0.0/1 that VPNs
    /// use as a default route.
    pub const SHORTEST_CHECKED: u8 = 8;

    /// Address number `n` in the network; the constructor has made sure that it exists.
    fn host(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits().saturating_add(n))
    }

    /// The address of the child.
    pub fn child(self) -> Ipv4Addr {
        self.host(100)
    }

    /// The gateway. With host loopback allowed it is the host.
    pub fn gateway(self, driver: NetworkDriver) -> Ipv4Addr {
        self.host(if driver == NetworkDriver::GvisorTapVsock { 1 } else { 2 })
    }

    /// The name server of the helper.
    pub fn dns(self) -> Ipv4Addr {
        self.host(3)
    }

    /// The one of these networks that shares addresses with this one; of several that with the longest prefix.
    pub fn overlapping(self, networks: &[Ipv4Net]) -> Option<Ipv4Net> {
        let overlaps = |net: &Ipv4Net| net.contains(&self.0) || self.0.contains(net);
        networks.iter().copied().filter(overlaps).max_by_key(Ipv4Net::prefix_len)
    }

    /// A value for `--cidr` that shares no address with any of these networks, except for those that `check` leaves out
    /// ([`Self::SHORTEST_CHECKED`]).
    pub fn beside(networks: &[Ipv4Net]) -> Option<Self> {
        let counts = |net: &Ipv4Net| net.prefix_len() >= Self::SHORTEST_CHECKED;
        let networks: Vec<_> = networks.iter().copied().filter(counts).collect();
        let of = |a, b, c| Self(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), 24));
        let tens = (41..=60).map(|second| of(10, second, 0));
        let others = (240..=250).map(|third| of(192, 168, third)).chain([of(172, 31, 250)]);
        tens.chain(others).find(|cidr| cidr.overlapping(&networks).is_none())
    }

    /// Bits of the network part.
    pub fn prefix(self) -> u8 {
        self.0.prefix_len()
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let net: Ipv4Net = text.parse().map_err(|_| CidrError::Syntax(text.to_owned()))?;
        let (ip, prefix) = (net.addr(), net.prefix_len());
        if ip != net.network() {
            return Err(CidrError::HostBits(net));
        }
        if prefix > 25 {
            return Err(CidrError::Small(net));
        }
        if prefix == 0 || ip.is_loopback() || ip.octets()[0] >= 224 {
            return Err(CidrError::Unusable(net));
        }
        Ok(Self(net))
    }
}

impl From<Cidr> for Ipv4Net {
    fn from(cidr: Cidr) -> Self {
        cidr.0
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_derived_from_the_network() {
        let cidr: Cidr = "10.41.0.0/16".parse().unwrap();
        let text =
            [cidr.child(), cidr.gateway(NetworkDriver::Pasta), cidr.dns()].map(|ip| ip.to_string());
        assert_eq!(text, ["10.41.0.100", "10.41.0.2", "10.41.0.3"]);
        assert_eq!("10.0.2.0/24".parse(), Ok(Cidr::DEFAULT));
    }

    #[test]
    fn bad_networks_are_refused_with_the_reason() {
        let refuse = |text: &str| text.parse::<Cidr>().unwrap_err().to_string();
        for bad in [
            "",
            "10.0.2.0",
            "10.0.2.0/",
            "10.0.2.0/+4",
            "10.0.2.0/33",
            "10.0.2/24",
            "fd00::/64",
            "x/24",
        ] {
            assert!(refuse(bad).contains("invalid CIDR address"), "{bad}");
        }
        assert!(refuse("10.0.2.5/24").contains("cidr must be 10.0.2.0/24 instead of 10.0.2.5/24"));
        assert!(refuse("10.0.2.0/26").contains("too small"));
        assert!(refuse("127.0.0.0/8").contains("not usable"));
    }

    #[test]
    fn a_network_with_our_addresses_is_found() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
        let found = |texts: &[&str]| Cidr::DEFAULT.overlapping(&nets(texts));
        assert_eq!(found(&["10.0.2.0/24"]), Some(net("10.0.2.0/24")));
        assert_eq!(found(&["10.0.2.7/32"]), Some(net("10.0.2.7/32")));
        assert_eq!(found(&["10.0.0.0/8", "10.0.0.0/16"]), Some(net("10.0.0.0/16")));
        assert_eq!(found(&["10.0.3.0/24"]), None);
        let free = |texts: &[&str]| Cidr::beside(&nets(texts)).unwrap();
        assert_eq!(free(&["10.0.2.0/24"]).to_string(), "10.41.0.0/24");
        assert_eq!(free(&["10.0.0.0/8"]).to_string(), "192.168.240.0/24");
        // A VPN that routes everything has the Internet's halves.
        let vpn = ["0.0.0.0/1", "128.0.0.0/1", "10.0.2.0/24", "10.41.0.0/16"];
        assert_eq!(free(&vpn).to_string(), "10.42.0.0/24");
        assert_eq!(
            free(&["10.0.2.0/24"]).gateway(NetworkDriver::GvisorTapVsock),
            Ipv4Addr::new(10, 41, 0, 1)
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9./]{0,20}") {
            if let Ok(cidr) = text.parse::<Cidr>() {
                proptest::prop_assert_eq!(cidr.to_string().parse::<Cidr>(), Ok(cidr));
            }
        }

        #[test]
        fn a_free_network_shares_no_address_with_any_of_the_others(
            others in proptest::collection::vec((proptest::num::u32::ANY, 0..=32u8), 0..40)
        ) {
            let net = |(bits, prefix)| Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), prefix).trunc();
            let others: Vec<Ipv4Net> = others.into_iter().map(net).collect();
            let ours = Cidr::DEFAULT.overlapping(&others);
            proptest::prop_assert!(ours.is_none_or(|found| others.contains(&found)));
            if let Some(free) = Cidr::beside(&others) {
                let free = free.0;
                let mut counted =
                    others.iter().filter(|net| net.prefix_len() >= Cidr::SHORTEST_CHECKED);
                let apart = |net: &Ipv4Net| !net.contains(&free.addr()) && !free.contains(&net.addr());
                proptest::prop_assert!(counted.all(apart), "{free}");
            }
        }
    }
}
