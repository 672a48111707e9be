//! `uninstall`: undoes `install`, whatever state the host is in. It needs no prerequisite, only a user with a home.
//!
//! `--purge` also removes what the daemon made ([`purge`]): data, state, its key, and the directories that are empty then.
//! Settings are the user's, and stay: drop-ins (but not that of `install --swarm`), and units that were edited or that somebody else wrote, under another
//! name. So do daemon.json and the CLI's config.json.

use std::fs;
use std::path::Path;

use crate::context::Cli;
use crate::purge::{self, Purge};
use crate::run::{self, Failed};
use crate::systemd::Systemctl;
use crate::ui::Ui;
use crate::{activation, apparmor, supervise, swarm, write};
use doctor::names::{SOCKET_UNIT, UNIT};
use doctor::place::World;
use doctor::unit_file::drop_ins;

/// Uninstalls, and with `purge` removes the data.
///
/// # Errors
/// The user is root or homeless, or with `purge` something is mounted below the data, or a data root of the user's choice
/// holds something else: then nothing is changed. With `purge` not all data could be deleted: then the units and the context
/// stay. Or something else could not be removed; the rest is removed nevertheless.
pub(crate) fn run(ui: &mut Ui, world: &World, purge: bool) -> Result<(), Failed> {
    if world.uid == 0 {
        return Err(Failed::new(
            "refusing to uninstall as root: run this as the user who installed the daemon",
        ));
    }
    let unit = world.unit().ok_or_else(|| Failed::new("HOME is not set"))?;
    let prepared = purge.then(|| Purge::prepare(world)).transpose()?;
    let mut problems = Vec::new();
    let manager = Systemctl::reach(world);
    let stopped = supervise::stop(ui, world);
    let mut disabled = false;
    if let Some(prepared) = prepared {
        // What could not be stopped may start the daemon again at any moment.
        if let Err(failed) = stopped {
            return Err(Failed::new(format!(
                "{}\nthe data was kept, because the daemon is still running or may start again\n\
                 hint: stop the daemon, then run this again",
                failed.text
            )));
        }
        disabled = purged(ui, world, &unit, manager.as_ref(), prepared)?;
    }
    match stopped {
        Ok(()) => supervise::remove_files(ui, world, &mut problems),
        // Whatever still runs needs its files.
        Err(failed) => problems.insert(0, failed.text),
    }
    if let Some(manager) = &manager {
        if let Err(failed) = activation::remove(ui, world, manager, false) {
            problems.push(failed.text);
        }
        if !purge {
            manager.traced(ui, &["stop", UNIT])?;
        }
        if !disabled {
            // It fails if there is no such unit, which is fine.
            manager.disable(ui, &unit)?;
        }
    }
    remove_unit(ui, world, &unit, manager.as_ref(), &mut problems);
    match world.find_companion("docker") {
        Some(docker) => {
            let cli = Cli::new(docker, doctor::systemd::with_runtime_dir(world));
            if let Err(failed) = cli.abandon(ui, world) {
                problems.push(failed.text);
            }
        }
        None => ui.warning(
            "docker is not in PATH, so its context was kept; to remove it later, run: docker context rm -f rootless",
        ),
    }
    settings_stay(ui, world, &unit);
    if !purge {
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

/// Stops the daemon and deletes its data, as long as the unit is there: it may say where the data is, and the next attempt
/// has to find it, too. Whether the units have been disabled.
///
/// # Errors
/// Not everything is gone. If the deletion has begun, the units are disabled, since a daemon that starts by itself would make
/// new data; otherwise they are as they were.
fn purged(
    ui: &mut Ui,
    world: &World,
    unit: &Path,
    manager: Option<&Systemctl>,
    prepared: Purge,
) -> Result<bool, Failed> {
    let socket = world.socket_unit().filter(|file| fs::symlink_metadata(file).is_ok());
    if let Some(manager) = manager {
        // Both fail if there is no such unit, which is fine.
        if socket.is_some() {
            manager.traced(ui, &["stop", SOCKET_UNIT])?;
        }
        manager.traced(ui, &["stop", UNIT])?;
    }
    let mut problems = Vec::new();
    let mut begun = false;
    // An interrupted deletion must not be followed by a daemon that starts by itself, so this comes before it.
    prepared.carry_out(ui, world, &mut problems, |ui, problems| {
        begun = true;
        let units = [(Some(unit.to_owned()), "default"), (socket, "sockets")];
        for (file, target) in units {
            let Some(file) = file else { continue };
            match manager.map(|manager| manager.disable(ui, &file)) {
                Some(Ok(())) => {}
                Some(Err(failed)) => problems.push(failed.text),
                None => disable_by_hand(&file, target, problems),
            }
        }
    });
    if problems.is_empty() {
        return Ok(begun);
    }
    let also = if begun { "; the unit is disabled" } else { "" };
    problems.push(format!(
        "the unit, its settings and the CLI context were kept, so that you can run this again{also}\n\
         hint: to remove them but keep the data, run uninstall without --purge"
    ));
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
    if let Ok(home) = hostenv::dirs::home(&world.env) {
        dirs.extend(
            [".config", ".local/share", ".local/state", ".local"].map(|dir| home.join(dir)),
        );
    }
    for dir in dirs {
        // rmdir(2) refuses what is not empty.
        let _ = fs::remove_dir(dir);
    }
}

/// Removes the unit, and what a systemd that cannot be reached, or that refuses to disable it (as with SELinux), leaves.
fn remove_unit(
    ui: &mut Ui,
    world: &World,
    unit: &Path,
    manager: Option<&Systemctl>,
    problems: &mut Vec<String>,
) {
    if let Some(pid) = world.occupant().pid() {
        ui.warning(&format!("The daemon is running; to stop it, run: kill {pid}"));
    }
    leave_swarm(ui, world, problems);
    disable_by_hand(unit, "default", problems);
    write::put_away_or_note(ui, unit, problems);
    match manager {
        Some(manager) => {
            manager.quiet(&["daemon-reload"]);
            manager.quiet(&["reset-failed", UNIT]);
        }
        None => {
            let socket = world.socket_unit().map_or(Ok(()), |file| activation::delete(ui, &file));
            problems.extend(socket.err().map(|failed| failed.text));
        }
    }
    ui.info(&format!("Uninstalled {UNIT}"));
}

/// Removes the drop-in of `install --swarm`.
fn leave_swarm(ui: &mut Ui, world: &World, problems: &mut Vec<String>) {
    if let Some(file) = doctor::swarm::drop_in(world) {
        run::note(problems, &file, swarm::remove(ui, &file).map(drop));
    }
}

/// What `systemctl disable` does with a unit that TARGET.target wants.
fn disable_by_hand(file: &Path, target: &str, problems: &mut Vec<String>) {
    let name = file.file_name().unwrap_or_default();
    let link = file.with_file_name(format!("{target}.target.wants")).join(name);
    run::remove(problems, &link);
}

fn settings_stay(ui: &mut Ui, world: &World, unit: &Path) {
    for unit in [Some(unit.to_owned()), world.socket_unit()].into_iter().flatten() {
        let drop_ins = Some(drop_ins(&unit)).filter(|dir| dir.exists());
        for place in drop_ins.into_iter().chain(write::backups(&unit)) {
            ui.info(&format!("Your own settings stay in {}", place.display()));
        }
    }
}

fn leftovers(ui: &mut Ui, world: &World) {
    ui.info("If you set PATH, DOCKER_HOST or DOCKER_CONTEXT for this daemon in ~/.bashrc, remove them there.");
    ui.info("This uninstallation tool does NOT remove Docker binaries and data.");
    let kit = purge::rootlesskit(world).unwrap_or_else(|| "rootlesskit".into());
    if let Some(command) = purge::advice(world, &kit, true) {
        ui.info(&format!("To remove data, run: `{command}`"));
    }
}
