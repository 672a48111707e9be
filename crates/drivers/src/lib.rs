//! The network and port drivers of rootlesskit: their names, what they can do, which of them go together, and which
//! network driver to use if the user names none.
//!
//! rootlesskit, the launcher and the setup tool share this crate, so they cannot disagree. No other crate compares the
//! name of a driver as a string. Nothing here touches the system: [`choose`] asks its questions through a trait.

pub mod choose;
mod cidr;
pub mod loopback;
mod names;
mod network;
mod port;
mod reason;

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

pub use cidr::{Cidr, CidrError};
pub use loopback::{LoopbackPorts, LoopbackPortsError};
pub use network::NetworkDriver;
pub use port::PortDriver;
pub use reason::{PORTS_RELAYED, Reason};

/// The IPv6 network of the namespace, whatever `--cidr` is: that of libslirp.
pub const SLIRP6_NET: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64);

/// The child's address in [`SLIRP6_NET`], and that network's gateway and name server. The child's is not `fd00::100`: people
/// whose network comes from slirp4netns add that one by themselves, and `ip address add` fails if it is there already.
pub const SLIRP6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3),
];

/// The FIFO in the state directory to which pasta writes its process id when it serves.
pub const PASTA_READY_FIFO: &str = ".pasta-ready.pipe";

/// Every file that a driver has ever made in the state directory, those of RootlessKit's own drivers included: it may have been
/// the one that was killed.
pub const STATE_FILES: [&str; 6] = [
    PASTA_READY_FIFO,
    ".pasta.sock",
    ".s4nn.sock",
    "vpnkit-ethernet.sock",
    ".bp.sock",
    ".bp-ready.pipe",
];

/// The names of several drivers, separated by commas.
pub fn list<T: ToString>(drivers: impl IntoIterator<Item = T>) -> String {
    drivers.into_iter().map(|driver| driver.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_of_all_drivers_are_known_as_files_of_the_state_directory() {
        let networks = NetworkDriver::ALL.into_iter().filter_map(NetworkDriver::socket);
        for name in networks.chain(PortDriver::ALL.into_iter().filter_map(PortDriver::socket)) {
            assert!(STATE_FILES.contains(&name), "{name}");
        }
    }
}
