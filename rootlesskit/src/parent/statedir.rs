//! The state directory: where clients find us, and what keeps a second instance out.
//!
//! One lock (`lock`, flock(2)) is held from the first look into the directory until its last file is gone, so
//! a new instance never sees half of an old one. Files that RootlessKit did not make are never removed:
//! a directory that is in use for something else is refused, and removal knows the names of our own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hostenv::file::is_same;
use hostenv::{Env, vars};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::mkdtemp;

const LOCK: &str = "lock";

/// Every file that we make in the directory, besides those of the drivers.
const OURS: [&str; 5] = ["child_pid", api::SOCKET_NAME, "netns", "resolv.conf", "hosts"];

/// The same with those of the drivers.
fn ours() -> impl Iterator<Item = &'static str> {
    OURS.into_iter().chain(drivers::STATE_FILES)
}

#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// A shared lock on the directory itself keeps systemd-tmpfiles from cleaning it (tmpfiles.d(5)).
    _directory: Option<Flock<File>>,
    lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory, or takes over what a killed instance left.
    pub(super) fn open(path: Option<&Path>, env: &Env) -> anyhow::Result<Self> {
        let path = match path {
            Some(path) => {
                let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
                made.with_context(|| format!("failed to create --state-dir={}", path.display()))?;
                path.to_owned()
            }
            None => temporary(env)?,
        };
        let state = Self { _directory: lock_directory(&path), lock: lock(&path)?, path };
        state.remove_files();
        Ok(state)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes our files and the directory, which stays if it has others. The lock goes last. If the lock is
    /// not ours, somebody has removed our directory, and what is there now belongs to another instance.
    pub(super) fn remove(self) {
        let lock = self.path.join(LOCK);
        if !is_same(&self.lock, fs::symlink_metadata(&lock)) {
            tracing::debug!("{} now belongs to another instance", self.path.display());
            return;
        }
        self.remove_files();
        if let Err(e) = fs::remove_file(&lock) {
            tracing::warn!("failed to remove {}: {e}", lock.display());
        }
        if let Err(e) = fs::remove_dir(&self.path) {
            // Whoever made it a symlink or a mount point, or forbids its removal, wants to keep it.
            use io::ErrorKind as K;
            let kept = [K::NotADirectory, K::ResourceBusy, K::PermissionDenied];
            let expected = [K::NotFound, K::DirectoryNotEmpty];
            if !expected.contains(&e.kind()) && !kept.contains(&e.kind()) {
                tracing::warn!("failed to remove {}: {e}", self.path.display());
            }
        }
    }

    fn remove_files(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten().filter(|e| ours().any(|name| e.file_name() == name)) {
            // Symlinks are removed, not followed; a directory of that name is not ours.
            if let Err(e) = fs::remove_file(entry.path()) {
                tracing::warn!("failed to remove {}: {e}", entry.path().display());
            }
        }
    }
}

fn temporary(env: &Env) -> anyhow::Result<PathBuf> {
    let base = env.nonempty(vars::TMPDIR).map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let template = std::path::absolute(&base)?.join("rootlesskitXXXXXX");
    let length = template.join(api::SOCKET_NAME).as_os_str().len();
    if length > crate::launch::MAX_SOCKET_PATH {
        bail!(
            "TMPDIR={} is too long for a socket in a state directory below it\nhint: use a shorter TMPDIR, or --state-dir",
            base.display()
        );
    }
    mkdtemp(&template)
        .with_context(|| format!("failed to create a state directory in {}", base.display()))
}

fn lock_directory(path: &Path) -> Option<Flock<File>> {
    match File::open(path).map(|dir| Flock::lock(dir, FlockArg::LockSharedNonblock)) {
        Ok(Ok(lock)) => Some(lock),
        Ok(Err((_, e))) => {
            tracing::warn!("failed to lock the directory {}: {e}", path.display());
            None
        }
        Err(e) => {
            tracing::warn!("failed to open the directory {}: {e}", path.display());
            None
        }
    }
}

fn lock(dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = dir.join(LOCK);
    loop {
        refuse_foreign(dir)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .with_context(|| format!("failed to open {}", path.display()))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => bail!(
                "failed to lock {}: another RootlessKit is running with the same state directory?{}",
                path.display(),
                holder(dir)
            ),
            Err((_, e)) => {
                return Err(e).with_context(|| format!("failed to lock {}", path.display()));
            }
        };
        // The one before us may have removed the file between our open and our lock.
        if is_same(&lock, fs::symlink_metadata(&path)) {
            return Ok(lock);
        }
    }
}

/// A directory without a lock was not left by RootlessKit; whatever is in it belongs to somebody.
fn refuse_foreign(dir: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(dir.join(LOCK)).is_ok() {
        return Ok(());
    }
    let mut entries = fs::read_dir(dir)
        .with_context(|| format!("failed to read --state-dir={}", dir.display()))?;
    if let Some(entry) = entries.next().transpose()? {
        // Somebody may be between making the directory and making the lock in it.
        if entry.file_name() != LOCK {
            bail!(
                "--state-dir={} is not empty (it contains {}) and was not created by RootlessKit\nhint: use an empty or a new directory",
                dir.display(),
                entry.file_name().display()
            );
        }
    }
    Ok(())
}

/// Whom to look for, as far as the files tell.
fn holder(dir: &Path) -> String {
    match hostenv::file::text(&dir.join("child_pid")) {
        Ok(pid) => {
            format!("\nhint: stop the other RootlessKit first; its child has pid {}", pid.trim())
        }
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> anyhow::Result<StateDir> {
        StateDir::open(Some(path), &Env::default())
    }

    #[test]
    fn a_populated_directory_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["hosts", "thesis.txt"] {
            fs::write(dir.path().join(name), "precious").unwrap();
        }
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not empty") && error.contains("hint:"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn leftovers_go_and_foreign_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::create_dir(&path).unwrap();
        for name in ["lock", "child_pid", "api.sock", "notes"] {
            fs::write(path.join(name), "x").unwrap();
        }
        fs::create_dir(path.join("hosts")).unwrap();
        let state = open(&path).unwrap();
        assert!(!path.join("child_pid").exists() && path.join("notes").exists());
        state.remove();
        let mut left: Vec<_> =
            fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["hosts", "notes"]);
    }

    #[test]
    fn one_at_a_time_and_gone_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let state = open(&path).unwrap();
        fs::write(path.join("child_pid"), "42").unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(
            error.contains("another RootlessKit is running with the same state directory"),
            "{error}"
        );
        assert!(error.contains("pid 42"), "{error}");
        assert!(path.join("child_pid").exists(), "the first instance is undisturbed");
        state.remove();
        assert!(!path.exists());
        open(&path).unwrap().remove();
    }

    #[test]
    fn the_directory_of_a_successor_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = open(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
        let second = open(&path).unwrap();
        fs::write(path.join("child_pid"), "42").unwrap();
        first.remove();
        assert!(path.join("child_pid").exists() && path.join("lock").exists());
        second.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_temporary_directory_that_is_too_deep_for_a_socket_is_refused() {
        let env: Env = [(vars::TMPDIR, format!("/{}", "x".repeat(90)))].into_iter().collect();
        let error = StateDir::open(None, &env).unwrap_err().to_string();
        assert!(error.contains("TMPDIR=/xxx") && error.contains("hint:"), "{error}");
    }

    #[test]
    fn a_lock_that_is_a_symlink_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("victim"), path.join("lock")).unwrap();
        assert!(open(&path).is_err());
        assert!(!dir.path().join("victim").exists());
    }
}
