//! What a thousand open connections cost the processes that carry them.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::way::Way;
use super::{Place, sides};
use crate::machine::{ADDRESS, Machine};
use crate::process::Process;
use crate::procs::pss_mb;
use crate::rounds::{Bench, Values};
use crate::sheet::Side;

/// How long a side may come to rest before its memory is read.
const SETTLE_INTERVAL: Duration = Duration::from_millis(300);

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let mut sides = sides(machine);
    sides.retain(|side| !matches!(side, Side::Kernel | Side::Loopback));
    let rounds = bench.options.net_rounds().min(if bench.options.quick { 1 } else { 3 });
    for round in 0..rounds {
        sides.rotate_left(1);
        for side in &sides {
            bench.enter("net.mem", *side, round, || one(machine, *side))?;
        }
    }
    Ok(())
}

/// A fresh instance, with nothing and then with the connections, which come from the namespace itself.
fn one(machine: &Machine, side: Side) -> Result<Values> {
    let way = Way::start(machine, side)?;
    sleep(SETTLE_INTERVAL);
    let idle = pss_mb(&way.pids)?;
    let mut command = Command::new(&machine.loadgen);
    command.args(["hold", "--count", "1000", "--to", ADDRESS, "--base", &way.base.to_string()]);
    command.args(["--netns", &way.netns(Place::Namespace)?.context("no namespace")?]);
    let mut held = Process::start(&mut command)?;
    held.line().context("opening a thousand connections")?;
    sleep(SETTLE_INTERVAL);
    Ok(vec![(".idle", idle), (".1000", pss_mb(&way.pids)? - idle)])
}
