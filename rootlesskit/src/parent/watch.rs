//! Waiting during start-up: never for one thing only, never for ever.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use sys::pidfd::PidFd;

use crate::drivers::{Helper, Starting};
use crate::exit::{Exited, Words};
use crate::handshake::{Channel, Message};
use crate::signals::ends_us;

const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process that has closed its end may take to be gone, on a busy machine: then it can be said how it ended.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a network helper may take to say that it is ready.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A signal asked us to stop before the target ran.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {0} before the command was started")]
pub(super) struct Interrupted(pub(super) Signal);

#[derive(Debug)]
pub(super) struct Watch<'a> {
    pub(super) child: &'a PidFd,
    pub(super) signals: &'a SignalFd,
}

impl Watch<'_> {
    pub(super) fn message(
        &self,
        channel: &Channel,
        limit: Duration,
    ) -> anyhow::Result<(Message, Vec<OwnedFd>)> {
        self.readable(channel.as_fd(), None, "the child", limit)?;
        // What can be read may be the end of the stream: the child's own line on stderr says why.
        channel.receive().map_err(|e| self.child_ended().unwrap_or(e))
    }

    pub(super) fn helper(&self, starting: Starting) -> anyhow::Result<Helper> {
        let (name, hint) = (starting.name(), starting.hint());
        let waited = self.readable(starting.as_fd(), Some(starting.process()), name, READY_TIMEOUT);
        if waited.is_ok() && starting.is_ready() {
            return Ok(starting.into_helper());
        }
        let mut helper = starting.into_helper();
        let ended = waited.is_ok() && helper.process.wait_ended(END_TIMEOUT).unwrap_or(false);
        let how = kill_and_reap(&helper.process);
        waited?;
        let how = match how.filter(|_| ended) {
            Some(status) => format!("{name} failed: {}", Words(status)),
            Option::None => format!("{name} did not become ready"),
        };
        bail!("{how}: {}\nhint: {hint}", helper.printed())
    }

    /// Waits until `fd` or `other` is readable, the child has ended, a signal wants us to stop, or time is up.
    fn readable(
        &self,
        fd: BorrowedFd<'_>,
        other: Option<&PidFd>,
        what: &str,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = vec![
                PollFd::new(fd, PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.child.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(other.map(|p| PollFd::new(p.as_fd(), PollFlags::POLLIN)));
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(0) => bail!("{what} did not answer within {} s", limit.as_secs()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let is = |n: usize| fds.get(n).is_some_and(|f| f.any().unwrap_or(false));
            if is(0) || is(3) {
                return Ok(());
            }
            if is(2) {
                return Err(self
                    .child_ended()
                    .unwrap_or_else(|| anyhow::anyhow!("the child has exited")));
            }
            while let Ok(Some(info)) = self.signals.read_signal() {
                if let Some(signal) = ends_us(&info) {
                    return Err(Interrupted(signal).into());
                }
            }
        }
    }

    /// The error for a child that is dead or dying; it has printed its own reason.
    fn child_ended(&self) -> Option<anyhow::Error> {
        self.child.wait_ended(END_TIMEOUT).ok().filter(|ended| *ended)?;
        let how = sys::wait::one(self.child.pid()).ok()?;
        let error = Exited::check("child", how).err();
        error.or_else(|| Some(anyhow::anyhow!("the child exited before the command was started")))
    }
}

/// Kills a child process of ours and collects it; how it ended, unless somebody else collected it.
pub(super) fn kill_and_reap(process: &PidFd) -> Option<ExitStatus> {
    if let Err(e) = process.kill() {
        tracing::debug!("failed to kill {}: {e}", process.pid());
    }
    match process.wait_ended(KILL_TIMEOUT) {
        Ok(true) => sys::wait::one(process.pid()).ok(),
        _ => {
            tracing::warn!("process {} was killed but has not exited", process.pid());
            None
        }
    }
}
