//! Small datagrams as fast as they come, large ones back and forth.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::instance::{Instance, client};
use crate::machine::Machine;
use crate::procs::cpu_seconds;
use crate::rounds::{Bench, Values, cost, number};
use crate::sheet::Side;

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let ms = bench.options.sample_ms(1600);
    let sides = bench.forwarders(&[Side::Pasta, Side::Loopback]);
    bench.interleave(&sides, &["udp.flood", "udp.ping"], |instance, row| {
        wait_until_it_answers(machine, instance.base)?;
        match row {
            "udp.flood" => {
                let mut command = Command::new(&machine.loadgen);
                command.args(["udp-flood", "--base", &instance.base.to_string()]);
                flood(&mut command, &instance.pids.clone(), ms, || instance.counted())
            }
            _ => ping(machine, instance, ms / 2),
        }
    })
}

/// pasta finds a new port only when it looks, once a second.
fn wait_until_it_answers(machine: &Machine, base: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let report = client(machine, "udp-ping", base, &["--size", "64", "--ms", "2"])?;
        if number(&report, "done")? > 0.0 {
            return Ok(());
        }
        ensure!(Instant::now() < end, "no datagram comes back");
    }
}

/// What arrives between a quarter of the time and three, by the server's own clock, while the load generator sends.
pub(crate) fn flood(
    command: &mut Command,
    pids: &[i32],
    ms: u32,
    mut counted: impl FnMut() -> Result<(f64, f64)>,
) -> Result<Values> {
    command.args(["--ms", &ms.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut flood = command.spawn().context("starting loadgen")?;
    let counts = (|| {
        sleep(Duration::from_millis((ms / 4).into()));
        let (cpu, before) = (cpu_seconds(pids)?, counted()?);
        sleep(Duration::from_millis((ms / 2).into()));
        let (after, used) = (counted()?, cpu_seconds(pids)? - cpu);
        Ok::<_, anyhow::Error>((before, after, used))
    })();
    // It ends by itself, whatever happened meanwhile.
    let status = flood.wait()?;
    ensure!(status.success(), "loadgen udp-flood: {status}");
    let ((before, since), (after, until), used) = counts?;
    let datagrams = after - before;
    ensure!(datagrams > 0.0, "no datagram arrived");
    let mut values: Values = vec![("", datagrams / (until - since))];
    values.extend(cost(pids, used * 1e6 / datagrams, used)?);
    Ok(values)
}

fn ping(machine: &Machine, instance: &Instance, ms: u32) -> Result<Values> {
    let options = ["--size", "1400", "--ms", &ms.to_string()];
    let report = client(machine, "udp-ping", instance.base, &options)?;
    ensure!(number(&report, "done")? > 0.0, "no datagram came back");
    if number(&report, "failed")? > 0.0 {
        machine.note(format!("{}: datagrams were lost that nothing crowded", instance.side.name()));
    }
    Ok(vec![(".p50", number(&report, "p50_us")?), (".p99", number(&report, "p99_us")?)])
}
