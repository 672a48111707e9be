//! The host's loopback is closed unless it is asked for; everything else that the user could reach stays reachable.

use tests::{As, Context as _, PATIENCE, Result, ensure, wait};

use crate::kit::{self, Net, number};

/// The namespace's own routing is in the hands of whoever is root in there: it may send loopback addresses to the gateway.
fn route_everything_to_the_gateway(net: &Net<'_>) -> Result<()> {
    net.inside(
        "for f in '' -6; do
             ip $f rule add pref 5 lookup local; ip $f rule del pref 0
             for to in 127.0.0.0/8 0.0.0.0/8 ::/96; do
                 case $to in *:*) [ -n \"$f\" ] || continue;; *) [ -z \"$f\" ] || continue;; esac
                 ip $f rule add to $to pref 1 lookup 77
             done
         done
         ip route add default via 10.0.2.2 dev tap0 table 77
         ip -6 route add default via fd00::2 dev tap0 table 77",
    )
    .ok()
    .map(drop)
}

#[test]
fn isolation_the_hosts_loopback_is_closed_however_it_is_spelled() -> Result<()> {
    let b = kit::boot()?;
    let server = kit::serve(&b, As::User, "streams [::]:7002")?;
    let log = kit::serve(&b, As::User, "udp-log [::]:7003")?;
    let net = Net::start(&b)?;
    route_everything_to_the_gateway(&net)?;
    let targets = "10.0.2.2 10.0.2.3 10.0.2.1 127.0.0.1 127.0.0.53 127.255.255.254 0.0.0.0 0.0.0.1 \
        [fd00::2] [fd00::3] [::1] [::] [::ffff:127.0.0.1] [::ffff:0.0.0.0] [::127.0.0.1] [::ffff:10.0.2.2]";
    let targets: Vec<String> = targets
        .split_whitespace()
        .flat_map(|ip| [format!("tcp/{ip}:7002"), format!("udp/{ip}:7003")])
        .collect();
    let before = number(&net.stats()?, &["events", "denied"]);
    let text = net.inside(&format!("fixture probe 2 {}", targets.join(" "))).ok()?;
    ensure!(!text.contains("connected") && !text.contains("answered"), "{text}");
    let denied = number(&net.stats()?, &["events", "denied"]) - before;
    ensure!(denied >= 8, "only {denied} attempts came as far as the gateway:\n{text}");
    smuggle(&net, 7003)?;
    // Here a datagram would be in the log by now: this one is.
    b.user("fixture probe 0.1 udp/127.0.0.1:7003").ok()?;
    wait::until_true("the log works", PATIENCE, || Ok(log.printed()?.lines().count() > 1))?;
    let logged = log.printed()?;
    assert_eq!(logged.lines().count(), 2, "{logged}");
    assert_eq!(number(&net.stats()?, &["tcp", "opened"]), 0);
    drop((server, log));
    net.stop()
}

/// Sends datagrams to a port of the host's loopback that no socket would send.
fn smuggle(net: &Net<'_>, port: u16) -> Result<()> {
    for (from, to, via) in [
        ("10.0.2.100", "127.0.0.1", "10.0.2.2"),
        ("10.0.2.100", "0.0.0.0", "10.0.2.2"),
        ("127.0.0.1", "127.0.0.1", "10.0.2.2"),
        ("127.0.0.1", "10.77.0.1", "10.0.2.2"),
        ("fd00::64", "[::1]", "fd00::2"),
        ("fd00::64", "[::]", "fd00::2"),
        ("fd00::64", "[::ffff:127.0.0.1]", "fd00::2"),
        ("fd00::64", "[::ffff:10.77.0.1]", "fd00::2"),
        ("::ffff:10.0.2.100", "[::ffff:127.0.0.1]", "fd00::2"),
    ] {
        net.inside(&format!("fixture smuggle {from} '{to}:{port}' {via}")).run()?;
    }
    Ok(())
}

#[test]
fn isolation_the_hosts_other_addresses_are_reachable() -> Result<()> {
    let b = kit::boot()?;
    let server = kit::serve(&b, As::User, "streams [::]:7002")?;
    let echo = kit::serve(&b, As::User, "udp-echo [::]:7003")?;
    let net = Net::start(&b)?;
    let targets = "tcp/10.77.0.1:7002 tcp/[fd77::1]:7002 udp/10.77.0.1:7003 udp/[fd77::1]:7003 tcp/10.77.0.2:7000";
    let text = net.inside(&format!("fixture probe 3 {targets}")).ok()?;
    let good = text.lines().filter(|l| l.contains(" connected ") || l.contains(" answered "));
    ensure!(good.count() == 5, "{text}");
    drop((server, echo));
    net.stop()
}

