//! Containers that Docker does not list yet.
//!
//! Docker lists a container a moment after its program has begun to run. Where rules name containers, what such a program
//! begins at first would be judged as that of nobody. So it waits until the list has its address, but not for long: some are
//! never listed, such as the steps of a build.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink::conntrack::Query;

use super::egress_policy::Sender;
use super::parked::{Added, Parked};

/// How long what an address begins waits, counted from its first packet.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);
/// After such a silence, an address that is not listed may be another container's.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Connections, flows and pings that wait at a time, and those of one address. Beyond that they do not wait.
const MAX_WAITING: usize = 256;
const MAX_PER_ADDRESS: usize = 16;
/// The longest packet that waits, in bytes: what begins is short.
const MAX_PACKET: usize = 2048;
/// Addresses that are remembered. Whoever has been silent longest makes room.
const MAX_ADDRESSES: usize = 1024;

/// Who is not listed, and what waits for that.
#[derive(Debug)]
pub(super) struct Unlisted {
    /// When each began something first, and last.
    seen: HashMap<IpAddr, (Instant, Instant)>,
    waiting: Vec<(Query, Sender)>,
    pub(super) parked: Parked,
}

impl Default for Unlisted {
    fn default() -> Self {
        let parked = Parked::new(MAX_WAITING, true);
        Self { seen: HashMap::new(), waiting: Vec::new(), parked }
    }
}

impl Unlisted {
    /// Has a packet wait until Docker lists its sender. `None` if it need not wait.
    pub(super) fn add(
        &mut self,
        now: Instant,
        query: &Query,
        (packet, is_reassembled): (&[u8], bool),
        sender: Sender,
    ) -> Option<Added> {
        if !self.parked.has(query)
            && (packet.len() > MAX_PACKET || !self.waits(now, sender.container))
        {
            return None;
        }
        let added = self.parked.add(query, sender.container, packet, is_reassembled);
        if added == Added::First {
            self.waiting.push((*query, sender));
        }
        Some(added)
    }

    /// Whether something waits that this address begins, which is not listed.
    fn waits(&mut self, now: Instant, address: IpAddr) -> bool {
        let age = |since: Instant| now.saturating_duration_since(since);
        let of_address = self.waiting.iter().filter(|(_, sender)| sender.container == address);
        let room = self.waiting.len() < MAX_WAITING && of_address.count() < MAX_PER_ADDRESS;
        if let Some((first, last)) = self.seen.get_mut(&address)
            && age(std::mem::replace(last, now)) < FORGET_AFTER
        {
            return room && age(*first) < LIST_TIMEOUT;
        }
        if self.seen.len() >= MAX_ADDRESSES
            && let Some(silent) = self.seen.iter().min_by_key(|(_, (_, last))| *last)
        {
            let silent = *silent.0;
            self.seen.remove(&silent);
        }
        self.seen.insert(address, (now, now));
        room
    }

    /// What has waited long enough.
    pub(super) fn late(&mut self, now: Instant) -> Vec<(Query, Sender)> {
        let seen = &self.seen;
        let late = |(_, sender): &mut (Query, Sender)| {
            seen.get(&sender.container).is_none_or(|(first, _)| *first + LIST_TIMEOUT <= now)
        };
        self.waiting.extract_if(.., late).collect()
    }

    /// What waits, of whomever, because the list has changed.
    pub(super) fn listed(&mut self, is_listed: impl Fn(IpAddr) -> bool) -> Vec<(Query, Sender)> {
        self.seen.retain(|address, _| !is_listed(*address));
        std::mem::take(&mut self.waiting)
    }

