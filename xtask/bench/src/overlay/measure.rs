//! The samples: bytes, new connections and small datagrams.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::hosts::Hosts;
use crate::machine::Machine;
use crate::procs::{busy_seconds, cpu_seconds};
use crate::rounds::{Values, answered, cost, number};
use crate::sheet::Side;

/// How long the rest of a stream may take after its time, in milliseconds.
const PATIENCE_MS: &str = "1000";

/// Processor seconds up to a moment.
struct Used {
    /// Of the processes that forward.
    own: f64,
    /// Of the whole machine: the load, the forwarders, and what the kernel does for both.
    all: f64,
}

impl Used {
    fn until_now(pids: &[i32]) -> Result<Self> {
        Ok(Self { own: cpu_seconds(pids)?, all: busy_seconds()? })
    }

    /// What was used since, for each of `amount` units of work.
    fn since(&self, pids: &[i32], amount: f64) -> Result<Values> {
        let Self { own, all } = Self::until_now(pids)?;
        let (own, all) = (own - self.own, all - self.all);
        let mut values: Values = vec![(".sys", all / amount)];
        values.extend(cost(pids, own / amount, own)?);
        Ok(values)
    }
}

/// Bytes from the first host to the second.
pub(super) fn stream(
    machine: &Machine,
    hosts: &Hosts,
    side: Side,
    streams: &str,
    ms: u32,
) -> Result<Values> {
    let ms = ms.to_string();
    let options =
        [["--direction", "up"], ["--streams", streams], ["--ms", &ms], ["--patience", PATIENCE_MS]];
    let pids = hosts.pids(side);
    let before = Used::until_now(&pids)?;
    let report = hosts.client(machine, side, "bulk", options.as_flattened())?;
    let bytes = number(&report, "bytes")?;
    ensure!(bytes > 0.0, "nothing arrived");
    let mut values: Values = vec![("", number(&report, "rate")? * 8.0 / 1e9)];
    if number(&report, "stalled")? == 0.0 {
        values.extend(before.since(&pids, bytes / 1e9)?);
    } else {
        // Then nobody knows how many bytes the processor time was for.
        machine.note(format!(
            "{}, {streams} streams between hosts: what was under way at the end took over {PATIENCE_MS} ms",
            side.name()
        ));
    }
    Ok(values)
}

/// Connections with one request each.
pub(super) fn connections(machine: &Machine, hosts: &Hosts, side: Side, ms: u32) -> Result<Values> {
    let pids = hosts.pids(side);
    let before = Used::until_now(&pids)?;
    let options = ["--flight", "32", "--ms", &ms.to_string()];
    let report = hosts.client(machine, side, "close", &options)?;
    let (done, failed) = (number(&report, "done")?, number(&report, "failed")?);
    ensure!(done > 0.0, "no request was answered in time: {}", report["error"]);
    if failed > 0.0 {
        let side = side.name();
        machine.note(format!("{side}, between hosts: requests failed: {}", report["error"]));
    }
    let mut values = answered(&report)?;
    values.push((".failed", failed));
    values.extend(before.since(&pids, done / 1e6)?);
    Ok(values)
}

/// Small datagrams that arrive between a quarter of the time and three, by the server's own clock.
pub(super) fn datagrams(
    machine: &Machine,
    hosts: &mut Hosts,
    side: Side,
    ms: u32,
) -> Result<Values> {
    let mut command = hosts.background(machine, side, "udp-flood")?;
    command.args(["--ms", &ms.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut flood = command.spawn().context("starting loadgen")?;
    let values = half(hosts, side, Duration::from_millis(ms.into()));
    // It ends by itself, whatever happened meanwhile.
    let status = flood.wait()?;
    ensure!(status.success(), "loadgen udp-flood: {status}");
    values
}

/// The middle half of a flood.
fn half(hosts: &mut Hosts, side: Side, time: Duration) -> Result<Values> {
    let pids = hosts.pids(side);
    sleep(time / 4);
    let (used, (before, since)) = (Used::until_now(&pids)?, hosts.counted(side)?);
    sleep(time / 2);
    let (after, until) = hosts.counted(side)?;
    let datagrams = after - before;
    ensure!(datagrams > 0.0, "no datagram arrived");
    let mut values: Values = vec![("", datagrams / (until - since))];
    values.extend(used.since(&pids, datagrams / 1e6)?);
    Ok(values)
}
