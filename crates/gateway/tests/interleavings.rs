//! What the supervisor's threads share, in every order in which they could run; `tests/interleavings.rs` of crate `relay`
//! says how.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers as well")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the library uses all of these files, each test a part"
)]

#[path = "../src/supervisor/place.rs"]
mod place;
#[path = "../src/supervisor/queue.rs"]
mod queue;
#[path = "../../relay/tests/interleavings/wake.rs"]
mod wake;

mod sync {
    use std::time::Duration;

    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

    pub(crate) use super::wake::Wake;

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    /// If `limit` is not the longest one, time is up at once, before or after what other threads do.
    pub(crate) fn wait_while<'a, T>(
        changed: &Condvar,
        mutex: &'a Mutex<T>,
        limit: Duration,
        mut holds: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let mut guard = lock(mutex);
        while limit == Duration::MAX && holds(&mut guard) {
            guard = changed.wait(guard).unwrap();
        }
        if holds(&mut guard) {
            drop(guard);
            guard = lock(mutex);
        }
        guard
    }
}

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use place::Place;

type Queue = queue::Queue<&'static str, &'static str, &'static str>;

fn queue() -> Arc<Queue> {
    Arc::new(Queue::new().unwrap())
}

#[test]
fn an_answer_reaches_whoever_waits_or_goes_back() {
    loom::model(|| {
        let place = Arc::new(Place::new());
        let theirs = Arc::clone(&place);
        let brings = thread::spawn(move || theirs.leave("refused"));
        let got = place.wait(Duration::ZERO);
        let back = brings.join().unwrap();
        assert_eq!(got.xor(back), Some("refused"));
        assert_eq!(place.leave("late"), Some("late"));
    });
}

#[test]
fn an_answer_wakes_whoever_waits() {
    loom::model(|| {
        let place = Arc::new(Place::new());
        let theirs = Arc::clone(&place);
        let brings = thread::spawn(move || theirs.leave("done"));
        assert_eq!(place.wait(Duration::MAX), Some("done"));
        assert_eq!(brings.join().unwrap(), None);
    });
}

/// What the thread does that talks to a gateway; returns the jobs that it has taken, and those that it has not.
fn talk(queue: &Queue) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut taken = Vec::new();
    while !queue.is_stopped() {
        match queue.next() {
            Some(job) => taken.push(job),
            None => {
                queue.wake.wait();
                queue.wake.reset();
            }
        }
    }
    (taken, queue.finish("over").into_iter().collect())
}

#[test]
fn a_job_is_taken_or_answered_by_the_end_or_refused() {
    for stops_first in [false, true] {
        loom::model(move || {
            let queue = queue();
            let theirs = Arc::clone(&queue);
            let thread = thread::spawn(move || talk(&theirs));
            if stops_first {
                queue.stop();
            }
            let refused = queue.post("stats").err();
            if !stops_first {
                queue.stop();
            }
            let (taken, untaken) = thread.join().unwrap();
            let all: Vec<_> = taken.into_iter().chain(untaken).chain(refused).collect();
            assert_eq!(all, ["stats"]);
            assert_eq!(queue.post("publish"), Err("publish"));
        });
    }
}

#[test]
fn a_job_wakes_the_thread() {
    loom::model(|| {
        let queue = queue();
        let theirs = Arc::clone(&queue);
        let posts = thread::spawn(move || theirs.post("ping"));
        let taken = loop {
            if let Some(job) = queue.next() {
                break job;
            }
            queue.wake.wait();
            queue.wake.reset();
        };
        assert_eq!((taken, posts.join().unwrap()), ("ping", Ok(())));
    });
}

#[test]
fn whoever_waits_for_the_end_learns_it() {
    loom::model(|| {
        let queue = queue();
        let theirs = Arc::clone(&queue);
        let ends = thread::spawn(move || theirs.finish("hung").len());
        assert_eq!(queue.wait_for_end(Duration::MAX), Some("hung"));
        assert_eq!(ends.join().unwrap(), 0);
    });
}

#[test]
fn a_port_is_not_offered_again_after_it_was_withdrawn() {
    loom::model(|| {
        let queue = queue();
        queue.put_off("publish");
        let open = Arc::new(AtomicBool::new(true));
        let (theirs, is_open) = (Arc::clone(&queue), Arc::clone(&open));
        let offers = thread::spawn(move || {
            theirs.post_again(1, |offer| is_open.load(Ordering::Acquire).then_some(offer));
        });
        // Its listener is closed first.
        open.store(false, Ordering::Release);
        queue.post("withdraw").unwrap();
        offers.join().unwrap();
        let jobs: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert!(jobs == ["withdraw"] || jobs == ["publish", "withdraw"], "{jobs:?}");
    });
}
