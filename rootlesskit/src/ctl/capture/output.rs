//! Where the file goes: whole blocks, to a new file or to standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use nix::errno::Errno;
use nix::libc::O_NOFOLLOW;
use nix::poll::{PollFd, PollFlags, poll};

use super::options::To;
use crate::ctl::stats::pause::timeout;

/// How much is collected before it is written, in bytes.
const ENOUGH: usize = 1 << 20;
/// A pipe that poll(2) calls writable takes so many bytes without blocking (pipe(7), `PIPE_BUF`).
const ATOMIC: usize = 4096;
/// How long a reader may read nothing when the capture has ended.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Output {
    file: File,
    made: Option<PathBuf>,
    /// At most so many bytes at once, so that a reader that does not read cannot hold up the end.
    most: usize,
    buffer: Vec<u8>,
    written: u64,
}

/// Why it was not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// The reader has seen enough.
    Closed,
    /// The reader does not read, and the capture is to end.
    Stuck,
    Failed(io::Error),
}

impl Output {
    /// Makes the file, which only its owner may read: what it will hold is nobody else's business. Never one that
    /// exists, and never behind a link.
    pub(super) fn open(to: &To) -> anyhow::Result<Self> {
        let (file, made) = match to {
            To::File(path) => (create(path)?, Some(path.clone())),
            To::Output => {
                let output = io::stdout().as_fd().try_clone_to_owned();
                (File::from(output.context("cannot use standard output")?), None)
            }
        };
        let kind = file.metadata().context("cannot use the output")?.file_type();
        let most = if kind.is_file() || kind.is_char_device() { usize::MAX } else { ATOMIC };
        Ok(Self { file, made, most, buffer: Vec::with_capacity(2 * ENOUGH), written: 0 })
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        match &self.made {
            Some(path) => path.display().to_string(),
            None => "standard output".to_owned(),
        }
    }

    /// Takes the file away again, in which nothing is yet.
    pub(super) fn discard(&self) {
        if let Some(path) = &self.made {
            // Nothing is left to do if this fails.
            fs::remove_file(path).ok();
        }
    }

