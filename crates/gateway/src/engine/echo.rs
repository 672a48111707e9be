//! Ping: echo requests leave by a ping socket of the host (icmp(7)), and only real answers come back.
//!
//! The kernel replaces the identifier of a request by one of its own, so each pair of addresses with an identifier has
//! a socket, for as long as it is used.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use netlink::conntrack::Query;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv};
use relay::event_handler::Tag;
use relay::flow_log::{FlowEnd, FlowRecord, FlowStart};
use relay::room::Use;
use relay::slab::{Key, Slab};
use relay::{EventLoop, Opened, RuleName};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::{AsFd as _, AsRawFd as _};

use super::answers::{errno, next_error};
use super::attribution::{Attributions, ECHO_REQUEST, Entry, TRACKED_TIME, echo_request};
use super::egress_policy::Sender;
use super::host_socket::{AddressCheck, HostSocket, may_have_lost_address, report_errors};
use super::log::{Log, end_of};
use super::{Shared, kind};
use crate::packet::{self, ECHO_REQUEST_V6, Echo, Original};
use crate::shares::{Holder, Occupancy, RateLimit};

/// Sockets at a time. Beyond that, another one takes the place of one that is there.
const MAX_PING_SOCKETS: usize = 256;
/// How long one is kept that is not used.
const ECHO_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWERS_PER_TURN: usize = 32;
/// Type, code, checksum, identifier, sequence number.
const HEADER_LEN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    src: IpAddr,
    dst: IpAddr,
    id: u16,
}

#[derive(Debug)]
struct Asking {
    ends: Ends,
    /// Who sends, once that is known, and so whose it is.
    sender: Option<Sender>,
    holder: Holder,
    socket: HostSocket,
    used: Instant,
    /// The sequence number of the latest request, for errors.
    seq: u16,
    /// What the flow log says of it: payload bytes each way, whether there was an answer, the latest error.
    start: FlowStart,
    up: u64,
    down: u64,
    answered: bool,
    failure: Option<FlowEnd>,
}

#[derive(Debug, Default)]
pub(super) struct Echoes {
    table: Slab<Asking>,
    index: HashMap<Ends, Key>,
    occupancy: Occupancy,
    rate_limit: RateLimit,
    /// The kernel allows no ping sockets; said once.
    forbidden: bool,
}

impl Echoes {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whose ping it is.
    pub(super) fn attribute(&mut self, shared: &Shared, key: Key, sender: Sender) {
        if let Some(asking) = self.table.get_mut(key) {
            asking.sender = Some(sender);
            asking.reassign(&mut self.occupancy, shared);
        }
    }

    /// Whether another ping takes the place of one that is there.
    pub(super) fn is_full(&self, host: &EventLoop) -> bool {
        self.table.len() >= MAX_PING_SOCKETS || !host.fits(Use::Ping, 1)
    }

    /// Whether a request goes on with a ping that cannot be another container's now.
    pub(super) fn knows(&self, attributions: &Attributions, now: Instant, echo: &Echo<'_>) -> bool {
        let ends = Ends { src: echo.src, dst: echo.dst, id: echo.id };
        let asking = self.index.get(&ends).and_then(|key| self.table.get(*key));
        let waits = || attributions.waits(&echo_request(echo.src, echo.dst, echo.id));
        asking.is_some_and(|asking| !asking.is_silent(now)) && !waits()
    }

