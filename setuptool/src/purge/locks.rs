//! The locks that a starting rootlesskit needs: as long as they are held, it ends with an error instead of starting a
//! daemon on data that is being deleted.
//!
//! They are shared, as everybody's who only looks ([`hostenv::state_dir::is_locked`]), and exclude rootlesskit's exclusive one.
//! A state directory that is not there is made for the time, since rootlesskit would make it. One without a lock that has
//! other entries is no state directory, and rootlesskit refuses it. dockerd's own `docker.pid` needs no lock: dockerd is
//! started by rootlesskit.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hostenv::file::is_same;
use hostenv::state_dir::while_ending;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// The name of the lock in a state directory.
const LOCK: &str = "lock";

/// A lock that is held until it is dropped. What was made for it is removed then.
pub(super) struct Held {
    dir: PathBuf,
    made_dir: bool,
    made_lock: bool,
    _lock: Option<Flock<File>>,
}

/// Takes the locks of these state directories. With them come the directories whose lock somebody else keeps: that is a
/// rootlesskit which runs. One that was killed keeps its lock for a moment, and is waited for.
pub(super) fn take(state_dirs: &[PathBuf]) -> (Vec<Held>, Vec<PathBuf>) {
    let (mut locks, mut kept) = (Vec::new(), Vec::new());
    for dir in state_dirs {
        let mut found = Err(Kept);
        while_ending(|| {
            found = Held::take(dir);
            found.is_err()
        });
        match found {
            Ok(lock) => locks.extend(lock),
            Err(Kept) => kept.push(dir.clone()),
        }
    }
    (locks, kept)
}

/// Somebody else has the lock.
#[derive(Debug)]
struct Kept;

impl Held {
    /// Takes the lock now; none of a directory that no rootlesskit would use.
    fn take(dir: &Path) -> Result<Option<Self>, Kept> {
        // Where the directory above is not there, no daemon has been, and nothing is made.
        let made_dir = fs::create_dir(dir).is_ok();
        let mut held = Self { dir: dir.to_owned(), made_dir, made_lock: false, _lock: None };
        let path = dir.join(LOCK);
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) {
            let mut options = OpenOptions::new();
            held.made_lock = options.write(true).create_new(true).mode(0o600).open(&path).is_ok();
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path) else {
            return Ok(None);
        };
        let lock = match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(lock) => lock,
            Err((_, error)) => {
                // A rootlesskit was faster, and the lock is its own.
                held.made_lock = false;
                return if error == Errno::EWOULDBLOCK { Err(Kept) } else { Ok(None) };
            }
        };
        // A rootlesskit removes its lock at its end, which would leave us with one that keeps nobody out.
        if !is_same(&lock, fs::symlink_metadata(&path)) {
            held.made_lock = false;
            return Err(Kept);
        }
        held._lock = Some(lock);
        Ok(Some(held))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // While the lock is held nobody else makes it his own, and rootlesskit looks again after it got one.
        if self.made_lock {
            let _ = fs::remove_file(self.dir.join(LOCK));
        }
        if self.made_dir {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn exclusive(path: &Path) -> Option<Flock<File>> {
        Flock::lock(File::create(path).unwrap(), FlockArg::LockExclusiveNonblock).ok()
    }

    /// Takes the lock of a rootlesskit that ends in this way while it is waited for, and returns whether the file of the
    /// lock is there afterwards.
    fn take_from(end: fn(&Path, Flock<File>)) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("dockerd-rootless");
        fs::create_dir(&state).unwrap();
        let path = state.join(LOCK);
        let lock = exclusive(&path).unwrap();
        let locks = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                end(&path, lock);
            });
            let (locks, kept) = take(std::slice::from_ref(&state));
            assert_eq!((locks.len(), kept.len()), (1, 0));
            locks
        });
        assert!(exclusive(&path).is_none(), "another rootlesskit could start");
        drop(locks);
        path.exists()
    }

    #[test]
    fn the_lock_of_a_killed_rootlesskit_is_waited_for_and_taken() {
        assert!(take_from(|_, lock| drop(lock)));
    }

    #[test]
    fn a_lock_that_was_removed_meanwhile_is_replaced() {
        let removed = |path: &Path, lock| {
            fs::remove_file(path).unwrap();
            drop(lock);
        };
        assert!(!take_from(removed));
    }

    #[test]
    fn who_keeps_the_lock_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (state, none) = (dir.path().join("dockerd-rootless"), dir.path().join("none"));
        fs::create_dir(&state).unwrap();
        let _running = exclusive(&state.join(LOCK)).unwrap();
        let (locks, kept) = take(&[state.clone(), none.clone()]);
        assert_eq!((locks.len(), kept), (1, vec![state.clone()]));
        assert!(none.join(LOCK).exists() && state.join(LOCK).exists());
        drop(locks);
        assert!(!none.exists() && state.join(LOCK).exists());
    }
}
