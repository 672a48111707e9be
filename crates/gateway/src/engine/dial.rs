//! Connections to the outside, from their SYN to the moment when relay takes over.
//!
//! ```text
//!   SYN ─▶ Calling ──connected──▶ Given (the SYN went back) ──accepted──▶ relay
//!             └──failed──▶ the same answer for the target namespace: reset, unreachable, or silence
//! ```
//!
//! The target namespace says "connected" only after the destination did. The target namespace repeats its SYN
//! meanwhile, which finds the entry and only says that somebody still waits; one that nobody repeats any more is given
//! up.
//!
//! What may be under way is shared by all containers ([`crate::shares`]). When there is no more room, a SYN takes the place
//! of whoever has the most. Sometimes it waits until its own sender is known: [`Dials::must_wait`].

mod call;
mod room;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink::conntrack::{Protocol::Tcp, Query};
use nix::libc;
use relay::flow_log::FlowEnd;
use relay::room::Use;
use relay::slab::{Key, Slab};
use relay::{Counted, EventLoop, Traffic, connect_outcome, refuse_self_connection};
use socket2::Socket;

use super::answers::errno;
use super::attribution::{Asked, Attributions, outbound};
use super::names::Names;
use super::{Arrived, Judged, Shared};
use crate::packet::{Original, Syn};
use crate::policy::{self, Verdict};
use crate::shares::{FEW, FairQueue, Holder, Lookups, RateLimit};
use call::{call, full, is_refusal, refuse, watch};
use room::Full;

/// The longest SYN that is kept, in bytes. Ordinary ones have 60 to 80; TCP Fast Open adds a segment of data.
const MAX_SYN_BYTES: usize = 4096;
/// How long listeners rest when descriptors or memory have run out.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How long nobody repeats a SYN before it is given up: Linux repeats it after 1, 3, 7, 15, 31 and 63 s (tcp(7),
/// `tcp_syn_retries`).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(70);
/// How long the target namespace may take to finish a connection that the destination has accepted.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ACCEPTS_PER_TURN: usize = 64;

/// Both ends as the target namespace sees them.
type Ends = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Dial {
    /// The packet, for the way back.
    packet: Box<[u8]>,
    syn: Syn,
    /// The destination as the host sees it.
    to: SocketAddr,
    outside: Socket,
    /// Whether the SYN went back.
    given: bool,
    /// Place in the order of first SYNs.
    number: u64,
    counts_for: CountsFor,
    born: Instant,
    /// When somebody last wanted this.
    seen: Instant,
    /// For connections to our name server: those of the host that have been tried.
    tried: Option<Vec<SocketAddr>>,
    traffic: Arc<Traffic>,
    asked: Asked,
}

/// Whose share it counts for, of all connections and of those to its destination.
#[derive(Clone, Copy, Debug)]
struct CountsFor {
    all: Holder,
    to_one: Holder,
}

impl Dial {
    /// Counts it as one that came to nothing.
    fn fail(&self, end: FlowEnd) {
        self.traffic.fail();
        self.asked.attribution.fail(end);
    }
}

#[derive(Debug, Default)]
pub(super) struct Dials {
    table: Slab<Dial>,
    index: HashMap<Ends, Key>,
    /// By who makes them, in the order of their first SYN.
    queue: FairQueue<Key>,
    /// The same of each destination.
    to_one: HashMap<SocketAddr, FairQueue<Key>>,
    lookups: Lookups<Key>,
    rate_limit: RateLimit,
    started: u64,
    /// When listeners are to be tried again.
    pub(super) accept_at: Option<Instant>,
}

impl Dials {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Descriptors held, and those that their other ends will take.
    pub(super) fn descriptors(&self) -> usize {
        2 * self.table.len()
    }

