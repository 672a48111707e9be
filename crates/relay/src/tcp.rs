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
//! A refused connect is tried ten times within 0.18 s, as upstream does: a container's port is often
//! published a moment before its server listens. The client is then reset, so that it knows.
//!
//! When descriptors run out a listener rests: its clients wait in the backlog, and it is armed again by
//! timer. A port is never lost.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use socket2::{SockAddr, Socket};
use tracing::{debug, warn};

use crate::engine::Transparent;
use crate::factory::{Kind, tune_tcp};
use crate::half::{Half, Outcome, Tools};
use crate::pool::{Taken, Waiter};
use crate::reactor::{Ctx, Source, Timer};
use crate::slab::{Key, Slab};

/// Connects tried per client, and the pause after the nth failure: n × this, counted from zero.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);
/// The most connections accepted from one listener before others get their turn.
const ACCEPTS: u32 = 32;
/// How long a listener rests when descriptors or memory have run out.
const REST: Duration = Duration::from_millis(100);
/// How often connects are checked against their deadline.
const SWEEP: Duration = Duration::from_millis(100);
/// How long a connection may wait for a socket of the pool.
const POOL_WAIT: Duration = Duration::from_secs(5);
/// A reset waits while the other side still takes bytes, looking this often …
const LINGER_STEP: Duration = Duration::from_millis(20);
/// … and gives up after so many looks without progress (5 s).
const LINGER_LOOKS: u32 = 250;
/// Warnings about exhausted descriptors are at least this far apart.
const WARN_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Port {
    listener: Socket,
    target: SocketAddr,
    conns: Vec<Key>,
    /// How many to accept per wake; grows while wakes follow one another.
    budget: u32,
    last_wake: u64,
    resting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Connecting { transparent: bool },
    Backoff,
    Open,
    Lingering { held: usize, looks: u32 },
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
    reset: Option<Side>,
    /// Client to backend, and back.
    up: Half,
    down: Half,
}

#[derive(Debug)]
pub(crate) struct Tcp {
    ports: Slab<Port>,
    conns: Slab<Conn>,
    tools: Tools,
    /// Connections that had their turn and could go on.
    ready: VecDeque<Key>,
    /// Connections with a deadline.
    opening: Vec<Key>,
    resting: Vec<Key>,
    warned: Option<Instant>,
}

impl Tcp {
    pub(crate) fn new() -> Self {
        Self {
            ports: Slab::new(),
            conns: Slab::new(),
            tools: Tools::new(),
            ready: VecDeque::new(),
            opening: Vec::new(),
            resting: Vec::new(),
            warned: None,
        }
    }

    /// Descriptors held.
    pub(crate) fn descriptors(&self) -> usize {
        self.ports.len() + 2 * self.conns.len() + self.tools.pipes.descriptors()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn trim(&mut self) -> bool {
        self.tools.pipes.trim()
    }

    pub(crate) fn has_slack(&self) -> bool {
        self.tools.pipes.has_slack()
    }

    pub(crate) fn add(&mut self, ctx: &mut Ctx, listener: OwnedFd, target: SocketAddr) -> io::Result<Key> {
        let listener = Socket::from(listener);
        listener.set_nonblocking(true)?;
        // Inherited by every accepted socket.
        tune_tcp(&listener)?;
        ctx.pool.prepare(kind_for(target));
        let (conns, budget, last_wake) = (Vec::new(), 1, 0);
        let key = self.ports.insert(Port { listener, target, conns, budget, last_wake, resting: false });
        let port = self.ports.get(key).ok_or(io::ErrorKind::NotFound)?;
        let armed = ctx.watch(&port.listener, Source::TcpListener, key, EpollFlags::EPOLLIN);
        if let Err(e) = armed {
            self.ports.remove(key);
            return Err(e);
        }
        Ok(key)
    }

    pub(crate) fn remove(&mut self, key: Key) {
        let Some(port) = self.ports.remove(key) else { return };
        for key in port.conns {
            if let Some(conn) = self.conns.remove(key) {
                discard(conn, &mut self.tools);
            }
        }
        self.resting.retain(|k| *k != key);
    }

    // ---- accepting ------------------------------------------------------------------------------

    pub(crate) fn accept(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(port) = self.ports.get_mut(key) else { return };
        if port.resting {
            return;
        }
        // Most wakes bring one connection: a second accept(2) would only say EAGAIN.
        port.budget = if port.last_wake + 1 >= ctx.wakes { (port.budget * 2).min(ACCEPTS) } else { 1 };
        port.last_wake = ctx.wakes;
        for _ in 0..port.budget {
            let Some(port) = self.ports.get_mut(key) else { return };
            if ctx.room < 2 {
                return self.rest(ctx, key, "the limit of open files is near");
            }
            let flags = nix::libc::SOCK_NONBLOCK | nix::libc::SOCK_CLOEXEC;
            match port.listener.accept4(flags) {
                Ok((client, peer)) => {
                    ctx.room -= 2;
                    self.open(ctx, key, client, &peer);
                }
                Err(e) => match e.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw) {
                    Errno::EAGAIN => {
                        port.budget = 1;
                        return;
                    }
                    // The client has gone again, or its network has: accept(2) says to go on.
                    Errno::ECONNABORTED
                    | Errno::EINTR
                    | Errno::EPROTO
                    | Errno::ENETDOWN
                    | Errno::ENETUNREACH
                    | Errno::EHOSTDOWN
                    | Errno::EHOSTUNREACH
                    | Errno::ENONET
                    | Errno::ENOPROTOOPT
                    | Errno::EOPNOTSUPP
                    | Errno::EPERM => {}
                    errno => return self.rest(ctx, key, errno.desc()),
                },
            }
        }
    }

