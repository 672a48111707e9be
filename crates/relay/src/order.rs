//! Which flow of a full table makes room for a new one.
//!
//! Datagram protocols do not say when a flow is over, so a table of flows fills up with flows that are. Least recently
//! used is not enough to tell them apart: clients that use a new port for each query (DNS) would push out sessions that
//! are silent for a second, and queries whose answer is still to come.
//!
//! * *Answered*: one exchange, and silence since. Most likely over, so these go first.
//! * *Waiting*: the client has asked and nobody has answered.
//! * *Lasting*: traffic in both directions that went on for two seconds; connection tracking of Linux calls such flows
//!   "assured". They keep half of the table whatever the others do.
//!
//! Flows may be in groups, each of which has an order of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::slab::Key;

/// A flow that still speaks this long after its beginning lasts (nf_conntrack(4): a UDP stream).
const LASTING_FLOW_AGE: Duration = Duration::from_secs(2);
/// A client that was answered less than this ago may be about to go on, as in a handshake.
const ANSWERED_FLOW_GRACE_INTERVAL: Duration = Duration::from_millis(50);

/// Who sent the latest datagrams of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The side that began the flow.
    Client,
    /// The other side.
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Answered,
    Waiting,
    Lasting,
}

/// A flow, and its neighbours in the list of its stage.
#[derive(Clone, Copy, Debug)]
struct Node {
    group: u32,
    stage: Stage,
    born: Instant,
    used: Instant,
    older: Option<Key>,
    newer: Option<Key>,
}

/// The flows of one stage; the longest silent is the oldest.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    oldest: Option<Key>,
    newest: Option<Key>,
    length: usize,
}

/// The flows of one table.
#[derive(Debug, Default)]
pub struct Order {
    nodes: HashMap<Key, Node>,
    /// Of each group. Groups have small numbers.
    groups: Vec<[List; 3]>,
}

impl Order {
    /// A new flow, begun by its client just now, in the group with the number 0.
    pub fn insert(&mut self, key: Key, now: Instant) {
        self.insert_into(0, key, now);
    }

    /// A new flow in a group. Its number should be small.
    pub fn insert_into(&mut self, group: u32, key: Key, now: Instant) {
        let stage = Stage::Waiting;
        self.link(key, Node { group, stage, born: now, used: now, older: None, newer: None });
    }

    /// Moves a flow to another group, where it counts as the latest that was used.
    pub fn regroup(&mut self, group: u32, key: Key) {
        if let Some(node) = self.unlink(key) {
            self.link(key, Node { group, ..node });
        }
    }

    /// Notes that a flow was used.
    pub fn spoke(&mut self, key: Key, by: Speaker, now: Instant) {
        let Some(node) = self.nodes.get_mut(&key) else { return };
        let lasts = now.saturating_duration_since(node.born) >= LASTING_FLOW_AGE;
        let stage = match (node.stage, by) {
            (Stage::Lasting, _) => Stage::Lasting,
            (Stage::Answered, _) if lasts => Stage::Lasting,
            (_, Speaker::Client) => Stage::Waiting,
            (_, Speaker::Server) => Stage::Answered,
        };
        if node.newer.is_none() && node.stage == stage {
            node.used = now;
        } else if let Some(node) = self.unlink(key) {
            self.link(key, Node { stage, used: now, ..node });
        }
    }

