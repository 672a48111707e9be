//! What others want said to a gateway process, for the thread that talks to it.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::sync::{Condvar, Mutex, MutexGuard, Wake, lock, wait_while};

/// Jobs `J` in order, what is left for later `L`, and how it all ended `E`. All of it is under one lock: a job is posted
/// before the end, which answers it, or is refused.
pub(super) struct Queue<J, L, E> {
    state: Mutex<State<J, L, E>>,
    ended: Condvar,
    pub(super) wake: Wake,
}

struct State<J, L, E> {
    jobs: VecDeque<J>,
    later: VecDeque<L>,
    stop: bool,
    end: Option<E>,
}

impl<J, L, E: Clone> Queue<J, L, E> {
    pub(super) fn new() -> io::Result<Self> {
        let (jobs, later) = (VecDeque::new(), VecDeque::new());
        let state = Mutex::new(State { jobs, later, stop: false, end: None });
        Ok(Self { state, ended: Condvar::new(), wake: Wake::new()? })
    }

    fn lock(&self) -> MutexGuard<'_, State<J, L, E>> {
        lock(&self.state)
    }

    /// Gives the job back if nobody would take it any more.
    pub(super) fn post(&self, job: J) -> Result<(), J> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.ring();
        Ok(())
    }

    pub(super) fn next(&self) -> Option<J> {
        self.lock().jobs.pop_front()
    }

    pub(super) fn put_off(&self, what: L) {
        self.lock().later.push_back(what);
    }

    /// Posts the jobs of the first few that were put off. Jobs that are posted meanwhile are behind them: `job` can look
    /// whether somebody who would post one that takes this one back has begun to do so.
    pub(super) fn post_again(&self, few: usize, job: impl FnMut(L) -> Option<J>) {
        let mut state = self.lock();
        let few = state.later.len().min(few);
        let again: Vec<L> = state.later.drain(..few).collect();
        state.jobs.extend(again.into_iter().filter_map(job));
    }

    /// Asks the thread to end.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.ring();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// The thread takes no more jobs; returns those that it has not taken.
    pub(super) fn finish(&self, end: E) -> VecDeque<J> {
        let mut state = self.lock();
        state.end = Some(end);
        let untaken = std::mem::take(&mut state.jobs);
        drop(state);
        self.ended.notify_all();
        untaken
    }

    pub(super) fn end(&self) -> Option<E> {
        self.lock().end.clone()
    }

    /// As [`Queue::end`], but waits for it, at most for `limit`.
    pub(super) fn wait_for_end(&self, limit: Duration) -> Option<E> {
        wait_while(&self.ended, &self.state, limit, |state| state.end.is_none()).end.clone()
    }

    fn ring(&self) {
        if let Err(e) = self.wake.ring() {
            tracing::debug!("failed to wake the thread that talks to the gateway: {e}");
        }
    }
}
