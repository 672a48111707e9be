//! Counters that the data path keeps for whoever reports them.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::flow_log::{FlowEnd, FlowLog, FlowRecord, FlowStart};
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
    /// What the flow log says of its end.
    end: FlowEnd,
    denied_by: Option<Rule>,
}

impl Counted {
    /// Counts a new one.
    #[must_use]
    pub fn open(traffic: Arc<Traffic>) -> Self {
        traffic.active.fetch_add(1, Ordering::Relaxed);
        traffic.opened.fetch_add(1, Ordering::Relaxed);
        Self { traffic, attribution: None, end: FlowEnd::Failed, denied_by: None }
    }

    /// Has it counted once more, from now on, for a container that may be found later.
    #[must_use]
    pub fn attributed(mut self, attribution: Attribution) -> Self {
        attribution.note(|noted| noted.opened = true);
        self.attribution = Some(attribution);
        self
    }

    /// Has it recorded when it ends, even if nobody looks for its container.
    #[must_use]
    pub(crate) fn logged(mut self, log: &Arc<FlowLog>, start: FlowStart) -> Self {
        self.attribution = Some(Attribution::new(Attributed::logged(log, start)));
        self
    }

    /// Notes how it ends; the last word counts, unless it is denied.
    pub fn end(&mut self, end: FlowEnd) {
        if self.denied_by.is_none() {
            self.end = end;
        }
    }

    /// Notes that it ends because this rule forbids it.
    pub fn deny(&mut self, rule: Rule) {
        (self.end, self.denied_by) = (FlowEnd::Denied, Some(rule));
    }

    /// Who has opened it, and where it leads. `None` if that is not known.
    pub fn opened_by(&self) -> Option<Opened> {
        self.attribution.as_ref()?.opened_by()
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
            attribution.note(|noted| noted.failed = true);
        }
    }

    /// Perhaps it is another container's from now on: what happens counts for the one that is found next.
    pub fn attribute_again(&self) -> Option<Attribution> {
        let attribution = self.attribution.clone()?;
        let mut this = attribution.lock();
        (this.is_settled, this.is_guess) = (false, false);
        drop(this);
        Some(attribution)
    }

    /// Has it counted once more, from now on, for a container that may be found later.
    pub(crate) fn attribute(&mut self) -> Attribution {
        let new = || Attribution::new(Attributed::default());
        let attribution = self.attribution.get_or_insert_with(new);
        let mut this = attribution.lock();
        this.noted.opened |= !std::mem::replace(&mut this.is_awaited, true);
        drop(this);
        attribution.clone()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.traffic.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(attribution) = &self.attribution {
            let mut this = attribution.lock();
            this.noted.ended = true;
            this.finish(self.end, self.denied_by.take());
        }
    }
}

/// What people call a rule. Not of [`crate::sync`], because the model checker's has no `str`.
type Rule = std::sync::Arc<str>;

/// Who has opened a connection or flow, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The container, or whom the packets name if nobody knows it.
    pub container: IpAddr,
    /// Whether that is only whom the packets name, because nobody could be asked.
    pub is_guess: bool,
    /// The destination as the target namespace sees it.
    pub destination: SocketAddr,
}

/// A connection or flow that counts for a container that is not known yet. It may end before, or go to another thread.
#[derive(Clone, Debug)]
pub struct Attribution(Arc<Mutex<Attributed>>);

#[derive(Debug, Default)]
struct Attributed {
    container: Option<(IpAddr, Arc<Traffic>)>,
    /// Whether the container is only whom the packets name.
    is_guess: bool,
    /// Whether somebody looks for the container.
    is_awaited: bool,
    /// Whether the container is known for now.
    is_settled: bool,
    /// Whether the container counts it as active.
    is_active: bool,
    noted: Noted,
    logged: Option<Logged>,
}

/// What the flow log is to say.
#[derive(Debug)]
struct Logged {
    log: Arc<FlowLog>,
    start: FlowStart,
    up: u64,
    down: u64,
    over: Option<(Instant, FlowEnd, Option<Rule>)>,
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
        Self::new(Attributed { is_awaited: true, ..Attributed::default() })
    }
}

