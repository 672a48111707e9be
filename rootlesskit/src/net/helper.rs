//! A running helper program of a network driver.

use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::unistd::Pid;
use sys::pidfd::PidFd;

/// A helper, and what it has printed so far.
#[derive(Debug)]
pub(crate) struct Helper {
    /// For messages: `slirp4netns`.
    pub(crate) name: &'static str,
    /// The process, our child.
    pub(crate) process: PidFd,
    /// Its standard output and error, non-blocking.
    pub(crate) output: PipeReader,
}

/// A helper that has not said yet that it is ready.
#[derive(Debug)]
pub(crate) struct Starting {
    helper: Helper,
    ready: OwnedFd,
}

impl Helper {
    /// What it has printed since the last call, on one line.
    pub(crate) fn printed(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut buf = [0u8; 4096];
        while let Ok(n @ 1..) = self.output.read(&mut buf) {
            bytes.extend_from_slice(&buf[..n]);
        }
        let text = String::from_utf8_lossy(&bytes);
        text.split(['\n', '\r'])
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl Starting {
    /// Runs the command with its output captured. `ready` becomes readable when the helper serves; it dies
    /// with us. Call from the main thread.
    pub(crate) fn spawn(
        name: &'static str,
        mut cmd: Command,
        ready: OwnedFd,
    ) -> anyhow::Result<Self> {
        let (output, writer) = io::pipe()?;
        nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        tracing::debug!("starting {cmd:?}");
        let child = sys::command::kill_with_parent(&mut cmd)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()
            .with_context(|| format!("failed to start {name} ({})", cmd.get_program().display()))?;
        let process = PidFd::open(Pid::from_raw(i32::try_from(child.id())?))?;
        Ok(Self { helper: Helper { name, process, output }, ready })
    }

    /// The name of the program.
    pub(crate) fn name(&self) -> &'static str {
        self.helper.name
    }

    /// The process itself.
    pub(crate) fn process(&self) -> &PidFd {
        &self.helper.process
    }

    /// Call when the descriptor is readable: whether the helper really said so, rather than went away.
    pub(crate) fn is_ready(&self) -> bool {
        let mut byte = [0u8];
        matches!(nix::unistd::read(&self.ready, &mut byte), Ok(1))
    }

    /// The helper, whatever its state.
    pub(crate) fn into_helper(self) -> Helper {
        self.helper
    }
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}
