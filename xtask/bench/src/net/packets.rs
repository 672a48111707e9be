//! Small datagrams out, as many as go through.

use std::process::Command;

use anyhow::Result;

use super::way::Way;
use super::{Place, interleave, sides};
use crate::machine::{ADDRESS, Machine};
use crate::rounds::{Bench, Values};
use crate::udp;

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let ms = bench.options.sample_ms(800);
    interleave(bench, &sides(machine), Way::start, &["udp"], |way, place, _| {
        flood(machine, way, place, ms)
    })
}

fn flood(machine: &Machine, way: &mut Way, place: Place, ms: u32) -> Result<Values> {
    let mut command = Command::new(&machine.loadgen);
    command.args(["udp-flood", "--to", ADDRESS, "--base", &way.base.to_string()]);
    if let Some(netns) = way.netns(place)? {
        command.args(["--netns", &netns]);
    }
    udp::flood(&mut command, &way.pids.clone(), ms, || way.counted())
}