#[test]
fn isolation_with_host_loopback_the_gateway_is_the_host() -> Result<()> {
    let b = kit::boot()?;
    let echo = kit::serve(&b, As::User, "udp-echo [::]:7003")?;
    let six = kit::serve(&b, As::User, "http [::1]:7004 six")?;
    let net = Net::with(&b, "--net=gateway --port-driver=gateway --ipv6 --copy-up=/etc")?;
    ensure!(net.inside("fixture get 10.0.2.2:7001").ok()?.starts_with("loopback from "));
    ensure!(net.inside("fixture get [fd00::2]:7004").ok()?.starts_with("six from "));
    let text = net.inside("fixture udp-ask 10.0.2.2:7003 hello").ok()?;
    ensure!(text.ends_with(" hello\n"), "{text}");
    // Nothing else is the host, and an answer of it is no other address's.
    let text =
        net.inside("fixture probe 1 tcp/127.0.0.1:7001 tcp/10.0.2.4:7001 tcp/10.0.2.2:7").ok()?;
    ensure!(!text.contains("connected") && text.contains("10.0.2.2:7 ECONNREFUSED"), "{text}");
    drop((echo, six));
    net.stop()
}

/// The lines of `fixture probe`: a target, what became of it, and after how many milliseconds.
fn probe(net: &Net<'_>, targets: &str) -> Result<Vec<(String, String, u64)>> {
    let text = net.inside(&format!("fixture probe 60 {targets}")).ok()?;
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [target, what, took] = words[..] else { tests::bail!("{text}") };
        Ok((target.to_owned(), what.to_owned(), took.parse()?))
    };
    text.lines().map(line).collect()
}

/// What a port looks like that is closed, by family: an ICMP message says so (RFC 1122, RFC 4443).
const PROHIBITED: [&str; 2] = ["EHOSTUNREACH", "EACCES"];

/// Some ports of the host's loopback are open at the gateway's address, and no others, however they are spelled.
fn some_ports_are_open(flags: &str) -> Result<()> {
    let b = kit::boot()?;
    let servers = [
        "http [::1]:7004 six",
        "streams 127.0.0.1:7002",
        "streams [::1]:7002",
        "streams [::]:7003",
        "udp-echo [::]:7003",
        "udp-log [::]:7005",
    ];
    let mut servers: Vec<_> =
        servers.iter().map(|verb| kit::serve(&b, As::User, verb)).collect::<Result<_>>()?;
    let log = servers.pop().context("no log")?;
    let allow = "--host-loopback-allow=tcp:7001,tcp:7004-7006,udp:7003";
    let net = Net::with(&b, &format!("{} {allow} {flags}", kit::FLAGS))?;
    let open = || -> Result<()> {
        // The service sees the gateway process, a program of this host.
        assert_eq!(net.inside("fixture get 10.0.2.2:7001").ok()?, "loopback from 127.0.0.1\n");
        assert_eq!(net.inside("fixture get [fd00::2]:7004").ok()?, "six from ::1\n");
        for gateway in ["10.0.2.2", "[fd00::2]"] {
            let text = net.inside(&format!("fixture udp-ask {gateway}:7003 hello")).ok()?;
            let loopback = if gateway.starts_with('[') { "::1:" } else { "127.0.0.1:" };
            ensure!(text.starts_with(loopback) && text.ends_with(" hello\n"), "{text}");
        }
        Ok(())
    };
    open()?;
    // A flow of more than a few datagrams gets a socket of its own in the gateway namespace.
    for gateway in ["10.0.2.2", "[fd00::2]"] {
        let talk = kit::ready(net.inside(&format!("exec fixture talk {gateway}:7003")))?;
        wait::until_true("the flow goes on", PATIENCE, || {
            let stats = net.stats()?;
            let all = stats["destinations"].as_array().into_iter().flatten();
            let ip = gateway.trim_matches(['[', ']']);
            let mut flows = all.filter(|to| to["ip"] == ip && to["port"] == 7003);
            Ok(flows.any(|to| to["bytesIn"].as_u64() > Some(250)))
        })?;
        drop(talk);
    }
    // Nobody listens there, which is what the host says.
    for (_, what, _) in probe(&net, "tcp/10.0.2.2:7005 tcp/[fd00::2]:7006 tcp/[fd00::2]:7001")? {
        assert_eq!(what, "ECONNREFUSED");
    }
    let closed = "tcp/10.0.2.2:7002 tcp/10.0.2.2:7003 tcp/10.0.2.2:7000 tcp/10.0.2.2:7007 udp/10.0.2.2:7001 \
         udp/10.0.2.2:7004 udp/10.0.2.2:7005 tcp/[fd00::2]:7002 tcp/[fd00::2]:7003 udp/[fd00::2]:7004 \
         udp/[fd00::2]:7005";
    let before = number(&net.stats()?, &["events", "denied"]);
    // At once; on a busy machine, an answer may be lost, and the next packet is a second later.
    let mut slow: Vec<String> = closed.split_whitespace().map(str::to_owned).collect();
    for _ in 0..3 {
        for (target, what, took) in probe(&net, &slow.join(" "))? {
            ensure!(PROHIBITED.contains(&what.as_str()), "{target}: {what} after {took} ms");
            slow.retain(|slow| took >= 500 || *slow != target);
        }
    }
    ensure!(slow.is_empty(), "these never fail within half a second: {slow:?}");
    let denied = number(&net.stats()?, &["events", "denied"]) - before;
    ensure!(denied >= 11, "{denied}");
    // An allowed port is open at one address only.
    route_everything_to_the_gateway(&net)?;
    let others =
        "10.0.2.3 10.0.2.1 127.0.0.1 127.0.0.53 0.0.0.0 [fd00::3] [::1] [::] [::ffff:127.0.0.1]";
    let others: Vec<String> = others
        .split_whitespace()
        .flat_map(|ip| {
            [format!("tcp/{ip}:7001"), format!("tcp/{ip}:7004"), format!("udp/{ip}:7003")]
        })
        .collect();
    let before = number(&net.stats()?, &["events", "denied"]);
    let text = net.inside(&format!("fixture probe 2 {}", others.join(" "))).ok()?;
    ensure!(!text.contains("connected") && !text.contains("answered"), "{text}");
    let denied = number(&net.stats()?, &["events", "denied"]) - before;
    // Its name server's addresses; its kernel drops packets for loopback addresses before that.
    ensure!(denied >= 6, "only {denied} attempts came as far as the gateway:\n{text}");
    smuggle(&net, 7005)?;
    // The list is in force in the process that takes over, too.
    let first = net.gateway()?.0.pid;
    b.signal(first, "KILL")?;
    wait::until_true("the gateway process is replaced", PATIENCE, || {
        Ok(net.inside("fixture get 10.0.2.2:7001").run()?.stdout.starts_with("loopback from "))
    })?;
    open()?;
    for (target, what, _) in probe(&net, closed)? {
        ensure!(PROHIBITED.contains(&what.as_str()), "{target}: {what}");
    }
    // Here a datagram would be in the log by now: this one is.
    b.user("fixture probe 0.1 udp/127.0.0.1:7005").ok()?;
    wait::until_true("the log works", PATIENCE, || Ok(log.printed()?.lines().count() > 1))?;
    let logged = log.printed()?;
    assert_eq!(logged.lines().count(), 2, "{logged}");
    drop((servers, log));
    net.stop()
}

