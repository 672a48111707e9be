//! The units that `install` writes.

use std::path::Path;

use crate::managed::Managed;
use crate::place::World;
use crate::unit::{render, render_socket};

/// The units of an installation with that launcher: the service, and with `socket` that of its socket. `None` without a
/// home.
pub fn wanted(
    world: &World,
    launcher: &Path,
    without_iptables: bool,
    socket: bool,
) -> Option<Vec<Managed>> {
    let path = world.env.get(hostenv::vars::PATH).unwrap_or_default();
    let service = render(launcher, path, without_iptables, socket);
    let mut units = vec![Managed::new(world.unit()?, &service)];
    if socket {
        units.push(Managed::new(world.socket_unit()?, &render_socket()));
    }
    Some(units)
}
