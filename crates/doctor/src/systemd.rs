//! Questions to the user's service manager and its journal. Nothing here changes a unit.

use std::ffi::OsStr;
use std::time::Duration;

use hostenv::helper::{self, Output};
use hostenv::{Env, vars};

use crate::names::UNIT;
use crate::place::World;

/// How long a command may take that only asks.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// How many lines of a log are read after a failure.
pub const LAST_LINES: usize = 20;

/// The environment in which programs find the user's service manager.
pub fn with_runtime_dir(world: &World) -> Env {
    let mut env = world.env.clone();
    if let Some(dir) = world.runtime_dir() {
        env.set(vars::XDG_RUNTIME_DIR, dir);
    }
    env
}

/// A property of one of the user's units; `None` if it is empty or systemd does not answer.
#[must_use]
pub fn property(world: &World, name: &str, unit: &str) -> Option<String> {
    let property = format!("--property={name}");
    let output = ask(world, "systemctl", &["--user", "show", &property, "--value", unit])?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The last lines that the daemon and its launcher printed; nothing if there is no journal.
///
/// `journalctl --user --unit` alone would miss the last words of a program that has ended before journald looks up the
/// unit of its process, so lines that bear the launcher's name are taken, too.
pub fn last_lines(world: &World, launcher: &OsStr) -> String {
    let user = format!("_UID={}", world.uid);
    let unit = format!("_SYSTEMD_USER_UNIT={UNIT}");
    let name = format!("SYSLOG_IDENTIFIER={}", launcher.to_string_lossy());
    let lines = LAST_LINES.to_string();
    let args = ["-n", &lines, "--no-pager", "--quiet", &unit, &user, "+", &name, &user];
    // All of it: what matters is at the end.
    ask(world, "journalctl", &args)
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn ask(world: &World, program: &str, args: &[&str]) -> Option<Output> {
    helper::run(program, args, &with_runtime_dir(world), ASK_TIMEOUT).ok().flatten()
}
