//! UDP ports and their flows.
//!
//! A flow is a client address together with the local address that the client asked, and has a socket
//! of its own that is connected to the target. Datagrams are received in batches, sorted by flow without
//! changing the order within one, and sent in as few calls as their sizes allow: runs of equal size as
//! one segmented send (`UDP_SEGMENT`), the rest with sendmmsg(2). Whatever the kernel coalesced on the
//! way in (`UDP_GRO`) is cut apart at the same boundaries.
//!
//! Datagrams of an overlay network share a flow, whatever port they come from ([`crate::overlay`]).
//!
//! On a wildcard listener answers leave from the address that was asked (`IP_PKTINFO`): clients drop
//! answers from another one. The client's address is *not* kept towards the backend: answers to
//! foreign addresses would leave through the namespace's tap device (RootlessKit issue 592).
//!
//! A datagram that a full socket does not take is dropped, as a router would; nothing waits, except the
//! first few datagrams of a flow whose socket is still on its way.
//!
//! A flow that is silent in both directions for the idle timeout ([`crate::UDP_FLOW_IDLE_TIMEOUT`], unless
//! `Options::udp_flow_idle_timeout` says otherwise) is closed.
//!
//! A full table makes room in the order of [`crate::order`]. A flow that has to go is read to its end first: an
//! answer that has come in the meantime still reaches the client.
//!
//! The file is long because both directions of a flow and its end work on one table.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use socket2::{Domain, Socket};
use sys::mmsg::{BATCH, Datagram, Local, Receiver, Route, send_each};
use tracing::debug;

use crate::client_address::{keep_source, make_transparent};
use crate::ctx::{Ctx, Source, Timer};
use crate::datagrams::{Segmented, Sent, pieces, send_all};
use crate::early::Early;
use crate::factory::{SocketKind, tune_udp};
use crate::flow_log::{FlowEnd, Transport};
use crate::options::{Options, Transparent};
use crate::order::{Order, Speaker};
use crate::overlay::{SharedFlow, Writer, any_port, is_overlay, joins};
use crate::pool::{Taken, Waiter};
use crate::room::{Held, Use};
use crate::self_connection::refuse_self_connection;
use crate::service::Service;
use crate::slab::{Key, Slab};
use crate::total::Total;
use crate::traffic::Counted;

/// While no flow of a port has been answered, so many times [`Options::flows_per_port`] may wait.
const WAITING_TIMES: usize = 4;
/// Batches of answers that are passed on for a flow that has to go; more than that is a stream, which will break anyway.
const MAX_LAST_BATCHES: usize = 4;

/// Who talks to which of our addresses; the port is 0 for an overlay network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    client: SocketAddr,
    local: Option<Local>,
}

#[derive(Debug)]
struct Port {
    listener: Socket,
    /// Where it listens.
    address: Option<SocketAddr>,
    service: Service,
    flows: HashMap<Ends, Key>,
    order: Order,
    /// Of the listener's sends.
    segmented: Segmented,
}

#[derive(Debug)]
struct Flow {
    port: Key,
    ends: Ends,
    /// Whom the answers are for: the sender of the first datagram.
    client: SocketAddr,
    answered: bool,
    /// What the network has said instead of an answer, at last.
    failure: Option<FlowEnd>,
    backend: Option<Socket>,
    /// The ends of the backend, if the datagrams may cross [`FlowTable::overlay`].
    overlay: Option<(SocketAddr, SocketAddr)>,
    early: Early,
    counted: Counted,
    segmented: Segmented,
}

#[derive(Debug, Default)]
pub(crate) struct FlowTable {
    ports: Slab<Port>,
    flows: Slab<Flow>,
    /// See [`Options::overlay`].
    overlay: Option<Arc<Writer>>,
    /// The order of the flows of all ports together, for when descriptors are short.
    all: Order,
    /// For the last answers of flows that have to go, made with the first of them.
    last_answers: Option<Receiver>,
    /// Bytes that wait for backends, of all flows.
    early: Total,
    expiring: bool,
}

/// The flow table, and the buffers for batches of datagrams.
#[derive(Debug)]
pub(crate) struct Udp {
    pub(crate) table: FlowTable,
    /// Made with the first datagram; the process may well have none.
    receiver: Option<Receiver>,
}

