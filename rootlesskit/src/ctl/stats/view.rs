//! Statistics for people.

use std::time::Duration;

use api::Stats;
use api::stats::{DestinationTraffic, Traffic};

/// Destinations shown while watching; more would push the totals off the screen.
pub(super) const WATCHED: usize = 15;

const GAP: &str = "  ";

/// Statistics, and what they were at the look before and how long ago that was.
pub(super) struct Look {
    pub(super) stats: Stats,
    pub(super) before: Option<(Stats, Duration)>,
}

/// The statistics as text: totals, published ports, destinations. With a `limit` of destinations it is one of many looks,
/// and there are columns for bytes per second.
pub(super) fn table(look: &Look, limit: Option<usize>) -> String {
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
    if !stats.destinations.is_empty() || stats.other_destinations != Traffic::default() {
        out.push('\n');
        out.push_str(&destinations(stats, &rates, limit.unwrap_or(usize::MAX)));
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
    if stats.other_destinations != Traffic::default() {
        let past = rates.past(|before| Some(&before.other_destinations));
        table.row(&[String::new(), "others".into()], &stats.other_destinations, past);
    }
    let mut out = table.print();
    if let hidden @ 1.. = all.len().saturating_sub(limit) {
        out.push_str(&format!("{hidden} more; run without --watch to see all\n"));
    }
    out
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

    fn print(&self) -> String {
        let mut widths = vec![0; self.rows[0].len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                if at < self.texts { format!("{cell:width$}") } else { format!("{cell:>width$}") }
            });
            out.push_str(&(cells.collect::<Vec<_>>().join(GAP) + "\n"));
        }
        out
    }
}

/// Bytes per second. `None` if no time went by.
fn per_second(past: u64, now: u64, time: Duration) -> Option<u128> {
    let micros = std::num::NonZeroU128::new(time.as_micros())?;
    Some(u128::from(now.saturating_sub(past)) * 1_000_000 / micros)
}

/// Bytes in the largest IEC unit of which there is at least one, with one digit behind the point, rounded down.
fn bytes(count: u128) -> String {
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
