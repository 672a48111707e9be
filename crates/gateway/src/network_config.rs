//! Addresses and limits: everything the gateway is told, as plain data.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use api::policy::{GatewayNetwork, PolicyGateway};
use egress::PortRange;
use serde::{Deserialize, Serialize};

/// The addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// The child's address, in the target namespace.
    pub child: IpAddr,
    /// The default gateway, in the gateway namespace. It stands for what [`NetworkConfig::host_loopback`] leaves of the
    /// host's loopback.
    pub gateway: IpAddr,
    /// The name server, in the gateway namespace; may be the same as `gateway`.
    pub dns: IpAddr,
    /// Length of the prefix that they share, in bits.
    pub prefix: u8,
}

/// One gateway network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Name of the target namespace's end of the veth pair, at most 15 bytes.
    pub ifname: String,
    /// MTU of the veth pair in bytes. Segments of 64 KiB cross it whole whatever this is.
    pub mtu: u32,
    /// IPv4, always there.
    pub v4: Net,
    /// IPv6, if wanted.
    pub v6: Option<Net>,
    /// What the gateway's address leads to.
    pub host_loopback: HostLoopback,
}

/// What may be reached of the host's loopback, at the gateway's address of the same family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostLoopback {
    /// Nothing.
    Closed,
    /// These ports. The ranges of each protocol are in ascending order and apart from each other.
    Ports {
        /// Ports of TCP.
        tcp: Vec<RangeInclusive<u16>>,
        /// Ports of UDP.
        udp: Vec<RangeInclusive<u16>>,
    },
    /// Every port.
    Open,
}

impl NetworkConfig {
    /// The networks of both families.
    pub fn nets(&self) -> impl Iterator<Item = &Net> {
        std::iter::once(&self.v4).chain(&self.v6)
    }

    /// Whether this is an address of the target namespace itself.
    pub fn is_child(&self, address: IpAddr) -> bool {
        self.nets().any(|net| net.child == address)
    }

    /// What [`crate::policy`] goes by, for the API.
    pub fn describe(&self) -> PolicyGateway {
        let network = |net: &Net| {
            let Net { child, gateway, dns, prefix } = *net;
            GatewayNetwork { child, gateway, dns, prefix }
        };
        let ranges = |ranges: &[RangeInclusive<u16>]| {
            ranges.iter().map(|of| PortRange { first: *of.start(), last: *of.end() }).collect()
        };
        let all = [1..=u16::MAX];
        let (tcp, udp) = match &self.host_loopback {
            HostLoopback::Closed => (&[][..], &[][..]),
            HostLoopback::Ports { tcp, udp } => (&tcp[..], &udp[..]),
            HostLoopback::Open => (&all[..], &all[..]),
        };
        let networks = self.nets().map(network).collect();
        PolicyGateway { networks, loopback_tcp: ranges(tcp), loopback_udp: ranges(udp) }
    }

    /// What decides as the gateway does that is described so ([`crate::policy::outbound`]), and has no link. `None` if it has
    /// no IPv4.
    pub fn described(gateway: &PolicyGateway) -> Option<Self> {
        let net = |is_ipv4| {
            let mut networks = gateway.networks.iter();
            let GatewayNetwork { child, gateway, dns, prefix } =
                *networks.find(|network| network.gateway.is_ipv4() == is_ipv4)?;
            Some(Net { child, gateway, dns, prefix })
        };
        let ranges = |of: &[PortRange]| of.iter().map(|of| of.first..=of.last).collect::<Vec<_>>();
        let (tcp, udp) = (ranges(&gateway.loopback_tcp), ranges(&gateway.loopback_udp));
        let host_loopback = if tcp.is_empty() && udp.is_empty() {
            HostLoopback::Closed
        } else {
            HostLoopback::Ports { tcp, udp }
        };
        let (ifname, v4, v6) = (String::new(), net(true)?, net(false));
        Some(Self { ifname, mtu: 0, v4, v6, host_loopback })
    }

    /// The network of the family of `address`.
    pub fn net_of(&self, address: IpAddr) -> Option<&Net> {
        if address.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() }
    }
}

/// The name servers of the host, in the order in which they are asked.
pub type Resolvers = Vec<SocketAddr>;