impl Udp {
    pub(crate) fn new(opts: &Options) -> Self {
        let table = FlowTable { overlay: opts.overlay.clone(), ..FlowTable::default() };
        Self { table, receiver: None }
    }

    pub(crate) fn requests(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(port) = self.table.ports.get(key) else { return };
        let receiver = self.receiver.get_or_insert_with(Receiver::new);
        // Errors are about earlier answers (ICMP) and are cleared by being read.
        let n = receiver.recv(port.listener.as_fd(), BATCH).unwrap_or(0);
        // Also of datagrams that begin no flow.
        self.table.expire_later(ctx);
        let mut order = [(Key::NONE, 0usize); BATCH];
        // Of the datagram before: what its flow was found by, and the flow.
        let mut last = None;
        let mut admitted = None;
        let mut count = 0;
        for (i, datagram) in receiver.iter().enumerate().take(n) {
            let Some(client) = datagram.from else { continue };
            if admitted != Some(client.ip()) {
                if !self.table.admits(ctx, key, client, &datagram) {
                    continue;
                }
                admitted = Some(client.ip());
            }
            let kind = (client, datagram.local, is_overlay(datagram.data));
            let flow = match last {
                Some((same, flow)) if same == kind => Some(flow),
                _ => {
                    let ends = self.table.ends(key, client, &datagram);
                    let victim = self.table.in_the_way(ctx, key, ends);
                    if let Some(victim) = victim {
                        if order[..count].iter().any(|(flow, _)| *flow == victim) {
                            self.table.forward_all(receiver, &mut order[..count]);
                            count = 0;
                        }
                        self.table.retire(ctx, victim, FlowEnd::Evicted);
                    }
                    self.table.flow(ctx, key, ends, client, victim.is_some())
                }
            };
            if let Some(flow) = flow {
                last = Some((kind, flow));
                order[count] = (flow, i);
                count += 1;
            }
        }
        self.table.forward_all(receiver, &mut order[..count]);
    }

    /// Ends flows that were silent for too long, and gives back memory that bursts have left behind.
    pub(crate) fn expire(&mut self, ctx: &mut Ctx) {
        self.table.expire(ctx);
        for receiver in self.receiver.iter_mut().chain(&mut self.table.last_answers) {
            if self.table.expiring {
                receiver.trim();
            } else {
                receiver.release();
            }
        }
    }

    pub(crate) fn replies(&mut self, ctx: &mut Ctx, key: Key) {
        let receiver = self.receiver.get_or_insert_with(Receiver::new);
        if answer(&mut self.table.flows, &mut self.table.ports, key, receiver) {
            self.table.spoke(ctx, key, Speaker::Server);
        }
    }
}

/// Passes a batch of answers on. False if there was none.
fn answer(
    flows: &mut Slab<Flow>,
    ports: &mut Slab<Port>,
    key: Key,
    receiver: &mut Receiver,
) -> bool {
    let Some(flow) = flows.get_mut(key) else { return false };
    let Some(port) = ports.get_mut(flow.port) else { return false };
    let Some(backend) = &flow.backend else { return false };
    match receiver.recv(backend.as_fd(), BATCH) {
        Ok(0) => return false,
        Ok(_) => {}
        Err(error) => {
            flow.note(error);
            return false;
        }
    }
    flow.answered = true;
    let route = Route { to: Some(flow.client), from: flow.ends.local };
    let listener = port.listener.as_fd();
    flow.counted.down(send_all(listener, receiver.iter(), route, &mut port.segmented).bytes);
    true
}

impl Flow {
    /// ECONNREFUSED and the like are about earlier requests; the backend may come back. They count once, like an attempt to
    /// connect.
    fn note(&mut self, error: Errno) {
        if !matches!(error, Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS)
            && self.failure.replace(FlowEnd::of(error)).is_none()
            && !self.answered
        {
            self.counted.fail();
        }
    }
}

impl FlowTable {
    pub(crate) fn held(&self) -> Held {
        Held::default().with(Use::FlowIn, self.flows.len())
    }

