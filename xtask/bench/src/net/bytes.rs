//! Bytes, in both directions, and what they cost.

use anyhow::{Result, ensure};

use super::way::Way;
use super::{Machine, PATIENCE_MS, Place, client, interleave, sides, small_sides};
use crate::procs::{busy_seconds, cpu_seconds};
use crate::rounds::{Bench, Values, cost, number};

/// Rows, as whether bytes leave the namespace, and the number of streams.
pub(super) const ROWS: [(&str, bool, &str); 4] =
    [("out1", true, "1"), ("out8", true, "8"), ("in1", false, "1"), ("in8", false, "8")];

pub(super) fn names() -> Vec<&'static str> {
    ROWS.iter().map(|(name, ..)| *name).collect()
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let ms = bench.options.sample_ms(700).to_string();
    let mut all = sides(machine);
    all.extend(small_sides(machine));
    interleave(bench, &all, Way::start, &names(), |way, place, row| {
        stream(machine, way, place, row, &ms)
    })
}

/// One sample. The client asks; where it is outside, what it sends goes in.
pub(super) fn stream(
    machine: &Machine,
    way: &Way,
    place: Place,
    row: &str,
    ms: &str,
) -> Result<Values> {
    let wanted = ROWS.iter().find(|(name, ..)| *name == row);
    let (_, out, streams) = *wanted.unwrap_or(&ROWS[0]);
    let name = format!("{}.{row}", place.prefix());
    let direction = if out == (place != Place::Outside) { "up" } else { "down" };
    let options = [["--direction", direction], ["--streams", streams], ["--ms", ms]];
    bulk(machine, way, place, &name, options.as_flattened())
}

/// One sample of these options of the load generator. `name` is the row's for notes.
pub(super) fn bulk(
    machine: &Machine,
    way: &Way,
    place: Place,
    name: &str,
    options: &[&str],
) -> Result<Values> {
    let options = [options, &["--patience", PATIENCE_MS]].concat();
    let (own, all) = (cpu_seconds(&way.pids)?, busy_seconds()?);
    let report = client(machine, way, place, "bulk", &options)?;
    let (own, all) = (cpu_seconds(&way.pids)? - own, busy_seconds()? - all);
    let bytes = number(&report, "bytes")?;
    ensure!(bytes > 0.0, "nothing arrived");
    if number(&report, "stalled")? > 0.0 {
        machine.note(format!(
            "{}, {name}: what was under way at the end took over {PATIENCE_MS} ms",
            way.side.name()
        ));
    }
    let mut values: Values =
        vec![("", number(&report, "rate")? * 8.0 / 1e9), (".sys", all / (bytes / 1e9))];
    values.extend(cost(&way.pids, own / (bytes / 1e9), own)?);
    Ok(values)
}
