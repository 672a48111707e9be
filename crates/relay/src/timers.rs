//! What the event loop does later: a heap of times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollTimeout;

/// Timers that run; there is no way to stop one.
#[derive(Debug)]
pub(crate) struct Timers<T>(BinaryHeap<Reverse<(Instant, T)>>);

impl<T: Ord> Default for Timers<T> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<T: Copy + Ord> Timers<T> {
    pub(crate) fn at(&mut self, when: Instant, timer: T) {
        self.0.push(Reverse((when, timer)));
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T> {
        let Reverse((when, timer)) = *self.0.peek()?;
        (when <= now).then(|| {
            self.0.pop();
            timer
        })
    }

    /// How long epoll may sleep: rounded up, so that a timer is due when it wakes.
    pub(crate) fn sleep(&self, handler: Option<Instant>) -> EpollTimeout {
        let own = self.0.peek().map(|Reverse((when, _))| *when);
        let Some(when) = own.into_iter().chain(handler).min() else { return EpollTimeout::NONE };
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
        timers.at(now + Duration::from_secs(9), "trim");
        timers.at(now, "rearm");
        assert_eq!(timers.sleep(None), EpollTimeout::ZERO);
        assert_eq!((timers.pop_due(now), timers.pop_due(now)), (Some("rearm"), None));
    }
}
