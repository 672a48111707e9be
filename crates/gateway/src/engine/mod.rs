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
//! * [`host_socket`]: the host's side of flows and pings, which follows the host to another address.
//! * [`names`]: queries to the gateway's name server go to those of the host.
//! * [`attribution`]: which container it counts for; [`holders`]: and whose share of the limits.
//! * [`egress_policy`]: what containers may begin; [`parked`]: packets that wait until their sender is known.
//! * [`log`]: what has ended, for whoever follows the flow log.
//! * [`statistics`]: who talked to whom. [`answers`]: what the target namespace gets to hear.
//!
//! Every table has a limit. Whoever has the most of it makes room ([`crate::shares`]), with what is least likely to be
//! missed: half-open connections by age, flows that nobody answered before those that somebody did. Each kind has its share
//! of the descriptors ([`relay::room`]).

mod answers;
mod attribution;
mod dial;
mod echo;
mod egress_policy;
mod holders;
mod host_socket;
mod log;
mod names;
mod overlay;
mod packets;
mod parked;
mod statistics;
mod tun;
mod udp;
mod unlisted;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use relay::event_handler::Tag;
use relay::flow_log::FlowLog;
use relay::overlay::Writer;
use relay::room::{Held, Use};
use relay::slab::Key;
use relay::{EventHandler, EventLoop, Inbound, Judge};
use socket2::Socket;

use crate::conntrack::Client;
use crate::network_config::{NetworkConfig, Resolvers};
use crate::packet::{Original, Reassembly, Unreachable};
use answers::Answers;
use attribution::{Attributions, Entry};
use dial::Dials;
use echo::Echoes;
use egress_policy::EgressPolicy;
pub use egress_policy::SharedPolicies;
use host_socket::AddressCheck;
use names::Names;
use overlay::Overlay;
use packets::{Arrived, Judged};
pub use statistics::{Statistics, inward};
use tun::{MAX_PACKET, Tun};
use udp::Flows;

/// How often what has become old is looked for, while there is anything.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

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
    /// What was begun before this query has to be judged once more when it is answered.
    judge_after: Option<u32>,
    /// When a packet came that may make a connection.
    connected: Option<Instant>,
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
    egress: EgressPolicy,
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

    /// Tells whoever has sent something that it is prohibited.
    fn forbid(&self, sender: IpAddr, original: &Original<'_>) {
        let from = self.own_address(sender);
        self.answers.unreachable(Unreachable::Prohibited, from, original);
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
        policies: SharedPolicies,
        statistics: Arc<Statistics>,
        flow_log: Arc<FlowLog>,
    ) -> Self {
        let Sources { dial, data, listeners, conntrack, overlay } = sources;
        let names = Names::new(resolvers);
        let client = Client::new(conntrack);
        let attributions =
            Attributions::new(client, plan.clone(), Arc::clone(&statistics), flow_log);
        let answers = Answers::new(Tun(data), &plan);
        let egress = EgressPolicy::new(policies, plan.clone());
        let shared = Shared { plan, dial: Tun(dial), answers, statistics, egress };
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
            judge_after: None,
            connected: None,
            buffer: vec![0; MAX_PACKET],
            swept: Instant::now(),
        }
    }

    /// Takes in what the connection tracking says.
    fn attribute(&mut self, host: &mut EventLoop) {
        let attributed = self.attributions.receive(host.now());
        for (entry, sender) in attributed.entries {
            match entry {
                Entry::Ping(ping) => self.echoes.attribute(&self.shared, ping, sender),
                Entry::Name(number) => self.names.attribute(&self.shared, number, sender),
            }
        }
        for syn in attributed.resets {
            self.shared.answers.reset(&syn);
        }
        for (query, sender) in attributed.senders {
            self.release(host, &query, sender);
        }
        let attributions = &self.attributions;
        if self.judge_after.take_if(|number| attributions.is_over(*number)).is_some() {
            self.judge_again(host);
        }
    }

    /// Puts the next egress policy in force, if there is one. True if that can end something.
    fn follow_policy(&mut self) -> bool {
        let Some(gone) = self.shared.egress.follow() else { return false };
        self.shared.statistics.judged_by(&self.shared.egress.policies);
        self.attributions.log.judged(None);
        let policies = &self.shared.egress.policies;
        self.attributions.ipv4.docker = policies.has_docker_ipv4;
        self.attributions.ipv6.docker = policies.has_docker_ipv6;
        let egress = &self.shared.egress;
        self.attributions.parked.is_lossy = egress.depends_on_sender || egress.uses_names;
        // Docker has the connection tracking forget them, so another container could go on with what they have begun.
        self.flows.end_of(&gone);
        self.echoes.end_of(&gone, &self.attributions.log);
        true
    }

    /// Ends what the egress policy does not allow any more.
    fn judge_again(&mut self, host: &mut EventLoop) {
        self.dials.end_denied(&self.shared);
        self.flows.end_denied(&self.shared);
        self.echoes.end_denied(&self.shared, &self.attributions.log);
        let in_force = self.shared.egress.shared();
        host.end_denied(Judge::new(move |opened| {
            in_force.denied_by(egress::Protocol::Tcp, opened)
        }));
    }
}

