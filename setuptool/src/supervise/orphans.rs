//! The processes that a daemon leaves when it ends: shims of containers, and with them the containers.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long killed processes may take to go; one that waits for a disk can take longer than anybody wants to wait.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// Kills and collects all children; returns how many there were. Children of a killed one become ours in turn.
pub(super) fn end() -> io::Result<usize> {
    let deadline = Instant::now() + LIMIT;
    let mut count = 0;
    loop {
        while sys::wait::any()?.is_some() {}
        let left = children(Path::new("/proc"), std::process::id());
        if left.is_empty() || Instant::now() > deadline {
            return Ok(count);
        }
        for pid in left {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) => count += 1,
                // It is a zombie of another thread group, or a program that gained privileges.
                Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// The children of a process (proc_pid_stat(5)).
fn children(proc: &Path, parent: u32) -> Vec<i32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).unwrap_or_default();
        // The name may hold anything, so what follows the last parenthesis counts: state, parent.
        let parent_of = || stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok();
        parent_of() == Some(parent)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_whatever_their_name() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, stat) in [
            ("7", "7 (sh) S 3 7 7 0"),
            ("8", "8 (a) S 9 (x) S 3 1"),
            ("9", "9 (b) S 4 1"),
            ("self", "1 (c) S 3"),
            ("10", ""),
        ] {
            fs::create_dir(proc.path().join(pid)).unwrap();
            fs::write(proc.path().join(pid).join("stat"), stat).unwrap();
        }
        let mut found = children(proc.path(), 3);
        found.sort_unstable();
        assert_eq!(found, [7, 8]);
    }
}
