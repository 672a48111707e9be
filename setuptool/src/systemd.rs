//! The user's service manager, through `systemctl --user`: its commands are what the documentation shows, and what the
//! user can repeat.
//!
//! # Why not D-Bus
//! No text that is meant for people is read here: what happened is told by exit statuses, and a single property, where one
//! is wanted, by `show --property=NAME --value`, whose form is stable. A D-Bus connection would answer the same questions:
//! the jobs that `start` waits for and the time-out are the same, and `systemctl` also prints the hints of systemd's own
//! release when a job fails. Against that stands the tree of crates of a D-Bus library in a small static program, and a
//! second way to reach the manager that could fail while the documented commands work: `systemctl --user` goes over the
//! manager's private socket, and so works when the user's bus is down, which is one of the things to be diagnosed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use doctor::managed::Managed;
use doctor::place::World;
use doctor::systemd::{ASK_TIMEOUT, last_lines, with_runtime_dir};
use hostenv::Env;

use crate::run::{self, Failed};
use crate::ui::Ui;
use crate::write::{self, Policy, Put};

/// Longer than any time-out in the unit (10 min): systemd gives up first, and tells why.
const LIMIT: Duration = Duration::from_secs(11 * 60);
/// How often, and how long apart, an unsettled journal is read again.
const JOURNAL_READINGS: u32 = 5;
const JOURNAL_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Systemctl {
    program: PathBuf,
    env: Env,
}

impl Systemctl {
    pub(crate) fn find(world: &World) -> Option<Self> {
        Some(Self { program: world.find("systemctl")?, env: with_runtime_dir(world) })
    }

    /// If the program is there and reaches the user's service manager.
    pub(crate) fn reach(world: &World) -> Option<Self> {
        Self::find(world).filter(|manager| manager.quiet(&["show-environment"]))
    }

    /// Shows the command and runs it, output and all.
    pub(crate) fn traced(&self, ui: &mut Ui, args: &[&str]) -> Result<ExitStatus, Failed> {
        let args = with_user(args);
        ui.trace(&run::command_line("systemctl", &args));
        run::shown(&self.program, &args, &self.env, true, LIMIT)
    }

    /// Writes a unit unless the user has another one there, and has systemd read what it may not know yet.
    pub(crate) fn put(&self, ui: &mut Ui, unit: &Managed, policy: &Policy) -> Result<Put, Failed> {
        let put = write::put(unit, ui, policy)?;
        if put != Put::Unchanged && !self.quiet(&["daemon-reload"]) {
            return Err(Failed::new("`systemctl --user daemon-reload` failed"));
        }
        Ok(put)
    }

    /// Disables a unit. systemctl(1) also removes a unit's file if that is a link; the user's link comes back.
    pub(crate) fn disable(&self, ui: &mut Ui, file: &Path) -> Result<(), Failed> {
        let link = fs::read_link(file);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // It fails if there is no such unit, which is fine.
        self.traced(ui, &["disable", &name])?;
        if let (Ok(target), Err(_)) = (link, fs::symlink_metadata(file)) {
            symlink(&target, file).map_err(|error| {
                let (file, target) = (file.display(), target.display());
                Failed::new(format!("cannot recreate the link {file} to {target}: {error}"))
            })?;
        }
        Ok(())
    }

    /// Runs the command unseen; whether it succeeded.
    pub(crate) fn quiet(&self, args: &[&str]) -> bool {
        let output = run::captured(&self.program, &with_user(args), &self.env, ASK_TIMEOUT);
        output.is_ok_and(|output| output.status.success())
    }
}

/// [`last_lines`] of a daemon that has just ended: what a program printed reaches the journal a little later than the
/// news that it ended reach us, so this waits until two readings are the same.
pub(crate) fn journal(world: &World, launcher: &OsStr) -> String {
    let mut text = last_lines(world, launcher);
    for _ in 0..JOURNAL_READINGS {
        std::thread::sleep(JOURNAL_PAUSE);
        let before = std::mem::replace(&mut text, last_lines(world, launcher));
        if text == before && !text.is_empty() {
            break;
        }
    }
    text
}

fn with_user<'a>(args: &[&'a str]) -> Vec<&'a OsStr> {
    [&["--user"], args].concat().into_iter().map(OsStr::new).collect()
}
