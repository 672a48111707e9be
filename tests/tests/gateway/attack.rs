//! A hostile program inside: others go on, and what it takes has a bound.

use budget::{Budget, DataPath};
use tests::{As, PATIENCE, Result, Running, TestBox, ensure, wait};

use crate::kit::{self, Net, number};

/// What somebody else sees meanwhile: connections, names and datagrams. A flood fills queues, so a packet may be lost and
/// repeated.
fn others_go_on(net: &Net<'_>, what: &str) -> Result<()> {
    for round in 0..4 {
        let text = net.inside("fixture probe 30 tcp/10.77.0.2:7000 tcp/[fd77::2]:7000").ok()?;
        ensure!(text.matches(" connected ").count() == 2, "{what}, {round}: {text}");
        let out = net.inside("dig +short +tries=6 +time=3 foo.test").run()?;
        ensure!(out.stdout.contains("10.9.8.7\n"), "{what}, {round}: {out}");
        wait::until_true(&format!("{what}, {round}: an answer"), PATIENCE, || {
            Ok(net.inside("fixture udp-ask 10.77.0.2:85 hello").run()?.stdout.ends_with(" hello\n"))
        })?;
    }
    Ok(())
}

/// The host has ports and files left.
fn host_goes_on(b: &TestBox) -> Result<()> {
    let text =
        b.user("fixture probe 30 tcp/10.77.0.2:7000 udp/10.77.0.2:85 tcp/127.0.0.1:7001").ok()?;
    ensure!(text.matches("ed ").count() == 3 && !text.contains("REFUSED"), "{text}");
    Ok(())
}

/// A flood that is under way.
fn flood<'b>(net: &Net<'b>, seconds: u32, kind: &str, to: &str) -> Result<Running<'b>> {
    net.inside(&format!("exec fixture flood {seconds} {kind} 10.0.2.100 {to}")).spawn()
}

fn finish(flood: Running<'_>) -> Result<u64> {
    let out = flood.wait(PATIENCE)?;
    let count = out.stdout.trim().strip_prefix("sent ").map(str::parse);
    let Some(Ok(count)) = count else { tests::bail!("{out}") };
    ensure!(count > 10_000, "a flood of {count} packets is none");
    Ok(count)
}

#[test]
fn attack_a_flood_of_syns_to_a_black_hole_leaves_others_their_connections() -> Result<()> {
    let _flooding = kit::flooding();
    let b = kit::boot()?;
    let _echo = kit::serve(&b, As::Peer, "udp-echo [::]:85")?;
    let net = Net::start(&b)?;
    let gateway = net.gateway()?;
    let files = gateway.descriptors()?;
    // One address, where the limit for a single destination holds, then ever new ones.
    let one = flood(&net, 6, "syn", "10.99.0.1")?;
    wait::until_true("it calls", PATIENCE, || {
        Ok(number(&net.stats()?, &["events", "dialing"]) > 500)
    })?;
    others_go_on(&net, "SYNs")?;
    let stats = net.stats()?;
    ensure!(number(&stats, &["events", "dialing"]) <= 1100, "{stats}");
    finish(one)?;
    let many = net.inside("ulimit -n $(ulimit -Hn); exec fixture hang 10.99.1.0 15000").spawn()?;
    wait::until_true("it calls", PATIENCE, || Ok(many.printed()?.contains("began")))?;
    others_go_on(&net, "connects")?;
    let stats = net.stats()?;
    ensure!(number(&stats, &["events", "dialing"]) <= 4200, "{stats}");
    ensure!(number(&stats, &["events", "evicted"]) > 0, "{stats}");
    ensure!(gateway.descriptors()? < files + 4300, "{}", gateway.descriptors()?);
    host_goes_on(&b)?;
    drop(many);
    net.stop()
}

#[test]
fn attack_a_flood_of_datagrams_to_everywhere_leaves_names_and_connections() -> Result<()> {
    let _flooding = kit::flooding();
    let b = kit::boot()?;
    let _echo = kit::serve(&b, As::Peer, "udp-echo [::]:85")?;
    let net = Net::start(&b)?;
    let gateway = net.gateway()?;
    let memory = gateway.memory()?;
    let stream = flood(&net, 6, "udp", "0.0.0.0")?;
    wait::until_true("it floods", PATIENCE, || {
        Ok(number(&net.stats()?, &["udp", "active"]) > 5000)
    })?;
    others_go_on(&net, "datagrams")?;
    host_goes_on(&b)?;
    let (stats, held) = (net.stats()?, gateway.descriptors()?);
    ensure!(number(&stats, &["udp", "active"]) <= 8192, "{stats}");
    ensure!(held < 2 * 8192 + 100, "{held} descriptors");
    // The host's ports: flows of one socket share one.
    let used = b.root("ss -Huan | wc -l; ss -Huan | awk '{print $4}' | sort -u | wc -l").ok()?;
    let mut used = used.lines().map(|line| line.trim().parse::<u32>());
    let (Some(Ok(sockets)), Some(Ok(ports))) = (used.next(), used.next()) else {
        tests::bail!("ss(8) counts nothing")
    };
    ensure!(ports < 20_000, "{ports} ports for {sockets} sockets");
    finish(stream)?;
    let grown = gateway.memory()?.saturating_sub(memory);
    ensure!(grown < 64 << 10, "{grown} KiB");
    ensure!(net.gateway()?.0.pid == gateway.0.pid, "it died");
    net.stop()
}