    /// Ends `count` flows, in the order in which they make room for each other.
    pub(crate) fn give_way(&mut self, ctx: &mut Ctx, count: usize) {
        for _ in 0..count {
            let Some(flow) = self.all.first_to_go(ctx.now) else { break };
            self.retire(ctx, flow, FlowEnd::Evicted);
        }
    }

    pub(crate) fn add(
        &mut self,
        ctx: &mut Ctx,
        listener: OwnedFd,
        service: Service,
    ) -> io::Result<Key> {
        let listener = Socket::from(listener);
        listener.set_nonblocking(true)?;
        tune_udp(&listener);
        // A socket bound to one address cannot answer from another.
        if listener.local_addr()?.as_socket().is_none_or(|a| a.ip().is_unspecified()) {
            let ipv6 = listener.domain()? == Domain::IPV6;
            if ipv6 {
                setsockopt(&listener, Ipv6RecvPacketInfo, &true)?;
            }
            // Of IPv4 that IPv6 knows only where it was sent to, and nobody can answer from a broadcast address.
            if !ipv6 || !listener.only_v6()? {
                setsockopt(&listener, Ipv4PacketInfo, &true)?;
            }
        }
        ctx.pool.prepare(SocketKind::udp(service.target.is_ipv4()));
        let address = listener.local_addr()?.as_socket();
        let key = self.ports.insert(Port {
            listener,
            address,
            service,
            flows: HashMap::new(),
            order: Order::default(),
            segmented: Segmented::default(),
        });
        let port = self.ports.get(key).ok_or(io::ErrorKind::NotFound)?;
        let armed = ctx.watch(&port.listener, Source::UdpListener, key, EpollFlags::EPOLLIN);
        if let Err(e) = armed {
            self.ports.remove(key);
            return Err(e);
        }
        Ok(key)
    }

    pub(crate) fn remove(&mut self, key: Key) {
        if let Some(port) = self.ports.remove(key) {
            for flow in port.flows.into_values() {
                self.all.remove(flow);
                if let Some(mut flow) = self.flows.remove(flow) {
                    flow.counted.end(FlowEnd::Withdrawn);
                }
            }
        }
    }

