//! What begins: who sends it, asked before it goes on or while it does.

use std::net::IpAddr;
use std::time::Instant;

use api::stats::ContainerEvents;
use netlink::conntrack::{Protocol, Query};
use relay::flow_log::FlowEnd;
use relay::{Attribution, RuleName};

use super::{Asked, Attributed, Attributions, DENIED, Entry, MAX_OPEN, Subject};
use crate::conntrack::Outcome;
use crate::engine::egress_policy::Sender;
use crate::engine::parked::{Added, Packet};

/// What becomes of a packet whose sender has to be known.
#[derive(Debug)]
pub(in crate::engine) enum Asking {
    /// It waits, and comes back with [`Attributed::senders`].
    Waits,
    /// There is no room for it.
    Lost,
    /// Nobody can be asked.
    Guess(Sender),
}

impl Attributions {
    /// Whom the connection tracking has found for packets with this source.
    pub(super) fn sender(
        &mut self,
        outcome: Outcome,
        source: IpAddr,
        protocol: Protocol,
    ) -> Sender {
        let own = self.plan.is_child(source);
        let tracked = if source.is_ipv4() { &mut self.ipv4 } else { &mut self.ipv6 };
        let found = &mut tracked.found[protocol as usize];
        *found |= matches!(outcome, Outcome::Found(_));
        let is_masquerade = own && (*found || tracked.docker);
        Sender::found(outcome, source, is_masquerade)
    }

    /// Has a packet wait until its sender is known.
    pub(in crate::engine) fn find_sender(
        &mut self,
        now: Instant,
        query: &Query,
        (packet, is_reassembled): (&[u8], bool),
    ) -> Asking {
        if self.client.is_none() {
            let (source, protocol) = (query.outside.src.ip(), query.protocol);
            return Asking::Guess(self.sender(Outcome::Failed, source, protocol));
        }
        if !self.has_room(MAX_OPEN) {
            return Asking::Lost;
        }
        let outside = query.outside;
        let source = outside.src.ip();
        let address = if self.plan.is_child(source) { outside.dst.ip() } else { source };
        let listing = self.unlisted.parked.has(query);
        let parked = if listing { &mut self.unlisted.parked } else { &mut self.parked };
        match parked.add(query, address, packet, is_reassembled) {
            Added::First => {
                drop(self.ask(now, query, Subject::Sender(*query)));
                self.send_at = Some(now);
                Asking::Waits
            }
            Added::Another => Asking::Waits,
            Added::Lost => Asking::Lost,
        }
    }

    /// Whether packets between these ends wait.
    pub(in crate::engine) fn waits(&self, query: &Query) -> bool {
        self.parked.has(query) || self.unlisted.parked.has(query)
    }

    /// The packets between these ends, in their order, which wait no longer.
    pub(in crate::engine) fn take(&mut self, query: &Query) -> Vec<Packet> {
        let mut packets = self.parked.take(query);
        packets.extend(self.unlisted.parked.take(query));
        packets
    }

    /// A connection or flow out of the target namespace. Who has opened it is asked for unless that is known.
    pub(in crate::engine) fn flow(
        &mut self,
        now: Instant,
        query: Query,
        sender: Option<Sender>,
    ) -> Asked {
        self.begun = self.begun.wrapping_add(1);
        let attribution = Attribution::logged(&self.log.flows, self.log.start(now, &query));
        let query = self.flow_again(now, query, attribution.clone(), sender);
        Asked { attribution, query }
    }

    /// A flow that goes on after a silence, in which the connection tracking may have forgotten whose it was. Returns the
    /// number of the query.
    pub(in crate::engine) fn flow_again(
        &mut self,
        now: Instant,
        query: Query,
        attribution: Attribution,
        sender: Option<Sender>,
    ) -> Option<u32> {
        let udp = query.protocol == Protocol::Udp;
        let Some(Sender { container, is_guess }) = sender else {
            let source = query.outside.src.ip();
            return self.ask(now, &query, Subject::Flow { source, udp, attribution }).ok();
        };
        if is_guess {
            attribution.doubt();
        }
        attribution.to(container, self.statistics.outbound(container, udp));
        None
    }

    /// Counts something that leaves the target namespace, perhaps of something that goes on. With an `end`, it is an attempt
    /// that nothing comes of. Returns a guess at who sends what goes on, if nobody can be asked.
    pub(in crate::engine) fn count(
        &mut self,
        now: Instant,
        query: Query,
        events: ContainerEvents,
        of: Option<Entry>,
        end: Option<FlowEnd>,
    ) -> Option<Sender> {
        self.begun = self.begun.wrapping_add(1);
        let source = query.outside.src.ip();
        let record = end.and_then(|end| self.log.attempt(now, &query, end, None));
        let attributed =
            self.ask(now, &query, Subject::Events { source, events, of, record }).err()?;
        attributed.entries.first().map(|(_, sender)| *sender)
    }

    /// Counts an attempt that a rule has denied, perhaps one of a policy.
    pub(in crate::engine) fn denied(
        &mut self,
        now: Instant,
        query: Query,
        rule: Option<RuleName>,
        sender: Option<Sender>,
    ) {
        let record = self.log.attempt(now, &query, FlowEnd::Denied, rule);
        let (source, of) = (query.outside.src.ip(), None);
        let subject = Subject::Events { source, events: DENIED, of, record };
        match sender {
            Some(Sender { container, .. }) => {
                let outcome = Outcome::Found(container);
                self.attribute(now, subject, outcome, &mut Attributed::default());
            }
            None => drop(self.ask(now, &query, subject)),
        }
    }

    /// The latest query that is open.
    pub(in crate::engine) fn latest(&self) -> Option<u32> {
        let behind = u32::try_from(self.open.len().checked_sub(1)?).ok()?;
        Some(self.first.wrapping_add(behind))
    }

    /// Whether a query is over.
    pub(in crate::engine) fn is_over(&self, number: u32) -> bool {
        let place = usize::try_from(number.wrapping_sub(self.first));
        place.is_ok_and(|place| place >= self.open.len())
    }
}
