//! Who has how much of something that all containers share, and so who makes room when there is no more.
//!
//! # Theory of operation
//! While there is room, everybody gets as much as they want. When there is none, whoever holds the most makes room for what
//! is new ("longest queue drop", Suter et al., 1999): what goes is the victim. So nobody loses anything to others while one
//! of them holds more, and a container that floods pushes out only what is its own.
//!
//! Behind a masquerade it takes a moment until the sender of something is known. Until then it is [`Holder::Pending`], which
//! counts as one holder beside the others, and then it moves. Nothing is sorted: entries are asked whose they are in the
//! order in which they came ([`Lookups`]), a few whenever something new comes, all when there is no more room.
//!
//! Whoever can forge addresses could be many holders with little each, beside which others have the most. So there is a bound
//! on holders. Beyond it, what comes of new senders counts for [`Holder::Unknown`], which is then the one that has the most.
//!
//! To begin something costs much more than to read a packet, and everybody else waits meanwhile. So whoever has the most may
//! replace its own entries only so often while these wait for a first answer ([`RateLimit`]), and loses what is new beyond
//! that. This is better for itself, too: if new attempts pushed out the oldest at the speed of a flood, none would be there
//! when its answer comes.
//!
//! All costs are logarithmic in the number of holders or entries, and nothing happens when an entry is merely used.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Entries that are asked whose they are whenever something new comes. More than one, so that they cannot pile up.
pub(crate) const FEW: usize = 2;
/// Entries that are asked when there is no more room.
pub(crate) const ALL: usize = usize::MAX;
/// The most holders, and how many there may be for the entries that there are: enough entries for each are left that nobody
/// has the most who has few.
const MAX_HOLDERS: usize = 256;
const MIN_HOLDERS: usize = 16;
const ENTRIES_PER_HOLDER: usize = 16;
/// How many unanswered entries may be replaced in a second, and in one burst. In a full table of 4,096 entries, each one then
/// lives for about four seconds.
const REPLACEMENTS_PER_SECOND: u32 = 1000;
const REPLACEMENT_BURST: u32 = 100;

/// Whose something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// That of a container or of the target namespace, which has this address.
    Sender(IpAddr),
    /// Of somebody who is being looked for.
    Pending,
    /// Of somebody who cannot be found, or for whom there is no share of their own.
    Unknown,
}

/// Stands for a holder in [`Occupancy`], while it holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

impl Slot {
    /// A small number that no other slot has.
    pub fn index(self) -> u32 {
        self.0
    }
}

/// How many entries each holder has.
#[derive(Debug, Default)]
pub struct Occupancy {
    by_holder: HashMap<Holder, Slot>,
    /// By slot. One without entries is free.
    slots: Vec<(Holder, usize)>,
    free: Vec<Slot>,
    /// The same by number of entries.
    ranking: BTreeSet<(usize, Slot)>,
    entries: usize,
}

impl Occupancy {
    /// Whose share something new of `holder` counts for.
    pub fn counts_for(&self, holder: Holder) -> Holder {
        let most = (self.entries / ENTRIES_PER_HOLDER).clamp(MIN_HOLDERS, MAX_HOLDERS);
        let is_new = matches!(holder, Holder::Sender(_)) && !self.by_holder.contains_key(&holder);
        if is_new && self.by_holder.len() >= most { Holder::Unknown } else { holder }
    }

    /// Counts an entry. It leaves as one of the holder that this returns ([`Occupancy::counts_for`]).
    pub fn join(&mut self, holder: Holder) -> (Holder, Slot) {
        let holder = self.counts_for(holder);
        let slot = match self.by_holder.get(&holder) {
            Some(slot) => *slot,
            None => self.new_slot(holder),
        };
        if let Some((_, count)) = self.slots.get_mut(slot.0 as usize) {
            self.ranking.remove(&(*count, slot));
            *count += 1;
            self.ranking.insert((*count, slot));
            self.entries += 1;
        }
        (holder, slot)
    }

