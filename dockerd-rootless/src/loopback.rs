//! Ports of the host's loopback that containers may reach (`DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW`).
//!
//! Only the gateway can tell ports apart, so the variable requires it. With another driver the services would stay out of
//! reach, or all of the host's loopback would have to be open.

use std::fmt;
use std::ops::RangeInclusive;

use drivers::{LoopbackPorts, NetworkDriver};
use hostenv::vars;

use crate::report::{Failure, Note};
use crate::settings::Settings;
use crate::{extra, removal};

/// The flags of rootlesskit: for a list of ports, and for all of them.
const FLAG: &str = "host-loopback-allow";
const CLOSED_FLAG: &str = "disable-host-loopback";

const NAME: &str = vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW;

/// The arguments of rootlesskit that these settings need, FLAGS not among them.
pub(crate) fn arguments(settings: &Settings) -> impl Iterator<Item = String> {
    let closed = (!settings.host_loopback).then(|| format!("--{CLOSED_FLAG}"));
    let ports = settings.loopback_ports.as_ref().map(|ports| format!("--{FLAG}={ports}"));
    closed.into_iter().chain(ports)
}

/// What containers reach of the host's loopback, FLAGS included. As text: the part of the line for the journal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Every port.
    pub(crate) open: bool,
    /// The ports of the variable and of all flags, which add up. A list in FLAGS that rootlesskit will refuse stays as it is.
    pub(crate) ports: Option<Result<LoopbackPorts, String>>,
}

impl Reach {
    pub(crate) fn of(settings: &Settings) -> Self {
        let closed = extra::last_bool(&settings.flags, CLOSED_FLAG);
        let mut lists: Vec<String> =
            settings.loopback_ports.iter().map(ToString::to_string).collect();
        lists.extend(extra::all(&settings.flags, FLAG));
        let together = lists.join(",");
        Self {
            open: closed.map_or(settings.host_loopback, |closed| !closed),
            ports: (!lists.is_empty()).then(|| together.parse().map_err(|_| together)),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host-loopback={}", self.open)?;
        match &self.ports {
            Some(Ok(ports)) => write!(f, " {FLAG}={ports}"),
            Some(Err(text)) => write!(f, " {FLAG}={text}"),
            None => Ok(()),
        }
    }
}

/// Refuses what contradicts the variable: the driver in force (`net`), or access to every port. Warns of a list that
/// restricts nothing.
///
/// # Errors
/// The variable is set, and the driver is not the gateway or everything is open.
pub(crate) fn check(settings: &Settings, net: &str, notes: &mut Vec<Note>) -> Result<(), Failure> {
    let reach = Reach::of(settings);
    if let Some(ports) = &settings.loopback_ports {
        if !NetworkDriver::from_name(net).is_some_and(NetworkDriver::has_loopback_ports) {
            return Err(wrong_driver(settings, ports, net));
        }
        if reach.open {
            return Err(all_open(settings, ports));
        }
    }
    notes.extend(reach.ports.and_then(Result::ok).and_then(|ports| warning(&ports)));
    Ok(())
}

fn wrong_driver(settings: &Settings, ports: &LoopbackPorts, net: &str) -> Failure {
    let first =
        removal::for_gateway(&settings.flags, (settings.net, settings.port_driver), |ports| {
            NetworkDriver::Gateway.goes_with(ports)
        });
    Failure::new(format!(
        "{NAME} is \"{ports}\", but the network driver {net} cannot open single ports of the host's loopback"
    ))
    .hint(format!("{first}, or {}", removal::variable(NAME)))
}

fn all_open(settings: &Settings, ports: &LoopbackPorts) -> Failure {
    let mut sources = Vec::new();
    if extra::last_bool(&settings.flags, CLOSED_FLAG) == Some(false) {
        sources.push(removal::flag(CLOSED_FLAG));
    }
    if settings.host_loopback {
        sources.push(removal::variable(vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK));
    }
    Failure::new(format!(
        "{NAME} is \"{ports}\", but containers can reach every port of the host's loopback"
    ))
    .hint(format!(
        "to open only these ports, {}; to open all ports, {}",
        sources.join(" and "),
        removal::variable(NAME)
    ))
}

/// A list with every port looks like a restriction.
fn warning(ports: &LoopbackPorts) -> Option<Note> {
    let all = |ranges: &[RangeInclusive<u16>]| ranges == [1..=u16::MAX];
    let protocols = match (all(&ports.tcp), all(&ports.udp)) {
        (true, true) => "TCP and UDP",
        (true, false) => "TCP",
        (false, true) => "UDP",
        (false, false) => return None,
    };
    Some(Note::warn(format!(
        "{FLAG} is \"{ports}\", so containers can reach every {protocols} port of the host's loopback. hint: list only the \
         ports that containers need"
    )))
}
