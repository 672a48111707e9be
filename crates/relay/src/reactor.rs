//! The event loop of the thread "ports": one epoll for commands, factory, ports and connections, and
//! timers. What the events mean is decided in [`crate::tcp`] and [`crate::udp`].

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::SigSet;
use socket2::Socket;
use tracing::error;

use crate::engine::{Command, Mailbox, Options};
use crate::guest::{Guest, Loop, OUTBOUND, Tag, tag};
use crate::listen::Listener;
use crate::pipe::Stock;
use crate::pool::{Pool, Waiter};
use crate::room::{Room, Use};
use crate::slab::Key;
use crate::tcp::{Moved, Side, Tcp};
use crate::timers::{Timer, Timers};
use crate::traffic::Traffic;
use crate::udp::Udp;

/// Events taken from epoll at a time.
const EVENTS: usize = 256;
/// How soon to ask the factory again after it failed to make sockets.
const REFILL: Duration = Duration::from_millis(50);
/// How often what a burst has left behind is given back.
const TRIM: Duration = Duration::from_secs(5);

/// What a watched descriptor is; with a [`Key`] it makes epoll's 64 bits of user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Source {
    Mailbox,
    Factory,
    TcpListener,
    Client,
    Backend,
    UdpListener,
    Flow,
}

impl Source {
    const ALL: [Self; 7] = [
        Self::Mailbox,
        Self::Factory,
        Self::TcpListener,
        Self::Client,
        Self::Backend,
        Self::UdpListener,
        Self::Flow,
    ];

    /// Kind in the top byte, generation (24 bits) below, index in the lower half.
    pub(crate) fn token(self, key: Key) -> u64 {
        u64::from(self as u8) << 56 | u64::from(key.generation) << 32 | u64::from(key.index)
    }

    fn from_token(token: u64) -> Option<(Self, Key)> {
        let [kind, g2, g1, g0, i3, i2, i1, i0] = token.to_be_bytes();
        let key = Key {
            index: u32::from_be_bytes([i3, i2, i1, i0]),
            generation: u32::from_be_bytes([0, g2, g1, g0]),
        };
        Some((*Self::ALL.get(usize::from(kind))?, key))
    }
}

/// What TCP and UDP share.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) epoll: Epoll,
    pub(crate) pool: Pool,
    pub(crate) timers: Timers,
    pub(crate) opts: Options,
    /// The time when the current batch of events came.
    pub(crate) now: Instant,
    /// How many batches of events there were.
    pub(crate) wakes: u64,
    /// Descriptors that may still be opened.
    pub(crate) room: Room,
}

pub(crate) struct Reactor {
    mailbox: Arc<Mailbox>,
    ctx: Ctx,
    tcp: Tcp,
    udp: Udp,
    ports: HashMap<u64, Port>,
    /// Threads that take over bulk streams.
    helpers: Vec<Arc<Mailbox>>,
    /// Whether this is the thread that serves the ports, which counts for all.
    serves: bool,
    /// The pipes of all threads.
    pipes: Arc<Stock>,
    guest: Option<Box<dyn Guest>>,
    /// The port of the guest's connections.
    outbound: Option<Key>,
    /// How many streams turned out to be bulk so far.
    bulk_streams: usize,
    /// A refill or trim timer is running.
    refilling: bool,
    trimming: bool,
}

/// Ends the process when it is dropped, be it by a panic, unless that was called off.
struct Aborting(bool);

