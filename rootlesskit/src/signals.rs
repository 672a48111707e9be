//! Signals of both roles: blocked from the start, read from a descriptor, passed on to the target.

use nix::libc;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

/// Blocks every signal and makes the descriptor that tells of them.
pub(crate) fn block() -> nix::Result<SignalFd> {
    SigSet::all().thread_block()?;
    SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The number of a signal that is passed on: everything but what concerns this very process.
pub(crate) fn forwardable(info: &siginfo) -> Option<i32> {
    let own = [Signal::SIGCHLD, Signal::SIGPIPE, Signal::SIGURG];
    let number = i32::try_from(info.ssi_signo).ok()?;
    (!own.iter().any(|s| *s as i32 == number)).then_some(number)
}

/// Whether the terminal sent the signal, and thereby to every process of its foreground group. Passing such
/// a signal on would deliver one Ctrl-C several times, and dockerd takes the third as "stop without
/// cleaning up".
pub(crate) fn from_terminal(info: &siginfo) -> bool {
    const KEYBOARD: [Signal; 4] =
        [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH];
    info.ssi_code == libc::SI_KERNEL && KEYBOARD.iter().any(|s| *s as u32 == info.ssi_signo)
}

/// Whether it is the terminal's Ctrl-Z.
pub(crate) fn suspends(info: &siginfo) -> bool {
    from_terminal(info) && info.ssi_signo == Signal::SIGTSTP as u32
}

/// Stops this process as Ctrl-Z would without our blocking it, until somebody sends SIGCONT. The shell waits
/// for us, not for the target that Ctrl-Z stopped as well: it would never take the terminal back. Where no
/// shell is left that could continue us, the kernel does not stop us (an orphaned process group, setpgid(2)).
pub(crate) fn suspend() {
    let set = SigSet::from(Signal::SIGTSTP);
    let stopped = raise(Signal::SIGTSTP).and_then(|()| set.thread_unblock());
    if let Err(e) = stopped.and_then(|()| set.thread_block()) {
        tracing::debug!("failed to stop on Ctrl-Z: {e}");
    }
}

/// Signals that end a program that knows nothing of them. Others have no effect before there is a target to
/// pass them to.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

pub(crate) fn interrupts() -> nix::Result<SignalFd> {
    let set = ENDING.into_iter().collect();
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

pub(crate) fn ends_us(info: &siginfo) -> Option<Signal> {
    ENDING.into_iter().find(|s| *s as u32 == info.ssi_signo)
}

/// Ends this process by the signal, as it would have ended without our blocking it.
pub(crate) fn die_of(signal: Signal) {
    // Pid 1 cannot be ended this way; it returns and exits with an error.
    if raise(signal).is_ok() && SigSet::from(signal).thread_unblock().is_err() {
        tracing::debug!("failed to unblock {signal}");
    }
}
