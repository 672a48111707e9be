//! Which container each connection, flow, ping and name query counts for.
//!
//! Packets do not wait to be attributed, unless a rule depends on who sends, or there is no more room and it has to be known
//! who makes some ([`super::parked`]). What begins is counted at
//! once for its destination or published port, and for its container as soon as the connection tracking has told
//! ([`crate::conntrack`]): while it is under way, or after its end, because the connection tracking remembers. So queries
//! are collected for a few milliseconds and sent together, which is what makes them cheap.
//!
//! A lookup fails if there is no answer in time, if nobody answers any more, or if too many are open. Then the sender is a
//! guess: the address in the packets. In the latter two cases it fails at once, so that nothing waits for an answer in vain.
//!
//! It forgets one thing at once: a connection whose only answer is a reset (`nf_conntrack_tcp_packet()`). So a reset for
//! the target namespace waits until the query is answered. A reset that comes back from a published port cannot wait; it
//! counts for the container that has answered at that port before.

mod answered;
mod senders;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::stats::ContainerEvents;
use netlink::conntrack::{Direction, Protocol, Query, Tuple};
use relay::flow_log::{FlowLog, FlowRecord};
use relay::slab::Key;
use relay::{Attribution, Inbound};

use super::Statistics;
use super::egress_policy::Sender;
use super::log::Log;
use super::parked::{MAX_WAITING, Parked};
use super::unlisted::Unlisted;
use crate::conntrack::{BATCH, Client, Outcome, Reply};
use crate::network_config::NetworkConfig;
use crate::packet::Syn;
use answered::Answered;
pub(super) use senders::Asking;

/// How long queries are collected. Docker makes the connection tracking forget a container after it has stopped it, which
/// takes longer.
const QUERY_DELAY: Duration = Duration::from_millis(5);
/// Replies take a few dozen microseconds, on a busy machine until the thread that answers gets its turn.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reset waits at most.
const RESET_TIMEOUT: Duration = Duration::from_millis(200);
/// After such a silence, a flow or ping may be another container's: the connection tracking forgets most of them after 30
/// seconds (`nf_conntrack_udp_timeout`, `nf_conntrack_icmp_timeout`).
pub(super) const TRACKED_TIME: Duration = Duration::from_secs(25);
/// How many queries can be open when one is begun for something that is only counted. Beyond that, it counts for the address
/// in the packet.
const MAX_COUNTED: usize = 3072;
/// The same for queries that packets wait for: there can be one for each packet that waits, and as many again whose packets
/// have made room for others.
const MAX_OPEN: usize = MAX_COUNTED + 2 * MAX_WAITING;
/// The connection tracking may not know a flow of datagrams to a published port yet when it is asked: how often it is
/// asked in all, and how long after an answer that did not help.
const PUBLISHED_ATTEMPTS: u32 = 4;
const PUBLISHED_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// An attempt that a rule has denied.
pub(super) const DENIED: ContainerEvents =
    ContainerEvents { denied: 1, dns_queries: 0, echo_requests: 0 };
/// A DNS query.
pub(super) const DNS_QUERY: ContainerEvents =
    ContainerEvents { denied: 0, dns_queries: 1, echo_requests: 0 };
/// An echo request.
pub(super) const ECHO_REQUEST: ContainerEvents =
    ContainerEvents { denied: 0, dns_queries: 0, echo_requests: 1 };

/// Something that goes on whose sender is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Ping(Key),
    /// A query to our name server, by its number.
    Name(u64),
}

/// What a query is about.
#[derive(Debug)]
enum Subject {
    /// A connection or flow out of the target namespace.
    Flow { source: IpAddr, udp: bool, attribution: Attribution },
    /// Something that is only counted, perhaps of a ping or name query that goes on.
    Events {
        source: IpAddr,
        events: ContainerEvents,
        of: Option<Entry>,
        record: Option<Box<FlowRecord>>,
    },
    /// Packets that wait for their sender to be known.
    Sender(Query),
    /// A connection or flow to a published port, and how often it was asked for.
    Published { inbound: Inbound, attempts: u32 },
}

#[derive(Debug)]
struct Open {
    since: Instant,
    subject: Subject,
    /// The connection was refused, and the target namespace has not heard of it.
    reset: Option<Syn>,
}

/// A connection or flow for whose container has been asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) attribution: Attribution,
    /// The number of the query; `None` if there is none.
    query: Option<u32>,
}

/// What the engine has to do after replies.
#[derive(Debug, Default)]
pub(super) struct Attributed {
    /// Those whose sender is known now, or cannot be found.
    pub(super) entries: Vec<(Entry, Sender)>,
    /// SYNs that are to be answered by a reset.
    pub(super) resets: Vec<Syn>,
    /// Senders that packets wait for.
    pub(super) senders: Vec<(Query, Sender)>,
}

/// What says that the connection tracking knows everybody who sends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tracked {
    /// It has known somebody, by [`Protocol`].
    found: [bool; 3],
    /// Docker has networks.
    pub(super) docker: bool,
}

