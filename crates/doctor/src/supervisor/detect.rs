//! Which supervisor there is: what runs counts, not what is installed.

use std::fs;
use std::path::PathBuf;

use super::{Kind, openrc};
use crate::place::World;

/// A process of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    /// Its arguments, the program's name included.
    words: Vec<String>,
    /// Its working directory.
    cwd: Option<PathBuf>,
}

/// What suits the host best.
pub fn best(world: &World) -> Kind {
    if openrc::is_here(world) {
        Kind::Openrc
    } else if runit_scans(world).is_some() {
        Kind::Runit
    } else if s6_scans(world).is_some() {
        Kind::S6
    } else {
        Kind::Plain
    }
}

/// The directory that the user's runsvdir looks at.
pub fn runit_scans(world: &World) -> Option<PathBuf> {
    let process = process(world, "runsvdir")?;
    let dir = process.words.iter().skip(1).find(|word| !word.starts_with('-'))?;
    let cwd = process.cwd.unwrap_or_else(|| "/".into());
    let joined = cwd.join(dir);
    // It works within the directory for most of the time.
    Some(if !joined.is_dir() && cwd.ends_with(dir) { cwd } else { joined })
}

/// The scan directory of the user's s6: s6-svscan works in it.
pub fn s6_scans(world: &World) -> Option<PathBuf> {
    process(world, "s6-svscan")?.cwd
}

/// The user's process with that name (of at most 15 bytes, proc_pid_comm(5)).
fn process(world: &World, name: &str) -> Option<Process> {
    let entries = fs::read_dir(world.at("proc")).ok()?.flatten();
    let dirs = entries.map(|entry| entry.path()).filter(|dir| {
        dir.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
    });
    for dir in dirs {
        let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        if text("comm").trim_end() != name || uid(&text("status")) != Some(world.uid) {
            continue;
        }
        let words = text("cmdline").split_terminator('\0').map(str::to_owned).collect();
        return Some(Process { words, cwd: fs::read_link(dir.join("cwd")).ok() });
    }
    None
}

/// The effective user of proc_pid_status(5).
fn uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
