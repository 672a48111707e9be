//! Code that runs inside the event loop of the thread "ports", for programs whose connections do not begin at a published
//! port.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use budget::Shares;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use socket2::Socket;

use crate::ctx::Ctx;
use crate::factory::SocketKind;
use crate::inbound::Inbound;
use crate::judge::Judge;
use crate::pool::{Taken, Waiter};
use crate::room::{Held, Use};
use crate::slab::Key;
use crate::tcp::Tcp;
use crate::traffic::Counted;

/// The number of the port that all connections of an event handler belong to.
pub(crate) const OUTBOUND: u64 = u64::MAX;

/// Shares the thread of the ports, its descriptors and its sockets. No method may block.
pub trait EventHandler: Send {
    /// Called once, in the thread, before everything else. An error ends the thread.
    ///
    /// # Errors
    /// What keeps the event handler from working at all.
    fn start(&mut self, event_loop: &mut EventLoop) -> io::Result<()>;

    /// A descriptor of the event handler has something to say.
    fn event(&mut self, event_loop: &mut EventLoop, tag: Tag, flags: EpollFlags);

    /// A socket of the namespace that [`EventLoop::datagram_socket`] promised; `None` if there will be none.
    fn socket(&mut self, event_loop: &mut EventLoop, key: Key, socket: Option<Socket>);

    /// A connection or flow has gone from a published port into the namespace.
    fn inbound(&mut self, event_loop: &mut EventLoop, inbound: Inbound);

    /// Something has changed for which [`crate::Engine::change`] was called. Nothing to do for most.
    fn changed(&mut self, event_loop: &mut EventLoop) {
        let _ = event_loop;
    }

    /// Called after each batch of events, and when [`EventHandler::wake_at`] has come.
    fn turn(&mut self, event_loop: &mut EventLoop);

    /// When [`EventHandler::turn`] has to be called at the latest.
    fn wake_at(&self) -> Option<Instant>;

    /// Descriptors held. A connection that is being made holds two, one of which will be its other end's.
    fn held(&self) -> Held;

    /// Ends UDP flows, the least useful first, until so many descriptors are free.
    fn give_way(&mut self, event_loop: &mut EventLoop, count: usize);
}

/// What an event handler calls one of its descriptors: a kind of its own choice, below 128, and a place in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// What sort of descriptor it is.
    pub kind: u8,
    /// Which of them.
    pub key: Key,
}

/// The part of the event loop that its event handler may use.
#[derive(Debug)]
pub struct EventLoop {
    pub(crate) ctx: Ctx,
    pub(crate) tcp: Tcp,
    /// The port of the event handler's connections, once there was one.
    pub(crate) outbound: Option<Key>,
    /// What the other threads are to ask.
    pub(crate) judge: Option<Judge>,
}

impl EventLoop {
    /// When the present batch of events came.
    pub fn now(&self) -> Instant {
        self.ctx.now
    }

    /// Takes `count` descriptors for something, of those that may still be opened. False if there is no room for them.
    #[must_use = "false means that nothing may be opened"]
    pub fn take(&mut self, what: Use, count: usize) -> bool {
        self.ctx.room.take(what, count)
    }

    /// Whether [`EventLoop::take`] would succeed.
    pub fn fits(&self, what: Use, count: usize) -> bool {
        self.ctx.room.fits(what, count)
    }

    /// Gives back what [`EventLoop::take`] took, before it is counted anew.
    pub fn give(&mut self, what: Use, count: usize) {
        self.ctx.room.give(what, count);
    }

    /// What the limit of open files allows.
    pub fn shares(&self) -> &Shares {
        &self.ctx.room.shares
    }

    /// Whether it is time to warn, once more, that there is no room for something.
    pub fn worth_saying(&mut self, what: Use) -> bool {
        self.ctx.room.worth_saying(what, self.ctx.now)
    }

    /// Watches a descriptor until it is closed.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn watch(&self, fd: impl AsFd, tag: Tag, flags: EpollFlags) -> io::Result<()> {
        Ok(self.ctx.epoll.add(fd, EpollEvent::new(flags, token(tag)))?)
    }

    /// A datagram socket of the namespace: at once, or by [`EventHandler::socket`] later (`Ok(None)`).
    ///
    /// # Errors
    /// There will be none: the factory is gone, or too many wait.
    pub fn datagram_socket(&mut self, ipv4: bool, key: Key) -> io::Result<Option<Socket>> {
        match self.ctx.pool.take(SocketKind::udp(ipv4), Waiter::EventHandler(key)) {
            Taken::Ready(socket) => Ok(Some(socket)),
            Taken::Later => Ok(None),
            Taken::Never => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Moves bytes between two connected sockets until both directions have ended. `backend` has to be watched by the
    /// handler; it is not the event handler's any more then.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); both connections are reset.
    pub fn relay(&mut self, client: Socket, backend: Socket, counted: Counted) -> io::Result<()> {
        let port = *self.outbound.get_or_insert_with(|| self.tcp.add_unserved(OUTBOUND));
        self.tcp.join(&mut self.ctx, port, client, backend, counted)
    }

    /// Resets the connections of [`EventLoop::relay`] that may not go on: those of this thread now, and those of others
    /// before they answer [`crate::Engine::ping`]. Connections whose opener is not known are left alone.
    pub fn end_denied(&mut self, judge: Judge) {
        if let Some(port) = self.outbound {
            self.tcp.end_denied(port, &judge);
        }
        self.judge = Some(judge);
    }
}

/// The bit that tells an event handler's descriptors from ours, in the kind of a token.
const HANDLER: u8 = 0x80;

fn token(tag: Tag) -> u64 {
    tag.key.token(HANDLER | tag.kind)
}

/// The tag in a token, if it is an event handler's.
pub(crate) fn tag(token: u64) -> Option<Tag> {
    let (kind, key) = Key::from_token(token);
    (kind & HANDLER != 0).then_some(Tag { kind: kind & !HANDLER, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctx::Source;

    #[test]
    fn tags_come_back_as_they_went() {
        for kind in [0, 7, 127] {
            for (index, generation) in [(0, 0), (u32::MAX, (1 << 24) - 1)] {
                let sent = Tag { kind, key: Key { index, generation } };
                assert_eq!(tag(token(sent)), Some(sent));
            }
        }
        assert_eq!(tag(Source::Flow.token(Key { index: 1, generation: 1 })), None);
    }
}
