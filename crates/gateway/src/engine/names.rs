//! The sockets of [`crate::dns::Forwarder`], which decides whom to ask and what to answer.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::PoisonError;
use std::time::Instant;

use netlink::conntrack;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use relay::EventLoop;
use relay::event_handler::Tag;
use relay::room::Use;
use relay::slab::{Key, Slab};
use socket2::{Domain, Protocol, Socket, Type};

use super::answers::errno;
use super::attribution::{Attributions, DNS_QUERY, Entry, outbound};
use super::egress_policy::Sender;
use super::{Arrived, Shared, SharedResolvers, kind};
use crate::dns::{self, Action, Forwarder};
use crate::packet::Udp;
use crate::policy;

const MAX_ANSWER_BYTES: usize = 65_535;

#[derive(Debug)]
pub(super) struct Names {
    pub(super) forwarder: Forwarder,
    changed: SharedResolvers,
    sockets: Slab<(dns::Key, Socket)>,
    places: HashMap<dns::Key, Key>,
    /// Queries that had to make room, as far as they have been counted.
    evicted: u64,
    buffer: Vec<u8>,
}

impl Names {
    pub(super) fn new(changed: SharedResolvers) -> Self {
        Self {
            forwarder: Forwarder::new(&[]),
            changed,
            sockets: Slab::new(),
            places: HashMap::new(),
            evicted: 0,
            buffer: Vec::new(),
        }
    }

    pub(super) fn descriptors(&self) -> usize {
        self.sockets.len()
    }

    /// The name server for a connection over TCP that has been tried with these.
    pub(super) fn resolver(&mut self, now: Instant, tried: &[SocketAddr]) -> Option<SocketAddr> {
        self.follow();
        self.forwarder.resolver(now, tried)
    }

    /// Whose query it is.
    pub(super) fn attribute(&mut self, shared: &Shared, number: u64, sender: Sender) {
        self.forwarder.reassign(number, shared.holder(sender.container, Some(sender)));
    }

    pub(super) fn query(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        attributions: &mut Attributions,
        mut arrived: Arrived<'_>,
        udp: &Udp<'_>,
    ) {
        self.follow();
        let query = outbound(conntrack::Protocol::Udp, udp.src, udp.dst);
        let uses_names = shared.egress.uses_names;
        if uses_names {
            arrived.sender = shared.sender(attributions, host.now(), &query, arrived);
            if arrived.sender.is_none() {
                return;
            }
        } else if self.forwarder.is_full()
            && !shared.knows_holder(attributions, host.now(), &query, &mut arrived)
        {
            return;
        }
        let sender = arrived.sender;
        let who = sender.filter(|_| uses_names).map(|sender| shared.egress.source(sender));
        let holder = shared.holder(udp.src.ip(), sender);
        let number = self.forwarder.query(host.now(), udp.src, who, holder, udp.payload);
        if let Some(number) = number {
            match sender {
                Some(sender) => {
                    shared.statistics.of(sender.container, |sum| *sum = *sum + DNS_QUERY);
                }
                None => {
                    let of = Some(Entry::Name(number));
                    if let Some(sender) = attributions.count(host.now(), query, DNS_QUERY, of, None)
                    {
                        self.attribute(shared, number, sender);
                    }
                }
            }
        }
        self.act(host, shared, attributions);
    }

    /// A name server answers, or cannot.
    pub(super) fn answer(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        attributions: &mut Attributions,
        key: Key,
    ) {
        let Some((name, socket)) = self.sockets.get(key) else { return };
        self.buffer.resize(MAX_ANSWER_BYTES, 0);
        match recv(socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => self.forwarder.answer(host.now(), *name, &self.buffer[..length]),
            Err(Errno::EAGAIN) => {}
            Err(_) => self.forwarder.failed(host.now(), *name),
        }
        self.act(host, shared, attributions);
    }

    pub(super) fn tick(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        attributions: &mut Attributions,
    ) {
        if self.forwarder.deadline().is_some_and(|due| due <= host.now()) {
            self.forwarder.tick(host.now());
            self.act(host, shared, attributions);
        }
    }

    fn follow(&mut self) {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(resolvers) = changed {
            self.forwarder.set_resolvers(&resolvers);
        }
    }

    fn act(&mut self, host: &mut EventLoop, shared: &Shared, attributions: &mut Attributions) {
        while let Some(action) = self.forwarder.next_action() {
            match action {
                Action::Send { key, to, query } => {
                    if let Err(e) = self.ask(host, key, to, &query) {
                        tracing::debug!("cannot query the name server {to}: {e}");
                        match errno(&e) {
                            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => {
                                self.forwarder.give_up(host.now(), key);
                            }
                            _ => self.forwarder.failed(host.now(), key),
                        }
                    }
                }
                Action::Close(key) => {
                    if let Some(place) = self.places.remove(&key) {
                        self.sockets.remove(place);
                        host.give(Use::Name, 1);
                    }
                }
                Action::Reply { client, who, payload } => {
                    if let Some((name, addresses)) = dns::addresses(&payload) {
                        attributions.log.names.learn(host.now(), &name, &addresses);
                        // Before the client can use them.
                        if let Some(who) = who {
                            shared.egress.learn(host.now(), who, &name, &addresses);
                        }
                    }
                    if let Some(net) = shared.plan.net_of(client.ip()) {
                        shared.answers.udp(SocketAddr::new(net.dns, policy::DNS), client, &payload);
                    }
                }
            }
        }
        let dns::Counters { queries, failed, evicted, .. } = self.forwarder.counters();
        let mut events = shared.statistics.events();
        (events.dns_queries, events.dns_failed) = (queries, failed);
        events.evicted += evicted - std::mem::replace(&mut self.evicted, evicted);
    }

    fn ask(
        &mut self,
        host: &mut EventLoop,
        name: dns::Key,
        to: SocketAddr,
        query: &[u8],
    ) -> io::Result<()> {
        if !host.take(Use::Name, 1) {
            return Err(Errno::EMFILE.into());
        }
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::UDP))?;
        socket.connect(&to.into())?;
        send(socket.as_raw_fd(), query, MsgFlags::MSG_NOSIGNAL)?;
        let key = self.sockets.insert((name, socket));
        self.places.insert(name, key);
        let (_, socket) = self.sockets.get(key).ok_or(io::ErrorKind::NotFound)?;
        host.watch(socket, Tag { kind: kind::NAME, key }, EpollFlags::EPOLLIN)
    }
}
