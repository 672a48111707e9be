//! The event loop of the thread "ports": one epoll for commands, factory, ports and connections, and
//! timers. What the events mean is decided in [`crate::tcp`] and [`crate::udp`].

mod commands;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::SigSet;
use socket2::Socket;
use tracing::error;

use crate::command::Mailbox;
use crate::ctx::{Ctx, Source, Timer};
use crate::event_handler::{EventHandler, EventLoop, tag};
use crate::options::Options;
use crate::pool::{Pool, Waiter};
use crate::room::{Held, Room, Use};
use crate::slab::Key;
use crate::stock::Stock;
use crate::tcp::{Side, Tcp};
use crate::timers::Timers;
use crate::udp::Udp;

const MAX_EVENTS: usize = 256;
/// How soon to ask the factory again after it failed to make sockets.
const REFILL_INTERVAL: Duration = Duration::from_millis(50);
/// How often what a burst has left behind is given back.
const TRIM_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct Reactor {
    mailbox: Arc<Mailbox>,
    event_loop: EventLoop,
    udp: Udp,
    ports: HashMap<u64, Port>,
    helpers: Vec<Arc<Mailbox>>,
    /// Whether this is the thread that serves the ports, which counts for all.
    serves: bool,
    pipes: Arc<Stock>,
    handler: Option<Box<dyn EventHandler>>,
    bulk_streams: usize,
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
        handler: Option<Box<dyn EventHandler>>,
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
        let udp = Udp::new(&opts);
        let (now, wakes, inbound) = (Instant::now(), 0, handler.is_some().then(Vec::new));
        let ctx = Ctx { epoll, pool, timers, opts, now, wakes, room, inbound };
        Ok(Self {
            mailbox,
            event_loop: EventLoop {
                ctx,
                tcp: Tcp::new(Arc::clone(&pipes)),
                outbound: None,
                judge: None,
            },
            udp,
            ports: HashMap::new(),
            helpers,
            serves,
            pipes,
            handler,
            bulk_streams: 0,
            refilling: false,
            trimming: false,
        })
    }

    /// The thread's body: runs until told to stop. A process that has an event handler in it is of no use without, and ends.
    pub(crate) fn run(self) {
        let mut end = Aborting(self.handler.is_some());
        end.0 &= !self.serve();
    }

    /// The event loop. True if it was told to stop.
    ///
    /// Each round is fair: one look at epoll takes at most [`MAX_EVENTS`] events, and every direction with something to
    /// move gets an equal share of the round (`Tools::share`). A direction that could go on joins the queue of the
    /// ready ones, which get their turn after the new events. While that queue is not empty, epoll does not sleep, so
    /// new events never wait for a busy stream to run dry. Commands come last: a removal must not meet events of its
    /// own batch.
    fn serve(mut self) -> bool {
        // Signals are the main thread's business, and splice(2) has no MSG_NOSIGNAL.
        if let Err(e) = SigSet::all().thread_block() {
            error!("the port forwarding thread cannot block signals: {e}");
        }
        self.count();
        if let Err(e) = self.with_handler(Ok(()), |handler, event_loop| handler.start(event_loop)) {
            error!("the port forwarding thread cannot start: {e}");
            return false;
        }
        let mut events = [EpollEvent::empty(); MAX_EVENTS];
        loop {
            self.report();
            let sleep =
                if self.event_loop.tcp.has_ready() { EpollTimeout::ZERO } else { self.sleep() };
            let n = match self.event_loop.ctx.epoll.wait(&mut events, sleep) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(e) => {
                    error!("published ports have stopped working, because epoll failed: {e}");
                    return false;
                }
            };
            self.event_loop.ctx.now = Instant::now();
            self.event_loop.ctx.wakes += 1;
            self.count();
            self.event_loop.tcp.begin_round(n);
            let mut commands = false;
            for event in &events[..n] {
                if let Some(tag) = tag(event.data()) {
                    let flags = event.events();
                    self.with_handler((), |handler, host| handler.event(host, tag, flags));
                    continue;
                }
                match Source::from_token(event.data()) {
                    // After everything else: a removal must not meet events of this batch.
                    Some((Source::Mailbox, _)) => commands = true,
                    Some((source, key)) => self.dispatch(source, key, event.events()),
                    None => {}
                }
            }
            self.event_loop.tcp.run_ready(&mut self.event_loop.ctx);
            while let Some(timer) = self.event_loop.ctx.timers.pop_due(self.event_loop.ctx.now) {
                self.fire(timer);
            }
            let inbound = self.event_loop.ctx.inbound.as_mut().map(std::mem::take);
            for inbound in inbound.into_iter().flatten() {
                self.with_handler((), |handler, host| handler.inbound(host, inbound));
            }
            self.with_handler((), |handler, event_loop| handler.turn(event_loop));
            self.pass_judge_on();
            if commands && !self.handle_commands() {
                return true;
            }
            self.hand_over();
            self.keep_stocked();
        }
    }

    fn sleep(&self) -> EpollTimeout {
        let handler = self.handler.as_ref().and_then(|handler| handler.wake_at());
        self.event_loop.ctx.timers.sleep(handler)
    }

    /// Lets the event handler do something; `otherwise` if there is none.
    fn with_handler<T>(
        &mut self,
        otherwise: T,
        act: impl FnOnce(&mut dyn EventHandler, &mut EventLoop) -> T,
    ) -> T {
        match &mut self.handler {
            Some(handler) => act(handler.as_mut(), &mut self.event_loop),
            None => otherwise,
        }
    }

    fn handler_socket(&mut self, key: Key, socket: Option<Socket>) {
        self.with_handler((), |handler, event_loop| handler.socket(event_loop, key, socket));
    }

    /// Deals bulk streams out to all threads in turn. One thread alone wakes every receiver on another
    /// processor; with several, most of a stream stays on one.
    fn hand_over(&mut self) {
        let threads = self.helpers.len() + 1;
        for key in self.event_loop.tcp.take_bulk() {
            let turn = self.bulk_streams % threads;
            self.bulk_streams += 1;
            if let Some(helper) = turn.checked_sub(1).and_then(|n| self.helpers.get(n))
                && let Some((id, conn)) = self.event_loop.tcp.detach(&self.event_loop.ctx, key)
                && let Err(e) = helper.hand_over(id, conn)
            {
                error!("lost a bulk stream, because its thread cannot be woken: {e}");
            }
        }
    }

    fn dispatch(&mut self, source: Source, key: Key, flags: EpollFlags) {
        let EventLoop { ctx, tcp, .. } = &mut self.event_loop;
        match source {
            Source::Mailbox => {}
            Source::Factory => self.stock(),
            Source::TcpListener => tcp.accept(ctx, key),
            Source::Client => tcp.event(ctx, key, Side::Client, flags),
            Source::Backend => tcp.event(ctx, key, Side::Backend, flags),
            Source::UdpListener => self.udp.requests(ctx, key),
            Source::Flow => self.udp.replies(ctx, key),
        }
    }

    fn fire(&mut self, timer: Timer) {
        let EventLoop { ctx, tcp, .. } = &mut self.event_loop;
        match timer {
            Timer::Retry(key) => tcp.retry(ctx, key),
            Timer::Linger(key) => tcp.linger(ctx, key),
            Timer::Rearm => tcp.rearm(ctx),
            Timer::Sweep => tcp.sweep(ctx),
            Timer::Expire => self.udp.expire(ctx),
            Timer::Refill => self.refilling = false,
            Timer::Trim => {
                tcp.trim();
                let more = ctx.pool.trim();
                self.trimming = more;
                if more {
                    ctx.timers.at(ctx.now + TRIM_INTERVAL, Timer::Trim);
                }
            }
        }
    }

    fn stock(&mut self) {
        let factory = self.event_loop.ctx.pool.receive();
        if let Some(armed) = self.event_loop.ctx.pool.armed.take() {
            self.event_loop.tcp.armed(&mut self.event_loop.ctx, armed);
        }
        if !factory {
            self.event_loop.tcp.armed(&mut self.event_loop.ctx, false);
            for waiter in self.event_loop.ctx.pool.give_up() {
                match waiter {
                    Waiter::Conn(key) => self.event_loop.tcp.close(key, true),
                    Waiter::Flow(key) => self.udp.table.close(key),
                    Waiter::EventHandler(key) => self.handler_socket(key, None),
                }
            }
        }
        while let Some((kind, waiter, sock)) = self.event_loop.ctx.pool.next_served() {
            match waiter {
                Waiter::Conn(key) if self.event_loop.tcp.wants_socket(key) => {
                    self.event_loop.tcp.connect_with(&mut self.event_loop.ctx, key, sock);
                }
                Waiter::Flow(key) if self.udp.table.wants_socket(key) => {
                    self.udp.table.connect_with(&mut self.event_loop.ctx, key, sock);
                }
                Waiter::EventHandler(key) => self.handler_socket(key, Some(sock)),
                Waiter::Conn(_) | Waiter::Flow(_) => self.event_loop.ctx.pool.give_back(kind, sock),
            }
        }
    }

    fn keep_stocked(&mut self) {
        // Covers requests that the factory could not meet; what is under way is not asked twice.
        if !self.refilling && self.event_loop.ctx.pool.retry() {
            self.refilling = true;
            self.event_loop.ctx.timers.at(self.event_loop.ctx.now + REFILL_INTERVAL, Timer::Refill);
        }
        if !self.trimming
            && (self.event_loop.tcp.has_slack() || self.event_loop.ctx.pool.has_slack())
        {
            self.trimming = true;
            self.event_loop.ctx.timers.at(self.event_loop.ctx.now + TRIM_INTERVAL, Timer::Trim);
        }
    }

    /// Tells the thread that counts for all what this one holds. Before it waits: it may wait for long.
    fn report(&self) {
        if !self.serves {
            self.mailbox.report(self.event_loop.tcp.held(self.event_loop.outbound));
        }
    }

    /// Counts the descriptors that are held, and has UDP flows make room for new connections.
    fn count(&mut self) {
        if !self.serves {
            return;
        }
        let own = self.event_loop.tcp.held(self.event_loop.outbound).and(self.udp.table.held());
        let own = own.with(Use::Port, self.ports.len());
        let helpers = self.helpers.iter().map(|helper| helper.held());
        let others = helpers.chain(self.handler.as_ref().map(|handler| handler.held()));
        let held = others.fold(own, Held::and);
        let other = self.event_loop.ctx.pool.held() + self.pipes.descriptors();
        self.event_loop.ctx.room.count(held, other);
        let (flows_in, flows_out) = self.event_loop.ctx.room.excess();
        if flows_in > 0 {
            self.udp.table.give_way(&mut self.event_loop.ctx, flows_in);
        }
        if flows_out > 0 {
            self.with_handler((), |handler, event_loop| handler.give_way(event_loop, flows_out));
            self.event_loop.ctx.room.give(Use::FlowOut, flows_out);
        }
    }
}

#[cfg(test)]
mod tests;
