//! Real programs: pgbench, redis-benchmark, wrk with nginx, and queries in datagrams, through every way in both
//! directions.
//!
//! Published: the server is in the namespace, the client on the machine at 127.0.0.1. Out: the client is in the
//! namespace, the server on the machine at its other address. The machine itself, without any namespace, is measured
//! in the same round, and what the others reach of it is what counts.

mod parse;
mod programs;
mod report;
mod servers;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::instance::client;
use crate::machine::{ADDRESS, Machine};
use crate::process::PROCESS_TIMEOUT;
use crate::procs::{cpu_seconds, pss_mb};
use crate::rounds::{Bench, Values, cost, number};
use crate::route::{self, Route};
use crate::sheet::Side;
use parse::Figures;
use programs::Programs;
pub(super) use programs::fetch;
pub(super) use report::report;
use servers::{Data, NGINX, POSTGRES, REDIS, ROLE, Servers};

/// What is run, as the ends of its rows' names with their titles, and bytes per request where they are many.
const LOADS: [(&str, &str, f64); 9] = [
    ("pgbench", "pgbench, select-only, 8 clients, transactions/s", 0.0),
    ("redis", "redis-benchmark SET, requests/s", 0.0),
    ("redis16", "redis-benchmark SET -P 16, requests/s", 0.0),
    ("redis16get", "redis-benchmark GET -P 16, requests/s", 0.0),
    ("nginx1k", "nginx, 1 KiB, wrk -c 32, requests/s", 0.0),
    ("nginx100k", "nginx, 100 KiB, wrk -c 32, requests/s", 0.0),
    ("nginx10m", "nginx, 10 MiB, wrk -c 8, MB/s", 10.0 * 1024.0 * 1024.0),
    ("udp", "UDP, one socket, 64 in flight, queries/s", 0.0),
    ("udpchurn", "UDP, a new source port each, 64 in flight, queries/s", 0.0),
];

fn prefix(out: bool) -> &'static str {
    if out { "apps.out" } else { "apps.pub" }
}

/// How much of each.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Whole seconds, which is what pgbench and wrk take.
    seconds: u32,
    /// Requests of redis-benchmark, sixteen times as many with pipelining.
    requests: u32,
    /// Milliseconds.
    queries: u32,
}

/// A way with its servers in the namespace, which end first.
#[derive(Debug)]
struct App {
    _servers: Servers,
    route: Route,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let size = match bench.options.quick {
        true => Size { seconds: 1, requests: 5_000, queries: 300 },
        false => Size { seconds: 2, requests: 60_000, queries: 2_000 },
    };
    let programs = Programs::place(machine)?;
    let data = Data::make(machine, &programs, if bench.options.quick { 1 } else { 2 })?;
    let mut apps = Vec::new();
    for side in route::sides(machine) {
        super::go_on()?;
        match start(machine, &programs, &data, side) {
            Ok(app) => apps.push(app),
            Err(error) if matches!(side, Side::Gateway | Side::Loopback) => return Err(error),
            Err(error) => bench.leave_out(side, &error),
        }
    }
    let outside = apps.iter().find(|app| app.route.side == Side::Loopback);
    let outside = outside.context("no servers on the machine")?.route.base;
    let rounds = bench.options.app_rounds();
    // What hung is not tried again: each time takes as long as ten others.
    let mut hung = BTreeSet::new();
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        apps.rotate_left(1);
        for out in [false, true] {
            for (load, ..) in LOADS {
                for app in apps.iter().filter(|app| !out || route::has_way_out(app.route.side)) {
                    let base = if out { outside } else { app.route.base };
                    let (side, row) = (app.route.side, format!("{}.{load}", prefix(out)));
                    if hung.contains(&(side, row.clone())) {
                        continue;
                    }
                    let take = || sample(machine, &programs, &app.route, base, out, load, size);
                    let started = Instant::now();
                    bench.enter(&row, side, round, take)?;
                    if started.elapsed() > patience(size) {
                        hung.insert((side, row));
                    }
                }
            }
        }
        for app in apps.iter().filter(|app| app.route.side != Side::Loopback) {
            let take = || Ok(vec![("", pss_mb(&app.route.pids())?)]);
            bench.enter("apps.memory", app.route.side, round, take)?;
        }
    }
    Ok(())
}

