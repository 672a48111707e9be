//! What ends another thread's wait for events: an eventfd (eventfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Readable (poll(2), epoll(7)) from [`Wake::ring`] to [`Wake::reset`].
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    /// One that nobody has rung.
    ///
    /// # Errors
    /// Those of eventfd(2).
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    /// Wakes whoever waits, or waits next.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn ring(&self) -> io::Result<()> {
        self.0.write(1)?;
        Ok(())
    }

    /// To be called before looking for what the ring was about, or something that comes meanwhile is missed.
    pub fn reset(&self) {
        // One that nobody has rung says EAGAIN: there is nothing to reset then.
        let _ = self.0.read();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
