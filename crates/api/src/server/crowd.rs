//! Connections that are idle, and give way when others want their place.
//!
//! Clients keep connections open for requests to come; the docker-proxy of Go's RootlessKit keeps one for each published
//! port. Where there is room for few, a new client must not wait for an hour because of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

/// All connections of one server.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The idle ones, longest idle first.
    idle: RefCell<BTreeMap<u64, Rc<Notify>>>,
    last: Cell<u64>,
    /// Somebody waits for a place.
    wanted: Cell<bool>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Member {
    crowd: Rc<Crowd>,
    /// Its place among the idle.
    place: Cell<Option<u64>>,
    leave: Rc<Notify>,
}

impl Crowd {
    /// Somebody waits: the connection that was idle longest leaves, or else the next that becomes idle.
    pub(super) fn want(&self) {
        match self.idle.borrow_mut().pop_first() {
            Some((_, leave)) => leave.notify_one(),
            None => self.wanted.set(true),
        }
    }

    /// Nobody waits any more.
    pub(super) fn satisfied(&self) {
        self.wanted.set(false);
    }

    pub(super) fn join(self: &Rc<Self>) -> Rc<Member> {
        let (crowd, leave) = (Rc::clone(self), Rc::default());
        Rc::new(Member { crowd, place: Cell::new(None), leave })
    }
}

impl Member {
    /// A request has come.
    pub(super) fn works(&self) {
        if let Some(place) = self.place.take() {
            self.crowd.idle.borrow_mut().remove(&place);
        }
    }

    /// It is answered.
    pub(super) fn rests(&self) {
        if self.crowd.wanted.replace(false) {
            return self.leave.notify_one();
        }
        let place = self.crowd.last.get() + 1;
        self.crowd.last.set(place);
        self.place.set(Some(place));
        self.crowd.idle.borrow_mut().insert(place, Rc::clone(&self.leave));
    }

    /// Completes when it is to leave.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.works();
    }
}
