//! Connections to the outside, from their SYN to the moment when relay takes over.
//!
//! ```text
//!   SYN ─▶ Calling ──connected──▶ Given (the SYN went back) ──accepted──▶ relay
//!             └──failed──▶ the same answer for the target namespace: reset, unreachable, or silence
//! ```
//!
//! The target namespace says "connected" only after the destination did. The target namespace repeats its SYN
//! meanwhile, which finds the entry and only says that somebody still waits; one that nobody repeats any more is given
//! up.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::EpollFlags;
use relay::event_handler::Tag;
use relay::room::Use;
use relay::slab::{Key, Slab};
use relay::{EventLoop, Traffic};
use socket2::{Domain, Protocol, Socket, Type};

use super::answers::meaning;
use super::names::Names;
use super::{Shared, kind};
use crate::packet::{Original, Syn};
use crate::policy::{self, Verdict};

/// Connections that are being made at a time, and those of them to one destination. Beyond that the oldest makes room:
/// a flood is older on average than a connection that will succeed. To one destination only after a second, because to
/// ignore a SYN costs little beside starting anew, and the others are waiting behind a flood.
const CALLING: usize = 4096;
const TO_ONE: usize = 1024;
const CHANCE: Duration = Duration::from_secs(1);
/// Where descriptors allow few at a time, a burst would otherwise push out each before it is made.
const SHORT_CHANCE: Duration = Duration::from_millis(100);
/// The longest SYN that is kept, in bytes. Ordinary ones have 60 to 80; TCP Fast Open adds a segment of data.
const SYN: usize = 4096;
/// How long listeners rest when descriptors or memory have run out.
const REST: Duration = Duration::from_millis(100);
/// How long nobody repeats a SYN before it is given up: Linux repeats it after 1, 3, 7, 15, 31 and 63 s (tcp(7),
/// `tcp_syn_retries`).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(70);
/// How long the target namespace may take to finish a connection that the destination has accepted.
const GIVEN: Duration = Duration::from_secs(10);
/// Connections taken from a listener before others get their turn.
const ACCEPTS: usize = 64;

/// Both ends as the target namespace sees them.
type Ends = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Dial {
    ends: Ends,
    /// The packet, for the way back.
    syn: Box<[u8]>,
    parsed: Syn,
    outside: Socket,
    /// Whether the SYN went back.
    given: bool,
    born: Instant,
    /// When somebody last wanted this.
    seen: Instant,
    /// For connections to our name server: those of the host that have been tried.
    tried: Option<Vec<SocketAddr>>,
    traffic: Arc<Traffic>,
}

/// The connections to one destination.
#[derive(Debug, Default)]
struct ToOne {
    count: usize,
    /// As [`Dials::order`].
    order: VecDeque<Key>,
}

#[derive(Debug)]
pub(super) struct Dials {
    table: Slab<Dial>,
    index: HashMap<Ends, Key>,
    /// In the order of their first SYN; keys of those that are gone are left in until they are met.
    order: VecDeque<Key>,
    to_one: HashMap<SocketAddr, ToOne>,
    /// When to try to accept again.
    accept_at: Option<Instant>,
}