    pub(super) fn syn(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        names: &mut Names,
        attributions: &mut Attributions,
        mut arrived: Arrived<'_>,
        syn: &Syn,
    ) {
        let packet = arrived.bytes;
        if packet.len() > MAX_SYN_BYTES {
            return shared.drop_packet();
        }
        let known = self.index.get(&ends(syn)).copied();
        let known = known.filter(|key| {
            // Perhaps another container's, which has to be judged.
            let same = |dial: &Dial| dial.syn.seq == syn.seq;
            let goes_on =
                !shared.egress.depends_on_sender || self.table.get(*key).is_some_and(same);
            goes_on || !self.give_up(*key, FlowEnd::ClientReset)
        });
        if let Some(dial) = known.and_then(|key| self.table.get_mut(key)) {
            // Perhaps a new attempt from the same port, with another sequence number.
            if dial.syn.seq != syn.seq {
                (dial.packet, dial.syn) = (packet.into(), *syn);
            }
            dial.seen = host.now();
            if dial.given {
                shared.dial.write(packet);
            }
            return;
        }
        let verdict = policy::outbound(&shared.plan, Tcp, syn.dst);
        if !matches!(verdict, Verdict::Deny(_))
            && self.full(host, syn.dst).is_some_and(|what| self.must_wait(shared, what, host.now()))
            && !shared.knows_holder(attributions, host.now(), &attempt(syn), &mut arrived)
        {
            return;
        }
        let (to, tried, sender) = match verdict {
            Verdict::Dial(to) => {
                match shared.judge(attributions, host.now(), &attempt(syn), arrived) {
                    Judged::Allowed(sender) => (to, None, sender),
                    Judged::Waits | Judged::Denied(_) => return,
                }
            }
            Verdict::Dns => match names.resolver(host.now(), &[]) {
                Some(to) => (to, Some(vec![to]), arrived.sender),
                None => return shared.answers.reset(syn),
            },
            Verdict::Deny(reason) => {
                tracing::debug!("denied a connection to {}: {reason}", syn.dst);
                let original = Original::Packet(packet);
                let (now, attempt) = (host.now(), attempt(syn));
                return shared.prohibit(attributions, now, attempt, &original, None, None);
            }
        };
        let holder = shared.holder(syn.src.ip(), sender);
        if let Some(what) = self.full(host, syn.dst) {
            shared.statistics.events().evicted += 1;
            if !self.make_room(shared, what, syn.dst, holder, host.now()) {
                if what == Full::Descriptors {
                    full(host);
                }
                return;
            }
        } else if !host.take(Use::Out, 2) {
            return;
        }
        let traffic = shared.statistics.tcp(syn.dst);
        let now = host.now();
        let asked = attributions.flow(now, attempt(syn), sender);
        match call(to) {
            Ok(outside) => {
                self.started += 1;
                let dial = Dial {
                    packet: packet.into(),
                    syn: *syn,
                    to,
                    outside,
                    given: false,
                    number: self.started,
                    counts_for: CountsFor { all: holder, to_one: holder },
                    born: now,
                    seen: now,
                    tried,
                    traffic,
                    asked,
                };
                self.insert(host, shared, dial);
            }
            Err(e) => {
                traffic.fail();
                asked.attribution.fail(FlowEnd::of(errno(&e)));
                if !(is_refusal(&e) && attributions.hold(now, &asked, syn)) {
                    refuse(shared, packet, syn, &e);
                }
            }
        }
    }

    fn insert(&mut self, host: &EventLoop, shared: &Shared, dial: Dial) {
        let holder = shared.holder_of(dial.syn.src.ip(), &dial.asked.attribution);
        let (ends, number) = (ends(&dial.syn), dial.number);
        let key = self.table.insert(dial);
        self.index.insert(ends, key);
        let to_one = self.to_one.entry(ends.1).or_default();
        let (all, to_one) =
            (self.queue.insert(holder, number, key), to_one.insert(holder, number, key));
        if let Some(dial) = self.table.get_mut(key) {
            dial.counts_for = CountsFor { all, to_one };
        }
        if holder == Holder::Pending {
            self.lookups.push(key);
        }
        self.reassign_next(shared, FEW);
        let Some(dial) = self.table.get(key) else { return };
        if let Err(e) = watch(host, &dial.outside, key) {
            tracing::debug!("cannot watch a connection: {e}");
            self.give_up(key, FlowEnd::Failed);
        }
    }

    /// The host's side has something to say: connected, or not.
    pub(super) fn connected(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        names: &mut Names,
        attributions: &mut Attributions,
        key: Key,
    ) {
        let Some(dial) = self.table.get_mut(key).filter(|dial| !dial.given) else { return };
        let Some(outcome) = connect_outcome(&dial.outside) else { return };
        match outcome.and_then(|()| refuse_self_connection(&dial.outside, dial.to)) {
            Ok(()) => {
                (dial.given, dial.seen) = (true, host.now());
                shared.dial.write(&dial.packet);
            }
            Err(errno) => {
                if self.try_next_resolver(host, names, key) {
                    return;
                }
                let Some(dial) = self.remove(key) else { return };
                let error = io::Error::from(errno);
                dial.fail(FlowEnd::of(errno));
                if !(is_refusal(&error) && attributions.hold(host.now(), &dial.asked, &dial.syn)) {
                    refuse(shared, &dial.packet, &dial.syn, &error);
                }
            }
        }
    }

