//! UDP ports and their flows.
//!
//! A flow is a client address together with the local address that the client asked, and has a socket
//! of its own that is connected to the target. Datagrams are received in batches, sorted by flow without
//! changing the order within one, and sent in as few calls as their sizes allow: runs of equal size as
//! one segmented send (`UDP_SEGMENT`), the rest with sendmmsg(2). Whatever the kernel coalesced on the
//! way in (`UDP_GRO`) is cut apart at the same boundaries.
//!
//! On a wildcard listener answers leave from the address that was asked (`IP_PKTINFO`): clients drop
//! answers from another one. The client's address is *not* kept towards the backend: answers to
//! foreign addresses would leave through the namespace's tap device (RootlessKit issue 592).
//!
//! A datagram that a full socket does not take is dropped, as a router would; nothing waits, except the
//! first few datagrams of a flow whose socket is still on its way.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use socket2::{Domain, Socket};
use sys::mmsg::{BATCH, Datagram, Local, Receiver, Route, send_each};
use tracing::debug;

use crate::datagrams::{pieces, send_all};
use crate::engine::{Options, Transparent};
use crate::factory::{Kind, tune_udp};
use crate::pool::{Taken, Waiter};
use crate::reactor::{Ctx, Source, Timer};
use crate::slab::{Key, Slab};
use crate::source::{keep_source, make_transparent};
use crate::traffic::{Counted, Traffic};

/// Bytes and datagrams kept for a flow that has no socket yet.
const EARLY_BYTES: usize = 128 << 10;
const EARLY: usize = 32;

/// Who talks to which of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    client: SocketAddr,
    local: Option<Local>,
}

#[derive(Debug)]
struct Port {
    listener: Socket,
    target: SocketAddr,
    traffic: Arc<Traffic>,
    flows: HashMap<Ends, Key>,
    /// Ends of the list of flows by last use.
    oldest: Option<Key>,
    newest: Option<Key>,
    /// The kernel takes segmented sends from this listener.
    segmented: bool,
}

#[derive(Debug)]
struct Flow {
    port: Key,
    ends: Ends,
    backend: Option<Socket>,
    /// What came before there was a backend.
    early: Vec<Vec<u8>>,
    used: Instant,
    counted: Counted,
    older: Option<Key>,
    newer: Option<Key>,
    segmented: bool,
}

#[derive(Debug)]
pub(crate) struct Udp {
    ports: Slab<Port>,
    flows: Slab<Flow>,
    /// Made with the first port; the process may well have none.
    receiver: Option<Receiver>,
    expiring: bool,
}

impl Udp {
    pub(crate) fn new() -> Self {
        Self { ports: Slab::new(), flows: Slab::new(), receiver: None, expiring: false }
    }

    /// Descriptors held.
    pub(crate) fn descriptors(&self) -> usize {
        self.ports.len() + self.flows.len()
    }

    pub(crate) fn add(
        &mut self,
        ctx: &mut Ctx,
        listener: OwnedFd,
        target: SocketAddr,
        traffic: Arc<Traffic>,
    ) -> io::Result<Key> {
        let listener = Socket::from(listener);
        listener.set_nonblocking(true)?;
        tune_udp(&listener);
        // A socket bound to one address cannot answer from another.
        if listener.local_addr()?.as_socket().is_none_or(|a| a.ip().is_unspecified()) {
            if listener.domain()? == Domain::IPV4 {
                setsockopt(&listener, Ipv4PacketInfo, &true)?;
            } else {
                setsockopt(&listener, Ipv6RecvPacketInfo, &true)?;
            }
        }
        ctx.pool.prepare(kind_for(target));
        self.receiver.get_or_insert_with(Receiver::new);
        let key = self.ports.insert(Port {
            listener,
            target,
            traffic,
            flows: HashMap::new(),
            oldest: None,
            newest: None,
            segmented: true,
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
                self.flows.remove(flow);
            }
        }
    }

    // ---- datagrams ------------------------------------------------------------------------------

