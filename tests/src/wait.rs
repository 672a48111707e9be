//! Waiting for a condition, never for a fixed time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What takes longer than this hangs, and that is all that this bound is about: the machine may have a lot to do besides. A
/// wait whose length is the product's own (a pause before another try, a timeout that is tested) has its own figure.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at. Short against everything that is waited for, long against the look itself.
const STEP: Duration = Duration::from_millis(10);

/// Calls `probe` until it gives a value. An error of the probe means that waiting longer is useless.
///
/// # Errors
/// `limit` passed, or the probe failed.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe().with_context(|| format!("waiting until {what}"))? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(STEP);
    }
}

/// Like [`until`] for a plain condition.
///
/// # Errors
/// `limit` passed, or the probe failed.
pub fn until_true(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, limit, || Ok(probe()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_returned_and_one_that_does_not_is_named() {
        let mut left = 3;
        let mut down = || {
            left -= 1;
            Ok((left == 0).then_some("done"))
        };
        assert_eq!(until("countdown", PATIENCE, &mut down).unwrap(), "done");
        let error = until_true("pigs fly", Duration::from_millis(20), || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "pigs fly: not within 20ms");
    }
}
