//! What is measured, in the order of the tables.

use super::Place;
use crate::sheet::Side;

/// One measure, which each place may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    /// The end of its rows' names.
    pub(super) end: &'static str,
    pub(super) title: &'static str,
    /// Decimals shown.
    pub(super) decimals: usize,
    /// Whether more is better.
    pub(super) more: bool,
}

const fn measure(end: &'static str, title: &'static str, decimals: usize, more: bool) -> Measure {
    Measure { end, title, decimals, more }
}

/// The measures of every place.
pub(super) const MEASURES: [Measure; 34] = [
    measure("out1", "TCP, 1 stream out, Gbit/s", 2, true),
    measure("out1.cpu", "– CPU s/GB, all forwarders", 3, false),
    measure("out1.sys", "– CPU s/GB, whole machine", 3, false),
    measure("out8", "TCP, 8 streams out, Gbit/s", 2, true),
    measure("out8.cpu", "– CPU s/GB, all forwarders", 3, false),
    measure("out8.sys", "– CPU s/GB, whole machine", 3, false),
    measure("in1", "TCP, 1 stream in, Gbit/s", 2, true),
    measure("in1.cpu", "– CPU s/GB, all forwarders", 3, false),
    measure("in1.sys", "– CPU s/GB, whole machine", 3, false),
    measure("in8", "TCP, 8 streams in, Gbit/s", 2, true),
    measure("in8.cpu", "– CPU s/GB, all forwarders", 3, false),
    measure("in8.sys", "– CPU s/GB, whole machine", 3, false),
    measure("udp", "UDP of 64 B out, packets/s received", 0, true),
    measure("udp.cpu", "– CPU µs each", 2, false),
    measure("keep1", "keep-alive requests/s, 1 connection", 0, true),
    measure("keep1.p50", "– p50, µs", 0, false),
    measure("keep1.p99", "– p99, µs", 0, false),
    measure("keep8", "keep-alive requests/s, 8 connections", 0, true),
    measure("keep8.p50", "– p50, µs", 0, false),
    measure("keep8.p99", "– p99, µs", 0, false),
    measure("keep32", "keep-alive requests/s, 32 connections", 0, true),
    measure("keep32.p50", "– p50, µs", 0, false),
    measure("keep32.p99", "– p99, µs", 0, false),
    measure("keep32.cpu", "– CPU µs each", 1, false),
    measure("keep256", "keep-alive requests/s, 256 connections", 0, true),
    measure("keep256.p50", "– p50, µs", 0, false),
    measure("keep256.p99", "– p99, µs", 0, false),
    measure("keep256.cpu", "– CPU µs each", 1, false),
    measure("keep256.failed", "– failed, all samples", 0, false),
    measure("conn32", "new connections/s, 32 in flight", 0, true),
    measure("conn32.p50", "– p50, µs", 0, false),
    measure("conn32.p99", "– p99, µs", 0, false),
    measure("conn32.cpu", "– CPU µs each", 0, false),
    measure("conn32.failed", "– failed, all samples", 0, false),
];

/// Of the processes that carry them.
pub(super) const MEMORY: [Measure; 2] = [
    measure("idle", "memory (PSS), idle, MB", 1, false),
    measure("1000", "– more with 1,000 open connections, MB", 2, false),
];

/// Names and titles of all rows.
#[cfg(test)]
pub(in super::super) fn titles() -> impl Iterator<Item = (String, &'static str)> {
    let of_places = MEASURES.iter().map(|m| (row(Place::Container, m.end), m.title));
    of_places.chain(MEMORY.iter().map(|m| (format!("net.mem.{}", m.end), m.title)))
}

/// The measure that a row's name ends in.
pub(super) fn find(end: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.end == end)
}

/// The name of a measure's row in a place.
pub(super) fn row(place: Place, end: &str) -> String {
    format!("{}.{end}", place.prefix())
}

/// In the order of the columns.
pub(super) const COLUMNS: [Side; 9] = [
    Side::Gateway,
    Side::Slirp,
    Side::Slirp1500,
    Side::PastaNet,
    Side::Pasta1500,
    Side::Gvisor,
    Side::DockerProxy,
    Side::Kernel,
    Side::Loopback,
];

/// What the gateway takes the place of.
pub(super) const PEERS: [Side; 5] =
    [Side::Slirp, Side::Slirp1500, Side::PastaNet, Side::Pasta1500, Side::Gvisor];

/// What a side is called at the head of a column.
pub(super) fn head(side: Side) -> &'static str {
    match side {
        Side::PastaNet => "pasta",
        Side::Pasta1500 => "pasta 1500",
        Side::Loopback => "raw",
        _ => side.name(),
    }
}
