//! A clock that all processes of the machine share.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine started, which no change of the date moves (`CLOCK_MONOTONIC`, clock_gettime(2)).
#[must_use]
pub fn now() -> u64 {
    // The clock is there on every Linux.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
