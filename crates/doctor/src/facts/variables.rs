//! Variables of the launcher where the user may have set them.

use std::path::PathBuf;

use super::ways::{assignments, configurations};
use crate::place::World;
use crate::supervisor::Files;

/// A variable in this environment, or else in the file that gives it to the daemon, and that file: what systemd gives to all units of the
/// user (environment.d(5)), the unit, its drop-ins, and the variables of other supervisors. The last one counts. One that is
/// set and empty hides the files, so that `install --swarm=` is judged by what it is about to do.
pub(super) fn variable(world: &World, name: &str) -> Option<(Option<PathBuf>, String)> {
    if let Some(value) = world.env.get(name) {
        let value = value.to_string_lossy().into_owned();
        return (!value.is_empty()).then_some((None, value));
    }
    let unit = world.unit();
    let drop_ins = unit.as_deref().map(|unit| unit.with_extension("service.d"));
    let for_all = world.config_home().map(|dir| dir.join("environment.d"));
    let others = Files::of(world).map(|files| [files.swarm(), files.settings()]);
    let files = configurations(for_all)
        .into_iter()
        .chain(unit)
        .chain(configurations(drop_ins))
        .chain(others.into_iter().flatten());
    let mut found = None;
    for file in files {
        let text = hostenv::file::text(&file).unwrap_or_default();
        for word in text.lines().flat_map(assignments) {
            if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                found = Some((Some(file.clone()), value.to_owned()));
            }
        }
    }
    found.filter(|(_, value)| !value.is_empty())
}
