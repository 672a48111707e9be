//! Flows and the egress policy: which have to be judged, and which have to end.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use netlink::conntrack;
use relay::RuleName;
use relay::flow_log::FlowEnd;
use relay::slab::Key;

use super::{Ends, Flow, Flows, Inside};
use crate::engine::Shared;
use crate::engine::attribution::{Attributions, TRACKED_TIME, outbound};
use crate::packet::{Original, Udp};

impl Flows {
    /// The flow that a datagram belongs to. `None` if it begins one, or one goes on with it that may be another
    /// container's now and has to be judged anew.
    pub(in crate::engine) fn known(
        &self,
        shared: &Shared,
        attributions: &Attributions,
        now: Instant,
        (src, dst, datagram): (SocketAddr, SocketAddr, &[u8]),
    ) -> Option<Key> {
        // Only source and destination name a flow; where it leads is not looked at.
        let between = self.between(shared, Ends { src, dst, to: dst }, datagram);
        let key = *self.index.get(&between)?;
        if !shared.egress.depends_on_sender {
            return Some(key);
        }
        let waits = attributions.waits(&outbound(conntrack::Protocol::Udp, src, dst));
        (!waits && !self.is_silent(key, now)).then_some(key)
    }

    /// Whether a flow has been silent for so long that the connection tracking may have forgotten whose it was.
    pub(super) fn is_silent(&self, key: Key, now: Instant) -> bool {
        let used = self.order.used(key);
        used.is_some_and(|used| now.saturating_duration_since(used) >= TRACKED_TIME)
    }

    /// Ends what the egress policy does not allow any more, and what many containers may share if it has to know them.
    pub(in crate::engine) fn end_denied(&mut self, shared: &Shared) {
        let alone = shared.egress.depends_on_sender;
        let ends = self.table.iter().filter_map(|(key, flow)| {
            let opened = flow.counted.opened_by();
            let rule = opened.and_then(|of| shared.egress.denied_by(egress::Protocol::Udp, &of));
            let is_shared = alone && flow.between.0.port() == 0;
            (rule.is_some() || is_shared).then_some((key, rule))
        });
        for (key, rule) in ends.collect::<Vec<_>>() {
            let Some(rule) = rule else {
                self.end(key, FlowEnd::Evicted);
                continue;
            };
            if let Some(Flow { src, dst, .. }) = self.table.get(key) {
                shared.forbid(src.ip(), &Original::Udp { src: *src, dst: *dst });
            }
            self.deny(key, rule);
        }
    }

    /// Ends the flows of containers that are gone.
    pub(in crate::engine) fn end_of(&mut self, gone: &[IpAddr]) {
        let of = |flow: &Flow| flow.counted.opened_by().map(|opened| opened.container);
        let is_gone = |flow: &Flow| of(flow).is_some_and(|container| gone.contains(&container));
        let ends = self.table.iter().filter(|(_, flow)| is_gone(flow)).map(|(key, _)| key);
        for key in ends.collect::<Vec<_>>() {
            self.end(key, FlowEnd::Closed);
        }
    }

    /// Ends the flow that a datagram belongs to and that a rule forbids, if there is one.
    pub(in crate::engine) fn end_between(&mut self, udp: &Udp<'_>, rule: RuleName) {
        let known = self.index.get(&(udp.src, udp.dst)).copied();
        if let Some(key) = known {
            self.deny(key, rule);
        }
    }

    fn deny(&mut self, key: Key, rule: RuleName) {
        let Some(flow) = self.table.get_mut(key) else { return };
        flow.counted.deny(rule);
        self.end(key, FlowEnd::Denied);
    }

    /// Takes flows off their sockets in the gateway namespace that have to be judged anew when they go on: what comes for them
    /// comes out of the tun device then.
    pub(in crate::engine) fn demote(&mut self, now: Instant) {
        let silent = self.table.iter().filter(|(key, _)| self.is_silent(*key, now));
        let silent = silent.filter(|(_, flow)| matches!(flow.inside, Inside::Is(_)));
        for key in silent.map(|(key, _)| key).collect::<Vec<_>>() {
            let Some(flow) = self.table.get_mut(key) else { continue };
            (flow.inside, flow.count) = (Inside::None, 0);
            self.insides -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
