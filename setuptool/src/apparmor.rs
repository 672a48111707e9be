//! The AppArmor profile that lets rootlesskit have user namespaces (Ubuntu since 23.10, <https://ubuntu.com/blog/ubuntu-23-10-restricted-unprivileged-user-namespaces>).
//!
//! AppArmor knows programs by the path where they really lie, so links are followed; the packaged profile is for
//! `/usr/bin/rootlesskit` alone. `apparmor` prints the profile, and writes and loads it when it is run as root: the one
//! thing of this program that root may do, because nobody else can.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use doctor::apparmor::{Profile, real};
use doctor::managed::{self, State};
use doctor::place::{World, dir_of};
use hostenv::shellwords::quoted;

use crate::run::{self, Failed};
use crate::ui::Ui;
use crate::write::{self, Policy};

const LIMIT: Duration = Duration::from_secs(60);
/// Prints the profile, or as root writes and loads it.
pub(crate) fn run(
    ui: &mut Ui,
    world: &World,
    named: Option<&OsStr>,
    force: bool,
    print: bool,
) -> Result<(), Failed> {
    let program = program(world, named)?;
    let profile = Profile::of(&program).with_context(|| {
        format!(
            "an AppArmor profile cannot express the path {}\nhint: move the file to a path without special characters",
            program.display()
        )
    })?;
    let file = profile.file(world);
    let program = quoted(program);
    let restricted = world.sysctl("kernel.apparmor_restrict_unprivileged_userns") == Some(1);
    if print {
        ui.plain(file.text.trim_end());
        return Ok(());
    }
    if world.uid != 0 {
        ui.plain(file.text.trim_end());
        let shown = file.path.display();
        let command = managed::command_with_sudo(world, "apparmor");
        ui.aside(&format!(
            "To install this profile as {shown} and to load it, run: {command} {program}"
        ));
        if !restricted {
            ui.aside("You do not need it on this host: AppArmor does not restrict user namespaces");
        }
        return Ok(());
    }
    if !restricted && !force {
        ui.info("AppArmor does not restrict user namespaces on this host; nothing to do (use --force to install the \
                 profile anyway)");
        return Ok(());
    }
    let dir = dir_of(&file.path);
    if !dir.is_dir() {
        let dir = dir.display();
        let hint = "is AppArmor installed (package apparmor)?";
        return Err(Failed::new(format!("{dir} is not a directory\nhint: {hint}")));
    }
    let printer = format!("{} {program}", managed::command(world, "apparmor"));
    write::put(&file, ui, &Policy { force, printer })?;
    // A profile of the administrator's is loaded as well.
    load(ui, world, &file.path)
}

/// The rootlesskit that is meant: the one that is named, the one beside this program, or the one in PATH. Beside comes
/// first because sudo changes PATH.
fn program(world: &World, named: Option<&OsStr>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        let path = Path::new(named);
        ensure!(path.is_file(), "{} is not a file", path.display());
        return fs::canonicalize(path).with_context(|| path.display().to_string());
    }
    let names = ["docker-rootlesskit", "rootlesskit"];
    let beside = world.own_dir.iter().flat_map(|dir| names.map(|name| dir.join(name)));
    let found = beside
        .filter(|file| hostenv::path::is_executable(file))
        .chain(names.into_iter().filter_map(|name| world.find(name)))
        .next();
    let command = managed::command(world, "apparmor");
    let hint = format!("hint: give its path: {command} /home/USER/bin/rootlesskit");
    found.map(|path| real(&path)).with_context(|| {
        format!("rootlesskit is neither in the directory of this tool nor in PATH\n{hint}")
    })
}

fn load(ui: &mut Ui, world: &World, file: &Path) -> Result<(), Failed> {
    let name = "apparmor_parser";
    let parser = world.find_with_sbin(name).ok_or_else(|| {
        Failed::new(format!("{name} is not in PATH\nhint: systemctl restart apparmor.service"))
    })?;
    let args = [OsStr::new("--replace"), file.as_os_str()];
    ui.trace(&run::command_line(name, &args));
    let status = run::shown(&parser, &args, &world.env, true, LIMIT)?;
    if status.success() {
        ui.info("Loaded the profile; AppArmor loads it again at every boot");
        return Ok(());
    }
    let text = format!("{name} failed with {status}");
    Err(Failed { text, code: run::code_of(status) })
}

pub(crate) fn leftover(ui: &mut Ui, world: &World) {
    let Ok(program) = program(world, None) else { return };
    let Some(file) = Profile::of(&program).map(|profile| profile.file(world)) else { return };
    let shown = quoted(&file.path);
    match file.state() {
        Ok(State::Current | State::Outdated | State::Unsealed) => ui.info(&format!(
            "The AppArmor profile was kept; to remove it, run: sudo apparmor_parser --remove {shown}; sudo rm {shown}"
        )),
        Ok(State::Edited) => ui.info(&format!("The AppArmor profile {shown} was kept, because it was edited")),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
