//! Name queries at the gateway's address, passed on to the name servers of the host.
//!
//! Pure: no sockets, no clock. Queries and answers pass unchanged, so every type, EDNS, cookies and DNSSEC work.
//!
//! # What the engine does
//! After each call it takes [`Forwarder::next_action`] until there is none, and does what it says:
//! * [`Action::Send`]: open a UDP socket *for this query only*, non-blocking, connected to `to` (so that nobody else's
//!   answers arrive, at a port that nobody can guess), send the query and remember the socket under its [`Key`]. If any
//!   of that fails, or later an error is received on the socket (`ECONNREFUSED`, `EHOSTUNREACH` …), call
//!   [`Forwarder::failed`]. What arrives goes to [`Forwarder::answer`].
//! * [`Action::Close`]: close that socket. Every [`Action::Send`] is followed by exactly one such action, also if
//!   opening the socket has failed; then there is nothing to do.
//! * [`Action::Reply`]: send a datagram to the client, from the DNS address of its family, port 53.
//!
//! At [`Forwarder::deadline`] it calls [`Forwarder::tick`]. Queries over TCP are streams like any other; ask
//! [`Forwarder::resolver`] whom to connect to.
//!
//! # Fail-over
//! As glibc does it, but remembered across queries: a server that is silent for 1.5 s or unreachable is asked last for
//! 30 s, and the next one is asked. A late answer still counts. One that says `SERVFAIL`, `NOTIMP` or `REFUSED` is not
//! at fault, but the next is asked as well; its answer is passed on if nobody has a better one. A client that repeats
//! its query starts another round. If nobody can be asked, or all are unreachable, the client gets `SERVFAIL` at once.

mod known;
mod message;
mod pending;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use egress::Source;
pub use known::{KnownNames, addresses};
use pending::{Pending, Query, Question};

use crate::shares::{Holder, RateLimit};

/// How long a server may take before the next is asked.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long a server that failed is asked last.
const REST: Duration = Duration::from_secs(30);
/// How long a query is kept, from its last repetition by the client on.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest query, in bytes. RFC 6891 takes 4096 as the most that makes sense in a datagram.
const LARGEST_QUERY: usize = 4096;
/// Sockets that are open at one time, and so the most queries that wait.
const SOCKETS: usize = 1024;

/// Names the socket of one attempt at a query. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

/// What the engine has to do; see the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send `query` to `to`, from a new socket.
    Send {
        /// Name of the socket.
        key: Key,
        /// A name server, in the host's network namespace.
        to: SocketAddr,
        /// The query as it came.
        query: Vec<u8>,
    },
    /// Close a socket.
    Close(Key),
    /// Send `payload` to a client, from the address that it asked.
    Reply {
        /// The client, in the child namespace.
        client: SocketAddr,
        /// Who has asked, if that was known.
        who: Option<Source>,
        /// The answer as it came.
        payload: Vec<u8>,
    },
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Queries that were taken in, repetitions included.
    pub queries: u64,
    /// Queries that nobody answered: forgotten after 10 s, or answered here with `SERVFAIL`.
    pub failed: u64,
    /// Queries that were forgotten to make room for newer ones, or ignored because of the rate limit.
    pub evicted: u64,
    /// Datagrams of clients that are no queries, or too long.
    pub malformed: u64,
    /// Answers that belong to no query.
    pub mismatched: u64,
}

/// Passes queries on and finds who asked when an answer comes.
#[derive(Debug, Default)]
pub struct Forwarder {
    resolvers: Vec<Resolver>,
    pending: Pending,
    /// The most sockets at one time, if fewer than [`SOCKETS`].
    most: Option<usize>,
    rate_limit: RateLimit,
    actions: VecDeque<Action>,
    counters: Counters,
}

#[derive(Debug)]
struct Resolver {
    address: SocketAddr,
    /// Asked last until then.
    rests_until: Option<Instant>,
}

impl Forwarder {
    /// Passes queries on to `resolvers`, the first first.
    pub fn new(resolvers: &[SocketAddr]) -> Self {
        let mut forwarder = Self::default();
        forwarder.set_resolvers(resolvers);
        forwarder
    }

    /// Bounds the sockets that are open at one time, which cannot be more than 1,024 in any case.
    pub fn limit(&mut self, sockets: usize) {
        self.most = Some(sockets.clamp(1, SOCKETS));
    }