    /// When something will have waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = |(_, sender): &(Query, Sender)| Some(self.seen.get(&sender.container)?.0);
        self.waiting.iter().filter_map(first).min().map(|first| first + LIST_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use netlink::conntrack::{Direction, Protocol, Tuple};

    use super::*;

    fn something(last: u8, port: u16) -> (Query, Sender) {
        let container = IpAddr::from([172, 17, 0, last]);
        let src = SocketAddr::new(container, port);
        let outside = Tuple { src, dst: src };
        let query = Query { protocol: Protocol::Tcp, direction: Direction::Outbound, outside };
        (query, Sender { container, is_guess: false })
    }

    fn add(unlisted: &mut Unlisted, now: Instant, (query, sender): (Query, Sender)) -> bool {
        let added = unlisted.add(now, &query, (b"a packet", false), sender);
        assert!(matches!(added, None | Some(Added::First)), "{added:?}");
        added.is_some()
    }

    #[test]
    fn what_an_unlisted_address_begins_waits_only_at_first() {
        let (mut unlisted, start) = (Unlisted::default(), Instant::now());
        let [one, other, third] = [1, 2, 3].map(|port| something(2, port));
        let (before, end) = (Duration::from_millis(1), start + LIST_TIMEOUT);
        assert_eq!(unlisted.due(), None);
        assert!(add(&mut unlisted, start, one) && add(&mut unlisted, end - before, other));
        assert_eq!((unlisted.late(end - before), unlisted.due()), (vec![], Some(end)));
        assert_eq!((unlisted.late(end), unlisted.due()), (vec![one, other], None));
        assert!(!add(&mut unlisted, end, third));
        let later = start + FORGET_AFTER;
        assert!(!add(&mut unlisted, later, third), "it has not been silent");
        assert!(add(&mut unlisted, later + FORGET_AFTER, third), "perhaps another one's");
    }

    #[test]
    fn a_new_list_ends_the_wait_and_whoever_leaves_it_waits_again() {
        let (mut unlisted, now) = (Unlisted::default(), Instant::now());
        let all = [2, 3].map(|last| something(last, 1));
        assert!(all.into_iter().all(|one| add(&mut unlisted, now, one)));
        let listed = all[0].1.container;
        assert_eq!(unlisted.listed(|address| address == listed), all);
        let later = now + LIST_TIMEOUT;
        assert!(add(&mut unlisted, later, something(2, 2)));
        assert!(!add(&mut unlisted, later, something(3, 2)));
    }

    #[test]
    fn one_address_takes_no_place_of_another_one() {
        let (mut unlisted, now) = (Unlisted::default(), Instant::now());
        let many = (0..1000).filter(|port| add(&mut unlisted, now, something(2, *port)));
        assert_eq!(many.count(), MAX_PER_ADDRESS);
        assert!(add(&mut unlisted, now, something(3, 1)));
        let (query, sender) = something(4, 1);
        let large = [0; MAX_PACKET + 1];
        assert_eq!(unlisted.add(now, &query, (&large, true), sender), None);
    }

    #[test]
    fn long_packets_of_one_address_take_no_place_of_another_one() {
        let (mut unlisted, now) = (Unlisted::default(), Instant::now());
        let mut add = |(query, sender): (Query, Sender), length| {
            let query = Query { protocol: Protocol::Udp, ..query };
            unlisted.add(now, &query, (&vec![0; length], true), sender)
        };
        for length in [8, 65_535, 32_768, 16_384, 8192, 4096, 2048, 1024, 512, 256, 128, 8] {
            (0..16).for_each(|port| _ = add(something(2, port), length));
        }
        assert_eq!(add(something(2, 0), 4096), Some(Added::Lost));
        assert_eq!(add(something(3, 1), 8), Some(Added::First));
    }

    #[test]
    fn new_addresses_take_the_place_of_silent_ones() {
        let (mut unlisted, now) = (Unlisted::default(), Instant::now());
        for number in 0..2 * MAX_ADDRESSES {
            let [.., high, low] = number.to_be_bytes();
            unlisted.waits(now + Duration::from_nanos(number as u64), [10, 0, high, low].into());
        }
        assert_eq!(unlisted.seen.len(), MAX_ADDRESSES);
        assert!(add(&mut unlisted, now, something(2, 1)));
    }
}
