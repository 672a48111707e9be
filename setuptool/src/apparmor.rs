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

use crate::managed::{self, Managed, Policy, State};
use crate::place::World;
use crate::run::{self, Failed};
use crate::ui::Ui;

/// It compiles one small file.
const LIMIT: Duration = Duration::from_secs(60);
/// The first line of our files.
const HEADER: &str = "# Written by dockerd-rootless-setuptool.sh for rootless Docker.";
/// Signs that a path in a profile means something else by (apparmor.d(5)).
const SPECIAL: &str = "\"\\*?[]{}^@,";

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Its name, and that of its file in `/etc/apparmor.d`.
    pub(crate) name: String,
    /// The file's text without its checksum.
    pub(crate) text: String,
}

impl Profile {
    /// The profile for the program that really lies there; `None` if no profile can name that path.
    pub(crate) fn of(program: &Path) -> Option<Self> {
        let path = program.to_str()?;
        let plain = |c: char| !c.is_control() && !SPECIAL.contains(c);
        if !path.starts_with('/') || !path.chars().all(plain) {
            return None;
        }
        // The name is also a word of shells and of paths.
        let word = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name: String =
            path.trim_start_matches('/').replace('/', ".").chars().map(word).collect();
        let text = format!(
            "{HEADER}\nabi <abi/4.0>,\ninclude <tunables/global>\n\n\
             profile \"{name}\" \"{path}\" flags=(unconfined) {{\n  userns,\n\n  \
             include if exists <local/{name}>\n}}\n"
        );
        Some(Self { name, text })
    }

    /// Its file. Copies have a name that AppArmor does not load (aa-enforce(8) and its boot script skip it).
    pub(crate) fn file(&self, world: &World) -> Managed {
        let path = world.at("etc/apparmor.d").join(&self.name);
        Managed::new(path, &self.text).backups_end_in("orig")
    }
}

/// Where a program really lies.
pub(crate) fn real(program: &Path) -> PathBuf {
    fs::canonicalize(program).unwrap_or_else(|_| program.to_owned())
}

/// Prints the profile, or as root writes and loads it.
///
/// # Errors
/// There is no rootlesskit, its path cannot be in a profile, another file is in the way, or AppArmor refuses it.
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
    let restricted = world.sysctl("kernel.apparmor_restrict_unprivileged_userns") == Some(1);
    if print {
        ui.plain(file.text.trim_end());
        return Ok(());
    }
    if world.uid != 0 {
        ui.plain(file.text.trim_end());
        let shown = file.path.display();
        ui.aside(&format!(
            "To install this profile as {shown} and to load it, run this command with sudo"
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
    let dir = crate::place::dir_of(&file.path);
    if !dir.is_dir() {
        let dir = dir.display();
        let hint = "is AppArmor installed (package apparmor)?";
        return Err(Failed::new(format!("{dir} is not a directory\nhint: {hint}")));
    }
    let command = managed::command(world, "apparmor");
    let program = crate::doctor::quoted(&program.to_string_lossy());
    file.put(ui, &Policy { force, printer: format!("{command} {program}") })?;
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
    let hint =
        "hint: give its path: dockerd-rootless-setuptool.sh apparmor /home/USER/bin/rootlesskit";
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

/// Tells about our profile, which only root can remove.
pub(crate) fn leftover(ui: &mut Ui, world: &World) {
    let Ok(program) = program(world, None) else { return };
    let Some(file) = Profile::of(&program).map(|profile| profile.file(world)) else { return };
    let shown = crate::doctor::quoted(&file.path.to_string_lossy());
    match file.state() {
        Ok(State::Current | State::Outdated | State::Unsealed) => ui.info(&format!(
            "The AppArmor profile was kept; to remove it, run: sudo apparmor_parser --remove {shown}; sudo rm {shown}"
        )),
        Ok(State::Edited) => ui.info(&format!("The AppArmor profile {shown} was kept, because it was edited")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_for_the_path_where_the_program_lies() {
        let profile = Profile::of(Path::new("/home/jo doe/bin/rootlesskit")).unwrap();
        assert_eq!(profile.name, "home.jo_doe.bin.rootlesskit");
        for line in [
            "profile \"home.jo_doe.bin.rootlesskit\" \"/home/jo doe/bin/rootlesskit\" flags=(unconfined) {\n  userns,",
            "  include if exists <local/home.jo_doe.bin.rootlesskit>\n}\n",
            "abi <abi/4.0>,\n",
        ] {
            assert!(profile.text.contains(line), "{line}\n{}", profile.text);
        }
        for path in ["bin/rootlesskit", "/a*/b", "/a\"b", "/a\nb", "/{a,b}", "/@{HOME}/x"] {
            assert_eq!(Profile::of(Path::new(path)), None, "{path:?}");
        }
    }
}
