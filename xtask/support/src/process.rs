//! Processes as `/proc` shows them: trees, processor time, memory, owners.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result};

/// A few fields of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub pid: i32,
    /// The name of its program, cut to 15 bytes.
    pub comm: String,
    /// The number of its parent.
    pub parent: i32,
    /// User and system time, in clock ticks.
    pub own: u64,
    /// The same of children that ended.
    pub ended: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(" (")?;
        // The name may contain anything, parentheses too.
        let (comm, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            comm: comm.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own: number(11)? + number(12)?,
            ended: number(13)? + number(14)?,
        })
    }
}

/// All processes of the machine.
#[must_use]
pub fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    });
    // A process may end between the two looks.
    pids.filter_map(|entry| Stat::parse(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect()
}

/// `root` and its descendants.
#[must_use]
pub fn descendants(all: &[Stat], root: i32) -> Vec<&Stat> {
    let mut found: Vec<&Stat> = all.iter().filter(|stat| stat.pid == root).collect();
    let mut next = 0;
    while let Some(stat) = found.get(next) {
        let parent = stat.pid;
        found.extend(all.iter().filter(|stat| stat.parent == parent));
        next += 1;
    }
    found
}

/// Clock ticks per second, as every architecture that we know reports them to programs (`USER_HZ`, time(7)).
pub const TICKS: f64 = 100.0;

/// Processor seconds that these processes have used so far.
///
/// # Errors
/// One of them has ended.
pub fn cpu_seconds(pids: &[i32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid}, which is measured, has gone"))?;
        ticks += Stat::parse(&text).with_context(|| format!("/proc/{pid}/stat"))?.own;
    }
    Ok(ticks as f64 / TICKS)
}

/// Memory of these processes in MB (10⁶ bytes), shared pages in proportion (`Pss`, proc_pid_smaps(5)).
///
/// # Errors
/// One of them has ended, or belongs to somebody else.
pub fn pss_mb(pids: &[i32]) -> Result<f64> {
    let mut kib: f64 = 0.0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let value = line.and_then(|line| line.split_whitespace().next());
        kib += value.and_then(|value| value.parse::<f64>().ok()).context("no Pss")?;
    }
    Ok(kib * 1024.0 / 1e6)
}

/// The user that a process belongs to.
#[must_use]
pub fn owner(pid: i32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|meta| meta.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_contain_anything() {
        let line = "12 (a) b (c)) S 7 12 12 0 -1 4194304 1 2 3 4 50 60 70 80 20 0 1 0 99";
        let want = Stat { pid: 12, comm: "a) b (c)".to_owned(), parent: 7, own: 110, ended: 150 };
        assert_eq!(Stat::parse(line), Some(want));
        assert_eq!(Stat::parse("12 (cut"), None);
    }

    #[test]
    fn a_tree_is_a_process_and_its_descendants() {
        let stat = |pid, parent| Stat { pid, parent, comm: String::new(), own: 0, ended: 0 };
        let all = [stat(1, 0), stat(5, 1), stat(9, 8), stat(8, 5), stat(6, 1)];
        let pids: Vec<i32> = descendants(&all, 5).iter().map(|stat| stat.pid).collect();
        assert_eq!(pids, [5, 8, 9]);
    }

    #[test]
    fn our_own_memory_and_time_can_be_read() {
        let own = [i32::try_from(std::process::id()).unwrap()];
        assert!(pss_mb(&own).unwrap() > 0.1);
        assert!(cpu_seconds(&own).unwrap() >= 0.0);
        assert!(cpu_seconds(&[0]).is_err());
    }
}
