//! What is counted for each container.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::stats::{ContainerCounters, ContainerEvents, ContainerTraffic};
use relay::Traffic;

use super::{inward, outward};

/// Containers that are kept by address.
pub(super) const MAX_CONTAINERS: usize = 256;
/// How many of them make room at a time, the least busy ones.
const EVICTED_CONTAINERS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Container {
    pub(super) events: ContainerEvents,
    tcp: Arc<Traffic>,
    udp: Arc<Traffic>,
    published_tcp: Arc<Traffic>,
    published_udp: Arc<Traffic>,
}

impl Container {
    pub(super) fn outbound(&self, udp: bool) -> Arc<Traffic> {
        Arc::clone(if udp { &self.udp } else { &self.tcp })
    }

    pub(super) fn published(&self, udp: bool) -> Arc<Traffic> {
        Arc::clone(if udp { &self.published_udp } else { &self.published_tcp })
    }

    /// Whether nothing will be added to its traffic. All that was added can be seen then (`Arc::get_mut`).
    fn is_idle(&mut self) -> bool {
        let all = [&mut self.tcp, &mut self.udp, &mut self.published_tcp, &mut self.published_udp];
        all.into_iter().all(|traffic| Arc::get_mut(traffic).is_some())
    }

    fn counters(&self) -> ContainerCounters {
        ContainerCounters {
            tcp: outward(&self.tcp),
            udp: outward(&self.udp),
            published_tcp: inward(&self.published_tcp),
            published_udp: inward(&self.published_udp),
            events: self.events,
        }
    }
}

/// How much a container did: bytes, then everything else.
fn activity(counters: &ContainerCounters) -> (u64, u64) {
    let total = counters.total();
    let ContainerEvents { dns_queries, echo_requests, denied } = counters.events;
    let others = [total.opened, total.failed, dns_queries, echo_requests, denied];
    (
        total.bytes_in.saturating_add(total.bytes_out),
        others.into_iter().fold(0, u64::saturating_add),
    )
}

#[derive(Debug, Default)]
pub(super) struct Containers {
    kept: HashMap<IpAddr, Container>,
    /// Those that made room.
    past: ContainerCounters,
    /// Newcomers while nobody can make room, because all are active.
    crowd: Container,
}

impl Containers {
    pub(super) fn of(&mut self, ip: IpAddr) -> &mut Container {
        let full = self.kept.len() >= MAX_CONTAINERS && !self.kept.contains_key(&ip);
        if full && !self.make_room() {
            return &mut self.crowd;
        }
        self.kept.entry(ip).or_default()
    }

    /// False if all are active.
    fn make_room(&mut self) -> bool {
        let idle = self.kept.iter_mut().filter_map(|(ip, container)| {
            container.is_idle().then(|| (activity(&container.counters()), *ip))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        idle.truncate(EVICTED_CONTAINERS);
        for (_, ip) in &idle {
            if let Some(container) = self.kept.remove(ip) {
                self.past = self.past + container.counters();
            }
        }
        !idle.is_empty()
    }

    /// All that are kept, the busiest first, and the sum of the others.
    pub(super) fn report(&self) -> (Vec<ContainerTraffic>, ContainerCounters) {
        let all = self.kept.iter().map(|(ip, container)| {
            let counters = container.counters();
            ContainerTraffic { ip: *ip, container: None, network: None, counters }
        });
        let mut all: Vec<ContainerTraffic> = all.collect();
        all.sort_by_key(|one| (Reverse(activity(&one.counters)), one.ip));
        (all, self.past + self.crowd.counters())
    }
}
