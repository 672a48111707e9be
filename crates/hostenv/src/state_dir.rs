//! A state directory of rootlesskit: whether its owner runs, and who that is.
//!
//! Rootlesskit holds an exclusive flock(2) on the file `lock` for as long as it runs and writes the pid of its child to
//! `child_pid`. After a crash both files stay behind, and neither means anything then: the lock is free and the pid belongs to
//! nobody, or to an unrelated process. Docker's own tools take the mere existence of such a directory for a conflict, which
//! blocks for ever after a crash.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::vars;

/// How long an owner may take to end, and how often that is looked at.
const ENDING_TIMEOUT: Duration = Duration::from_secs(2);
const ENDING_INTERVAL: Duration = Duration::from_millis(20);

/// What a state directory tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
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
    /// Looks at the directory. `proc` is `/proc`.
    pub fn of(state_dir: &Path, proc: &Path) -> Self {
        if fs::symlink_metadata(state_dir).is_err() {
            return Self::Absent;
        }
        let child = child(state_dir, proc);
        let pid = child.as_ref().map(|child| parent_of(child.pid, proc).unwrap_or(child.pid));
        match (is_locked(&state_dir.join("lock")), child) {
            (true, _) => Self::Running { locked: true, pid },
            (false, Some(_)) => Self::Running { locked: false, pid },
            (false, None) => Self::Gone,
        }
    }

    /// As [`Occupant::of`], but waits for an owner that is ending: a process that was killed has its lock until the kernel
    /// comes to closing its files, which a start right after a crash can overtake.
    pub fn that_stays(state_dir: &Path, proc: &Path) -> Self {
        let mut found = Self::Absent;
        while_ending(|| {
            found = Self::of(state_dir, proc);
            found.is_running()
        });
        found
    }

    /// Whether the owner runs.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// The pid of rootlesskit, or failing that of its child.
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Running { pid, .. } => pid,
            Self::Absent | Self::Gone => None,
        }
    }

    /// ` (pid 7)`, for a message.
    pub fn pid_text(self) -> String {
        self.pid().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    }
}

/// The child of a running rootlesskit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its pid.
    pub pid: u32,
    /// Its `ROOTLESSKIT_…` variables.
    pub variables: Vec<(OsString, OsString)>,
}

/// The child of the directory's owner, if it is alive. The pid may have been given to somebody else since, so the process must
/// name the directory in its environment. A process whose environment may not be read is not the child: whoever owns the
/// directory owns the child's user namespace, and may read what is in there (ptrace(2), "Ptrace access mode checking").
pub fn child(state_dir: &Path, proc: &Path) -> Option<Child> {
    let pid: u32 = crate::file::text(&state_dir.join("child_pid")).ok()?.trim().parse().ok()?;
    let environ = fs::read(proc.join(pid.to_string()).join("environ")).ok()?;
    let entries =
        environ.split(|byte| *byte == 0).filter(|entry| entry.starts_with(b"ROOTLESSKIT_"));
    let variables: Vec<(OsString, OsString)> = entries
        .filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (entry[..at].to_vec(), entry[at + 1..].to_vec());
            Some((OsString::from_vec(name), OsString::from_vec(value)))
        })
        .collect();
    let names_it = variables.iter().any(|(name, value)| {
        name == vars::ROOTLESSKIT_STATE_DIR && value.as_bytes() == state_dir.as_os_str().as_bytes()
    });
    names_it.then_some(Child { pid, variables })
}

/// The pid of rootlesskit itself, to which signals go; `None` if it has ended.
pub fn parent_of(child: u32, proc: &Path) -> Option<u32> {
    let status = fs::read_to_string(proc.join(child.to_string()).join("status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    (parent > 1).then_some(parent)
}

/// Whether somebody holds an exclusive flock(2) on the file. A shared lock is asked for, so that two who look do not see each
/// other.
pub fn is_locked(lock: &Path) -> bool {
    let Ok(file) = crate::file::open(lock) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

/// Asks again until the answer is `false`, for as long as a killed process may take to end, and returns the last answer.
pub fn while_ending(mut held: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + ENDING_TIMEOUT;
    loop {
        match held() {
            // No descriptor tells that a lock of flock(2) is free.
            true if Instant::now() < deadline => std::thread::sleep(ENDING_INTERVAL),
            answer => return answer,
        }
    }
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
    fn a_directory_that_was_left_behind_is_no_conflict() {
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
    fn an_owner_that_is_ending_is_waited_for_and_one_that_stays_is_told() {
        let f = Fixture::new();
        let lock = || {
            let file = File::create(f.state().join("lock")).unwrap();
            Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap()
        };
        let held = lock();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(ENDING_INTERVAL * 5);
            drop(held);
        });
        assert_eq!(Occupant::that_stays(&f.state(), &f.proc()), Occupant::Gone);
        ends.join().unwrap();
        let _held = lock();
        let stays = Occupant::that_stays(&f.state(), &f.proc());
        assert_eq!(stays, Occupant::Running { locked: true, pid: None });
    }

    #[test]
    fn a_held_lock_or_a_living_child_is_a_conflict() {
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

    #[test]
    fn the_variables_of_the_child_are_told() {
        let f = Fixture::new();
        f.child(&format!(
            "A=1\0ROOTLESSKIT_STATE_DIR={}\0ROOTLESSKIT_PARENT_EUID=1000\0",
            f.state().display()
        ));
        let found = child(&f.state(), &f.proc()).unwrap();
        let euid = (vars::ROOTLESSKIT_PARENT_EUID.into(), "1000".into());
        assert!(found.variables.contains(&euid));
        assert_eq!((found.pid, found.variables.len()), (7, 2));
        assert_eq!(parent_of(7, &f.proc()), Some(5));
    }

    /// After a crash the pid of the child may be that of a process of another user, for ever.
    #[test]
    fn a_process_that_may_not_be_looked_into_is_not_the_child() {
        let f = Fixture::new();
        fs::write(f.state().join("child_pid"), "7").unwrap();
        // What cannot be read stands for what must not be: these tests may run as root.
        fs::create_dir(f.proc().join("7/environ")).unwrap();
        assert_eq!(f.occupant(), Occupant::Gone);
        assert_eq!(child(&f.state(), &f.proc()), None);
    }
}
