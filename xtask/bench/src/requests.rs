//! New connections, and requests over connections that are kept.

use anyhow::{Result, ensure};

use crate::instance::client;
use crate::procs::cpu_seconds;
use crate::rounds::{Bench, answered, cost, number};
use crate::sheet::Side;

pub(crate) fn connections(bench: &mut Bench<'_>) -> Result<()> {
    measure(bench, "close", &["conn.32", "conn.1"])
}

pub(crate) fn keepalive(bench: &mut Bench<'_>) -> Result<()> {
    measure(bench, "keep", &["keepalive.32"])
}

/// Rows end in the number of requests under way.
fn measure(bench: &mut Bench<'_>, mode: &str, rows: &[&str]) -> Result<()> {
    let machine = bench.machine;
    let ms = bench.options.sample_ms(1500).to_string();
    let sides = bench.forwarders(&[Side::Pasta, Side::Loopback]);
    bench.interleave(&sides, rows, |instance, row| {
        let flight = row.rsplit('.').next().unwrap_or_default();
        let before = cpu_seconds(&instance.pids)?;
        let report = client(machine, mode, instance.base, &["--flight", flight, "--ms", &ms])?;
        let used = cpu_seconds(&instance.pids)? - before;
        let done = number(&report, "done")?;
        ensure!(done > 0.0, "no request was answered in time: {}", report["error"]);
        if number(&report, "failed")? > 0.0 {
            let side = instance.side.name();
            machine.note(format!("{side}, {row}: requests failed: {}", report["error"]));
        }
        let mut values = answered(&report)?;
        values.extend(cost(&instance.pids, used * 1e6 / done, used)?);
        Ok(values)
    })
}
