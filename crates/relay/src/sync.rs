//! The primitives of what threads share here. The model checker (`tests/interleavings.rs`) compiles the files that take
//! them from this module once more, with its own primitives in their place.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic};
