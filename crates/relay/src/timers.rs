//! What the event loop does later: a heap of times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollTimeout;

use crate::slab::Key;

/// What happens when a time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Connect again.
    Retry(Key),
    /// See whether a reset can or must go out.
    Linger(Key),
    /// Listen again on ports that rest.
    Rearm,
    /// Check connects against their deadlines.
    Sweep,
    /// Drop silent UDP flows.
    Expire,
    /// Ask the factory again.
    Refill,
    /// Give back what a burst has left behind.
    Trim,
}

/// Timers that run; there is no way to stop one.
#[derive(Debug, Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(Instant, Timer)>>);

impl Timers {
    /// Fires `timer` at `when`.
    pub(crate) fn at(&mut self, when: Instant, timer: Timer) {
        self.0.push(Reverse((when, timer)));
    }

    /// The next timer whose time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let Reverse((when, timer)) = *self.0.peek()?;
        (when <= now).then(|| {
            self.0.pop();
            timer
        })
    }

    /// How long epoll may sleep: rounded up, so that a timer is due when it wakes.
    pub(crate) fn sleep(&self, guest: Option<Instant>) -> EpollTimeout {
        let own = self.0.peek().map(|Reverse((when, _))| *when);
        let Some(when) = own.into_iter().chain(guest).min() else { return EpollTimeout::NONE };
        let left = when.saturating_duration_since(Instant::now());
        EpollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_only_when_due() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.at(now + Duration::from_secs(9), Timer::Trim);
        timers.at(now, Timer::Rearm);
        assert_eq!(timers.sleep(None), EpollTimeout::ZERO);
        assert_eq!((timers.pop_due(now), timers.pop_due(now)), (Some(Timer::Rearm), None));
    }
}
