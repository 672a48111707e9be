//! How to remove a setting of the user, wherever it was made: the end of a hint.

use std::ffi::OsString;

use drivers::{NetworkDriver, PortDriver};
use hostenv::vars;

use crate::extra;

/// How to remove a variable.
pub(crate) fn variable(name: &str) -> String {
    format!("remove {name} from the daemon's settings")
}

/// How to remove a flag of rootlesskit.
pub(crate) fn flag(name: &str) -> String {
    format!("remove --{name} from {}", vars::DOCKERD_ROOTLESS_FLAGS)
}

/// What to do if the launcher has to use the gateway and does not: remove the network drivers and port drivers that the
/// user chose in FLAGS and by variables, until one that suits or none is in force.
pub(crate) fn for_gateway(
    flags: &[OsString],
    variables: (Option<NetworkDriver>, Option<PortDriver>),
    ports_suit: impl Fn(PortDriver) -> bool,
) -> String {
    let net_suits = |net| net == NetworkDriver::Gateway;
    let in_flags = |name| extra::last(flags, name);
    // A name that is unknown is left to rootlesskit, and suits nothing.
    let net = in_flags("net").map(|name| NetworkDriver::from_name(&name).is_some_and(net_suits));
    let ports =
        in_flags("port-driver").map(|name| PortDriver::from_name(&name).is_some_and(&ports_suit));
    // A flag wins over the variable.
    let nets =
        [(net, flag("net")), (variables.0.map(net_suits), variable(vars::DOCKERD_ROOTLESS_NET))];
    let port_drivers = [
        (ports, flag("port-driver")),
        (variables.1.map(ports_suit), variable(vars::DOCKERD_ROOTLESS_PORT_DRIVER)),
    ];
    let unsuitable = |chosen: [(Option<bool>, String); 2]| {
        let set = chosen.into_iter().filter_map(|(suits, removal)| Some((suits?, removal)));
        set.take_while(|(suits, _)| !suits).map(|(_, removal)| removal)
    };
    let removals: Vec<String> = unsuitable(nets).chain(unsuitable(port_drivers)).collect();
    if removals.is_empty() {
        return "run dockerd-rootless-setuptool.sh check to see why the launcher does not select the gateway network".to_owned();
    }
    format!("{}, so that the launcher selects the gateway network", removals.join(" and "))
}
