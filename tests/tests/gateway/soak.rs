//! Everything at once for a while, with sudden deaths of clients; then nothing may be lost, leaked or miscounted.

use std::time::{Duration, Instant};

use tests::{As, Context as _, PATIENCE, Result, ensure, wait};

use crate::kit::{self, Net, number};

const SECONDS: u64 = 35;

/// What a `fixture soak` did, in the order in which it prints.
struct Done {
    tcp_out: u64,
    tcp_in: u64,
    connections: u64,
    udp_out: u64,
    udp_in: u64,
    flows: u64,
    queries: u64,
}

fn parse(out: &tests::Output) -> Result<Done> {
    ensure!(out.code == 0, "{out}");
    let words = out.stdout.split_whitespace().map(str::parse::<u64>);
    let numbers: Vec<u64> = words.collect::<Result<_, _>>()?;
    let [tcp_out, tcp_in, connections, udp_out, udp_in, flows, queries] = numbers[..] else {
        tests::bail!("{out}")
    };
    Ok(Done { tcp_out, tcp_in, connections, udp_out, udp_in, flows, queries })
}

#[test]
fn soak_no_byte_is_lost_and_nothing_leaks() -> Result<()> {
    let b = kit::boot()?;
    let servers = [
        kit::serve(&b, As::Peer, "streams [::]:80")?,
        kit::serve(&b, As::Peer, "udp-echo [::]:81")?,
    ];
    b.stop_name_server()?;
    let _names = kit::serve(&b, As::Peer, "names 10.77.0.2:53 soak")?;
    let net =
        Net::with(&b, &format!("{} -p 0.0.0.0:8080:80/tcp4 -p 0.0.0.0:8081:81/udp4", kit::FLAGS))?;
    let inner = [
        kit::ready(net.inside("exec fixture streams [::]:80"))?,
        kit::ready(net.inside("exec fixture udp-echo [::]:81"))?,
    ];
    // A short one first: what the process needs for good is there afterwards.
    net.inside("fixture soak 2 10.77.0.2:80 10.77.0.2:81 10.0.2.3:53").ok()?;
    let gateway = net.gateway()?;
    wait::until_true("the first is over", PATIENCE, || {
        let stats = net.stats()?;
        let inward = number(&stats["ports"][0], &["active"]);
        Ok(number(&stats, &["tcp", "active"]) + inward == 0)
    })?;
    let (before, files, memory) = (net.stats()?, gateway.descriptors()?, gateway.memory()?);

    let load = [
        net.inside(&format!("fixture soak {SECONDS} 10.77.0.2:80 10.77.0.2:81 10.0.2.3:53")),
        net.inside(&format!("fixture soak {SECONDS} '[fd77::2]:80' '[fd77::2]:81' '[fd00::3]:53'")),
        b.peer(&format!("fixture soak {SECONDS} 10.77.0.1:8080 10.77.0.1:8081 -")),
    ];
    let (outputs, killed) = std::thread::scope(|scope| {
        let load = scope.spawn(|| kit::together(load));
        // Meanwhile others die in the middle of their transfers.
        let end = Instant::now() + Duration::from_secs(SECONDS);
        let mut killed = 0;
        while Instant::now() < end && !load.is_finished() {
            let line = "exec timeout -s KILL 0.$((RANDOM % 7 + 2)) fixture";
            let kind = ["sink", "source", "echo"][killed % 3];
            let script = format!("bash -c '{line} stream 10.77.0.2:80 {kind} 4000000000'");
            net.inside(&script).run()?;
            let script = format!("bash -c '{line} stream 10.77.0.1:8080 {kind} 4000000000'");
            b.peer(&script).run()?;
            killed += 1;
        }
        let outputs = load.join().map_err(|_| tests::Error::msg("a thread panicked"))??;
        tests::Result::<_>::Ok((outputs, killed))
    })?;
    ensure!(killed > 3, "only {killed} were killed");
    for server in servers.iter().chain(&inner) {
        let wrong = server.printed()?;
        ensure!(!wrong.contains("sink: "), "wrong bytes arrived: {wrong}");
    }
    let done = [parse(&outputs[0])?, parse(&outputs[1])?, parse(&outputs[2])?];

    wait::until_true("all connections are closed", PATIENCE, || {
        let stats = net.stats()?;
        let inward = number(&stats["ports"][0], &["active"]);
        Ok(number(&stats, &["tcp", "active"]) + inward == 0)
    })?;
    let after = net.stats()?;
    let more = |path: &[&str]| number(&after, path) - number(&before, path);
    let sum = |of: fn(&Done) -> u64| of(&done[0]) + of(&done[1]);
    // The killed ones come on top.
    for (what, counted, known) in [
        ("TCP out", more(&["tcp", "bytesOut"]), sum(|d| d.tcp_out)),
        ("TCP in", more(&["tcp", "bytesIn"]), sum(|d| d.tcp_in)),
        ("connections", more(&["tcp", "opened"]), sum(|d| d.connections)),
        ("UDP out", more(&["udp", "bytesOut"]), sum(|d| d.udp_out)),
        ("UDP in", more(&["udp", "bytesIn"]), sum(|d| d.udp_in)),
    ] {
        ensure!(counted >= known && known > 0, "{what}: {counted} counted, {known} known");
    }
    for (port, counters) in
        [(0, [done[2].tcp_out, done[2].tcp_in]), (1, [done[2].udp_out, done[2].udp_in])]
    {
        let port = &after["ports"][port];
        ensure!(number(port, &["bytesIn"]) >= counters[0], "{port}");
        ensure!(number(port, &["bytesOut"]) >= counters[1], "{port}");
    }
    assert_eq!(number(&after["ports"][0], &["active"]), 0, "{after}");
    let flows = more(&["udp", "opened"]);
    // A port of ours may be used twice.
    ensure!(flows > sum(|d| d.flows) / 2 && flows <= sum(|d| d.flows), "{flows} flows");
    let queries = more(&["events", "dnsQueries"]);
    ensure!(queries > sum(|d| d.queries) / 2, "{queries} queries");
    ensure!(after["restarts"] == 0 && net.gateway()?.0.pid == gateway.0.pid, "it died");

    // What is open now are flows that were answered a moment ago, and sockets kept ready for the next burst, of which half
    // are given back every few seconds.
    let most = files + 100 + 2 * number(&after, &["udp", "active"]);
    let back = wait::until_true("descriptors are given back", PATIENCE, || {
        Ok(gateway.descriptors()? <= most)
    });
    let kinds = format!(
        "for d in /proc/{}/fd/*; do readlink $d; done | sed 's/[0-9].*//' | sort | uniq -c",
        gateway.0.pid
    );
    back.with_context(|| format!("{files} before, {most} at most: {:?}", b.root(&kinds).ok()))?;
    let grown = gateway.memory()?.saturating_sub(memory);
    ensure!(grown < 24 << 10, "{memory} KiB before, {grown} more now");
    println!(
        "{} connections, {} + {} bytes, {} flows, {killed} killed, {grown} KiB more",
        sum(|d| d.connections),
        sum(|d| d.tcp_out),
        sum(|d| d.tcp_in),
        sum(|d| d.flows)
    );
    drop(inner);
    wait::until_true("clients of the server that ended are told", PATIENCE, || {
        Ok(number(&net.stats()?["ports"][0], &["active"]) == 0)
    })?;
    net.stop()
}
