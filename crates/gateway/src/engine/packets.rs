//! Packets of the target namespace: taken in, judged, and given to whoever is concerned.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use egress::Decision;
use netlink::conntrack::{Protocol, Query};
use relay::{EventLoop, RuleName};

use super::attribution::{Asking, Attributions, echo_request, outbound};
use super::egress_policy::Sender;
use super::parked::Added;
use super::{Engine, Shared};
use crate::packet::{self, Original, Packet};
use crate::policy::{self, Verdict};
use crate::shares::Holder;

/// Packets of a tun device at a time, and how many of them may begin something, which takes about 40 µs: everybody else
/// waits for that. Fewer at a time were not slower when measured (`bench --only policy`). While connections are made,
/// flows and pings leave them more turns. What has waited until its sender is known ([`super::parked`]) does not count: all
/// of that which an answer of the connection tracking is about begins at once.
const MAX_PACKETS_PER_TURN: usize = 64;
const MAX_BEGINNINGS_PER_TURN: u32 = 4;
const MAX_BEGINNINGS_BESIDE_CONNECTIONS: u32 = 1;
/// For how long after a packet of the other tun device that is so.
const CONNECTING_TIME: Duration = Duration::from_millis(10);

/// A port for rules about addresses: that of the echo service.
const ANY_PORT: u16 = 7;

/// A packet of the target namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived<'a> {
    pub(super) bytes: &'a [u8],
    /// It was put together from fragments.
    is_reassembled: bool,
    /// Who has sent it, if it has waited for that.
    pub(super) sender: Option<Sender>,
    /// It has waited behind another one between the same ends.
    is_behind: bool,
}

/// What becomes of something that begins.
#[derive(Debug)]
pub(super) enum Judged {
    /// It goes on, and so it is known who sends it, or that does not matter.
    Allowed(Option<Sender>),
    /// It comes again when its sender is known, or is lost.
    Waits,
    /// This rule forbids it, which its sender has been told.
    Denied(RuleName),
}

impl Shared {
    /// Judges something that begins by the egress policy. If its sender has to be known, it waits, and comes again.
    pub(super) fn judge(
        &self,
        attributions: &mut Attributions,
        now: Instant,
        attempt: &Query,
        arrived: Arrived<'_>,
    ) -> Judged {
        if self.egress.is_empty {
            return Judged::Allowed(arrived.sender);
        }
        let mut sender = arrived.sender;
        // Nothing may overtake packets between the same ends that wait already.
        let waits = sender.is_none() && attributions.waits(attempt);
        if !waits && let Some(decision) = self.egress.judge_for_all(attempt) {
            return self.decided(attributions, now, attempt, arrived, (sender, decision));
        }
        if self.egress.depends_on_sender {
            sender = self.sender(attributions, now, attempt, arrived);
            if sender.is_none() {
                return Judged::Waits;
            }
        }
        if let Some(sender) = sender.filter(|sender| self.egress.is_unlisted(*sender)) {
            let packet = (arrived.bytes, arrived.is_reassembled);
            if let Some(added) = attributions.unlisted.add(now, attempt, packet, sender) {
                if added == Added::Lost {
                    self.drop_packet();
                }
                return Judged::Waits;
            }
        }
        let source = attempt.outside.src.ip();
        let anybody = Sender { container: source, is_guess: false };
        let decision = self.egress.judge(now, sender.unwrap_or(anybody), attempt);
        self.decided(attributions, now, attempt, arrived, (sender, decision))
    }

    /// Carries out a decision about something that `sender` begins, if it is known.
    fn decided(
        &self,
        attributions: &mut Attributions,
        now: Instant,
        attempt: &Query,
        arrived: Arrived<'_>,
        (sender, decision): (Option<Sender>, Decision),
    ) -> Judged {
        self.statistics.judged(&decision);
        let name = |rule| RuleName::from(self.egress.policies.name_of(rule));
        let dry_run = decision.dry_run.filter(|_| decision.is_allowed());
        attributions.log.judged(dry_run.map(|rule| (*attempt, name(rule))));
        let Some(rule) = decision.denied_by.map(name) else { return Judged::Allowed(sender) };
        tracing::debug!("denied by the rule {rule}: {attempt:?}");
        let (original, by) = (Original::Packet(arrived.bytes), Some(RuleName::clone(&rule)));
        self.prohibit(attributions, now, *attempt, &original, by, sender);
        Judged::Denied(rule)
    }

