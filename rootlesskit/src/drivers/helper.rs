//! A running helper program of a network driver.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use hostenv::Env;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use sys::pidfd::PidFd;

use crate::umask;

/// This much of the last words of a helper, in bytes, is enough for a person.
const MAX_PRINTED: usize = 2048;
/// How many bytes a pipe holds (pipe(7)).
const PIPE: usize = 64 << 10;

/// A helper, and what it has printed so far.
#[derive(Debug)]
pub(crate) struct Helper {
    pub(crate) name: &'static str,
    pub(crate) process: PidFd,
    /// Its standard output and error, non-blocking.
    pub(crate) output: PipeReader,
}

/// A helper that has not said yet that it is ready.
#[derive(Debug)]
pub(crate) struct Starting {
    helper: Helper,
    hint: &'static str,
    ready: OwnedFd,
}

impl Helper {
    /// What it has printed since the last call, on one line; of much, the end.
    pub(crate) fn printed(&mut self) -> String {
        last_words(&self.output, Vec::new())
    }
}

/// What is left in the pipe that a helper has printed into, after the beginning that was read before, on one line; of much,
/// the end, where programs say why they give up. Something that the helper started may go on printing after its death, so
/// no more is read than a pipe holds.
pub(crate) fn last_words(output: impl AsFd, beginning: Vec<u8>) -> String {
    let mut bytes = beginning;
    let mut buf = [0u8; 4096];
    let mut left = PIPE;
    while left > 0
        && let Ok(n @ 1..) = nix::unistd::read(&output, &mut buf)
    {
        bytes.extend_from_slice(&buf[..n]);
        left = left.saturating_sub(n);
    }
    let start = bytes.len().saturating_sub(MAX_PRINTED);
    // A line of which the beginning is cut off says little, unless it is the only one.
    let line = match start {
        0 => None,
        _ => bytes[start..bytes.len().saturating_sub(1)].iter().position(|&byte| byte == b'\n'),
    };
    one_line(&bytes[start + line.map_or(0, |at| at + 1)..])
}

/// What a program has printed, on one line.
pub(crate) fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// What a helper that is being started says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    /// It serves.
    Ready,
    /// Its end is closed: it will never be ready.
    Goodbye,
}

impl Starting {
    /// Runs the command with its output captured. `ready` becomes readable when the helper serves; `hint` is what a user
    /// can do if it never does. The helper dies with us. Call from the main thread.
    pub(crate) fn spawn(
        name: &'static str,
        hint: &'static str,
        mut cmd: Command,
        ready: OwnedFd,
    ) -> anyhow::Result<Self> {
        let (output, writer) = io::pipe()?;
        cmd.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        Self::run(name, hint, cmd, ready, output)
    }

    /// Runs the command, whose output comes from `output`; otherwise as [`Starting::spawn`].
    pub(super) fn run(
        name: &'static str,
        hint: &'static str,
        mut cmd: Command,
        ready: OwnedFd,
        output: PipeReader,
    ) -> anyhow::Result<Self> {
        // Neither may ever block us: their other ends may outlive the helper in something that it started.
        for fd in [output.as_fd(), ready.as_fd()] {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        tracing::debug!("starting {cmd:?}");
        sys::command::with_own_signals(&mut cmd);
        sys::command::kill_with_parent(&mut cmd);
        // slirp4netns' API socket, for one, is as powerful as ours.
        let child = umask::private(|| cmd.spawn())
            .with_context(|| format!("failed to start {name} ({})", cmd.get_program().display()))?;
        let process = PidFd::open(Pid::from_raw(i32::try_from(child.id())?))?;
        Ok(Self { helper: Helper { name, process, output }, hint, ready })
    }

    /// The name of the program.
    pub(crate) fn name(&self) -> &'static str {
        self.helper.name
    }

    pub(crate) fn hint(&self) -> &'static str {
        self.hint
    }

    /// The process itself.
    pub(crate) fn process(&self) -> &PidFd {
        &self.helper.process
    }

    /// Call when the descriptor is readable: whether the helper really said so, rather than went away.
    pub(crate) fn is_ready(&self) -> bool {
        self.said() == Said::Ready
    }

    /// What the helper has said since the last call.
    pub(crate) fn said(&self) -> Said {
        let mut byte = [0u8];
        match nix::unistd::read(&self.ready, &mut byte) {
            Ok(1) => Said::Ready,
            Ok(_) => Said::Goodbye,
            Err(_) => Said::Nothing,
        }
    }

    /// The helper, whatever its state.
    pub(crate) fn into_helper(self) -> Helper {
        self.helper
    }
}

/// The program `name`, which `flag` needs; `remedy` is what a user can do if it is not there.
pub(super) fn find_program(
    env: &Env,
    name: &str,
    flag: &str,
    remedy: &str,
) -> anyhow::Result<PathBuf> {
    env.find_program(name).with_context(|| {
        format!("{name} was not found in $PATH, but {flag} needs it\nhint: {remedy}")
    })
}

/// The path for a control socket of a helper, cleared of what a predecessor that died has left: helpers do not
/// replace it.
pub(super) fn fresh_socket(path: &Path) -> &Path {
    if let Err(e) = hostenv::file::remove_if_present(path) {
        tracing::debug!("failed to remove {}: {e}", path.display());
    }
    path
}

/// A path as an argument of a program.
pub(super) fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().ok_or_else(|| anyhow::anyhow!("the path {} is not UTF-8", path.display()))
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// What takes longer than this hangs.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A helper that is a shell script; its ready pipe is descriptor 1, as an heir of it would hold it.
    fn start(script: &str) -> Starting {
        let (ready, writer) = io::pipe().unwrap();
        let mut cmd = Command::new("/bin/sh");
        cmd.args(["-c", script]);
        sys::command::inherit_fd(&mut cmd, writer.into());
        Starting::spawn("script", "", cmd, ready.into()).unwrap()
    }

    fn reap(helper: &Helper) {
        assert!(helper.process.wait_ended(PATIENCE).unwrap());
        sys::wait::one(helper.process.pid()).unwrap();
    }

    #[test]
    fn a_dead_helper_whose_pipes_live_on_blocks_nothing() {
        let begin = Instant::now();
        let starting = start(&format!("sleep {} & exit 4", 2 * PATIENCE.as_secs()));
        assert!(starting.process().wait_ended(PATIENCE).unwrap());
        assert!(!starting.is_ready());
        let mut helper = starting.into_helper();
        assert_eq!(helper.printed(), "");
        reap(&helper);
        assert!(begin.elapsed() < PATIENCE);
    }

    #[test]
    fn last_words_have_an_end() {
        let mut helper =
            start("(yes & echo $! >&2; sleep 0.1; kill $!) & sleep 0.05").into_helper();
        reap(&helper);
        assert!(helper.printed().len() <= 2 * MAX_PRINTED);
    }
}
