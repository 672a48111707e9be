//! Ports of the host's loopback that containers are to reach: what the launcher refuses.

use std::path::PathBuf;

use drivers::{NetworkDriver, PortDriver, loopback};
use hostenv::vars;

use super::driver::MAKE_GATEWAY_WORK;
use super::{Finding, Wish};
use crate::facts::{AllowedPorts, Facts, Net};

const NAME: &str = vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW;
const NO_START: &str = "the launcher does not start the daemon with such a value";

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    let Some(allowed) = &facts.loopback else { return };
    findings.extend(value(allowed));
    findings.extend(driver(facts, allowed));
    findings.extend(all(allowed));
}

/// Where a variable is set, if that is not the environment.
fn place(file: Option<&PathBuf>) -> String {
    file.map(|file| format!(" in {}", file.display())).unwrap_or_default()
}

/// How to get rid of a variable.
fn unset(name: &str, file: Option<&PathBuf>) -> String {
    match file {
        Some(file) => format!("remove {name} from {}", file.display()),
        None => format!("unset {name}"),
    }
}

fn value(allowed: &AllowedPorts) -> Option<Finding> {
    let why = allowed.ports.as_ref().err()?;
    let file = allowed.file.as_ref();
    let seen = format!("{NAME} is {:?}{}: {why}", allowed.value, place(file));
    Some(Finding::fatal("host-loopback-value", seen, NO_START).fix(format!(
        "set the variable to ports such as {}, or {}",
        loopback::EXAMPLE,
        unset(NAME, file)
    )))
}

/// A network that there is none of is a finding of its own.
fn driver(facts: &Facts, allowed: &AllowedPorts) -> Option<Finding> {
    let net = facts.tools.net.driver().filter(|net| !net.has_loopback_ports())?;
    let seen = format!(
        "{NAME}={}{} is set, but the network driver is {net}",
        allowed.value,
        place(allowed.file.as_ref())
    );
    let why = "only the network driver gateway can open single ports of the host's loopback, so the launcher does not start \
               the daemon";
    let mut finding = Finding::fatal("host-loopback-driver", seen, why);
    if matches!(facts.tools.net, Net::Named(_)) {
        finding = finding.fix(format!("unset {}", vars::DOCKERD_ROOTLESS_NET));
    }
    let ports = facts.storage.port_driver.as_deref().and_then(PortDriver::from_name);
    if ports.is_some_and(|ports| !NetworkDriver::Gateway.goes_with(ports)) {
        finding = finding.fix(format!("unset {}", vars::DOCKERD_ROOTLESS_PORT_DRIVER));
    }
    if finding.remedy.said.is_empty() {
        finding = finding.fix(MAKE_GATEWAY_WORK);
    }
    Some(finding.fix(format!("or {}", unset(NAME, allowed.file.as_ref()))))
}

/// It would look like a restriction, and nothing would be restricted.
fn all(allowed: &AllowedPorts) -> Option<Finding> {
    let file = allowed.all.as_ref()?.as_ref();
    let name = vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK;
    let seen = format!("{NAME} is set, and {name} is false{}", place(file));
    let why = "containers could reach every port of the host's loopback, so the launcher does not start the daemon";
    let finding = Finding::fatal("host-loopback-open", seen, why);
    Some(
        finding
            .fix(format!("to open only some ports, {}", unset(name, file)))
            .fix(format!("to open all ports, {}", unset(NAME, allowed.file.as_ref()))),
    )
}
