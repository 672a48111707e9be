//! The pid file of our own supervisor. Its flock(2), not its text, says that somebody runs: a file that is left after a
//! crash or a boot means nothing.

use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hostenv::file::is_same;
use hostenv::state_dir::is_locked;
use nix::fcntl::{Flock, FlockArg};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: i32,
    /// How often it has started the daemon since that last stayed.
    pub(super) starts: u32,
}

/// The running supervisor, if there is one.
pub(super) fn holder(path: &Path) -> Option<Holder> {
    if !is_locked(path) {
        return None;
    }
    let text = hostenv::file::text(path).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.parse().ok()?;
    Some(Holder { pid, starts: lines.next()?.parse().ok()? })
}

#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    file: Flock<File>,
}

impl PidFile {
    /// Takes the file.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        loop {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map_err(|(_, errno)| io::Error::from(errno))?;
            // Its last holder may have removed it between our two calls.
            if is_same(&file, fs::metadata(path)) {
                let mut taken = Self { path: path.to_owned(), file };
                taken.note(0)?;
                return Ok(taken);
            }
        }
    }

    /// Writes down how often the daemon has been started.
    pub(super) fn note(&mut self, starts: u32) -> io::Result<()> {
        self.file.rewind()?;
        let text = format!("{}\n{starts}\n", std::process::id());
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(u64::try_from(text.len()).unwrap_or_default())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_supervisor_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        fs::write(&path, "1\n7\nleft by a crash, and longer\n").unwrap();
        assert_eq!(holder(&path), None);
        let mut held = PidFile::take(&path).unwrap();
        held.note(12).unwrap();
        held.note(3).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder(&path), Some(Holder { pid, starts: 3 }));
        assert_eq!(PidFile::take(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(!path.exists());
        assert_eq!(holder(&path), None);
    }
}