/// The queries that are open.
#[derive(Debug)]
pub(super) struct Attributions {
    plan: NetworkConfig,
    statistics: Arc<Statistics>,
    pub(super) log: Log,
    /// `None` if nobody answers.
    client: Option<Client>,
    /// How much has begun so far, or has been counted.
    pub(super) begun: u32,
    /// In the order of their numbers, without a gap; the first one's is `first`.
    open: VecDeque<Open>,
    first: u32,
    /// When collected queries are to be sent.
    send_at: Option<Instant>,
    /// Whether the latest query was answered in time.
    responsive: bool,
    /// Queries whose reset waits, and until when, in the order of time.
    resets: VecDeque<(Instant, u32)>,
    /// What has gone to published ports and is to be asked for once more, how often it was, and when, in the order of time.
    again: VecDeque<(Instant, (Inbound, u32))>,
    answered: Answered,
    pub(super) parked: Parked,
    pub(super) unlisted: Unlisted,
    /// Of each family, what says that the connection tracking knows everybody.
    pub(super) ipv4: Tracked,
    pub(super) ipv6: Tracked,
}

impl Attributions {
    pub(super) fn new(
        client: Client,
        plan: NetworkConfig,
        statistics: Arc<Statistics>,
        flow_log: Arc<FlowLog>,
    ) -> Self {
        Self {
            plan,
            statistics,
            log: Log::new(flow_log),
            client: Some(client),
            begun: 0,
            open: VecDeque::new(),
            first: 0,
            send_at: None,
            responsive: true,
            resets: VecDeque::new(),
            again: VecDeque::new(),
            answered: Answered::default(),
            parked: Parked::new(MAX_WAITING, false),
            unlisted: Unlisted::default(),
            ipv4: Tracked::default(),
            ipv6: Tracked::default(),
        }
    }

    pub(super) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Returns the number of the query. If nobody can be asked, the lookup has failed at once, and this is what comes of that.
    fn ask(&mut self, now: Instant, query: &Query, subject: Subject) -> Result<u32, Attributed> {
        // What packets wait for goes before what is only counted.
        let most = if matches!(subject, Subject::Sender(_)) { MAX_OPEN } else { MAX_COUNTED };
        let has_room = self.has_room(most);
        let Some(client) = self.client.as_mut().filter(|_| has_room) else {
            let mut attributed = Attributed::default();
            self.attribute(now, subject, Outcome::Failed, &mut attributed);
            return Err(attributed);
        };
        let number = client.ask(query);
        if self.open.is_empty() {
            self.first = number;
        }
        self.open.push_back(Open { since: now, subject, reset: None });
        self.send_at.get_or_insert(now + QUERY_DELAY);
        Ok(number)
    }

    /// Whether fewer than `most` queries are open.
    fn has_room(&self, most: usize) -> bool {
        let unsent = self.client.as_ref().map_or(0, Client::unsent);
        self.open.len().max(unsent) < most
    }

    /// Has the reset of a connection wait until its query is answered. False if it need not.
    pub(super) fn hold(&mut self, now: Instant, asked: &Asked, syn: &Syn) -> bool {
        let Some(number) = asked.query.filter(|_| self.responsive) else { return false };
        let Some(open) = self.get(number) else { return false };
        open.reset = Some(*syn);
        self.resets.push_back((now + RESET_TIMEOUT, number));
        self.send_at = Some(now);
        true
    }

    fn get(&mut self, number: u32) -> Option<&mut Open> {
        let place = usize::try_from(number.wrapping_sub(self.first)).ok()?;
        self.open.get_mut(place)
    }

