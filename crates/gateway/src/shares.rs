//! Who has how much of something that all containers share, and so who makes room when there is no more.
//!
//! # Theory of operation
//! While there is room, everybody gets as much as they want. When there is none, whoever holds the most makes room for what
//! is new ("longest queue drop", Suter et al., 1999). So nobody loses anything to others while one of them holds more, and
//! a container that floods pushes out only what is its own.
//!
//! Behind a masquerade it takes a moment until the sender of something is known. Until then it is [`Holder::Pending`], which
//! counts as one holder beside the others, and then it moves. Nothing is sorted: entries are asked whose they are in the
//! order in which they came ([`Unsettled`]), a few whenever something new comes, all when there is no more room.
//!
//! Whoever can forge addresses could be many holders with little each, beside which others have the most. So there is a bound
//! on holders. Beyond it, what comes of new senders counts for [`Holder::Unknown`], which is then the one that has the most.
//!
//! All costs are logarithmic in the number of holders or entries, and nothing happens when an entry is merely used.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

/// Entries that are asked whose they are whenever something new comes. More than one, so that they cannot pile up.
pub(crate) const FEW: usize = 2;
/// Entries that are asked when there is no more room.
pub(crate) const ALL: usize = usize::MAX;
/// The most holders, and how many there may be for the entries that there are: enough entries for each are left that nobody
/// has the most who has few.
const MAX_HOLDERS: usize = 256;
const MIN_HOLDERS: usize = 16;
const ENTRIES_PER_HOLDER: usize = 16;

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

/// The place of a holder in [`Shares`], while it holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(u32);

impl Place {
    /// A small number that no other place has.
    pub fn index(self) -> u32 {
        self.0
    }
}

/// How many entries each holder has.
#[derive(Debug, Default)]
pub struct Shares {
    places: HashMap<Holder, Place>,
    /// By place. One without entries is free.
    slots: Vec<(Holder, usize)>,
    free: Vec<Place>,
    /// The same by number of entries.
    ranking: BTreeSet<(usize, Place)>,
    entries: usize,
}

impl Shares {
    /// Whose share something new of `holder` counts for.
    pub fn counts_for(&self, holder: Holder) -> Holder {
        let most = (self.entries / ENTRIES_PER_HOLDER).clamp(MIN_HOLDERS, MAX_HOLDERS);
        let is_new = matches!(holder, Holder::Sender(_)) && !self.places.contains_key(&holder);
        if is_new && self.places.len() >= most { Holder::Unknown } else { holder }
    }

    /// Counts an entry. It leaves as one of the holder that this returns ([`Shares::counts_for`]).
    pub fn join(&mut self, holder: Holder) -> (Holder, Place) {
        let holder = self.counts_for(holder);
        let place = match self.places.get(&holder) {
            Some(place) => *place,
            None => self.new_place(holder),
        };
        if let Some((_, count)) = self.slots.get_mut(place.0 as usize) {
            self.ranking.remove(&(*count, place));
            *count += 1;
            self.ranking.insert((*count, place));
            self.entries += 1;
        }
        (holder, place)
    }

    fn new_place(&mut self, holder: Holder) -> Place {
        // Every entry takes memory or a descriptor, of which there are fewer.
        let next = || Place(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        let place = self.free.pop().unwrap_or_else(next);
        match self.slots.get_mut(place.0 as usize) {
            Some(slot) => *slot = (holder, 0),
            None => self.slots.push((holder, 0)),
        }
        self.places.insert(holder, place);
        place
    }

    /// An entry is gone.
    pub fn leave(&mut self, holder: Holder) {
        let Some(place) = self.places.get(&holder).copied() else { return };
        let Some((_, count)) = self.slots.get_mut(place.0 as usize) else { return };
        self.ranking.remove(&(*count, place));
        self.entries -= 1;
        *count -= 1;
        if *count > 0 {
            self.ranking.insert((*count, place));
        } else {
            self.places.remove(&holder);
            self.free.push(place);
        }
    }

    /// Who has to make room for something new of `newcomer`: whoever holds the most, itself if nobody holds more. `None`
    /// if nobody has anything.
    pub fn first_to_yield(&self, newcomer: Holder) -> Option<(Holder, Place)> {
        let (most, place) = *self.ranking.last()?;
        let own = self.places.get(&self.counts_for(newcomer));
        let own = own.filter(|own| self.ranking.contains(&(most, **own)));
        let place = own.copied().unwrap_or(place);
        Some((self.slots.get(place.0 as usize)?.0, place))
    }

    /// Whether a holder has so much more than a newcomer that it would still have more if it made room. If not, the two would
    /// only take turns.
    pub fn has_clearly_more(&self, holder: Holder, newcomer: Holder) -> bool {
        let count = self.count(holder);
        count - count / 8 > self.count(self.counts_for(newcomer)) + 1
    }

    fn count(&self, holder: Holder) -> usize {
        let place = self.places.get(&holder);
        place.and_then(|place| self.slots.get(place.0 as usize)).map_or(0, |(_, count)| *count)
    }
}

/// Entries in an order for each holder.
#[derive(Debug)]
pub struct Line<K> {
    shares: Shares,
    order: BTreeMap<(Place, u64), K>,
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self { shares: Shares::default(), order: BTreeMap::new() }
    }
}

impl<K: Copy> Line<K> {
    /// Adds an entry; those with the lowest number go first. It is one of the holder that this returns.
    pub fn insert(&mut self, holder: Holder, number: u64, key: K) -> Holder {
        let (holder, place) = self.shares.join(holder);
        self.order.insert((place, number), key);
        holder
    }

    /// Who has how much.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Takes an entry out.
    pub fn remove(&mut self, holder: Holder, number: u64) -> Option<K> {
        let place = *self.shares.places.get(&holder)?;
        let key = self.order.remove(&(place, number))?;
        self.shares.leave(holder);
        Some(key)
    }

    /// The entry that has to make room for something new of `newcomer`, and whose it is.
    pub fn first_to_yield(&self, newcomer: Holder) -> Option<(Holder, K)> {
        let (holder, place) = self.shares.first_to_yield(newcomer)?;
        let (_, key) = self.order.range((place, 0)..=(place, u64::MAX)).next()?;
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
pub enum Whose {
    /// It is gone.
    Gone,
    /// It is still looked for.
    Open,
    /// It is known.
    Known(Holder),
}

/// Entries whose sender is looked for, in the order in which they came. One that is looked for again may be in it twice;
/// to settle it twice changes nothing.
#[derive(Debug)]
pub struct Unsettled<K>(VecDeque<K>);

impl<K> Default for Unsettled<K> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Copy> Unsettled<K> {
    /// Adds an entry.
    pub fn push(&mut self, key: K) {
        self.0.push_back(key);
    }

    /// The next entry whose sender is known now. Those behind one that is still open wait with it: answers come in order.
    pub fn next(&mut self, whose: impl Fn(K) -> Whose) -> Option<(K, Holder)> {
        loop {
            let key = *self.0.front()?;
            let whose = whose(key);
            if whose == Whose::Open {
                return None;
            }
            self.0.pop_front();
            if let Whose::Known(holder) = whose {
                return Some((key, holder));
            }
        }
    }
}

#[cfg(test)]
mod tests;