    fn new_slot(&mut self, holder: Holder) -> Slot {
        // Every entry takes memory or a descriptor, of which there are fewer.
        let next = || Slot(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        let slot = self.free.pop().unwrap_or_else(next);
        match self.slots.get_mut(slot.0 as usize) {
            Some(free) => *free = (holder, 0),
            None => self.slots.push((holder, 0)),
        }
        self.by_holder.insert(holder, slot);
        slot
    }

    /// An entry is gone.
    pub fn leave(&mut self, holder: Holder) {
        let Some(slot) = self.by_holder.get(&holder).copied() else { return };
        let Some((_, count)) = self.slots.get_mut(slot.0 as usize) else { return };
        self.ranking.remove(&(*count, slot));
        self.entries -= 1;
        *count -= 1;
        if *count > 0 {
            self.ranking.insert((*count, slot));
        } else {
            self.by_holder.remove(&holder);
            self.free.push(slot);
        }
    }

    /// Who has to make room for something new of `newcomer`: whoever holds the most, itself if nobody holds more. `None`
    /// if nobody has anything.
    pub fn victim(&self, newcomer: Holder) -> Option<(Holder, Slot)> {
        let (most, slot) = *self.ranking.last()?;
        let own = self.by_holder.get(&self.counts_for(newcomer));
        let own = own.filter(|own| self.ranking.contains(&(most, **own)));
        let slot = own.copied().unwrap_or(slot);
        Some((self.slots.get(slot.0 as usize)?.0, slot))
    }

    /// Whether a holder has so much more than a newcomer that it would still have more if it made room. If not, the two would
    /// only take turns.
    pub fn has_clearly_more(&self, holder: Holder, newcomer: Holder) -> bool {
        let count = self.count(holder);
        count - count / 8 > self.count(self.counts_for(newcomer)) + 1
    }

    /// Whether something new of `newcomer` needs a token of a [`RateLimit`] to replace something of `victim`. It needs none if
    /// `victim` has clearly more, or may be of many, as [`Holder::Pending`] and [`Holder::Unknown`] are. If it is not known whose
    /// it is, it always needs one, since it may be of the holder that floods.
    pub fn needs_token(&self, victim: Holder, newcomer: Holder) -> bool {
        let is_of_one = matches!(victim, Holder::Sender(_));
        newcomer == Holder::Pending || is_of_one && !self.has_clearly_more(victim, newcomer)
    }

    fn count(&self, holder: Holder) -> usize {
        let slot = self.by_holder.get(&holder);
        slot.and_then(|slot| self.slots.get(slot.0 as usize)).map_or(0, |(_, count)| *count)
    }
}

/// How often holders that have the most, or about as much, may replace entries: a token bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimit {
    /// When the bucket is full again. `None`: it is full.
    full_at: Option<Instant>,
}

impl RateLimit {
    const TOKEN_INTERVAL: Duration =
        Duration::from_nanos(1_000_000_000 / REPLACEMENTS_PER_SECOND as u64);

    /// Whether there is a token.
    pub fn has_token(&self, now: Instant) -> bool {
        let missing = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        missing + Self::TOKEN_INTERVAL <= Self::TOKEN_INTERVAL * REPLACEMENT_BURST
    }

    /// Whether something new of `newcomer` may replace something now. Takes a token if it needs one and there is one. What
    /// cannot wait until it is known whose it is (`Pending`) goes on without.
    pub fn allows(&mut self, needs_token: bool, newcomer: Holder, now: Instant) -> bool {
        !needs_token || self.try_take(now) || newcomer == Holder::Pending
    }

    /// Takes a token. False if there is none.
    pub fn try_take(&mut self, now: Instant) -> bool {
        let has_token = self.has_token(now);
        if has_token {
            let full_at = self.full_at.map_or(now, |at| at.max(now));
            self.full_at = Some(full_at + Self::TOKEN_INTERVAL);
        }
        has_token
    }
}

/// Entries of each holder in their order. The first one of whoever has the most makes room.
#[derive(Debug)]
pub struct FairQueue<K> {
    occupancy: Occupancy,
    order: BTreeMap<(Slot, u64), K>,
}

impl<K> Default for FairQueue<K> {
    fn default() -> Self {
        Self { occupancy: Occupancy::default(), order: BTreeMap::new() }
    }
}

impl<K: Copy> FairQueue<K> {
    /// Adds an entry; those with the lowest number go first. It is one of the holder that this returns.
    pub fn insert(&mut self, holder: Holder, number: u64, key: K) -> Holder {
        let (holder, slot) = self.occupancy.join(holder);
        self.order.insert((slot, number), key);
        holder
    }

    /// Who has how much.
    pub fn occupancy(&self) -> &Occupancy {
        &self.occupancy
    }

    /// Takes an entry out.
    pub fn remove(&mut self, holder: Holder, number: u64) -> Option<K> {
        let slot = *self.occupancy.by_holder.get(&holder)?;
        let key = self.order.remove(&(slot, number))?;
        self.occupancy.leave(holder);
        Some(key)
    }

    /// The entry that has to make room for something new of `newcomer`, and whose it is.
    pub fn victim(&self, newcomer: Holder) -> Option<(Holder, K)> {
        let (holder, slot) = self.occupancy.victim(newcomer)?;
        let (_, key) = self.order.range((slot, 0)..=(slot, u64::MAX)).next()?;
        Some((holder, *key))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// What is known of an entry whose sender was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is gone.
    Gone,
    /// It is still looked for.
    Open,
    /// It is known.
    Known(Holder),
}

/// Entries whose sender is looked for, in the order in which they came. One that is looked for again may be in it twice;
/// to reassign it twice changes nothing.
#[derive(Debug)]
pub struct Lookups<K>(VecDeque<K>);

impl<K> Default for Lookups<K> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Copy> Lookups<K> {
    /// Adds an entry.
    pub fn push(&mut self, key: K) {
        self.0.push_back(key);
    }

    /// The next entry whose sender is known now. Those behind one that is still open wait with it: answers come in order.
    pub fn next(&mut self, lookup: impl Fn(K) -> Lookup) -> Option<(K, Holder)> {
        loop {
            let key = *self.0.front()?;
            let lookup = lookup(key);
            if lookup == Lookup::Open {
                return None;
            }
            self.0.pop_front();
            if let Lookup::Known(holder) = lookup {
                return Some((key, holder));
            }
        }
    }
}

#[cfg(test)]
mod tests;