impl Dials {
    pub(super) fn new() -> Self {
        let (table, index) = (Slab::new(), HashMap::new());
        let (order, to_one) = (VecDeque::new(), HashMap::new());
        Self { table, index, order, to_one, accept_at: None }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Descriptors held, and those that their other ends will take.
    pub(super) fn descriptors(&self) -> usize {
        2 * self.table.len()
    }

    /// When listeners are to be tried again.
    pub(super) fn accept_at(&self) -> Option<Instant> {
        self.accept_at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The target namespace wants to connect.
    pub(super) fn syn(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        names: &mut Names,
        packet: &[u8],
        syn: &Syn,
    ) {
        if packet.len() > SYN {
            return shared.statistics.dropped();
        }
        let ends = (syn.src, syn.dst);
        if let Some(dial) = self.index.get(&ends).and_then(|key| self.table.get_mut(*key)) {
            // Perhaps a new attempt from the same port, with another sequence number.
            if dial.parsed.seq != syn.seq {
                (dial.syn, dial.parsed) = (packet.into(), *syn);
            }
            dial.seen = host.now();
            if dial.given {
                shared.dial.write(packet);
            }
            return;
        }
        let (to, tried) = match policy::outbound(&shared.plan, syn.dst) {
            Verdict::Dial(to) => (to, None),
            Verdict::Dns => match names.resolver(host.now(), &[]) {
                Some(to) => (to, Some(vec![to])),
                None => return shared.answers.reset(syn),
            },
            Verdict::Deny(reason) => {
                tracing::debug!("denied a connection to {}: {reason}", syn.dst);
                return shared.prohibit(packet, syn.src.ip());
            }
        };
        if self.to_one.get(&syn.dst).is_some_and(|to_one| to_one.count >= TO_ONE) {
            shared.statistics.evicted(1);
            if !self.make_room_to(syn.dst, host.now()) {
                return;
            }
        } else if self.table.len() >= CALLING || !host.take(Use::Out, 2) {
            shared.statistics.evicted(1);
            let chance = if self.table.len() >= CALLING { Duration::ZERO } else { SHORT_CHANCE };
            if !self.make_room(host.now(), chance) {
                return full(host);
            }
        }
        let traffic = shared.statistics.tcp(syn.dst);
        match call(to) {
            Ok(outside) => {
                let dial = Dial {
                    ends,
                    syn: packet.into(),
                    parsed: *syn,
                    outside,
                    given: false,
                    born: host.now(),
                    seen: host.now(),
                    tried,
                    traffic,
                };
                self.insert(host, dial);
            }
            Err(e) => {
                traffic.fail();
                refuse(shared, packet, syn, &e);
            }
        }
    }

    fn insert(&mut self, host: &EventLoop, dial: Dial) {
        let ends = dial.ends;
        let key = self.table.insert(dial);
        self.index.insert(ends, key);
        let to_one = self.to_one.entry(ends.1).or_default();
        to_one.count += 1;
        to_one.order.push_back(key);
        self.order.push_back(key);
        let Some(dial) = self.table.get(key) else { return };
        if let Err(e) = watch(host, &dial.outside, key) {
            tracing::debug!("cannot watch a connection: {e}");
            self.remove(key);
        }
    }

    /// The host's side has something to say: connected, or not.
    pub(super) fn connected(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        names: &mut Names,
        key: Key,
    ) {
        let Some(dial) = self.table.get_mut(key).filter(|dial| !dial.given) else { return };
        match dial.outside.take_error() {
            Ok(None) => {
                (dial.given, dial.seen) = (true, host.now());
                shared.dial.write(&dial.syn);
            }
            Ok(Some(error)) | Err(error) => {
                if self.try_next_resolver(host, names, key) {
                    return;
                }
                let Some(dial) = self.remove(key) else { return };
                dial.traffic.fail();
                refuse(shared, &dial.syn, &dial.parsed, &error);
            }
        }
    }

    /// A connection to our name server that one of the host's refused goes to the next.
    fn try_next_resolver(&mut self, host: &EventLoop, names: &mut Names, key: Key) -> bool {
        let Some(dial) = self.table.get_mut(key) else { return false };
        let Some(tried) = &mut dial.tried else { return false };
        if let Some(last) = tried.last() {
            names.unreachable(host.now(), *last);
        }
        let Some(to) = names.resolver(host.now(), tried) else { return false };
        tried.push(to);
        let Ok(outside) = call(to) else { return false };
        // The failed one leaves the event loop by being closed.
        dial.outside = outside;
        watch(host, &dial.outside, key).is_ok()
    }

    /// Connections that tproxy has led to a listener of the gateway namespace. Listeners are edge-triggered: what is
    /// left is taken at [`Dials::accept_at`].
    pub(super) fn accept(&mut self, host: &mut EventLoop, listener: &Socket) {
        for _ in 0..ACCEPTS {
            let (inside, peer) = match listener.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) => {
                    tracing::debug!("cannot accept a connection in the gateway namespace: {e}");
                    self.accept_at = Some(host.now() + REST);
                    return;
                }
            };
            let local = inside.local_addr().ok().and_then(|a| a.as_socket());
            let ends = peer.as_socket().zip(local);
            let key = ends.and_then(|ends| self.index.get(&ends).copied());
            let dial = key.and_then(|key| self.remove(key));
            match dial {
                Some(dial) if dial.given => {
                    let Dial { outside, traffic, .. } = dial;
                    if let Err(e) = host.relay(inside, outside, traffic) {
                        tracing::debug!("lost a connection: {e}");
                    }
                }
                // Of a predecessor's time, or given up meanwhile: a reset says so.
                _ => drop(inside.set_linger(Some(Duration::ZERO))),
            }
        }
        self.accept_at = Some(host.now());
    }

