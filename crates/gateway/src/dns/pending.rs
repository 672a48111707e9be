//! Queries that wait for an answer.
//!
//! A query has a socket for each name server that has not answered yet. Sockets are what runs out, so a query counts once for
//! each of them: whoever has few queries with many sockets has as much as somebody with many queries. When there are no more
//! sockets, the oldest one of whoever has the most makes room. Its query loses little if it has others, because this one
//! waits for the name server that has been silent longest. If it has no other, it is forgotten, unless the new socket is its
//! own.
//!
//! Other uses of descriptors lose nothing to queries, which have a part of the open-file limit of their own ([`budget`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use egress::Source;

use super::Key;
use crate::shares::{FairQueue, Holder};

/// Attempts at one query; as many numbers fit a [`Key`] beside the query's own.
pub(super) const ATTEMPTS: usize = 8;

/// The queries, by serial number. Nothing searches all of them, because a container that floods makes a thousand wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queries: BTreeMap<u64, Query>,
    by_question: HashMap<Question, u64>,
    /// When something is due for each query.
    deadlines: BTreeSet<(Instant, u64)>,
    /// The sockets, in the order in which they were opened.
    queue: FairQueue<Key>,
    next: u64,
    opened: u64,
}

/// What distinguishes a query from others: a client that sends the same bytes again repeats its query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) client: SocketAddr,
    pub(super) who: Option<Source>,
    pub(super) bytes: Arc<[u8]>,
}

#[derive(Debug)]
pub(super) struct Query {
    pub(super) question: Question,
    /// Whose share it counts for.
    pub(super) holder: Holder,
    pub(super) attempts: Vec<Attempt>,
    /// The attempt that this round started with.
    round: usize,
    /// A `SERVFAIL` or the like, for want of a better answer.
    pub(super) refusal: Option<Vec<u8>>,
    next_at: Option<Instant>,
    expires: Instant,
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) server: SocketAddr,
    /// Whether there is a socket for it.
    pub(super) open: bool,
    /// The place of the socket in the order of all.
    number: u64,
}

impl Query {
    pub(super) fn new(question: Question, holder: Holder, expires: Instant) -> Self {
        Self {
            question,
            holder,
            attempts: Vec::new(),
            round: 0,
            refusal: None,
            next_at: None,
            expires,
        }
    }

    pub(super) fn round(&self) -> &[Attempt] {
        self.attempts.get(self.round..).unwrap_or_default()
    }

    pub(super) fn start_round(&mut self) {
        self.round = self.attempts.len();
    }

    pub(super) fn may_send(&self) -> bool {
        self.attempts.len() < ATTEMPTS
    }

    /// Numbers of the attempts that have a socket.
    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        self.attempts.iter().enumerate().filter(|(_, attempt)| attempt.open).map(|(index, _)| index)
    }

    /// When the next server is asked; `None` if there was none left.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    pub(super) fn expires(&self) -> Instant {
        self.expires
    }

    fn deadline(&self) -> Instant {
        self.next_at.map_or(self.expires, |next| next.min(self.expires))
    }
}

impl Pending {
    pub(super) fn insert(&mut self, query: Query) -> u64 {
        let serial = self.next_serial();
        self.by_question.insert(query.question.clone(), serial);
        self.deadlines.insert((query.deadline(), serial));
        self.queries.insert(serial, query);
        serial
    }

    /// Takes the next serial number.
    pub(super) fn next_serial(&mut self) -> u64 {
        let serial = self.next;
        self.next += 1;
        serial
    }

    /// Whether another socket for `newcomer` needs a token of a [`RateLimit`](crate::shares::RateLimit) to make room.
    pub(super) fn needs_token(&self, newcomer: Holder) -> bool {
        let victim = self.queue.victim(newcomer);
        victim.is_some_and(|(of, _)| self.queue.occupancy().needs_token(of, newcomer))
    }

    /// No server is left to ask for this query.
    pub(super) fn ask_no_more(&mut self, serial: u64) {
        self.set_times(serial, |query| query.next_at = None);
    }

    /// Sets when a query is forgotten.
    pub(super) fn expire_at(&mut self, serial: u64, at: Instant) {
        self.set_times(serial, |query| query.expires = at);
    }

    fn set_times(&mut self, serial: u64, set: impl FnOnce(&mut Query)) {
        if let Some(query) = self.queries.get_mut(&serial) {
            self.deadlines.remove(&(query.deadline(), serial));
            set(query);
            self.deadlines.insert((query.deadline(), serial));
        }
    }

