//! What every part of the event loop shares: epoll and the names of what it watches, timers, sockets in
//! stock, limits.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::Socket;

use crate::flow_log::{FlowEnd, FlowRecord, FlowStart, Transport};
use crate::inbound::Inbound;
use crate::options::Options;
use crate::pool::Pool;
use crate::room::Room;
use crate::slab::Key;
use crate::timers::Timers;
use crate::traffic::Counted;

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

    pub(crate) fn token(self, key: Key) -> u64 {
        key.token(self as u8)
    }

    pub(crate) fn from_token(token: u64) -> Option<(Self, Key)> {
        let (kind, key) = Key::from_token(token);
        Some((*Self::ALL.get(usize::from(kind))?, key))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Retry(Key),
    /// See whether a reset can or must go out.
    Linger(Key),
    Rearm,
    Sweep,
    Expire,
    Refill,
    /// Give back what a burst has left behind.
    Trim,
}

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
    pub(crate) room: Room,
    /// What the event handler has not been told of; `None` if there is none.
    pub(crate) inbound: Option<Vec<Inbound>>,
}

impl Ctx {
    pub(crate) fn watch(
        &self,
        sock: &Socket,
        source: Source,
        key: Key,
        flags: EpollFlags,
    ) -> io::Result<()> {
        Ok(self.epoll.add(sock, EpollEvent::new(flags, source.token(key)))?)
    }

    /// Has a connection or flow of a client recorded when it ends; `port` is where the published port listens.
    pub(crate) fn logged(
        &self,
        counted: Counted,
        transport: Transport,
        client: Option<SocketAddr>,
        port: Option<SocketAddr>,
    ) -> Counted {
        let Some(log) = &self.opts.flow_log else { return counted };
        let Some(start) = self.flow_start(transport, client, port) else { return counted };
        counted.logged(log, start)
    }

    /// Records an attempt of a client that is not allowed.
    pub(crate) fn log_denied(
        &self,
        transport: Transport,
        client: Option<SocketAddr>,
        port: Option<SocketAddr>,
    ) {
        if let Some(log) = self.opts.flow_log.as_ref().filter(|log| log.is_followed())
            && let Some(start) = self.flow_start(transport, client, port)
        {
            let (container, up, down, ended) = (None, 0, 0, self.now);
            let (end, rule) = (FlowEnd::Denied, None);
            log.push(FlowRecord { start, container, up, down, ended, end, rule });
        }
    }

    /// IPv4 in IPv6 form, as listeners of both families report it, is IPv4.
    fn flow_start(
        &self,
        transport: Transport,
        client: Option<SocketAddr>,
        port: Option<SocketAddr>,
    ) -> Option<FlowStart> {
        let (mut client, mut destination) = (client?, port?);
        client.set_ip(client.ip().to_canonical());
        if client.is_ipv4() && destination.ip().is_unspecified() {
            destination.set_ip(Ipv4Addr::UNSPECIFIED.into());
        }
        let (published, name, dry_run_rule, began) = (true, None, None, self.now);
        Some(FlowStart { transport, published, client, destination, name, dry_run_rule, began })
    }

    /// Notes that a connection or flow has gone into the namespace, or has tried to.
    pub(crate) fn went_in(
        &mut self,
        udp: bool,
        port: Key,
        backend: &Socket,
        server: SocketAddr,
        counted: &mut Counted,
    ) {
        if let Some(inbound) = &mut self.inbound
            && let Some(client) = backend.local_addr().ok().and_then(|client| client.as_socket())
        {
            inbound.push(Inbound { udp, port, client, server, attribution: counted.attribute() });
        }
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
