//! Ports of the host's loopback that containers may reach (`DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW`).
//!
//! Only the gateway can tell ports apart, so the variable requires it. With another driver the services would stay out of
//! reach, or all of the host's loopback would have to be open.

use drivers::{LoopbackPorts, NetworkDriver, loopback};
use hostenv::{Env, vars};

use crate::report::Failure;

/// The flag of rootlesskit.
pub(crate) const FLAG: &str = "host-loopback-allow";

const NAME: &str = vars::DOCKERD_ROOTLESS_HOST_LOOPBACK_ALLOW;

/// The value of the variable.
///
/// # Errors
/// It cannot be understood.
pub(crate) fn read(env: &Env) -> Result<Option<LoopbackPorts>, Failure> {
    let Some(value) = env.nonempty(NAME) else { return Ok(None) };
    let ports = value.to_string_lossy().parse().map_err(|why| {
        Failure::new(format!("{NAME} is {value:?}: {why}"))
            .hint(format!("set {NAME} to ports such as {}, or unset it", loopback::EXAMPLE))
    })?;
    Ok(Some(ports))
}

/// Refuses what contradicts the variable: the driver in force, or access to every port (`open`).
///
/// # Errors
/// The driver is not the gateway, or everything is open.
pub(crate) fn check(net: &str, open: bool) -> Result<(), Failure> {
    if !NetworkDriver::from_name(net).is_some_and(NetworkDriver::has_loopback_ports) {
        return Err(Failure::new(format!(
            "{NAME} is set, but the network driver {net} cannot open single ports of the host's loopback"
        ))
        .hint(format!(
            "unset {} and {}, so that the launcher uses the gateway network, or unset {NAME}. If the launcher does not \
             choose the gateway network, run dockerd-rootless-setuptool.sh check to see why",
            vars::DOCKERD_ROOTLESS_NET,
            vars::DOCKERD_ROOTLESS_PORT_DRIVER,
        )));
    }
    if open {
        return Err(Failure::new(format!(
            "{NAME} is set, but containers can reach every port of the host's loopback"
        ))
        .hint(format!(
            "unset {} (and remove --disable-host-loopback=false from {}) to open only these ports, or unset {NAME}",
            vars::DOCKERD_ROOTLESS_DISABLE_HOST_LOOPBACK,
            vars::DOCKERD_ROOTLESS_FLAGS
        )));
    }
    Ok(())
}
