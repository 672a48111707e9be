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

/// Takes the locks of these state directories, as far as nobody has them: whoever has one shows as a sign of life.
pub(super) fn take(state_dirs: &[PathBuf]) -> Vec<Held> {
    state_dirs.iter().filter_map(|dir| Held::take(dir)).collect()
}

impl Held {
    fn take(dir: &Path) -> Option<Self> {
        // Where the directory above is not there, no daemon has been, and nothing is made.
        let made_dir = fs::create_dir(dir).is_ok();
        let mut held = Self { dir: dir.to_owned(), made_dir, made_lock: false, _lock: None };
        let path = dir.join(LOCK);
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) {
            let mut options = OpenOptions::new();
            held.made_lock = options.write(true).create_new(true).mode(0o600).open(&path).is_ok();
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(lock) => held._lock = Some(lock),
            // A rootlesskit was faster, and the lock is its own.
            Err(_) => held.made_lock = false,
        }
        held._lock.is_some().then_some(held)
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
