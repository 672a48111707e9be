//! The ports of the links that the namespace's kernel has shown.

use crate::sync::atomic::{AtomicU16, Ordering};

/// Ports of links that are remembered; more would be unusual.
pub(crate) const MAX_LINKS: usize = 8;

/// A set that only grows, without a lock: one thread learns ports, another one asks about each datagram. Zero is none.
#[derive(Debug, Default)]
pub(crate) struct Links([AtomicU16; MAX_LINKS]);

impl Links {
    pub(crate) fn learn(&self, port: u16) {
        for link in &self.0 {
            match link.compare_exchange(0, port, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(known) if known == port => return,
                Err(_) => {}
            }
        }
    }

    pub(crate) fn knows(&self, port: u16) -> bool {
        port != 0 && self.0.iter().any(|link| link.load(Ordering::Relaxed) == port)
    }
}
