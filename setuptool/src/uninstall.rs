//! `uninstall`: undoes `install`, whatever state the host is in. It needs no prerequisite, only a user with a home.
//!
//! `--purge` also removes what the daemon made: data, state, its key, and the directories that are empty then. Settings
//! are the user's, and stay: drop-ins, and units that were edited or that somebody else wrote, under another name. Data in a directory of the user's own choice (`data-root` in daemon.json) is
//! named and left alone, since nobody knows what else is in there. So are daemon.json and the CLI's config.json.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use env::Env;

use crate::context::Cli;
use crate::doctor::quoted;
use crate::place::World;
use crate::run::{self, Failed};
use crate::systemd::{self, Systemctl, UNIT};
use crate::ui::Ui;
use crate::{activation, apparmor, managed, state, supervise, unit};

/// Deleting a million files takes its time.
const RM_LIMIT: Duration = Duration::from_secs(3600);

/// Uninstalls, and with `purge` removes the data.
///
/// # Errors
/// The user is root or homeless, or something could not be removed; the rest is removed nevertheless.
pub(crate) fn run(ui: &mut Ui, world: &World, purge: bool) -> Result<(), Failed> {
    if world.uid == 0 {
        return Err(Failed::new(
            "refusing to uninstall as root: run this as the user who installed it",
        ));
    }
    let unit = world.unit().ok_or_else(|| Failed::new("HOME is not set"))?;
    let mut problems = Vec::new();
    supervise::uninstall(ui, world, &mut problems);
    match Systemctl::reach(world) {
        Some(manager) => {
            if let Err(failed) = activation::remove(ui, world, &manager, false) {
                problems.push(failed.text);
            }
            with_systemd(ui, &unit, &manager, &mut problems)?;
        }
        None => without_systemd(ui, world, &unit, &mut problems),
    }
    match world.find_companion("docker") {
        Some(docker) => {
            let cli = Cli::new(docker, systemd::with_runtime_dir(world));
            if let Err(failed) = cli.abandon(ui, world) {
                problems.push(failed.text);
            }
        }
        None => ui.warning(
            "docker is not in PATH, so its context stays; later run: docker context rm -f rootless",
        ),
    }
    settings_stay(ui, world, &unit);
    if purge {
        purge_all(ui, world, &mut problems);
    } else {
        leftovers(ui, world);
    }
    // Directories that install made, if nobody else has put anything there; rmdir(2) refuses otherwise.
    for dir in [unit.with_file_name("default.target.wants").as_path()]
        .into_iter()
        .chain(unit.ancestors().skip(1).take(2))
    {
        let _ = fs::remove_dir(dir);
    }
    if purge {
        remove_empty(world);
    }
    apparmor::leftover(ui, world);
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failed::new(problems.join("\n")))
}

/// Removes directories that the daemon and the CLI made and left empty, and those of the XDG specification in their
/// usual places, which every program makes when it needs them.
fn remove_empty(world: &World) {
    let mut dirs = Vec::new();
    if let Some(config) = world.cli_config() {
        let contexts = config.join("contexts");
        dirs.extend([contexts.join("meta"), contexts.join("tls"), contexts, config]);
    }
    if let Some(config) = world.config_home() {
        dirs.push(config.join("docker"));
    }
    if let Some(runtime) = world.runtime_dir() {
        dirs.push(runtime.join("runc"));
    }
    if let Ok(home) = env::dirs::home(&world.env) {
        dirs.extend(
            [".config", ".local/share", ".local/state", ".local"].map(|dir| home.join(dir)),
        );
    }
    for dir in dirs {
        // rmdir(2) refuses what is not empty.
        let _ = fs::remove_dir(dir);
    }
}

fn with_systemd(
    ui: &mut Ui,
    unit: &Path,
    manager: &Systemctl,
    problems: &mut Vec<String>,
) -> Result<(), Failed> {
    // Both fail if there is no such unit, which is fine.
    manager.traced(ui, &["stop", UNIT])?;
    manager.disable(ui, unit)?;
    put_away(ui, unit, problems);
    manager.quiet(&["daemon-reload"]);
    manager.quiet(&["reset-failed", UNIT]);
    ui.info(&format!("Uninstalled {UNIT}"));
    Ok(())
}

fn without_systemd(ui: &mut Ui, world: &World, unit: &Path, problems: &mut Vec<String>) {
    if let Some(pid) = daemon(world) {
        ui.warning(&format!("The daemon is running; to stop it, run: kill {pid}"));
    }
    // The unit may have been made in another session; this is what `systemctl disable` does.
    let link = unit.with_file_name("default.target.wants").join(UNIT);
    take(problems, &link, state::remove(&link).map(drop));
    put_away(ui, unit, problems);
    if let Err(failed) = world.socket_unit().map_or(Ok(()), |file| activation::delete(ui, &file)) {
        problems.push(failed.text);
    }
    ui.info(&format!("Uninstalled {UNIT}"));
}

fn put_away(ui: &mut Ui, file: &Path, problems: &mut Vec<String>) {
    match managed::put_away(file) {
        Ok(away) => away.tell(ui, file),
        Err(error) => take(problems, file, Err(error)),
    }
}

