//! What comes and goes: published ports, clients that die in the middle of a transfer, containers.

use std::fmt;
use std::time::{Duration, Instant};

use ::tests::docker::Docker;
use ::tests::{Output, PATIENCE, TestBox, wait};
use anyhow::{Context as _, Error, Result, ensure};
use serde_json::Value;

use crate::record::{Failure, Journal, Label, Traffic};
use crate::world::Instance;

/// How often each of them happens.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(2);
const KILL_INTERVAL: Duration = Duration::from_secs(3);
const CONTAINER_INTERVAL: Duration = Duration::from_secs(8);

/// Ports that are published at a time, beginning [`ABOVE`] the instance's own.
const PORTS: u16 = 10;
const ABOVE: u16 = 100;

/// How the part of an error begins that is the log of dockerd ([`Docker::run`]).
const DAEMONS_LOG: &str = "daemon's log:";

/// There was an answer, which was not the right one. Everything else that fails may be due to a death.
#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrong: {}", self.0)
    }
}

impl std::error::Error for Wrong {}

/// The chain of an error on one line, without the log of the daemon, which is kept anyway.
fn reason(error: &Error) -> String {
    let links = error.chain().map(ToString::to_string);
    let links: Vec<String> = links.filter(|link| !link.starts_with(DAEMONS_LOG)).collect();
    links.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}

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
                let wrong = error.chain().any(|link| link.is::<Wrong>());
                let error = reason(&error);
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
        remove_left(instance, first)?;
        let (proto, host) = if turn % 2 == 0 { ("tcp4", "0.0.0.0") } else { ("tcp6", "[::]") };
        let specs: Vec<String> =
            (first..first + PORTS).map(|port| format!("{host}:{port}:80/{proto}")).collect();
        let printed = instance.ctl(&format!("add-ports {}", specs.join(" "))).ok()?;
        let ids: Vec<&str> = printed.split_whitespace().collect();
        ensure!(ids.len() == usize::from(PORTS), Wrong(format!("add-ports printed {printed:?}")));
        let port = first + turn % PORTS;
        let to =
            if turn % 2 == 0 { format!("10.77.0.1:{port}") } else { format!("[fd77::1]:{port}") };
        let used = instance.b.peer(&format!("exec fixture stream {to} echo 20000")).run();
        let removed = instance.ctl(&format!("remove-ports {}", ids.join(" "))).ok();
        let used = used?;
        removed?;
        not_wrong(&used)?;
        let used = used.ok()?;
        ensure!(used.starts_with("20000 ok"), Wrong(used));
        refuses(instance.b, &to)
    });
}

/// Removes what an earlier turn left published: adding and removing end at the first port that fails.
fn remove_left(instance: &Instance<'_>, first: u16) -> Result<()> {
    let printed = instance.ctl("list-ports --json").ok()?;
    let mut ids = Vec::new();
    for line in printed.lines() {
        let port: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let number = port["spec"]["parentPort"].as_u64().with_context(|| line.to_owned())?;
        if (u64::from(first)..u64::from(first + PORTS)).contains(&number) {
            ids.push(port["id"].to_string());
        }
    }
    if !ids.is_empty() {
        instance.ctl(&format!("remove-ports {}", ids.join(" "))).ok()?;
    }
    Ok(())
}

/// Fails if a client of the fixture program ended because of a wrong answer (its `Wrong`).
fn not_wrong(output: &Output) -> Result<()> {
    ensure!(!output.stderr.contains("Error: Wrong("), Wrong(output.to_string()));
    Ok(())
}

/// Waits until a port that was removed refuses connections, seen from the other machine. The request to remove it waits
/// for the gateway process, but not for longer than a second, and a busy machine may not run that for a while.
fn refuses(b: &TestBox, to: &str) -> Result<()> {
    let mut last = String::new();
    let refused = wait::until_true("a removed port refuses connections", PATIENCE, || {
        last = b.peer(&format!("exec fixture probe 60 tcp/{to}")).ok()?;
        Ok(last.contains("ECONNREFUSED"))
    });
    if refused.is_err() && last.contains(" connected ") {
        return Err(Wrong(format!("a removed port still answers: {last}")).into());
    }
    refused
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
            not_wrong(&output)?;
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
        let get = format!("exec curl -gsS -m60 http://10.77.0.1:{port}/");
        let run = format!("run -d --name {name} -p {port}:80 bb httpd -f -p 80 -h /www");
        let ran = d.run(&run).map(drop);
        let page = ran.and_then(|()| {
            wait::until("the page of a container", PATIENCE, || Ok(b.peer(&get).ok().ok()))
        });
        let removed = d.run(&format!("rm -f {name}"));
        let page = page?;
        ensure!(page == "hello-from-container\n", Wrong(format!("{page:?}")));
        removed?;
        refuses(b, &format!("10.77.0.1:{port}"))
    });
}

/// The way out of a container that lives for one page.
pub(crate) fn short_containers(d: &Docker<'_>, journal: &Journal, end: Instant) {
    let label = (Label::Docker, "containers", "one page");
    repeat(journal, label, (end, CONTAINER_INTERVAL), || {
        let options = ::tests::containers::FIXTURE;
        let page =
            d.output(&format!("{options} bb /usr/bin/curl -gsS -m60 http://10.77.0.2:7000/"));
        let page = page.context("a page from the network")?;
        ensure!(page == "peer from 10.77.0.1\n", Wrong(format!("{page:?}")));
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_is_known_by_its_type_and_the_daemons_log_is_left_out() {
        let wrong = Error::new(Wrong("x".to_owned())).context("a page");
        assert!(wrong.chain().any(|link| link.is::<Wrong>()));
        assert_eq!(reason(&wrong), "a page: wrong: x");
        let log = Error::msg("docker run: exit status 1\n--- stderr\nno room")
            .context("daemon's log:\nwrong");
        assert_eq!(reason(&log), "docker run: exit status 1 --- stderr no room");
        assert!(!log.chain().any(|link| link.is::<Wrong>()));
    }
}
