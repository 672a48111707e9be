//! The commands that the handle [`crate::Engine`] sends to a thread: a locked queue and an eventfd.

use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::listen::Listener;
use crate::room::Held;
use crate::service::Service;
use crate::tcp::Moved;

#[derive(Debug)]
pub(crate) enum Command {
    Add {
        id: u64,
        listener: Listener,
        service: Service,
        done: SyncSender<io::Result<()>>,
    },
    Remove {
        id: u64,
        done: SyncSender<bool>,
    },
    /// A connection of the port `id` whose bytes this thread moves from now on.
    Adopt {
        id: u64,
        conn: Box<Moved>,
    },
    Ping {
        done: SyncSender<()>,
    },
    Stop,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    /// `None` once the thread has ended.
    queue: Mutex<Option<Vec<Command>>>,
    pub(crate) wake: EventFd,
    /// Descriptors of connections that the thread holds.
    held: Mutex<Held>,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags)?;
        let queue = Mutex::new(Some(Vec::new()));
        Ok(Arc::new(Self { queue, wake, held: Mutex::default() }))
    }

    pub(crate) fn report(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    pub(crate) fn held(&self) -> Held {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn post(&self, command: Command) -> io::Result<()> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_mut().ok_or_else(ended)?.push(command);
        self.wake.write(1)?;
        Ok(())
    }

    /// Everything posted so far; resets the eventfd.
    pub(crate) fn take(&self) -> Vec<Command> {
        // An eventfd that nobody has written to says EAGAIN: there is nothing to reset then.
        let _ = self.wake.read();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whoever waits for an answer, now or later, hears that there will be none.
    pub(crate) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The error of a command to a thread that has ended.
pub(crate) fn ended() -> io::Error {
    io::Error::other("the port forwarding thread has exited")
}
