//! Overlay networks: VXLAN between two hosts ([`hosts`]) through the gateways of ordinary users, and what compares with
//! it.
//!
//! Four sides lead from the first host to the second. *Overlay* is a VXLAN link in the namespaces of two rootlesskits,
//! whose gateways carry its datagrams. *Root's VXLAN* is the same link on the hosts themselves, which takes root.
//! *Gateway* is without VXLAN: a client in the one namespace connects to a port that the other one publishes. *Host to
//! host* uses neither.
//!
//! The link is a veth with its offloads: packets of up to 64 KiB cross it whole, VXLAN's too, and nobody computes their
//! checksums. No card does that. All sides send large packets and gain by it, root's VXLAN more than the overlay, whose
//! gateways have packets finished before they read them. The rows "cut" are without: each packet is cut to the MTU and
//! has its checksums before it enters the link, and the receiver merges packets as with a card. There the sender's
//! processor does what many cards do for root's VXLAN, and for the large datagrams of a gateway.

mod hosts;
mod measure;
mod report;

use anyhow::Result;

pub(crate) use report::report;
#[cfg(test)]
pub(crate) use report::titles;

use crate::machine::Machine;
use crate::options::Options;
use crate::rounds::{Bench, Values};
use crate::sheet::Side;
use hosts::Hosts;

/// In the order of the columns.
const COLUMNS: [Side; 4] = [Side::Overlay, Side::RootVxlan, Side::Gateway, Side::HostToHost];

/// What one row measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// So many streams.
    Bytes(&'static str),
    /// The same, with packets cut before they enter the link.
    Cut(&'static str),
    Connections,
    Datagrams,
}

/// The ends of the rows' names.
const ROWS: [(&str, Kind); 6] = [
    ("tcp1", Kind::Bytes("1")),
    ("tcp8", Kind::Bytes("8")),
    ("cut1", Kind::Cut("1")),
    ("cut8", Kind::Cut("8")),
    ("conn32", Kind::Connections),
    ("udp", Kind::Datagrams),
];

/// The name of a row.
fn row(end: &str) -> String {
    format!("overlay.{end}")
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let (machine, options) = (bench.machine, bench.options);
    let mut hosts = Hosts::start(machine)?;
    let mut sides = Vec::new();
    for side in COLUMNS {
        super::go_on()?;
        match hosts.wait_until_answered(machine, side) {
            Ok(()) => sides.push(side),
            Err(error) => bench.leave_out(side, &error),
        }
    }
    let rounds = options.net_rounds();
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        sides.rotate_left(1);
        for (end, kind) in ROWS {
            for side in &sides {
                let take = || sample(machine, options, &mut hosts, *side, kind);
                bench.enter(&row(end), *side, round, take)?;
            }
        }
    }
    Ok(())
}

fn sample(
    machine: &Machine,
    options: &Options,
    hosts: &mut Hosts,
    side: Side,
    kind: Kind,
) -> Result<Values> {
    let ms = options.sample_ms(700);
    match kind {
        Kind::Bytes(streams) => measure::stream(machine, hosts, side, streams, ms),
        Kind::Cut(streams) => {
            let cut = hosts.cut(true);
            let values = cut.and_then(|()| measure::stream(machine, hosts, side, streams, ms));
            // Other rows are without, whatever happened.
            hosts.cut(false)?;
            values
        }
        Kind::Connections => measure::connections(machine, hosts, side, ms),
        Kind::Datagrams => measure::datagrams(machine, hosts, side, ms),
    }
}
