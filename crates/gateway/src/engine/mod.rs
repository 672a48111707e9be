//! What the gateway process does all day: the event handler of [`relay`]'s event loop.
//!
//! # Theory of operation
//! Packets of the target namespace that need a decision come out of two tun devices, so that a flood of datagrams
//! (`data`) cannot drown new connections and name queries (`dial`).
//!
//! * [`dial`]: a SYN is kept until the host's connect(2) to the real destination has ended. On success the same SYN
//!   goes back into `dial`, where tproxy hands it to the listener of the gateway namespace; the accepted socket and the
//!   host's become a pair that relay moves bytes between. On failure the target namespace gets the answer that the
//!   network gave us.
//! * [`udp`]: a flow has a socket on the host's side. One that turns out to be busy gets a socket in the gateway
//!   namespace as well, which the packet rules find before the tun device, and then its datagrams travel in batches.
//! * [`echo`]: ping sockets of the host; answers are real or there are none.
//! * [`names`]: queries to the gateway's name server go to those of the host.
//! * [`statistics`]: who talked to whom. [`answers`]: what the target namespace gets to hear.
//!
//! Every table has a limit, and whoever is least likely to be missed makes room: half-open connections by age, flows
//! that nobody answered before those that somebody did. Each kind has its share of the descriptors ([`relay::room`]).

mod answers;
mod dial;
mod echo;
mod names;
mod statistics;
mod tun;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use relay::event_handler::Tag;
use relay::room::{Held, Use};
use relay::slab::Key;
use relay::{EventHandler, EventLoop};
use socket2::Socket;

use crate::Descriptors;
use crate::network_config::{NetworkConfig, Resolvers};
use crate::packet::{self, Original, Packet, Reassembly, Unreachable};
use crate::policy::{self, Verdict};
use answers::Answers;
use dial::Dials;
use echo::Echoes;
use names::Names;
pub use statistics::{Statistics, inward};
use tun::Tun;
use udp::Flows;

/// Packets read from one tun device before others get their turn.
const TURN: usize = 64;
/// How often what has become old is looked for, while there is anything.
const SWEEP: Duration = Duration::from_secs(1);

/// A port for rules about addresses: that of the echo service.
const ANY_PORT: u16 = 7;

/// What a descriptor of ours is, for [`Tag::kind`].
mod kind {
    pub(super) const DIAL_TUN: u8 = 0;
    pub(super) const DATA_TUN: u8 = 1;
    pub(super) const LISTENER4: u8 = 2;
    pub(super) const LISTENER6: u8 = 3;
    /// A connection to the outside that is being made.
    pub(super) const DIAL: u8 = 4;
    /// The host's side of a UDP flow, and the gateway namespace's.
    pub(super) const HOST: u8 = 5;
    pub(super) const INSIDE: u8 = 6;
    pub(super) const ECHO: u8 = 7;
    pub(super) const NAME: u8 = 8;
}

/// Name servers of the host that the engine has not taken over yet.
pub type SharedResolvers = Arc<Mutex<Option<Resolvers>>>;

/// The engine.
#[derive(Debug)]
pub struct Engine {
    shared: Shared,
    listeners: Vec<(u8, Socket)>,
    dials: Dials,
    flows: Flows,
    echoes: Echoes,
    names: Names,
    reassembly: Reassembly,
    swept: Instant,
}

/// What all parts look at.
#[derive(Debug)]
struct Shared {
    plan: NetworkConfig,
    dial: Tun,
    /// The way out of the tun device "data"; its way in is used by all.
    answers: Answers,
    statistics: Arc<Statistics>,
}

impl Shared {
    /// The address that our own error messages come from.
    fn own_address(&self, to: IpAddr) -> IpAddr {
        self.plan.net_of(to).map_or(self.plan.v4.gateway, |net| net.gateway)
    }

    /// The address of somebody outside as the target namespace may see it: loopback of the host is the gateway.
    fn visible(&self, address: IpAddr) -> IpAddr {
        let own = address.is_loopback() || address.is_unspecified();
        if own { self.own_address(address) } else { address }
    }

    /// Refuses a packet by rule.
    fn prohibit(&self, packet: &[u8], from: IpAddr) {
        self.statistics.denied();
        let own = self.own_address(from);
        self.answers.unreachable(Unreachable::Prohibited, own, &Original::Packet(packet));
    }

    fn tun(&self, kind: u8) -> &Tun {
        if kind == kind::DIAL_TUN { &self.dial } else { self.answers.tun() }
    }

    fn tun_mut(&mut self, kind: u8) -> &mut Tun {
        if kind == kind::DIAL_TUN { &mut self.dial } else { self.answers.tun_mut() }
    }
}

impl Engine {
    /// An engine that has not started.
    #[must_use]
    pub fn new(
        plan: NetworkConfig,
        descriptors: Descriptors,
        resolvers: SharedResolvers,
        statistics: Arc<Statistics>,
    ) -> Self {
        let Descriptors { dial, data, listener4, listener6 } = descriptors;
        let mut listeners = vec![(kind::LISTENER4, Socket::from(listener4))];
        listeners.extend(listener6.map(|fd| (kind::LISTENER6, Socket::from(fd))));
        let names = Names::new(resolvers);
        let answers = Answers::new(Tun::new(data), &plan);
        let shared = Shared { plan, dial: Tun::new(dial), answers, statistics };
        Self {
            shared,
            listeners,
            dials: Dials::new(),
            flows: Flows::new(),
            echoes: Echoes::new(),
            names,
            reassembly: Reassembly::new(),
            swept: Instant::now(),
        }
    }

