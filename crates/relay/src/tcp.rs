//! TCP ports and their connections.
//!
//! ```text
//!   accept ─▶ Waiting ─▶ Connecting ─▶ Open ─▶ closed
//!   (no socket in  ▲         │  ▲        │
//!    the pool yet) └─ Backoff ◀┘  │        └─▶ Lingering (a reset that waits for bytes in flight)
//!                         └──────┘
//! ```
//!
//! Both sockets are registered with epoll once, edge-triggered. A loopback connect is usually finished
//! when connect(2) returns, so the first event of the backend opens the connection together with the
//! client's first bytes.
//!
//! `accept` and `connect` bring a connection up to `Open`; this file moves
//! its bytes and ends it; `moved` hands it to another thread.
//!
//! The file is long because the states of a connection and the transitions between them belong together.

mod accept;
mod connect;
mod handover;

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use socket2::Socket;
use tracing::debug;

use crate::congestion;
use crate::connect_outcome::connect_outcome;
use crate::ctx::{Ctx, Source, Timer};
use crate::direction::{Direction, Outcome, Tools};
use crate::factory::{SocketKind, tune_tcp};
use crate::flow_log::FlowEnd;
use crate::judge::Judge;
use crate::room::{Held, Use};
use crate::self_connection::refuse_self_connection;
use crate::service::Service;
use crate::slab::{Key, Slab};
use crate::stock::Stock;
use crate::traffic::Counted;

pub(crate) use handover::Moved;

/// A reset waits while the other side still takes bytes, looking this often …
const LINGER_INTERVAL: Duration = Duration::from_millis(20);
/// … and gives up after so many looks without progress (5 s).
const MAX_LINGER_LOOKS: u32 = 250;

/// Once a side was reset, what is still to be delivered to the other may stand still for this long.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream that has moved this much by splice(2) may go to another thread.
const HAND_OVER_BYTES: u64 = 8 << 20;

#[derive(Debug)]
struct Port {
    id: u64,
    /// Absent in threads that only move bytes.
    listener: Option<Socket>,
    /// Where it listens.
    address: Option<SocketAddr>,
    /// See [`congestion::is_replaceable`]; what the listener accepts inherits its algorithm.
    replaceable_congestion: bool,
    service: Service,
    conns: Vec<Key>,
    /// How many to accept per wake; grows while wakes follow one another.
    budget: u32,
    last_wake: u64,
    resting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For the namespace to be armed, see [`crate::Transparent::OnDemand`].
    Arming,
    Waiting,
    Connecting {
        transparent: bool,
    },
    Backoff,
    Open,
    Lingering {
        held: usize,
        looks: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Backend,
}

#[derive(Debug)]
struct Conn {
    port: Key,
    /// Where this connection stands in its port's list.
    place: usize,
    client: Socket,
    peer: Option<SocketAddr>,
    backend: Option<Socket>,
    phase: Phase,
    failures: u32,
    /// Still worth trying to keep the client's address.
    keep_source: bool,
    deadline: Instant,
    /// In `Tcp::opening`.
    opening: bool,
    /// In `Tcp::ready`.
    queued: bool,
    /// Was in `Tcp::bulk`.
    bulk: bool,
    reset: Option<Side>,
    /// What had been delivered at the last look, once a side was reset.
    looked: Option<u64>,
    counted: Counted,
    /// Client to backend, and back.
    up: Direction,
    down: Direction,
}

#[derive(Debug)]
pub(crate) struct Tcp {
    ports: Slab<Port>,
    conns: Slab<Conn>,
    tools: Tools,
    /// Connections that had their turn and could go on.
    ready: VecDeque<Key>,
    opening: Vec<Key>,
    resting: Vec<Key>,
    bulk: Vec<Key>,
    /// Connections in [`Phase::Arming`]; `None` before anybody has asked.
    arming: Option<Vec<Key>>,
}

impl Tcp {
    pub(crate) fn new(pipes: Arc<Stock>) -> Self {
        Self {
            ports: Slab::new(),
            conns: Slab::new(),
            tools: Tools::new(pipes),
            ready: VecDeque::new(),
            opening: Vec::new(),
            resting: Vec::new(),
            bulk: Vec::new(),
            arming: None,
        }
    }

