//! What an egress policy costs, and what it costs to find out which container traffic belongs to.
//!
//! Up to four gateways, each with a container behind it whose load leaves through it: one without a policy, two with the 100
//! rules of [`rules`], of which the second has to find the sender of everything, and that of an earlier build if there is
//! one. Those with a policy run as a user of their own, and so does the earlier build, because the bytes of a connection go
//! through pipes, which a user has only so many of.
//!
//! The load is what a policy could slow down: each new connection and each flow of datagrams is judged. Requests over
//! kept connections and bytes are not, and show whether anything else has become slower.

mod report;

use anyhow::{Result, ensure};

pub(crate) use report::report;
#[cfg(test)]
pub(crate) use report::titles;

use super::way::Way;
use super::{Machine, Place, bytes, requests, rules};
use crate::machine::ADDRESS;
use crate::options::Options;
use crate::rounds::{Bench, Values};
use crate::script;
use crate::sheet::Side;

/// In the order of the columns.
const COLUMNS: [Side; 4] =
    [Side::Gateway, Side::GatewayRules, Side::GatewaySenders, Side::GatewayBefore];

/// The ends of the rows' names. Flows come last, because they stay for a while.
const ROWS: [&str; 4] = ["conn16", "keep32", "out1", "flow16"];

/// The name of a row.
fn row(end: &str) -> String {
    format!("policy.{end}")
}

/// On the machine: the ports of outbound sockets. Four gateways with as many flows as they can have need more than the
/// 28,232 that Linux has by default, and with few left each socket takes long to find one. Servers are at lower ports.
const PORTS: &str = "echo '21000 65535' >/proc/sys/net/ipv4/ip_local_port_range";

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    script::run(None, PORTS, &[])?;
    let (machine, options) = (bench.machine, bench.options);
    let mut ways = Vec::new();
    for side in COLUMNS {
        if side == Side::GatewayBefore && machine.before.is_none() {
            continue;
        }
        crate::go_on()?;
        match start(machine, side) {
            Ok(way) => ways.push(way),
            Err(error) if side == Side::Gateway => return Err(error),
            Err(error) => bench.leave_out(side, &error),
        }
    }
    let rounds = options.policy_rounds();
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        ways.rotate_left(1);
        for end in ROWS {
            for way in &ways {
                bench.enter(&row(end), way.side, round, || sample(machine, options, way, end))?;
            }
        }
    }
    Ok(())
}

/// Starts a side. The one without a policy has to be the first: its server answers a client that the policy of another
/// one should have denied.
fn start(machine: &Machine, side: Side) -> Result<Way> {
    let way = Way::start(machine, side)?;
    if let Side::GatewayRules | Side::GatewaySenders = side {
        let netns = way.netns(Place::Container)?.unwrap_or_default();
        let port = rules::denied_port();
        let options = ["--flight", "1", "--ms", "20", "--to", ADDRESS, "--netns", &netns];
        // A client that is denied at once ends with an error.
        let report = crate::instance::client(machine, "keep", port - loadgen::KEEP, &options);
        ensure!(
            !report.is_ok_and(|report| report["done"] != 0),
            "{}: {ADDRESS}:{port} answers, which its policy denies",
            side.name()
        );
    }
    Ok(way)
}

fn sample(machine: &Machine, options: &Options, way: &Way, end: &str) -> Result<Values> {
    let (name, place) = (row(end), Place::Container);
    let ms = |full| options.sample_ms(full).to_string();
    let answers =
        |mode: &str, options: &[&str]| requests::answers(machine, way, place, &name, mode, options);
    match end {
        "conn16" => answers("close", &["--flight", "16", "--ms", &ms(1000)]),
        "keep32" => answers("keep", &["--flight", "32", "--ms", &ms(600)]),
        "flow16" => answers("udp-query", &["--flight", "16", "--churn", "1", "--ms", &ms(600)]),
        _ => {
            let options = ["--direction", "up", "--streams", "1", "--ms", &ms(700)];
            bytes::bulk(machine, way, place, &name, &options)
        }
    }
}
