//! Bytes through a published port, in both directions, and what they cost the forwarder.

use anyhow::{Result, ensure};

use crate::instance::client;
use crate::procs::cpu_seconds;
use crate::rounds::{Bench, Values, cost, number};
use crate::sheet::Side;

/// Rows, as direction and number of streams.
const ROWS: [(&str, &str, &str); 4] = [
    ("tcp.up1", "up", "1"),
    ("tcp.up8", "up", "8"),
    ("tcp.down1", "down", "1"),
    ("tcp.down8", "down", "8"),
];

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let ms = bench.options.sample_ms(1500).to_string();
    let sides = bench.forwarders(&[Side::Splice, Side::Pasta, Side::Loopback]);
    bench.interleave(&sides, &ROWS.map(|(row, ..)| row), |instance, row| {
        let wanted = ROWS.iter().find(|(name, ..)| *name == row);
        let (_, direction, streams) = wanted.copied().unwrap_or(ROWS[0]);
        let before = cpu_seconds(&instance.pids)?;
        let options = ["--direction", direction, "--streams", streams, "--ms", &ms];
        let report = client(machine, "bulk", instance.base, &options)?;
        let used = cpu_seconds(&instance.pids)? - before;
        let (bytes, seconds) = (number(&report, "bytes")?, number(&report, "seconds")?);
        ensure!(bytes > 0.0, "nothing arrived");
        let mut values: Values = vec![("", bytes * 8.0 / seconds / 1e9)];
        values.extend(cost(&instance.pids, used / (bytes / 1e9), used)?);
        Ok(values)
    })
}
