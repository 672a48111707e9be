//! Names: every question and answer passes unchanged, and the servers are those that the host has now.

use tests::{As, PATIENCE, Result, Running, TestBox, ensure, wait};

use crate::kit::{self, Net, number};

/// Servers that the resolv.conf of a test names, by address.
fn servers<'b>(b: &'b TestBox, addresses: &[&str]) -> Result<Vec<Running<'b>>> {
    // The box's own server has every address of that machine.
    b.stop_name_server()?;
    let mut all = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        b.peer(&format!("ip addr add {address}/24 dev eth1")).ok()?;
        all.push(kit::serve(b, As::Peer, &format!("names {address}:53 server{index}"))?);
    }
    Ok(all)
}

fn resolv(b: &TestBox, servers: &[&str]) -> Result<()> {
    let lines: String = servers.iter().map(|s| format!("nameserver {s}\n")).collect();
    b.write("/etc/resolv.conf", &lines)
}

/// Which server answers inside.
fn tag(net: &Net<'_>) -> Result<String> {
    net.inside("dig +short +tries=1 +time=5 TXT tag.test").ok()
}

#[test]
fn dns_every_type_and_size_passes_unchanged() -> Result<()> {
    let b = kit::boot()?;
    let _servers = servers(&b, &["10.77.0.3"])?;
    resolv(&b, &["10.77.0.3"])?;
    let net = Net::start(&b)?;
    for (how, name, kind, room, length) in [
        ("udp", "a.test", 1, 0, 40..60),
        ("udp", "aaaa.test", 28, 0, 50..70),
        ("udp", "mx.test", 15, 0, 40..70),
        ("udp", "txt.test", 16, 1232, 40..70),
        ("udp", "unknown.test", 65_280, 0, 40..60),
        ("udp", "https.test", 65, 0, 40..60),
        // Without EDNS an answer of more than 512 bytes is cut.
        ("udp", "big-700.test", 16, 0, 20..100),
        ("udp", "big-700.test", 16, 1232, 700..800),
        ("udp", "big-3000.test", 16, 4096, 3000..3100),
        ("udp", "big-20000.test", 16, 65_000, 20_000..20_200),
        ("tcp", "a.test", 1, 0, 40..60),
        ("tcp", "unknown.test", 65_280, 0, 40..60),
        ("tcp", "big-700.test", 16, 0, 700..800),
        ("tcp", "big-60000.test", 16, 0, 60_000..60_500),
    ] {
        let query = |server: &str| format!("fixture query {server} {how} {name} {kind} {room}");
        let direct = b.user(&query("10.77.0.3:53")).ok()?;
        let found: usize = direct.split(' ').next().unwrap_or_default().parse()?;
        ensure!(length.contains(&found), "{how} {name}: {found} bytes");
        for server in ["10.0.2.3:53", "[fd00::3]:53"] {
            let passed = net.inside(&query(server)).ok()?;
            ensure!(passed == direct, "{how} {name} {kind} by {server}:\n{passed}{direct}");
        }
    }
    let queries = number(&net.stats()?, &["events", "dnsQueries"]);
    ensure!(queries >= 20, "{queries}");
    // Programs, with the resolver of the C library.
    let text = net.inside("cat /etc/resolv.conf; getent ahostsv4 some.test").ok()?;
    ensure!(text.contains("nameserver 10.0.2.3\n") && text.contains("10.9.8.7"), "{text}");
    net.stop()
}