    /// Passes on what `order` names: flows, and their datagrams in the receiver.
    fn forward_all(&mut self, receiver: &Receiver, order: &mut [(Key, usize)]) {
        order.sort_unstable();
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let datagrams = group.iter().filter_map(|(_, i)| receiver.get(*i));
            self.forward(group[0].0, datagrams);
        }
    }

    fn forward<'a>(&mut self, key: Key, datagrams: impl Iterator<Item = Datagram<'a>>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        match &flow.backend {
            Some(backend) => {
                let (backend, segmented) = (backend.as_fd(), &mut flow.segmented);
                // Whoever answers is no overlay network.
                let ends = flow.overlay.filter(|_| !flow.answered);
                let sent = match (&self.overlay, ends) {
                    (Some(writer), Some(ends)) => {
                        let mut error = None;
                        let bytes = writer.deliver(ends, datagrams, |alone| {
                            let alone = alone.iter().map(|data| Datagram::alone(data));
                            let sent = send_all(backend, alone, Route::default(), segmented);
                            error = sent.error.or(error);
                            sent.bytes
                        });
                        Sent { bytes, error }
                    }
                    _ => send_all(backend, datagrams, Route::default(), segmented),
                };
                flow.counted.up(sent.bytes);
                // Reading it finds no error that sending has reported.
                sent.error.into_iter().for_each(|error| flow.note(error));
            }
            None => {
                for piece in datagrams.flat_map(pieces) {
                    flow.early.push(piece, &self.early);
                }
            }
        }
    }

    // ---- flows ----------------------------------------------------------------------------------

    /// Which flow a datagram belongs to, or begins.
    fn ends(&self, port: Key, client: SocketAddr, datagram: &Datagram<'_>) -> Ends {
        let local = datagram.local.map(answer_from);
        let own = Ends { client, local };
        let shared = Ends { client: any_port(client), local };
        let Some(port) = self.ports.get(port) else { return own };
        let flow = port.flows.get(&shared).and_then(|key| self.flows.get(*key));
        let flow = flow.map(|flow| SharedFlow { first: flow.client, answered: flow.answered });
        if joins(client, datagram.data, flow) && !port.flows.contains_key(&own) {
            shared
        } else {
            own
        }
    }

    /// Whether the port serves this client; its datagrams are counted if not.
    fn admits(&self, ctx: &Ctx, port: Key, client: SocketAddr, datagram: &Datagram<'_>) -> bool {
        let Some(port) = self.ports.get(port) else { return false };
        let allowed = port.service.allowed.allows(client.ip());
        if !allowed {
            pieces(*datagram).for_each(|_| {
                port.service.traffic.refuse();
                ctx.log_denied(Transport::Udp, Some(client), port.address);
            });
        }
        allowed
    }

    /// The flow that has to make room if a flow between `ends` is to begin.
    fn in_the_way(&self, ctx: &Ctx, port: Key, ends: Ends) -> Option<Key> {
        let port = self.ports.get(port)?;
        if port.flows.contains_key(&ends) {
            return None;
        }
        let first = port.order.first_to_go(ctx.now);
        if !ctx.room.fits(Use::FlowIn, 1) {
            return first.or_else(|| self.all.first_to_go(ctx.now));
        }
        let limit = ctx.opts.flows_per_port;
        // Whoever waits for a slow server is worth more descriptors than whoever was answered.
        let most = if port.order.has_answered() { limit } else { limit * WAITING_TIMES };
        first.filter(|_| port.flows.len() >= most)
    }

    /// The flow of a client, made if need be. `replaces` says that another one has made room for it.
    fn flow(
        &mut self,
        ctx: &mut Ctx,
        port_key: Key,
        ends: Ends,
        client: SocketAddr,
        replaces: bool,
    ) -> Option<Key> {
        let port = self.ports.get_mut(port_key)?;
        if let Some(flow) = port.flows.get(&ends) {
            port.order.spoke(*flow, Speaker::Client, ctx.now);
            self.all.spoke(*flow, Speaker::Client, ctx.now);
            return Some(*flow);
        }
        // Beside one that made room for it a flow takes that one's place, however short descriptors are.
        if !ctx.room.take(Use::FlowIn, 1) && !replaces {
            return None;
        }
        let counted = Counted::open(Arc::clone(&port.service.traffic));
        let counted = ctx.logged(counted, Transport::Udp, Some(client), port.address);
        let key = self.flows.insert(Flow {
            port: port_key,
            ends,
            client,
            answered: false,
            failure: None,
            backend: None,
            overlay: None,
            early: Early::default(),
            counted,
            segmented: Segmented::default(),
        });
        port.flows.insert(ends, key);
        port.order.insert(key, ctx.now);
        self.all.insert(key, ctx.now);
        let target = port.service.target;
        self.expire_later(ctx);
        match ctx.pool.take(SocketKind::udp(target.is_ipv4()), Waiter::Flow(key)) {
            Taken::Ready(sock) => self.connect_with(ctx, key, sock),
            Taken::Later => {}
            Taken::Never => self.close(key),
        }
        Some(key)
    }

    /// A socket from the pool for a flow that waited; false when it is not wanted any more.
    pub(crate) fn wants_socket(&self, key: Key) -> bool {
        self.flows.get(key).is_some_and(|flow| flow.backend.is_none())
    }

    pub(crate) fn connect_with(&mut self, ctx: &mut Ctx, key: Key, sock: Socket) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(port) = self.ports.get(flow.port) else { return };
        if ctx.opts.tproxy
            && let Err(e) = take_place(&sock, flow.client, port.service.target, &ctx.opts)
        {
            debug!("cannot keep the source address {} (udp): {e}", flow.client);
        }
        // Connecting a datagram socket only looks up a route.
        let target = port.service.target;
        let connected =
            sock.connect(&target.into()).and_then(|()| Ok(refuse_self_connection(&sock, target)?));
        let ready =
            connected.and_then(|()| ctx.watch(&sock, Source::Flow, key, EpollFlags::EPOLLIN));
        if let Err(e) = ready {
            debug!("connect to {} (udp): {e}", port.service.target);
            return self.close(key);
        }
        ctx.went_in(true, flow.port, &sock, target, &mut flow.counted);
        for datagram in std::mem::take(&mut flow.early).datagrams() {
            match send_each(sock.as_fd(), &[IoSlice::new(datagram)], Route::default()) {
                Ok(_) => flow.counted.up(datagram.len() as u64),
                Err(error) => flow.note(error),
            }
        }
        // The flow of an overlay network: see [`Ends`].
        if self.overlay.is_some() && flow.ends.client.port() == 0 {
            flow.overlay = ends_of(&sock);
        }
        flow.backend = Some(sock);
    }

    pub(crate) fn close(&mut self, key: Key) {
        if let Some(flow) = self.flows.remove(key)
            && let Some(port) = self.ports.get_mut(flow.port)
        {
            port.flows.remove(&flow.ends);
            port.order.remove(key);
        }
        self.all.remove(key);
    }

    /// Closes a flow for want of room or for its silence, behind the answers that have come for it.
    fn retire(&mut self, ctx: &mut Ctx, key: Key, end: FlowEnd) {
        let receiver = self.last_answers.get_or_insert_default();
        for _ in 0..MAX_LAST_BATCHES {
            if !answer(&mut self.flows, &mut self.ports, key, receiver) {
                break;
            }
        }
        if let Some(flow) = self.flows.get_mut(key) {
            let end = match end {
                FlowEnd::Idle if !flow.answered => flow.failure.unwrap_or(FlowEnd::TimedOut),
                end => end,
            };
            flow.counted.end(end);
        }
        self.close(key);
        ctx.room.give(Use::FlowIn, 1);
    }

    fn expire_later(&mut self, ctx: &mut Ctx) {
        if !std::mem::replace(&mut self.expiring, true) {
            ctx.timers.at(ctx.now + tick(ctx), Timer::Expire);
        }
    }

    fn expire(&mut self, ctx: &mut Ctx) {
        while let Some(silent) = self.all.longest_silent()
            && self
                .all
                .used(silent)
                .is_none_or(|used| ctx.now - used >= ctx.opts.udp_flow_idle_timeout)
        {
            self.retire(ctx, silent, FlowEnd::Idle);
        }
        self.expiring = !self.flows.is_empty();
        if self.expiring {
            ctx.timers.at(ctx.now + tick(ctx), Timer::Expire);
        }
    }

    fn spoke(&mut self, ctx: &Ctx, key: Key, by: Speaker) {
        if let Some(flow) = self.flows.get(key)
            && let Some(port) = self.ports.get_mut(flow.port)
        {
            port.order.spoke(key, by, ctx.now);
            self.all.spoke(key, by, ctx.now);
        }
    }
}

