//! The eventfd of `src/wake.rs` for the model checker; the tests of the gateway use it as well.

use std::io;

use loom::sync::{Condvar, Mutex};

#[derive(Debug)]
pub(crate) struct Wake {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { rung: Mutex::new(false), changed: Condvar::new() })
    }

    pub(crate) fn ring(&self) -> io::Result<()> {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
        Ok(())
    }

    pub(crate) fn reset(&self) {
        *self.rung.lock().unwrap() = false;
    }

    /// What poll(2) does. The model checker finds a thread that is never woken.
    pub(crate) fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
    }
}