    /// Sends the queries if it is time, or enough have been collected.
    pub(super) fn send(&mut self, now: Instant) {
        let parked = [&mut self.parked, &mut self.unlisted.parked];
        let pushed_out: u64 = parked.map(Parked::take_pushed_out).into_iter().sum();
        if pushed_out > 0 {
            self.statistics.events().dropped += pushed_out;
        }
        let Some(client) = &mut self.client else { return };
        let due = self.send_at.is_some_and(|due| due <= now);
        if !due && client.unsent() < BATCH {
            return;
        }
        match client.send() {
            Ok(()) => self.send_at = (client.unsent() > 0).then_some(now + QUERY_DELAY),
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, error: &std::io::Error) {
        tracing::debug!("statistics per container are no longer available: {error}");
        (self.client, self.send_at) = (None, None);
    }

    /// Takes in replies, and gives up what has waited long enough.
    pub(super) fn receive(&mut self, now: Instant) -> Attributed {
        let mut attributed = Attributed::default();
        while let Some(client) = &mut self.client {
            match client.replies() {
                Ok(None) => break,
                Ok(Some(replies)) => {
                    for Reply { number, outcome, .. } in replies {
                        self.answer(now, number, outcome, &mut attributed);
                    }
                }
                Err(error) => self.give_up(&error),
            }
        }
        let late = |open: &Open| open.since + REPLY_TIMEOUT <= now;
        while self.open.front().is_some_and(|open| late(open) || self.client.is_none()) {
            self.responsive = false;
            // They are as old as this one, or there is no room for them either.
            self.client.iter_mut().for_each(Client::discard);
            self.end_first(now, Outcome::Failed, &mut attributed);
        }
        while let Some(number) = next_due(&mut self.resets, now) {
            attributed.resets.extend(self.get(number).and_then(|open| open.reset.take()));
        }
        while let Some((inbound, attempts)) = next_due(&mut self.again, now) {
            self.ask_who_answers(now, inbound, attempts);
        }
        attributed.senders.extend(self.unlisted.late(now));
        attributed
    }

    /// Queries are answered in their order: those before this one have no reply.
    fn answer(&mut self, now: Instant, number: u32, outcome: Outcome, attributed: &mut Attributed) {
        if self.get(number).is_none() {
            return;
        }
        self.responsive = true;
        while self.first != number {
            self.end_first(now, Outcome::Failed, attributed);
        }
        self.end_first(now, outcome, attributed);
    }

    fn end_first(&mut self, now: Instant, outcome: Outcome, attributed: &mut Attributed) {
        let Some(Open { subject, reset, .. }) = self.open.pop_front() else { return };
        self.first = self.first.wrapping_add(1);
        attributed.resets.extend(reset);
        self.attribute(now, subject, outcome, attributed);
    }

    /// Counts a subject for whom it is of, as far as that is known.
    fn attribute(
        &mut self,
        now: Instant,
        subject: Subject,
        outcome: Outcome,
        attributed: &mut Attributed,
    ) {
        let failed = outcome == Outcome::Failed;
        if let Subject::Flow { attribution, .. } = &subject
            && failed
        {
            attribution.doubt();
            if attribution.stay() {
                return;
            }
        }
        if failed {
            self.statistics.events().unattributed += 1;
        }
        let found = if let Outcome::Found(ip) = outcome { Some(ip) } else { None };
        match subject {
            Subject::Flow { source, udp, attribution } => {
                let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                let Sender { container, is_guess } = self.sender(outcome, source, protocol);
                if is_guess {
                    attribution.doubt();
                }
                attribution.to(container, self.statistics.outbound(container, udp));
            }
            Subject::Sender(query) => {
                let sender = self.sender(outcome, query.outside.src.ip(), query.protocol);
                attributed.senders.push((query, sender));
            }
            Subject::Events { source, events, of, record } => {
                let container = found.unwrap_or(source);
                self.statistics.of(container, |sum| *sum = *sum + events);
                if let Some(record) = record {
                    let container = Some(container);
                    self.log.flows.push(FlowRecord { container, ..*record });
                }
                if let Some(of) = of {
                    let is_ping = matches!(of, Entry::Ping(_));
                    let protocol = if is_ping { Protocol::Echo } else { Protocol::Udp };
                    attributed.entries.push((of, self.sender(outcome, source, protocol)));
                }
            }
            Subject::Published { inbound, attempts } => {
                let unknown = outcome == Outcome::Unknown && inbound.udp;
                if unknown && attempts < PUBLISHED_ATTEMPTS && self.again.len() < MAX_OPEN {
                    let due = now + PUBLISHED_RETRY_INTERVAL;
                    return self.again.push_back((due, (inbound, attempts)));
                }
                let container = self.answered.who_answers(&self.plan, &inbound, found);
                let traffic = self.statistics.published(container, inbound.udp);
                inbound.attribution.to(container, traffic);
            }
        }
    }

    /// When [`Attributions::receive`] has something to do even without a reply.
    pub(super) fn due(&self) -> Option<Instant> {
        // When nobody answers any more, what is open is given up at once.
        let patience = if self.client.is_some() { REPLY_TIMEOUT } else { Duration::ZERO };
        let late = self.open.front().map(|open| open.since + patience);
        let reset = self.resets.front().map(|(due, _)| *due);
        let again = self.again.front().map(|(due, _)| *due);
        late.into_iter().chain(reset).chain(again).chain(self.unlisted.due()).min()
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.due().into_iter().chain(self.send_at).min()
    }
}

fn next_due<T>(queue: &mut VecDeque<(Instant, T)>, now: Instant) -> Option<T> {
    queue.front().filter(|(due, _)| *due <= now)?;
    queue.pop_front().map(|(_, one)| one)
}

/// Who has sent this out of the target namespace?
pub(super) fn outbound(protocol: Protocol, src: SocketAddr, dst: SocketAddr) -> Query {
    Query { protocol, direction: Direction::Outbound, outside: Tuple { src, dst } }
}

/// The same of an echo request with this identifier.
pub(super) fn echo_request(src: IpAddr, dst: IpAddr, id: u16) -> Query {
    let [src, dst] = [src, dst].map(|ip| SocketAddr::new(ip, id));
    outbound(Protocol::Echo, src, dst)
}

#[cfg(test)]
mod tests;
