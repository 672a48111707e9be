//! The handle through which the rest of the program talks to the thread "ports".
//!
//! Commands go through a locked queue and an eventfd; those that must be finished when the call
//! returns carry a channel for their result.

use std::io;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use crate::command::{Command, Mailbox};
use crate::event_handler::EventHandler;
use crate::listen::Listener;
use crate::mailbox::ended;
use crate::options::Options;
use crate::reactor::Reactor;
use crate::service::Service;
use crate::stock::Stock;

/// Stack of a thread, in bytes; its buffers are on the heap.
const STACK_SIZE: usize = 256 << 10;

struct Closing(Arc<Mailbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The running data path of every published port. Dropping it closes them all.
#[derive(Debug)]
pub struct Engine {
    mailbox: Arc<Mailbox>,
    /// The thread "ports", then those for bulk streams.
    threads: Vec<(Arc<Mailbox>, JoinHandle<()>)>,
}

impl Engine {
    /// Starts the thread "ports". `factory` is one end of an `AF_UNIX`/`SOCK_SEQPACKET` pair whose
    /// other end [`crate::factory::serve`] has in the namespace; its death does not stop the engine.
    ///
    /// # Errors
    /// When the thread or its epoll and eventfd descriptors cannot be made.
    pub fn start(factory: OwnedFd, opts: Options) -> io::Result<Self> {
        Self::start_with(factory, opts, None)
    }

    /// As [`Engine::start`], with an event handler in the thread.
    ///
    /// # Errors
    /// Those of [`Engine::start`].
    pub fn start_with(
        factory: OwnedFd,
        opts: Options,
        handler: Option<Box<dyn EventHandler>>,
    ) -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let pipes = Stock::new(opts.shares.pipes);
        Self::start_on(processors, &pipes, factory, opts, handler)
    }

    fn start_on(
        processors: usize,
        pipes: &Arc<Stock>,
        factory: OwnedFd,
        opts: Options,
        handler: Option<Box<dyn EventHandler>>,
    ) -> io::Result<Self> {
        let mut engine = Self { mailbox: Mailbox::new()?, threads: Vec::new() };
        let mut helpers = Vec::new();
        for _ in 1..processors.min(opts.threads).min(opts.shares.threads) {
            let helper = Mailbox::new()?;
            let (mailbox, pipes) = (Arc::clone(&helper), Arc::clone(pipes));
            let reactor = Reactor::new(mailbox, None, opts.clone(), Vec::new(), pipes, None)?;
            engine.spawn("bulk", reactor, &helper)?;
            helpers.push(helper);
        }
        let (mailbox, pipes) = (Arc::clone(&engine.mailbox), Arc::clone(pipes));
        let reactor =
            Reactor::new(Arc::clone(&mailbox), Some(factory), opts, helpers, pipes, handler)?;
        engine.spawn("ports", reactor, &mailbox)?;
        Ok(engine)
    }

    fn spawn(&mut self, name: &str, reactor: Reactor, mailbox: &Arc<Mailbox>) -> io::Result<()> {
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_SIZE);
        let closing = Arc::clone(mailbox);
        let thread = builder.spawn(move || {
            // Also when the thread panics.
            let _closing = Closing(closing);
            reactor.run();
        })?;
        // The one that serves ports ends first: it hands connections to the others.
        self.threads.insert(0, (Arc::clone(mailbox), thread));
        Ok(())
    }

    /// Serves `listener`. Returns once the port answers. A port of this `id` that exists already is replaced; `u64::MAX` is
    /// not free.
    ///
    /// # Errors
    /// When the listener cannot be watched, or the thread is gone.
    pub fn add(&self, id: u64, listener: Listener, service: Service) -> io::Result<()> {
        let (done, result) = sync_channel(1);
        self.mailbox.post(Command::Add { id, listener, service, done })?;
        result.recv().map_err(|_| ended())?
    }

    /// Stops serving a port: its listener, connections and flows are closed when this returns. False
    /// when there is no such port.
    #[must_use = "false means that there was no such port"]
    pub fn remove(&self, id: u64) -> bool {
        let (done, result) = sync_channel(1);
        self.mailbox.post(Command::Remove { id, done }).is_ok() && result.recv().unwrap_or(false)
    }

    /// Has [`EventHandler::changed`] called, and returns once every thread has done what follows from that.
    ///
    /// # Errors
    /// When a thread has ended.
    pub fn change(&self) -> io::Result<()> {
        let (done, answer) = sync_channel(1);
        self.mailbox.post(Command::Change { done })?;
        answer.recv().map_err(|_| ended())?;
        // The other threads have got their commands before that.
        self.ping()
    }

    /// Returns once every thread has gone round its event loop: a thread that hangs keeps the caller waiting.
    ///
    /// # Errors
    /// When a thread has ended.
    pub fn ping(&self) -> io::Result<()> {
        let mut answers = Vec::with_capacity(self.threads.len());
        for (mailbox, _) in &self.threads {
            let (done, answer) = sync_channel(1);
            mailbox.post(Command::Ping { done })?;
            answers.push(answer);
        }
        answers.into_iter().try_for_each(|answer| answer.recv().map_err(|_| ended()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for (mailbox, thread) in self.threads.drain(..) {
            if mailbox.post(Command::Stop).is_ok() {
                // A panic of the thread was printed by its hook already.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests;
