//! What the gateway decides about an attempt before any file of an egress policy is asked, and which addresses are its own.

use std::net::IpAddr;
#[cfg(feature = "gateway")]
use std::net::SocketAddr;

use api::NetworkDriverInfo;
use api::policy::PolicyGateway;
use drivers::{Cidr, NetworkDriver, SLIRP6};
use egress::Protocol;
#[cfg(feature = "gateway")]
use gateway::{
    NetworkConfig,
    policy::{self, Verdict},
};

/// Addresses that no container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Those of the namespace itself.
    pub(super) namespace: Vec<IpAddr>,
    /// Those of the gateway and its name server, as far as they are known.
    pub(super) gateway: Vec<IpAddr>,
}

impl Addresses {
    /// Those of a gateway that says so.
    pub(super) fn of(gateway: &PolicyGateway) -> Self {
        let networks = &gateway.networks;
        Self {
            namespace: networks.iter().map(|network| network.child).collect(),
            gateway: networks.iter().flat_map(|network| [network.gateway, network.dns]).collect(),
        }
    }

    /// Those of a network that runs without a policy. `None` if it cannot have one.
    pub(super) fn of_network(network: &NetworkDriverInfo) -> Option<Self> {
        let driver = NetworkDriver::from_name(&network.driver)?;
        let [child, gateway, _] = SLIRP6.map(IpAddr::from);
        let v6 = |address| network.ipv6.then_some(address);
        driver.has_egress_policy().then(|| Self {
            namespace: network.child_ip.into_iter().chain(v6(child)).collect(),
            gateway: network.dns.iter().copied().chain(v6(gateway)).collect(),
        })
    }

    /// Those without `--cidr`.
    pub(super) fn usual() -> Self {
        let [child, gateway, dns] = SLIRP6.map(IpAddr::from);
        let v4 = Cidr::DEFAULT;
        let v4_gateway = v4.gateway(NetworkDriver::Gateway);
        Self {
            namespace: vec![v4.child().into(), child],
            gateway: vec![v4_gateway.into(), v4.dns().into(), gateway, dns],
        }
    }
}

/// `Ok` if it goes on, for this reason; without one, the files decide. `Err` if it is denied, for this reason.
pub(super) type Own = Result<Option<&'static str>, &'static str>;

/// What the gateway decides about this, before any file.
#[cfg(feature = "gateway")]
pub(super) fn own(gateway: &PolicyGateway, protocol: Protocol, ip: IpAddr, port: u16) -> Own {
    let Some(gateway) = NetworkConfig::described(gateway) else { return Ok(None) };
    let (protocol, port) = match protocol {
        Protocol::Tcp => (policy::Protocol::Tcp, port),
        Protocol::Udp => (policy::Protocol::Udp, port),
        // A port for rules about addresses.
        Protocol::Icmp => (policy::Protocol::Echo, 7),
    };
    let is_gateway = gateway.nets().any(|net| net.gateway == ip);
    if is_gateway && protocol == policy::Protocol::Echo {
        return Ok(Some("the gateway itself answers this ping, and no rule applies to it"));
    }
    match policy::outbound(&gateway, protocol, SocketAddr::new(ip, port)) {
        Verdict::Dns => {
            Ok(Some("this is the name server of the namespace, and no rule applies to it"))
        }
        Verdict::Dial(_) => Ok(None),
        Verdict::Deny(reason) => Err(reason),
    }
}

/// Without the gateway, there is no policy either.
#[cfg(not(feature = "gateway"))]
pub(super) fn own(_: &PolicyGateway, _: Protocol, _: IpAddr, _: u16) -> Own {
    Ok(None)
}
