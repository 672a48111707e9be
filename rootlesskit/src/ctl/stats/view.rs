//! Statistics for people.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use api::Stats;
use api::stats::{
    ContainerCounters, ContainerEvents, ContainerTraffic, DestinationTraffic, Traffic,
};

use crate::ctl::print::columns;
use crate::visible::visible;

/// Destinations, or rows of containers, that are shown while watching; more would push the totals off the screen.
pub(super) const WATCHED: usize = 15;

/// Space behind the widest cell of a column.
const PADDING: usize = 2;

/// What traffic is listed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Destinations,
    Containers,
}

/// Statistics, and what they were at the look before and how long ago that was.
pub(super) struct Look {
    pub(super) stats: Stats,
    pub(super) before: Option<(Stats, Duration)>,
}

/// The statistics as text: totals, published ports, destinations or containers. With a `limit` of these it is one of many
/// looks, and there are columns for bytes per second.
pub(super) fn table(look: &Look, list: List, limit: Option<usize>) -> String {
    let stats = &look.stats;
    // Counters that started anew have no past.
    let before = look.before.as_ref().filter(|(before, _)| {
        before.restarts == stats.restarts && before.uptime_seconds <= stats.uptime_seconds
    });
    let rates = Rates { shown: limit.is_some(), before };
    let mut out = heading(stats);
    out.push_str(&totals(stats, &rates));
    out.push_str(&events(stats));
    if !stats.ports.is_empty() {
        out.push('\n');
        out.push_str(&ports(stats, &rates));
    }
    let limit = limit.unwrap_or(usize::MAX);
    let text = match list {
        List::Destinations => destinations(stats, &rates, limit),
        List::Containers => containers(stats, &rates, limit),
    };
    if !text.is_empty() {
        out.push('\n');
        out.push_str(&text);
    }
    out
}

fn heading(stats: &Stats) -> String {
    let uptime = humantime::format_duration(Duration::from_secs(stats.uptime_seconds));
    let restarts = match stats.restarts {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        times => format!(", restarted {times} times"),
    };
    format!("Network {}: counters started {uptime} ago{restarts}\n\n", stats.driver)
}

fn totals(stats: &Stats, rates: &Rates<'_>) -> String {
    let mut table = Table::new(&["OUTBOUND"], rates);
    table.row(&["tcp".into()], &stats.tcp, rates.past(|before| Some(&before.tcp)));
    table.row(&["udp".into()], &stats.udp, rates.past(|before| Some(&before.udp)));
    table.print()
}

/// One line with what is not zero; none if all is.
fn events(stats: &Stats) -> String {
    let events = &stats.events;
    let refused = stats.ports.iter().fold(0_u64, |sum, port| sum.saturating_add(port.refused));
    let all = [
        ("connecting", events.dialing),
        ("DNS queries", events.dns_queries),
        ("DNS unanswered", events.dns_failed),
        ("echo requests", events.echo_requests),
        ("denied", events.denied),
        ("refused", refused),
        ("evicted", events.evicted),
        ("dropped", events.dropped),
    ];
    let some: Vec<_> = all
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if some.is_empty() { String::new() } else { format!("\nEvents: {}\n", some.join(", ")) }
}

fn ports(stats: &Stats, rates: &Rates<'_>) -> String {
    let mut table = Table::new(&["ID", "PUBLISHED"], rates);
    for port in &stats.ports {
        // Numbers are never used again, so a port that was not there had carried nothing.
        let past = rates.past(|before| {
            let past = before.ports.iter().find(|past| past.id == port.id);
            Some(past.map_or(&NOTHING, |past| &past.traffic))
        });
        table.row(&[port.id.to_string(), port.port.clone()], &port.traffic, past);
    }
    table.print()
}

