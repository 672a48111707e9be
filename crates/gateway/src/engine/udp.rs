//! UDP flows to the outside.
//!
//! A flow is a pair of addresses as the target namespace sees them. On the host's side it has a connected socket, so
//! that the kernel keeps strangers out and tells of errors. All flows of one address of the target namespace share one
//! local port there as far as that is possible (`SO_REUSEPORT`): somebody outside who is told "I am at this port" finds
//! it the same for everybody (RFC 4787, endpoint-independent mapping), which WebRTC and WireGuard behind the gateway
//! rely on.
//!
//! The first datagrams come out of the tun device. A flow that goes on gets a socket in the gateway namespace, bound to
//! the destination's address and connected to the target namespace's; the packet rules of the gateway namespace find it
//! before the tun device, and from then on datagrams travel in batches both ways, cut and put together by the kernel.
//!
//! Datagrams of an overlay network ([`relay::overlay`]) that go on come out of a packet socket, many at once
//! ([`super::overlay`]).
//!
//! What the target namespace forbids to cut ("don't fragment") is not cut on the host's side either. If it does not
//! fit, the host's kernel says so to our socket, as a router would, and the target namespace hears what the path allows
//! (RFC 1191, RFC 8201).
//!
//! The file is long because both directions of a flow and its end work on one table.

mod judged;
mod room;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink::conntrack;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use relay::datagrams::{Segmented, pieces, send_all};
use relay::event_handler::Tag;
use relay::flow_log::FlowEnd;
use relay::order::{Order, Speaker};
use relay::overlay::{SharedFlow, any_port, is_overlay, joins};
use relay::room::Use;
use relay::slab::{Key, Slab};
use relay::{Attribution, Counted, EventLoop, make_transparent, refuse_self_connection};
use socket2::{Domain, Protocol, Socket, Type};
use sys::mmsg::{BATCH, Receiver, Route};

use super::answers::{errno, next_error};
use super::attribution::{Attributions, outbound};
use super::egress_policy::Sender;
use super::host_socket::{
    AddressCheck, HostSocket, ORDINARY_LIFE, may_have_lost_address, report_errors,
};
use super::log::end_of;
use super::overlay::Overlay;
use super::{Shared, kind};
use crate::packet::{Original, Udp};
use crate::shares::{FEW, Holder, Lookups, Occupancy, RateLimit};

/// Flows of one address of the target namespace that share a port outside; more would make the kernel's lookups long.
const MAX_FLOWS_PER_PORT: usize = 64;
/// Datagrams of the target namespace after which a flow gets a socket in the gateway namespace.
const BUSY: u32 = 8;
/// How long a flow may be silent that nobody has answered, and one that somebody has.
const UNANSWERED_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWERED_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A time to live up to this asks for the routers on the way (traceroute(8)), so it is kept.
const SHORT_LIFE: u8 = 30;

/// Who sends what where: as the target namespace sees it, and the destination as the host sees it.
#[derive(Clone, Copy)]
struct Ends {
    src: SocketAddr,
    dst: SocketAddr,
    to: SocketAddr,
}

impl Ends {
    /// Tells the sender why its datagram does not arrive.
    fn explain(self, shared: &Shared, errno: Errno) {
        let original = Original::Udp { src: self.src, dst: self.dst };
        shared.explain(errno, self.src.ip(), &original);
    }
}

#[derive(Debug)]
struct Flow {
    /// Its place in the index.
    between: (SocketAddr, SocketAddr),
    /// Who gets the answers: the sender of the first datagram.
    src: SocketAddr,
    /// As the target namespace sees it.
    dst: SocketAddr,
    /// The destination as the host sees it.
    to: SocketAddr,
    outside: HostSocket,
    inside: Inside,
    /// Datagrams of the target namespace that came out of the tun device.
    count: u32,
    answered: bool,
    /// What the target namespace wants: the latest datagram that did not come in fragments.
    keep_whole: bool,
    cut_outside: Segmented,
    cut_inside: Segmented,
    counted: Counted,
    /// The latest error of the network.
    failure: Option<FlowEnd>,
    /// Whose it is.
    holder: Holder,
}

/// The socket in the gateway namespace.
#[derive(Debug)]
enum Inside {
    None,
    Asked,
    Is(Socket),
}

#[derive(Debug, Default)]
pub(super) struct Flows {
    table: Slab<Flow>,
    /// Flows by sender and destination. The sender's port is 0 for an overlay network ([`relay::overlay`]).
    index: HashMap<(SocketAddr, SocketAddr), Key>,
    /// The flows of each address of the target namespace that share a port outside.
    sharing: HashMap<SocketAddr, VecDeque<Key>>,
    /// Each holder has a group of its own.
    order: Order,
    occupancy: Occupancy,
    lookups: Lookups<Key>,
    rate_limit: RateLimit,
    insides: usize,
    receiver: Option<Receiver>,
}

