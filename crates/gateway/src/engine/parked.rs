//! Packets that wait until their sender is known.
//!
//! The first one of a connection, flow or ping asks; those that follow wait with it, so that they keep their order.

use std::collections::HashMap;
use std::net::SocketAddr;

use netlink::conntrack::{Protocol, Query};

/// Connections, flows and pings that wait at a time.
pub(super) const MAX_WAITING: usize = 1024;
/// Bytes of all their packets.
const MAX_BYTES: usize = 4 << 20;
/// Packets of one of them. A SYN that is repeated takes the place of the one before.
const MAX_PACKETS: usize = 16;

/// A packet as it came.
#[derive(Debug, PartialEq, Eq)]
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

/// The packets that wait.
#[derive(Debug)]
pub(super) struct Parked {
    waiting: HashMap<Ends, Vec<Packet>>,
    bytes: usize,
    max_waiting: usize,
    max_bytes: usize,
}

impl Default for Parked {
    fn default() -> Self {
        Self::new(MAX_WAITING, MAX_BYTES)
    }
}

impl Parked {
    /// Room for so many connections, flows and pings, and so many bytes of their packets.
    pub(super) fn new(max_waiting: usize, max_bytes: usize) -> Self {
        Self { waiting: HashMap::new(), bytes: 0, max_waiting, max_bytes }
    }

    /// Whether packets between these ends wait.
    pub(super) fn has(&self, query: &Query) -> bool {
        self.waiting.contains_key(&ends(query))
    }

    /// Has a packet wait.
    pub(super) fn add(&mut self, query: &Query, bytes: &[u8], is_reassembled: bool) -> Added {
        let ends = ends(query);
        if query.protocol == Protocol::Tcp
            && let Some(before) = self.waiting.get_mut(&ends).and_then(Vec::pop)
        {
            self.bytes -= before.bytes.len();
        }
        let known = self.waiting.get(&ends).map(Vec::len);
        let full = known.map_or(self.waiting.len() >= self.max_waiting, |many| many >= MAX_PACKETS);
        if full || self.bytes + bytes.len() > self.max_bytes {
            return Added::Lost;
        }
        self.bytes += bytes.len();
        let packet = Packet { bytes: bytes.into(), is_reassembled };
        self.waiting.entry(ends).or_default().push(packet);
        if known.is_none() { Added::First } else { Added::Another }
    }

    /// The packets between these ends, in their order, which wait no longer.
    pub(super) fn take(&mut self, query: &Query) -> Vec<Packet> {
        let packets = self.waiting.remove(&ends(query)).unwrap_or_default();
        self.bytes -= packets.iter().map(|packet| packet.bytes.len()).sum::<usize>();
        packets
    }
}

fn ends(query: &Query) -> Ends {
    (query.protocol, query.outside.src, query.outside.dst)
}

#[cfg(test)]
mod tests {
    use netlink::conntrack::{Direction, Tuple};

    use super::*;

    fn query(protocol: Protocol, port: u16) -> Query {
        let end = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let outside = Tuple { src: end(port), dst: end(1) };
        Query { protocol, direction: Direction::Outbound, outside }
    }

    #[test]
    fn packets_between_the_same_ends_wait_together_in_their_order() {
        let mut parked = Parked::default();
        let [one, other] = [1, 2].map(|port| query(Protocol::Udp, port));
        assert_eq!(parked.add(&one, b"a", false), Added::First);
        assert_eq!(parked.add(&other, b"x", false), Added::First);
        assert_eq!(parked.add(&one, b"b", true), Added::Another);
        assert!(parked.has(&one) && !parked.has(&query(Protocol::Tcp, 1)));
        let packet = |bytes: &[u8], is_reassembled| Packet { bytes: bytes.into(), is_reassembled };
        assert_eq!(parked.take(&one), [packet(b"a", false), packet(b"b", true)]);
        assert_eq!((parked.take(&one), parked.bytes), (Vec::new(), 1));
        assert_eq!(parked.add(&one, b"c", false), Added::First, "asked anew");
    }

    #[test]
    fn a_syn_that_is_repeated_takes_the_place_of_the_one_before() {
        let mut parked = Parked::default();
        let syn = query(Protocol::Tcp, 1);
        assert_eq!(parked.add(&syn, b"first", false), Added::First);
        assert_eq!(parked.add(&syn, b"2nd", false), Added::Another);
        assert_eq!(parked.bytes, 3);
        assert_eq!(parked.take(&syn).len(), 1);
        assert_eq!(parked.bytes, 0);
    }

    #[test]
    fn what_waits_has_bounds() {
        let mut parked = Parked::default();
        let flow = query(Protocol::Udp, 0);
        let added = [(); MAX_PACKETS + 1].map(|()| parked.add(&flow, b"a", false));
        assert_eq!(added[MAX_PACKETS - 1..], [Added::Another, Added::Lost]);
        let all = u16::try_from(MAX_WAITING).unwrap();
        for port in 1..=all {
            let expected = if port < all { Added::First } else { Added::Lost };
            assert_eq!(parked.add(&query(Protocol::Udp, port), b"a", false), expected);
        }
        let mut parked = Parked::default();
        let large = vec![0; MAX_BYTES / 2];
        let added = [1, 2, 3].map(|port| parked.add(&query(Protocol::Udp, port), &large, false));
        assert_eq!(added, [Added::First, Added::First, Added::Lost]);
        parked.take(&query(Protocol::Udp, 1));
        assert_eq!(parked.add(&query(Protocol::Udp, 3), &large, false), Added::First);
    }
}