    /// Descriptors of connections to published ports, and of those of the port `outbound`.
    pub(crate) fn held(&self, outbound: Option<Key>) -> Held {
        let outbound = outbound.and_then(|key| self.ports.get(key));
        let outgoing = outbound.map_or(0, |port| port.conns.len());
        let incoming = self.conns.len() - outgoing;
        Held::default().with(Use::In, 2 * incoming).with(Use::Out, 2 * outgoing)
    }

    /// Says how many events have come, for connections to take fair turns.
    pub(crate) fn begin_round(&mut self, events: usize) {
        self.tools.share(events + self.ready.len());
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn trim(&mut self) {
        self.tools.pipes.trim();
    }

    pub(crate) fn has_slack(&self) -> bool {
        self.tools.pipes.has_slack()
    }

    pub(crate) fn add(
        &mut self,
        ctx: &mut Ctx,
        id: u64,
        listener: OwnedFd,
        service: Service,
    ) -> io::Result<Key> {
        let listener = Socket::from(listener);
        listener.set_nonblocking(true)?;
        // Inherited by every accepted socket.
        tune_tcp(&listener)?;
        ctx.pool.prepare(SocketKind::tcp(service.target.is_ipv4()));
        let key = self.ports.insert(Port::new(id, service));
        let armed = ctx.watch(&listener, Source::TcpListener, key, EpollFlags::EPOLLIN);
        if let Some(port) = self.ports.get_mut(key) {
            port.replaceable_congestion = congestion::is_replaceable(&listener);
            port.address = listener.local_addr().ok().and_then(|address| address.as_socket());
            port.listener = Some(listener);
        }
        if let Err(e) = armed {
            self.ports.remove(key);
            return Err(e);
        }
        Ok(key)
    }

    pub(crate) fn remove(&mut self, key: Key) {
        let Some(port) = self.ports.remove(key) else { return };
        for key in port.conns {
            if let Some(mut conn) = self.conns.remove(key) {
                conn.counted.end(FlowEnd::Withdrawn);
                release_buffers(conn, &mut self.tools);
            }
        }
        self.resting.retain(|k| *k != key);
    }

    // ---- moving ---------------------------------------------------------------------------------

    pub(crate) fn event(&mut self, ctx: &mut Ctx, key: Key, side: Side, flags: EpollFlags) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let failed = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        match conn.phase {
            Phase::Lingering { .. } => return,
            Phase::Open => {}
            // A client that is reset while it waits needs no backend any more.
            _ if side == Side::Client && failed => {
                conn.counted.end(FlowEnd::ClientReset);
                return self.close(key, true);
            }
            Phase::Connecting { transparent } if side == Side::Backend => {
                let target = self.ports.get(conn.port).map(|port| port.service.target);
                let backend = conn.backend.as_ref();
                let outcome = if failed { backend.map(connect_outcome) } else { None };
                let pending = match outcome {
                    Some(None) => return,
                    Some(Some(outcome)) => outcome.err(),
                    None => None,
                };
                let own = |(backend, target)| refuse_self_connection(backend, target).err();
                let error = pending.or_else(|| backend.zip(target).and_then(own));
                match error {
                    Some(Errno::ECONNRESET) => conn.down.broken = true,
                    Some(e) => {
                        debug!("connect: {}", e.desc());
                        conn.counted.end(FlowEnd::of(e));
                        return self.connect_failed(ctx, key, transparent);
                    }
                    None => {}
                }
                conn.phase = Phase::Open;
                if let (Some(backend), Some(target)) = (&conn.backend, target) {
                    ctx.went_in(false, conn.port, backend, target, &mut conn.counted);
                }
            }
            _ => {}
        }
        let (from, to) = match side {
            Side::Client => (&mut conn.up, &mut conn.down),
            Side::Backend => (&mut conn.down, &mut conn.up),
        };
        let ending = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI;
        from.readable |= failed || flags.intersects(EpollFlags::EPOLLIN | ending);
        from.drain |= failed || flags.intersects(ending);
        from.urgent |= flags.contains(EpollFlags::EPOLLPRI);
        to.full &= !failed && !flags.contains(EpollFlags::EPOLLOUT);
        // Both directions have ended. If one of them did not by us, it was a reset, perhaps behind the orderly end of the
        // other, which is all that read(2) would tell.
        to.gone |= flags.contains(EpollFlags::EPOLLHUP);
        if conn.phase == Phase::Open {
            self.drive(ctx, key);
        }
    }

