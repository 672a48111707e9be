//! Packets that wait until their sender is known.
//!
//! The first one of a connection, flow or ping asks; those that follow wait with it, so that they keep their order.
//!
//! # Who makes room
//! It is not known yet whose a packet is. Behind a masquerade, nothing in it tells containers apart, because its sender chooses
//! ports, destination and time to live. So places are shared by an address that is known: that of the container if the packet
//! has it, otherwise that of the destination. When there is no more room, what is new takes the place of the newest of the
//! address that has the most, provided that this address still has at least as much afterwards. Otherwise what is new is lost:
//! those that have waited longer are answered sooner, and if each new one pushed out another, answers would be wasted.
//!
//! So a container that floods a few destinations leaves others their places, unless they want the same destinations. One that
//! floods as many as there are places takes all of them, in the order in which packets come. Nothing here can prevent that:
//! only an answer tells whose a packet is, and answers come as fast as the connection tracking gives them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use netlink::conntrack::{Protocol, Query};

/// Connections, flows and pings that wait at a time. One whose packets are long takes several places.
pub(super) const MAX_WAITING: usize = 1024;
/// Bytes of packets for each place.
const BYTES_PER_PLACE: usize = 4096;
/// Packets of one of them. A SYN that is repeated takes the place of the one before.
const MAX_PACKETS: usize = 16;

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) bytes: Box<[u8]>,
    /// It was put together from fragments.
    pub(super) is_reassembled: bool,
}

/// What became of a packet that is to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It waits, and somebody has to ask for its sender.
    First,
    /// It waits with others.
    Another,
    /// There is no room for it.
    Lost,
}

type Ends = (Protocol, SocketAddr, SocketAddr);

/// The packets between two ends.
#[derive(Debug)]
struct Waiting {
    packets: Vec<Packet>,
    bytes: usize,
    /// The address that it counts for, and its number in the order in which all came.
    address: IpAddr,
    number: u64,
}

/// The packets that wait.
#[derive(Debug)]
pub(super) struct Parked {
    waiting: HashMap<Ends, Waiting>,
    /// By the address that they count for, in the order in which they came.
    order: BTreeMap<(IpAddr, u64), Ends>,
    /// Places of each address, and the same by their number.
    places: HashMap<IpAddr, usize>,
    ranking: BTreeSet<(usize, IpAddr)>,
    free: usize,
    next: u64,
    /// Whether a packet that finds no room is lost. Others make room for it then. If not, it goes on without having waited.
    pub(super) is_lossy: bool,
    /// Packets that had to make room.
    pushed_out: u64,
}

impl Parked {
    /// With so many places. See [`Parked::is_lossy`].
    pub(super) fn new(places: usize, is_lossy: bool) -> Self {
        Self {
            waiting: HashMap::new(),
            order: BTreeMap::new(),
            places: HashMap::new(),
            ranking: BTreeSet::new(),
            free: places,
            next: 0,
            is_lossy,
            pushed_out: 0,
        }
    }

    /// Whether packets between these ends wait.
    pub(super) fn has(&self, query: &Query) -> bool {
        self.waiting.contains_key(&ends(query))
    }

    /// Has a packet wait. If it is the first one between its ends, these count for `address`.
    pub(super) fn add(
        &mut self,
        query: &Query,
        address: IpAddr,
        bytes: &[u8],
        is_reassembled: bool,
    ) -> Added {
        let ends = ends(query);
        let is_syn = query.protocol == Protocol::Tcp;
        let known = self.waiting.get(&ends);
        let (before, address) = known.map_or((0, address), |known| (known.bytes, known.address));
        let is_full = known.is_some_and(|known| known.packets.len() >= MAX_PACKETS);
        let after = if is_syn { bytes.len() } else { before + bytes.len() };
        let more = places(after).saturating_sub(places(before));
        if is_full || !self.make_room(address, more) {
            return Added::Lost;
        }
        let packet = Packet { bytes: bytes.into(), is_reassembled };
        self.count(address, places(before), places(after));
        if let Some(known) = self.waiting.get_mut(&ends) {
            known.bytes = after;
            if is_syn {
                known.packets.clear();
            }
            known.packets.push(packet);
            return Added::Another;
        }
        let number = self.next;
        self.next += 1;
        self.order.insert((address, number), ends);
        let waiting = Waiting { packets: vec![packet], bytes: after, address, number };
        self.waiting.insert(ends, waiting);
        Added::First
    }

    /// Makes sure that `more` places are free for what counts for an address. False if no other address has enough more.
    fn make_room(&mut self, address: IpAddr, more: usize) -> bool {
        let missing = more.saturating_sub(self.free);
        if missing == 0 || !self.is_lossy {
            return missing == 0;
        }
        let own = self.places.get(&address).copied().unwrap_or(0);
        let Some((most, largest)) = self.ranking.last().copied() else { return false };
        if most < own + more + missing {
            return false;
        }
        while self.free < more {
            let theirs = self.order.range((largest, 0)..=(largest, u64::MAX));
            let Some((_, newest)) = theirs.last() else { return false };
            let newest = *newest;
            self.pushed_out += self.remove(&newest).len() as u64;
        }
        true
    }

    /// Notes that something of an address has `after` places now instead of `before`.
    fn count(&mut self, address: IpAddr, before: usize, after: usize) {
        let places = self.places.entry(address).or_insert(0);
        self.ranking.remove(&(*places, address));
        *places = *places + after - before;
        self.free = self.free + before - after;
        if *places > 0 {
            self.ranking.insert((*places, address));
        } else {
            self.places.remove(&address);
        }
    }

    /// The packets between these ends, in their order, which wait no longer.
    pub(super) fn take(&mut self, query: &Query) -> Vec<Packet> {
        self.remove(&ends(query))
    }

    fn remove(&mut self, ends: &Ends) -> Vec<Packet> {
        let Some(waiting) = self.waiting.remove(ends) else { return Vec::new() };
        self.order.remove(&(waiting.address, waiting.number));
        self.count(waiting.address, places(waiting.bytes), 0);
        waiting.packets
    }

    /// How many packets had to make room since the last call.
    pub(super) fn take_pushed_out(&mut self) -> u64 {
        std::mem::take(&mut self.pushed_out)
    }
}

/// Places for so many bytes of packets.
fn places(bytes: usize) -> usize {
    bytes.div_ceil(BYTES_PER_PLACE)
}

fn ends(query: &Query) -> Ends {
    (query.protocol, query.outside.src, query.outside.dst)
}

#[cfg(test)]
mod tests;
