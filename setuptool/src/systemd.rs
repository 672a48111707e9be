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

use hostenv::{Env, vars};

use crate::managed::{Managed, Policy, Put};
use crate::place::World;
use crate::run::{self, Failed};
use crate::ui::Ui;

/// The name of the unit.
pub(crate) const UNIT: &str = "docker.service";
/// The name of the unit that starts it on demand.
pub(crate) const SOCKET_UNIT: &str = "docker.socket";
/// Longer than any time-out in the unit (10 min): systemd gives up first, and tells why.
const LIMIT: Duration = Duration::from_secs(11 * 60);
/// What only asks has its answer at once.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// So many lines of a log are looked at after a failure.
pub(crate) const LAST_LINES: usize = 20;
/// How often, and how long apart, an unsettled journal is read again.
const JOURNAL_READINGS: u32 = 5;
const JOURNAL_PAUSE: Duration = Duration::from_millis(200);

/// `systemctl --user`.
#[derive(Debug)]
pub(crate) struct Systemctl {
    program: PathBuf,
    env: Env,
}

impl Systemctl {
    /// If the program is there.
    pub(crate) fn find(world: &World) -> Option<Self> {
        Some(Self { program: world.find("systemctl")?, env: with_runtime_dir(world) })
    }

    /// If the program is there and reaches the user's service manager.
    pub(crate) fn reach(world: &World) -> Option<Self> {
        Self::find(world).filter(|manager| manager.quiet(&["show-environment"]))
    }

    /// Shows the command and runs it, output and all.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) fn traced(&self, ui: &mut Ui, args: &[&str]) -> Result<ExitStatus, Failed> {
        let args = with_user(args);
        ui.trace(&run::command_line("systemctl", &args));
        run::shown(&self.program, &args, &self.env, true, LIMIT)
    }

    /// Writes a unit unless the user has another one there, and has systemd read what it may not know yet.
    ///
    /// # Errors
    /// The unit cannot be written, or systemd refuses.
    pub(crate) fn put(&self, ui: &mut Ui, unit: &Managed, policy: &Policy) -> Result<Put, Failed> {
        let put = unit.put(ui, policy)?;
        if put != Put::Unchanged && !self.quiet(&["daemon-reload"]) {
            return Err(Failed::new("`systemctl --user daemon-reload` failed"));
        }
        Ok(put)
    }

    /// Disables a unit. systemctl(1) also removes a unit's file if that is a link; the user's link comes back.
    ///
    /// # Errors
    /// The command cannot be run, or the link cannot be made again.
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
        let output = run::captured(&self.program, &with_user(args), &self.env, ASK_LIMIT);
        output.is_ok_and(|output| output.status.success())
    }

    /// A property of a unit; `None` if it is empty or cannot be had.
    pub(crate) fn property(&self, name: &str, unit: &str) -> Option<String> {
        let property = format!("--property={name}");
        let args = with_user(&["show", &property, "--value", unit]);
        let output = run::captured(&self.program, &args, &self.env, ASK_LIMIT).ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    }
}

/// The environment in which programs find the user's service manager.
pub(crate) fn with_runtime_dir(world: &World) -> Env {
    let mut env = world.env.clone();
    if let Some(dir) = world.runtime_dir() {
        env.set(vars::XDG_RUNTIME_DIR, dir);
    }
    env
}

/// The last lines that the daemon and its launcher printed; nothing if there is no journal.
///
/// `journalctl --user --unit` alone would miss the last words of a program that has ended before journald looks up the
/// unit of its process, so lines that bear the launcher's name are taken, too.
pub(crate) fn last_lines(world: &World, launcher: &OsStr) -> String {
    let user = format!("_UID={}", world.uid);
    let unit = format!("_SYSTEMD_USER_UNIT={UNIT}");
    let name = format!("SYSLOG_IDENTIFIER={}", launcher.to_string_lossy());
    let lines = LAST_LINES.to_string();
    let args = ["-n", &lines, "--no-pager", "--quiet", &unit, &user, "+", &name, &user];
    let args = args.map(OsStr::new);
    let Some(journalctl) = world.find("journalctl") else { return String::new() };
    let output = run::captured(&journalctl, &args, &with_runtime_dir(world), ASK_LIMIT);
    // All of it: what matters is at the end.
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
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
