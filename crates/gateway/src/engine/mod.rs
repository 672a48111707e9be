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
//! * [`overlay`]: datagrams of overlay networks come out of a packet socket, long and unfinished, for flows that are there.
//! * [`echo`]: ping sockets of the host; answers are real or there are none.
//! * [`names`]: queries to the gateway's name server go to those of the host.
//! * [`attribution`]: which container it counts for.
//! * [`log`]: what has ended, for whoever follows the flow log.
//! * [`statistics`]: who talked to whom. [`answers`]: what the target namespace gets to hear.
//!
//! Every table has a limit, and whoever is least likely to be missed makes room: half-open connections by age, flows
//! that nobody answered before those that somebody did. Each kind has its share of the descriptors ([`relay::room`]).

mod answers;
mod attribution;
mod dial;
mod echo;
mod log;
mod names;
mod overlay;
mod statistics;
mod tun;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netlink::conntrack::{self, Query};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use relay::event_handler::Tag;
use relay::flow_log::{FlowEnd, FlowLog};
use relay::overlay::Writer;
use relay::room::{Held, Use};
use relay::slab::Key;
use relay::{EventHandler, EventLoop, Inbound};
use socket2::Socket;

use crate::conntrack::Client;
use crate::network_config::{NetworkConfig, Resolvers};
use crate::packet::{self, Original, Packet, Reassembly, Unreachable};
use crate::policy::{self, Protocol, Verdict};
use answers::Answers;
use attribution::{Attributions, DENIED, echo_request, outbound};
use dial::Dials;
use echo::Echoes;
use names::Names;
use overlay::Overlay;
pub use statistics::{Statistics, inward};
use tun::{MAX_PACKET, Tun};
use udp::Flows;

const MAX_PACKETS_PER_TURN: usize = 64;
/// How often what has become old is looked for, while there is anything.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A port for rules about addresses: that of the echo service.
const ANY_PORT: u16 = 7;

/// What a descriptor of ours is, for [`Tag::kind`].
mod kind {
    pub(super) const DIAL_TUN: u8 = 0;
    pub(super) const DATA_TUN: u8 = 1;
    /// Of the gateway namespace, of either family.
    pub(super) const LISTENER: u8 = 2;
    /// A connection to the outside that is being made.
    pub(super) const DIAL: u8 = 3;
    /// The host's side of a UDP flow, and the gateway namespace's.
    pub(super) const HOST: u8 = 4;
    pub(super) const INSIDE: u8 = 5;
    pub(super) const ECHO: u8 = 6;
    pub(super) const NAME: u8 = 7;
    /// The packet socket of the gateway namespace for overlay networks.
    pub(super) const OVERLAY: u8 = 8;
    /// Replies of the connection tracking.
    pub(super) const CONNTRACK: u8 = 9;
}

/// Name servers of the host that the engine has not taken over yet.
pub type SharedResolvers = Arc<Mutex<Option<Resolvers>>>;

/// Where the engine's work comes from, see [`crate::Descriptors`].
#[derive(Debug)]
pub struct Sources {
    /// Tun of the packets that want a decision.
    pub dial: OwnedFd,
    /// Tun of all other packets.
    pub data: OwnedFd,
    /// A listener for each family.
    pub listeners: Vec<OwnedFd>,
    /// To query the connection tracking of the target namespace ([`crate::conntrack`]).
    pub conntrack: OwnedFd,
    /// The packet socket for overlay networks, and who has to know which ports they use.
    pub overlay: Option<(OwnedFd, Option<Arc<Writer>>)>,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    shared: Shared,
    listeners: Vec<Socket>,
    overlay: Option<Overlay>,
    dials: Dials,
    flows: Flows,
    echoes: Echoes,
    names: Names,
    attributions: Attributions,
    reassembly: Reassembly,
    /// For packets of both tun devices.
    buffer: Vec<u8>,
    swept: Instant,
}

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

    /// Counts an attempt that a rule has denied, also for its container, and tells whoever has sent it.
    fn prohibit(
        &self,
        attributions: &mut Attributions,
        now: Instant,
        attempt: Query,
        original: &Original<'_>,
    ) {
        self.statistics.events().denied += 1;
        let from = self.own_address(attempt.outside.src.ip());
        self.answers.unreachable(Unreachable::Prohibited, from, original);
        attributions.count(now, attempt, DENIED, None, Some(FlowEnd::Denied));
    }

    /// Tells the sender of a packet what the host said to it, if there is an answer for that.
    fn explain(&self, errno: Errno, from: IpAddr, original: &Original<'_>) {
        if let Some(why) = answers::meaning(errno) {
            self.answers.unreachable(why, self.own_address(from), original);
        }
    }

    /// Lets the packet rules look at a datagram of the target namespace once more.
    fn look_again(&self, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        self.answers.udp_to(&self.dial, src, dst, payload);
    }

    fn drop_packet(&self) {
        self.statistics.events().dropped += 1;
    }
}

