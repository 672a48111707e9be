//! What comes and goes: published ports, clients that die in the middle of a transfer, containers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::docker::Docker;
use tests::{TestBox, wait};

use crate::record::{Failure, Journal, Label, Traffic};
use crate::world::Instance;

/// How often each of them happens.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(2);
const KILL_INTERVAL: Duration = Duration::from_secs(3);
const CONTAINER_INTERVAL: Duration = Duration::from_secs(8);

/// Ports that are published at a time, beginning [`ABOVE`] the instance's own.
const PORTS: u16 = 10;
const ABOVE: u16 = 100;

/// How long a port that was removed may accept connections on a machine that is too busy for the gateway process.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a server in a new container may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Repeats an operation until the end, and writes down how each went.
fn repeat(
    journal: &Journal,
    (instance, way, kind): (Label, &str, &str),
    (end, pause): (Instant, Duration),
    mut operation: impl FnMut() -> Result<()>,
) {
    while Instant::now() + pause < end {
        let (since, started) = (journal.now(), Instant::now());
        let result = operation();
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (at, way, kind) = (journal.now(), way.to_owned(), kind.to_owned());
        journal.with(|record| match result {
            Ok(()) => record.traffic.push(Traffic {
                since,
                at,
                instance,
                way,
                kind,
                done: 1,
                bytes: 0,
                repeated: 0,
                p50_us: took,
                p99_us: took,
                max_us: took,
            }),
            Err(error) => {
                let error = format!("{error:#}");
                let wrong = error.contains("wrong");
                record.failures.push(Failure { since, at, instance, way, kind, wrong, error });
            }
        });
        std::thread::sleep(pause);
    }
}

/// Publishes ports with one request each, uses one of them, removes them, and expects that nobody answers any more.
pub(crate) fn ports(instance: &Instance<'_>, journal: &Journal, end: Instant) {
    let label = (instance.kind.label, "API", "publish and remove");
    let first = instance.kind.port + ABOVE;
    let mut turn = 0;
    repeat(journal, label, (end, PUBLISH_INTERVAL), || {
        turn += 1;
        let (proto, host) = if turn % 2 == 0 { ("tcp4", "0.0.0.0") } else { ("tcp6", "[::]") };
        let specs: Vec<String> =
            (first..first + PORTS).map(|port| format!("{host}:{port}:80/{proto}")).collect();
        let printed = instance.ctl(&format!("add-ports {}", specs.join(" "))).ok()?;
        let ids: Vec<&str> = printed.split_whitespace().collect();
        ensure!(ids.len() == usize::from(PORTS), "wrong: add-ports printed {printed:?}");
        let port = first + turn % PORTS;
        let to =
            if turn % 2 == 0 { format!("10.77.0.1:{port}") } else { format!("[fd77::1]:{port}") };
        let used = instance.b.peer(&format!("exec fixture stream {to} echo 20000")).limit(60).ok();
        let removed = instance.ctl(&format!("remove-ports {}", ids.join(" "))).ok();
        let used = used?;
        removed?;
        ensure!(used.starts_with("20000 ok"), "wrong: {used}");
        // The request to remove a port waits for the gateway process, but not for longer than a second.
        wait::until("wrong: a removed port refuses connections", REMOVAL_TIMEOUT, || {
            let after = instance.b.peer(&format!("exec fixture probe 20 tcp/{to}")).ok()?;
            Ok(after.contains("ECONNREFUSED").then_some(()))
        })
    });
}

/// Has clients on both sides die in the middle of their transfers.
pub(crate) fn processes(instance: &Instance<'_>, journal: &Journal, end: Instant) {
    let label = (instance.kind.label, "both", "killed client");
    let port = instance.kind.port;
    let mut turn = 0;
    repeat(journal, label, (end, KILL_INTERVAL), || {
        turn += 1;
        let kind = ["sink", "source", "echo"][turn % 3];
        let life = turn % 7 + 1;
        let line = |to: &str| {
            format!("exec timeout -s KILL 0.{life} fixture stream {to} {kind} 4000000000")
        };
        let (outward, inward) = (line("10.77.0.2:80"), line(&format!("10.77.0.1:{port}")));
        for command in [instance.inside(&outward), instance.b.peer(&inward)] {
            let output = command.run()?;
            ensure!(output.code == 137, "{output}");
        }
        Ok(())
    });
}

/// Runs a container with a published port, fetches its page, removes it, and expects that nobody answers any more.
pub(crate) fn containers(b: &TestBox, d: &Docker<'_>, journal: &Journal, end: Instant) {
    let label = (Label::Docker, "containers", "run and remove");
    let mut turn = 0;
    repeat(journal, label, (end, CONTAINER_INTERVAL), || {
        turn += 1;
        let (name, port) = (format!("page{turn}"), 7100 + turn % 50);
        let get = format!("exec curl -gsS -m20 http://10.77.0.1:{port}/");
        let run = format!("run -d --name {name} -p {port}:80 bb httpd -f -p 80 -h /www");
        let ran = d.run(&run).map(drop);
        let page = ran.and_then(|()| {
            wait::until("the page of a container", START_TIMEOUT, || Ok(b.peer(&get).ok().ok()))
        });
        let removed = d.run(&format!("rm -f {name}"));
        let page = page?;
        ensure!(page == "hello-from-container\n", "wrong: {page:?}");
        removed?;
        let after = b.peer(&get).run()?;
        ensure!(after.code == 7, "wrong: the port of a removed container: {after}");
        Ok(())
    });
}

/// The way out of a container that lives for one page.
pub(crate) fn short_containers(d: &Docker<'_>, journal: &Journal, end: Instant) {
    let label = (Label::Docker, "containers", "one page");
    repeat(journal, label, (end, CONTAINER_INTERVAL), || {
        let options = tests::containers::FIXTURE;
        let page = d.output(&format!("{options} bb fixture get 10.77.0.2:7000"));
        let page = page.context("a page from the network")?;
        ensure!(page == "peer from 10.77.0.1\n", "wrong: {page:?}");
        Ok(())
    });
}