    /// When a flow was used last.
    pub fn used(&self, key: Key) -> Option<Instant> {
        self.nodes.get(&key).map(|node| node.used)
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether some flow was answered and has been silent since.
    pub fn has_answered(&self) -> bool {
        self.groups.iter().any(|[answered, ..]| answered.oldest.is_some())
    }

    /// The flow that is least likely to be missed, if there is only the group with the number 0.
    pub fn first_to_go(&self, now: Instant) -> Option<Key> {
        self.first_of_group_to_go(0, now)
    }

    /// The flow of a group that is least likely to be missed.
    pub fn first_of_group_to_go(&self, group: u32, now: Instant) -> Option<Key> {
        let lists = self.groups.get(group as usize)?;
        let [answered, waiting, lasting] = lists.map(|list| list.oldest);
        if let Some(key) = answered
            && let Some(answered) = self.used(key)
        {
            let idle = now.saturating_duration_since(answered) >= ANSWERED_FLOW_GRACE_INTERVAL;
            // In a table that turns over faster than that, whoever was silent longest.
            if idle || waiting.is_none_or(|waiting| Some(answered) <= self.used(waiting)) {
                return Some(key);
            }
        }
        let all = lists.iter().map(|list| list.length).sum();
        let crowded = 2 * lists[Stage::Lasting as usize].length > all;
        if crowded { lasting.or(waiting) } else { waiting.or(lasting) }
    }

    /// The flow that was silent longest.
    pub fn longest_silent(&self) -> Option<Key> {
        let oldest = self.groups.iter().flatten().filter_map(|list| list.oldest);
        oldest.min_by_key(|key| self.used(*key))
    }

    fn list(&mut self, group: u32, stage: Stage) -> &mut List {
        let group = group as usize;
        if group >= self.groups.len() {
            self.groups.resize(group + 1, [List::default(); 3]);
        }
        &mut self.groups[group][stage as usize]
    }

    fn link(&mut self, key: Key, node: Node) {
        let list = self.list(node.group, node.stage);
        let older = list.newest.replace(key);
        list.length += 1;
        list.oldest.get_or_insert(key);
        self.nodes.insert(key, Node { older, newer: None, ..node });
        if let Some(older) = older.and_then(|older| self.nodes.get_mut(&older)) {
            older.newer = Some(key);
        }
    }

    /// The flow is gone.
    pub fn remove(&mut self, key: Key) {
        self.unlink(key);
    }

    fn unlink(&mut self, key: Key) -> Option<Node> {
        let node = self.nodes.remove(&key)?;
        if let Some(older) = node.older.and_then(|older| self.nodes.get_mut(&older)) {
            older.newer = node.newer;
        }
        if let Some(newer) = node.newer.and_then(|newer| self.nodes.get_mut(&newer)) {
            newer.older = node.older;
        }
        let list = self.list(node.group, node.stage);
        list.length -= 1;
        if node.older.is_none() {
            list.oldest = node.newer;
        }
        if node.newer.is_none() {
            list.newest = node.older;
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;

    struct Table {
        slab: Slab<()>,
        order: Order,
        start: Instant,
    }

    impl Table {
        fn new() -> Self {
            Self { slab: Slab::new(), order: Order::default(), start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn begin(&mut self, ms: u64) -> Key {
            let key = self.slab.insert(());
            let now = self.at(ms);
            self.order.insert(key, now);
            key
        }

        fn spoke(&mut self, key: Key, by: Speaker, ms: u64) {
            let now = self.at(ms);
            self.order.spoke(key, by, now);
        }

        /// As many flows go as are there, in this order.
        fn all_go(&mut self, ms: u64) -> Vec<Key> {
            let mut gone = Vec::new();
            while let Some(key) = self.order.first_to_go(self.at(ms)) {
                self.order.remove(key);
                gone.push(key);
            }
            assert!(self.order.is_empty());
            gone
        }
    }

    use Speaker::{Client, Server};

    #[test]
    fn answered_flows_go_before_waiting_ones_and_those_before_lasting_ones() {
        let mut table = Table::new();
        let lasting = table.begin(0);
        table.spoke(lasting, Server, 1);
        table.spoke(lasting, Client, 2500);
        table.spoke(lasting, Server, 2501);
        let (slow, early, late) = (table.begin(0), table.begin(2600), table.begin(2601));
        table.spoke(late, Server, 2602);
        table.spoke(early, Server, 2603);
        // The second look of a slow client is still about the first answer.
        table.spoke(slow, Client, 2604);
        assert_eq!(table.all_go(2700), [late, early, slow, lasting]);
    }

    #[test]
    fn lasting_flows_keep_half_of_the_table_and_not_more() {
        let mut table = Table::new();
        let lasting: Vec<Key> = (0..4).map(|_| table.begin(0)).collect();
        for key in &lasting {
            table.spoke(*key, Server, 1);
            table.spoke(*key, Client, 2000);
            table.spoke(*key, Server, 2001);
        }
        let waiting: Vec<Key> = (0..2).map(|n| table.begin(3000 + n)).collect();
        let gone = table.all_go(3010);
        assert_eq!(gone[..2], lasting[..2], "more than half");
        assert_eq!(gone[2], waiting[0]);
    }

    #[test]
    fn a_client_that_was_answered_this_moment_may_go_on() {
        let mut table = Table::new();
        let (flood, handshake) = (table.begin(0), table.begin(70));
        table.spoke(handshake, Server, 80);
        let first = |table: &Table, ms| table.order.first_to_go(table.at(ms));
        assert_eq!(first(&table, 81), Some(flood));
        assert_eq!(first(&table, 130), Some(handshake), "it has not gone on");
        table.spoke(handshake, Client, 131);
        assert_eq!(first(&table, 132), Some(flood));
    }

    #[test]
    fn in_a_small_table_the_longest_silent_goes_however_soon() {
        let mut table = Table::new();
        let answered = table.begin(0);
        table.spoke(answered, Server, 1);
        table.begin(2);
        assert_eq!(table.order.first_to_go(table.at(3)), Some(answered));
    }

    #[test]
    fn groups_have_an_order_each_and_their_own_half_for_lasting_flows() {
        let mut table = Table::new();
        let now = table.at(0);
        let [lasting, own, other] = [(); 3].map(|()| table.slab.insert(()));
        for (group, key) in [(1, lasting), (1, own), (2, other)] {
            table.order.insert_into(group, key, now);
        }
        table.spoke(lasting, Server, 1);
        table.spoke(lasting, Client, 2000);
        table.spoke(lasting, Server, 2001);
        let first = |table: &Table, group| table.order.first_of_group_to_go(group, table.at(3000));
        assert_eq!(
            [0, 1, 2, 9].map(|group| first(&table, group)),
            [None, Some(own), Some(other), None]
        );
        table.order.regroup(2, own);
        assert_eq!([1, 2].map(|group| first(&table, group)), [Some(lasting), Some(other)]);
        table.order.remove(other);
        assert_eq!((first(&table, 2), table.order.len()), (Some(own), 2));
        assert_eq!(table.order.longest_silent(), Some(own));
    }

    #[test]
    fn lists_stay_whole_whatever_leaves_them() {
        let mut table = Table::new();
        let keys: Vec<Key> = (0..5).map(|n| table.begin(n)).collect();
        for at in [2, 0, 4] {
            table.order.remove(keys[at]);
            table.order.remove(keys[at]);
        }
        table.spoke(keys[1], Client, 9);
        table.spoke(keys[2], Client, 9);
        assert_eq!(table.order.longest_silent(), Some(keys[3]));
        assert_eq!(table.all_go(10), [keys[3], keys[1]]);
    }
}