#[test]
fn dns_a_dead_server_is_passed_over() -> Result<()> {
    let b = kit::boot()?;
    let _servers = servers(&b, &["10.77.0.3"])?;
    // One that nobody answers for, one that refuses (nobody listens), then one that works.
    resolv(&b, &["10.99.0.1", "10.77.0.77", "10.77.0.3"])?;
    b.peer("ip addr add 10.77.0.77/24 dev eth1").ok()?;
    let net = Net::start(&b)?;
    let silent = "ip daddr 10.99.0.1 udp dport 53";
    b.root(&format!(
        "nft add table ip t; nft add chain ip t out '{{ type filter hook output priority 0; }}'
         nft add rule ip t out {silent} counter"
    ))
    .ok()?;
    let asked = || b.root("nft list table ip t | grep -o 'packets [0-9]*'").ok();
    assert_eq!(tag(&net)?, "\"server0\"\n");
    let first = asked()?;
    assert_ne!(first.trim(), "packets 0");
    // What was learned is used.
    assert_eq!(tag(&net)?, "\"server0\"\n");
    assert_eq!(asked()?, first, "the silent server is asked again");
    b.root("nft delete table ip t").ok()?;
    // Over TCP: a refusal goes to the next one at once.
    resolv(&b, &["10.77.0.77", "10.77.0.3"])?;
    wait::until_true("TCP finds the server that works", PATIENCE, || {
        Ok(net.inside("fixture query 10.0.2.3:53 tcp a.test 1 0").run()?.code == 0)
    })?;
    net.stop()
}

#[test]
fn dns_follows_the_hosts_file_however_it_is_changed() -> Result<()> {
    let b = kit::boot()?;
    let _servers = servers(&b, &["10.77.0.3", "10.77.0.4"])?;
    resolv(&b, &["10.77.0.3"])?;
    let net = Net::start(&b)?;
    let gateway = net.gateway()?.0.pid;
    assert_eq!(tag(&net)?, "\"server0\"\n");
    for (how, now, script) in [
        ("in place", 1, "echo nameserver 10.77.0.4 > /etc/resolv.conf"),
        ("by rename", 0, "echo nameserver 10.77.0.3 > /etc/new; mv /etc/new /etc/resolv.conf"),
        (
            "to a symbolic link",
            1,
            "mkdir -p /run/r; echo nameserver 10.77.0.4 > /run/r/b; echo nameserver 10.77.0.3 > /run/r/a
             ln -s /run/r/b /etc/new; mv -T /etc/new /etc/resolv.conf",
        ),
        ("by another link", 0, "ln -s /run/r/a /etc/new; mv -T /etc/new /etc/resolv.conf"),
        ("behind the link, in place", 1, "echo nameserver 10.77.0.4 > /run/r/a"),
        ("behind the link, by rename", 0, "echo nameserver 10.77.0.3 > /run/r/c; mv /run/r/c /run/r/a"),
        ("by removal and a new file", 1, "rm /etc/resolv.conf; echo nameserver 10.77.0.4 > /etc/resolv.conf"),
    ] {
        let expected = format!("\"server{now}\"\n");
        b.root(script).ok()?;
        wait::until_true(&format!("names follow a change {how}"), PATIENCE, || {
            Ok(tag(&net).is_ok_and(|seen| seen == expected))
        })?;
    }
    assert_eq!(net.gateway()?.0.pid, gateway, "another process");
    b.root("rm -r /run/r").ok()?;
    net.stop()
}

#[test]
fn dns_works_with_a_resolver_on_the_hosts_loopback_attached_and_detached() -> Result<()> {
    let b = kit::boot()?;
    let local = kit::serve(&b, As::Root, "names 127.0.0.53:53 local")?;
    resolv(&b, &["127.0.0.53"])?;
    let net = Net::start(&b)?;
    assert_eq!(tag(&net)?, "\"local\"\n");
    net.inside("fixture query 10.0.2.3:53 tcp a.test 1 0").ok()?;
    // The loopback is closed all the same.
    let text = net.inside("fixture probe 2 tcp/10.0.2.2:53").ok()?;
    ensure!(!text.contains("connected"), "{text}");
    net.stop()?;
    let enter = "nsenter -n$ROOTLESSKIT_STATE_DIR/netns";
    let script = format!(
        "cat $ROOTLESSKIT_STATE_DIR/resolv.conf; {enter} dig +short TXT tag.test @10.0.2.3; {enter} dig +tcp +short a.test @10.0.2.3"
    );
    let text = b
        .user(&format!("rootlesskit {} --detach-netns sh -ec \"$SCRIPT\"", kit::FLAGS))
        .env("SCRIPT", &script)
        .ok()?;
    for part in ["nameserver 10.0.2.3\n", "\"local\"\n", "10.9.8.7\n"] {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    drop(local);
    b.assert_clean(&[])
}
