//! Which names an address was looked up by, for whom.
//!
//! What the namespace has looked up counts for containers, too: on networks that users create, the name server that
//! Docker gives to containers asks for them from there (Docker 28.5, unless a container has servers of its own).
//!
//! Everything is bounded, because containers choose what they look up. What was learnt first goes first: of an address
//! with many names, of a sender with many addresses, and of all.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::Source;

/// How many names one address can have for one sender. Many services can be behind one address.
const MAX_PER_ADDRESS: usize = 64;
/// How many pairs of address and name one sender can have.
const MAX_PER_SENDER: usize = 4096;
/// How many pairs there can be: 11 MiB, if all names are as long as they can be.
const MAX: usize = 32_768;

/// How many senders are looked at to find out whether one of them has an address. Containers can forge more.
const MAX_SENDERS_ASKED: usize = 128;

/// How long a name of an address counts whose record has this time to live: at least a minute, because programs use
/// addresses for a while after their records have expired, and at most a day.
pub fn lifetime(ttl: Duration) -> Duration {
    ttl.clamp(Duration::from_secs(60), Duration::from_secs(24 * 60 * 60))
}

/// Names by sender and address, bounded.
#[derive(Debug, Default)]
pub struct Openings {
    senders: HashMap<Source, Sender>,
    /// Who has learnt when. The lowest number is the oldest.
    ages: BTreeMap<u64, Source>,
    next: u64,
}

#[derive(Debug, Default)]
struct Sender {
    addresses: HashMap<IpAddr, Vec<Opening>>,
    /// The addresses by age.
    ages: BTreeMap<u64, IpAddr>,
}

/// A name of an address.
#[derive(Debug)]
struct Opening {
    name: Arc<str>,
    until: Instant,
    age: u64,
}

impl Openings {
    /// Takes in an answer for `who`: addresses and their time to live.
    pub fn learn(
        &mut self,
        now: Instant,
        who: Source,
        name: &str,
        addresses: &[(IpAddr, Duration)],
    ) {
        let who = canonical(who);
        let name: Arc<str> = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into();
        for (address, ttl) in addresses {
            let address = address.to_canonical();
            let age = self.next;
            self.next += 1;
            let sender = self.senders.entry(who).or_default();
            let known = sender.addresses.entry(address).or_default();
            let mut until = now + lifetime(*ttl);
            if let Some(index) = known.iter().position(|opening| opening.name == name) {
                let renewed = known.remove(index);
                until = until.max(renewed.until);
                sender.ages.remove(&renewed.age);
                self.ages.remove(&renewed.age);
            } else if known.len() == MAX_PER_ADDRESS {
                let oldest = known.remove(0);
                sender.ages.remove(&oldest.age);
                self.ages.remove(&oldest.age);
            }
            known.push(Opening { name: Arc::clone(&name), until, age });
            sender.ages.insert(age, address);
            self.ages.insert(age, who);
            if sender.ages.len() > MAX_PER_SENDER {
                let oldest = sender.ages.first_key_value().map(|(age, _)| *age);
                self.forget(oldest);
            }
            if self.ages.len() > MAX {
                self.forget(self.ages.first_key_value().map(|(age, _)| *age));
            }
        }
    }

    /// Forgets what was learnt then.
    fn forget(&mut self, age: Option<u64>) {
        let Some(age) = age else { return };
        let Some(who) = self.ages.remove(&age) else { return };
        let Some(sender) = self.senders.get_mut(&who) else { return };
        if let Some(address) = sender.ages.remove(&age)
            && let Some(known) = sender.addresses.get_mut(&address)
        {
            known.retain(|opening| opening.age != age);
            if known.is_empty() {
                sender.addresses.remove(&address);
            }
        }
        if sender.ages.is_empty() {
            self.senders.remove(&who);
        }
    }

    /// Removes all names of a sender that no longer exists.
    pub fn forget_sender(&mut self, who: Source) {
        if let Some(sender) = self.senders.remove(&canonical(who)) {
            self.ages.retain(|age, _| !sender.ages.contains_key(age));
        }
    }

    /// The names that `who` may use this address by for something new.
    pub fn names(&self, now: Instant, who: Source, address: IpAddr) -> Vec<&str> {
        self.of(who, address)
            .filter(|opening| opening.until > now)
            .map(|opening| &*opening.name)
            .collect()
    }

    /// The names that `who` was ever given this address for, as far as they are remembered: those of connections that go
    /// on, whose records may be too old for something new.
    pub fn remembered(&self, who: Source, address: IpAddr) -> Vec<&str> {
        self.of(who, address).map(|opening| &*opening.name).collect()
    }

    /// Whether somebody may have been given this address for a name. With many senders, true without a search.
    pub fn may_have(&self, address: IpAddr) -> bool {
        let has = |sender: &Sender| sender.addresses.contains_key(&address.to_canonical());
        self.senders.len() > MAX_SENDERS_ASKED || self.senders.values().any(has)
    }

    /// The names of `who` and of the namespace, because Docker's name server asks on behalf of containers.
    fn of(&self, who: Source, address: IpAddr) -> impl Iterator<Item = &Opening> {
        let who = canonical(who);
        let namespace = (who != Source::Namespace).then_some(Source::Namespace);
        let senders = [Some(who), namespace].into_iter().flatten();
        let senders = senders.filter_map(|sender| self.senders.get(&sender));
        senders.filter_map(move |sender| sender.addresses.get(&address.to_canonical())).flatten()
    }
}

/// The same with IPv4 that is not mapped into IPv6.
fn canonical(who: Source) -> Source {
    match who {
        Source::Namespace | Source::Unknown => who,
        Source::Container(address) => Source::Container(address.to_canonical()),
    }
}

#[cfg(test)]
mod tests;