fn start(machine: &Machine, programs: &Programs, data: &Data, side: Side) -> Result<App> {
    let route = Route::start(machine, side, 0)?;
    let servers = data.serve(machine, programs, route.netns()?.as_deref(), route.base)?;
    let app = App { _servers: servers, route };
    // pasta finds a new port only when it looks, once a second.
    let end = Instant::now() + PROCESS_TIMEOUT;
    for mode in [&["keep", "--flight", "1"], &["udp-query", "--flight", "1"]] {
        loop {
            let options = [&mode[1..], &["--ms", "50"]].concat();
            let report = client(machine, mode[0], app.route.base, &options);
            if report.is_ok_and(|report| report["failed"] == 0 && report["done"] != 0) {
                break;
            }
            // Some never answer datagrams: their rows say so.
            if mode[0] == "udp-query" && Instant::now() > end {
                machine.note(format!("{}: published datagrams are not answered", side.name()));
                break;
            }
            let words = app.route.last_words();
            ensure!(Instant::now() < end, "{}: its ports do not answer: {words}", side.name());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(app)
}

/// One run of one program.
fn sample(
    machine: &Machine,
    programs: &Programs,
    route: &Route,
    base: u16,
    out: bool,
    load: &str,
    size: Size,
) -> Result<Values> {
    let netns = route.netns()?.filter(|_| out);
    let address = if out { ADDRESS } else { "127.0.0.1" };
    let pids = route.pids();
    let (before, started) = (cpu_seconds(&pids)?, Instant::now());
    let (figures, lost) = match load {
        "udp" | "udpchurn" => {
            let ms = size.queries.to_string();
            let mut options = vec!["--flight", "64", "--ms", &ms, "--to", address];
            if load == "udpchurn" {
                options.extend(["--churn", "1"]);
            }
            if let Some(netns) = &netns {
                options.extend(["--netns", netns]);
            }
            let report = client(machine, "udp-query", base, &options)?;
            ensure!(number(&report, "done")? > 0.0, "no query was answered");
            let p99_ms = Some(number(&report, "p99_us")? / 1e3);
            let figures = Figures { rate: number(&report, "rate")?, mean_ms: None, p99_ms };
            (figures, Some(number(&report, "failed")?))
        }
        _ => {
            let command =
                |program: &str| servers::user(machine, programs, netns.as_deref(), program);
            (program(&command, base, address, load, size)?, None)
        }
    };
    let used = cpu_seconds(&pids)? - before;
    let bytes = LOADS.iter().find(|(name, ..)| *name == load).map_or(0.0, |(_, _, bytes)| *bytes);
    let seconds = started.elapsed().as_secs_f64();
    let shown = if bytes > 0.0 { figures.rate * bytes / 1e6 } else { figures.rate };
    let mut values: Values = vec![("", shown)];
    // Of the whole run, connecting included.
    values.extend(cost(&pids, used / seconds, used)?);
    values.extend(figures.mean_ms.map(|value| (".mean", value)));
    values.extend(figures.p99_ms.map(|value| (".p99", value)));
    values.extend(lost.map(|value| (".failed", value)));
    Ok(values)
}

fn program(
    command: &dyn Fn(&str) -> Result<Command>,
    base: u16,
    address: &str,
    load: &str,
    size: Size,
) -> Result<Figures> {
    let seconds = size.seconds.to_string();
    let wrk = |file: &str, connections: &str| {
        let mut wrk = command("wrk")?;
        wrk.args(["-t", "1", "-c", connections, "-d", &format!("{seconds}s"), "--latency"]);
        wrk.arg(format!("http://{address}:{}/{file}", base + NGINX));
        parse::wrk(&output(wrk, size)?)
    };
    let redis = |test: &str, pipeline: u32| {
        let mut redis = command("redis-benchmark")?;
        redis.args(["-h", address, "-p", &(base + REDIS).to_string(), "-c", "50", "--csv"]);
        redis.args(["-P", &pipeline.to_string(), "-n", &(size.requests * pipeline).to_string()]);
        redis.args(["-t", &test.to_lowercase()]);
        parse::redis(&output(redis, size)?, test)
    };
    match load {
        "pgbench" => {
            let mut pgbench = command("pgbench")?;
            pgbench.args(["-n", "-S", "-c", "8", "-j", "1", "-T", &seconds, "-h", address]);
            pgbench.args(["-p", &(base + POSTGRES).to_string(), "-U", ROLE, ROLE]);
            parse::pgbench(&output(pgbench, size)?)
        }
        "redis" => redis("SET", 1),
        "redis16" => redis("SET", 16),
        "redis16get" => redis("GET", 16),
        "nginx1k" => wrk("1k", "32"),
        "nginx100k" => wrk("100k", "32"),
        _ => wrk("10m", "8"),
    }
}

/// A program that takes longer hangs.
fn patience(size: Size) -> Duration {
    3 * PROCESS_TIMEOUT + Duration::from_secs(size.seconds.into())
}

/// What a program prints. Some ways let programs hang: then they are ended, and that is the result.
fn output(mut command: Command, size: Size) -> Result<String> {
    let patience = patience(size);
    let mut file = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
    let mut child = super::process::Killed(command.spawn().context("starting a client")?);
    let end = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        ensure!(Instant::now() < end, "hangs: no result within {patience:?}");
        super::go_on()?;
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    std::io::Seek::rewind(&mut file)?;
    file.read_to_string(&mut text)?;
    ensure!(status.success(), "{status}: {}", text.trim());
    Ok(text)
}
