//! How one thread tells another what to do: a locked queue, and what wakes the other one.

use std::io;

use crate::room::Held;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::wake::Wake;

#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    pub(crate) wake: Wake,
}

/// Under one lock, so that a connection on its way is counted once at any time.
#[derive(Debug)]
struct State<T> {
    /// `None` once the thread has ended.
    queue: Option<Vec<T>>,
    /// Descriptors of connections that the thread holds.
    held: Held,
    /// Those that come with what is in the queue.
    coming: Held,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let state =
            State { queue: Some(Vec::new()), held: Held::default(), coming: Held::default() };
        Ok(Arc::new(Self { state: Mutex::new(state), wake: Wake::new()? }))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the thread holds, now that it has done what it took.
    pub(crate) fn report(&self, held: Held) {
        self.lock().held = held;
    }

    /// What the thread holds, and what it has been given.
    pub(crate) fn held(&self) -> Held {
        let state = self.lock();
        state.held.and(state.coming)
    }

    pub(crate) fn post(&self, command: T) -> io::Result<()> {
        self.post_with(command, Held::default())
    }

    /// Posts a command that brings descriptors.
    pub(crate) fn post_with(&self, command: T, brings: Held) -> io::Result<()> {
        let mut state = self.lock();
        state.queue.as_mut().ok_or_else(ended)?.push(command);
        state.coming = state.coming.and(brings);
        self.wake.ring()
    }

    /// Everything posted so far.
    pub(crate) fn take(&self) -> Vec<T> {
        self.wake.reset();
        let mut state = self.lock();
        state.held = state.held.and(std::mem::take(&mut state.coming));
        state.queue.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whoever waits for an answer, now or later, hears that there will be none. Nothing is held any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        (state.held, state.coming) = (Held::default(), Held::default());
        let unread = state.queue.take();
        drop(state);
        // Closes connections, which needs no lock.
        drop(unread);
    }
}

/// The error of a command to a thread that has ended.
pub(crate) fn ended() -> io::Error {
    io::Error::other("the port forwarding thread has exited")
}
