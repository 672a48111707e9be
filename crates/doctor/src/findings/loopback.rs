//! Ports of the host's loopback that containers are to reach: what the launcher or rootlesskit refuses.

use drivers::{NetworkDriver, loopback};

use super::driver::gateway_in_force;
use super::{Finding, Wish};
use crate::facts::{AllowedPorts, Facts, HostLoopback, UserSetting};

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let reach = &facts.loopback;
    if reach.lists.is_empty() {
        return;
    }
    findings.extend(reach.lists.iter().filter_map(value));
    findings.extend(driver(facts, reach));
    findings.extend(all(reach));
}

fn settings(reach: &HostLoopback) -> impl Iterator<Item = &UserSetting> {
    reach.lists.iter().map(|list| &list.setting)
}

fn shown<'a>(settings: impl Iterator<Item = &'a UserSetting>) -> String {
    settings.map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn removal<'a>(settings: impl Iterator<Item = &'a UserSetting>) -> String {
    settings.map(UserSetting::removal).collect::<Vec<_>>().join(" and ")
}

fn value(list: &AllowedPorts) -> Option<Finding> {
    let why = list.ports.as_ref().err()?;
    let seen = format!("{} is not a list of ports: {why}", list.setting);
    let no_start = "the daemon does not start with such a value";
    Some(Finding::fatal("host-loopback-value", seen, no_start).fix(format!(
        "set it to a list of ports, such as {}, or {}",
        loopback::EXAMPLE,
        list.setting.removal()
    )))
}

/// A network that there is none of is a finding of its own.
fn driver(facts: &Facts, reach: &HostLoopback) -> Option<Finding> {
    let net = facts.tools.net.driver().filter(|net| !net.has_loopback_ports())?;
    let seen = format!("{} is set, but the network driver is {net}", shown(settings(reach)));
    let why = "only the network driver gateway can open single ports of the host's loopback, so the daemon does not \
               start";
    Some(
        Finding::fatal("host-loopback-driver", seen, why)
            .fixes(gateway_in_force(facts, |ports| NetworkDriver::Gateway.goes_with(ports)))
            .fix(format!("or {}", removal(settings(reach)))),
    )
}

/// It would look like a restriction, and nothing would be restricted.
fn all(reach: &HostLoopback) -> Option<Finding> {
    if reach.opened_by.is_empty() {
        return None;
    }
    let seen =
        format!("{} is set, but so is {}", shown(settings(reach)), shown(reach.opened_by.iter()));
    let why =
        "containers could reach every port of the host's loopback, so the daemon does not start";
    Some(
        Finding::fatal("host-loopback-open", seen, why)
            .fix(format!("to open only some ports, {}", removal(reach.opened_by.iter())))
            .fix(format!("to open all ports, {}", removal(settings(reach)))),
    )
}