    /// Stops listening for a while; the backlog keeps the clients.
    fn rest(&mut self, ctx: &mut Ctx, key: Key, reason: &str) {
        let Some(port) = self.ports.get_mut(key) else { return };
        if port.resting || ctx.rearm(&port.listener, Source::TcpListener, key, EpollFlags::empty()).is_err() {
            return;
        }
        port.resting = true;
        if self.resting.is_empty() {
            ctx.timers.at(ctx.now + REST, Timer::Rearm);
        }
        self.resting.push(key);
        if self.warned.is_none_or(|at| ctx.now - at >= WARN_EVERY) {
            self.warned = Some(ctx.now);
            warn!(
                connections = self.conns.len(),
                "published port {} accepts no connections for the moment: {reason}\nhint: raise the limit of open files (ulimit -n, LimitNOFILE=)",
                port.listener.local_addr().ok().and_then(|a| a.as_socket()).map_or(0, |a| a.port()),
            );
        }
    }

    pub(crate) fn rearm(&mut self, ctx: &mut Ctx) {
        if ctx.room < 2 {
            return ctx.timers.at(ctx.now + REST, Timer::Rearm);
        }
        let mut failed = Vec::new();
        for key in std::mem::take(&mut self.resting) {
            let Some(port) = self.ports.get_mut(key) else { continue };
            if ctx.rearm(&port.listener, Source::TcpListener, key, EpollFlags::EPOLLIN).is_ok() {
                (port.resting, port.budget) = (false, 1);
            } else {
                failed.push(key);
            }
        }
        if !failed.is_empty() {
            self.resting = failed;
            ctx.timers.at(ctx.now + REST, Timer::Rearm);
        }
    }

    fn open(&mut self, ctx: &mut Ctx, port_key: Key, client: Socket, peer: &SockAddr) {
        let Some(port) = self.ports.get_mut(port_key) else { return };
        let key = self.conns.insert(Conn {
            port: port_key,
            place: port.conns.len(),
            client,
            peer: peer.as_socket(),
            backend: None,
            phase: Phase::Waiting,
            failures: 0,
            keep_source: true,
            deadline: ctx.now,
            opening: false,
            queued: false,
            reset: None,
            up: Half::new(),
            down: Half::new(),
        });
        port.conns.push(key);
        let Some(conn) = self.conns.get(key) else { return };
        if ctx.watch(&conn.client, Source::Client, key, BOTH_WAYS).is_err() {
            return self.close(key, true);
        }
        self.connect(ctx, key);
    }

    // ---- connecting -----------------------------------------------------------------------------

    /// Takes a socket and connects it, or queues for one.
    pub(crate) fn connect(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let Some(port) = self.ports.get(conn.port) else { return };
        match ctx.pool.take(kind_for(port.target), Waiter::Conn(key)) {
            Taken::Ready(sock) => self.connect_with(ctx, key, sock),
            Taken::Later => self.expect(ctx, key, Phase::Waiting, POOL_WAIT),
            Taken::Never => self.close(key, true),
        }
    }

    /// A socket from the pool for a connection that waited; false when it is not wanted any more.
    pub(crate) fn wants_socket(&self, key: Key) -> bool {
        self.conns.get(key).is_some_and(|conn| conn.phase == Phase::Waiting && conn.backend.is_none())
    }

