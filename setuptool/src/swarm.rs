//! `install --swarm`: makes the daemon a node of a swarm, or takes that back.
//!
//! # What users can expect
//! The value goes into a file of its own ([`doctor::swarm`]): a drop-in of the unit, or variables for the script of another
//! supervisor. Like every file of this tool it stays if somebody edited it, unless `--force` is given.
//!
//! - An `install` without the option changes nothing about it: who runs the tool again after an upgrade keeps the node. That
//!   holds for a change of the supervisor, too: the value is taken over into the file that the new one reads.
//! - An empty value removes the file. One that somebody edited is kept under another name, where nobody reads it: the user
//!   has asked for a daemon that is no node, and `--force` would not say more.
//! - A daemon that runs goes on as it is until it is restarted.
//! - Without a service there is no file to write, and the printed command sets the variable.

use std::fs;
use std::path::{Path, PathBuf};

use doctor::managed::Managed;
use doctor::place::{World, dir_of};
use doctor::swarm::{Membership, drop_in, read, variables, wanted};
use hostenv::swarm::{DATA_PATH_PORT, FORM, MANAGER_PORT, Swarm};
use hostenv::vars::DOCKERD_ROOTLESS_SWARM;

use crate::run::Failed;
use crate::ui::Ui;
use crate::write::{self, Away, Policy, Put};

/// The value of the option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    Node(Swarm),
    /// It is empty.
    None,
}

impl Choice {
    /// Understands the value.
    ///
    /// # Errors
    /// Why it is wrong, and what to do.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        if value.is_empty() {
            return Ok(Self::None);
        }
        value.parse().map(Self::Node).map_err(|why| {
            format!(
                "--swarm is {value:?}: {why}\n\
                 hint: use --swarm={FORM}, such as --swarm=192.0.2.10,peers=192.0.2.0/24. To remove the setting, use \
                 --swarm= without a value"
            )
        })
    }

    pub(crate) fn value(&self) -> String {
        match self {
            Self::Node(swarm) => swarm.to_string(),
            Self::None => String::new(),
        }
    }
}

/// Who starts the daemon, as far as it matters where the variable goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starter {
    Systemd,
    Supervisor,
    /// The user.
    Hand,
}

/// What is to be done about the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Leave,
    Write(Swarm, PathBuf),
    Remove(Vec<PathBuf>),
}

impl Order {
    /// Finds it out from the option and from what is there.
    pub(crate) fn of(world: &World, choice: Option<&Choice>, starter: Starter) -> Self {
        let (drop_in, variables) = (drop_in(world), variables(world));
        let (own, other) = match starter {
            Starter::Systemd => (drop_in, variables),
            Starter::Supervisor => (variables, drop_in),
            Starter::Hand => (None, None),
        };
        let node = match choice {
            None if own.as_ref().is_some_and(|file| fs::symlink_metadata(file).is_ok()) => None,
            // The other one, if this user had another supervisor before.
            None => other.as_deref().and_then(read),
            Some(Choice::Node(swarm)) => Some(swarm.clone()),
            Some(Choice::None) => {
                let all = [doctor::swarm::drop_in(world), doctor::swarm::variables(world)];
                return Self::Remove(all.into_iter().flatten().collect());
            }
        };
        node.zip(own).map_or(Self::Leave, |(swarm, file)| Self::Write(swarm, file))
    }

    /// The file that would be written.
    pub(crate) fn wanted(&self) -> Option<Managed> {
        match self {
            Self::Write(swarm, file) => Some(wanted(file.clone(), swarm)),
            Self::Leave | Self::Remove(_) => None,
        }
    }

    /// Carries it out. Whether a daemon that runs has other settings now.
    pub(crate) fn carry_out(&self, ui: &mut Ui, policy: &Policy) -> Result<bool, Failed> {
        if let Some(file) = self.wanted() {
            return Ok(matches!(write::put(&file, ui, policy)?, Put::Created | Put::Replaced));
        }
        let Self::Remove(files) = self else { return Ok(false) };
        let mut changed = false;
        for file in files {
            let away = remove(ui, file).map_err(crate::run::cannot("remove", file))?;
            changed |= away != Away::Nothing;
        }
        if changed {
            ui.info(
                "A daemon that has joined a swarm stays in it until you run `docker swarm leave`",
            );
        }
        Ok(changed)
    }
}

/// Says how the node gets into a swarm, unless it is in one.
pub(crate) fn next_steps(ui: &mut Ui, world: &World, choice: Option<&Choice>) {
    let Some(Choice::Node(swarm)) = choice else { return };
    if Membership::read(world).is_some() {
        return;
    }
    let port = match swarm.data_path_port {
        DATA_PATH_PORT => String::new(),
        port => format!(" --data-path-port {port}"),
    };
    ui.info(&format!("To create a swarm, run: `docker swarm init{port}`"));
    // A daemon that joins takes no notice of the default that the launcher gives it.
    ui.info(&format!(
        "To join a swarm, run: `docker swarm join --advertise-addr {} --token TOKEN MANAGER:{MANAGER_PORT}`",
        swarm.address
    ));
}

/// Takes the file away, and the directory of the drop-ins if nothing else is in it. That one was made for this file: an empty
/// one without it is the user's, and stays.
pub(crate) fn remove(ui: &mut Ui, file: &Path) -> std::io::Result<Away> {
    let away = write::put_away(file)?;
    away.tell(ui, file);
    if away == Away::Removed {
        ui.info(&format!("Removed {}", file.display()));
        if file.extension().is_some_and(|end| end == "conf") {
            // rmdir(2) refuses what is not empty.
            let _ = fs::remove_dir(dir_of(file));
        }
    }
    Ok(away)
}

/// The assignment for a command that the user types, with a space behind it: what was asked for, or what a supervisor that was
/// here before had.
pub(crate) fn assignment(world: &World, choice: Option<&Choice>) -> String {
    let node = match choice {
        Some(Choice::Node(swarm)) => Some(swarm.clone()),
        Some(Choice::None) => None,
        // The command inherits it.
        None if world.env.nonempty(DOCKERD_ROOTLESS_SWARM).is_some() => None,
        None => {
            let files = [drop_in(world), variables(world)];
            files.iter().flatten().find_map(|file| read(file))
        }
    };
    node.map(|swarm| format!("{DOCKERD_ROOTLESS_SWARM}={swarm} ")).unwrap_or_default()
}