    /// A batch from the clients of one port.
    pub(crate) fn requests(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(port) = self.ports.get(key) else { return };
        // Out of its place while the flow table is used with it.
        let Some(mut receiver) = self.receiver.take() else { return };
        // Errors are about earlier answers (ICMP) and are cleared by being read.
        let n = receiver.recv(port.listener.as_fd(), BATCH).unwrap_or(0);
        let mut order = [(NOBODY, 0usize); BATCH];
        let mut last: Option<(Ends, Key)> = None;
        let mut count = 0;
        for (i, datagram) in receiver.iter().enumerate().take(n) {
            let Some(client) = datagram.from else { continue };
            let ends = Ends { client, local: datagram.local.map(answer_from) };
            let flow = match last {
                Some((same, flow)) if same == ends => Some(flow),
                _ => self.flow(ctx, key, ends),
            };
            if let Some(flow) = flow {
                last = Some((ends, flow));
                order[count] = (flow, i);
                count += 1;
            }
        }
        let order = &mut order[..count];
        order.sort_unstable();
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let datagrams = group.iter().filter_map(|(_, i)| receiver.get(*i));
            self.forward(ctx, group[0].0, datagrams);
        }
        self.receiver = Some(receiver);
    }

    fn forward<'a>(&mut self, ctx: &Ctx, key: Key, datagrams: impl Iterator<Item = Datagram<'a>>) {
        // Evicted by a later datagram of the same batch, perhaps.
        let Some(flow) = self.flows.get_mut(key) else { return };
        match &flow.backend {
            Some(backend) => {
                let route = Route::default();
                flow.counted.up(send_all(backend.as_fd(), datagrams, route, &mut flow.segmented));
            }
            None => {
                for piece in datagrams.flat_map(pieces) {
                    let held: usize = flow.early.iter().map(Vec::len).sum();
                    if flow.early.len() < EARLY && held + piece.len() <= EARLY_BYTES {
                        flow.early.push(piece.to_vec());
                    }
                }
            }
        }
        self.touch(ctx, key);
    }

    /// A batch from the backend of one flow.
    pub(crate) fn replies(&mut self, ctx: &mut Ctx, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(port) = self.ports.get_mut(flow.port) else { return };
        let (Some(backend), Some(receiver)) = (&flow.backend, &mut self.receiver) else { return };
        // ECONNREFUSED and the like are about earlier requests; the backend may come back.
        if receiver.recv(backend.as_fd(), BATCH).unwrap_or(0) == 0 {
            return;
        }
        let route = Route { to: Some(flow.ends.client), from: flow.ends.local };
        let listener = port.listener.as_fd();
        flow.counted.down(send_all(listener, receiver.iter(), route, &mut port.segmented));
        self.touch(ctx, key);
    }

    // ---- flows ----------------------------------------------------------------------------------

    /// The flow of a client, made if need be.
    fn flow(&mut self, ctx: &mut Ctx, port_key: Key, ends: Ends) -> Option<Key> {
        let port = self.ports.get(port_key)?;
        if let Some(flow) = port.flows.get(&ends) {
            return Some(*flow);
        }
        if port.flows.len() >= ctx.opts.flows_per_port || ctx.room == 0 {
            let oldest = port.oldest.or_else(|| self.oldest_of_all())?;
            self.close(oldest);
            ctx.room += 1;
        }
        ctx.room -= 1;
        let port = self.ports.get(port_key)?;
        let counted = Counted::open(Arc::clone(&port.traffic));
        let key = self.flows.insert(Flow {
            port: port_key,
            ends,
            backend: None,
            early: Vec::new(),
            used: ctx.now,
            counted,
            older: None,
            newer: None,
            segmented: true,
        });
        let port = self.ports.get_mut(port_key)?;
        port.flows.insert(ends, key);
        let target = port.target;
        self.link(key);
        if !std::mem::replace(&mut self.expiring, true) {
            ctx.timers.at(ctx.now + tick(ctx), Timer::Expire);
        }
        match ctx.pool.take(kind_for(target), Waiter::Flow(key)) {
            Taken::Ready(sock) => self.connect_with(ctx, key, sock),
            Taken::Later => {}
            Taken::Never => self.close(key),
        }
        Some(key)
    }

    fn oldest_of_all(&self) -> Option<Key> {
        let oldest = self.ports.keys().filter_map(|port| self.ports.get(port)?.oldest);
        oldest.min_by_key(|flow| self.flows.get(*flow).map(|flow| flow.used))
    }

    /// A socket from the pool for a flow that waited; false when it is not wanted any more.
    pub(crate) fn wants_socket(&self, key: Key) -> bool {
        self.flows.get(key).is_some_and(|flow| flow.backend.is_none())
    }

    pub(crate) fn connect_with(&mut self, ctx: &mut Ctx, key: Key, sock: Socket) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(port) = self.ports.get(flow.port) else { return };
        if ctx.opts.tproxy
            && let Err(e) = take_place(&sock, flow.ends.client, port.target, &ctx.opts)
        {
            debug!("cannot keep the source address {} (udp): {e}", flow.ends.client);
        }
        // Connecting a datagram socket only looks up a route.
        let connected = sock.connect(&port.target.into());
        let ready =
            connected.and_then(|()| ctx.watch(&sock, Source::Flow, key, EpollFlags::EPOLLIN));
        if let Err(e) = ready {
            debug!("connect to {} (udp): {e}", port.target);
            return self.close(key);
        }
        for datagram in std::mem::take(&mut flow.early) {
            if send_each(sock.as_fd(), &[IoSlice::new(&datagram)], Route::default()).is_ok() {
                flow.counted.up(datagram.len() as u64);
            }
        }
        flow.backend = Some(sock);
    }

    pub(crate) fn close(&mut self, key: Key) {
        self.unlink(key);
        if let Some(flow) = self.flows.remove(key)
            && let Some(port) = self.ports.get_mut(flow.port)
        {
            port.flows.remove(&flow.ends);
        }
    }

    /// Closes flows that were silent for too long.
    pub(crate) fn expire(&mut self, ctx: &mut Ctx) {
        for port in self.ports.keys().collect::<Vec<_>>() {
            while let Some(oldest) = self.ports.get(port).and_then(|port| port.oldest)
                && self
                    .flows
                    .get(oldest)
                    .is_none_or(|flow| ctx.now - flow.used >= ctx.opts.udp_idle)
            {
                self.close(oldest);
            }
        }
        self.expiring = !self.flows.is_empty();
        if self.expiring {
            ctx.timers.at(ctx.now + tick(ctx), Timer::Expire);
        }
    }

    /// Notes that a flow was used just now, by either side.
    fn touch(&mut self, ctx: &Ctx, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.used = ctx.now;
        if flow.newer.is_some() {
            self.unlink(key);
            self.link(key);
        }
    }

    /// Puts a flow at the young end of its port's list.
    fn link(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(port) = self.ports.get_mut(flow.port) else { return };
        let older = port.newest.replace(key);
        (flow.older, flow.newer) = (older, None);
        match older.and_then(|older| self.flows.get_mut(older)) {
            Some(older) => older.newer = Some(key),
            None => port.oldest = Some(key),
        }
    }

    fn unlink(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (port, older, newer) = (flow.port, flow.older.take(), flow.newer.take());
        let Some(port) = self.ports.get_mut(port) else { return };
        match older.and_then(|older| self.flows.get_mut(older)) {
            Some(flow) => flow.newer = newer,
            None => port.oldest = newer,
        }
        match newer.and_then(|newer| self.flows.get_mut(newer)) {
            Some(flow) => flow.older = older,
            None => port.newest = older,
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

const NOBODY: Key = Key { index: u32::MAX, generation: u32::MAX };

/// How often silent flows are looked for.
fn tick(ctx: &Ctx) -> Duration {
    (ctx.opts.udp_idle / 8).max(Duration::from_millis(10))
}

fn kind_for(target: SocketAddr) -> Kind {
    if target.is_ipv4() { Kind::Udp4 } else { Kind::Udp6 }
}

/// The source of the answers. The interface is left to routing, which need not be symmetric, unless the
/// address means nothing without it.
fn answer_from(asked: Local) -> Local {
    let scoped = matches!(asked.addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Local { addr: asked.addr, ifindex: if scoped { asked.ifindex } else { 0 } }
}