/// The pid of the daemon's rootlesskit, if it runs.
fn daemon(world: &World) -> Option<u32> {
    let (state_dir, proc) = (world.state_dir(&world.runtime_dir()?), world.at("proc"));
    let child = state::child(&state_dir, &proc)?;
    Some(state::parent_of(child.pid, &proc).unwrap_or(child.pid))
}

/// Names the user's settings.
fn settings_stay(ui: &mut Ui, world: &World, unit: &Path) {
    for unit in [Some(unit.to_owned()), world.socket_unit()].into_iter().flatten() {
        let drop_ins = Some(drop_ins(&unit)).filter(|dir| dir.exists());
        for place in drop_ins.into_iter().chain(unit::backups(&unit)) {
            ui.info(&format!("Your own settings stay in {}", place.display()));
        }
    }
}

fn leftovers(ui: &mut Ui, world: &World) {
    ui.info("Remove PATH, DOCKER_HOST and DOCKER_CONTEXT of this daemon from ~/.bashrc if you set them there.");
    ui.info("This uninstallation tool does NOT remove Docker binaries and data.");
    if let Some(data) = world.data_root() {
        let kit = rootlesskit(world).unwrap_or_else(|| "rootlesskit".into());
        ui.info(&format!(
            "To remove data, run: `{} rm -rf {}`",
            quoted(&kit.to_string_lossy()),
            quoted(&data.to_string_lossy())
        ));
    }
}

fn purge_all(ui: &mut Ui, world: &World, problems: &mut Vec<String>) {
    if let Some(pid) = daemon(world) {
        problems.push(format!(
            "the daemon is running (pid {pid}), so its data stays: stop it and run this again"
        ));
        return;
    }
    // The daemon's identity, until Docker 24.
    if let Some(key) = world.config_home().map(|dir| dir.join("docker/key.json")) {
        take(problems, &key, state::remove(&key).map(drop));
    }
    // Not the directory that a variable names: it may hold something else. Nor do we look for `docker` in HOME.
    let home = env::dirs::home(&world.env).ok();
    if let Some(runtime) = world.runtime_dir().filter(|dir| home.as_ref() != Some(dir)) {
        for name in ["dockerd-rootless", "docker"] {
            let dir = runtime.join(name);
            // After a crash there are files of containers, too.
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    if remove_data(ui, world, &dir, problems) {
                        ui.info(&format!("Removed {}", dir.display()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => take(problems, &dir, Err(error)),
                Ok(()) => ui.info(&format!("Removed {}", dir.display())),
            }
        }
        for name in ["docker.sock", "docker.pid"] {
            let file = runtime.join(name);
            take(problems, &file, state::remove(&file).map(drop));
        }
    }
    let (Some(data), default) = (world.data_root(), world.default_data_root()) else { return };
    if default.as_ref() == Some(&data) {
        if remove_data(ui, world, &data, problems) {
            ui.info(&format!("Removed {}", data.display()));
        }
    } else {
        ui.warning(&format!(
            "The data is where daemon.json says, and stays; to remove it, run: rootlesskit rm -rf {}",
            quoted(&data.to_string_lossy())
        ));
    }
}

/// Files of containers belong to subordinate ids: only root of the user's namespace may remove them.
fn remove_data(ui: &mut Ui, world: &World, data: &Path, problems: &mut Vec<String>) -> bool {
    if fs::symlink_metadata(data).is_err() {
        return false;
    }
    if let Some(kit) = rootlesskit(world) {
        let args = [OsStr::new("rm"), OsStr::new("-rf"), OsStr::new("--"), data.as_os_str()];
        ui.trace(&run::command_line(&kit.to_string_lossy(), &args));
        let env: Env = systemd::with_runtime_dir(world);
        match run::shown(&kit, &args, &env, true, RM_LIMIT) {
            Ok(status) if status.success() => return true,
            // rm(1) cannot remove a mount point, only what is in it.
            Ok(_) if fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_none()) => {
                ui.info(&format!("{} is empty now", data.display()));
            }
            Ok(status) => {
                problems.push(format!("cannot remove {}: rm ended with {status}", data.display()));
            }
            Err(failed) => problems.push(failed.text),
        }
        return false;
    }
    let before = problems.len();
    remove_tree(ui, data, problems);
    problems.len() == before
}

fn remove_tree(ui: &mut Ui, dir: &Path, problems: &mut Vec<String>) {
    match fs::remove_dir_all(dir) {
        Ok(()) => ui.info(&format!("Removed {}", dir.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => take(problems, dir, Err(error)),
    }
}

fn take(problems: &mut Vec<String>, path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        problems.push(format!("cannot remove {}: {error}", path.display()));
    }
}

fn drop_ins(unit: &Path) -> PathBuf {
    let mut name = unit.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

fn rootlesskit(world: &World) -> Option<PathBuf> {
    world.find_companion("docker-rootlesskit").or_else(|| world.find_companion("rootlesskit"))
}