impl Attribution {
    fn new(attributed: Attributed) -> Self {
        Self(Arc::new(Mutex::new(attributed)))
    }

    /// One that is recorded when it has ended and its container is known.
    #[must_use]
    pub fn logged(log: &Arc<FlowLog>, start: FlowStart) -> Self {
        Self::new(Attributed { is_awaited: true, ..Attributed::logged(log, start) })
    }

    /// What it has done so far, and all that it will do, counts here, for the container with this address. If it has
    /// counted for another container until [`Counted::attribute_again`], that one keeps what it had done by then.
    pub fn to(&self, ip: IpAddr, container: Arc<Traffic>) {
        let mut this = self.lock();
        if this.is_settled {
            return;
        }
        if let Some((_, before)) =
            this.container.take_if(|(_, before)| !Arc::ptr_eq(before, &container))
            && std::mem::take(&mut this.is_active)
        {
            before.active.fetch_sub(1, Ordering::Relaxed);
            this.noted.opened = true;
        }
        (this.container, this.is_settled) = (Some((ip, container)), true);
        this.settle();
    }

    /// It goes on counting for the container that it has counted for. False if there is none.
    pub fn stay(&self) -> bool {
        let mut this = self.lock();
        this.is_settled = this.container.is_some();
        this.settle();
        this.is_settled
    }

    /// Notes that the container is only whom the packets name, because nobody could be asked.
    pub fn doubt(&self) {
        self.lock().is_guess = true;
    }

    /// Who has opened it, and where it leads. `None` while that is not known.
    pub fn opened_by(&self) -> Option<Opened> {
        let this = self.lock();
        let (container, _) = this.container.as_ref().filter(|_| this.is_settled)?;
        let destination = this.logged.as_ref()?.start.destination;
        Some(Opened { container: *container, is_guess: this.is_guess, destination })
    }

    fn lock(&self) -> MutexGuard<'_, Attributed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an attempt came to nothing, and why. Nothing has been counted for it ([`Counted::attributed`]).
    pub fn fail(&self, end: FlowEnd) {
        self.come_to_nothing(end, None);
    }

    /// Notes that an attempt came to nothing, because this rule forbids it.
    pub fn deny(&self, rule: Rule) {
        self.come_to_nothing(FlowEnd::Denied, Some(rule));
    }

    fn come_to_nothing(&self, end: FlowEnd, rule: Option<Rule>) {
        let mut this = self.lock();
        this.noted.failed = true;
        this.finish(end, rule);
    }

    fn note(&self, note: impl FnOnce(&mut Noted)) {
        let mut this = self.lock();
        note(&mut this.noted);
        this.settle();
    }
}

impl Attributed {
    fn logged(log: &Arc<FlowLog>, start: FlowStart) -> Self {
        let logged = Logged { log: Arc::clone(log), start, up: 0, down: 0, over: None };
        Self { logged: Some(logged), ..Self::default() }
    }

    /// Nothing more will happen. The record waits for the container if somebody looks for it.
    fn finish(&mut self, end: FlowEnd, rule: Option<Rule>) {
        if let Some(logged) = &mut self.logged {
            if logged.log.is_followed() {
                logged.over = Some((Instant::now(), end, rule));
            } else {
                self.logged = None;
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        if self.is_awaited && !self.is_settled {
            return;
        }
        let Noted { opened, up, down, failed, ended } = std::mem::take(&mut self.noted);
        if let Some((_, traffic)) = &self.container {
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
        if let Some(logged) = &mut self.logged {
            (logged.up, logged.down) = (logged.up + up, logged.down + down);
        }
        if let Some(Logged { log, start, up, down, over: Some((ended, end, rule)) }) =
            self.logged.take_if(|logged| logged.over.is_some())
        {
            let container = self.container.as_ref().map(|(ip, _)| *ip);
            log.push(FlowRecord { start, container, up, down, ended, end, rule });
        }
    }
}