impl EventHandler for Engine {
    fn start(&mut self, host: &mut EventLoop) -> io::Result<()> {
        self.follow_policy();
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
            kind::DIAL_TUN => self.drain(host, true),
            kind::DATA_TUN => self.drain(host, false),
            kind::LISTENER => self.dials.accept(host, &self.listeners),
            kind::OVERLAY => {
                if let Some(overlay) = &mut self.overlay {
                    overlay.read(host.now(), &mut self.reassembly, shared);
                    self.flows.overlay_speaks(host, shared, &self.attributions, overlay);
                }
            }
            kind::DIAL => {
                let attributions = &mut self.attributions;
                self.dials.connected(host, shared, &mut self.names, attributions, tag.key);
            }
            kind::HOST => self.flows.outside_speaks(host, shared, tag.key, flags),
            kind::INSIDE => {
                self.flows.inside_speaks(host, shared, &mut self.attributions, tag.key);
            }
            kind::ECHO => self.echoes.reply(host, shared, tag.key, flags),
            kind::NAME => self.names.answer(host, shared, &mut self.attributions, tag.key),
            kind::CONNTRACK => self.attribute(host),
            _ => {}
        }
    }

    fn socket(&mut self, host: &mut EventLoop, key: Key, socket: Option<Socket>) {
        self.flows.promote(host, key, socket);
    }

    fn inbound(&mut self, host: &mut EventLoop, inbound: Inbound) {
        self.attributions.published(host.now(), inbound);
    }

    fn changed(&mut self, host: &mut EventLoop) {
        if self.follow_policy() {
            // What has been begun by somebody who is not known yet.
            self.judge_after = self.attributions.latest();
            self.judge_again(host);
            let in_force = self.shared.egress.shared();
            let known = &in_force.policies.known;
            for (query, sender) in self.attributions.unlisted.listed(|ip| known.contains_key(&ip)) {
                self.release(host, &query, sender);
            }
        }
    }

    fn turn(&mut self, host: &mut EventLoop) {
        self.names.tick(host, &self.shared, &mut self.attributions);
        if self.attributions.due().is_some_and(|due| due <= host.now()) {
            self.attribute(host);
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
        if self.shared.egress.depends_on_sender {
            self.flows.demote(now);
        }
        self.flows.expire(now);
        self.echoes.expire(now, &self.attributions.log);
        let mut check = AddressCheck::default();
        self.flows.leave_lost_addresses(host, &mut check);
        self.echoes.leave_lost_addresses(host, &mut check);
    }

    fn wake_at(&self) -> Option<Instant> {
        let is_busy = self.dials.len() + self.flows.descriptors() + self.echoes.len() > 0;
        let sweep = is_busy.then(|| self.swept + SWEEP_INTERVAL);
        sweep
            .into_iter()
            .chain(self.names.forwarder.deadline())
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
