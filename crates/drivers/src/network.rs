//! Network drivers.

use crate::PortDriver;
use crate::names::named;

named! {
    /// What connects the child's network namespace with the outside: a value of `--net`.
    NetworkDriver {
        /// The child shares the host's network namespace.
        Host = "host",
        /// A network namespace with a loopback interface only.
        None = "none",
        /// This project's own network, which needs no helper program.
        Gateway = "gateway",
        /// passt's pasta(1).
        Pasta = "pasta",
        /// slirp4netns(1).
        Slirp4netns = "slirp4netns",
        /// VPNKit (github.com/moby/vpnkit).
        Vpnkit = "vpnkit",
        /// A veth pair to an administrator's bridge, made by lxc-user-nic(1).
        LxcUserNic = "lxc-user-nic",
        /// The gateway network with the addresses of RootlessKit's gvisor-tap-vsock driver.
        GvisorTapVsock = "gvisor-tap-vsock",
    }
}

/// MTU of user-mode TCP/IP stacks, in bytes. They copy every packet, so large segments make up for the cost of each.
const USER_MODE_MTU: u32 = 65520;
/// MTU of Ethernet, in bytes. VPNKit breaks above 16424.
const ETHERNET_MTU: u32 = 1500;

impl NetworkDriver {
    /// The MTU if the user chooses none, in bytes.
    pub fn default_mtu(self) -> u32 {
        match self {
            Self::Pasta | Self::Slirp4netns | Self::GvisorTapVsock => USER_MODE_MTU,
            Self::Host | Self::None | Self::Gateway | Self::Vpnkit | Self::LxcUserNic => {
                ETHERNET_MTU
            }
        }
    }

    /// The name of the interface in the namespace if the user chooses none.
    pub fn default_ifname(self) -> &'static str {
        match self {
            Self::LxcUserNic => "eth0",
            _ => "tap0",
        }
    }

    /// The port driver that the launcher uses with it.
    pub fn default_port_driver(self) -> PortDriver {
        self.port_drivers()[0]
    }

    /// The port drivers that go with it, the default one first.
    pub fn port_drivers(self) -> &'static [PortDriver] {
        use PortDriver::{Builtin, Gateway, GvisorTapVsock, Implicit, None, Pesto, Slirp4netns};
        match self {
            Self::Host => &[None],
            Self::Gateway => &[Gateway, Builtin, None],
            Self::Pasta => &[Implicit, Pesto, None],
            Self::Slirp4netns => &[Builtin, Slirp4netns, None],
            Self::GvisorTapVsock => &[Builtin, GvisorTapVsock, None],
            Self::None | Self::Vpnkit | Self::LxcUserNic => &[Builtin, None],
        }
    }

    /// Whether the port driver goes with it.
    pub fn goes_with(self, ports: PortDriver) -> bool {
        self.port_drivers().contains(&ports)
    }

    /// Whether the child gets a network namespace of its own.
    pub fn isolates(self) -> bool {
        self != Self::Host
    }

    /// Whether it connects the namespace with anything.
    pub fn connects(self) -> bool {
        !matches!(self, Self::Host | Self::None)
    }

    /// Whether it takes its addresses from `--cidr`, 10.0.2.0/24 by default. Others get theirs from a DHCP server.
    pub fn has_cidr(self) -> bool {
        matches!(self, Self::Gateway | Self::Pasta | Self::Slirp4netns | Self::GvisorTapVsock)
    }

    /// Whether it supports `--ipv6`.
    pub fn has_ipv6(self) -> bool {
        matches!(self, Self::Gateway | Self::Pasta | Self::Slirp4netns)
    }

    /// Whether the namespace reaches the host's loopback addresses through it, unless `--disable-host-loopback` is set.
    pub fn reaches_host_loopback(self) -> bool {
        self.has_cidr() || self == Self::Vpnkit
    }

    /// Whether it can open single ports of the host's loopback (`--host-loopback-allow`).
    pub fn has_loopback_ports(self) -> bool {
        self == Self::Gateway
    }

    /// Whether it can enforce an egress policy (`--egress-policy`).
    pub fn has_egress_policy(self) -> bool {
        matches!(self, Self::Gateway | Self::GvisorTapVsock)
    }

    /// Whether its interface is made with `/dev/net/tun`.
    pub fn needs_tun(self) -> bool {
        self.connects() && self != Self::LxcUserNic
    }

    /// Whether RootlessKit's help calls it experimental.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::Pasta | Self::LxcUserNic)
    }

    /// What to install to get the program that rootlesskit runs for it; `None` if it runs none.
    pub fn helper_package(self) -> Option<&'static str> {
        match self {
            Self::Pasta => Some("the package passt"),
            Self::Slirp4netns => Some("the package slirp4netns"),
            Self::Vpnkit => Some("VPNKit (github.com/moby/vpnkit)"),
            Self::LxcUserNic => Some("the package lxc"),
            Self::Host | Self::None | Self::Gateway | Self::GvisorTapVsock => None,
        }
    }

    /// The socket in the state directory over which the network itself is served.
    pub fn socket(self) -> Option<&'static str> {
        (self == Self::Vpnkit).then_some("vpnkit-ethernet.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_belongs_to_one_driver() {
        for driver in NetworkDriver::ALL {
            assert_eq!(NetworkDriver::from_name(driver.name()), Some(driver));
        }
        assert_eq!(NetworkDriver::from_name("bogus"), None);
        assert_eq!(NetworkDriver::from_name(""), None);
    }

    #[test]
    fn the_default_port_driver_is_the_first_of_those_that_go_with_the_network() {
        for driver in NetworkDriver::ALL {
            assert_eq!(driver.port_drivers()[0], driver.default_port_driver(), "{driver}");
            assert!(driver.goes_with(PortDriver::None), "{driver}");
        }
    }

    #[test]
    fn a_port_driver_with_a_network_of_its_own_goes_with_no_other() {
        for port in PortDriver::ALL {
            let networks: Vec<_> =
                NetworkDriver::ALL.into_iter().filter(|network| network.goes_with(port)).collect();
            match port.network() {
                Some(network) => assert_eq!(networks, [network], "{port}"),
                None => assert!(networks.len() > 1, "{port}"),
            }
        }
    }
}