    /// Who has sent a packet. `None` if it waits for that, or is lost.
    pub(super) fn sender(
        &self,
        attributions: &mut Attributions,
        now: Instant,
        query: &Query,
        arrived: Arrived<'_>,
    ) -> Option<Sender> {
        if arrived.sender.is_some() {
            return arrived.sender;
        }
        match attributions.find_sender(now, query, (arrived.bytes, arrived.is_reassembled)) {
            Asking::Waits => None,
            Asking::Lost => {
                self.drop_packet();
                None
            }
            Asking::Guess(sender) => Some(sender),
        }
    }

    /// Whether something goes on that begins now that there is no more room: it is known whose it is, or nobody can tell in
    /// time. If not, the packet waits.
    pub(super) fn knows_holder(
        &self,
        attributions: &mut Attributions,
        now: Instant,
        query: &Query,
        arrived: &mut Arrived<'_>,
    ) -> bool {
        if self.holder(query.outside.src.ip(), arrived.sender) != Holder::Pending {
            return true;
        }
        match attributions.find_sender(now, query, (arrived.bytes, arrived.is_reassembled)) {
            Asking::Waits => false,
            // It must not overtake what waits.
            Asking::Lost if attributions.waits(query) => {
                self.drop_packet();
                false
            }
            Asking::Lost => true,
            Asking::Guess(sender) => {
                arrived.sender = Some(sender);
                true
            }
        }
    }

    /// Whether a packet of a flow or ping goes on: if there is no more room (`crowded`), not before it is known whose it is,
    /// and if it begins something (`judged`), as the egress policy says.
    fn admit(
        &self,
        attributions: &mut Attributions,
        now: Instant,
        attempt: &Query,
        mut arrived: Arrived<'_>,
        (crowded, judged): (bool, bool),
    ) -> Judged {
        if crowded && !self.knows_holder(attributions, now, attempt, &mut arrived) {
            Judged::Waits
        } else if judged {
            self.judge(attributions, now, attempt, arrived)
        } else {
            Judged::Allowed(arrived.sender)
        }
    }

    /// Counts an attempt that a rule has denied, perhaps one of the egress policy, also for its container, and tells whoever
    /// has sent it.
    pub(super) fn prohibit(
        &self,
        attributions: &mut Attributions,
        now: Instant,
        attempt: Query,
        original: &Original<'_>,
        rule: Option<RuleName>,
        sender: Option<Sender>,
    ) {
        self.statistics.events().denied += 1;
        self.forbid(attempt.outside.src.ip(), original);
        attributions.denied(now, attempt, rule, sender);
    }
}

/// How much of a tun device may begin at a time, and `connected` when something came by the one of connections.
fn beginnings(is_dial: bool, now: Instant, connected: Option<Instant>) -> u32 {
    let ago = connected.map(|at| now.saturating_duration_since(at));
    let connecting = ago.is_some_and(|ago| ago < CONNECTING_TIME);
    let is_beside = connecting && !is_dial;
    if is_beside { MAX_BEGINNINGS_BESIDE_CONNECTIONS } else { MAX_BEGINNINGS_PER_TURN }
}

impl Engine {
    /// Takes packets of a tun device in: of the one of connections, or of the other.
    pub(super) fn drain(&mut self, host: &mut EventLoop, is_dial: bool) {
        // Out of its place while the rest is used with what it holds.
        let mut buffer = std::mem::take(&mut self.buffer);
        let before = self.attributions.begun;
        if is_dial {
            self.connected = Some(host.now());
        }
        let most = beginnings(is_dial, host.now(), self.connected);
        for _ in 0..MAX_PACKETS_PER_TURN {
            if self.attributions.begun.wrapping_sub(before) >= most {
                break;
            }
            let shared = &self.shared;
            let tun = if is_dial { &shared.dial } else { &shared.answers.tun };
            let Some(length) = tun.read(&mut buffer) else { break };
            self.packet(host, &buffer[..length]);
        }
        self.buffer = buffer;
    }

    fn packet(&mut self, host: &mut EventLoop, bytes: &[u8]) {
        let new = Arrived { bytes, is_reassembled: false, sender: None, is_behind: false };
        match packet::parse(bytes) {
            Ok(Packet::Fragment(fragment)) => {
                // Out of its place while the rest is used with what it gives.
                let mut reassembly = std::mem::take(&mut self.reassembly);
                if let Some(whole) = reassembly.add(host.now(), &fragment)
                    && let Ok(parsed) = packet::parse(whole)
                {
                    let new = Arrived { bytes: whole, is_reassembled: true, ..new };
                    self.whole(host, new, &parsed.reassembled());
                }
                self.reassembly = reassembly;
            }
            Ok(parsed) => self.whole(host, new, &parsed),
            Err(_) => self.shared.drop_packet(),
        }
    }

