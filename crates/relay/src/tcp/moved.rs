//! Connections on their way from the thread that serves the ports to one that only moves bytes.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::Socket;

use super::{BOTH_WAYS, Conn, Phase, Port, Side, Tcp};
use crate::half::Half;
use crate::reactor::{Ctx, Source};
use crate::slab::Key;

/// All there is of an open connection.
#[derive(Debug)]
pub(crate) struct Moved {
    client: Socket,
    backend: Socket,
    reset: Option<Side>,
    up: Half,
    down: Half,
}

impl Tcp {
    /// The streams that turned out to be bulk since the last call.
    pub(crate) fn take_bulk(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.bulk)
    }

    /// Gives up an open connection; the number of its port comes with it.
    pub(crate) fn detach(&mut self, ctx: &Ctx, key: Key) -> Option<(u64, Moved)> {
        let conn = self.conns.get(key)?;
        let id = self.ports.get(conn.port)?.id;
        let backend = conn.backend.as_ref().filter(|_| conn.phase == Phase::Open)?;
        // Events that are under way for it find no connection of this key any more.
        ctx.epoll.delete(&conn.client).ok()?;
        ctx.epoll.delete(backend).ok()?;
        let mut conn = self.conns.remove(key)?;
        self.unlist(&conn);
        for half in [&conn.up, &conn.down] {
            if half.has_pipe() {
                self.tools.pipes.give_away();
            }
        }
        let backend = conn.backend.take()?;
        let Conn { client, reset, up, down, .. } = conn;
        Some((id, Moved { client, backend, reset, up, down }))
    }

    /// A port that this thread does not serve, for the connections that it adopts.
    pub(crate) fn add_unserved(&mut self, id: u64) -> Key {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        self.ports.insert(Port::new(id, None, nowhere))
    }

    /// Takes over a connection.
    pub(crate) fn adopt(&mut self, ctx: &mut Ctx, port_key: Key, moved: Moved) {
        let Moved { client, backend, reset, up, down } = moved;
        for half in [&up, &down] {
            if half.has_pipe() {
                self.tools.pipes.adopt();
            }
        }
        let Some(port) = self.ports.get_mut(port_key) else { return };
        let key = self.conns.insert(Conn {
            port: port_key,
            place: port.conns.len(),
            client,
            peer: None,
            backend: Some(backend),
            phase: Phase::Open,
            failures: 0,
            keep_source: false,
            deadline: ctx.now,
            opening: false,
            queued: false,
            bulk: true,
            reset,
            up,
            down,
        });
        port.conns.push(key);
        let Some(conn) = self.conns.get(key) else { return };
        let Some(backend) = &conn.backend else { return };
        // What is ready already is reported at once.
        let watched = ctx
            .watch(&conn.client, Source::Client, key, BOTH_WAYS)
            .and_then(|()| ctx.watch(backend, Source::Backend, key, BOTH_WAYS));
        match watched {
            Ok(()) => self.drive(ctx, key),
            Err(_) => self.close(key, true),
        }
    }
}