fn destinations(stats: &Stats, rates: &Rates<'_>, limit: usize) -> String {
    if stats.destinations.is_empty() && stats.other_destinations == NOTHING {
        return String::new();
    }
    let mut table = Table::new(&["PROTO", "DESTINATION"], rates);
    let mut all: Vec<_> = stats.destinations.iter().collect();
    all.sort_by_key(|d| std::cmp::Reverse(d.traffic.bytes_out.saturating_add(d.traffic.bytes_in)));
    for destination in all.iter().take(limit) {
        let address = std::net::SocketAddr::new(destination.ip, destination.port).to_string();
        // One that was not there may have been among the others: its past is unknown.
        let past = rates.past(|before| {
            let same = |past: &&DestinationTraffic| {
                (&past.proto, past.ip, past.port)
                    == (&destination.proto, destination.ip, destination.port)
            };
            before.destinations.iter().find(same).map(|past| &past.traffic)
        });
        table.row(&[destination.proto.clone(), address], &destination.traffic, past);
    }
    if stats.other_destinations != NOTHING {
        let past = rates.past(|before| Some(&before.other_destinations));
        table.row(&[String::new(), "others".into()], &stats.other_destinations, past);
    }
    table.print() + &hidden(all.len(), limit)
}

/// What is said of the rows beyond the limit.
fn hidden(rows: usize, limit: usize) -> String {
    match rows.saturating_sub(limit) {
        0 => String::new(),
        hidden => format!("{hidden} more; run without --watch to see all\n"),
    }
}

/// What tells a container from others for people: its name, or its address, and its network if that is known.
type Label = (String, String);

fn label(container: &ContainerTraffic) -> Label {
    let name = container.container.clone().unwrap_or_else(|| container.ip.to_string());
    (name, container.network.clone().unwrap_or_default())
}

