//! Which containers answer at published ports.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use netlink::conntrack::{Direction, Protocol, Query, Tuple};
use relay::Inbound;
use relay::slab::Key;

use super::{Attributions, Subject};
use crate::namespace::loopback;
use crate::network_config::NetworkConfig;

/// Published ports whose containers are remembered.
const MAX_REMEMBERED: usize = 1024;

/// Which container answered last at a published port, of TCP or UDP.
#[derive(Debug, Default)]
pub(super) struct Answered(HashMap<(bool, Key), IpAddr>);

impl Answered {
    /// The container that answers at a published port. What no container answers is of the namespace itself.
    pub(super) fn who_answers(
        &mut self,
        plan: &NetworkConfig,
        inbound: &Inbound,
        found: Option<IpAddr>,
    ) -> IpAddr {
        let port = (inbound.udp, inbound.port);
        let own = || plan.net_of(inbound.client.ip()).unwrap_or(&plan.v4).child;
        let Some(found) = found else {
            return self.0.get(&port).copied().unwrap_or_else(own);
        };
        let container = if found.is_loopback() { own() } else { found };
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&port) {
            self.0.clear();
        }
        self.0.insert(port, container);
        container
    }
}

impl Attributions {
    /// Something has gone to a published port.
    pub(in crate::engine) fn published(&mut self, now: Instant, inbound: Inbound) {
        self.ask_who_answers(now, inbound, 0);
    }

    pub(super) fn ask_who_answers(&mut self, now: Instant, inbound: Inbound, attempts: u32) {
        let mut dst = inbound.server;
        dst.set_ip(loopback::meant_by(dst.ip()));
        let protocol = if inbound.udp { Protocol::Udp } else { Protocol::Tcp };
        let outside = Tuple { src: inbound.client, dst };
        let query = Query { protocol, direction: Direction::Inbound, outside };
        let attempts = attempts + 1;
        drop(self.ask(now, &query, Subject::Published { inbound, attempts }));
    }
}
