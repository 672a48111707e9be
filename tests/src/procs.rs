//! The processes of a box, seen from outside through the machine's `/proc`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The uid of `tester`, the user of a box, and of the root of its user namespaces.
pub const TESTER: u32 = 1001;

/// A process of a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proc {
    /// Its number on the machine; good for `/proc/<host_pid>`.
    pub host_pid: i32,
    /// Its number in the box (for a process of a nested pid namespace the box's number of it, too).
    pub pid: i32,
    /// Its parent's number on the machine.
    pub host_parent: i32,
    /// Effective uid on the machine: [`TESTER`] for the user and its namespace's root, 100000 and up for subids.
    pub uid: u32,
    /// One letter, as ps(1) shows it: R, S, D, Z, T.
    pub state: char,
    /// The command line, joined with spaces; the name in brackets for one that has none.
    pub command: String,
}

impl Proc {
    /// Its folder in the machine's `/proc`.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.host_pid))
    }

    /// The identity of one of its namespaces (`user`, `mnt`, `net`, …), such as `net:[4026531840]`.
    #[must_use]
    pub fn namespace(&self, kind: &str) -> Option<String> {
        fs::read_link(self.dir().join("ns").join(kind)).ok().map(|p| p.display().to_string())
    }

    /// The name of the program it runs, without folder.
    #[must_use]
    pub fn program(&self) -> &str {
        let first = self.command.split(' ').next().unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default()
    }

    /// Open descriptors.
    ///
    /// # Errors
    /// It has ended.
    pub fn descriptors(&self) -> Result<u64> {
        Ok(fs::read_dir(self.dir().join("fd"))?.count().try_into()?)
    }

    /// Resident memory in KiB (`VmRSS`, proc_pid_status(5)).
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        self.number("status", "VmRSS")
    }

    /// The same with shared pages in proportion, in KiB (`Pss`, proc_pid_smaps(5)).
    ///
    /// # Errors
    /// It has ended.
    pub fn proportional_memory(&self) -> Result<u64> {
        self.number("smaps_rollup", "Pss")
    }

    /// How many threads it has.
    ///
    /// # Errors
    /// It has ended.
    pub fn threads(&self) -> Result<u64> {
        self.number("status", "Threads")
    }

    /// A number of a file of its `/proc/PID` by its name.
    fn number(&self, file: &str, name: &str) -> Result<u64> {
        let path = self.dir().join(file);
        let text = fs::read_to_string(&path)?;
        let value = field(&text, &format!("{name}:")).and_then(|v| v.split_whitespace().next());
        let value = value.with_context(|| format!("no {name} in {}", path.display()))?;
        value.parse().with_context(|| format!("{name} in {}", path.display()))
    }
}

/// Reads what `/proc` says about `pids`; those that ended meanwhile are left out. `depth` is the number of pid
/// namespaces from the machine's down to the box's.
pub(crate) fn read(pids: &[i32], depth: usize) -> Vec<Proc> {
    pids.iter().filter_map(|&pid| read_one(pid, depth)).collect()
}

/// How many pid namespaces a process is in, counted from the machine's.
pub(crate) fn depth_of(host_pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{host_pid}/status")).unwrap_or_default();
    field(&status, "NSpid:").map_or(0, |value| value.split_whitespace().count())
}

fn read_one(host_pid: i32, depth: usize) -> Option<Proc> {
    let dir = format!("/proc/{host_pid}");
    let status = fs::read_to_string(format!("{dir}/status")).ok()?;
    let raw = fs::read(format!("{dir}/cmdline")).ok()?;
    let words: Vec<_> = raw.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    let command = match words.join(" ").trim_end() {
        "" => format!("[{}]", field(&status, "Name:")?),
        text => text.to_owned(),
    };
    Some(Proc {
        host_pid,
        pid: field(&status, "NSpid:")?
            .split_whitespace()
            .nth(depth.checked_sub(1)?)?
            .parse()
            .ok()?,
        host_parent: field(&status, "PPid:")?.parse().ok()?,
        uid: field(&status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()?,
        state: field(&status, "State:")?.chars().next()?,
        command,
    })
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read_back() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let depth = depth_of(pid);
        assert!(depth >= 1);
        let all = read(&[pid, -5], depth);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].pid, pid);
        assert!(all[0].command.contains("tests"), "{:?}", all[0]);
        assert!(all[0].namespace("net").unwrap().starts_with("net:["));
        assert!(all[0].descriptors().unwrap() > 2 && all[0].threads().unwrap() > 0);
        assert!(all[0].memory().unwrap() > 0 && all[0].proportional_memory().unwrap() > 0);
    }
}