/// Each container once, the most bytes first: one that has addresses of both families is the sum of two.
fn by_label(stats: &Stats) -> Vec<(Label, ContainerCounters)> {
    let mut all: HashMap<Label, ContainerCounters> = HashMap::new();
    for one in &stats.containers {
        let sum = all.entry(label(one)).or_default();
        *sum = *sum + one.counters;
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_cached_key(|(label, counters)| {
        let total = counters.total();
        (Reverse(total.bytes_out.saturating_add(total.bytes_in)), label.clone())
    });
    all
}

/// Traffic of containers, a row for each kind that there was, and their events.
fn containers(stats: &Stats, rates: &Rates<'_>, limit: usize) -> String {
    let all = by_label(stats);
    let others = stats.other_containers;
    if all.is_empty() && others == ContainerCounters::default() {
        return String::new();
    }
    let before = rates.before.map(|(before, time)| {
        (by_label(before).into_iter().collect::<HashMap<_, _>>(), before.other_containers, *time)
    });
    let mut table = Table::new(&["CONTAINER", "NETWORK", "TRAFFIC"], rates);
    let mut events = Table::of_events();
    let mut shown = 0;
    for (label, counters) in &all {
        if table.rows.len() + events.rows.len() > limit.saturating_add(1) {
            break;
        }
        shown += 1;
        // One that was not there may have been among the others: its past is unknown.
        let past = before.as_ref().and_then(|(all, _, time)| Some((all.get(label)?, *time)));
        table.container(label, counters, past);
        events.events(label, &counters.events);
    }
    let label = ("others".to_owned(), String::new());
    let past = before.as_ref().map(|(_, others, time)| (others, *time));
    table.container(&label, &others, past);
    events.events(&label, &others.events);
    let tables = [table, events].into_iter().filter(|table| table.rows.len() > 1);
    let mut out = tables.map(|table| table.print()).collect::<Vec<_>>().join("\n");
    out.push_str(&hidden(all.len(), shown));
    if let unattributed @ 1.. = stats.events.unattributed {
        out.push_str(&format!(
            "{unattributed} lookups failed; this traffic may be listed for the wrong address\n"
        ));
    }
    out
}

/// The traffic of a container by kind.
fn kinds(counters: &ContainerCounters) -> [(&'static str, Traffic); 4] {
    let ContainerCounters { tcp, udp, published_tcp, published_udp, .. } = *counters;
    [
        ("tcp out", tcp),
        ("udp out", udp),
        ("tcp published", published_tcp),
        ("udp published", published_udp),
    ]
}

const NOTHING: Traffic = Traffic { active: 0, opened: 0, failed: 0, bytes_out: 0, bytes_in: 0 };

struct Rates<'a> {
    /// Whether there are columns for them.
    shown: bool,
    before: Option<&'a (Stats, Duration)>,
}

impl<'a> Rates<'a> {
    /// Traffic of the same kind at the look before, and how long ago that was.
    fn past(
        &self,
        find: impl FnOnce(&'a Stats) -> Option<&'a Traffic>,
    ) -> Option<(&'a Traffic, Duration)> {
        let (stats, time) = self.before?;
        find(stats).map(|traffic| (traffic, *time))
    }
}

/// Rows of text columns (to the left) and columns of numbers (to the right).
struct Table {
    texts: usize,
    rates: bool,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(texts: &[&str], rates: &Rates<'_>) -> Self {
        let numbers = ["ACTIVE", "OPENED", "FAILED", "IN", "OUT"];
        let more = if rates.shown { &["IN/S", "OUT/S"][..] } else { &[] };
        let header = texts.iter().chain(&numbers).chain(more).map(|name| (*name).to_owned());
        Self { texts: texts.len(), rates: rates.shown, rows: vec![header.collect()] }
    }

    fn row<const N: usize>(
        &mut self,
        texts: &[String; N],
        traffic: &Traffic,
        past: Option<(&Traffic, Duration)>,
    ) {
        let mut row = texts.to_vec();
        row.extend([traffic.active, traffic.opened, traffic.failed].map(|count| count.to_string()));
        row.extend([traffic.bytes_in, traffic.bytes_out].map(|count| bytes(count.into())));
        if self.rates {
            let rate = |now: u64, of: fn(&Traffic) -> u64| {
                let past = past.and_then(|(past, time)| per_second(of(past), now, time));
                past.map_or_else(|| "-".to_owned(), |rate| bytes(rate) + "/s")
            };
            row.push(rate(traffic.bytes_in, |past| past.bytes_in));
            row.push(rate(traffic.bytes_out, |past| past.bytes_out));
        }
        self.rows.push(row);
    }

    fn of_events() -> Self {
        let header = ["CONTAINER", "NETWORK", "DNS QUERIES", "ECHO REQUESTS", "DENIED"];
        Self { texts: 2, rates: false, rows: vec![header.map(str::to_owned).into()] }
    }

    /// A row for each kind of traffic that a container had.
    fn container(
        &mut self,
        (name, network): &Label,
        counters: &ContainerCounters,
        past: Option<(&ContainerCounters, Duration)>,
    ) {
        let past = past.map(|(past, time)| (kinds(past), time));
        for (at, (kind, traffic)) in kinds(counters).iter().enumerate() {
            if *traffic != NOTHING {
                let past = past.as_ref().map(|(kinds, time)| (&kinds[at].1, *time));
                self.row(&[name.clone(), network.clone(), (*kind).to_owned()], traffic, past);
            }
        }
    }

    fn events(&mut self, (name, network): &Label, events: &ContainerEvents) {
        let numbers = [events.dns_queries, events.echo_requests, events.denied];
        if numbers != [0; 3] {
            let texts = [name.clone(), network.clone()];
            self.rows.push(texts.into_iter().chain(numbers.map(|n| n.to_string())).collect());
        }
    }

    fn print(&self) -> String {
        let visible = |row: &Vec<String>| row.iter().map(|cell| visible(cell)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(visible).collect();
        let lines = columns(&rows, self.texts, PADDING);
        lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// Bytes per second. `None` if no time went by.
fn per_second(past: u64, now: u64, time: Duration) -> Option<u128> {
    let micros = std::num::NonZeroU128::new(time.as_micros())?;
    Some(u128::from(now.saturating_sub(past)) * 1_000_000 / micros)
}

/// Bytes in the largest IEC unit of which there is at least one, with one digit behind the point, rounded down.
pub(in crate::ctl) fn bytes(count: u128) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut unit, mut scale) = ("B", 1);
    for larger in UNITS {
        if count < scale * 1024 {
            break;
        }
        (unit, scale) = (larger, scale * 1024);
    }
    match scale {
        1 => format!("{count} {unit}"),
        _ => format!("{}.{} {unit}", count / scale, count % scale * 10 / scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_iec_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1535, "1.4 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (5 << 30, "5.0 GiB"),
            (u128::from(u64::MAX), "15.9 EiB"),
            (1 << 71, "2048.0 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn rates_do_not_fail_on_strange_counters() {
        let second = Duration::from_secs(1);
        assert_eq!(per_second(100, 1100, second * 2), Some(500));
        assert_eq!(per_second(1100, 100, second), Some(0));
        assert_eq!(per_second(0, u64::MAX, Duration::from_nanos(1)), None);
        let most = per_second(0, u64::MAX, Duration::from_micros(1)).map(bytes);
        assert!(most.is_some_and(|text| text.ends_with(" EiB")));
    }
}
