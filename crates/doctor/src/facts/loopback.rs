//! What the user's settings let containers reach of the host's loopback.

use drivers::{LoopbackPorts, LoopbackPortsError};
use hostenv::vars;

use super::variables::{UserSetting, UserSettings};

/// A list of ports that containers are to reach.
#[derive(Debug, Clone)]
pub struct AllowedPorts {
    pub setting: UserSetting,
    /// Or why the value is refused.
    pub ports: Result<LoopbackPorts, LoopbackPortsError>,
}

#[derive(Debug, Clone)]
pub struct HostLoopback {
    /// That of the variable, then those of the flags. They add up.
    pub lists: Vec<AllowedPorts>,
    /// Settings that open every port; none if a flag closes them all the same.
    pub opened_by: Vec<UserSetting>,
}

impl HostLoopback {
    pub(super) fn gather(settings: &UserSettings<'_>) -> Self {
        let flags = &settings.flags;
        let lists = settings
            .variable(vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW)
            .into_iter()
            .chain(flags.all("host-loopback-allow"));
        let lists = lists.map(|setting| AllowedPorts { ports: setting.value.parse(), setting });
        let disabled = settings.variable(vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK);
        let by_variable = disabled.filter(|setting| setting.value == "false");
        let opened_by = match flags.last_bool("disable-host-loopback") {
            Some((true, _)) => Vec::new(),
            Some((false, by_flag)) => [by_flag].into_iter().chain(by_variable).collect(),
            None => by_variable.into_iter().collect(),
        };
        Self { lists: lists.collect(), opened_by }
    }

    /// The list of the variable.
    pub fn of_variable(&self) -> Option<&AllowedPorts> {
        self.lists.first().filter(|list| list.setting.flag.is_none())
    }

    /// Whether a list has this TCP port.
    pub fn allows_tcp(&self, port: u16) -> bool {
        let mut ports = self.lists.iter().filter_map(|list| list.ports.as_ref().ok());
        ports.any(|ports| ports.tcp.iter().any(|range| range.contains(&port)))
    }
}