    /// Whole blocks are to be appended here.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// The length of the file, with what has not been written yet.
    pub(super) fn length(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether it is time to write.
    pub(super) fn is_enough(&self) -> bool {
        self.buffer.len() >= ENOUGH
    }

    /// Writes everything. Meanwhile, `endings` are watched and `left` is asked: if one of them says that the capture
    /// ends, the reader has [`GRACE`] for each part of the rest.
    pub(super) fn flush(
        &mut self,
        endings: [BorrowedFd<'_>; 2],
        left: &dyn Fn() -> Option<Duration>,
    ) -> Result<(), Unwritten> {
        let mut at = 0;
        let mut grace = None;
        while at < self.buffer.len() {
            if !self.is_writable(endings, left, &mut grace)? {
                continue;
            }
            let end = self.buffer.len().min(at.saturating_add(self.most));
            match self.file.write(&self.buffer[at..end]) {
                Ok(count) => {
                    (at, self.written) = (at + count, self.written + count as u64);
                    // It does read.
                    grace = grace.map(|_| Instant::now() + GRACE);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(Unwritten::Closed);
                }
                Err(error) => return Err(Unwritten::Failed(error)),
            }
        }
        self.buffer.clear();
        Ok(())
    }

    fn is_writable(
        &self,
        endings: [BorrowedFd<'_>; 2],
        left: &dyn Fn() -> Option<Duration>,
        grace: &mut Option<Instant>,
    ) -> Result<bool, Unwritten> {
        let now = Instant::now();
        let until = match *grace {
            Some(end) if end <= now => return Err(Unwritten::Stuck),
            Some(end) => Some(end - now),
            None => left(),
        };
        if grace.is_none() && until.is_some_and(|until| until.is_zero()) {
            *grace = Some(now + GRACE);
            return Ok(false);
        }
        let mut fds = vec![PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        if grace.is_none() {
            fds.extend(endings.map(|ending| PollFd::new(ending, PollFlags::POLLIN)));
        }
        match poll(&mut fds, timeout(until)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(error) => return Err(Unwritten::Failed(error.into())),
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if fds[1..].iter().any(ready) {
            *grace = Some(now + GRACE);
        }
        Ok(ready(&fds[0]))
    }

    /// What to say about an error, for people.
    pub(super) fn explain(&self, why: &Unwritten) -> anyhow::Error {
        let name = self.name();
        match why {
            Unwritten::Failed(error) if is_full(error) => {
                anyhow!(
                    "cannot write {name}: {error}\n\
                 hint: free some space, or use --max-size; the file is valid up to its last complete packet"
                )
            }
            Unwritten::Failed(error) => anyhow!("cannot write {name}: {error}"),
            Unwritten::Stuck | Unwritten::Closed => {
                anyhow!("cannot write {name}: the program that reads it has stopped reading")
            }
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether there is no room for more: on the disk, by a quota, or by a limit of the size of files (`ulimit -f`).
fn is_full(error: &io::Error) -> bool {
    const FULL: [Errno; 3] = [Errno::ENOSPC, Errno::EDQUOT, Errno::EFBIG];
    error.raw_os_error().is_some_and(|number| FULL.contains(&Errno::from_raw(number)))
}

fn create(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW);
    options.open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            anyhow!(
                "cannot write {}: the file exists\nhint: remove it, or choose another name",
                path.display()
            )
        } else {
            anyhow!("cannot write {}: {error}", path.display())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use nix::fcntl::OFlag;

    use super::*;

    fn pipe() -> (File, Output) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let buffer = Vec::new();
        let (file, made) = (File::from(writer), None);
        (File::from(reader), Output { file, made, most: ATOMIC, buffer, written: 0 })
    }

    #[test]
    fn a_file_is_new_and_its_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcapng");
        let output = Output::open(&To::File(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Output::open(&To::File(path.clone())).unwrap_err().to_string();
        assert!(error.contains("x.pcapng: the file exists\nhint: "), "{error}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(Output::open(&To::File(link)).is_err());
        assert!(!dir.path().join("nowhere").exists());
        output.discard();
        assert!(!path.exists());
    }

    #[test]
    fn a_pipe_gets_everything_in_order() {
        let (mut reader, mut output) = pipe();
        let (never, _open) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
        output.buffer().extend(&sent);
        assert_eq!(output.length(), 1_000_000);
        let mut received = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| reader.read_to_end(&mut received).unwrap());
            output.flush([never.as_fd(); 2], &|| None).unwrap();
            assert_eq!(output.length(), 1_000_000);
            drop(output);
        });
        assert!(received == sent);
    }

    #[test]
    fn a_reader_that_went_away_or_sleeps_does_not_hold_up_the_end() {
        let (reader, mut output) = pipe();
        let (never, ends) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        output.buffer().extend(&[7; 1_000_000]);
        drop(ends);
        let (silent, _open) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let [ended, goes_on] = [never.as_fd(), silent.as_fd()];
        for endings in [[ended, goes_on], [goes_on, ended]] {
            let stuck = output.flush(endings, &|| None);
            assert!(matches!(stuck, Err(Unwritten::Stuck)), "{stuck:?}");
        }
        // The same if the end came before.
        let stuck = output.flush([goes_on; 2], &|| Some(Duration::ZERO));
        assert!(matches!(stuck, Err(Unwritten::Stuck)), "{stuck:?}");
        drop(reader);
        let closed = output.flush([never.as_fd(); 2], &|| Some(Duration::ZERO));
        assert!(matches!(closed, Err(Unwritten::Closed)), "{closed:?}");
    }

    #[test]
    fn a_full_disk_is_explained() {
        let mut output = Output::open(&To::Output).unwrap();
        output.file = File::options().write(true).open("/dev/full").unwrap();
        output.buffer().push(1);
        let (never, _open) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let failed = output.flush([never.as_fd(); 2], &|| None).unwrap_err();
        let text = output.explain(&failed).to_string();
        assert!(text.contains("No space left on device") && text.contains("hint: "), "{text}");
    }
}
