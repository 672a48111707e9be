//! How many connections may be under way, and whose makes room for another one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use relay::EventLoop;
use relay::flow_log::FlowEnd;
use relay::room::Use;
use relay::slab::Key;

use super::super::Shared;
use super::{Dial, Dials};
use crate::shares::{ALL, FairQueue, Holder, Lookup};

/// Connections that are being made at a time, and those of them to one destination. Beyond that the oldest of whoever has
/// the most makes room: a flood is older on average than a connection that will succeed. For another one of a sender that has
/// about as much only after a second: to ignore a SYN costs little beside starting anew, others are waiting behind a flood, and
/// two that took each other's places at once would never get a connection.
const MAX_DIALS: usize = 4096;
const MAX_DIALS_TO_ONE: usize = 1024;
const CHANCE: Duration = Duration::from_secs(1);
/// Where descriptors allow few at a time, a burst would otherwise push out each before it is made.
const SHORT_CHANCE: Duration = Duration::from_millis(100);
/// Turns in which there were more SYNs than could begin, after which they come too fast. A burst is over sooner.
const MAX_TURNS_BEHIND: u32 = 32;

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

    /// Whether a SYN waits until its sender is known, now that there is no more room. In a full table, one that begins takes
    /// the place of whoever has the most, whosoever it is itself; unless that is not known, or SYNs come faster than they can
    /// begin, since to ignore those of whoever has the most costs much less. Otherwise the oldest has its chance first if it
    /// is of the same sender.
    pub(super) fn must_wait(&mut self, shared: &Shared, what: Full) -> bool {
        self.reassign_next(shared, ALL);
        let known = self.queue.victim(Holder::Pending);
        let known = known.is_some_and(|(of, _)| matches!(of, Holder::Sender(_)));
        what != Full::Table || self.behind >= MAX_TURNS_BEHIND || !known
    }

    /// Gives up a connection in favour of a new one of `newcomer`: the oldest of whoever has the most, if it has had its
    /// chance. False if there is none.
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
        let first = queue.and_then(|queue| victim(queue, what, newcomer));
        let Some((key, chance)) = first else { return false };
        let waited = |dial: &Dial| now.saturating_duration_since(dial.born) >= chance;
        self.table.get(key).is_some_and(waited) && self.give_up(key, FlowEnd::Evicted)
    }
}

/// The connection that makes room for a new one of `newcomer`, once it is so old.
fn victim<K: Copy>(queue: &FairQueue<K>, what: Full, newcomer: Holder) -> Option<(K, Duration)> {
    let (of, key) = queue.victim(newcomer)?;
    let chance = match what {
        _ if of != Holder::Pending && queue.occupancy().has_clearly_more(of, newcomer) => {
            Duration::ZERO
        }
        Full::Descriptors => SHORT_CHANCE,
        // Perhaps it is of many.
        Full::Table if !matches!(of, Holder::Sender(_)) => Duration::ZERO,
        Full::Destination | Full::Table => CHANCE,
    };
    Some((key, chance))
}

#[cfg(test)]
mod tests;
