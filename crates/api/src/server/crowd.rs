//! Connections that are idle, and give way when others want their place.
//!
//! Clients keep connections open for requests to come; the docker-proxy of Go's RootlessKit keeps one for each published
//! port. Where there is room for few, a new client must not wait for an hour because of them. Those that never asked for
//! anything go first; a moment after they came, in which a client sends its request.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a client may take to send its first request, if others wait for its place.
pub(super) const FIRST: Duration = Duration::from_secs(1);

/// All connections of one server.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The idle ones, longest idle first.
    idle: RefCell<BTreeMap<u64, Rc<Notify>>>,
    /// Those that have not asked for anything yet, the oldest first, and since when.
    mute: RefCell<BTreeMap<u64, (Instant, Rc<Notify>)>>,
    last: Cell<u64>,
    /// Somebody waits for a place.
    wanted: Cell<bool>,
}

#[derive(Debug)]
pub(super) struct Member {
    crowd: Rc<Crowd>,
    place: Cell<Option<u64>>,
    /// Its place among those that have not asked for anything yet.
    mute: Cell<Option<u64>>,
    leave: Rc<Notify>,
}

impl Crowd {
    /// Somebody waits: a connection that never asked for anything leaves, or the one that was idle longest, or else the
    /// next that becomes idle.
    pub(super) fn want(&self) {
        let idle = || self.idle.borrow_mut().pop_first().map(|(_, leave)| leave);
        match self.pop_mute().or_else(idle) {
            Some(leave) => leave.notify_one(),
            None => self.wanted.set(true),
        }
    }

    /// Somebody still waits, who perhaps came when all others were new.
    pub(super) fn still_want(&self) {
        if self.wanted.get()
            && let Some(leave) = self.pop_mute()
        {
            self.wanted.set(false);
            leave.notify_one();
        }
    }

    fn pop_mute(&self) -> Option<Rc<Notify>> {
        let mut mute = self.mute.borrow_mut();
        let oldest = mute.first_entry().filter(|oldest| oldest.get().0.elapsed() >= FIRST)?;
        Some(oldest.remove().1)
    }

    fn next_place(&self) -> u64 {
        let place = self.last.get() + 1;
        self.last.set(place);
        place
    }

    /// Nobody waits any more.
    pub(super) fn satisfied(&self) {
        self.wanted.set(false);
    }

    pub(super) fn join(self: &Rc<Self>) -> Rc<Member> {
        let (crowd, leave) = (Rc::clone(self), Rc::<Notify>::default());
        let mute = self.next_place();
        self.mute.borrow_mut().insert(mute, (Instant::now(), Rc::clone(&leave)));
        Rc::new(Member { crowd, place: Cell::new(None), mute: Cell::new(Some(mute)), leave })
    }
}

impl Member {
    /// A request has come.
    pub(super) fn works(&self) {
        if let Some(place) = self.place.take() {
            self.crowd.idle.borrow_mut().remove(&place);
        }
        if let Some(place) = self.mute.take() {
            self.crowd.mute.borrow_mut().remove(&place);
        }
    }

    pub(super) fn is_mute(&self) -> bool {
        self.mute.get().is_some()
    }

    /// It is answered.
    pub(super) fn rests(&self) {
        if self.crowd.wanted.replace(false) {
            return self.leave.notify_one();
        }
        let place = self.crowd.next_place();
        self.place.set(Some(place));
        self.crowd.idle.borrow_mut().insert(place, Rc::clone(&self.leave));
    }

    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.works();
    }
}
