//! Whether somebody lives in a state directory of rootlesskit.
//!
//! Rootlesskit holds an exclusive flock(2) on the file `lock` for as long as it runs and writes the number
//! of its child to `child_pid`. After a crash both files stay behind, and neither means anything then: the
//! lock is free and the number belongs to nobody, or to an unrelated process. Docker's own launcher takes
//! the mere existence of containerd-rootless's directory for a conflict, which blocks for ever after a crash.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How long an owner may be ending, and how often that is looked at.
const ENDING: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(20);

/// What a state directory tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// There is no such directory.
    Absent,
    /// The directory is there, its owner is not.
    Gone,
    /// Its owner runs.
    Running {
        /// Whether the lock says so; otherwise it is only the child that is alive.
        locked: bool,
        /// The pid of rootlesskit, or failing that of its child.
        pid: Option<u32>,
    },
}

impl Occupant {
    /// Looks at the directory.
    pub(crate) fn of(state_dir: &Path, proc: &Path) -> Self {
        if fs::symlink_metadata(state_dir).is_err() {
            return Self::Absent;
        }
        let child = child(state_dir, proc);
        let pid = child.map(|pid| parent_of(proc, pid).unwrap_or(pid));
        match (locked(&state_dir.join("lock")), child) {
            (true, _) => Self::Running { locked: true, pid },
            (false, Some(_)) => Self::Running { locked: false, pid },
            (false, None) => Self::Gone,
        }
    }

    /// As [`Occupant::of`], with a second look, and more, for an owner that is ending: a process that was killed has its
    /// lock until the kernel comes to closing its files, which a start right after a crash can overtake.
    pub(crate) fn that_stays(state_dir: &Path, proc: &Path) -> Self {
        let end = Instant::now() + ENDING;
        loop {
            match Self::of(state_dir, proc) {
                Self::Running { .. } if Instant::now() < end => std::thread::sleep(STEP),
                found => return found,
            }
        }
    }

    /// ` (pid 7)`, for a message.
    pub(crate) fn pid_text(self) -> String {
        match self {
            Self::Running { pid: Some(pid), .. } => format!(" (pid {pid})"),
            _ => String::new(),
        }
    }
}

/// A shared lock is asked for: two launchers that look at the same time must not see each other.
fn locked(lock: &Path) -> bool {
    let Ok(file) = env::file::open(lock) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

/// The child's pid, if that process is alive and was made by the owner of this directory. The number may
/// have been used again since, so the process must name the directory in its environment.
fn child(state_dir: &Path, proc: &Path) -> Option<u32> {
    let pid: u32 = env::file::text(&state_dir.join("child_pid")).ok()?.trim().parse().ok()?;
    let mut wanted = b"ROOTLESSKIT_STATE_DIR=".to_vec();
    wanted.extend_from_slice(state_dir.as_os_str().as_encoded_bytes());
    match fs::read(proc.join(pid.to_string()).join("environ")) {
        Ok(environ) => environ.split(|b| *b == 0).any(|entry| entry == wanted).then_some(pid),
        // Not ours to look into: somebody's, alive, and better not disturbed.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Some(pid),
        Err(_) => None,
    }
}

fn parent_of(proc: &Path, pid: u32) -> Option<u32> {
    let status = fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    (parent > 1).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    struct Fixture {
        root: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let f = Self { root: tempfile::tempdir().unwrap() };
            fs::create_dir(f.state()).unwrap();
            fs::create_dir_all(f.proc().join("7")).unwrap();
            f
        }

        fn state(&self) -> std::path::PathBuf {
            self.root.path().join("state")
        }

        fn proc(&self) -> std::path::PathBuf {
            self.root.path().join("proc")
        }

        fn child(&self, environ: &str) {
            fs::write(self.state().join("child_pid"), "7").unwrap();
            fs::write(self.proc().join("7/environ"), environ).unwrap();
            fs::write(self.proc().join("7/status"), "Name:\tx\nPPid:\t5\n").unwrap();
        }

        fn occupant(&self) -> Occupant {
            Occupant::of(&self.state(), &self.proc())
        }
    }

    #[test]
    fn f172_a_directory_that_was_left_behind_is_no_conflict() {
        let f = Fixture::new();
        assert_eq!(f.occupant(), Occupant::Gone);
        fs::write(f.state().join("lock"), "").unwrap();
        fs::write(f.state().join("child_pid"), "8").unwrap();
        assert_eq!(f.occupant(), Occupant::Gone);
        f.child("ROOTLESSKIT_STATE_DIR=/elsewhere\0");
        assert_eq!(f.occupant(), Occupant::Gone);
        fs::remove_dir_all(f.state()).unwrap();
        assert_eq!(f.occupant(), Occupant::Absent);
    }

    #[test]
    fn f048_an_owner_that_is_ending_is_waited_for_and_one_that_stays_is_told() {
        let f = Fixture::new();
        let lock = || {
            let file = File::create(f.state().join("lock")).unwrap();
            Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap()
        };
        let held = lock();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(STEP * 5);
            drop(held);
        });
        assert_eq!(Occupant::that_stays(&f.state(), &f.proc()), Occupant::Gone);
        ends.join().unwrap();
        let _held = lock();
        let stays = Occupant::that_stays(&f.state(), &f.proc());
        assert_eq!(stays, Occupant::Running { locked: true, pid: None });
    }

    #[test]
    fn f172_a_held_lock_or_a_living_child_is_a_conflict() {
        let f = Fixture::new();
        f.child(&format!("A=b\0ROOTLESSKIT_STATE_DIR={}\0", f.state().display()));
        assert_eq!(f.occupant(), Occupant::Running { locked: false, pid: Some(5) });
        assert_eq!(f.occupant().pid_text(), " (pid 5)");
        let file = File::create(f.state().join("lock")).unwrap();
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        assert_eq!(f.occupant(), Occupant::Running { locked: true, pid: Some(5) });
        fs::remove_file(f.state().join("child_pid")).unwrap();
        assert_eq!(f.occupant(), Occupant::Running { locked: true, pid: None });
        drop(held);
        let looker = File::open(f.state().join("lock")).unwrap();
        let _looking = Flock::lock(looker, FlockArg::LockSharedNonblock).unwrap();
        assert_eq!(f.occupant(), Occupant::Gone, "another launcher that looks is no owner");
    }
}
