//! Counters that the data path keeps for whoever reports them.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

    fn moved(&self, up: u64, down: u64) {
        for (counter, bytes) in [(&self.up, up), (&self.down, down)] {
            if bytes > 0 {
                counter.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Notes an attempt that came to nothing.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection or flow among those that are counted; it is active until this is dropped.
#[derive(Debug)]
pub struct Counted {
    traffic: Arc<Traffic>,
    attribution: Option<Attribution>,
}

impl Counted {
    /// Counts a new one.
    #[must_use]
    pub fn open(traffic: Arc<Traffic>) -> Self {
        traffic.active.fetch_add(1, Ordering::Relaxed);
        traffic.opened.fetch_add(1, Ordering::Relaxed);
        Self { traffic, attribution: None }
    }

    /// Has it counted once more, from now on, for a container that may be found later.
    #[must_use]
    pub fn attributed(mut self, attribution: Attribution) -> Self {
        attribution.note(|noted| noted.opened = true);
        self.attribution = Some(attribution);
        self
    }

    /// Notes bytes from the side that opened it.
    pub fn up(&self, bytes: u64) {
        self.moved(bytes, 0);
    }

    /// Notes bytes to it.
    pub fn down(&self, bytes: u64) {
        self.moved(0, bytes);
    }

    /// Most looks at a connection find that one direction has not moved.
    fn moved(&self, up: u64, down: u64) {
        if up + down > 0 {
            self.traffic.moved(up, down);
            if let Some(attribution) = &self.attribution {
                attribution
                    .note(|noted| (noted.up, noted.down) = (noted.up + up, noted.down + down));
            }
        }
    }

    /// Notes that it came to nothing.
    pub fn fail(&self) {
        self.traffic.fail();
        if let Some(attribution) = &self.attribution {
            attribution.fail();
        }
    }

    /// Perhaps it is another container's from now on: what happens counts for the one that is found next.
    pub fn attribute_again(&self) -> Option<Attribution> {
        let attribution = self.attribution.clone()?;
        attribution.lock().is_settled = false;
        Some(attribution)
    }

    /// Has it counted once more, from now on, for a container that may be found later.
    pub(crate) fn attribute(&mut self) -> Attribution {
        if let Some(attribution) = &self.attribution {
            return attribution.clone();
        }
        let new = Attribution::default();
        new.note(|noted| noted.opened = true);
        self.attribution.insert(new).clone()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.traffic.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(attribution) = &self.attribution {
            attribution.note(|noted| noted.ended = true);
        }
    }
}

/// A connection or flow that counts for a container that is not known yet. It may end before, or go to another thread.
#[derive(Clone, Debug)]
pub struct Attribution(Arc<Mutex<Attributed>>);

#[derive(Debug, Default)]
struct Attributed {
    container: Option<Arc<Traffic>>,
    /// Whether the container is known for now.
    is_settled: bool,
    /// Whether the container counts it as active.
    is_active: bool,
    noted: Noted,
}

/// What has happened and is not in the counters of the container.
#[derive(Debug, Default)]
struct Noted {
    opened: bool,
    up: u64,
    down: u64,
    failed: bool,
    ended: bool,
}

impl Default for Attribution {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Attributed::default())))
    }
}

impl Attribution {
    /// What it has done so far, and all that it will do, counts here. If it has counted for another container until
    /// [`Counted::attribute_again`], that one keeps what it had done by then.
    pub fn to(&self, container: Arc<Traffic>) {
        let mut this = self.lock();
        if this.is_settled {
            return;
        }
        if let Some(before) = this.container.take_if(|before| !Arc::ptr_eq(before, &container))
            && std::mem::take(&mut this.is_active)
        {
            before.active.fetch_sub(1, Ordering::Relaxed);
            this.noted.opened = true;
        }
        (this.container, this.is_settled) = (Some(container), true);
        this.settle();
    }

    /// It goes on counting for the container that it has counted for. False if there is none.
    pub fn stay(&self) -> bool {
        let mut this = self.lock();
        this.is_settled = this.container.is_some();
        this.settle();
        this.is_settled
    }

    fn lock(&self) -> MutexGuard<'_, Attributed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that it came to nothing.
    pub fn fail(&self) {
        self.note(|noted| noted.failed = true);
    }

    fn note(&self, note: impl FnOnce(&mut Noted)) {
        let mut this = self.lock();
        note(&mut this.noted);
        this.settle();
    }
}

impl Attributed {
    fn settle(&mut self) {
        let Some(traffic) = self.container.as_ref().filter(|_| self.is_settled) else { return };
        let Noted { opened, up, down, failed, ended } = std::mem::take(&mut self.noted);
        if opened {
            traffic.active.fetch_add(1, Ordering::Relaxed);
            traffic.opened.fetch_add(1, Ordering::Relaxed);
            self.is_active = true;
        }
        traffic.moved(up, down);
        if failed {
            traffic.fail();
        }
        if ended && std::mem::take(&mut self.is_active) {
            traffic.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
