//! The time between two looks, or until there is more to show; ended early by Ctrl-C or by a reader that goes away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that end a watch with success when they come during a pause. At any other time they end the program as they
/// end any other: a request or a write may hang, and nothing needs to be cleaned up. SIGHUP always does that, and nothing
/// at all under nohup(1).
const ENDING: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

pub(in crate::ctl) struct Pause {
    set: SigSet,
    signals: SignalFd,
}

/// Why a pause is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ctl) enum Over {
    /// It lasted as long as it may.
    Time,
    /// There is something to read.
    Input,
    /// An ending signal came, or the other end of the output is gone.
    End,
}

impl Pause {
    pub(in crate::ctl) fn new() -> nix::Result<Self> {
        let set: SigSet = ENDING.into_iter().collect();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { set, signals: SignalFd::with_flags(&set, flags)? })
    }

    /// Waits for `time`. False: an ending signal came, or the other end of `output` is gone. The signals are blocked
    /// meanwhile, and stay blocked if the answer is false: the one that came is still pending.
    pub(super) fn wait(&self, time: Duration, output: impl AsFd) -> io::Result<bool> {
        Ok(self.wait_for(None, time, output)? != Over::End)
    }

    /// As [`Pause::wait`], but only until there is something to read.
    pub(in crate::ctl) fn wait_for(
        &self,
        input: Option<BorrowedFd<'_>>,
        time: Duration,
        output: impl AsFd,
    ) -> io::Result<Over> {
        self.set.thread_block()?;
        let over = self.wait_blocked(input, time, output.as_fd())?;
        if over != Over::End {
            self.set.thread_unblock()?;
        }
        Ok(over)
    }

    fn wait_blocked(
        &self,
        input: Option<BorrowedFd<'_>>,
        time: Duration,
        output: BorrowedFd<'_>,
    ) -> io::Result<Over> {
        let deadline = Instant::now() + time;
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            match self.poll(input, output, timeout(Some(left()))) {
                Ok(Some(over)) => return Ok(over),
                Ok(None) if left().is_zero() => return Ok(Over::Time),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Why the pause is over, if it is. Errors and hang-ups of `output` are told without being asked for: poll(2).
    fn poll(
        &self,
        input: Option<BorrowedFd<'_>>,
        output: BorrowedFd<'_>,
        timeout: PollTimeout,
    ) -> nix::Result<Option<Over>> {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(output, PollFlags::empty()),
        ];
        fds.extend(input.map(|input| PollFd::new(input, PollFlags::POLLIN)));
        poll(&mut fds, timeout)?;
        let happened = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(match fds.iter().position(happened) {
            Some(0 | 1) => Some(Over::End),
            Some(_) => Some(Over::Input),
            None => None,
        })
    }
}

/// For poll(2), in whole milliseconds, rounded up: a wait of 0 would spin.
pub(in crate::ctl) fn timeout(left: Option<Duration>) -> PollTimeout {
    let Some(left) = left else { return PollTimeout::NONE };
    let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}