impl Flows {
    pub(super) fn descriptors(&self) -> usize {
        self.table.len() + self.insides
    }

    // ---- from the target namespace --------------------------------------------------------------

    /// A datagram out of the tun device, for `to`.
    pub(super) fn outbound(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        attributions: &mut Attributions,
        (udp, sender): (&Udp<'_>, Option<Sender>),
        to: SocketAddr,
    ) {
        let ends = Ends { src: udp.src, dst: udp.dst, to };
        let datagram = (udp.payload, sender);
        let Some(key) = self.flow(host, shared, attributions, ends, datagram) else { return };
        let Some(flow) = self.table.get_mut(key) else { return };
        let tag = Tag { kind: kind::HOST, key };
        let ttl = if udp.ttl <= SHORT_LIFE { udp.ttl } else { ORDINARY_LIFE };
        flow.outside.set_ttl(ttl);
        flow.keep_whole = udp.keep_whole;
        flow.outside.keep_whole(udp.keep_whole);
        let sent = flow.outside.send(udp.payload).or_else(|e| {
            let again = flow.reconnect_after(e, host, tag);
            if again { flow.outside.send(udp.payload) } else { Err(e) }
        });
        match sent {
            // A full queue: lost, as on any network.
            Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                flow.counted.up(udp.payload.len() as u64);
            }
            Err(e) => ends.explain(shared, e),
        }
        flow.count = flow.count.saturating_add(1);
        let busy = flow.count == BUSY && matches!(flow.inside, Inside::None);
        // The packet rules give no overlay datagram from the target namespace to the socket of a flow.
        if busy && !is_overlay(udp.payload) && host.take(Use::FlowOut, 1) {
            flow.inside = Inside::Asked;
            match host.datagram_socket(flow.dst.is_ipv4(), key) {
                Ok(Some(socket)) => self.promote(host, key, Some(socket)),
                Ok(None) => {}
                Err(e) => tracing::debug!("cannot create a socket in the gateway namespace: {e}"),
            }
        }
    }

    /// Passes on what has been read of overlay networks. Datagrams of no flow get a second look by the packet rules: they are
    /// answers to the socket of somebody outside, or begin a flow when they come out of the tun device.
    pub(super) fn overlay_speaks(
        &mut self,
        host: &EventLoop,
        shared: &Shared,
        attributions: &Attributions,
        overlay: &Overlay,
    ) {
        for (src, dst, alike) in overlay.batches() {
            let first = alike.first().map_or(&[][..], |datagram| datagram.data);
            // Only source and destination name a flow; where it leads is not looked at.
            let flow = self.known(shared, attributions, host.now(), (src, dst, first));
            if let Some(key) = flow
                && let Some(flow) = self.table.get_mut(key)
            {
                // The rules leave what must not be cut on the tun device, where a short time to live is kept, too.
                flow.outside.keep_whole(false);
                flow.outside.set_ttl(ORDINARY_LIFE);
                let outside = flow.outside.as_fd();
                let alike = alike.into_iter();
                let sent = send_all(outside, alike, Route::default(), &mut flow.cut_outside);
                flow.counted.up(sent.bytes);
                if let Some(error) = sent.error {
                    flow.reconnect_after(error, host, Tag { kind: kind::HOST, key });
                }
                self.order.spoke(key, Speaker::Client, host.now());
            } else if shared.plan.is_child(dst.ip()) {
                // The rules would take it for an answer of this process.
                alike.iter().for_each(|_| shared.drop_packet());
            } else {
                let pieces = alike.into_iter().flat_map(pieces);
                pieces.for_each(|piece| shared.look_again(src, dst, piece));
            }
        }
    }

    /// The flow between these ends, made if need be; it is used now. `None` if there can be none, which the sender is
    /// told.
    fn flow(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        attributions: &mut Attributions,
        ends: Ends,
        (datagram, sender): (&[u8], Option<Sender>),
    ) -> Option<Key> {
        let between = self.between(shared, ends, datagram);
        let key = match self.index.get(&between).copied() {
            Some(key) => key,
            None if !self.may_begin(host, shared.holder(ends.src.ip(), sender)) => {
                shared.statistics.events().evicted += 1;
                return None;
            }
            None => {
                let query = outbound(conntrack::Protocol::Udp, ends.src, ends.dst);
                let attribution = attributions.flow(host.now(), query, sender).attribution;
                let holder = shared.holder_of(ends.src.ip(), &attribution);
                match self.begin(host, shared, ends, between, (attribution.clone(), holder)) {
                    Ok(key) => key,
                    Err(e) => {
                        tracing::debug!("cannot create a flow to {}: {e}", ends.dst);
                        shared.statistics.udp(ends.dst).fail();
                        attribution.fail(FlowEnd::of(errno(&e)));
                        ends.explain(shared, errno(&e));
                        return None;
                    }
                }
            }
        };
        self.client_speaks(shared, attributions, key, host.now(), sender);
        Some(key)
    }