    pub(super) fn query(&mut self, serial: u64) -> Option<&mut Query> {
        self.queries.get_mut(&serial)
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<Query> {
        let query = self.queries.remove(&serial)?;
        self.by_question.remove(&query.question);
        self.deadlines.remove(&(query.deadline(), serial));
        for attempt in query.attempts.iter().filter(|attempt| attempt.open) {
            self.queue.remove(query.holder, attempt.number);
        }
        Some(query)
    }

    /// How many sockets there are.
    pub(super) fn sockets(&self) -> usize {
        self.queue.len()
    }

    /// Another attempt at a query, which has a socket. The next server is asked at `next_at`.
    pub(super) fn open(
        &mut self,
        serial: u64,
        server: SocketAddr,
        next_at: Instant,
    ) -> Option<(Key, &Query)> {
        self.set_times(serial, |query| query.next_at = Some(next_at));
        let query = self.queries.get_mut(&serial)?;
        let key = Self::key(serial, query.attempts.len());
        self.opened += 1;
        query.attempts.push(Attempt { server, open: true, number: self.opened });
        query.holder = self.queue.insert(query.holder, self.opened, key);
        Some((key, query))
    }

    /// Takes out the oldest socket of whoever has the most, to make room for another one of the query `newcomer`. If its query
    /// has no other socket and is not `newcomer`, that is forgotten: true if so.
    pub(super) fn pop_victim(&mut self, newcomer: u64) -> Option<(Key, bool)> {
        let of = self.queries.get(&newcomer)?.holder;
        let (_, key) = self.queue.victim(of)?;
        let (serial, query) = self.close(key)?;
        let is_over = serial != newcomer && query.open().next().is_none();
        if is_over {
            self.remove(serial);
        }
        Some((key, is_over))
    }

    /// Notes whose a query is.
    pub(super) fn reassign(&mut self, serial: u64, holder: Holder) {
        let Some(query) = self.queries.get_mut(&serial) else { return };
        let before = std::mem::replace(&mut query.holder, holder);
        for attempt in query.attempts.iter().filter(|attempt| attempt.open) {
            if let Some(key) = self.queue.remove(before, attempt.number) {
                query.holder = self.queue.insert(query.holder, attempt.number, key);
            }
        }
    }

    /// The query that a client has sent already.
    pub(super) fn find(&self, question: &Question) -> Option<u64> {
        self.by_question.get(question).copied()
    }

    /// The name of an attempt's socket. A program cannot run long enough for serial numbers to reach the upper bits.
    pub(super) fn key(serial: u64, attempt: usize) -> Key {
        Key((serial << 3) | (attempt % ATTEMPTS) as u64)
    }

    /// The query and the attempt that a socket belongs to, if it is open.
    pub(super) fn get(&self, key: Key) -> Option<(u64, &Query, &Attempt)> {
        let (serial, index) = split(key);
        let query = self.queries.get(&serial)?;
        let attempt = query.attempts.get(index).filter(|attempt| attempt.open)?;
        Some((serial, query, attempt))
    }

    /// Ends the attempt with this socket. `None` if there is no such attempt any more.
    pub(super) fn close(&mut self, key: Key) -> Option<(u64, &Query)> {
        let (serial, index) = split(key);
        let query = self.queries.get_mut(&serial)?;
        let attempt = query.attempts.get_mut(index).filter(|attempt| attempt.open)?;
        attempt.open = false;
        self.queue.remove(query.holder, attempt.number);
        Some((serial, query))
    }

    /// The earliest time at which something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Queries for which something is due, the earliest first.
    pub(super) fn due(&self, now: Instant) -> Vec<u64> {
        self.deadlines.range(..=(now, u64::MAX)).map(|(_, serial)| *serial).collect()
    }
}

#[cfg(test)]
impl Pending {
    /// Compares the indexes with a search of all queries.
    pub(super) fn check(&self) -> Result<(), String> {
        let deadline = self.queries.values().map(Query::deadline).min();
        let found = self.queries.iter().all(|(serial, query)| {
            self.find(&query.question) == Some(*serial)
                && self.deadlines.contains(&(query.deadline(), *serial))
        });
        let lengths = [self.by_question.len(), self.deadlines.len()];
        let right = deadline == self.deadline() && found && lengths == [self.queries.len(); 2];
        if right { Ok(()) } else { Err(format!("{self:?}")) }
    }
}

fn split(key: Key) -> (u64, usize) {
    (key.0 >> 3, usize::try_from(key.0 & 7).unwrap_or_default())
}
