//! Clients that ask all the time: `fixture traffic` in every namespace, and what they printed.

use ::tests::containers::FIXTURE;
use ::tests::{Cmd, PATIENCE, Running, TestBox};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::record::{Failure, Journal, Label, Traffic};
use crate::world::{CONTAINER_PORT, Instance, Kind};

/// A client that runs until the end of the soak.
#[derive(Debug)]
pub(crate) struct Client<'b> {
    instance: Label,
    way: &'static str,
    running: Running<'b>,
}

/// Starts the clients of an instance without Docker: both directions, both versions of IP.
pub(crate) fn of_instance<'b>(instance: &Instance<'b>, seconds: f64) -> Result<Vec<Client<'b>>> {
    let Kind { label, port, hides_datagrams, .. } = instance.kind;
    let udp = port + 1;
    let hidden = |address: &str| match hides_datagrams {
        true => format!("udp-from={address}"),
        false => String::new(),
    };
    // slirp4netns forwards no echo requests of IPv6, and asks name servers over the version of IP that it was asked over.
    let only_gateway = match label {
        Label::Gateway => "ping=fd77::2 dns=[fd00::3]:53",
        _ => "",
    };
    let out = |targets: &str| instance.inside(&line(targets, seconds));
    let into = |targets: &str| instance.b.peer(&line(targets, seconds));
    let all = [
        (
            "out, IPv4",
            out("tcp=10.77.0.2:80 udp=10.77.0.2:81 ping=10.77.0.2 dns=10.0.2.3:53 from=10.77.0.1"),
        ),
        (
            "out, IPv6",
            out(&format!("tcp=[fd77::2]:80 udp=[fd77::2]:81 {only_gateway} from=fd77::1")),
        ),
        (
            "in, IPv4",
            into(&format!(
                "tcp=10.77.0.1:{port} udp=10.77.0.1:{udp} from=10.77.0.2 {}",
                hidden("127.0.0.1")
            )),
        ),
        (
            "in, IPv6",
            into(&format!(
                "tcp=[fd77::1]:{port} udp=[fd77::1]:{udp} from=fd77::2 {}",
                hidden("::1")
            )),
        ),
    ];
    all.into_iter().map(|(way, command)| start(label, way, command)).collect()
}

/// Starts those of the daemon: to the servers in a container, and from a container.
pub(crate) fn of_docker(b: &TestBox, seconds: f64) -> Result<Vec<Client<'_>>> {
    let udp = CONTAINER_PORT + 1;
    let to = format!("tcp=10.77.0.1:{CONTAINER_PORT} udp=10.77.0.1:{udp} from=10.77.0.2");
    let from = "tcp=10.77.0.2:80 udp=10.77.0.2:81 ping=10.77.0.2 dns=10.0.2.3:53 from=10.77.0.1";
    let container = format!("docker run --rm --name client {FIXTURE} bb {}", words(from, seconds));
    Ok(vec![
        start(Label::Docker, "to a container, IPv4", b.peer(&line(&to, seconds)))?,
        start(Label::Docker, "from a container, IPv4", b.user(&format!("exec {container}")))?,
    ])
}

fn words(targets: &str, seconds: f64) -> String {
    format!("fixture traffic seconds={seconds} {targets}")
}

fn line(targets: &str, seconds: f64) -> String {
    format!("exec {}", words(targets, seconds))
}

fn start<'b>(instance: Label, way: &'static str, command: Cmd<'b>) -> Result<Client<'b>> {
    Ok(Client { instance, way, running: ::tests::kit::ready(command)? })
}

impl Client<'_> {
    /// Waits for its end and writes down what it printed.
    pub(crate) fn finish(self, journal: &Journal) -> Result<()> {
        let Self { instance, way, running } = self;
        let output = running.wait(PATIENCE)?;
        ensure!(output.code == 0, "traffic of {instance}, {way}: {output}");
        let (traffic, failures) = parse(&output.stdout, instance, way, journal.start)
            .with_context(|| format!("traffic of {instance}, {way}"))?;
        journal.with(|record| {
            record.traffic.extend(traffic);
            record.failures.extend(failures);
        });
        Ok(())
    }
}

fn parse(
    text: &str,
    instance: Label,
    way: &str,
    start: u64,
) -> Result<(Vec<Traffic>, Vec<Failure>)> {
    let (mut traffic, mut failures) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let number = |key: &str| value[key].as_u64().with_context(|| format!("no {key}: {line}"));
        let text = |key: &str| {
            let text = value[key].as_str().with_context(|| format!("no {key}: {line}"));
            text.map(str::to_owned)
        };
        let since = number("since")?.saturating_sub(start);
        let (at, kind, way) = (number("at")?.saturating_sub(start), text("kind")?, way.to_owned());
        if value["error"].is_string() {
            let (wrong, error) = (value["wrong"] == true, text("error")?);
            failures.push(Failure { since, at, instance, way, kind, wrong, error });
        } else {
            traffic.push(Traffic {
                since,
                at,
                instance,
                way,
                kind,
                done: number("done")?,
                bytes: number("bytes")?,
                repeated: number("repeated")?,
                p50_us: number("p50_us")?,
                p99_us: number("p99_us")?,
                max_us: number("max_us")?,
            });
        }
    }
    Ok((traffic, failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_failures_are_read() {
        let text = concat!(
            "ready\n",
            r#"{"since":1200,"at":1500,"kind":"udp","done":3,"bytes":10,"repeated":1,"p50_us":5,"p99_us":9,"max_us":9}"#,
            "\n",
            r#"{"at":1700,"since":1600,"kind":"dns second","wrong":true,"error":"wrong: x"}"#,
            "\n"
        );
        let (traffic, failures) = parse(text, Label::Docker, "out", 1000).unwrap();
        assert_eq!((traffic.len(), traffic[0].at, traffic[0].done), (1, 500, 3));
        assert_eq!((failures.len(), failures[0].since, failures[0].at), (1, 600, 700));
        assert!(failures[0].wrong);
        assert!(parse("{\"at\":1}", Label::Docker, "out", 0).is_err());
    }
}
