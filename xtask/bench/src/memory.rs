//! What rootlesskit keeps in memory, and how long publishing takes: 1,000 ports, then 10,000.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use loadgen::CLOSE;

use crate::api::Api;
use crate::instance::{Instance, client};
use crate::machine::Machine;
use crate::procs::pss_mb;
use crate::rounds::{Bench, Values};
use crate::sheet::Side;

/// The first published port; ten thousand follow, below those that the kernel gives to clients.
const FIRST: u16 = 21_000;
/// While ten thousand ports are published, the time until each of these numbers is kept, for a chart.
const ON_THE_WAY: [(usize, &str); 4] = [
    (2000, "publish.2000"),
    (4000, "publish.4000"),
    (6000, "publish.6000"),
    (8000, "publish.8000"),
];

/// How long an instance may come to rest before its memory is read.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    for round in 0..bench.options.publishes() {
        eprintln!("    round {} of {}", round + 1, bench.options.publishes());
        let mut sides = [Side::Ours, Side::Theirs];
        sides.rotate_left(round % 2);
        for side in sides {
            bench.enter("", side, round, || one(machine, side))?;
        }
    }
    Ok(())
}

fn one(machine: &Machine, side: Side) -> Result<Values> {
    let mut instance = Instance::bare(machine, side)?;
    instance.serve(machine)?;
    machine.pin_forwarder(&instance.pids)?;
    sleep(2 * SETTLE_INTERVAL);
    let mut values: Values = vec![("memory.0", pss_mb(&instance.pids)?)];
    for (count, [publish, memory, remove]) in [
        (1000, ["publish.1000", "memory.1000", "remove.1000"]),
        (10_000, ["publish.10000", "memory.10000", "remove.10000"]),
    ] {
        super::go_on()?;
        let mut api = Api::connect(&instance.api()?)?;
        let started = Instant::now();
        let mut ids = Vec::new();
        for port in FIRST..FIRST + count {
            ids.push(api.publish(port, instance.base + CLOSE)?);
            if let Some((_, row)) = ON_THE_WAY.iter().find(|(ports, _)| *ports == ids.len()) {
                values.push((row, started.elapsed().as_secs_f64()));
            }
        }
        values.push((publish, started.elapsed().as_secs_f64()));
        for port in [FIRST, FIRST + count / 2, FIRST + count - 1] {
            answers(machine, port)?;
        }
        sleep(SETTLE_INTERVAL);
        values.push((memory, pss_mb(&instance.pids)?));
        super::go_on()?;
        let started = Instant::now();
        for id in ids {
            api.remove(id)?;
        }
        values.push((remove, started.elapsed().as_secs_f64()));
        for port in [FIRST, FIRST + count / 2, FIRST + count - 1] {
            is_closed(port)?;
        }
    }
    sleep(SETTLE_INTERVAL);
    values.push(("memory.removed", pss_mb(&instance.pids)?));
    Ok(values)
}

/// Whether a published port leads to the server.
fn answers(machine: &Machine, port: u16) -> Result<()> {
    // The generator adds the offset of the server that it wants.
    let report = client(machine, "close", port - CLOSE, &["--flight", "1", "--ms", "20"])?;
    ensure!(report["failed"] == 0 && report["done"] != 0, "port {port}: {}", report["error"]);
    Ok(())
}

fn is_closed(port: u16) -> Result<()> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("port {port} was removed, but connecting to it says {other:?}"),
    }
}
