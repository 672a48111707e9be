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

pub use cidr::{Cidr, CidrError};
pub use loopback::{LoopbackPorts, LoopbackPortsError};
pub use network::NetworkDriver;
pub use port::PortDriver;
pub use reason::{PORTS_RELAYED, Reason};

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
