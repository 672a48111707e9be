//! Port drivers.

use std::fmt;

use crate::NetworkDriver;

/// How ports of the host reach servers in the child's network namespace: a value of `--port-driver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortDriver {
    /// No port is published.
    None,
    /// pasta publishes every port that listens in the namespace.
    Implicit,
    /// rootlesskit listens, and relays into the namespace.
    Builtin,
    /// rootlesskit listens, and the gateway connects with the client's address.
    Gateway,
    /// slirp4netns listens.
    Slirp4netns,
    /// pasta listens, and pesto(1) tells it where.
    Pesto,
    /// The port driver of the gateway by RootlessKit's name for it.
    GvisorTapVsock,
}

impl PortDriver {
    /// All of them, in the order of the help text.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Implicit,
        Self::Builtin,
        Self::Gateway,
        Self::Slirp4netns,
        Self::Pesto,
        Self::GvisorTapVsock,
    ];

    /// The value of `--port-driver` and of the API's `portDriver.driver`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Implicit => "implicit",
            Self::Builtin => "builtin",
            Self::Gateway => "gateway",
            Self::Slirp4netns => "slirp4netns",
            Self::Pesto => "pesto",
            Self::GvisorTapVsock => "gvisor-tap-vsock",
        }
    }

    /// The driver of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|driver| driver.name() == name)
    }

    /// The only network that it goes with, if there is just one.
    #[must_use]
    pub fn network(self) -> Option<NetworkDriver> {
        match self {
            Self::Implicit | Self::Pesto => Some(NetworkDriver::Pasta),
            Self::Gateway => Some(NetworkDriver::Gateway),
            Self::Slirp4netns => Some(NetworkDriver::Slirp4netns),
            Self::GvisorTapVsock => Some(NetworkDriver::GvisorTapVsock),
            Self::None | Self::Builtin => None,
        }
    }

    /// Whether the API adds and removes its ports.
    #[must_use]
    pub fn is_managed(self) -> bool {
        !matches!(self, Self::None | Self::Implicit)
    }

    /// The socket in the state directory over which rootlesskit asks a helper for ports.
    #[must_use]
    pub fn socket(self) -> Option<&'static str> {
        match self {
            Self::Slirp4netns => Some(".s4nn.sock"),
            Self::Pesto => Some(".pasta.sock"),
            _ => None,
        }
    }
}

impl fmt::Display for PortDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
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