impl Drop for Aborting {
    fn drop(&mut self) {
        if self.0 {
            std::process::abort();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Port {
    Tcp(Key),
    Udp(Key),
}

impl Reactor {
    /// Without a factory it moves bytes of connections that others have made.
    pub(crate) fn new(
        mailbox: Arc<Mailbox>,
        factory: Option<OwnedFd>,
        opts: Options,
        helpers: Vec<Arc<Mailbox>>,
        pipes: Arc<Stock>,
        guest: Option<Box<dyn Guest>>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let serves = factory.is_some();
        let pool = Pool::new(factory, opts.shares.ready)?;
        let readable =
            |source: Source| EpollEvent::new(EpollFlags::EPOLLIN, source.token(Key::NONE));
        epoll.add(&mailbox.wake, readable(Source::Mailbox))?;
        if let Some(fd) = pool.fd() {
            epoll.add(fd, readable(Source::Factory))?;
        }
        let timers = Timers::default();
        let room = Room::new(opts.shares);
        let ctx = Ctx { epoll, pool, timers, opts, now: Instant::now(), wakes: 0, room };
        Ok(Self {
            mailbox,
            ctx,
            tcp: Tcp::new(Arc::clone(&pipes)),
            udp: Udp::new(),
            ports: HashMap::new(),
            helpers,
            serves,
            pipes,
            guest,
            outbound: None,
            bulk_streams: 0,
            refilling: false,
            trimming: false,
        })
    }

    /// The thread's body: runs until told to stop. A process that has a guest in it is of no use without, and ends.
    pub(crate) fn run(self) {
        let only_for_guest = self.guest.is_some();
        let mut end = Aborting(only_for_guest);
        end.0 &= !self.serve();
    }

    /// True if it was told to stop.
    fn serve(mut self) -> bool {
        // Signals are the main thread's business, and splice(2) has no MSG_NOSIGNAL.
        if let Err(e) = SigSet::all().thread_block() {
            error!("the port forwarding thread cannot block signals: {e}");
        }
        self.count();
        if let Err(e) = self.with_guest(Ok(()), |guest, host| guest.start(host)) {
            error!("the port forwarding thread cannot start: {e}");
            return false;
        }
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            self.report();
            let sleep = if self.tcp.has_ready() { EpollTimeout::ZERO } else { self.sleep() };
            let n = match self.ctx.epoll.wait(&mut events, sleep) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(e) => {
                    error!("published ports have stopped working, because epoll failed: {e}");
                    return false;
                }
            };
            self.ctx.now = Instant::now();
            self.ctx.wakes += 1;
            self.count();
            self.tcp.begin_round(n);
            let mut commands = false;
            for event in &events[..n] {
                if let Some(tag) = tag(event.data()) {
                    self.guest_event(tag, event.events());
                    continue;
                }
                match Source::from_token(event.data()) {
                    // After everything else: a removal must not meet events of this batch.
                    Some((Source::Mailbox, _)) => commands = true,
                    Some((source, key)) => self.dispatch(source, key, event.events()),
                    None => {}
                }
            }
            self.tcp.run_ready(&mut self.ctx);
            while let Some(timer) = self.ctx.timers.pop_due(self.ctx.now) {
                self.fire(timer);
            }
            self.with_guest((), |guest, host| guest.turn(host));
            if commands && !self.obey() {
                return true;
            }
            self.hand_over();
            self.keep_stocked();
        }
    }

    /// How long epoll may sleep.
    fn sleep(&self) -> EpollTimeout {
        let guest = self.guest.as_ref().and_then(|guest| guest.wake_at());
        self.ctx.timers.sleep(guest)
    }

    /// Lets the guest do something; `otherwise` if there is none.
    fn with_guest<T>(
        &mut self,
        otherwise: T,
        act: impl FnOnce(&mut dyn Guest, &mut Loop<'_>) -> T,
    ) -> T {
        let Some(mut guest) = self.guest.take() else { return otherwise };
        let mut host = Loop { ctx: &mut self.ctx, tcp: &mut self.tcp, port: &mut self.outbound };
        let result = act(guest.as_mut(), &mut host);
        self.guest = Some(guest);
        result
    }

    fn guest_event(&mut self, tag: Tag, flags: EpollFlags) {
        self.with_guest((), |guest, host| guest.event(host, tag, flags));
    }

    fn guest_socket(&mut self, key: Key, socket: Option<Socket>) {
        self.with_guest((), |guest, host| guest.socket(host, key, socket));
    }

    /// Deals bulk streams out to all threads in turn. One thread alone wakes every receiver on another
    /// processor; with several, most of a stream stays on one.
    fn hand_over(&mut self) {
        let threads = self.helpers.len() + 1;
        for key in self.tcp.take_bulk() {
            let turn = self.bulk_streams % threads;
            self.bulk_streams += 1;
            if let Some(helper) = turn.checked_sub(1).and_then(|n| self.helpers.get(n))
                && let Some((id, conn)) = self.tcp.detach(&self.ctx, key)
                && let Err(e) = helper.post(Command::Adopt { id, conn: Box::new(conn) })
            {
                error!("lost a bulk stream, because its thread cannot be woken: {e}");
            }
        }
    }

    fn dispatch(&mut self, source: Source, key: Key, flags: EpollFlags) {
        let ctx = &mut self.ctx;
        match source {
            Source::Mailbox => {}
            Source::Factory => self.stock(),
            Source::TcpListener => self.tcp.accept(ctx, key),
            Source::Client => self.tcp.event(ctx, key, Side::Client, flags),
            Source::Backend => self.tcp.event(ctx, key, Side::Backend, flags),
            Source::UdpListener => self.udp.requests(ctx, key),
            Source::Flow => self.udp.replies(ctx, key),
        }
    }

    fn fire(&mut self, timer: Timer) {
        let ctx = &mut self.ctx;
        match timer {
            Timer::Retry(key) => self.tcp.retry(ctx, key),
            Timer::Linger(key) => self.tcp.linger(ctx, key),
            Timer::Rearm => self.tcp.rearm(ctx),
            Timer::Sweep => self.tcp.sweep(ctx),
            Timer::Expire => self.udp.expire(ctx),
            Timer::Refill => self.refilling = false,
            Timer::Trim => {
                self.tcp.trim();
                let more = ctx.pool.trim();
                self.trimming = more;
                if more {
                    ctx.timers.at(ctx.now + TRIM, Timer::Trim);
                }
            }
        }
    }

    /// Sockets have come, or the factory has ended.
    fn stock(&mut self) {
        let factory = self.ctx.pool.receive();
        if let Some(armed) = self.ctx.pool.take_armed() {
            self.tcp.armed(&mut self.ctx, armed);
        }
        if !factory {
            self.tcp.armed(&mut self.ctx, false);
            for waiter in self.ctx.pool.give_up() {
                match waiter {
                    Waiter::Conn(key) => self.tcp.close(key, true),
                    Waiter::Flow(key) => self.udp.close(key),
                    Waiter::Guest(key) => self.guest_socket(key, None),
                }
            }
        }
        while let Some((kind, waiter, sock)) = self.ctx.pool.next_served() {
            match waiter {
                Waiter::Conn(key) if self.tcp.wants_socket(key) => {
                    self.tcp.connect_with(&mut self.ctx, key, sock);
                }
                Waiter::Flow(key) if self.udp.wants_socket(key) => {
                    self.udp.connect_with(&mut self.ctx, key, sock);
                }
                Waiter::Guest(key) => self.guest_socket(key, Some(sock)),
                Waiter::Conn(_) | Waiter::Flow(_) => self.ctx.pool.give_back(kind, sock),
            }
        }
    }

    fn keep_stocked(&mut self) {
        if self.ctx.pool.anyone_waits() && !self.refilling {
            // Covers requests that the factory could not meet; what is under way is not asked twice.
            self.refilling = self.ctx.pool.retry();
            self.ctx.timers.at(self.ctx.now + REFILL, Timer::Refill);
        }
        if !self.trimming && (self.tcp.has_slack() || self.ctx.pool.has_slack()) {
            self.trimming = true;
            self.ctx.timers.at(self.ctx.now + TRIM, Timer::Trim);
        }
    }

    /// Tells the thread that counts for all what this one holds. Before it waits: it may wait for long.
    fn report(&self) {
        if !self.serves {
            self.mailbox.report(self.tcp.held(self.outbound));
        }
    }

    /// Counts the descriptors that are held, and has UDP flows make room for new connections.
    fn count(&mut self) {
        if !self.serves {
            return;
        }
        let (incoming, outgoing) = self.tcp.held(self.outbound);
        let mut held = self.helpers.iter().fold(self.udp.held(), |sum, h| sum.and(h.held()));
        held = held.with(Use::Port, self.ports.len());
        held = held.with(Use::In, incoming).with(Use::Out, outgoing);
        if let Some(guest) = &self.guest {
            held = held.and(guest.held());
        }
        let other = self.ctx.pool.held() + self.pipes.descriptors();
        self.ctx.room.count(held, other);
        let (flows_in, flows_out) = self.ctx.room.excess();
        if flows_in > 0 {
            self.udp.give_way(&mut self.ctx, flows_in);
        }
        if flows_out > 0 {
            self.with_guest((), |guest, host| guest.give_way(host, flows_out));
            self.ctx.room.give(Use::FlowOut, flows_out);
        }
    }

    /// Carries out what the handle asks. False when the thread has to end.
    fn obey(&mut self) -> bool {
        for command in self.mailbox.take() {
            match command {
                Command::Add { id, listener, target, traffic, done } => {
                    // The caller may have given up waiting; the port is there all the same.
                    let _ = done.send(self.add(id, listener, target, traffic));
                }
                Command::Remove { id, done } => {
                    let _ = done.send(self.remove(id));
                }
                Command::Adopt { id, conn } => self.adopt(id, *conn),
                Command::Ping { done } => {
                    let _ = done.send(());
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn add(
        &mut self,
        id: u64,
        listener: Listener,
        target: SocketAddr,
        traffic: Arc<Traffic>,
    ) -> io::Result<()> {
        self.remove(id);
        let ctx = &mut self.ctx;
        let port = match listener {
            Listener::Tcp(fd) => Port::Tcp(self.tcp.add(ctx, id, fd, target, traffic)?),
            Listener::Udp(fd) => Port::Udp(self.udp.add(ctx, fd, target, traffic)?),
        };
        self.ports.insert(id, port);
        Ok(())
    }

    /// A connection from the thread that serves the ports.
    fn adopt(&mut self, id: u64, conn: Moved) {
        let port = match self.ports.get(&id) {
            Some(Port::Tcp(key)) => *key,
            _ => {
                let key = self.tcp.add_unserved(id);
                self.ports.insert(id, Port::Tcp(key));
                key
            }
        };
        if id == OUTBOUND {
            // For the count of descriptors: a connection that was handed over is still one out.
            self.outbound = Some(port);
        }
        self.tcp.adopt(&mut self.ctx, port, conn);
    }

    fn remove(&mut self, id: u64) -> bool {
        if matches!(self.ports.get(&id), Some(Port::Tcp(_))) && self.bulk_streams > 0 {
            self.remove_elsewhere(id);
        }
        match self.ports.remove(&id) {
            Some(Port::Tcp(key)) => self.tcp.remove(key),
            Some(Port::Udp(key)) => self.udp.remove(key),
            None => return false,
        }
        true
    }

    /// Has the other threads close what they move for a port. They never wait for this one, and what was
    /// handed over is in their queue before this.
    fn remove_elsewhere(&self, id: u64) {
        for helper in &self.helpers {
            let (done, result) = sync_channel(1);
            if helper.post(Command::Remove { id, done }).is_ok() {
                // It can only fail if the thread is gone, and its connections with it.
                let _ = result.recv();
            }
        }
    }
}

#[cfg(test)]
mod tests;