    /// The place in the index of the flow that a datagram belongs to, or begins.
    fn between(&self, shared: &Shared, ends: Ends, datagram: &[u8]) -> (SocketAddr, SocketAddr) {
        let (own, any) = ((ends.src, ends.dst), (any_port(ends.src), ends.dst));
        // What all containers share has no sender.
        if shared.egress.depends_on_sender {
            return own;
        }
        let flow = self.index.get(&any).and_then(|key| self.table.get(*key));
        let flow = flow.map(|flow| SharedFlow { first: flow.src, answered: flow.answered });
        let joins = joins(ends.src, datagram, flow) && !self.index.contains_key(&own);
        if joins { any } else { own }
    }

    fn begin(
        &mut self,
        host: &mut EventLoop,
        shared: &Shared,
        ends: Ends,
        between: (SocketAddr, SocketAddr),
        (attribution, holder): (Attribution, Holder),
    ) -> io::Result<Key> {
        if !self.has_room(host, shared, holder) {
            return Err(Errno::EMFILE.into());
        }
        let Ends { src, dst, to } = ends;
        let outside = HostSocket::new(self.connect(src, to)?, to.ip());
        let holder = self.occupancy.counts_for(holder);
        let flow = Flow {
            between,
            src,
            dst,
            to,
            outside,
            inside: Inside::None,
            count: 0,
            answered: false,
            keep_whole: false,
            cut_outside: Segmented::default(),
            cut_inside: Segmented::default(),
            counted: Counted::open(shared.statistics.udp(dst)).attributed(attribution),
            failure: None,
            holder,
        };
        let key = self.table.insert(flow);
        if let Some(flow) = self.table.get(key) {
            let tag = Tag { kind: kind::HOST, key };
            if let Err(e) = host.watch(&flow.outside, tag, EpollFlags::EPOLLIN) {
                self.table.remove(key);
                return Err(e);
            }
        }
        self.index.insert(between, key);
        self.sharing.entry(src).or_default().push_back(key);
        let (_, slot) = self.occupancy.join(holder);
        self.order.insert_into(slot.index(), key, host.now());
        if holder == Holder::Pending {
            self.lookups.push(key);
        }
        self.reassign_next(shared, FEW);
        self.receiver.get_or_insert_with(Receiver::new);
        Ok(key)
    }

    /// A socket on the host's side, at the port that the other flows of `src` have if that is possible.
    fn connect(&self, src: SocketAddr, to: SocketAddr) -> io::Result<Socket> {
        let sharing = self.sharing.get(&src);
        let port = sharing.filter(|flows| flows.len() < MAX_FLOWS_PER_PORT).and_then(|flows| {
            let flow = self.table.get(*flows.front()?)?;
            // One to the host's loopback is bound to another address, which makes no difference.
            flow.outside.port()
        });
        let connected = port.and_then(|port| connect(to, Some(port)).ok());
        connected.map_or_else(|| connect(to, None), Ok)
    }

    /// Datagrams of the target namespace that have arrived at a flow's socket in the gateway namespace.
    pub(super) fn inside_speaks(
        &mut self,
        host: &EventLoop,
        shared: &Shared,
        attributions: &mut Attributions,
        key: Key,
    ) {
        if self.receive_inside(key) {
            self.client_speaks(shared, attributions, key, host.now(), None);
            if let Some(error) = self.send_outside(key)
                && let Some(flow) = self.table.get_mut(key)
            {
                flow.reconnect_after(error, host, Tag { kind: kind::HOST, key });
            }
        }
    }