    pub(crate) fn connect_with(&mut self, ctx: &mut Ctx, key: Key, sock: Socket) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(port) = self.ports.get(conn.port) else { return };
        let source = match ctx.opts.transparent {
            Transparent::Mark(mark) if conn.keep_source => {
                conn.peer.and_then(|peer| kept_source(peer, port.target)).map(|source| (source, mark))
            }
            _ => None,
        };
        let transparent = source.is_some();
        if let Some((source, mark)) = source
            && let Err(e) = keep_source(&sock, source, mark)
        {
            debug!("cannot keep the source address {source}: {e}");
            conn.keep_source = false;
            // The half-prepared socket carries a mark; an ordinary one must not.
            drop(sock);
            return self.connect(ctx, key);
        }
        match sock.connect(&port.target.into()) {
            Err(e) if e.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                debug!("connect to {}: {e}", port.target);
                drop(sock);
                return self.connect_failed(ctx, key, transparent);
            }
            _ => {}
        }
        if ctx.watch(&sock, Source::Backend, key, BOTH_WAYS).is_err() {
            return self.close(key, true);
        }
        conn.backend = Some(sock);
        let limit = if transparent { ctx.opts.transparent_timeout } else { ctx.opts.connect_timeout };
        self.expect(ctx, key, Phase::Connecting { transparent }, limit);
    }

    fn expect(&mut self, ctx: &mut Ctx, key: Key, phase: Phase, limit: Duration) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        (conn.phase, conn.deadline) = (phase, ctx.now + limit);
        if !std::mem::replace(&mut conn.opening, true) {
            if self.opening.is_empty() {
                ctx.timers.at(ctx.now + SWEEP, Timer::Sweep);
            }
            self.opening.push(key);
        }
    }

    fn connect_failed(&mut self, ctx: &mut Ctx, key: Key, transparent: bool) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.backend = None;
        (conn.up, conn.down.readable, conn.down.drain) = (renewed(&conn.up), false, false);
        conn.phase = Phase::Waiting;
        if transparent {
            conn.keep_source = false;
            return self.connect(ctx, key);
        }
        let pause = PAUSE * conn.failures;
        conn.failures += 1;
        if conn.failures >= ATTEMPTS {
            return self.close(key, true);
        }
        conn.keep_source = true;
        conn.phase = Phase::Backoff;
        ctx.timers.at(ctx.now + pause, Timer::Retry(key));
    }

    pub(crate) fn retry(&mut self, ctx: &mut Ctx, key: Key) {
        if self.conns.get(key).is_some_and(|conn| conn.phase == Phase::Backoff) {
            self.connect(ctx, key);
        }
    }

    /// Ends waits that took too long.
    pub(crate) fn sweep(&mut self, ctx: &mut Ctx) {
        for key in std::mem::take(&mut self.opening) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            match conn.phase {
                Phase::Waiting | Phase::Connecting { .. } if conn.deadline > ctx.now => {
                    self.opening.push(key);
                    continue;
                }
                _ => conn.opening = false,
            }
            match conn.phase {
                Phase::Connecting { transparent: true } => self.connect_failed(ctx, key, true),
                Phase::Waiting | Phase::Connecting { .. } => self.close(key, true),
                Phase::Backoff | Phase::Open | Phase::Lingering { .. } => {}
            }
        }
        if !self.opening.is_empty() {
            ctx.timers.at(ctx.now + SWEEP, Timer::Sweep);
        }
    }

    // ---- moving ---------------------------------------------------------------------------------

    pub(crate) fn event(&mut self, ctx: &mut Ctx, key: Key, side: Side, flags: EpollFlags) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let failed = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        match conn.phase {
            Phase::Lingering { .. } => return,
            Phase::Open => {}
            // A client that is reset while it waits needs no backend any more.
            _ if side == Side::Client && failed => return self.close(key, true),
            Phase::Connecting { transparent } if side == Side::Backend => {
                let error = if failed { conn.backend.as_ref().and_then(pending_error) } else { None };
                match error {
                    Some(Errno::ECONNRESET) => conn.down.broken = true,
                    Some(e) => {
                        debug!("connect: {}", e.desc());
                        return self.connect_failed(ctx, key, transparent);
                    }
                    None => {}
                }
                conn.phase = Phase::Open;
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
        to.writable |= failed || flags.contains(EpollFlags::EPOLLOUT);
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
        if conn.up.is_done() && conn.down.is_done() {
            return self.finish(ctx, key);
        }
        let again = up == Outcome::Again || matches!(down, Outcome::Again | Outcome::SinkGone);
        if again && !std::mem::replace(&mut conn.queued, true) {
            self.ready.push_back(key);
        }
    }

    // ---- closing --------------------------------------------------------------------------------

    /// Both directions have ended.
    fn finish(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let alive = match conn.reset {
            None => return self.close(key, false),
            Some(Side::Client) => conn.backend.as_ref(),
            Some(Side::Backend) => Some(&conn.client),
        };
        // A reset overtakes what the kernel has not delivered yet, so it has to wait.
        let held = alive.and_then(|s| sys::mmsg::unacknowledged(s.as_fd()).ok()).unwrap_or(0);
        let looks = match conn.phase {
            Phase::Lingering { held: before, looks } if before == held => looks + 1,
            _ => 0,
        };
        if held == 0 || looks > LINGER_LOOKS {
            return self.close(key, true);
        }
        conn.phase = Phase::Lingering { held, looks };
        ctx.timers.at(ctx.now + LINGER_STEP, Timer::Linger(key));
    }

    pub(crate) fn linger(&mut self, ctx: &mut Ctx, key: Key) {
        self.finish(ctx, key);
    }

    /// Closes one connection, with resets if `abort`.
    pub(crate) fn close(&mut self, key: Key, abort: bool) {
        let Some(conn) = self.conns.remove(key) else { return };
        if abort {
            for sock in std::iter::once(&conn.client).chain(&conn.backend) {
                // Cannot fail on a TCP socket; if it does, the close is an ordinary one.
                let _ = sock.set_linger(Some(Duration::ZERO));
            }
        }
        if let Some(port) = self.ports.get_mut(conn.port) {
            port.conns.swap_remove(conn.place);
            if let Some(moved) = port.conns.get(conn.place)
                && let Some(moved) = self.conns.get_mut(*moved)
            {
                moved.place = conn.place;
            }
        }
        discard(conn, &mut self.tools);
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
    other: &mut Half,
    tools: &mut Tools,
) {
    match outcome {
        Outcome::Wait | Outcome::Again => {}
        Outcome::Ended => {
            // When the other direction is done too, closing says the same.
            if !other.is_done() {
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

fn discard(mut conn: Conn, tools: &mut Tools) {
    conn.up.abandon(tools);
    conn.down.abandon(tools);
}

/// The direction to a new backend: nothing has moved yet, but the client may have sent something.
fn renewed(up: &Half) -> Half {
    let mut half = Half::new();
    (half.readable, half.drain) = (up.readable, up.drain);
    half
}

fn pending_error(sock: &Socket) -> Option<Errno> {
    let error = sock.take_error().ok().flatten()?;
    error.raw_os_error().map(Errno::from_raw)
}

fn kind_for(target: SocketAddr) -> Kind {
    if target.is_ipv4() { Kind::Tcp4 } else { Kind::Tcp6 }
}

/// The address to connect from so that `target` sees the client, if that makes sense: a client of the
/// same family, elsewhere than on this host's loopback, with an address that means the same there.
fn kept_source(peer: SocketAddr, target: SocketAddr) -> Option<SocketAddr> {
    let ip = peer.ip().to_canonical();
    let scoped = matches!(ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
    let fits = ip.is_ipv4() == target.is_ipv4() && !ip.is_loopback() && !scoped;
    fits.then(|| SocketAddr::new(ip, peer.port()))
}

/// Binds a socket to an address that is not ours (ip(7), `IP_TRANSPARENT`), marked so that the
/// namespace's rules bring the answers back to it.
fn keep_source(sock: &Socket, source: SocketAddr, mark: u32) -> io::Result<()> {
    if source.is_ipv4() {
        sock.set_ip_transparent_v4(true)?;
    } else {
        sock.set_ip_transparent_v6(true)?;
    }
    sock.set_mark(mark)?;
    // One client port may talk to several published ports.
    sock.set_reuse_address(true)?;
    sock.bind(&source.into())
}

impl Ctx {
    /// Registers a socket with epoll.
    pub(crate) fn watch(&self, sock: &Socket, source: Source, key: Key, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.add(sock, EpollEvent::new(flags, source.token(key)))?)
    }

    fn rearm(&self, sock: &Socket, source: Source, key: Key, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.modify(sock, &mut EpollEvent::new(flags, source.token(key)))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_kept_only_where_they_mean_the_same() {
        for (peer, target, want) in [
            ("192.0.2.1:7", "127.0.0.1:80", Some("192.0.2.1:7")),
            ("[::ffff:192.0.2.1]:7", "127.0.0.1:80", Some("192.0.2.1:7")),
            ("[2001:db8::1]:7", "[::1]:80", Some("[2001:db8::1]:7")),
            ("[2001:db8::1]:7", "127.0.0.1:80", None),
            ("192.0.2.1:7", "[::1]:80", None),
            ("127.0.0.9:7", "127.0.0.1:80", None),
            ("[::ffff:127.0.0.1]:7", "127.0.0.1:80", None),
            ("[::1]:7", "[::1]:80", None),
            ("[fe80::1]:7", "[::1]:80", None),
        ] {
            let got = kept_source(peer.parse().unwrap(), target.parse().unwrap());
            assert_eq!(got, want.map(|w| w.parse().unwrap()), "{peer} {target}");
        }
    }
}