    pub(super) fn request(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        attributions: &mut Attributions,
        (echo, sender): (&Echo<'_>, Option<Sender>),
    ) {
        shared.statistics.events().echo_requests += 1;
        let (now, query) = (host.now(), echo_request(echo.src, echo.dst, echo.id));
        let ends = Ends { src: echo.src, dst: echo.dst, id: echo.id };
        let key = match self.index.get(&ends).copied() {
            Some(key) => key,
            None if !self.may_begin(host, shared.holder(echo.src, sender)) => {
                shared.statistics.events().evicted += 1;
                match sender {
                    Some(Sender { container, is_guess: false }) => {
                        shared.statistics.of(container, |events| *events = *events + ECHO_REQUEST);
                    }
                    _ => drop(attributions.count(now, query, ECHO_REQUEST, None, None)),
                }
                return;
            }
            None => match self.begin(host, shared, &attributions.log, (ends, sender), &query) {
                Ok(key) => key,
                Err(e) => {
                    let end = Some(FlowEnd::of(errno(&e)));
                    attributions.count(now, query, ECHO_REQUEST, None, end);
                    return self.refused(shared, &e, echo);
                }
            },
        };
        let Some(asking) = self.table.get_mut(key) else { return };
        if asking.is_silent(now) {
            asking.sender = None;
        }
        asking.sender = sender.or(asking.sender);
        match asking.sender {
            Some(Sender { container, is_guess: false }) => {
                shared.statistics.of(container, |events| *events = *events + ECHO_REQUEST);
            }
            _ => {
                let of = Some(Entry::Ping(key));
                let guess = attributions.count(now, query, ECHO_REQUEST, of, None);
                asking.sender = guess.or(asking.sender);
            }
        }
        asking.reassign(&mut self.occupancy, shared);
        (asking.used, asking.seq) = (host.now(), echo.seq);
        asking.socket.set_ttl(echo.ttl);
        asking.socket.keep_whole(echo.keep_whole);
        let mut message = Vec::with_capacity(HEADER_LEN + echo.payload.len());
        let kind = if echo.dst.is_ipv4() { packet::ECHO_REQUEST } else { ECHO_REQUEST_V6 };
        // Checksum and identifier are the kernel's.
        message.extend([kind, 0, 0, 0, 0, 0]);
        message.extend(echo.seq.to_be_bytes());
        message.extend(echo.payload);
        asking.up += echo.payload.len() as u64;
        let sent = asking.socket.send(&message).or_else(|e| {
            let again = may_have_lost_address(e) && asking.reconnect(host, key);
            if again { asking.socket.send(&message) } else { Err(e) }
        });
        if let Err(e) = sent {
            asking.failure = Some(FlowEnd::of(e));
            self.refused(shared, &e.into(), echo);
        }
    }

    /// The ping that makes room for a new one of `newcomer`: the one of whoever has the most that was silent longest.
    fn victim(&self, newcomer: Holder) -> Option<(Key, &Asking)> {
        let (of, _) = self.occupancy.victim(newcomer)?;
        let theirs = self.table.iter().filter(|(_, asking)| asking.holder == of);
        theirs.min_by_key(|(_, asking)| asking.used)
    }

    /// Whether the rate limit allows a new ping of `newcomer` ([`RateLimit::allows`]). It needs a token if one that nobody has
    /// answered would make room for it.
    fn may_begin(&mut self, host: &EventLoop, newcomer: Holder) -> bool {
        let needs_token = |(_, asking): (Key, &Asking)| {
            !asking.answered && self.occupancy.needs_token(asking.holder, newcomer)
        };
        let needs_token = self.is_full(host) && self.victim(newcomer).is_some_and(needs_token);
        self.rate_limit.allows(needs_token, newcomer, host.now())
    }

    fn begin(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        log: &Log,
        (ends, sender): (Ends, Option<Sender>),
        query: &Query,
    ) -> io::Result<Key> {
        let holder = shared.holder(ends.src, sender);
        if self.is_full(host) || !host.take(Use::Ping, 1) {
            let (victim, _) = self.victim(holder).ok_or(Errno::EMFILE)?;
            self.end(victim, log, Some((FlowEnd::Evicted, None)));
            shared.statistics.events().evicted += 1;
        }
        let socket = HostSocket::new(ping_socket(ends.dst)?, ends.dst);
        let holder = self.occupancy.counts_for(holder);
        let key = self.table.insert(Asking {
            ends,
            sender,
            holder,
            socket,
            used: host.now(),
            seq: 0,
            start: log.start(host.now(), query),
            up: 0,
            down: 0,
            answered: false,
            failure: None,
        });
        self.occupancy.join(holder);
        self.index.insert(ends, key);
        if let Some(asking) = self.table.get(key) {
            let tag = Tag { kind: kind::ECHO, key };
            if let Err(e) = host.watch(&asking.socket, tag, EpollFlags::EPOLLIN) {
                self.remove(key);
                return Err(e);
            }
        }
        Ok(key)
    }

    fn refused(&mut self, shared: &Shared, error: &io::Error, echo: &Echo<'_>) {
        let errno = errno(error);
        tracing::debug!("echo request to {}: {}", echo.dst, errno.desc());
        if errno == Errno::EACCES && !std::mem::replace(&mut self.forbidden, true) {
            tracing::warn!(
                "containers cannot ping: this user's group is not allowed to open ping sockets\nhint: run: sudo sysctl -w net.ipv4.ping_group_range=\"0 2147483647\""
            );
        }
        let Echo { src, dst, id, seq, .. } = *echo;
        shared.explain(errno, src, &Original::Echo { src, dst, id, seq });
    }

    /// Answers, or errors.
    pub(super) fn reply(&mut self, host: &EventLoop, shared: &Shared, key: Key, flags: EpollFlags) {
        let Some(asking) = self.table.get_mut(key) else { return };
        let Ends { src, dst, id } = asking.ends;
        asking.used = host.now();
        if flags.contains(EpollFlags::EPOLLERR) {
            for _ in 0..MAX_ANSWERS_PER_TURN {
                let Some(error) = next_error(&asking.socket) else { break };
                asking.failure = end_of(error.why).or(asking.failure);
                let source = error.source.unwrap_or_else(|| shared.own_address(src));
                let original = Original::Echo { src, dst, id, seq: asking.seq };
                shared.answers.unreachable(error.why, shared.visible(source), &original);
            }
        }
        let mut message = vec![0; 65_536];
        for _ in 0..MAX_ANSWERS_PER_TURN {
            let fd = asking.socket.as_fd().as_raw_fd();
            let Ok(length) = recv(fd, &mut message, MsgFlags::MSG_DONTWAIT) else { break };
            let Some((header, payload)) = message[..length].split_first_chunk::<HEADER_LEN>()
            else {
                continue;
            };
            let seq = u16::from_be_bytes([header[6], header[7]]);
            (asking.answered, asking.down) = (true, asking.down + payload.len() as u64);
            shared.answers.echo(dst, src, (id, seq), payload);
        }
    }

    pub(super) fn expire(&mut self, now: Instant, log: &Log) {
        let idle = |asking: &Asking| now.saturating_duration_since(asking.used) > ECHO_IDLE_TIMEOUT;
        let old = self.table.iter().filter(|(_, asking)| idle(asking)).map(|(key, _)| key);
        for key in old.collect::<Vec<_>>() {
            self.end(key, log, None);
        }
    }

    /// Pings over IPv6 whose address the host has lost go on from another one.
    pub(super) fn leave_lost_addresses(&mut self, host: &EventLoop, check: &mut AddressCheck) {
        let lost = self
            .table
            .iter()
            .filter(|(_, asking)| check.has_lost(&asking.socket))
            .map(|(key, _)| key)
            .collect::<Vec<_>>();
        for key in lost {
            if let Some(asking) = self.table.get_mut(key) {
                asking.reconnect(host, key);
            }
        }
    }

    /// Ends what the egress policy does not allow any more.
    pub(super) fn end_denied(&mut self, shared: &Shared, log: &Log) {
        let denied = self.table.iter().filter_map(|(key, asking)| {
            let Sender { container, is_guess } = asking.sender?;
            let destination = SocketAddr::new(asking.ends.dst, 0);
            let opened = Opened { container, is_guess, destination };
            Some((key, shared.egress.denied_by(egress::Protocol::Icmp, &opened)?))
        });
        for (key, rule) in denied.collect::<Vec<_>>() {
            if let Some(Asking { ends: Ends { src, dst, id }, seq, .. }) = self.table.get(key) {
                shared.forbid(*src, &Original::Echo { src: *src, dst: *dst, id: *id, seq: *seq });
            }
            self.end(key, log, Some((FlowEnd::Denied, Some(rule))));
        }
    }

    /// Ends the pings of containers that are gone.
    pub(super) fn end_of(&mut self, gone: &[IpAddr], log: &Log) {
        let is_gone =
            |asking: &Asking| asking.sender.is_some_and(|of| gone.contains(&of.container));
        let ends = self.table.iter().filter(|(_, asking)| is_gone(asking)).map(|(key, _)| key);
        for key in ends.collect::<Vec<_>>() {
            self.end(key, log, None);
        }
    }

    /// Ends the ping that a request belongs to and that a rule forbids, if there is one.
    pub(super) fn end_between(&mut self, log: &Log, echo: &Echo<'_>, rule: RuleName) {
        let ends = Ends { src: echo.src, dst: echo.dst, id: echo.id };
        if let Some(key) = self.index.get(&ends).copied() {
            self.end(key, log, Some((FlowEnd::Denied, Some(rule))));
        }
    }

    /// Ends a ping for some reason, perhaps a rule, or because it is idle.
    fn end(&mut self, key: Key, log: &Log, end: Option<(FlowEnd, Option<RuleName>)>) {
        let Some(asking) = self.remove(key).filter(|_| log.flows.is_followed()) else { return };
        let Asking { sender, start, up, down, answered, failure, .. } = asking;
        let unanswered = || failure.unwrap_or(FlowEnd::TimedOut);
        let end =
            end.unwrap_or_else(|| (if answered { FlowEnd::Idle } else { unanswered() }, None));
        let ended = Instant::now();
        // Of one that has to go before its container was found, nobody knows whose it was.
        let container = sender.map(|sender| sender.container);
        let (end, rule) = end;
        log.flows.push(FlowRecord { start, container, up, down, ended, end, rule });
    }

    fn remove(&mut self, key: Key) -> Option<Asking> {
        let asking = self.table.remove(key)?;
        self.index.remove(&asking.ends);
        self.occupancy.leave(asking.holder);
        Some(asking)
    }
}

impl Asking {
    /// Whether it has been silent for so long that the connection tracking may have forgotten whose it was.
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) >= TRACKED_TIME
    }

    /// Goes on from another address of the host if there is one. True if it does.
    fn reconnect(&mut self, host: &EventLoop, key: Key) -> bool {
        let dst = self.ends.dst;
        self.socket.reconnect(host, Tag { kind: kind::ECHO, key }, |_| ping_socket(dst))
    }

    /// Counts it for whom it is of.
    fn reassign(&mut self, occupancy: &mut Occupancy, shared: &Shared) {
        let holder = occupancy.counts_for(shared.holder(self.ends.src, self.sender));
        if holder != self.holder {
            occupancy.leave(self.holder);
            (self.holder, _) = occupancy.join(holder);
        }
    }
}

/// A socket that may send echo requests to `dst` and receives what answers them. `EACCES` if the group of the process
/// is not in `net.ipv4.ping_group_range`.
fn ping_socket(dst: IpAddr) -> io::Result<Socket> {
    let to = SocketAddr::new(dst, 0);
    let protocol = if dst.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    report_errors(&socket, dst.is_ipv4())?;
    socket.connect(&to.into())?;
    Ok(socket)
}
