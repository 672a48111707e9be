//! Who talked to whom: counters for the statistics.

mod containers;
mod rules;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use api::policy::PolicyTraffic;
use api::stats::{ContainerEvents, DestinationTraffic, Events, Traffic as Sum};
use egress::{Decision, Policies};
use relay::Traffic;

use containers::Containers;

/// Destinations of each transport protocol that are kept by name.
const MAX_NAMED_DESTINATIONS: usize = 256;
/// How many of them make room at a time, the least busy ones.
const EVICTED_DESTINATIONS: usize = 32;

/// The counters, shared between the event loop and whoever reports them.
#[derive(Debug)]
pub struct Statistics {
    since: Instant,
    tcp: Mutex<ProtocolStatistics>,
    udp: Mutex<ProtocolStatistics>,
    events: Mutex<Events>,
    containers: Mutex<Containers>,
    rules: Mutex<PolicyTraffic>,
}

#[derive(Debug, Default)]
struct ProtocolStatistics {
    kept: HashMap<SocketAddr, Arc<Traffic>>,
    /// Those that made room.
    past: Sum,
    /// Newcomers while nobody can make room, because all are active.
    crowd: Arc<Traffic>,
}

impl ProtocolStatistics {
    fn destination(&mut self, to: SocketAddr) -> Arc<Traffic> {
        if let Some(known) = self.kept.get(&to) {
            return Arc::clone(known);
        }
        if self.kept.len() >= MAX_NAMED_DESTINATIONS && !self.make_room() {
            return Arc::clone(&self.crowd);
        }
        Arc::clone(self.kept.entry(to).or_default())
    }

    /// Gives up names of destinations that nobody talks to any more. False if there are none.
    fn make_room(&mut self) -> bool {
        // Only `get_mut` sees all that was counted before the last connection was dropped, in another thread perhaps;
        // the number of references (`Arc::strong_count`) may be seen earlier than that.
        let idle = self.kept.iter_mut().filter_map(|(to, traffic)| {
            let sum = outward(Arc::get_mut(traffic)?);
            Some((bytes(&sum), sum.opened, *to))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        idle.truncate(EVICTED_DESTINATIONS);
        for (_, _, to) in &idle {
            if let Some(traffic) = self.kept.remove(to) {
                self.past = self.past + outward(&traffic);
            }
        }
        !idle.is_empty()
    }

    /// Adds the named destinations to a list; returns the sum of the others.
    fn report(&self, proto: &str, list: &mut Vec<DestinationTraffic>) -> Sum {
        for (to, traffic) in &self.kept {
            let traffic = outward(traffic);
            let proto = proto.to_owned();
            list.push(DestinationTraffic { proto, ip: to.ip(), port: to.port(), traffic });
        }
        self.past + outward(&self.crowd)
    }
}

/// Counters of connections that the target namespace has opened, as the API shows them.
fn outward(traffic: &Traffic) -> Sum {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Sum {
        active: read(&traffic.active),
        opened: read(&traffic.opened),
        failed: read(&traffic.failed),
        bytes_out: read(&traffic.up),
        bytes_in: read(&traffic.down),
    }
}

fn bytes(sum: &Sum) -> u64 {
    sum.bytes_in + sum.bytes_out
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            tcp: Mutex::default(),
            udp: Mutex::default(),
            events: Mutex::default(),
            containers: Mutex::default(),
            rules: Mutex::default(),
        }
    }
}

impl Statistics {
    pub(super) fn tcp(&self, to: SocketAddr) -> Arc<Traffic> {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner).destination(to)
    }

    pub(super) fn udp(&self, to: SocketAddr) -> Arc<Traffic> {
        self.udp.lock().unwrap_or_else(PoisonError::into_inner).destination(to)
    }

    /// Counts events of a container.
    pub(super) fn of(&self, container: IpAddr, count: impl FnOnce(&mut ContainerEvents)) {
        count(&mut self.containers().of(container).events);
    }

    /// Counters of what a container opens to the outside.
    pub(super) fn outbound(&self, container: IpAddr, udp: bool) -> Arc<Traffic> {
        self.containers().of(container).outbound(udp)
    }

    /// Counters of what a container answers at published ports.
    pub(super) fn published(&self, container: IpAddr, udp: bool) -> Arc<Traffic> {
        self.containers().of(container).published(udp)
    }

    /// Counts for these policies from now on.
    pub(super) fn judged_by(&self, policies: &Policies) {
        let mut rules = self.rules();
        *rules = rules::for_policies(policies, &rules);
    }

    /// Counts a decision about an attempt.
    pub(super) fn judged(&self, decision: &Decision) {
        rules::count(&mut self.rules(), decision);
    }

    fn rules(&self) -> MutexGuard<'_, PolicyTraffic> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn containers(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything but the published ports, as the API shows it.
    pub fn stats(&self) -> api::Stats {
        let mut destinations = Vec::new();
        let mut chapter = |chapter: &Mutex<ProtocolStatistics>, proto| {
            let first = destinations.len();
            let chapter = chapter.lock().unwrap_or_else(PoisonError::into_inner);
            let others = chapter.report(proto, &mut destinations);
            let total = destinations[first..].iter().fold(others, |sum, d| sum + d.traffic);
            (total, others)
        };
        let (tcp, other_tcp) = chapter(&self.tcp, "tcp");
        let (udp, other_udp) = chapter(&self.udp, "udp");
        destinations.sort_by_key(|d| (std::cmp::Reverse(bytes(&d.traffic)), d.ip, d.port));
        let (containers, other_containers) = self.containers().report();
        let rules = self.rules().clone();
        api::Stats {
            uptime_seconds: self.since.elapsed().as_secs(),
            tcp,
            udp,
            events: *self.events(),
            destinations,
            other_destinations: other_tcp + other_udp,
            containers,
            other_containers,
            policy: (!rules.files.is_empty()).then_some(rules),
            ..api::Stats::default()
        }
    }
}

/// Counters of a published port, whose connections come from outside, as the API shows them.
pub fn inward(traffic: &Traffic) -> Sum {
    let sum = outward(traffic);
    Sum { bytes_out: sum.bytes_in, bytes_in: sum.bytes_out, ..sum }
}

#[cfg(test)]
mod tests;
