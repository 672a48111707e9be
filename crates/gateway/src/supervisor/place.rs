//! Where an answer is left for somebody who does not wait for it for long.

use std::time::Duration;

use super::sync::{Condvar, Mutex, lock, wait_while};

/// Either who waits gets the answer, or who brings it learns that nobody waits.
#[derive(Debug)]
pub(super) struct Place<T> {
    state: Mutex<State<T>>,
    came: Condvar,
}

#[derive(Debug)]
enum State<T> {
    Awaited,
    GivenUp,
    Came(T),
}

impl<T> Place<T> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::Awaited), came: Condvar::new() }
    }

    /// Leaves the answer, or gives it back if nobody waits for it any more.
    pub(super) fn leave(&self, answer: T) -> Option<T> {
        let mut state = lock(&self.state);
        if matches!(*state, State::GivenUp) {
            return Some(answer);
        }
        *state = State::Came(answer);
        self.came.notify_one();
        None
    }

    /// Waits at most for `limit`. Nobody waits any more afterwards.
    pub(super) fn wait(&self, limit: Duration) -> Option<T> {
        let awaited = |state: &mut State<T>| matches!(state, State::Awaited);
        let mut state = wait_while(&self.came, &self.state, limit, awaited);
        match std::mem::replace(&mut *state, State::GivenUp) {
            State::Came(answer) => Some(answer),
            State::Awaited | State::GivenUp => None,
        }
    }

    /// Nobody waits any more.
    pub(super) fn give_up(&self) {
        *lock(&self.state) = State::GivenUp;
    }
}
