//! Files that say what containers may reach (see [`hostenv::egress_policy`]).
//!
//! Only the gateway can enforce them. With another driver, containers would reach what a file forbids, so the daemon is not
//! started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use drivers::NetworkDriver;
use hostenv::{Env, vars};

use crate::removal;
use crate::report::Failure;
use crate::settings::Settings;

/// The flag of rootlesskit.
pub(crate) const FLAG: &str = "egress-policy";

const NAME: &str = vars::DOCKERD_ROOTLESS_EGRESS_POLICY;

/// The arguments of rootlesskit for these files.
pub(crate) fn arguments(files: &[PathBuf]) -> impl Iterator<Item = OsString> {
    files.iter().map(|file| {
        let mut argument = OsString::from(format!("--{FLAG}="));
        argument.push(file);
        argument
    })
}

/// The files for rootlesskit, below this root directory and in these variables.
///
/// # Errors
/// There are some, and the driver in force (`net`) cannot enforce them.
pub(crate) fn files(
    settings: &Settings,
    net: &str,
    root: &Path,
    env: &Env,
) -> Result<Vec<PathBuf>, Failure> {
    let files = hostenv::egress_policy::files(root, env);
    if files.is_empty()
        || NetworkDriver::from_name(net).is_some_and(NetworkDriver::has_egress_policy)
    {
        return Ok(files);
    }
    let first =
        removal::for_gateway(&settings.flags, (settings.net, settings.port_driver), |ports| {
            NetworkDriver::Gateway.goes_with(ports)
        });
    let named = env.nonempty(NAME).map(Path::new);
    let removals = files.iter().map(|file| match named == Some(file) {
        true => removal::variable(NAME),
        false => format!("move {} away", file.display()),
    });
    let removals: Vec<_> = removals.collect();
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    Err(Failure::new(format!(
        "the network driver {net} cannot enforce the egress policy {}",
        names.join(" and ")
    ))
    .hint(format!("{first}, or {}", removals.join(" and "))))
}
