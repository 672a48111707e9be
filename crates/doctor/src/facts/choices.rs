//! The drivers that the user chose.

use drivers::{NetworkDriver, PortDriver};
use hostenv::vars;

use super::variables::{UserSetting, UserSettings};

#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Network drivers: of the flags, then of the variable. The first one is in force.
    pub nets: Vec<UserSetting>,
    /// Port drivers in the same order.
    pub port_drivers: Vec<UserSetting>,
}

impl Choices {
    pub(super) fn gather(settings: &UserSettings<'_>) -> Self {
        let both = |flag, name| {
            settings.flags.last(flag).into_iter().chain(settings.variable(name)).collect()
        };
        Self {
            nets: both("net", vars::DOCKERD_ROOTLESS_NET),
            port_drivers: both("port-driver", vars::DOCKERD_ROOTLESS_PORT_DRIVER),
        }
    }

    /// The name of the network driver.
    pub fn net(&self) -> Option<&str> {
        self.nets.first().map(|setting| setting.value.as_str())
    }

    /// The name of the port driver.
    pub fn port_driver(&self) -> Option<&str> {
        self.port_drivers.first().map(|setting| setting.value.as_str())
    }

    /// The network drivers to remove, so that one that suits or none is in force. What is no driver does not suit.
    pub fn unsuitable_nets(
        &self,
        suits: impl Fn(NetworkDriver) -> bool,
    ) -> impl Iterator<Item = &UserSetting> {
        let suits = move |name: &str| NetworkDriver::from_name(name).is_some_and(&suits);
        self.nets.iter().take_while(move |setting| !suits(&setting.value))
    }

    /// The same of port drivers.
    pub fn unsuitable_port_drivers(
        &self,
        suits: impl Fn(PortDriver) -> bool,
    ) -> impl Iterator<Item = &UserSetting> {
        let suits = move |name: &str| PortDriver::from_name(name).is_some_and(&suits);
        self.port_drivers.iter().take_while(move |setting| !suits(&setting.value))
    }
}
