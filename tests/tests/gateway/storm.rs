//! A hostile container sends packets that are almost right, among them connections that go on in every wrong way
//! (`fixture storm`). The gateway process lives, takes no more than a bounded amount of memory and descriptors, and
//! lets nothing reach the host's loopback. Afterwards, ordinary connections work.
//!
//! `cargo xtask fuzz --only gateway` runs the same for longer, by [`SECONDS`], and with another seed, by [`SEED`].

use std::time::{Duration, Instant};

use tests::{As, Context as _, PATIENCE, Result, TestBox, ensure, wait};

use crate::kit::{self, Net, number};

/// Variables: how long the storm is, in seconds, and what decides its packets.
const SECONDS: &str = "STORM_SECONDS";
const SEED: &str = "STORM_SEED";
/// Of a run with the other tests.
const DEFAULT_SECONDS: u64 = 8;
const DEFAULT_SEED: u64 = 1;

/// What the storm may make the gateway process keep, in KiB and in descriptors: its senders have a few dozen ports, and
/// its receivers a few dozen addresses.
const MAX_MEMORY: u64 = 16 << 10;
const MAX_DESCRIPTORS: u64 = 8000;
const LOOKS_EVERY: Duration = Duration::from_millis(500);

fn variable(name: &str, default: u64) -> Result<u64> {
    let Ok(value) = std::env::var(name) else { return Ok(default) };
    value.parse::<u64>().with_context(|| format!("{name}={value} is no number"))
}

/// Packets that arrived at addresses of the host's loopback, by rules of the host.
fn on_loopback(b: &TestBox) -> Result<u64> {
    let text = b.root("nft list table inet storm").ok()?;
    let counts = text.split("packets ").skip(1).map(|rest| {
        let count = rest.split(' ').next().unwrap_or_default();
        count.parse::<u64>().with_context(|| text.clone())
    });
    counts.sum()
}

fn count_on_loopback(b: &TestBox) -> Result<()> {
    b.root(
        "nft -f - <<'END'
         table inet storm {
             chain input {
                 type filter hook input priority 0;
                 ip daddr 127.0.0.0/8 counter
                 ip6 daddr { ::1, ::ffff:127.0.0.0/104 } counter
             }
         }
END",
    )
    .ok()
    .map(drop)
}

/// What an ordinary program does, of both families.
fn all_works(net: &Net<'_>) -> Result<()> {
    let text = net.inside("fixture probe 60 tcp/10.77.0.2:7000 tcp/[fd77::2]:7000").ok()?;
    ensure!(text.matches(" connected ").count() == 2, "{text}");
    for to in ["10.77.0.2:80", "[fd77::2]:80"] {
        let text = net.inside(&format!("fixture stream '{to}' echo 4000000")).ok()?;
        ensure!(text.contains("4000000 ok"), "{to}: {text}");
    }
    for to in ["10.77.0.2:85", "[fd77::2]:85"] {
        let text = net.inside(&format!("fixture udp-ask '{to}' hello")).ok()?;
        ensure!(text.ends_with(" hello\n"), "{to}: {text}");
    }
    for server in ["10.0.2.3", "fd00::3"] {
        let text = net.inside(&format!("dig +short +tries=6 +time=3 foo.test @{server}")).ok()?;
        ensure!(text == "10.9.8.7\n", "{server}: {text}");
    }
    net.inside("ping -c 2 -i 0.2 -W 30 10.77.0.2 && ping -c 2 -i 0.2 -W 30 fd77::2").ok()?;
    net.inside("ping -c 1 -W 30 -s 4000 10.77.0.2").ok().map(drop)
}

#[test]
fn storm_of_malformed_packets_and_broken_connections_harms_nothing() -> Result<()> {
    let _flooding = kit::flooding();
    let (seconds, seed) = (variable(SECONDS, DEFAULT_SECONDS)?, variable(SEED, DEFAULT_SEED)?);
    println!("{SEED}={seed} {SECONDS}={seconds}");
    let b = kit::boot()?;
    let _servers = [
        kit::serve(&b, As::Peer, "streams [::]:80")?,
        kit::serve(&b, As::Peer, "udp-echo [::]:85")?,
        kit::serve(&b, As::Peer, "echo-many [::]:90")?,
    ];
    let own = kit::serve(&b, As::User, "echo-many [::]:7005")?;
    let listener = kit::serve(&b, As::User, "streams [::]:7002")?;
    let log = kit::serve(&b, As::User, "udp-log [::]:7003")?;
    let net = Net::start(&b)?;
    all_works(&net).context("before")?;
    let gateway = net.gateway()?;
    let (files, memory) = (gateway.descriptors()?, gateway.memory()?);
    count_on_loopback(&b)?;

    let command = format!("exec fixture storm tap0 {seed} {seconds}");
    let mut storm = net.inside(&command).spawn()?;
    let end = Instant::now() + Duration::from_secs(seconds) + PATIENCE;
    let (mut most_memory, mut most_files) = (memory, files);
    while storm.alive()? {
        ensure!(Instant::now() < end, "the storm does not end");
        let now = net.gateway()?;
        ensure!(now.0.pid == gateway.0.pid, "the gateway process died: {}", net.kit.printed()?);
        most_memory = most_memory.max(now.memory()?);
        most_files = most_files.max(now.descriptors()?);
        std::thread::sleep(LOOKS_EVERY);
    }
    let out = storm.wait(PATIENCE)?;
    let stats = net.stats()?;
    println!(
        "{}; {memory} to {most_memory} KiB, {files} to {most_files} descriptors\n{}",
        out.stdout.trim(),
        stats["events"]
    );
    ensure!(out.code == 0, "{out}");
    ensure!(most_memory <= memory + MAX_MEMORY, "{memory} KiB before, then {most_memory}");
    ensure!(most_files <= files + MAX_DESCRIPTORS, "{files} descriptors before, then {most_files}");

    // A storm that the kernel kept from the gateway process would show nothing.
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    let ["sent", sent, "refused", refused, "connected", connected] = words[..] else {
        tests::bail!("{out}")
    };
    let [sent, refused, connected] = [sent.parse()?, refused.parse()?, connected.parse::<u64>()?];
    ensure!(refused < sent / 4 && connected >= 10, "{out}");
    for (what, path) in [
        ("connections", &["tcp", "opened"][..]),
        ("flows", &["udp", "opened"]),
        ("denied packets", &["events", "denied"]),
        ("dropped packets", &["events", "dropped"]),
        ("queries", &["events", "dnsQueries"]),
        ("pings", &["events", "echoRequests"]),
    ] {
        ensure!(number(&stats, path) >= 10, "too few {what}: {stats}");
    }

    let arrived = on_loopback(&b)?;
    ensure!(arrived == 0, "{arrived} packets reached the host's loopback");
    all_works(&net).context("afterwards")?;
    ensure!(net.gateway()?.0.pid == gateway.0.pid && net.stats()?["restarts"] == 0, "it died");
    let printed = net.kit.printed()?;
    ensure!(!printed.contains("panicked"), "{printed}");
    // What is asked of the host itself is counted and logged.
    b.user("fixture probe 0.1 tcp/127.0.0.1:7002 udp/127.0.0.1:7003").ok()?;
    wait::until_true("the log works", PATIENCE, || Ok(log.printed()?.lines().count() > 1))?;
    ensure!(on_loopback(&b)? > 0, "the rules count nothing");
    let logged = log.printed()?;
    ensure!(logged.lines().count() == 2, "datagrams reached the host's loopback: {logged}");
    drop((own, listener, log));
    net.stop()
}
