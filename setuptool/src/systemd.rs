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
use hostenv::helper::Output;
use hostenv::selinux::Selinux;

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
    /// restorecon(8), if SELinux is on.
    restorecon: Option<PathBuf>,
}

impl Systemctl {
    pub(crate) fn find(world: &World) -> Option<Self> {
        let program = world.find("systemctl")?;
        let selinux = Selinux::of(&world.root).on();
        let restorecon = selinux.then(|| world.find_with_sbin("restorecon")).flatten();
        Some(Self { program, env: with_runtime_dir(world), restorecon })
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
    ///
    /// With SELinux, the unit and the directories that are made for it get the labels that the policy has for their paths.
    /// Otherwise they have that of the home directory, and in enforcing mode Debian's policy lets nobody start such a unit.
    pub(crate) fn put(&self, ui: &mut Ui, unit: &Managed, policy: &Policy) -> Result<Put, Failed> {
        let new = topmost_missing(&unit.path);
        let put = write::put(unit, ui, policy)?;
        if put != Put::Kept {
            // If that fails, so may the start, which then asks `is_mislabelled`.
            self.restorecon(&["-R"], new);
        }
        if put != Put::Unchanged && !self.quiet(&["daemon-reload"]) {
            return Err(Failed::new("`systemctl --user daemon-reload` failed"));
        }
        Ok(put)
    }

    /// Whether the policy of SELinux has another label for this path.
    pub(crate) fn is_mislabelled(&self, path: &Path) -> bool {
        self.restorecon(&["-n", "-v"], path).is_some_and(|output| !output.stdout.is_empty())
    }

    fn restorecon(&self, options: &[&str], path: &Path) -> Option<Output> {
        let mut args: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        args.extend([OsStr::new("--"), path.as_os_str()]);
        run::captured(self.restorecon.as_deref()?, &args, &self.env, ASK_TIMEOUT).ok()
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

/// The first directory of the path that does not exist, or the whole path.
fn topmost_missing(path: &Path) -> &Path {
    let missing = |path: &&Path| fs::symlink_metadata(path).is_err();
    path.ancestors().take_while(missing).last().unwrap_or(path)
}

fn with_user<'a>(args: &[&'a str]) -> Vec<&'a OsStr> {
    [&["--user"], args].concat().into_iter().map(OsStr::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_missing_part_of_a_path_is_the_last_one_if_its_directory_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("a/b/docker.service");
        assert_eq!(topmost_missing(&unit), dir.path().join("a"));
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        assert_eq!(topmost_missing(&unit), unit);
        fs::write(&unit, "").unwrap();
        assert_eq!(topmost_missing(&unit), unit);
    }
}