/// Makes answers to a backend socket find it, and the client's address its source where that makes sense.
fn take_place(
    sock: &Socket,
    client: SocketAddr,
    target: SocketAddr,
    opts: &Options,
) -> io::Result<()> {
    make_transparent(sock, target.is_ipv4())?;
    match (opts.transparent, opts.kept_source(client, target)) {
        (Transparent::Mark(mark), Some(source)) => keep_source(sock, source, mark),
        _ => Ok(()),
    }
}

fn ends_of(socket: &Socket) -> Option<(SocketAddr, SocketAddr)> {
    let local = socket.local_addr().ok()?.as_socket()?;
    Some((local, socket.peer_addr().ok()?.as_socket()?))
}

fn tick(ctx: &Ctx) -> Duration {
    (ctx.opts.udp_flow_idle_timeout / 8).max(Duration::from_millis(10))
}

/// The source of the answers. The interface is left to routing, which need not be symmetric, unless the
/// address means nothing without it. Nobody answers from a multicast address: the kernel chooses one of the interface
/// that the question came by.
fn answer_from(asked: Local) -> Local {
    match asked.addr {
        IpAddr::V6(v6) if v6.is_multicast() => {
            Local { addr: Ipv6Addr::UNSPECIFIED.into(), ifindex: asked.ifindex }
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => asked,
        addr => Local { addr, ifindex: 0 },
    }
}

#[cfg(test)]
mod tests;
