//! The files of an earlier installation, and whose they are.

use std::fs;
use std::path::PathBuf;

use super::{Account, Tools};
use crate::managed::{self, Managed, State};
use crate::place::World;
use crate::supervisor::Files;
use crate::{supervisor, units};

/// A file that `install` would write, and that is there.
#[derive(Debug, Clone)]
pub struct Found {
    pub path: PathBuf,
    /// Or why nobody can tell, and `install` would fail.
    pub state: Result<State, String>,
    /// The command that shows how it differs from what `install` would write.
    pub compare: String,
    /// The file for the user's own settings, if that is not a drop-in of systemd.
    pub settings: Option<PathBuf>,
}

impl Found {
    /// Whether it is the unit of the daemon.
    pub fn is_service(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == "docker.service")
    }
}

/// Looks at the units, and at the scripts of an installation under a supervisor.
pub(super) fn gather(world: &World, account: &Account, tools: &Tools) -> Vec<Found> {
    let mut found = Vec::new();
    let printer = managed::command(world, "install");
    let launcher = tools.launcher.as_deref();
    let there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    for (path, option) in [(world.unit(), ""), (world.socket_unit(), " --socket")] {
        let Some(path) = path.filter(there) else { continue };
        // What `install` would write depends on its options.
        let wanted = launcher.into_iter().flat_map(|launcher| {
            [(false, false), (false, true), (true, false), (true, true)]
                .into_iter()
                .filter_map(|(skip, socket)| units::wanted(world, launcher, skip, socket))
                .flatten()
        });
        let printer = format!("{printer}{option}");
        found.push(look(path, &wanted.collect::<Vec<_>>(), &printer, None));
    }
    let runtime_dir = account.runtime.dir.as_deref();
    for (kind, path) in
        supervisor::installed_files(world).into_iter().filter(|(_, path)| there(path))
    {
        let wanted = launcher.zip(runtime_dir).into_iter().flat_map(|(launcher, runtime_dir)| {
            [false, true].into_iter().flat_map(move |without_iptables| {
                supervisor::wanted_files(
                    world,
                    launcher,
                    runtime_dir,
                    without_iptables,
                    &account.name,
                )
            })
        });
        found.push(look(
            path,
            &wanted.collect::<Vec<_>>(),
            &format!("{printer} --supervise={}", kind.name()),
            Files::of(world).map(|files| files.settings()),
        ));
    }
    found
}

/// The best that can be said, whatever the options of the next `install` are.
fn look(path: PathBuf, wanted: &[Managed], printer: &str, settings: Option<PathBuf>) -> Found {
    let compare = managed::compare(printer, &path);
    let mut state = managed::state(&path).map_err(|error| format!("{error:#}"));
    for file in wanted.iter().filter(|file| file.path == path) {
        match file.state() {
            Ok(better @ (State::Current | State::Unsealed)) if state != Ok(State::Current) => {
                state = Ok(better);
            }
            _ => {}
        }
    }
    Found { path, state, compare, settings }
}
