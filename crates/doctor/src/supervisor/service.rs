//! Service directories of runit(8) and s6(7), which have the same form: `run`, and `log/run` for what it prints.

use std::path::Path;

use hostenv::shellwords::quoted;
use hostenv::vars;

use super::Files;
use crate::header::HEADER;
use crate::managed::Managed;
use crate::place::World;

/// What `install` writes.
pub const PROGRAMS: [&str; 2] = ["run", "log/run"];

/// The variables that tell our supervisor where its files are, as lines of a shell.
pub(super) fn exports(world: &World) -> String {
    let names = [vars::HOME, vars::XDG_CONFIG_HOME, crate::vars::XDG_STATE_HOME];
    let set = names.iter().filter_map(|name| Some((name, world.env.nonempty(name)?)));
    set.map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect()
}

/// The files of a service directory: the one that runs the daemon, and the one that runs its logger.
pub fn wanted(world: &World, service: &Path, logger: &str) -> Vec<Managed> {
    let program = quoted(world.own_program());
    let head = format!("#!/bin/sh\n{HEADER}");
    let run = format!("{head}{}exec 2>&1\nexec {program} supervise once\n", exports(world));
    let log = format!("{head}{logger}\n");
    let file = |name: &str, text: &str| Managed::new(service.join(name), text).program();
    vec![file(PROGRAMS[0], &run), file(PROGRAMS[1], &log)]
}

/// The same with a program that logs into the directory for that.
pub(super) fn logged(world: &World, files: &Files, service: &Path, logger: &str) -> Vec<Managed> {
    let dir = quoted(files.log_dir());
    wanted(world, service, &format!("mkdir -p {dir}\nexec {logger} {dir}"))
}
