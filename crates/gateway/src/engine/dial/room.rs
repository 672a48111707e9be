//! How many connections may be under way, and whose makes room for another one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use relay::EventLoop;
use relay::flow_log::FlowEnd;
use relay::room::Use;
use relay::slab::Key;

use super::super::Shared;
use super::{Dial, Dials};
use crate::shares::{ALL, FairQueue, Holder, Lookup, RateLimit};

/// Connections that are being made at a time, and those of them to one destination. Beyond that the oldest of whoever has
/// the most makes room: a flood is older on average than a connection that will succeed. For another one of a sender that has
/// about as much, it does so no faster than a [`RateLimit`] allows: to ignore a SYN costs little beside starting anew, and others
/// are waiting behind a flood.
const MAX_DIALS: usize = 4096;
const MAX_DIALS_TO_ONE: usize = 1024;
/// How old a connection must be before it makes room for a sender that has about as much, at the limit for one destination.
/// Two senders that replaced each other at once would never get a connection.
const MIN_AGE_TO_ONE: Duration = Duration::from_secs(1);
/// The same at the other limits. A burst would otherwise replace each connection before it is made where descriptors allow few.
const MIN_AGE: Duration = Duration::from_millis(100);

/// What there is no room in for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Destination,
    Table,
    Descriptors,
}

impl Dials {
    /// Counts the next connections whose sender has been found for it, at most `most`.
    pub(super) fn reassign_next(&mut self, shared: &Shared, most: usize) {
        let opened_by = |dial: &Dial| shared.lookup(dial.asked.attribution.opened_by());
        for _ in 0..most {
            let lookup = |key| self.table.get(key).map_or(Lookup::Gone, opened_by);
            let Some((key, holder)) = self.lookups.next(lookup) else { break };
            self.reassign(key, holder);
        }
    }

    /// Notes whose a connection is.
    fn reassign(&mut self, key: Key, holder: Holder) {
        let Some(dial) = self.table.get_mut(key) else { return };
        let (number, counts_for) = (dial.number, &mut dial.counts_for);
        let to_one =
            self.to_one.get_mut(&dial.syn.dst).map(|queue| (queue, &mut counts_for.to_one));
        for (queue, of) in [(&mut self.queue, &mut counts_for.all)].into_iter().chain(to_one) {
            queue.remove(*of, number);
            *of = queue.insert(holder, number, key);
        }
    }

    /// What there is no room in for another connection, if anything.
    pub(super) fn full(&self, host: &EventLoop, dst: SocketAddr) -> Option<Full> {
        if self.to_one.get(&dst).is_some_and(|queue| queue.len() >= MAX_DIALS_TO_ONE) {
            Some(Full::Destination)
        } else if self.table.len() >= MAX_DIALS {
            Some(Full::Table)
        } else {
            (!host.fits(Use::Out, 2)).then_some(Full::Descriptors)
        }
    }

    /// Whether a SYN waits until its sender is known, now that there is no more room. It does not wait if only the table is
    /// full, a known sender has the most, and there is a token: then it begins whoever has sent it.
    pub(super) fn must_wait(&mut self, shared: &Shared, what: Full, now: Instant) -> bool {
        self.reassign_next(shared, ALL);
        let known = self.queue.victim(Holder::Pending);
        let known = known.is_some_and(|(of, _)| matches!(of, Holder::Sender(_)));
        what != Full::Table || !self.rate_limit.has_token(now) || !known
    }

    /// Gives up a connection in favour of a new one of `newcomer`: the oldest of whoever has the most, if it is old enough and
    /// the rate limit allows it. False if there is none.
    pub(super) fn make_room(
        &mut self,
        shared: &Shared,
        what: Full,
        dst: SocketAddr,
        newcomer: Holder,
        now: Instant,
    ) -> bool {
        self.reassign_next(shared, ALL);
        let to_one = || self.to_one.get(&dst);
        let queue = if what == Full::Destination { to_one() } else { Some(&self.queue) };
        let Some(victim) = queue.and_then(|queue| victim(queue, what, newcomer)) else {
            return false;
        };
        let Some(dial) = self.table.get(victim.key) else { return false };
        let age = now.saturating_duration_since(dial.born);
        victim.makes_room(age, &mut self.rate_limit, newcomer, now)
            && self.give_up(victim.key, FlowEnd::Evicted)
    }
}

/// The connection that makes room for a new one.
struct Victim<K> {
    key: K,
    /// How old it has to be.
    min_age: Duration,
    /// See [`Occupancy::needs_token`](crate::shares::Occupancy::needs_token).
    needs_token: bool,
}

impl<K> Victim<K> {
    /// Whether it makes room at this age.
    fn makes_room(
        &self,
        age: Duration,
        rate_limit: &mut RateLimit,
        newcomer: Holder,
        now: Instant,
    ) -> bool {
        age >= self.min_age && rate_limit.allows(self.needs_token, newcomer, now)
    }
}

/// Chooses the connection that makes room for a new one of `newcomer`.
fn victim<K: Copy>(queue: &FairQueue<K>, what: Full, newcomer: Holder) -> Option<Victim<K>> {
    let (of, key) = queue.victim(newcomer)?;
    let occupancy = queue.occupancy();
    let has_clearly_more = of != Holder::Pending && occupancy.has_clearly_more(of, newcomer);
    let min_age = match what {
        _ if has_clearly_more => Duration::ZERO,
        Full::Destination => MIN_AGE_TO_ONE,
        // Perhaps it is of many.
        Full::Table if !matches!(of, Holder::Sender(_)) => Duration::ZERO,
        Full::Descriptors | Full::Table => MIN_AGE,
    };
    Some(Victim { key, min_age, needs_token: occupancy.needs_token(of, newcomer) })
}

#[cfg(test)]
mod tests;