    /// Asks whose the flow is after a silence, unless that is known.
    fn client_speaks(
        &mut self,
        shared: &Shared,
        attributions: &mut Attributions,
        key: Key,
        now: Instant,
        sender: Option<Sender>,
    ) {
        if (sender.is_some() || self.is_silent(key, now))
            && let Some(flow) = self.table.get(key)
            && let Some(attribution) = flow.counted.attribute_again()
        {
            let query = outbound(conntrack::Protocol::Udp, flow.src, flow.dst);
            attributions.flow_again(now, query, attribution.clone(), sender);
            let holder = shared.holder_of(flow.src.ip(), &attribution);
            self.reassign(key, holder);
            if holder == Holder::Pending {
                self.lookups.push(key);
                // Also where nothing new begins, they cannot pile up.
                self.reassign_next(shared, FEW);
            }
        }
        self.order.spoke(key, Speaker::Client, now);
    }

    /// Passes a batch on to the outside. False if there was none.
    fn carry_out(&mut self, key: Key) -> bool {
        let received = self.receive_inside(key);
        if received {
            self.send_outside(key);
        }
        received
    }

    /// Receives a batch from the target namespace. False if there is none.
    fn receive_inside(&mut self, key: Key) -> bool {
        let Some(flow) = self.table.get_mut(key) else { return false };
        let (Inside::Is(inside), Some(receiver)) = (&flow.inside, &mut self.receiver) else {
            return false;
        };
        // Errors are about earlier answers and are cleared by being read.
        receiver.recv(inside.as_fd(), BATCH).unwrap_or(0) > 0
    }

    /// Sends what was received. Returns the last error.
    fn send_outside(&mut self, key: Key) -> Option<Errno> {
        let (flow, receiver) = (self.table.get_mut(key)?, self.receiver.as_ref()?);
        let mut error = None;
        let mut batch = receiver.iter().peekable();
        while let Some(first) = batch.peek() {
            let cut = first.cut;
            flow.outside.keep_whole(flow.keep_whole && !cut);
            let alike = std::iter::from_fn(|| batch.next_if(|datagram| datagram.cut == cut));
            let outside = flow.outside.as_fd();
            let sent = send_all(outside, alike, Route::default(), &mut flow.cut_outside);
            flow.counted.up(sent.bytes);
            error = sent.error.or(error);
        }
        error
    }

    pub(super) fn promote(&mut self, host: &EventLoop, key: Key, socket: Option<Socket>) {
        let Some(flow) = self.table.get_mut(key) else { return };
        if let (Inside::Asked, Some(socket)) = (&flow.inside, socket) {
            let ready = take_place(&socket, flow.dst, flow.src).and_then(|()| {
                host.watch(&socket, Tag { kind: kind::INSIDE, key }, EpollFlags::EPOLLIN)
            });
            match ready {
                Ok(()) => {
                    flow.inside = Inside::Is(socket);
                    self.insides += 1;
                }
                Err(e) => tracing::debug!("the flow to {} stays on the tun device: {e}", flow.dst),
            }
        }
    }

    // ---- the outside answers --------------------------------------------------------------------

    /// Datagrams or errors for the target namespace.
    pub(super) fn outside_speaks(
        &mut self,
        host: &EventLoop,
        shared: &Shared,
        key: Key,
        flags: EpollFlags,
    ) {
        let Some(flow) = self.table.get_mut(key) else { return };
        if flags.contains(EpollFlags::EPOLLERR) {
            flow.pass_errors_on(shared);
        }
        if self.bring_in(shared, key) {
            self.order.spoke(key, Speaker::Server, host.now());
        }
    }

    /// Passes a batch on to the target namespace. False if there was none.
    fn bring_in(&mut self, shared: &Shared, key: Key) -> bool {
        let Some(flow) = self.table.get_mut(key) else { return false };
        let Some(receiver) = &mut self.receiver else { return false };
        if receiver.recv(flow.outside.as_fd(), BATCH).unwrap_or(0) == 0 {
            return false;
        }
        flow.answered = true;
        // Anybody's may have come before a socket that shares its port was connected.
        let to = flow.to;
        let theirs = receiver.iter().filter(|datagram| datagram.from == Some(to));
        let bytes = if let Inside::Is(inside) = &flow.inside {
            send_all(inside.as_fd(), theirs, Route::default(), &mut flow.cut_inside).bytes
        } else {
            let mut bytes = 0;
            for piece in theirs.flat_map(pieces) {
                shared.answers.udp(flow.dst, flow.src, piece);
                bytes += piece.len() as u64;
            }
            bytes
        };
        flow.counted.down(bytes);
        true
    }

    // ---- the end --------------------------------------------------------------------------------

