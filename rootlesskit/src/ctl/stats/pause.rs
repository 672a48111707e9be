//! The time between two looks, ended early by Ctrl-C or by a reader that goes away.

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

pub(super) struct Pause {
    set: SigSet,
    signals: SignalFd,
}

impl Pause {
    pub(super) fn new() -> nix::Result<Self> {
        let set: SigSet = ENDING.into_iter().collect();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { set, signals: SignalFd::with_flags(&set, flags)? })
    }

    /// Waits for `time`. False: an ending signal came, or the other end of `output` is gone. The signals are blocked
    /// meanwhile, and stay blocked if the answer is false: the one that came is still pending.
    pub(super) fn wait(&self, time: Duration, output: impl AsFd) -> io::Result<bool> {
        self.set.thread_block()?;
        let go_on = self.wait_blocked(time, output.as_fd())?;
        if go_on {
            self.set.thread_unblock()?;
        }
        Ok(go_on)
    }

    fn wait_blocked(&self, time: Duration, output: BorrowedFd<'_>) -> io::Result<bool> {
        let deadline = Instant::now() + time;
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            // In whole milliseconds, rounded up: a wait of 0 would spin until the deadline.
            let millis = i32::try_from(left().as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            match self.poll(output, timeout) {
                Ok(true) => return Ok(false),
                Ok(false) if left().is_zero() => return Ok(true),
                Ok(false) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it is time to end. Errors and hang-ups of `output` are told without being asked for: poll(2).
    fn poll(&self, output: BorrowedFd<'_>, timeout: PollTimeout) -> nix::Result<bool> {
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(output, PollFlags::empty()),
        ];
        poll(&mut fds, timeout)?;
        let ended = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(fds.iter().any(ended))
    }
}
