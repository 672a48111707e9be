//! A state directory of rootlesskit: does somebody live in it?
//!
//! Rootlesskit holds an flock(2) on `lock` as long as it runs and writes the pid of its child to `child_pid`. After a
//! crash both files stay, and neither means anything: the lock is free, the pid nobody's or a stranger's. So the
//! directory alone, at which Docker's own tool stops, is no conflict.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use env::vars;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The child of a running rootlesskit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    /// Its pid.
    pub(crate) pid: u32,
    /// Its `ROOTLESSKIT_…` variables.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// The living child of the directory's owner. The pid may have been given to somebody else since, so the process must
/// name the directory in its environment.
pub(crate) fn child(state_dir: &Path, proc: &Path) -> Option<Child> {
    let pid: u32 = env::file::text(&state_dir.join("child_pid")).ok()?.trim().parse().ok()?;
    let environ = fs::read(proc.join(pid.to_string()).join("environ")).ok()?;
    let variables: Vec<(OsString, OsString)> = environ
        .split(|byte| *byte == 0)
        .filter(|entry| entry.starts_with(b"ROOTLESSKIT_"))
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

/// Whether the owner of the directory runs.
pub(crate) fn is_running(state_dir: &Path, proc: &Path) -> bool {
    is_locked(&state_dir.join("lock")) || child(state_dir, proc).is_some()
}

/// The pid of rootlesskit itself, to which signals go.
pub(crate) fn parent_of(child: u32, proc: &Path) -> Option<u32> {
    let status = fs::read_to_string(proc.join(child.to_string()).join("status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    (parent > 1).then_some(parent)
}

/// Whether somebody holds an flock(2) on the file. A shared lock is asked for, so that two who look do not see each
/// other.
pub(crate) fn is_locked(lock: &Path) -> bool {
    let Ok(file) = env::file::open(lock) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

/// Removes a file; that there is none is fine. True if there was one.
///
/// # Errors
/// Those of unlink(2).
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn f172_only_a_lock_or_a_living_child_is_an_owner() {
        let root = tempfile::tempdir().unwrap();
        let (state, proc) = (root.path().join("state"), root.path().join("proc"));
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(proc.join("7")).unwrap();
        assert!(!is_running(&state, &proc));
        fs::write(state.join("child_pid"), "7\n").unwrap();
        fs::write(state.join("lock"), "").unwrap();
        fs::write(proc.join("7/environ"), "ROOTLESSKIT_STATE_DIR=/elsewhere\0").unwrap();
        assert!(!is_running(&state, &proc));
        let environ = format!(
            "A=1\0ROOTLESSKIT_STATE_DIR={}\0ROOTLESSKIT_PARENT_EUID=1000\0",
            state.display()
        );
        fs::write(proc.join("7/environ"), environ).unwrap();
        fs::write(proc.join("7/status"), "Name:\tx\nPPid:\t5\n").unwrap();
        let found = child(&state, &proc).unwrap();
        let euid = (vars::ROOTLESSKIT_PARENT_EUID.into(), "1000".into());
        assert!(found.variables.contains(&euid));
        assert_eq!((found.pid, found.variables.len()), (7, 2));
        assert_eq!(parent_of(7, &proc), Some(5));
        fs::remove_file(state.join("child_pid")).unwrap();
        assert!(!is_running(&state, &proc));
        let file = File::create(state.join("lock")).unwrap();
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        assert!(is_running(&state, &proc));
        drop(held);
        assert!(!is_running(&state, &proc));
    }
}
