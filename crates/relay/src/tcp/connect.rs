//! From an accepted client to a connected backend.
//!
//! A refused connect is tried ten times within 0.18 s, as upstream does: a container's port is often
//! published a moment before its server listens. The client is then reset, so that it knows.
//!
//! A connection that keeps its client's address is tried first where that makes sense; any failure of
//! that falls back to an ordinary one, which is what the client is judged by.

use std::time::Duration;

use nix::errno::Errno;
use socket2::Socket;
use tracing::debug;

use super::{BOTH_WAYS, Phase, Tcp};
use crate::client_address::{keep_source, make_transparent};
use crate::ctx::{Ctx, Source, Timer};
use crate::factory::SocketKind;
use crate::flow_log::FlowEnd;
use crate::options::Transparent;
use crate::pool::{Taken, Waiter};
use crate::slab::Key;

/// Connects tried per client, and the pause after the nth failure: n × this, counted from zero.
const MAX_CONNECT_ATTEMPTS: u32 = 10;
const CONNECT_RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// How often connects are checked against their deadline.
const DEADLINE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a connection may wait for the namespace to be armed.
const ARM_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection may wait for a socket of the pool.
const POOL_SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

impl Tcp {
    pub(crate) fn connect(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let Some(port) = self.ports.get(conn.port) else { return };
        if matches!(ctx.opts.transparent, Transparent::OnDemand(_))
            && conn.keep_source
            && conn
                .peer
                .is_some_and(|peer| ctx.opts.kept_source(peer, port.service.target).is_some())
        {
            return self.wait_armed(ctx, key);
        }
        match ctx.pool.take(SocketKind::tcp(port.service.target.is_ipv4()), Waiter::Conn(key)) {
            Taken::Ready(sock) => self.connect_with(ctx, key, sock),
            Taken::Later => self.expect(ctx, key, Phase::Waiting, POOL_SOCKET_TIMEOUT),
            Taken::Never => self.close(key, true),
        }
    }

    /// The first client whose address could be kept has the namespace armed; all of them wait for that.
    fn wait_armed(&mut self, ctx: &mut Ctx, key: Key) {
        let first = self.arming.is_none();
        self.arming.get_or_insert_default().push(key);
        self.expect(ctx, key, Phase::Arming, ARM_TIMEOUT);
        if first && !ctx.pool.arm() {
            self.armed(ctx, false);
        }
    }

    pub(crate) fn armed(&mut self, ctx: &mut Ctx, armed: bool) {
        let Transparent::OnDemand(mark) = ctx.opts.transparent else { return };
        let Some(arming) = self.arming.take() else { return };
        ctx.opts.transparent = if armed { Transparent::Mark(mark) } else { Transparent::Off };
        for key in arming {
            if self.conns.get(key).is_some_and(|conn| conn.phase == Phase::Arming) {
                self.connect(ctx, key);
            }
        }
    }

    /// A socket from the pool for a connection that waited; false when it is not wanted any more.
    pub(crate) fn wants_socket(&self, key: Key) -> bool {
        self.conns
            .get(key)
            .is_some_and(|conn| conn.phase == Phase::Waiting && conn.backend.is_none())
    }

    pub(crate) fn connect_with(&mut self, ctx: &mut Ctx, key: Key, sock: Socket) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(port) = self.ports.get(conn.port) else { return };
        let source = match ctx.opts.transparent {
            Transparent::Mark(mark) if conn.keep_source => conn
                .peer
                .and_then(|peer| ctx.opts.kept_source(peer, port.service.target))
                .map(|source| (source, mark)),
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
        if ctx.opts.tproxy
            && !transparent
            && let Err(e) = make_transparent(&sock, port.service.target.is_ipv4())
        {
            debug!("replies may be misrouted: {e}");
        }
        match sock.connect(&port.service.target.into()) {
            Err(e) if e.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                debug!("connect to {}: {e}", port.service.target);
                let error = e.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
                conn.counted.end(FlowEnd::of(error));
                drop(sock);
                return self.connect_failed(ctx, key, transparent);
            }
            _ => {}
        }
        if ctx.watch(&sock, Source::Backend, key, BOTH_WAYS).is_err() {
            return self.close(key, true);
        }
        conn.backend = Some(sock);
        let limit =
            if transparent { ctx.opts.transparent_timeout } else { ctx.opts.connect_timeout };
        self.expect(ctx, key, Phase::Connecting { transparent }, limit);
    }

    fn expect(&mut self, ctx: &mut Ctx, key: Key, phase: Phase, limit: Duration) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        (conn.phase, conn.deadline) = (phase, ctx.now + limit);
        if !std::mem::replace(&mut conn.opening, true) {
            if self.opening.is_empty() {
                ctx.timers.at(ctx.now + DEADLINE_CHECK_INTERVAL, Timer::Sweep);
            }
            self.opening.push(key);
        }
    }

    pub(super) fn connect_failed(&mut self, ctx: &mut Ctx, key: Key, transparent: bool) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let backend = conn.backend.take();
        (conn.up, conn.down.readable, conn.down.drain) = (conn.up.renewed(), false, false);
        conn.phase = Phase::Waiting;
        if transparent {
            conn.keep_source = false;
            return self.connect(ctx, key);
        }
        let pause = CONNECT_RETRY_INTERVAL * conn.failures;
        conn.failures += 1;
        if conn.failures >= MAX_CONNECT_ATTEMPTS {
            conn.backend = backend;
            return self.give_up(ctx, key);
        }
        conn.keep_source = true;
        conn.phase = Phase::Backoff;
        ctx.timers.at(ctx.now + pause, Timer::Retry(key));
    }

    /// Ends a connection that has found no server.
    fn give_up(&mut self, ctx: &mut Ctx, key: Key) {
        if let Some(conn) = self.conns.get_mut(key)
            && let Some(port) = self.ports.get(conn.port)
        {
            if let Some(backend) = &conn.backend {
                ctx.went_in(false, conn.port, backend, port.service.target, &mut conn.counted);
            }
            conn.counted.fail();
        }
        self.close(key, true);
    }

    pub(crate) fn retry(&mut self, ctx: &mut Ctx, key: Key) {
        if self.conns.get(key).is_some_and(|conn| conn.phase == Phase::Backoff) {
            self.connect(ctx, key);
        }
    }

    pub(crate) fn sweep(&mut self, ctx: &mut Ctx) {
        for key in std::mem::take(&mut self.opening) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            match conn.phase {
                Phase::Arming | Phase::Waiting | Phase::Connecting { .. }
                    if conn.deadline > ctx.now =>
                {
                    self.opening.push(key);
                    continue;
                }
                _ => conn.opening = false,
            }
            match conn.phase {
                Phase::Arming => {
                    conn.keep_source = false;
                    self.connect(ctx, key);
                }
                Phase::Connecting { transparent: true } => self.connect_failed(ctx, key, true),
                Phase::Connecting { .. } => {
                    conn.counted.end(FlowEnd::TimedOut);
                    self.give_up(ctx, key);
                }
                Phase::Waiting => self.give_up(ctx, key),
                Phase::Backoff | Phase::Open | Phase::Lingering { .. } => {}
            }
        }
        if !self.opening.is_empty() {
            ctx.timers.at(ctx.now + DEADLINE_CHECK_INTERVAL, Timer::Sweep);
        }
    }
}
