//! New connections, and requests over connections that are kept.

use anyhow::{Result, ensure};

use super::way::Way;
use super::{Machine, Place, client, interleave, sides};
use crate::procs::cpu_seconds;
use crate::rounds::{Bench, Values, answered, cost, number};

/// Rows, as mode of the load generator and requests under way.
pub(super) const ROWS: [(&str, &str, &str); 5] = [
    ("keep1", "keep", "1"),
    ("keep8", "keep", "8"),
    ("keep32", "keep", "32"),
    ("keep256", "keep", "256"),
    ("conn32", "close", "32"),
];

pub(crate) fn keepalive(bench: &mut Bench<'_>) -> Result<()> {
    run(bench, "keep", 600)
}

pub(crate) fn connections(bench: &mut Bench<'_>) -> Result<()> {
    run(bench, "close", 1000)
}

fn run(bench: &mut Bench<'_>, mode: &str, full_ms: u32) -> Result<()> {
    let machine = bench.machine;
    let ms = bench.options.sample_ms(full_ms).to_string();
    let rows: Vec<&str> =
        ROWS.iter().filter(|(_, of, _)| *of == mode).map(|(name, ..)| *name).collect();
    interleave(bench, &sides(machine), Way::start, &rows, |way, place, row| {
        request(machine, way, place, row, &ms)
    })
}

pub(super) fn request(
    machine: &Machine,
    way: &Way,
    place: Place,
    row: &str,
    ms: &str,
) -> Result<Values> {
    let (_, mode, flight) = *ROWS.iter().find(|(name, ..)| *name == row).unwrap_or(&ROWS[0]);
    let name = format!("{}.{row}", place.prefix());
    answers(machine, way, place, &name, mode, &["--flight", flight, "--ms", ms])
}

/// One sample of a mode of the load generator that counts answers. `name` is the row's for notes.
pub(super) fn answers(
    machine: &Machine,
    way: &Way,
    place: Place,
    name: &str,
    mode: &str,
    options: &[&str],
) -> Result<Values> {
    let before = cpu_seconds(&way.pids)?;
    let report = client(machine, way, place, mode, options)?;
    let used = cpu_seconds(&way.pids)? - before;
    let (done, failed) = (number(&report, "done")?, number(&report, "failed")?);
    // What is lost has no error.
    let error = report["error"].as_str().unwrap_or("no answer in time");
    ensure!(done > 0.0, "no request was answered in time: {error}");
    if failed > 0.0 {
        machine.note(format!("{}, {name}: requests failed: {error}", way.side.name()));
    }
    let mut values = answered(&report)?;
    values.push((".failed", failed));
    values.extend(cost(&way.pids, used * 1e6 / done, used)?);
    Ok(values)
}
