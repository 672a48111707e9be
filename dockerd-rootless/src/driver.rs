//! The names of RootlessKit's network and port drivers, and which of them go together.

use std::fmt;

/// A network driver of RootlessKit, other than `host`: dockerd needs a namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    Gateway,
    Slirp4netns,
    Pasta,
    Vpnkit,
    LxcUserNic,
    GvisorTapVsock,
    None,
}

impl Net {
    pub(crate) const ALL: &'static [(&'static str, Self)] = &[
        ("gateway", Self::Gateway),
        ("slirp4netns", Self::Slirp4netns),
        ("pasta", Self::Pasta),
        ("vpnkit", Self::Vpnkit),
        ("lxc-user-nic", Self::LxcUserNic),
        ("gvisor-tap-vsock", Self::GvisorTapVsock),
        ("none", Self::None),
    ];

    /// The MTU in bytes. User-space stacks copy every packet, so a large one is what makes them fast; the
    /// others have a real link below them, and VPNKit breaks above 16424.
    pub(crate) fn default_mtu(self) -> u32 {
        match self {
            Self::Slirp4netns | Self::Pasta | Self::GvisorTapVsock => 65520,
            Self::Gateway | Self::Vpnkit | Self::LxcUserNic | Self::None => 1500,
        }
    }

    pub(crate) fn default_port_driver(self) -> PortDriver {
        match self {
            Self::Gateway => PortDriver::Gateway,
            Self::Pasta => PortDriver::Implicit,
            _ => PortDriver::Builtin,
        }
    }

    /// The port drivers that RootlessKit accepts with this network.
    pub(crate) fn port_drivers(self) -> &'static [PortDriver] {
        use PortDriver::{Builtin, Gateway, GvisorTapVsock, Implicit, None, Pesto, Slirp4netns};
        match self {
            Self::Gateway => &[Gateway, Builtin, None],
            Self::Slirp4netns => &[Builtin, Slirp4netns, None],
            Self::Pasta => &[Implicit, Pesto, None],
            Self::GvisorTapVsock => &[Builtin, GvisorTapVsock, None],
            Self::Vpnkit | Self::LxcUserNic | Self::None => &[Builtin, None],
        }
    }
}

/// A port driver of RootlessKit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortDriver {
    Gateway,
    Builtin,
    Implicit,
    Slirp4netns,
    GvisorTapVsock,
    Pesto,
    None,
}

impl PortDriver {
    pub(crate) const ALL: &'static [(&'static str, Self)] = &[
        ("gateway", Self::Gateway),
        ("builtin", Self::Builtin),
        ("implicit", Self::Implicit),
        ("slirp4netns", Self::Slirp4netns),
        ("gvisor-tap-vsock", Self::GvisorTapVsock),
        ("pesto", Self::Pesto),
        ("none", Self::None),
    ];
}

/// The value that a name in such a table stands for.
pub(crate) fn parse<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
}

/// The names of such a table, for a message.
pub(crate) fn names<T>(table: &[(&str, T)]) -> String {
    table.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
}

fn name_of<T: Copy + PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    table.iter().find(|(_, v)| *v == value).map_or("", |(n, _)| n)
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(Self::ALL, *self))
    }
}

impl fmt::Display for PortDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(Self::ALL, *self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_pair_is_allowed_and_every_name_is_its_own() {
        for (name, net) in Net::ALL {
            assert!(net.port_drivers().contains(&net.default_port_driver()), "{name}");
            assert_eq!(net.to_string(), *name);
            assert_eq!(parse(Net::ALL, name), Some(*net));
        }
        for (name, driver) in PortDriver::ALL {
            assert_eq!(driver.to_string(), *name);
            assert!(Net::ALL.iter().any(|(_, net)| net.port_drivers().contains(driver)), "{name}");
        }
    }
}
