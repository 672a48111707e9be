//! Exchanges with a helper that may hang. One that does costs its full time limit once, not for each port that waits to be
//! changed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::bail;
use api::PortId;

use super::table::Table;

/// How long a helper is left alone after it has not answered.
const RETRY_INTERVAL: Duration = Duration::from_secs(4);

/// The helper answered, and refused: it knows nothing of the port. After any other error it may.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// Takes a port out of the table unless it may still be there after `withdrawn`, so that a client can try again.
///
/// # Errors
/// That of `withdrawn`, or the table does not know the port.
pub(crate) fn settle<T>(
    table: &mut Table<T>,
    id: PortId,
    withdrawn: anyhow::Result<()>,
) -> anyhow::Result<()> {
    let may_be_there = withdrawn.as_ref().is_err_and(|e| e.downcast_ref::<Refused>().is_none());
    if !may_be_there {
        table.remove(id)?;
    }
    withdrawn
}

#[derive(Debug, Default)]
pub(crate) struct Patience {
    hangs_until: Cell<Option<Instant>>,
}

impl Patience {
    /// Runs `exchange`, which gives up by itself after `limit`; for a while after that nothing is tried.
    ///
    /// # Errors
    /// Those of the exchange, or that `name` does not answer.
    pub(crate) fn ask<T>(
        &self,
        name: &str,
        limit: Duration,
        exchange: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let begin = Instant::now();
        if self.hangs_until.get().is_some_and(|until| begin < until) {
            bail!("{name} is not responding");
        }
        let answer = exchange();
        let hangs = answer.is_err() && begin.elapsed() >= limit;
        self.hangs_until.set(hangs.then(|| Instant::now() + RETRY_INTERVAL));
        if hangs {
            bail!("{name} did not answer within {} s", limit.as_secs());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hanging_helper_is_left_alone() {
        let patience = Patience::default();
        let short = Duration::from_secs(1);
        let refuse = || patience.ask("h", short, || -> anyhow::Result<()> { bail!("no") });
        for _ in 0..2 {
            assert_eq!(refuse().unwrap_err().to_string(), "no");
        }
        let hang = || {
            std::thread::sleep(short);
            bail!("timeout")
        };
        let error = patience.ask::<()>("h", short, hang).unwrap_err().to_string();
        assert_eq!(error, "h did not answer within 1 s");
        assert_eq!(refuse().unwrap_err().to_string(), "h is not responding");
    }
}