impl Engine {
    /// An engine that has not started.
    pub fn new(
        plan: NetworkConfig,
        sources: Sources,
        resolvers: SharedResolvers,
        statistics: Arc<Statistics>,
        flow_log: Arc<FlowLog>,
    ) -> Self {
        let Sources { dial, data, listeners, conntrack, overlay } = sources;
        let names = Names::new(resolvers);
        let client = Client::new(conntrack);
        let attributions =
            Attributions::new(client, plan.clone(), Arc::clone(&statistics), flow_log);
        let answers = Answers::new(Tun(data), &plan);
        let shared = Shared { plan, dial: Tun(dial), answers, statistics };
        Self {
            shared,
            listeners: listeners.into_iter().map(Socket::from).collect(),
            overlay: overlay.map(|(reader, writer)| Overlay::new(reader, writer)),
            dials: Dials::default(),
            flows: Flows::default(),
            echoes: Echoes::default(),
            names,
            attributions,
            reassembly: Reassembly::default(),
            buffer: vec![0; MAX_PACKET],
            swept: Instant::now(),
        }
    }

    fn drain(&mut self, host: &mut EventLoop, from: u8) {
        // Out of its place while the rest is used with what it holds.
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..MAX_PACKETS_PER_TURN {
            let shared = &self.shared;
            let tun = if from == kind::DIAL_TUN { &shared.dial } else { &shared.answers.tun };
            let Some(length) = tun.read(&mut buffer) else { break };
            self.packet(host, &buffer[..length]);
        }
        self.buffer = buffer;
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
            Err(_) => self.shared.drop_packet(),
        }
    }

    fn whole(&mut self, host: &mut EventLoop, bytes: &[u8], parsed: &Packet<'_>) {
        let (shared, attributions) = (&self.shared, &mut self.attributions);
        let now = host.now();
        match parsed {
            Packet::Syn(syn) => {
                self.dials.syn(host, shared, &mut self.names, attributions, (bytes, syn));
            }
            Packet::Udp(udp) => match policy::outbound(&shared.plan, Protocol::Udp, udp.dst) {
                Verdict::Dns => self.names.query(host, shared, attributions, udp),
                Verdict::Dial(to) => self.flows.outbound(host, shared, attributions, udp, to),
                Verdict::Deny(reason) => {
                    tracing::debug!("denied a datagram to {}: {reason}", udp.dst);
                    let attempt = outbound(conntrack::Protocol::Udp, udp.src, udp.dst);
                    shared.prohibit(attributions, now, attempt, &Original::Packet(bytes));
                }
            },
            Packet::Echo(echo) => {
                let dst = SocketAddr::new(echo.dst, ANY_PORT);
                match policy::outbound(&shared.plan, Protocol::Echo, dst) {
                    Verdict::Dial(to) if to.ip() == echo.dst => {
                        self.echoes.request(host, shared, attributions, echo);
                    }
                    _ => {
                        let attempt = echo_request(echo.src, echo.dst, echo.id);
                        shared.prohibit(attributions, now, attempt, &Original::Packet(bytes));
                    }
                }
            }
            // The packet rules have found no connection for it; with a second look they may.
            Packet::Segment => shared.dial.write(bytes),
            Packet::Fragment(_) | Packet::Other => shared.drop_packet(),
        }
    }

    /// Takes in what the connection tracking says.
    fn attribute(&mut self, now: Instant) {
        let settled = self.attributions.receive(now);
        for (ping, container) in settled.pings {
            self.echoes.attribute(ping, container);
        }
        for syn in settled.resets {
            self.shared.answers.reset(&syn);
        }
    }

    fn busy(&self) -> bool {
        !(self.dials.is_empty() && self.flows.is_empty() && self.echoes.is_empty())
    }
}