    /// Takes packets out of one tun device.
    fn drain(&mut self, host: &mut EventLoop, from: u8) {
        let mut buffer = self.shared.tun_mut(from).take_buffer();
        for _ in 0..TURN {
            let Some(length) = self.shared.tun(from).read(&mut buffer) else { break };
            self.packet(host, &buffer[..length]);
        }
        self.shared.tun_mut(from).give_buffer(buffer);
    }

    fn packet(&mut self, host: &mut EventLoop, bytes: &[u8]) {
        match packet::parse(bytes) {
            Ok(Packet::Fragment(fragment)) => {
                // Out of its place while the rest is used with what it gives.
                let mut reassembly = std::mem::take(&mut self.reassembly);
                if let Some(whole) = reassembly.add(host.now(), &fragment)
                    && let Ok(parsed) = packet::parse(whole)
                {
                    self.whole(host, whole, &parsed.reassembled());
                }
                self.reassembly = reassembly;
            }
            Ok(parsed) => self.whole(host, bytes, &parsed),
            Err(_) => self.shared.statistics.dropped(),
        }
    }

    fn whole(&mut self, host: &mut EventLoop, bytes: &[u8], parsed: &Packet<'_>) {
        let shared = &self.shared;
        match parsed {
            Packet::Syn(syn) => self.dials.syn(host, shared, &mut self.names, bytes, syn),
            Packet::Udp(udp) => match policy::outbound(&shared.plan, udp.dst) {
                Verdict::Dns => self.names.query(host, shared, udp),
                Verdict::Dial(to) => self.flows.outbound(host, shared, udp, to),
                Verdict::Deny(reason) => {
                    tracing::debug!("denied a datagram to {}: {reason}", udp.dst);
                    shared.prohibit(bytes, udp.src.ip());
                }
            },
            Packet::Echo(echo) => {
                match policy::outbound(&shared.plan, SocketAddr::new(echo.dst, ANY_PORT)) {
                    Verdict::Dial(to) if to.ip() == echo.dst => {
                        self.echoes.request(host, shared, echo);
                    }
                    _ => shared.prohibit(bytes, echo.src),
                }
            }
            // The packet rules have found no connection for it; with a second look they may.
            Packet::Segment => shared.dial.write(bytes),
            Packet::Fragment(_) | Packet::Other => shared.statistics.dropped(),
        }
    }

    fn busy(&self) -> bool {
        !(self.dials.is_empty() && self.flows.is_empty() && self.echoes.is_empty())
    }
}

impl EventHandler for Engine {
    fn start(&mut self, host: &mut EventLoop) -> io::Result<()> {
        self.names.limit(host.shares().names);
        let tag = |kind| Tag { kind, key: Key::NONE };
        host.watch(&self.shared.dial, tag(kind::DIAL_TUN), EpollFlags::EPOLLIN)?;
        host.watch(self.shared.answers.tun(), tag(kind::DATA_TUN), EpollFlags::EPOLLIN)?;
        for (kind, listener) in &self.listeners {
            host.watch(listener, tag(*kind), EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
        }
        Ok(())
    }

    fn event(&mut self, host: &mut EventLoop, tag: Tag, flags: EpollFlags) {
        let shared = &self.shared;
        match tag.kind {
            kind::DIAL_TUN | kind::DATA_TUN => self.drain(host, tag.kind),
            kind::LISTENER4 | kind::LISTENER6 => {
                let listener = self.listeners.iter().find(|(kind, _)| *kind == tag.kind);
                if let Some((_, listener)) = listener {
                    self.dials.accept(host, listener);
                }
            }
            kind::DIAL => self.dials.connected(host, shared, &mut self.names, tag.key),
            kind::HOST => self.flows.outside_speaks(host, shared, tag.key, flags),
            kind::INSIDE => self.flows.inside_speaks(host, tag.key),
            kind::ECHO => self.echoes.reply(host, shared, tag.key, flags),
            kind::NAME => self.names.answer(host, shared, tag.key),
            _ => {}
        }
    }

    fn socket(&mut self, host: &mut EventLoop, key: Key, socket: Option<Socket>) {
        self.flows.promote(host, key, socket);
    }

    fn turn(&mut self, host: &mut EventLoop) {
        self.names.tick(host, &self.shared);
        if self.dials.accepts_again(host.now()) {
            for (_, listener) in &self.listeners {
                self.dials.accept(host, listener);
            }
        }
        self.shared.statistics.dialing(self.dials.len());
        let now = host.now();
        if now.saturating_duration_since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        self.dials.expire(now);
        self.flows.expire(now);
        self.echoes.expire(now);
    }

    fn wake_at(&self) -> Option<Instant> {
        let sweep = self.busy().then(|| self.swept + SWEEP);
        sweep.into_iter().chain(self.names.wake_at()).chain(self.dials.accept_at()).min()
    }

    fn held(&self) -> Held {
        Held::default()
            .with(Use::Out, self.dials.descriptors())
            .with(Use::FlowOut, self.flows.descriptors())
            .with(Use::Ping, self.echoes.len())
            .with(Use::Name, self.names.descriptors())
    }

    fn give_way(&mut self, host: &mut EventLoop, count: usize) {
        self.shared.statistics.evicted(self.flows.give_way(count, host.now(), &self.shared));
    }
}
