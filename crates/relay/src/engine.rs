//! The handle through which the rest of the program talks to the thread "ports".
//!
//! Commands go through a locked queue and an eventfd; those that must be finished when the call
//! returns carry a channel for their result.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use budget::{Budget, DataPath, Shares};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::guest::Guest;
use crate::listen::Listener;
use crate::pipe::Stock;
use crate::reactor::Reactor;
use crate::room::{Held, Use};
use crate::tcp::Moved;
use crate::traffic::Traffic;

/// Stack of a thread, in bytes; its buffers are on the heap.
const STACK: usize = 256 << 10;

/// Whether backends see the address of TCP clients that are not on the loopback interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transparent {
    /// Backends see an address of their own namespace.
    Off,
    /// Backend sockets are bound to the client's address (`IP_TRANSPARENT`, ip(7)) and carry this
    /// `SO_MARK`; a connection for which that fails is made the ordinary way.
    Mark(u32),
    /// As `Mark`, once the factory has armed the namespace: it is asked when the first such client comes,
    /// who waits for the answer.
    OnDemand(u32),
}

/// Limits and times of an [`Engine`]; the defaults are those of RootlessKit where it has any.
#[derive(Clone, Debug)]
pub struct Options {
    /// Source addresses of TCP clients.
    pub transparent: Transparent,
    /// What the engine may do with descriptors.
    pub shares: Shares,
    /// How long a UDP flow may be silent in both directions.
    pub udp_idle: Duration,
    /// How long an ordinary connect may take.
    pub connect_timeout: Duration,
    /// How long a source-preserving connect may take before it is made the ordinary way.
    pub transparent_timeout: Duration,
    /// The most threads that move bytes: one serves every port, the others take over bulk streams as soon as
    /// there are several. Never more than processors.
    pub threads: usize,
    /// Networks whose addresses mean something else in the namespace: clients with such an address are not kept.
    pub occupied: Vec<(IpAddr, u8)>,
    /// The namespace brings answers back by `tproxy`, which sees transparent sockets only (`IP_TRANSPARENT`, ip(7)): all
    /// backends are, and UDP clients keep their address as well.
    pub tproxy: bool,
    /// The most UDP flows of one port; beyond that flows make room in the order of [`crate::order`]. Four times as many
    /// may be there while all wait for an answer.
    pub flows_per_port: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transparent: Transparent::Off,
            shares: Budget::new(1024, DataPath::Parent).shares,
            udp_idle: Duration::from_secs(90),
            connect_timeout: Duration::from_secs(30),
            transparent_timeout: Duration::from_secs(1),
            threads: 4,
            occupied: Vec::new(),
            tproxy: false,
            flows_per_port: 4096,
        }
    }
}

/// What the handle asks of the thread.
pub(crate) enum Command {
    Add {
        id: u64,
        listener: Listener,
        target: SocketAddr,
        traffic: Arc<Traffic>,
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
    /// Say that the thread still goes round.
    Ping {
        done: SyncSender<()>,
    },
    Stop,
}

/// The mailbox that handle and thread share.
pub(crate) struct Mailbox {
    /// `None` once the thread has ended.
    queue: Mutex<Option<Vec<Command>>>,
    pub(crate) wake: EventFd,
    /// Descriptors of connections that the thread holds: to published ports, and out.
    incoming: AtomicUsize,
    outgoing: AtomicUsize,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags)?;
        Ok(Arc::new(Self {
            queue: Mutex::new(Some(Vec::new())),
            wake,
            incoming: AtomicUsize::new(0),
            outgoing: AtomicUsize::new(0),
        }))
    }

    /// Says what the thread holds.
    pub(crate) fn report(&self, (incoming, outgoing): (usize, usize)) {
        self.incoming.store(incoming, Ordering::Relaxed);
        self.outgoing.store(outgoing, Ordering::Relaxed);
    }

    /// What the thread holds.
    pub(crate) fn held(&self) -> Held {
        let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        Held::default().with(Use::In, read(&self.incoming)).with(Use::Out, read(&self.outgoing))
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

struct Closing(Arc<Mailbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The running data path of every published port. Dropping it closes them all.
pub struct Engine {
    mailbox: Arc<Mailbox>,
    /// The thread "ports", then those for bulk streams.
    threads: Vec<(Arc<Mailbox>, JoinHandle<()>)>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
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

    /// As [`Engine::start`], with a guest in the thread.
    ///
    /// # Errors
    /// Those of [`Engine::start`].
    pub fn start_with(
        factory: OwnedFd,
        opts: Options,
        guest: Option<Box<dyn Guest>>,
    ) -> io::Result<Self> {
        let mailbox = Mailbox::new()?;
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut engine = Self { mailbox, threads: Vec::new() };
        let mut helpers = Vec::new();
        let pipes = Stock::new(opts.shares.pipes);
        for _ in 1..processors.min(opts.threads).min(opts.shares.threads) {
            let helper = Mailbox::new()?;
            engine.spawn(
                "bulk",
                Reactor::new(
                    Arc::clone(&helper),
                    None,
                    opts.clone(),
                    Vec::new(),
                    Arc::clone(&pipes),
                    None,
                )?,
                &helper,
            )?;
            helpers.push(helper);
        }
        let mailbox = Arc::clone(&engine.mailbox);
        let reactor =
            Reactor::new(Arc::clone(&mailbox), Some(factory), opts, helpers, pipes, guest)?;
        engine.spawn("ports", reactor, &mailbox)?;
        Ok(engine)
    }

    fn spawn(&mut self, name: &str, reactor: Reactor, mailbox: &Arc<Mailbox>) -> io::Result<()> {
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
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

    /// Serves `listener`: what arrives there goes to `target` inside the namespace and is counted in `traffic`. Returns
    /// once the port answers. A port of this `id` that exists already is replaced; `u64::MAX` is not free.
    ///
    /// # Errors
    /// When the listener cannot be watched, or the thread is gone.
    pub fn add(
        &self,
        id: u64,
        listener: Listener,
        target: SocketAddr,
        traffic: Arc<Traffic>,
    ) -> io::Result<()> {
        let (done, result) = sync_channel(1);
        self.mailbox.post(Command::Add { id, listener, target, traffic, done })?;
        result.recv().map_err(|_| ended())?
    }

    /// Stops serving a port: its listener, connections and flows are closed when this returns. False
    /// when there is no such port.
    #[must_use = "false means that there was no such port"]
    pub fn remove(&self, id: u64) -> bool {
        let (done, result) = sync_channel(1);
        self.mailbox.post(Command::Remove { id, done }).is_ok() && result.recv().unwrap_or(false)
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

    /// Closes every port and waits for the thread's end, as dropping the engine does.
    pub fn stop(self) {}
}

fn ended() -> io::Error {
    io::Error::other("the port forwarding thread has exited")
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
