//! TCP streams: whole, in both directions, with their ends as they were, thousands at a time.

use budget::{Budget, DataPath};
use tests::{As, PATIENCE, Result, ensure, wait};

use crate::kit::{self, Net, number};

const GIB: u64 = 1 << 30;

#[test]
fn streams_half_closes_resets_and_urgent_data_pass() -> Result<()> {
    let b = kit::boot()?;
    let server = kit::serve(&b, As::Peer, "streams [::]:80")?;
    let net =
        Net::with(&b, &format!("{} -p 0.0.0.0:8080:80/tcp4 -p [::]:8080:80/tcp6", kit::FLAGS))?;
    let inner = kit::ready(net.inside("exec fixture streams [::]:80"))?;
    let sides = [
        ("out", "10.77.0.2:80", &server),
        ("out over IPv6", "[fd77::2]:80", &server),
        ("in", "10.77.0.1:8080", &inner),
        ("in over IPv6", "[fd77::1]:8080", &inner),
    ];
    for (way, to, server) in sides {
        let run = |command: &str| {
            let line = format!("fixture stream '{to}' {command}");
            if way.starts_with("out") { net.inside(&line).ok() } else { b.peer(&line).ok() }
        };
        let before = server.printed()?.len();
        let says = |text: &str| {
            wait::until_true(&format!("{way}: the server says {text}"), PATIENCE, || {
                Ok(server.printed()?[before..].contains(text))
            })
        };
        // The client ends its direction first; then the server.
        ensure!(run("sink 3000000")?.starts_with("3000000 ok"), "{way}");
        ensure!(run("first 2000000 1000001")?.starts_with("2000000 ok"), "{way}");
        says("first: 1000001 ok")?;
        ensure!(run("echo 5000000")?.starts_with("5000000 ok"), "{way}");
        // A reset stays a reset, an end an end.
        assert_eq!(run("reset")?, "ECONNRESET\n", "{way}");
        run("abort")?;
        says("report: ECONNRESET")?;
        run("close")?;
        says("report: eof")?;
        // What is urgent may be taken out of the stream (tcp(7)); the rest is not touched.
        let text = run("urgent")?;
        ensure!(
            ["before  after\n", "before ! after\n"].contains(&text.as_str()),
            "{way}: {text:?}"
        );
    }
    drop((server, inner));
    net.stop()
}

#[test]
fn streams_a_gibibyte_arrives_whole_in_each_direction() -> Result<()> {
    let b = kit::boot()?;
    let server = kit::serve(&b, As::Peer, "streams [::]:80")?;
    let net = Net::with(&b, &format!("{} -p 0.0.0.0:8080:80/tcp", kit::FLAGS))?;
    let inner = kit::ready(net.inside("exec fixture streams [::]:80"))?;
    for kind in ["sink", "source"] {
        let command = format!("fixture stream 10.77.0.2:80 {kind} {GIB}");
        let text = net.inside(&command).ok()?;
        ensure!(text.starts_with(&format!("{GIB} ok")), "{kind}: {text}");
        let text = b.peer(&format!("fixture stream 10.77.0.1:8080 {kind} {GIB}")).ok()?;
        ensure!(text.starts_with(&format!("{GIB} ok")), "published, {kind}: {text}");
    }
    let stats = net.stats()?;
    for name in ["bytesOut", "bytesIn"] {
        ensure!(number(&stats, &["tcp", name]) >= GIB, "{stats}");
        ensure!(number(&stats["ports"][0], &[name]) >= GIB, "{stats}");
    }
    drop((server, inner));
    net.stop()
}

#[test]
fn streams_as_many_as_the_limit_of_files_allows_are_held_and_given_back() -> Result<()> {
    let b = kit::boot()?;
    // Where the machine's limit of open files is below what they take, as many as the budget allows.
    let fits = Budget::new(kit::many_files(&b)?, DataPath::Gateway).connections();
    let count = u64::try_from(fits)?.min(10_000);
    ensure!(count >= 7_000, "only {count} connections fit into the limit of open files");
    let _server = kit::serve(&b, As::Peer, "echo-many 10.77.0.2:80")?;
    let net = Net::with_many_files(&b, kit::FLAGS)?;
    let gateway = net.gateway()?;
    net.inside("fixture probe 2 tcp/10.77.0.2:80").ok()?;
    let (files, memory) = (gateway.descriptors()?, gateway.memory()?);
    let hold = format!("exec fixture hold 10.77.0.2:80 {count} /tmp/enough");
    let mut client = net.inside_with_many_files(&hold).spawn()?;
    wait::until_true("all connections stand", PATIENCE, || {
        ensure!(client.alive()?, "{}", client.printed()?);
        Ok(client.printed()?.contains(&format!("all {count}")))
    })?;
    let held = gateway.descriptors()?;
    ensure!(held >= 2 * count, "{held} descriptors");
    assert_eq!(number(&net.stats()?, &["tcp", "active"]), count);
    let grown = gateway.memory()?.saturating_sub(memory);
    ensure!(grown < 40 << 10, "{grown} KiB for {count} connections");
    b.root("touch /tmp/enough").ok()?;
    let out = client.wait(PATIENCE)?;
    ensure!(out.code == 0 && out.stdout.contains(&format!("again {count}")), "{out}");
    gateway.descriptors_return_to(files)?;
    assert_eq!(number(&net.stats()?, &["tcp", "active"]), 0);
    let kept = gateway.memory()?.saturating_sub(memory);
    ensure!(kept < 20 << 10, "{kept} KiB are kept");
    b.root("rm /tmp/enough").ok()?;
    net.stop()
}

#[test]
fn streams_clients_that_die_in_the_middle_leave_nothing() -> Result<()> {
    let b = kit::boot()?;
    let server = kit::serve(&b, As::Peer, "streams [::]:80")?;
    let net = Net::with(&b, &format!("{} -p 0.0.0.0:8080:80/tcp4", kit::FLAGS))?;
    let inner = kit::ready(net.inside("exec fixture streams [::]:80"))?;
    let gateway = net.gateway()?;
    net.inside("fixture probe 2 tcp/10.77.0.2:80").ok()?;
    let files = gateway.descriptors()?;
    for kind in ["sink", "source", "echo"] {
        let line = |to: &str| {
            format!(
                "for i in 1 2 3 4 5 6; do timeout -s KILL 0.3 fixture stream {to} {kind} 4000000000; done"
            )
        };
        net.inside(&line("10.77.0.2:80")).run()?;
        b.peer(&line("10.77.0.1:8080")).run()?;
        wait::until_true(&format!("{kind}: both servers hear of it"), PATIENCE, || {
            let stats = net.stats()?;
            Ok(number(&stats, &["tcp", "active"]) == 0
                && number(&stats["ports"][0], &["active"]) == 0)
        })?;
    }
    gateway.descriptors_return_to(files)?;
    drop((server, inner));
    net.stop()
}
