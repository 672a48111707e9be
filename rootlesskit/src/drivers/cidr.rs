//! The IPv4 network of a driver and the addresses that RootlessKit derives from it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network, its address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    base: Ipv4Addr,
    prefix: u8,
}

/// Why a CIDR was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CidrError {
    #[error("invalid CIDR address: {0} (the form is A.B.C.D/LEN, such as 10.0.2.0/24)")]
    Syntax(String),
    #[error(
        "cidr must be like {network}, not like {given}: the bits behind the prefix must be zero"
    )]
    HostBits { given: String, network: Cidr },
    #[error(
        "cidr {0} is too small: the child gets the address number 100 in it, so /25 is the longest prefix"
    )]
    Small(String),
    #[error("cidr {0} is not usable: it must leave room for unicast host addresses")]
    Unusable(String),
}

impl Cidr {
    /// 10.0.2.0/24, what every driver uses unless told otherwise.
    pub(crate) const DEFAULT: Self = Self { base: Ipv4Addr::new(10, 0, 2, 0), prefix: 24 };

    /// Address number `n` in the network; the constructor has made sure that it exists.
    fn host(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).saturating_add(n))
    }

    /// The address of the child.
    pub(crate) fn child(self) -> Ipv4Addr {
        self.host(100)
    }

    /// The first address: gvisor-tap-vsock's gateway and name server.
    #[cfg(feature = "gateway")]
    pub(crate) fn first(self) -> Ipv4Addr {
        self.host(1)
    }

    /// The gateway, and with host loopback allowed the host.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        self.host(2)
    }

    /// The name server of the helper.
    pub(crate) fn dns(self) -> Ipv4Addr {
        self.host(3)
    }

    /// Bits of the network part.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let syntax = || CidrError::Syntax(text.to_owned());
        let (ip, len) = text.split_once('/').ok_or_else(syntax)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| syntax())?;
        let plain = !len.is_empty() && len.len() <= 2 && len.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = len.parse().ok().filter(|n| plain && *n <= 32).ok_or_else(syntax)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = Self { base: Ipv4Addr::from(u32::from(ip) & mask), prefix };
        if network.base != ip {
            return Err(CidrError::HostBits { given: text.to_owned(), network });
        }
        if prefix > 25 {
            return Err(CidrError::Small(text.to_owned()));
        }
        if prefix == 0 || ip.is_multicast() || ip.is_loopback() || ip.octets()[0] >= 224 {
            return Err(CidrError::Unusable(text.to_owned()));
        }
        Ok(network)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_derived_from_the_network() {
        let cidr: Cidr = "10.41.0.0/16".parse().unwrap();
        let text = [cidr.child(), cidr.gateway(), cidr.dns()].map(|ip| ip.to_string());
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
        assert!(refuse("10.0.2.5/24").contains("must be like 10.0.2.0/24, not like 10.0.2.5/24"));
        assert!(refuse("10.0.2.0/26").contains("too small"));
        assert!(refuse("127.0.0.0/8").contains("not usable"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9./]{0,20}") {
            if let Ok(cidr) = text.parse::<Cidr>() {
                proptest::prop_assert_eq!(cidr.to_string().parse::<Cidr>(), Ok(cidr));
            }
        }
    }
}
