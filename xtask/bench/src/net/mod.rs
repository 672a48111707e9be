//! Networks: what leaves a namespace, and a container behind a bridge in it, on its way to the machine.
//!
//! Each side ([`way`]) is one instance with two clients' places: its namespace itself, and a container in there
//! ([`container`]) behind a bridge with masquerading at an MTU of 1500, as dockerd makes it. Servers listen on the
//! machine's own address, which is not loopback. Raw is the same without any namespace: its figure is the measure for
//! both places. Peers run at the largest MTU that they have, and once more at 1500.

mod bytes;
mod container;
pub(super) mod fairness;
mod goals;
mod memory;
mod packets;
pub(super) mod policy;
mod published;
mod report;
mod requests;
mod rows;
mod rules;
mod way;

pub(super) use memory::run as memory;
pub(super) use packets::run as udp;
pub(super) use published::run as published;
pub(super) use report::report;
pub(super) use requests::{connections, keepalive};
#[cfg(test)]
pub(super) use rows::titles;

pub(super) use bytes::run as tcp;

use anyhow::Result;
use serde_json::Value;

use crate::machine::{ADDRESS, Machine};
use crate::rounds::{Bench, Values};
use crate::sheet::Side;
use way::Way;

/// How long the rest of a stream may take after its time, in milliseconds. Some peers never recover.
const PATIENCE_MS: &str = "1000";

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the namespace itself.
    Namespace,
    /// In a container in there.
    Container,
    /// On the machine, whose published ports lead into a container.
    Outside,
}

impl Place {
    /// How its rows begin.
    fn prefix(self) -> &'static str {
        match self {
            Self::Namespace => "net.ns",
            Self::Container => "net.box",
            Self::Outside => "net.pub",
        }
    }
}

/// The sides of this machine, each at its best MTU.
fn sides(machine: &Machine) -> Vec<Side> {
    let mut sides = vec![Side::Gateway, Side::Slirp];
    if machine.pasta.is_some() {
        sides.push(Side::PastaNet);
    }
    if machine.theirs_has_gvisor {
        sides.push(Side::Gvisor);
    }
    sides.extend([Side::Kernel, Side::Loopback]);
    sides
}

/// The peers at the MTU that the gateway has.
fn small_sides(machine: &Machine) -> Vec<Side> {
    let all = [Side::Slirp1500, Side::Pasta1500];
    all.into_iter().filter(|s| *s != Side::Pasta1500 || machine.pasta.is_some()).collect()
}

/// Runs a client of the load generator in a place of a side.
fn client(
    machine: &Machine,
    way: &Way,
    place: Place,
    mode: &str,
    options: &[&str],
) -> Result<Value> {
    let netns = way.netns(place)?;
    let mut all = options.to_vec();
    if place != Place::Outside {
        all.extend(["--to", ADDRESS]);
    }
    if let Some(netns) = &netns {
        all.extend(["--netns", netns]);
    }
    super::instance::client(machine, mode, way.base, &all)
}

/// Measures each row of each side in turns, from each place that the side has.
///
/// `rows` are the ends of the rows' names; their beginnings follow from the place.
fn interleave(
    bench: &mut Bench<'_>,
    sides: &[Side],
    start: fn(&Machine, Side) -> Result<Way>,
    rows: &[&str],
    mut measure: impl FnMut(&mut Way, Place, &str) -> Result<Values>,
) -> Result<()> {
    let mut ways = Vec::new();
    for side in sides {
        super::go_on()?;
        match start(bench.machine, *side) {
            Ok(way) => ways.push(way),
            Err(error) if *side == Side::Gateway => return Err(error),
            Err(error) => bench.leave_out(*side, &error),
        }
    }
    let rounds = bench.options.net_rounds();
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        ways.rotate_left(1);
        for row in rows {
            for place in [Place::Namespace, Place::Container, Place::Outside] {
                for way in ways.iter_mut().filter(|way| way.has(place)) {
                    let (side, name) = (way.side, format!("{}.{row}", place.prefix()));
                    bench.enter(&name, side, round, || measure(way, place, row))?;
                }
            }
        }
    }
    Ok(())
}
