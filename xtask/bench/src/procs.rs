//! The processes of the benchmark: which of them belong to a side, and which processors they may use.

use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xtask_support::process::{TICKS, all, descendants};

pub(crate) use xtask_support::process::{cpu_seconds, owner, pss_mb};

/// What the target of every instance is called.
pub(crate) const TARGET: &str = "cat";
/// The network helper that an instance may have.
const HELPER: &str = "slirp4netns";

/// The processes of an instance that are its program's own: without the target and the network helper.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let all = all();
    let others = [TARGET, HELPER];
    let own = descendants(&all, root).into_iter().filter(|s| !others.contains(&&*s.comm));
    own.map(|stat| stat.pid).collect()
}

/// Everything of an instance but its target: helpers and sandboxed processes too.
pub(crate) fn everything(root: i32) -> Vec<i32> {
    let all = all();
    let own = descendants(&all, root).into_iter().filter(|stat| stat.comm != TARGET);
    own.map(|stat| stat.pid).collect()
}

/// The target of an instance.
pub(crate) fn target(root: i32) -> Option<i32> {
    let all = all();
    descendants(&all, root).into_iter().find(|stat| stat.comm == TARGET).map(|stat| stat.pid)
}

/// Processor seconds that the whole machine has spent so far (proc_stat(5)): not idle, not waiting, not stolen.
pub(crate) fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> = line.split_whitespace().skip(1).map_while(|n| n.parse().ok()).collect();
    // user, nice, system; then idle and iowait; then irq and softirq.
    let busy = [0, 1, 2, 5, 6].iter().map(|index| fields.get(*index).copied().unwrap_or(0));
    Ok(busy.sum::<u64>() as f64 / TICKS)
}

/// Confines every thread of these processes to some processors.
pub(crate) fn confine(pids: &[i32], processors: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(*processor)?;
    }
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = thread?.file_name();
            let thread: i32 = name.to_string_lossy().parse()?;
            sched_setaffinity(Pid::from_raw(thread), &set)
                .with_context(|| format!("confining process {pid}"))?;
        }
    }
    Ok(())
}

/// Names and numbers of a user's processes.
pub(crate) fn of_user(uid: u32) -> Vec<(i32, String)> {
    let mine = all().into_iter().filter(|stat| owner(stat.pid) == Some(uid));
    mine.map(|stat| (stat.pid, stat.comm)).collect()
}

/// What the rest of the machine used while a sample was taken.
///
/// The time of children that ended counts with their parent, so a compiler that ends meanwhile is not lost.
#[derive(Debug)]
pub(crate) struct Quiet {
    started: std::time::Instant,
    before: u64,
    users: Vec<u32>,
}

/// Above this share of all processors a sample counts as disturbed.
pub(crate) const DISTURBED: f64 = 0.10;

impl Quiet {
    /// `users` is whose processes are the benchmark's, beside this one and its descendants.
    pub(crate) fn watch(users: Vec<u32>) -> Self {
        Self { started: std::time::Instant::now(), before: foreign(&users), users }
    }

    /// Whether the rest of the machine kept still.
    pub(crate) fn is(self) -> bool {
        let ticks = foreign(&self.users).saturating_sub(self.before);
        let room = self.started.elapsed().as_secs_f64() * processors() as f64;
        ticks as f64 / TICKS < DISTURBED * room
    }
}

/// Ticks of all other programs so far, and those that the hypervisor took.
fn foreign(users: &[u32]) -> u64 {
    let all = all();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut skip: Vec<i32> = descendants(&all, own).iter().map(|stat| stat.pid).collect();
    // Kernel threads (children of kthreadd, which is 2) work for whoever causes the work.
    skip.push(2);
    let others = all.iter().filter(|stat| !skip.contains(&stat.pid) && stat.parent != 2);
    let others = others.filter(|stat| owner(stat.pid).is_none_or(|uid| !users.contains(&uid)));
    let ticks: u64 = others.map(|stat| stat.own + stat.ended).sum();
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let steal = stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok());
    ticks + steal.unwrap_or(0)
}

/// Processors of this machine that we may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_machine_can_be_read() {
        assert!(busy_seconds().unwrap() > 0.0);
    }
}
