//! Port drivers.

use crate::NetworkDriver;
use crate::names::named;

named! {
    /// How ports of the host reach servers in the child's network namespace: a value of `--port-driver`.
    PortDriver {
        /// No port is published.
        None = "none",
        /// pasta publishes every port that listens in the namespace.
        Implicit = "implicit",
        /// rootlesskit listens, and relays into the namespace.
        Builtin = "builtin",
        /// rootlesskit listens, and the gateway connects with the client's address.
        Gateway = "gateway",
        /// slirp4netns listens.
        Slirp4netns = "slirp4netns",
        /// pasta listens, and pesto(1) tells it where.
        Pesto = "pesto",
        /// The port driver of the gateway by RootlessKit's name for it.
        GvisorTapVsock = "gvisor-tap-vsock",
    }
}

impl PortDriver {
    /// The only network that it goes with, if there is just one.
    pub fn network(self) -> Option<NetworkDriver> {
        let mut networks = NetworkDriver::ALL.into_iter().filter(|network| network.goes_with(self));
        networks.next().filter(|_| networks.next().is_none())
    }

    /// Whether the API adds and removes its ports.
    pub fn is_managed(self) -> bool {
        !matches!(self, Self::None | Self::Implicit)
    }

    /// The socket in the state directory over which rootlesskit asks a helper for ports.
    pub fn socket(self) -> Option<&'static str> {
        match self {
            Self::Slirp4netns => Some(".s4nn.sock"),
            Self::Pesto => Some(".pasta.sock"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_belongs_to_one_driver() {
        for driver in PortDriver::ALL {
            assert_eq!(PortDriver::from_name(driver.name()), Some(driver));
        }
        assert_eq!(PortDriver::from_name("pasta"), None);
    }
}