    /// Gives those that had more to do their next turn.
    pub(crate) fn run_ready(&mut self, ctx: &mut Ctx) {
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.queued = false;
                if conn.phase == Phase::Open {
                    self.drive(ctx, key);
                }
            }
        }
    }

    fn drive(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(backend) = &conn.backend else { return };
        let up = conn.up.pump(&conn.client, backend, &mut self.tools);
        settle(up, Side::Client, &mut conn.reset, backend, &mut conn.down, &mut self.tools);
        let down = conn.down.pump(backend, &conn.client, &mut self.tools);
        settle(down, Side::Backend, &mut conn.reset, &conn.client, &mut conn.up, &mut self.tools);
        conn.counted.up(conn.up.take_moved());
        conn.counted.down(conn.down.take_moved());
        if conn.up.done && conn.down.done {
            return self.finish(ctx, key);
        }
        let mut more = false;
        if conn.reset.is_some() {
            // A side that waits for us to read what nobody wants any more would not read the rest of the other's bytes.
            more = conn.up.done && conn.up.discard(&conn.client, &mut self.tools)
                || conn.down.done && conn.down.discard(backend, &mut self.tools);
        }
        if conn.reset.is_some() && conn.looked.is_none() {
            conn.looked = Some(conn.up.delivered + conn.down.delivered);
            ctx.timers.at(ctx.now + STALL_TIMEOUT, Timer::Linger(key));
        }
        let spliced = conn.up.spliced.max(conn.down.spliced);
        if spliced > HAND_OVER_BYTES && !std::mem::replace(&mut conn.bulk, true) {
            self.bulk.push(key);
        }
        let again =
            more || up == Outcome::Again || matches!(down, Outcome::Again | Outcome::SinkGone);
        if again && !std::mem::replace(&mut conn.queued, true) {
            self.ready.push_back(key);
        }
    }

    // ---- closing --------------------------------------------------------------------------------

    /// Both directions have ended.
    ///
    /// If one side was reset, the other side must be reset as well: an orderly end would tell it that it has received
    /// everything. But a reset makes the kernel drop what it has not delivered yet, so it waits until the living side
    /// has acknowledged all bytes, or acknowledges nothing for [`MAX_LINGER_LOOKS`] looks.
    fn finish(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let alive = match conn.reset {
            None => return self.close(key, false),
            Some(Side::Client) => conn.backend.as_ref(),
            Some(Side::Backend) => Some(&conn.client),
        };
        let held = alive.and_then(|s| sys::mmsg::unacknowledged(s.as_fd()).ok()).unwrap_or(0);
        let looks = match conn.phase {
            Phase::Lingering { held: before, looks } if before == held => looks + 1,
            _ => 0,
        };
        if held == 0 || looks > MAX_LINGER_LOOKS {
            return self.close(key, true);
        }
        conn.phase = Phase::Lingering { held, looks };
        ctx.timers.at(ctx.now + LINGER_INTERVAL, Timer::Linger(key));
    }

    /// Looks again at a connection of which one side was reset. While its bytes still move it may live on; if
    /// nothing was delivered for [`STALL_TIMEOUT`], it is closed.
    pub(crate) fn linger(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.phase != Phase::Open {
            return self.finish(ctx, key);
        }
        let delivered = conn.up.delivered + conn.down.delivered;
        if conn.looked.replace(delivered) == Some(delivered) {
            return self.close(key, true);
        }
        ctx.timers.at(ctx.now + STALL_TIMEOUT, Timer::Linger(key));
    }

    /// Resets connections of a port that may not go on.
    pub(crate) fn end_denied(&mut self, port: Key, judge: &Judge) {
        let Some(port) = self.ports.get(port) else { return };
        for key in port.conns.clone() {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            if let Some(rule) = conn.counted.opened_by().and_then(|of| judge.denied_by(&of)) {
                conn.counted.deny(rule);
                self.close(key, true);
            }
        }
    }

    pub(crate) fn close(&mut self, key: Key, abort: bool) {
        let Some(mut conn) = self.conns.remove(key) else { return };
        if let Some(end) = conn.end(abort) {
            conn.counted.end(end);
        }
        if abort {
            for sock in std::iter::once(&conn.client).chain(&conn.backend) {
                // Cannot fail on a TCP socket; if it does, the close is an ordinary one.
                let _ = sock.set_linger(Some(Duration::ZERO));
            }
        }
        self.unlist(&conn);
        release_buffers(conn, &mut self.tools);
    }

    /// Adds a connection to the table and to its port's list.
    fn insert(&mut self, mut conn: Conn) -> Option<Key> {
        let port = self.ports.get_mut(conn.port)?;
        conn.place = port.conns.len();
        let key = self.conns.insert(conn);
        port.conns.push(key);
        Some(key)
    }

    /// Takes a connection out of its port's list.
    fn unlist(&mut self, conn: &Conn) {
        if let Some(port) = self.ports.get_mut(conn.port) {
            port.conns.swap_remove(conn.place);
            if let Some(moved) = port.conns.get(conn.place)
                && let Some(moved) = self.conns.get_mut(*moved)
            {
                moved.place = conn.place;
            }
        }
    }
}