    /// Goes on with packets whose sender is known now.
    pub(super) fn release(&mut self, host: &mut EventLoop, query: &Query, sender: Sender) {
        let mut is_behind = false;
        for parked in self.attributions.take(query) {
            let (bytes, is_reassembled) = (&parked.bytes[..], parked.is_reassembled);
            let Ok(parsed) = packet::parse(bytes) else { continue };
            let parsed = if is_reassembled { parsed.reassembled() } else { parsed };
            let sender = Some(sender);
            self.whole(host, Arrived { bytes, is_reassembled, sender, is_behind }, &parsed);
            is_behind = true;
        }
    }

    fn whole(&mut self, host: &mut EventLoop, arrived: Arrived<'_>, parsed: &Packet<'_>) {
        let (shared, attributions) = (&self.shared, &mut self.attributions);
        let now = host.now();
        let original = Original::Packet(arrived.bytes);
        // A packet that waited for its sender is always judged.
        let asked = arrived.sender.is_some() && !arrived.is_behind;
        match parsed {
            Packet::Syn(syn) => {
                self.dials.syn(host, shared, &mut self.names, attributions, arrived, syn);
            }
            Packet::Udp(udp) => match policy::outbound(&shared.plan, Protocol::Udp, udp.dst) {
                Verdict::Dns => self.names.query(host, shared, attributions, arrived, udp),
                Verdict::Dial(to) => {
                    let ends = (udp.src, udp.dst, udp.payload);
                    let attempt = outbound(Protocol::Udp, udp.src, udp.dst);
                    let begins = self.flows.known(shared, attributions, now, ends).is_none();
                    let crowded = begins
                        && (attributions.waits(&attempt) || self.flows.must_wait(host, shared));
                    let new = (crowded, asked || begins);
                    match shared.admit(attributions, now, &attempt, arrived, new) {
                        Judged::Allowed(sender) => {
                            self.flows.outbound(host, shared, attributions, (udp, sender), to);
                        }
                        Judged::Waits => {}
                        Judged::Denied(rule) => self.flows.end_between(udp, rule),
                    }
                }
                Verdict::Deny(reason) => {
                    tracing::debug!("denied a datagram to {}: {reason}", udp.dst);
                    let attempt = outbound(Protocol::Udp, udp.src, udp.dst);
                    shared.prohibit(attributions, now, attempt, &original, None, None);
                }
            },
            Packet::Echo(echo) => {
                let dst = SocketAddr::new(echo.dst, ANY_PORT);
                let attempt = echo_request(echo.src, echo.dst, echo.id);
                match policy::outbound(&shared.plan, Protocol::Echo, dst) {
                    Verdict::Dial(to) if to.ip() == echo.dst => {
                        let begins = !self.echoes.knows(attributions, now, echo);
                        let crowded =
                            begins && (attributions.waits(&attempt) || self.echoes.is_full(host));
                        let new = (crowded, asked || begins);
                        match shared.admit(attributions, now, &attempt, arrived, new) {
                            Judged::Allowed(sender) => {
                                self.echoes.request(host, shared, attributions, (echo, sender));
                            }
                            Judged::Waits => {}
                            Judged::Denied(rule) => {
                                self.echoes.end_between(&attributions.log, echo, rule);
                            }
                        }
                    }
                    _ => shared.prohibit(attributions, now, attempt, &original, None, None),
                }
            }
            // The packet rules have found no connection for it; with a second look they may.
            Packet::Segment => shared.dial.write(arrived.bytes),
            Packet::Fragment(_) | Packet::Other => shared.drop_packet(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_flows_begin_at_a_time_while_connections_are_made() {
        let now = Instant::now();
        let (many, few) = (MAX_BEGINNINGS_PER_TURN, MAX_BEGINNINGS_BESIDE_CONNECTIONS);
        assert_eq!(beginnings(false, now, None), many);
        assert_eq!(beginnings(false, now, Some(now)), few);
        assert_eq!(beginnings(false, now + CONNECTING_TIME, Some(now)), many);
        assert_eq!(beginnings(true, now, Some(now)), many);
    }
}
