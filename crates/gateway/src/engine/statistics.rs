//! Who talked to whom: counters for the statistics.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use api::stats::{DestinationTraffic, Events, Traffic as Sum};
use relay::Traffic;

use crate::dns;

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
    dialing: AtomicU64,
    dns_queries: AtomicU64,
    dns_failed: AtomicU64,
    echo_requests: AtomicU64,
    denied: AtomicU64,
    evicted: AtomicU64,
    dropped: AtomicU64,
}

/// The destinations of one transport protocol.
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
        let idle = self.kept.iter().filter(|(_, traffic)| Arc::strong_count(traffic) == 1);
        let mut idle: Vec<_> = idle
            .map(|(to, t)| (bytes(&outward(t)), t.opened.load(Ordering::Relaxed), *to))
            .collect();
        idle.sort_unstable();
        idle.truncate(EVICTED_DESTINATIONS);
        for (_, _, to) in &idle {
            if let Some(traffic) = self.kept.remove(to) {
                add(&mut self.past, &outward(&traffic));
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
        let mut others = self.past;
        add(&mut others, &outward(&self.crowd));
        others
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

fn add(to: &mut Sum, more: &Sum) {
    to.active += more.active;
    to.opened += more.opened;
    to.failed += more.failed;
    to.bytes_out += more.bytes_out;
    to.bytes_in += more.bytes_in;
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            tcp: Mutex::default(),
            udp: Mutex::default(),
            dialing: AtomicU64::new(0),
            dns_queries: AtomicU64::new(0),
            dns_failed: AtomicU64::new(0),
            echo_requests: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

impl Statistics {
    /// The counters of one destination of TCP connections.
    pub(super) fn tcp(&self, to: SocketAddr) -> Arc<Traffic> {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner).destination(to)
    }

    /// The counters of one destination of UDP flows.
    pub(super) fn udp(&self, to: SocketAddr) -> Arc<Traffic> {
        self.udp.lock().unwrap_or_else(PoisonError::into_inner).destination(to)
    }

    pub(super) fn dialing(&self, count: usize) {
        self.dialing.store(count as u64, Ordering::Relaxed);
    }

    pub(super) fn dns(&self, counters: dns::Counters) {
        self.dns_queries.store(counters.queries, Ordering::Relaxed);
        self.dns_failed.store(counters.failed, Ordering::Relaxed);
    }

    pub(super) fn echo_request(&self) {
        self.echo_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn evicted(&self, count: usize) {
        self.evicted.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Everything but the published ports, as the API shows it.
    #[must_use]
    pub fn stats(&self) -> api::Stats {
        let mut destinations = Vec::new();
        let mut chapter = |chapter: &Mutex<ProtocolStatistics>, proto| {
            let first = destinations.len();
            let chapter = chapter.lock().unwrap_or_else(PoisonError::into_inner);
            let others = chapter.report(proto, &mut destinations);
            let mut total = others;
            destinations[first..].iter().for_each(|d| add(&mut total, &d.traffic));
            (total, others)
        };
        let (tcp, mut other_destinations) = chapter(&self.tcp, "tcp");
        let (udp, others) = chapter(&self.udp, "udp");
        add(&mut other_destinations, &others);
        destinations.sort_by_key(|d| (std::cmp::Reverse(bytes(&d.traffic)), d.ip, d.port));
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        api::Stats {
            uptime_seconds: self.since.elapsed().as_secs(),
            tcp,
            udp,
            events: Events {
                dialing: read(&self.dialing),
                dns_queries: read(&self.dns_queries),
                dns_failed: read(&self.dns_failed),
                echo_requests: read(&self.echo_requests),
                denied: read(&self.denied),
                evicted: read(&self.evicted),
                dropped: read(&self.dropped),
            },
            destinations,
            other_destinations,
            ..api::Stats::default()
        }
    }
}

/// Counters of a published port, whose connections come from outside, as the API shows them.
#[must_use]
pub fn inward(traffic: &Traffic) -> Sum {
    let Sum { bytes_out, bytes_in, .. } = outward(traffic);
    Sum { bytes_out: bytes_in, bytes_in: bytes_out, ..outward(traffic) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay::Counted;

    fn destination(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from_bits(0xc000_0200 + n), 80).into()
    }

    #[test]
    fn names_are_bounded_and_totals_are_not() {
        let statistics = Statistics::default();
        for n in 0..1000 {
            let counted = Counted::open(statistics.tcp(destination(n)));
            counted.up(10);
            counted.down(u64::from(n));
        }
        let stats = statistics.stats();
        assert!(
            stats.destinations.len() <= MAX_NAMED_DESTINATIONS
                && stats.destinations.len() >= MAX_NAMED_DESTINATIONS - EVICTED_DESTINATIONS
        );
        assert_eq!((stats.tcp.opened, stats.tcp.active, stats.tcp.bytes_out), (1000, 0, 10_000));
        assert_eq!(stats.tcp.bytes_in, 999 * 500);
        assert_eq!(stats.destinations[0].traffic.bytes_in, 999, "the busiest first");
        let named: u64 = stats.destinations.iter().map(|d| d.traffic.opened).sum();
        assert_eq!(named + stats.other_destinations.opened, 1000);
    }

    #[test]
    fn a_crowd_of_active_ones_keeps_the_names_it_has() {
        let statistics = Statistics::default();
        let open = |n| Counted::open(statistics.udp(destination(n)));
        let all: Vec<_> = (0..2 * 256).map(open).collect();
        let stats = statistics.stats();
        assert_eq!((stats.destinations.len(), stats.udp.active), (MAX_NAMED_DESTINATIONS, 512));
        assert_eq!(stats.other_destinations.active, 256);
        drop(all);
        let _one = open(9999);
        assert!(statistics.stats().destinations.iter().any(|d| d.ip == destination(9999).ip()));
    }
}