impl Conn {
    /// A connection that has no backend yet. [`Tcp::insert`] gives it its place.
    fn new(port: Key, client: Socket, counted: Counted, now: Instant) -> Self {
        Self {
            port,
            place: 0,
            client,
            peer: None,
            backend: None,
            phase: Phase::Waiting,
            failures: 0,
            keep_source: true,
            deadline: now,
            opening: false,
            queued: false,
            bulk: false,
            reset: None,
            looked: None,
            counted,
            up: Direction::default(),
            down: Direction::default(),
        }
    }

    /// How it ends if it is closed now; `None` if it was not open.
    fn end(&self, abort: bool) -> Option<FlowEnd> {
        match self.reset {
            _ if self.up.timed_out || self.down.timed_out => Some(FlowEnd::TimedOut),
            Some(Side::Client) => Some(FlowEnd::ClientReset),
            Some(Side::Backend) => Some(FlowEnd::ServerReset),
            None => (!abort).then_some(FlowEnd::Closed),
        }
    }
}

impl Port {
    fn new(id: u64, service: Service) -> Self {
        Self {
            id,
            listener: None,
            address: None,
            replaceable_congestion: false,
            service,
            conns: Vec::new(),
            budget: 1,
            last_wake: 0,
            resting: false,
        }
    }
}

/// What every connection's sockets are watched for, for their whole life.
const BOTH_WAYS: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLET);

/// Draws the consequences of one direction's outcome; `source` is the side it comes from, `sink` the
/// socket it goes to, `other` the opposite direction.
fn settle(
    outcome: Outcome,
    source: Side,
    reset: &mut Option<Side>,
    sink: &Socket,
    other: &mut Direction,
    tools: &mut Tools,
) {
    match outcome {
        Outcome::Wait | Outcome::Again => {}
        Outcome::Ended => {
            // When the other direction is done too, closing says the same.
            if !other.done {
                // ENOTCONN: it was reset meanwhile, which its own direction will notice.
                let _ = sink.shutdown(Shutdown::Write);
            }
        }
        Outcome::Broken => {
            reset.get_or_insert(source);
            // Nobody is left to receive the other direction.
            other.abandon(tools);
        }
        Outcome::SinkGone => {
            reset.get_or_insert(if source == Side::Client { Side::Backend } else { Side::Client });
            // What the sink sent before it went is still to be delivered.
            (other.readable, other.drain, other.broken) = (true, true, true);
        }
    }
}

fn release_buffers(mut conn: Conn, tools: &mut Tools) {
    conn.up.abandon(tools);
    conn.down.abandon(tools);
}
