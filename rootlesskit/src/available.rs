//! The drivers that this build has: the features of the crate leave out drivers with all that goes with them.

use drivers::{NetworkDriver, PortDriver};

pub(crate) fn has_network(driver: NetworkDriver) -> bool {
    match driver {
        NetworkDriver::Host | NetworkDriver::None => true,
        NetworkDriver::Gateway | NetworkDriver::GvisorTapVsock => cfg!(feature = "gateway"),
        NetworkDriver::Pasta => cfg!(feature = "pasta"),
        NetworkDriver::Slirp4netns => cfg!(feature = "slirp4netns"),
        NetworkDriver::Vpnkit => cfg!(feature = "vpnkit"),
        NetworkDriver::LxcUserNic => cfg!(feature = "lxc-user-nic"),
    }
}

/// Whether this build has the port driver: it goes with the network that it needs.
pub(crate) fn has_ports(driver: PortDriver) -> bool {
    driver.network().is_none_or(has_network)
}

/// The network drivers of this build, in the order of the help text.
pub(crate) fn networks() -> impl Iterator<Item = NetworkDriver> {
    NetworkDriver::ALL.into_iter().filter(|driver| has_network(*driver))
}

/// The port drivers of this build as the help of `--port-driver` and errors about it list them.
pub(crate) fn port_drivers() -> String {
    let note = |driver: PortDriver| match driver {
        PortDriver::Implicit | PortDriver::Pesto => format!("{driver} (for pasta)"),
        _ => driver.to_string(),
    };
    drivers::list(PortDriver::ALL.into_iter().filter(|driver| has_ports(*driver)).map(note))
}
