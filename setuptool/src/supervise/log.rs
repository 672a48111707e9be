//! A log of bounded size: when it is full it becomes the old one, and a new one begins.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Size of the log, and of the old one, in bytes.
pub(super) const MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
}

impl Log {
    /// Goes on with the file.
    pub(super) fn open(path: &Path, max: u64) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, max })
    }

    /// Appends. A full disk costs the text and nothing else: the daemon goes on.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.max {
            self.rotate();
        }
        if self.file.write_all(bytes).is_ok() {
            self.size = self.size.saturating_add(length);
        }
    }

    /// Appends a line of the supervisor's own.
    pub(super) fn say(&mut self, text: &str) {
        self.write(format!("[supervise] {text}\n").as_bytes());
    }

    fn rotate(&mut self) {
        let mut old = self.path.as_os_str().to_owned();
        old.push(".1");
        let fresh = fs::rename(&self.path, old).and_then(|()| Self::open(&self.path, self.max));
        if let Ok(fresh) = fresh {
            *self = fresh;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.log");
        let mut log = Log::open(&path, 100).unwrap();
        for number in 0..100 {
            log.say(&format!("line {number}"));
        }
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(text("docker.log").ends_with("[supervise] line 99\n"));
        assert!(text("docker.log").len() <= 100 && text("docker.log.1").len() <= 100);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // Another run goes on where this one ended, and one long text is kept whole.
        let before = text("docker.log").len();
        let mut log = Log::open(&path, 100).unwrap();
        assert_eq!(log.size, before as u64);
        log.write(&[b'x'; 200]);
        assert_eq!(text("docker.log").len(), 200);
    }
}
