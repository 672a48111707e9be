//! What every part of the event loop shares: epoll and the names of what it watches, timers, sockets in
//! stock, limits.

use std::io;
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::Socket;

use crate::options::Options;
use crate::pool::Pool;
use crate::room::Room;
use crate::slab::Key;
use crate::timers::Timers;

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

    /// SocketKind in the top byte, generation (24 bits) below, index in the lower half.
    pub(crate) fn token(self, key: Key) -> u64 {
        u64::from(self as u8) << 56 | u64::from(key.generation) << 32 | u64::from(key.index)
    }

    pub(crate) fn from_token(token: u64) -> Option<(Self, Key)> {
        let [kind, g2, g1, g0, i3, i2, i1, i0] = token.to_be_bytes();
        let key = Key {
            index: u32::from_be_bytes([i3, i2, i1, i0]),
            generation: u32::from_be_bytes([0, g2, g1, g0]),
        };
        Some((*Self::ALL.get(usize::from(kind))?, key))
    }
}

/// What happens when a time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Connect again.
    Retry(Key),
    /// See whether a reset can or must go out.
    Linger(Key),
    /// Listen again on ports that rest.
    Rearm,
    /// Check connects against their deadlines.
    Sweep,
    /// Drop silent UDP flows.
    Expire,
    /// Ask the factory again.
    Refill,
    /// Give back what a burst has left behind.
    Trim,
}

/// What TCP and UDP share.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) epoll: Epoll,
    pub(crate) pool: Pool,
    pub(crate) timers: Timers<Timer>,
    pub(crate) opts: Options,
    /// The time when the current batch of events came.
    pub(crate) now: Instant,
    /// How many batches of events there were.
    pub(crate) wakes: u64,
    /// Descriptors that may still be opened.
    pub(crate) room: Room,
}

impl Ctx {
    /// Registers a socket with epoll.
    pub(crate) fn watch(
        &self,
        sock: &Socket,
        source: Source,
        key: Key,
        flags: EpollFlags,
    ) -> io::Result<()> {
        Ok(self.epoll.add(sock, EpollEvent::new(flags, source.token(key)))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for source in Source::ALL {
            for key in [Key::NONE, Key { index: u32::MAX, generation: (1 << 24) - 1 }] {
                assert_eq!(Source::from_token(source.token(key)), Some((source, key)));
            }
        }
        assert_eq!(Source::from_token(u64::MAX), None);
    }
}
