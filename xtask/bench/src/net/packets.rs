//! Small datagrams out, as many as go through.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::way::Way;
use super::{Place, interleave, sides};
use crate::machine::{ADDRESS, Machine};
use crate::procs::cpu_seconds;
use crate::rounds::{Bench, Values, cost};

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let ms = bench.options.sample_ms(800);
    interleave(bench, &sides(machine), Way::start, &["udp"], |way, place, _| {
        flood(machine, way, place, ms)
    })
}

/// What arrives between a quarter of the time and three, by the server's own clock.
fn flood(machine: &Machine, way: &mut Way, place: Place, ms: u32) -> Result<Values> {
    let mut command = Command::new(&machine.loadgen);
    command.args(["udp-flood", "--to", ADDRESS, "--base", &way.base.to_string()]);
    command.args(["--ms", &ms.to_string()]);
    if let Some(netns) = way.netns(place)? {
        command.args(["--netns", &netns]);
    }
    let flood = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut flood = flood.context("starting loadgen")?;
    let counts = (|| {
        sleep(Duration::from_millis((ms / 4).into()));
        let (cpu, before) = (cpu_seconds(&way.pids)?, way.counted()?);
        sleep(Duration::from_millis((ms / 2).into()));
        let (after, used) = (way.counted()?, cpu_seconds(&way.pids)? - cpu);
        Ok::<_, anyhow::Error>((before, after, used))
    })();
    // It ends by itself, whatever happened meanwhile.
    let status = flood.wait()?;
    ensure!(status.success(), "loadgen udp-flood: {status}");
    let ((before, since), (after, until), used) = counts?;
    let datagrams = after - before;
    ensure!(datagrams > 0.0, "no datagram arrived");
    let mut values: Values = vec![("", datagrams / (until - since))];
    values.extend(cost(&way.pids, used * 1e6 / datagrams, used)?);
    Ok(values)
}
