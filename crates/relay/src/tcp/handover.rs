//! Connections on their way from the thread that serves the ports to one that only moves bytes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use nix::sys::epoll::EpollEvent;
use socket2::Socket;

use super::{BOTH_WAYS, Conn, Phase, Port, Tcp};
use crate::ctx::{Ctx, Source};
use crate::service::Service;
use crate::slab::Key;
use crate::traffic::Counted;

/// An open connection that is in no table.
#[derive(Debug)]
pub(crate) struct Moved(Conn);

impl Moved {
    /// Two connected sockets between which nothing has moved yet.
    pub(crate) fn new(client: Socket, backend: Socket, counted: Counted) -> Self {
        let mut conn = Conn::new(Key::NONE, client, counted, Instant::now());
        (conn.backend, conn.phase, conn.keep_source) = (Some(backend), Phase::Open, false);
        Self(conn)
    }
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
        // What the tables of this thread say of it.
        (conn.opening, conn.queued, conn.looked) = (false, false, None);
        Some((id, Moved(conn)))
    }

    /// A port that this thread does not serve, for the connections that it adopts.
    pub(crate) fn add_unserved(&mut self, id: u64) -> Key {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        self.ports.insert(Port::new(id, Service::to(nowhere)))
    }

    pub(crate) fn adopt(&mut self, ctx: &mut Ctx, port: Key, moved: Moved) {
        let Some(key) = self.insert_open(port, moved) else { return };
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

    /// Takes two connected sockets, of which epoll knows the second one by another name.
    pub(crate) fn join(
        &mut self,
        ctx: &mut Ctx,
        port: Key,
        client: Socket,
        backend: Socket,
        counted: Counted,
    ) -> io::Result<()> {
        let pair = Moved::new(client, backend, counted);
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let key = self.insert_open(port, pair).ok_or_else(gone)?;
        let conn = self.conns.get(key).ok_or_else(gone)?;
        let backend = conn.backend.as_ref().ok_or_else(gone)?;
        let added = ctx.watch(&conn.client, Source::Client, key, BOTH_WAYS).and_then(|()| {
            let mut event = EpollEvent::new(BOTH_WAYS, Source::Backend.token(key));
            Ok(ctx.epoll.modify(backend, &mut event)?)
        });
        if added.is_err() {
            self.close(key, true);
        }
        added
    }

    /// Adds an open connection to a port.
    fn insert_open(&mut self, port: Key, Moved(conn): Moved) -> Option<Key> {
        self.insert(Conn { port, ..conn })
    }
}