    /// A connection to our name server that one of the host's refused goes to the next.
    fn try_next_resolver(&mut self, host: &EventLoop, names: &mut Names, key: Key) -> bool {
        let Some(dial) = self.table.get_mut(key) else { return false };
        let Some(tried) = &mut dial.tried else { return false };
        if let Some(last) = tried.last() {
            names.forwarder.resolver_failed(host.now(), *last);
        }
        let Some(to) = names.resolver(host.now(), tried) else { return false };
        tried.push(to);
        let Ok(outside) = call(to) else { return false };
        // The failed one leaves the event loop by being closed.
        (dial.to, dial.outside) = (to, outside);
        watch(host, &dial.outside, key).is_ok()
    }

    /// Connections that tproxy has led to a listener of the gateway namespace. Listeners are edge-triggered: what is
    /// left is taken at [`Dials::accept_at`].
    pub(super) fn accept(&mut self, host: &mut EventLoop, listeners: &[Socket]) {
        for listener in listeners {
            self.accept_from(host, listener);
        }
    }

    fn accept_from(&mut self, host: &mut EventLoop, listener: &Socket) {
        for _ in 0..MAX_ACCEPTS_PER_TURN {
            let (inside, peer) = match listener.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) => {
                    tracing::debug!("cannot accept a connection in the gateway namespace: {e}");
                    self.accept_at = Some(host.now() + ACCEPT_RETRY_INTERVAL);
                    return;
                }
            };
            let local = inside.local_addr().ok().and_then(|a| a.as_socket());
            let ends = peer.as_socket().zip(local);
            let key = ends.and_then(|ends| self.index.get(&ends).copied());
            let dial = key.and_then(|key| self.remove(key));
            match dial {
                Some(dial) if dial.given => {
                    let Dial { outside, traffic, asked, .. } = dial;
                    let counted = Counted::open(traffic).attributed(asked.attribution);
                    if let Err(e) = host.relay(inside, outside, counted) {
                        tracing::debug!("lost a connection: {e}");
                    }
                }
                // Of a predecessor's time, or given up meanwhile: a reset says so.
                _ => drop(inside.set_linger(Some(Duration::ZERO))),
            }
        }
        self.accept_at = Some(host.now());
    }

    pub(super) fn accepts_again(&mut self, now: Instant) -> bool {
        self.accept_at.take_if(|at| *at <= now).is_some()
    }

    /// Gives up what nobody waits for any more.
    pub(super) fn expire(&mut self, now: Instant) {
        let expired = |dial: &Dial| {
            let limit = if dial.given { ACCEPT_TIMEOUT } else { HANDSHAKE_TIMEOUT };
            now.saturating_duration_since(dial.seen) > limit
        };
        let old = self.table.iter().filter(|(_, dial)| expired(dial)).map(|(key, _)| key);
        for key in old.collect::<Vec<_>>() {
            self.give_up(key, FlowEnd::TimedOut);
        }
    }

    /// Gives up what the egress policy does not allow any more.
    pub(super) fn end_denied(&mut self, shared: &Shared) {
        let to_others = self.table.iter().filter(|(_, dial)| dial.tried.is_none());
        let denied = to_others.filter_map(|(key, dial)| {
            let opened = dial.asked.attribution.opened_by()?;
            Some((key, shared.egress.denied_by(egress::Protocol::Tcp, &opened)?))
        });
        for (key, rule) in denied.collect::<Vec<_>>() {
            let Some(dial) = self.remove(key) else { continue };
            dial.traffic.fail();
            dial.asked.attribution.deny(rule);
            shared.forbid(dial.syn.src.ip(), &Original::Packet(&dial.packet));
        }
    }

    fn give_up(&mut self, key: Key, end: FlowEnd) -> bool {
        let dial = self.remove(key);
        dial.inspect(|dial| dial.fail(end)).is_some()
    }

    fn remove(&mut self, key: Key) -> Option<Dial> {
        let dial = self.table.remove(key)?;
        self.index.remove(&ends(&dial.syn));
        self.queue.remove(dial.counts_for.all, dial.number);
        if let Some(to_one) = self.to_one.get_mut(&dial.syn.dst) {
            to_one.remove(dial.counts_for.to_one, dial.number);
            if to_one.is_empty() {
                self.to_one.remove(&dial.syn.dst);
            }
        }
        Some(dial)
    }
}

/// As the connection tracking of the target namespace knows it.
fn attempt(syn: &Syn) -> Query {
    outbound(Tcp, syn.src, syn.dst)
}

fn ends(syn: &Syn) -> Ends {
    (syn.src, syn.dst)
}