#[test]
fn isolation_some_ports_of_the_hosts_loopback_can_be_open() -> Result<()> {
    some_ports_are_open("")
}

#[test]
fn isolation_some_ports_of_the_hosts_loopback_can_be_open_with_a_detached_namespace() -> Result<()>
{
    some_ports_are_open("--detach-netns")
}

#[test]
fn isolation_an_open_port_53_is_the_hosts_and_names_go_the_usual_way() -> Result<()> {
    let b = kit::boot()?;
    let local = kit::serve(&b, As::Root, "names 127.0.0.1:53 local")?;
    // The other machine's server, which the host asks.
    b.stop_name_server()?;
    let other = kit::serve(&b, As::Peer, "names 10.77.0.2:53 other")?;
    let net = Net::with(
        &b,
        &format!("{} --host-loopback-allow=udp:53,tcp:53 --cidr=10.50.0.0/16", kit::FLAGS),
    )?;
    for flags in ["", "+tcp"] {
        let ask = |server: &str| {
            net.inside(&format!("dig {flags} +short +tries=1 +time=30 TXT tag.test @{server}"))
                .run()
        };
        assert_eq!(ask("10.50.0.2")?.stdout, "\"local\"\n", "{flags}");
        assert_eq!(ask("10.50.0.3")?.stdout, "\"other\"\n", "{flags}");
    }
    drop((local, other));
    net.stop()
}

#[test]
fn isolation_a_port_of_the_host_where_nobody_listens_is_refused_whatever_its_number() -> Result<()>
{
    let b = kit::boot()?;
    // The only local port that the kernel can choose: a socket that connects to it connects to itself.
    b.root("sysctl -qw net.ipv4.ip_local_port_range='50000 50000'").ok()?;
    let flags = format!("{} --host-loopback-allow=tcp:50000,udp:50000", kit::FLAGS);
    let net = Net::with(&b, &flags)?;
    for ip in ["10.0.2.2", "[fd00::2]", "10.77.0.1"] {
        for protocol in ["tcp", "udp"] {
            let target = format!("{protocol}/{ip}:50000");
            let (_, what, _) = probe(&net, &target)?.remove(0);
            assert_eq!(what, "ECONNREFUSED", "{target}");
        }
    }
    net.stop()
}