impl EventHandler for Engine {
    fn start(&mut self, host: &mut EventLoop) -> io::Result<()> {
        self.names.forwarder.limit(host.shares().names);
        let tag = |kind| Tag { kind, key: Key::NONE };
        host.watch(&self.shared.dial, tag(kind::DIAL_TUN), EpollFlags::EPOLLIN)?;
        host.watch(&self.shared.answers.tun, tag(kind::DATA_TUN), EpollFlags::EPOLLIN)?;
        for listener in &self.listeners {
            host.watch(listener, tag(kind::LISTENER), EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
        }
        if let Some(client) = self.attributions.client() {
            host.watch(client, tag(kind::CONNTRACK), crate::conntrack::WATCHED)?;
        }
        if let Some(overlay) = &self.overlay {
            host.watch(overlay, tag(kind::OVERLAY), EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    fn event(&mut self, host: &mut EventLoop, tag: Tag, flags: EpollFlags) {
        let shared = &self.shared;
        match tag.kind {
            kind::DIAL_TUN | kind::DATA_TUN => self.drain(host, tag.kind),
            kind::LISTENER => self.dials.accept(host, &self.listeners),
            kind::OVERLAY => {
                if let Some(overlay) = &mut self.overlay {
                    overlay.read(host.now(), &mut self.reassembly, shared);
                    self.flows.overlay_speaks(host, shared, overlay);
                }
            }
            kind::DIAL => {
                let attributions = &mut self.attributions;
                self.dials.connected(host, shared, &mut self.names, attributions, tag.key);
            }
            kind::HOST => self.flows.outside_speaks(host, shared, tag.key, flags),
            kind::INSIDE => self.flows.inside_speaks(host, &mut self.attributions, tag.key),
            kind::ECHO => self.echoes.reply(host, shared, tag.key, flags),
            kind::NAME => self.names.answer(host, shared, &mut self.attributions, tag.key),
            kind::CONNTRACK => self.attribute(host.now()),
            _ => {}
        }
    }

    fn socket(&mut self, host: &mut EventLoop, key: Key, socket: Option<Socket>) {
        self.flows.promote(host, key, socket);
    }

    fn inbound(&mut self, host: &mut EventLoop, inbound: Inbound) {
        self.attributions.published(host.now(), inbound);
    }

    fn turn(&mut self, host: &mut EventLoop) {
        self.names.tick(host, &self.shared, &mut self.attributions);
        if self.attributions.due().is_some_and(|due| due <= host.now()) {
            self.attribute(host.now());
        }
        self.attributions.send(host.now());
        if self.dials.accepts_again(host.now()) {
            self.dials.accept(host, &self.listeners);
        }
        self.shared.statistics.events().dialing = self.dials.len() as u64;
        let now = host.now();
        if now.saturating_duration_since(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        self.dials.expire(now);
        self.flows.expire(now);
        self.echoes.expire(now, &self.attributions.log);
    }

    fn wake_at(&self) -> Option<Instant> {
        let sweep = self.busy().then(|| self.swept + SWEEP_INTERVAL);
        sweep
            .into_iter()
            .chain(self.names.wake_at())
            .chain(self.dials.accept_at)
            .chain(self.attributions.wake_at())
            .min()
    }

    fn held(&self) -> Held {
        Held::default()
            .with(Use::Out, self.dials.descriptors())
            .with(Use::FlowOut, self.flows.descriptors())
            .with(Use::Ping, self.echoes.len())
            .with(Use::Name, self.names.descriptors())
    }

    fn give_way(&mut self, host: &mut EventLoop, count: usize) {
        self.flows.give_way(count, host.now(), &self.shared);
    }
}
