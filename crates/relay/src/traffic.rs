//! Counters that the data path keeps for whoever reports them.

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// What moved over the connections or flows of one port or one destination. Read at any time from any thread; the
/// numbers are no snapshot of one moment.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Open now.
    pub active: AtomicU64,
    /// Opened so far.
    pub opened: AtomicU64,
    /// Attempts that came to nothing.
    pub failed: AtomicU64,
    /// Connections and datagrams of clients that are not allowed.
    pub refused: AtomicU64,
    /// Payload bytes from the side that opened.
    pub up: AtomicU64,
    /// Payload bytes to it.
    pub down: AtomicU64,
}

impl Traffic {
    /// Notes a connection or datagram of a client that is not allowed.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes an attempt that came to nothing.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection or flow among those that are counted; it is active until this is dropped.
#[derive(Debug)]
pub struct Counted(Arc<Traffic>);

impl Counted {
    /// Counts a new one.
    #[must_use]
    pub fn open(traffic: Arc<Traffic>) -> Self {
        traffic.active.fetch_add(1, Ordering::Relaxed);
        traffic.opened.fetch_add(1, Ordering::Relaxed);
        Self(traffic)
    }

    /// Notes bytes from the side that opened it.
    pub fn up(&self, bytes: u64) {
        add(&self.0.up, bytes);
    }

    /// Notes bytes to it.
    pub fn down(&self, bytes: u64) {
        add(&self.0.down, bytes);
    }

    /// Notes that it came to nothing.
    pub fn fail(&self) {
        self.0.fail();
    }
}

/// Most looks at a connection find that one direction has not moved.
fn add(counter: &AtomicU64, bytes: u64) {
    if bytes > 0 {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
