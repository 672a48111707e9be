//! Taking connections from listeners, and leaving them in the backlog when descriptors run out: a
//! listener rests then, and is armed again by timer. A port is never lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use socket2::{SockAddr, Socket};
use tracing::warn;

use super::{BOTH_WAYS, Conn, Tcp};
use crate::congestion;
use crate::ctx::{Ctx, Source, Timer};
use crate::flow_log::Transport;
use crate::room::Use;
use crate::slab::Key;
use crate::traffic::Counted;

/// The most connections accepted from one listener before others get their turn.
const MAX_ACCEPTS_PER_WAKE: u32 = 32;
/// How long a listener rests when descriptors or memory have run out.
const LISTENER_REST_INTERVAL: Duration = Duration::from_millis(100);

impl Tcp {
    pub(crate) fn accept(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(port) = self.ports.get_mut(key) else { return };
        if port.resting {
            return;
        }
        // Most wakes bring one connection: a second accept(2) would only say EAGAIN.
        port.budget = if port.last_wake + 1 >= ctx.wakes {
            (port.budget * 2).min(MAX_ACCEPTS_PER_WAKE)
        } else {
            1
        };
        port.last_wake = ctx.wakes;
        for _ in 0..port.budget {
            let Some(port) = self.ports.get_mut(key) else { return };
            if !ctx.room.fits(Use::In, 2) {
                return self.rest(ctx, key, "the limit of open files is nearly reached");
            }
            let flags = nix::libc::SOCK_NONBLOCK | nix::libc::SOCK_CLOEXEC;
            let Some(listener) = &port.listener else { return };
            match listener.accept4(flags) {
                Ok((client, peer)) => {
                    let peer_ip = peer.as_socket().map(|peer| peer.ip());
                    if peer_ip.is_some_and(|ip| !port.service.allowed.allows(ip)) {
                        port.service.traffic.refuse();
                        ctx.log_denied(Transport::Tcp, peer.as_socket(), port.address);
                        // A reset, as from a port that is closed.
                        let _ = client.set_linger(Some(Duration::ZERO));
                        continue;
                    }
                    let _ = ctx.room.take(Use::In, 2);
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
        let Some(listener) = &port.listener else { return };
        if port.resting
            || rearm(ctx, listener, Source::TcpListener, key, EpollFlags::empty()).is_err()
        {
            return;
        }
        port.resting = true;
        if self.resting.is_empty() {
            ctx.timers.at(ctx.now + LISTENER_REST_INTERVAL, Timer::Rearm);
        }
        self.resting.push(key);
        if ctx.room.worth_saying(Use::In, ctx.now) {
            warn!(
                connections = self.conns.len(),
                limit = ctx.room.shares.limit,
                "published port {} temporarily accepts no connections: {reason}\nhint: raise the limit of open files (ulimit -n, LimitNOFILE=)",
                listener.local_addr().ok().and_then(|a| a.as_socket()).map_or(0, |a| a.port()),
            );
        }
    }

    pub(crate) fn rearm(&mut self, ctx: &mut Ctx) {
        if !ctx.room.fits(Use::In, 2) {
            return ctx.timers.at(ctx.now + LISTENER_REST_INTERVAL, Timer::Rearm);
        }
        let mut failed = Vec::new();
        for key in std::mem::take(&mut self.resting) {
            let Some(port) = self.ports.get_mut(key) else { continue };
            let Some(listener) = &port.listener else { continue };
            if rearm(ctx, listener, Source::TcpListener, key, EpollFlags::EPOLLIN).is_ok() {
                (port.resting, port.budget) = (false, 1);
            } else {
                failed.push(key);
            }
        }
        if !failed.is_empty() {
            self.resting = failed;
            ctx.timers.at(ctx.now + LISTENER_REST_INTERVAL, Timer::Rearm);
        }
    }

    fn open(&mut self, ctx: &mut Ctx, port_key: Key, client: Socket, peer: &SockAddr) {
        let Some(port) = self.ports.get(port_key) else { return };
        let counted = Counted::open(Arc::clone(&port.service.traffic));
        let counted = ctx.logged(counted, Transport::Tcp, peer.as_socket(), port.address);
        let mut conn = Conn::new(port_key, client, counted, ctx.now);
        conn.peer = peer.as_socket();
        let Some(key) = self.insert(conn) else { return };
        let Some(port) = self.ports.get(port_key) else { return };
        let Some(conn) = self.conns.get(key) else { return };
        if port.replaceable_congestion
            && let Some(peer) = conn.peer
        {
            congestion::use_local_towards(&conn.client, peer);
        }
        if ctx.watch(&conn.client, Source::Client, key, BOTH_WAYS).is_err() {
            return self.close(key, true);
        }
        self.connect(ctx, key);
    }
}

fn rearm(ctx: &Ctx, sock: &Socket, source: Source, key: Key, flags: EpollFlags) -> io::Result<()> {
    Ok(ctx.epoll.modify(sock, &mut EpollEvent::new(flags, source.token(key)))?)
}
