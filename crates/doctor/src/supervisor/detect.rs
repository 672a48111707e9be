//! Which supervisor there is: what runs counts, not what is installed.

use std::fs;
use std::path::PathBuf;

use super::{Kind, openrc};
use crate::place::World;

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
    let words = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
    let dir = words.split_terminator('\0').skip(1).find(|word| !word.starts_with('-'))?;
    let cwd = fs::read_link(process.join("cwd")).unwrap_or_else(|_| "/".into());
    let joined = cwd.join(dir);
    // It works within the directory for most of the time.
    Some(if !joined.is_dir() && cwd.ends_with(dir) { cwd } else { joined })
}

/// The scan directory of the user's s6: s6-svscan works in it.
pub fn s6_scans(world: &World) -> Option<PathBuf> {
    fs::read_link(process(world, "s6-svscan")?.join("cwd")).ok()
}

/// `/proc/PID` of the user's process with that name (of at most 15 bytes, proc_pid_comm(5)).
fn process(world: &World, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(world.at("proc")).ok()?.flatten();
    let mut dirs = entries.map(|entry| entry.path()).filter(|dir| {
        dir.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
    });
    dirs.find(|dir| {
        let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        text("comm").trim_end() == name && uid(&text("status")) == Some(world.uid)
    })
}

/// The effective user of proc_pid_status(5).
fn uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
