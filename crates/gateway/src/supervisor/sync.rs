//! The primitives of what threads share here. The model checker (`tests/interleavings.rs`) compiles the files that take
//! them from this module once more, with its own primitives in their place.

use std::sync::PoisonError;
pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

pub(super) use relay::wake::Wake;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks, and waits for `changed` while `holds`, at most for `limit`.
pub(super) fn wait_while<'a, T>(
    changed: &Condvar,
    mutex: &'a Mutex<T>,
    limit: Duration,
    holds: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let waited = changed.wait_timeout_while(lock(mutex), limit, holds);
    waited.unwrap_or_else(PoisonError::into_inner).0
}
