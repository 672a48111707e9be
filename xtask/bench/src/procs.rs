//! Processes as `/proc` shows them: trees, processor time, memory, processors they may use.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// What the target of every instance is called.
pub(crate) const TARGET: &str = "cat";
/// The network helper that an instance may have.
const HELPER: &str = "slirp4netns";

/// A few fields of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    pid: i32,
    comm: String,
    parent: i32,
    /// User and system time, in clock ticks.
    own: u64,
    /// The same of children that ended.
    ended: u64,
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

fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    });
    // A process may end between the two looks.
    pids.filter_map(|entry| Stat::parse(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect()
}

/// `root` and its descendants.
fn descendants(all: &[Stat], root: i32) -> Vec<&Stat> {
    let mut found: Vec<&Stat> = all.iter().filter(|stat| stat.pid == root).collect();
    let mut next = 0;
    while let Some(stat) = found.get(next) {
        let parent = stat.pid;
        found.extend(all.iter().filter(|stat| stat.parent == parent));
        next += 1;
    }
    found
}

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

/// Clock ticks per second, as every architecture that we know reports them to programs (`USER_HZ`, time(7)).
const TICKS: f64 = 100.0;

/// Processor seconds that these processes have used so far.
pub(crate) fn cpu_seconds(pids: &[i32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid}, which is measured, has gone"))?;
        ticks += Stat::parse(&text).with_context(|| format!("/proc/{pid}/stat"))?.own;
    }
    Ok(ticks as f64 / TICKS)
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

/// Memory of these processes in MB (10⁶ bytes), shared pages in proportion (`Pss`, proc_pid_smaps(5)).
pub(crate) fn pss_mb(pids: &[i32]) -> Result<f64> {
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

/// The user that a process belongs to.
pub(crate) fn owner(pid: i32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|meta| meta.uid())
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
        assert!(busy_seconds().unwrap() > 0.0);
    }
}