    /// Whether listeners are to be tried again now.
    pub(super) fn accepts_again(&mut self, now: Instant) -> bool {
        self.accept_at.take_if(|at| *at <= now).is_some()
    }

    /// Gives up what nobody waits for any more.
    pub(super) fn expire(&mut self, now: Instant) {
        let table = &self.table;
        let old: Vec<Key> = table
            .keys()
            .filter(|key| {
                table.get(*key).is_some_and(|dial| {
                    let limit = if dial.given { GIVEN } else { HANDSHAKE_TIMEOUT };
                    now.saturating_duration_since(dial.seen) > limit
                })
            })
            .collect();
        for key in old {
            self.give_up(key);
        }
    }

    /// Gives up the oldest connection, if it has had its chance. False if there is none.
    fn make_room(&mut self, now: Instant, chance: Duration) -> bool {
        while let Some(key) = self.order.front().copied() {
            match self.table.get(key) {
                Some(dial) if now.saturating_duration_since(dial.born) < chance => return false,
                _ => drop(self.order.pop_front()),
            }
            if self.give_up(key) {
                return true;
            }
        }
        false
    }

    /// Gives up the oldest connection to one destination, if it has had its chance.
    fn make_room_to(&mut self, destination: SocketAddr, now: Instant) -> bool {
        while let Some(to_one) = self.to_one.get_mut(&destination)
            && let Some(key) = to_one.order.front().copied()
        {
            match self.table.get(key) {
                Some(dial) if now.saturating_duration_since(dial.born) < CHANCE => return false,
                _ => drop(to_one.order.pop_front()),
            }
            if self.give_up(key) {
                return true;
            }
        }
        false
    }

    fn give_up(&mut self, key: Key) -> bool {
        let dial = self.remove(key);
        dial.inspect(|dial| dial.traffic.fail()).is_some()
    }

    fn remove(&mut self, key: Key) -> Option<Dial> {
        let dial = self.table.remove(key)?;
        self.index.remove(&dial.ends);
        let table = &self.table;
        if let Some(to_one) = self.to_one.get_mut(&dial.ends.1) {
            to_one.count -= 1;
            shorten(&mut to_one.order, table, to_one.count, TO_ONE);
            if to_one.count == 0 {
                self.to_one.remove(&dial.ends.1);
            }
        }
        shorten(&mut self.order, table, table.len(), CALLING);
        Some(dial)
    }
}

/// Takes stale keys out of a queue that has become long, or has nothing else.
fn shorten(order: &mut VecDeque<Key>, table: &Slab<Dial>, left: usize, limit: usize) {
    if left == 0 {
        order.clear();
    } else if order.len() > 2 * limit {
        order.retain(|key| table.get(*key).is_some());
    }
}

/// Nothing can make room for a connection: all there may be are made. This one's SYN will be repeated.
fn full(host: &mut EventLoop) {
    if host.worth_saying(Use::Out) {
        let limit = host.shares().limit;
        tracing::warn!(
            "outbound connections from containers wait for others to end: the limit of open files, {limit}, allows {} at a time\nhint: raise the limit of open files (ulimit -n, LimitNOFILE=)",
            host.shares().one_way / 2
        );
    }
}

/// Starts to connect.
fn call(to: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    if to.is_ipv6() {
        // A mapped address must not become IPv4 behind the back of the rules.
        socket.set_only_v6(true)?;
    }
    relay::factory::tune_tcp(&socket)?;
    // Its local port must not be in the way of a listener that somebody publishes there.
    socket.set_reuse_address(true)?;
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => {
            relay::congestion::use_local_towards(&socket, to);
            Ok(socket)
        }
    }
}

fn watch(host: &EventLoop, socket: &Socket, key: Key) -> io::Result<()> {
    let tag = Tag { kind: kind::DIAL, key };
    host.watch(socket, tag, EpollFlags::EPOLLOUT | EpollFlags::EPOLLET)
}

/// Tells the target namespace what the network told us.
fn refuse(shared: &Shared, packet: &[u8], syn: &Syn, error: &io::Error) {
    let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    tracing::debug!("connect to {}: {}", syn.dst, errno.desc());
    if errno == Errno::ECONNREFUSED || errno == Errno::ECONNRESET {
        return shared.answers.reset(syn);
    }
    // Others have no answer in the protocol: the SYN stays unanswered, as it did for us, and is repeated.
    if let Some(why) = meaning(errno) {
        let own = shared.own_address(syn.src.ip());
        shared.answers.unreachable(why, own, &Original::Packet(packet));
    }
}
