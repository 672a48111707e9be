//! How many pipes all threads have together ([`crate::pipe`]).

use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::total::Total;

/// The most pipes of all threads at a time. With their sizes they hold 22 MiB, well under the default of
/// `fs.pipe-user-pages-soft` (64 MiB for all pipes of a user, of whom we are one process of many).
pub(crate) const MAX_PIPES: usize = 64;

/// What all threads that move bytes hold together. A pipe counts until it is closed, whichever thread has it.
#[derive(Debug)]
pub(crate) struct Stock {
    limit: usize,
    made: AtomicUsize,
    /// Bytes kept for sinks of streams.
    pub(crate) kept: Total,
}

impl Stock {
    /// At most `limit` pipes; a connection without one copies.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let limit = limit.min(MAX_PIPES);
        Arc::new(Self { limit, made: AtomicUsize::new(0), kept: Total::default() })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn descriptors(&self) -> usize {
        2 * self.made.load(Ordering::Relaxed)
    }

    /// A place for one more, with the number of those before it.
    pub(crate) fn enter(this: &Arc<Self>) -> Option<(usize, Counted)> {
        let more = |made| (made < this.limit).then_some(made + 1);
        let before = this.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some((before, Counted(Arc::clone(this))))
    }
}

#[derive(Debug)]
pub(crate) struct Counted(Arc<Stock>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.made.fetch_sub(1, Ordering::Relaxed);
    }
}
