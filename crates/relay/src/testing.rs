//! What the tests of several modules use.

use std::time::{Duration, Instant};

/// Waits until `check` says so, and fails with `what` if it has not after `limit`.
pub(crate) fn eventually(limit: Duration, what: &str, mut check: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !check() {
        assert!(begin.elapsed() < limit, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