#[test]
fn attack_twenty_thousand_idle_connections_leave_room_for_others() -> Result<()> {
    let _flooding = kit::flooding();
    let b = kit::boot()?;
    let _echo = kit::serve(&b, As::Peer, "udp-echo [::]:85")?;
    let _sink = kit::serve(&b, As::Peer, "echo-many 10.77.0.2:90")?;
    let net = Net::with_many_files(&b, kit::FLAGS)?;
    let gateway = net.gateway()?;
    // More than the gateway may open files for: each connection needs two. They stay open, and idle.
    let first = net.inside_with_many_files("exec fixture hang 10.77.0.2:90 12000").spawn()?;
    let limit = kit::many_files(&b)?;
    let fits = u64::try_from(Budget::new(limit, DataPath::Gateway).connections())?;
    wait::until_true("all that fit are connected", PATIENCE, || {
        Ok(number(&net.stats()?, &["tcp", "active"]) * 20 >= fits * 19)
    })?;
    // The rest is kept for others: names and what is open go on, and the process lives.
    let held = gateway.descriptors()?;
    ensure!(held < limit, "{held} of {limit}");
    wait::until_true("names are answered", PATIENCE, || {
        let out = net.inside("dig +short +tries=2 +time=1 foo.test").run()?;
        Ok(out.stdout.contains("10.9.8.7\n"))
    })?;
    host_goes_on(&b)?;
    drop(first);
    wait::until_true("they are gone", PATIENCE, || {
        Ok(number(&net.stats()?, &["tcp", "active"]) < 10)
    })?;
    others_go_on(&net, "afterwards")?;
    ensure!(net.gateway()?.0.pid == gateway.0.pid, "it died");
    net.stop()
}

#[test]
fn attack_floods_of_pings_and_of_fragments_are_bounded() -> Result<()> {
    let _flooding = kit::flooding();
    let b = kit::boot()?;
    let _echo = kit::serve(&b, As::Peer, "udp-echo [::]:85")?;
    let net = Net::start(&b)?;
    let gateway = net.gateway()?;
    let (files, memory) = (gateway.descriptors()?, gateway.memory()?);
    for kind in ["echo", "fragments"] {
        let stream = flood(&net, 4, kind, "10.77.0.2")?;
        others_go_on(&net, kind)?;
        host_goes_on(&b)?;
        let held = gateway.descriptors()?;
        ensure!(held < files + 256 + 72, "{kind}: {held} descriptors");
        finish(stream)?;
        let grown = gateway.memory()?.saturating_sub(memory);
        ensure!(grown < 32 << 10, "{kind}: {grown} KiB");
    }
    net.inside("ping -c 2 -i 0.2 -W 30 10.77.0.2").ok()?;
    // What was never completed is soon forgotten: then others have room again.
    wait::until_true("fragments pass again", PATIENCE, || {
        Ok(net.inside("ping -c 1 -W 1 -s 4000 10.77.0.2").run()?.code == 0)
    })?;
    ensure!(number(&net.stats()?, &["events", "echoRequests"]) > 1000, "{}", net.stats()?);
    ensure!(net.gateway()?.0.pid == gateway.0.pid, "it died");
    net.stop()
}

#[test]
fn attack_idle_flows_expire() -> Result<()> {
    let _flooding = kit::flooding();
    let b = kit::boot()?;
    let net = Net::start(&b)?;
    let gateway = net.gateway()?;
    let files = gateway.descriptors()?;
    net.inside("fixture flood 0.02 udp 10.0.2.100 0.0.0.0; ping -c 1 -W 1 10.99.0.1").run()?;
    ensure!(number(&net.stats()?, &["udp", "active"]) > 50, "{}", net.stats()?);
    // Unanswered flows have 30 seconds, and so have pings.
    wait::until_true("all expire", PATIENCE, || {
        Ok(number(&net.stats()?, &["udp", "active"]) == 0 && gateway.descriptors()? <= files + 2)
    })?;
    net.stop()
}
