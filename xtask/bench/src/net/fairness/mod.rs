//! What a container that floods costs another one, whose connections go elsewhere.
//!
//! Each sample has a gateway of its own, since a flood leaves things behind, and two containers behind it. One opens a
//! connection after the other: alone; while the other container floods but the flood leaves the namespace by a device that
//! discards it, instead of the gateway's; and while the flood reaches the gateway, by default at a rate that fills its
//! tables. What is compared is how long its connections take in these three parts of the same sample. The second part shows
//! what the flood costs in the kernel and in processor time, with any gateway.
//!
//! The flood goes to addresses from which nothing comes back: the uplink leads to a neighbour that takes everything and
//! answers nothing. The machine's name server is one of them, so queries to the gateway's name server stay unanswered.

mod report;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub(crate) use report::report;

use super::way::{self, Way};
use super::{Machine, Place, client, container};
use crate::api::Api;
use crate::instance::namespace;
use crate::options::Options;
use crate::process::Process;
use crate::rounds::{Bench, Values, number};
use crate::script;
use crate::sheet::Side;

/// In the order of the columns.
const SIDES: [Side; 2] = [Side::Gateway, Side::GatewayBefore];

/// Kinds of floods, as the load generator calls them.
const FLOODS: [&str; 4] = ["syn", "udp", "ping", "dns"];

/// The first of the addresses that do not answer, and their network, which is one for benchmarks (RFC 2544).
const SILENT: &str = "198.18.0.1";
const SILENT_NETWORK: &str = "198.18.0.0/15";
/// The gateway's name server.
const NAME_SERVER: &str = "10.0.2.3";

/// How long connections are made in each part of a sample, in milliseconds.
const PART_MS: u32 = 1000;

/// In the target namespace: routes `$1` to a veth whose peer discards every frame, because the destination MAC address is not
/// its own; and back to the gateway. Deleting the device also removes its masquerade entries from the connection tracking.
const DIVERT: &str = "
ip link add sink type veth peer name discard
ip address add 203.0.113.1/24 dev sink
ip link set sink up
ip link set discard up
ip neighbour replace 203.0.113.2 lladdr 02:00:00:00:00:fd dev sink nud permanent
ip route add $1 via 203.0.113.2
";
const RETURN: &str = "ip link delete sink";

/// On the machine; `$1` is a file that names its name server. Nobody has the neighbour's address.
const SILENCE: &str = "
ip neighbour replace 192.0.2.254 lladdr 02:00:00:00:00:fe dev uplink nud permanent
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
mount --bind $1 /etc/resolv.conf
";

const SOUND: &str = "
umount /etc/resolv.conf
ip neighbour delete 192.0.2.254 dev uplink
";

/// The name of a row.
fn row(flood: &str) -> String {
    format!("fairness.{flood}")
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let file = bench.machine.path("resolv.conf");
    std::fs::write(&file, format!("nameserver {SILENT}\n"))?;
    script::run(None, SILENCE, &[file.display().to_string()])?;
    let outcome = rounds(bench);
    script::run(None, SOUND, &[])?;
    outcome
}

fn rounds(bench: &mut Bench<'_>) -> Result<()> {
    let (machine, options) = (bench.machine, bench.options);
    let mut sides = SIDES.to_vec();
    sides.retain(|side| *side == Side::Gateway || machine.before.is_some());
    let rounds = options.fairness_rounds();
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        sides.rotate_left(1);
        for flood in FLOODS {
            for side in &sides {
                bench
                    .enter(&row(flood), *side, round, || sample(machine, options, *side, flood))?;
            }
        }
    }
    Ok(())
}

/// What is left of reports of the load generator: how long connections took, and how many failed.
fn values(report: &Value, ends: [&'static str; 4]) -> Result<Values> {
    let names = ["rate", "p50_us", "p99_us", "failed"];
    ends.into_iter().zip(names).map(|(end, name)| Ok((end, number(report, name)?))).collect()
}

/// How many packets of a flood the gateway has counted so far. Connections count while they are half-open and when they fail,
/// and ignored packets count as evicted. A packet that began something and was evicted later counts twice, so this only shows
/// that the flood arrives.
fn counted(stats: &Value, flood: &str) -> Result<f64> {
    let evicted = || number(&stats["events"], "evicted");
    match flood {
        "syn" => {
            let pending = number(&stats["events"], "dialing")?;
            Ok(number(&stats["tcp"], "failed")? + pending + evicted()?)
        }
        "udp" => Ok(number(&stats["udp"], "opened")? + evicted()?),
        "ping" => number(&stats["events"], "echoRequests"),
        _ => number(&stats["events"], "dnsQueries"),
    }
}

fn sample(machine: &Machine, options: &Options, side: Side, flood: &str) -> Result<Values> {
    let way = Way::start(machine, side)?;
    let outer = way.netns(Place::Namespace)?.context("no namespace")?;
    let container = container::make_another(&outer)?;
    let other = namespace(&container)?;
    let ms = options.sample_ms(PART_MS);
    let rate = options.flood_rate();
    // Half of what is sent: otherwise the sample shows nothing.
    let flooded = loadgen::FLOOD_WARM_UP + Duration::from_millis(ms.into());
    let fewest = f64::from(rate) * flooded.as_secs_f64() / 2.0;
    let (ms, rate) = (ms.to_string(), rate.to_string());
    let quiet = || {
        let report =
            client(machine, &way, Place::Container, "close", &["--flight", "1", "--ms", &ms])?;
        ensure!(number(&report, "done")? > 0.0, "no connection was made in time");
        Ok::<_, anyhow::Error>(report)
    };
    let (to, network) =
        if flood == "dns" { (NAME_SERVER, NAME_SERVER) } else { (SILENT, SILENT_NETWORK) };
    let beside = || {
        let mut command = Command::new(&machine.loadgen);
        command.args(["flood", "--kind", flood, "--rate", &rate, "--to", to, "--netns", &other]);
        let mut flood = Process::start(&mut command)?;
        flood.line().context("starting the flood")?;
        let report = quiet()?;
        flood.end()?;
        Ok::<_, anyhow::Error>(report)
    };
    let alone = quiet()?;
    script::run(Some(&outer), DIVERT, &[network.to_owned()])?;
    let discarded = beside()?;
    script::run(Some(&outer), RETURN, &[])?;
    let counted = || counted(&Api::connect(&way::api(machine, side))?.stats()?, flood);
    let before = counted()?;
    let during = beside()?;
    let reached = counted()? - before;
    ensure!(reached > fewest, "only {reached} packets of the flood have reached the gateway");
    let mut all = values(&alone, [".alone", ".alone.p50", ".alone.p99", ".alone.failed"])?;
    let ends = [".discarded", ".discarded.p50", ".discarded.p99", ".discarded.failed"];
    all.extend(values(&discarded, ends)?);
    all.extend(values(&during, [".flood", ".flood.p50", ".flood.p99", ".flood.failed"])?);
    Ok(all)
}