    /// Takes other name servers from now on. Answers of the old ones are still awaited.
    pub fn set_resolvers(&mut self, resolvers: &[SocketAddr]) {
        let old = std::mem::take(&mut self.resolvers);
        for address in resolvers {
            if self.resolvers.iter().all(|known| known.address != *address) {
                let rests_until = old
                    .iter()
                    .find(|known| known.address == *address)
                    .and_then(|known| known.rests_until);
                self.resolvers.push(Resolver { address: *address, rests_until });
            }
        }
    }

    /// The name server to ask next, if those in `tried` have been asked already.
    pub fn resolver(&self, now: Instant, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let left = || self.resolvers.iter().filter(|known| !tried.contains(&known.address));
        let awake = left().find(|known| known.rests_until.is_none_or(|until| until <= now));
        awake.or_else(|| left().next()).map(|known| known.address)
    }

    /// Notes that a name server cannot be reached: it is asked last for 30 s. For connections over TCP.
    pub fn resolver_failed(&mut self, now: Instant, address: SocketAddr) {
        self.set_rest(address, Some(now + REST));
    }

    /// What to do next.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When [`Self::tick`] is due; `None` while nothing waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.pending.deadline()
    }

    /// Whether another query takes the place of one that waits.
    pub fn is_full(&self) -> bool {
        self.pending.sockets() >= self.most()
    }

    fn most(&self) -> usize {
        self.most.unwrap_or(SOCKETS)
    }

    /// Notes whose share the query with this number counts for, if it still waits.
    pub fn reassign(&mut self, number: u64, holder: Holder) {
        self.pending.reassign(number, holder);
    }

    /// Takes in a datagram of a client; the number of its query, also if that is ignored. `None` if it is none. `who` comes
    /// back with the answer: several containers may have the client's address one after another. It counts for the share of
    /// `holder`.
    pub fn query(
        &mut self,
        now: Instant,
        client: SocketAddr,
        who: Option<Source>,
        holder: Holder,
        payload: &[u8],
    ) -> Option<u64> {
        if payload.len() > LARGEST_QUERY || !message::is_query(payload) {
            self.counters.malformed += 1;
            return None;
        }
        self.counters.queries += 1;
        let question = Question { client, who, bytes: payload.into() };
        let known = self.pending.find(&question);
        let needs_token = self.is_full() && self.pending.needs_token(holder);
        if !self.rate_limit.allows(needs_token, holder, now) {
            self.counters.evicted += u64::from(known.is_none());
            // A new one is not kept. The number is there to count whose it was.
            return Some(known.unwrap_or_else(|| self.pending.next_serial()));
        }
        if let Some(serial) = known {
            self.repeat(now, serial);
            return Some(serial);
        }
        let query = Query::new(question, holder, now + QUERY_TIMEOUT);
        let serial = self.pending.insert(query);
        if !self.ask_next(now, serial) {
            self.conclude(serial);
        }
        Some(serial)
    }

    /// Takes in a datagram that arrived on the socket of `key`.
    pub fn answer(&mut self, now: Instant, key: Key, payload: &[u8]) {
        let known = self.pending.get(key);
        let Some((serial, _, attempt)) =
            known.filter(|(_, query, _)| message::answers(&query.question.bytes, payload))
        else {
            self.counters.mismatched += 1;
            return;
        };
        let server = attempt.server;
        self.set_rest(server, None);
        if !message::is_refusal(payload) {
            self.finish(serial, payload.to_vec());
            return;
        }
        if let Some(query) = self.pending.query(serial) {
            query.refusal = Some(payload.to_vec());
        }
        self.give_up(now, key);
    }

    /// Notes that the socket of `key` could not be opened or has failed.
    pub fn failed(&mut self, now: Instant, key: Key) {
        if let Some((_, _, attempt)) = self.pending.get(key) {
            let server = attempt.server;
            self.set_rest(server, Some(now + REST));
            self.give_up(now, key);
        }
    }

    /// Does what is due: asks the next server, forgets queries.
    pub fn tick(&mut self, now: Instant) {
        for serial in self.pending.due(now) {
            if self.pending.query(serial).is_some_and(|query| query.expires() <= now) {
                self.expire(serial);
            } else {
                self.silent(now, serial);
            }
        }
    }

    /// The server that was asked last has been silent for too long, unless it has refused and others are awaited.
    fn silent(&mut self, now: Instant, serial: u64) {
        self.pending.ask_no_more(serial);
        let Some(query) = self.pending.query(serial) else { return };
        let silent = query.round().last().filter(|last| last.open).map(|last| last.server);
        if let Some(server) = silent {
            self.set_rest(server, Some(now + REST));
        }
        if !self.ask_next(now, serial) {
            self.conclude_if_refused(serial);
        }
    }

    /// The client has asked again: whoever is left in this round, or everybody anew.
    fn repeat(&mut self, now: Instant, serial: u64) {
        // One that has used up its attempts ends at its time, and the client may begin anew.
        if self.pending.query(serial).is_some_and(|query| query.may_send()) {
            self.pending.expire_at(serial, now + QUERY_TIMEOUT);
        }
        if !self.ask_next(now, serial) {
            if let Some(query) = self.pending.query(serial) {
                query.start_round();
            }
            self.ask_next(now, serial);
        }
    }

    /// Closes an attempt that will bring nothing any more, and asks the next server. From outside it is called if the
    /// attempt's socket could not be opened for want of something here, which is not the server's fault.
    pub fn give_up(&mut self, now: Instant, key: Key) {
        let Some((serial, query)) = self.pending.close(key) else { return };
        let alone = query.open().next().is_none();
        // The others have had their time; an answer would only come late, and there is a refusal to pass on.
        let late = query.next_at().is_none();
        self.actions.push_back(Action::Close(key));
        if self.ask_next(now, serial) {
            return;
        }
        if alone {
            self.conclude(serial);
        } else if late {
            self.conclude_if_refused(serial);
        }
    }

    /// Sends a query to the best server that has not had it in this round; false if there is none.
    fn ask_next(&mut self, now: Instant, serial: u64) -> bool {
        let Some(query) = self.pending.query(serial).filter(|query| query.may_send()) else {
            return false;
        };
        let tried: Vec<SocketAddr> = query.round().iter().map(|attempt| attempt.server).collect();
        let Some(to) = self.resolver(now, &tried) else { return false };
        self.make_room(serial);
        let opened = self.pending.open(serial, to, now + SILENCE);
        let Some((key, query)) = opened else { return false };
        let query = query.question.bytes.to_vec();
        self.actions.push_back(Action::Send { key, to, query });
        true
    }

    fn make_room(&mut self, newcomer: u64) {
        while self.is_full() {
            let Some((key, is_over)) = self.pending.pop_victim(newcomer) else { return };
            self.counters.evicted += u64::from(is_over);
            self.actions.push_back(Action::Close(key));
        }
    }

    /// Ends a query that nobody is left for: with the refusal that came, or with one of our own.
    fn conclude(&mut self, serial: u64) {
        let Some(query) = self.pending.query(serial) else { return };
        let payload = query.refusal.take().unwrap_or_else(|| {
            self.counters.failed += 1;
            message::server_failure(&query.question.bytes)
        });
        self.finish(serial, payload);
    }

    fn conclude_if_refused(&mut self, serial: u64) {
        if self.pending.query(serial).is_some_and(|query| query.refusal.is_some()) {
            self.conclude(serial);
        }
    }

    /// Nobody has answered in time. The client has long given up too.
    fn expire(&mut self, serial: u64) {
        if let Some(query) = self.pending.remove(serial) {
            self.counters.failed += 1;
            self.close_all(serial, &query);
        }
    }

    fn finish(&mut self, serial: u64, payload: Vec<u8>) {
        if let Some(query) = self.pending.remove(serial) {
            let Question { client, who, .. } = query.question;
            self.actions.push_back(Action::Reply { client, who, payload });
            self.close_all(serial, &query);
        }
    }

    fn close_all(&mut self, serial: u64, query: &Query) {
        for index in query.open() {
            self.actions.push_back(Action::Close(Pending::key(serial, index)));
        }
    }

    fn set_rest(&mut self, address: SocketAddr, until: Option<Instant>) {
        if let Some(resolver) = self.resolvers.iter_mut().find(|known| known.address == address) {
            resolver.rests_until = until;
        }
    }
}
