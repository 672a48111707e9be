//! Servers that listen on all addresses of the namespace and are asked at one that is not the way back's.
//!
//! Such a server answers from the address that its kernel chooses for the way to the client, which is the namespace's own,
//! even if it was asked at a loopback address. The flow's socket is connected to the latter, so the kernel does not take
//! the answer for its. It arrives as a datagram that the namespace seems to send by itself, and is recognized here. From
//! then on the flow is connected to the address that answered, where the same server listens.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use socket2::Socket;
use sys::mmsg::{Route, send_each};

use super::Udp;
use crate::order::Speaker;
use crate::reactor::Ctx;
use crate::slab::Key;

/// The answer to a flow, whatever address it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Awaited {
    to: SocketAddr,
    port: u16,
}

impl Awaited {
    /// What answers a socket that is connected to `target`.
    pub(super) fn by(socket: &Socket, target: SocketAddr) -> Option<Self> {
        let to = socket.local_addr().ok()?.as_socket()?;
        Some(Self { to, port: target.port() })
    }
}

impl Udp {
    /// The flow does not wait for its first answer any more.
    pub(super) fn forget(&mut self, flow: Key, awaited: Option<Awaited>) {
        if let Some(awaited) = awaited
            && self.awaited.get(&awaited) == Some(&flow)
        {
            self.awaited.remove(&awaited);
        }
    }

    /// Passes on the first answer to a flow that asked another address than `from`. False if it is not one.
    pub(crate) fn answered_from(
        &mut self,
        ctx: &Ctx,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> bool {
        let awaited = Awaited { to, port: from.port() };
        let Some(key) = self.awaited.get(&awaited).copied() else { return false };
        let Some(flow) = self.flows.get_mut(key) else { return false };
        let (Some(backend), Some(port)) = (&flow.backend, self.ports.get(flow.port)) else {
            return false;
        };
        if let Err(e) = backend.connect(&from.into()) {
            tracing::debug!("connect to {from} (udp), which answers for {}: {e}", port.target);
            return false;
        }
        let route = Route { to: Some(flow.ends.client), from: flow.ends.local };
        if send_each(port.listener.as_fd(), &[IoSlice::new(payload)], route).is_ok() {
            flow.counted.down(payload.len() as u64);
        }
        flow.awaited = None;
        self.forget(key, Some(awaited));
        self.spoke(ctx, key, Speaker::Server);
        true
    }
}