    pub(super) fn expire(&mut self, now: Instant) {
        let silent = |key: Key, flow: &Flow| {
            let limit = if flow.answered { ANSWERED_IDLE_TIMEOUT } else { UNANSWERED_IDLE_TIMEOUT };
            let used = self.order.used(key);
            used.is_none_or(|used| now.saturating_duration_since(used) > limit)
        };
        let old = self.table.iter().filter(|(key, flow)| silent(*key, flow)).map(|(key, _)| key);
        for key in old.collect::<Vec<_>>() {
            let Some(flow) = self.table.get(key) else { continue };
            let unanswered = || flow.failure.unwrap_or(FlowEnd::TimedOut);
            let end = if flow.answered { FlowEnd::Idle } else { unanswered() };
            self.end(key, end);
        }
        if let Some(receiver) = &mut self.receiver {
            if self.table.is_empty() { receiver.release() } else { receiver.trim() }
        }
    }

    /// Flows over IPv6 whose address the host has lost go on from another one.
    pub(super) fn leave_lost_addresses(&mut self, host: &EventLoop, check: &mut AddressCheck) {
        let lost = self
            .table
            .iter()
            .filter(|(_, flow)| check.has_lost(&flow.outside))
            .map(|(key, _)| key)
            .collect::<Vec<_>>();
        for key in lost {
            if let Some(flow) = self.table.get_mut(key) {
                flow.reconnect(host, Tag { kind: kind::HOST, key });
            }
        }
    }

    fn end(&mut self, key: Key, end: FlowEnd) {
        let Some(mut flow) = self.table.remove(key) else { return };
        flow.counted.end(end);
        self.index.remove(&flow.between);
        self.order.remove(key);
        self.occupancy.leave(flow.holder);
        if matches!(flow.inside, Inside::Is(_)) {
            self.insides -= 1;
        }
        if let Some(sharing) = self.sharing.get_mut(&flow.src) {
            // Old ones, which go first, are at its beginning.
            let at = sharing.iter().position(|other| *other == key);
            at.and_then(|at| sharing.remove(at));
            if sharing.is_empty() {
                self.sharing.remove(&flow.src);
            }
        }
    }
}

impl Flow {
    /// Goes on from another address of the host if this error means that its own is lost. True if it does.
    fn reconnect_after(&mut self, error: Errno, host: &EventLoop, tag: Tag) -> bool {
        may_have_lost_address(error) && self.reconnect(host, tag)
    }

    fn reconnect(&mut self, host: &EventLoop, tag: Tag) -> bool {
        let to = self.to;
        let anew = |port| connect(to, Some(port)).or_else(|_| connect(to, None));
        let is_another = self.outside.reconnect(host, tag, anew);
        if is_another {
            self.cut_outside = Segmented::default();
        }
        is_another
    }

    fn pass_errors_on(&mut self, shared: &Shared) {
        // As many as can be told apart; the queue is short.
        let mut last = None;
        for _ in 0..BATCH {
            let Some(error) = next_error(&self.outside) else { break };
            // A datagram that is too large is tried twice.
            if last.replace(error) == Some(error) {
                continue;
            }
            self.counted.fail();
            self.failure = end_of(error.why).or(self.failure);
            // One without a sender is our own kernel's.
            let source = error.source.unwrap_or_else(|| shared.own_address(self.src.ip()));
            let original = Original::Udp { src: self.src, dst: self.dst };
            shared.answers.unreachable(error.why, shared.visible(source), &original);
        }
    }
}

fn connect(to: SocketAddr, port: Option<u16>) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::UDP))?;
    relay::factory::tune_udp(&socket);
    report_errors(&socket, to.is_ipv4())?;
    if to.is_ipv6() {
        // A mapped address must not become IPv4 behind the back of the rules.
        socket.set_only_v6(true)?;
    }
    // Only sockets of the same user can share a port this way (socket(7)).
    if let Some(port) = port {
        socket.set_reuse_port(true)?;
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.connect(&to.into())?;
    } else {
        // Willing to share from now on, not before: the kernel would choose a port that another flow has, and two
        // flows to one destination could not be told apart.
        socket.connect(&to.into())?;
        socket.set_reuse_port(true)?;
    }
    refuse_self_connection(&socket, to)?;
    Ok(socket)
}

/// Makes a socket of the gateway namespace speak for `dst` to `src`.
fn take_place(socket: &Socket, dst: SocketAddr, src: SocketAddr) -> io::Result<()> {
    make_transparent(socket, dst.is_ipv4())?;
    // Without it (before Linux 4.10) what the target namespace allowed to be cut may be refused for its size.
    if let Err(e) = sys::whole::report_cuts(socket.as_fd(), dst.is_ipv4()) {
        tracing::debug!("cannot detect fragments: {}", e.desc());
    }
    // Other addresses of the target namespace may talk to the same destination.
    socket.set_reuse_address(true)?;
    socket.bind(&dst.into())?;
    socket.connect(&src.into())
}
