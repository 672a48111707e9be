//! What rules decide, that it is counted and logged, and that `policy test` says the same.

use tests::egress::{self, matched, outcomes, write};
use tests::{As, Context as _, PATIENCE, Result, Running, ensure, wait};

use super::{Egress, FILE, ONE, TWO, Who};
use crate::flows::follow;
use crate::kit::{self, Net, events, number};

const POLICY: &str = r#"
metadata = "deny"

[[rule]]
name = "an exception"
action = "allow"
from = { address = "172.20.0.0/24" }
to = "10.77.0.11"
ports = [7000]

[[rule]]
name = "one is kept away"
action = "deny"
from = { address = "172.20.0.2" }
to = ["10.77.0.11", "10.77.0.12/32"]

[[rule]]
name = "datagrams"
action = "deny"
to = "10.77.0.13"
protocol = "udp"
ports = "7000-7020"

[[rule]]
name = "pings of two"
action = "deny"
from = { address = ["192.0.2.1", "172.21.0.2"] }
protocol = "icmp"

[[rule]]
name = "six"
action = "deny"
from = { daemon = true }
to = "fd77::11"
"#;

/// Attempts with what becomes of them, and the rule that denies them.
type Table = &'static [(&'static str, Option<&'static str>)];

const OF_ONE: Table = &[
    ("tcp/10.77.0.11:7000", None),
    ("tcp/10.77.0.11:7010", Some("one is kept away")),
    ("udp/10.77.0.11:7011", Some("one is kept away")),
    ("tcp/10.77.0.12:7000", Some("one is kept away")),
    ("tcp/10.77.0.13:7000", None),
    ("udp/10.77.0.13:7011", Some("datagrams")),
    ("tcp/10.77.0.2:7000", None),
    ("tcp/169.254.169.254:7000", Some("metadata")),
    ("udp/169.254.169.254:7011", Some("metadata")),
];

const OF_TWO: Table = &[
    ("tcp/10.77.0.11:7010", None),
    ("udp/10.77.0.11:7011", None),
    ("tcp/10.77.0.12:7000", None),
    ("udp/10.77.0.13:7011", Some("datagrams")),
    ("tcp/169.254.169.254:7000", Some("metadata")),
];

const OF_THE_NAMESPACE: Table = &[
    ("tcp/10.77.0.12:7000", None),
    ("udp/10.77.0.13:7011", Some("datagrams")),
    ("tcp/169.254.169.254:7000", Some("metadata")),
    ("tcp/[fd77::11]:7000", Some("six")),
    ("udp/[fd77::11]:7011", Some("six")),
    ("tcp/[fd77::2]:7000", None),
];

/// A line of the flow log: sender, protocol, destination, rule.
type Line = (&'static str, String, String, &'static str);

/// Waits until each of these is in the flow log, as denied.
fn logged(follower: &Running<'_>, lines: &[Line]) -> Result<()> {
    let missing = || -> Result<Vec<&Line>> {
        let events = events(follower)?;
        let has = |(ip, protocol, to, rule): &Line| {
            events.iter().any(|event| {
                event["containerIp"] == *ip
                    && event["protocol"] == *protocol
                    && event["destination"]["ip"] == *to
                    && event["end"] == "denied"
                    && event["rule"] == *rule
            })
        };
        Ok(lines.iter().filter(|line| !has(line)).collect())
    };
    wait::until_true("everything is logged", PATIENCE, || Ok(missing()?.is_empty()))
        .with_context(|| format!("{:#?} of {}", missing(), follower.printed().unwrap_or_default()))
}

/// All of it with these flags.
fn decide(more: &str) -> Result<()> {
    let b = kit::boot()?;
    let e = Egress::start(&b, more, POLICY)?;
    let follower = follow(&e.net)?;
    let before = number(&e.net.stats()?, &["events", "denied"]);
    let mut lines = Vec::new();
    for (who, source, table) in [
        (Who::One, ONE, OF_ONE),
        (Who::Two, TWO, OF_TWO),
        (Who::Namespace, "daemon", OF_THE_NAMESPACE),
    ] {
        let word = |rule: &Option<_>| if rule.is_some() { "denied" } else { "open" };
        let expected: Vec<_> = table.iter().map(|(target, rule)| (*target, word(rule))).collect();
        e.expect(who, &expected)?;
        for (target, rule) in table {
            let (protocol, to) = target.split_once('/').unwrap_or_default();
            let (ip, _) = to.rsplit_once(':').unwrap_or_default();
            // What is tried is what happens.
            let (code, said) = e.tested(source, to, protocol)?;
            let (expected, word) =
                if rule.is_some() { (1, "denied by ") } else { (0, "allowed by ") };
            ensure!(code == expected && said.contains(word), "{source} {target}: {code} {said}");
            if who == Who::Namespace {
                // Its addresses are no container's.
                for address in ["10.0.2.100", "fd00::64"] {
                    let (same, said) = e.tested(address, to, protocol)?;
                    ensure!(same == code, "{address} {target}: {same} {said}");
                }
            }
            let Some(rule) = *rule else { continue };
            ensure!(said.contains(&format!("\"{rule}\"")) && said.contains(FILE), "{said}");
            let sender = match who {
                Who::Namespace if to.starts_with('[') => "fd00::64",
                Who::Namespace => "10.0.2.100",
                _ => source,
            };
            let ip = ip.trim_matches(['[', ']']).to_owned();
            lines.push((sender, protocol.to_owned(), ip, rule));
        }
    }
    logged(&follower, &lines)?;
    let stats = e.net.stats()?;
    let denied = number(&stats, &["events", "denied"]) - before;
    ensure!(denied >= lines.len() as u64, "{denied} of {}", lines.len());
    for ip in [ONE, TWO, "10.0.2.100"] {
        let all = stats["containers"].as_array().into_iter().flatten();
        let mut one = all.into_iter().filter(|one| one["ip"] == ip);
        let denied = one.next().map_or(0, |one| number(one, &["denied"]));
        let expected = lines.iter().filter(|line| line.0 == ip).count() as u64;
        ensure!(denied >= expected, "{ip}: {denied} of {expected} in {stats}");
    }

    // What the gateway denies by itself.
    let (code, said) = e.tested("daemon", "10.0.2.2:7000", "tcp")?;
    ensure!(code == 1 && said.starts_with("denied by the gateway, "), "{code} {said}");
    e.expect(Who::Namespace, &[("tcp/10.0.2.2:7000", "denied")])?;

    // Pings.
    let ping = |who, to: &str| e.command(who, &format!("ping -c 1 -W 30 {to}")).run();
    for (who, to) in [(Who::One, "10.77.0.13"), (Who::Namespace, "10.77.0.12")] {
        let out = ping(who, to)?;
        ensure!(out.code == 0, "{who:?}: {out}");
    }
    let denied = [
        (Who::Two, TWO, "10.77.0.13", "pings of two"),
        (Who::One, ONE, "10.77.0.12", "one is kept away"),
        (Who::One, ONE, "169.254.169.254", "metadata"),
        (Who::Namespace, "fd00::64", "fd77::11", "six"),
    ];
    for (who, source, to, rule) in denied {
        let out = ping(who, to)?;
        let told = ["Packet filtered", "Administratively prohibited"];
        let told = told.iter().any(|text| out.stdout.contains(text));
        ensure!(out.code != 0 && told, "{who:?}: {out}");
        logged(&follower, &[(source, "icmp".to_owned(), to.to_owned(), rule)])?;
        let source = if who == Who::Namespace { "daemon" } else { source };
        let (code, said) = e.tested(source, to, "icmp")?;
        ensure!(code == 1 && said.contains(&format!("\"{rule}\"")), "{said}");
    }

    // Each rule has counted what it decided.
    let show = e.show()?;
    for (rule, at_least) in [
        ("metadata", 5),
        ("an exception", 1),
        ("one is kept away", 4),
        ("datagrams", 3),
        ("pings of two", 1),
        ("six", 3),
    ] {
        let found = matched(&show, rule)?;
        ensure!(found >= at_least, "{rule}: {found} in {show}");
    }
    ensure!(matched(&show, "pings of two")? <= 2, "{show}");
    drop(follower);
    e.stop()
}

#[test]
fn egress_rules_decide_by_sender_destination_protocol_and_port() -> Result<()> {
    decide("")
}

#[test]
fn egress_rules_decide_in_a_detached_namespace() -> Result<()> {
    decide("--detach-netns")
}

/// A port is closed at once; on a busy machine, an answer may be lost, and the next packet is a second later.
#[test]
fn egress_what_is_denied_fails_at_once() -> Result<()> {
    let b = kit::boot()?;
    let e = Egress::start(
        &b,
        "",
        "metadata = 'deny'\n[[rule]]\nname = 'six'\naction = 'deny'\nto = 'fd77::/16'",
    )?;
    let closed =
        "tcp/169.254.169.254:7000 udp/169.254.169.254:7011 tcp/[fd77::11]:7000 udp/[fd77::11]:7011";
    let mut slow: Vec<String> = closed.split_whitespace().map(str::to_owned).collect();
    for _ in 0..3 {
        let printed = e.net.inside(&format!("fixture probe 60 {}", slow.join(" "))).ok()?;
        for (outcome, line) in outcomes(&printed)?.iter().zip(printed.lines()) {
            ensure!(outcome == "denied", "{printed}");
            let target = line.split(' ').next().unwrap_or_default();
            let took = line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?;
            slow.retain(|slow| took >= 500 || slow != target);
        }
    }
    ensure!(slow.is_empty(), "these never fail within half a second: {slow:?}");
    e.stop()
}

#[test]
fn egress_with_everything_closed_names_and_published_ports_work_and_nothing_else_opens()
-> Result<()> {
    let b = kit::boot()?;
    let policy = r#"
        default = "deny"
        [[rule]]
        name = "loopback"
        action = "allow"
        to = ["10.0.2.2", "10.0.2.3", "127.0.0.0/8", "0.0.0.0/8"]
        [[rule]]
        name = "page"
        action = "allow"
        to = "10.77.0.11"
        ports = 7000
    "#;
    let _server = egress::name_server(&b, "foo.test 10.9.8.7\n")?;
    let e = Egress::start(&b, "-p 0.0.0.0:8080:80/tcp -p 0.0.0.0:8081:81/udp", policy)?;
    let page = kit::ready(e.net.inside("exec fixture http 0.0.0.0:80 page"))?;
    let echo = kit::ready(e.net.inside("exec fixture udp-echo 0.0.0.0:81"))?;
    for who in [Who::Namespace, Who::One] {
        e.expect(
            who,
            &[
                ("tcp/10.77.0.11:7000", "open"),
                ("tcp/10.77.0.11:7010", "denied"),
                ("udp/10.77.0.11:7011", "denied"),
                ("tcp/10.77.0.2:7000", "denied"),
                // No rule opens the host's loopback.
                ("tcp/10.0.2.2:7001", "denied"),
                // DNS over UDP and TCP is no attempt.
                ("tcp/10.0.2.3:53", "open"),
            ],
        )?;
        let out = e.command(who, "ping -c 1 -W 30 10.77.0.11").run()?;
        ensure!(out.code != 0, "a ping has no port: {out}");
        assert_eq!(e.command(who, "dig +short foo.test @10.0.2.3").ok()?, "10.9.8.7\n");
    }
    assert_eq!(b.peer("fixture get 10.77.0.1:8080").ok()?, "page from 10.77.0.2\n");
    ensure!(b.peer("fixture udp-ask 10.77.0.1:8081 in").ok()?.ends_with(" in\n"));
    ensure!(b.user("fixture get 127.0.0.1:8080").ok()?.starts_with("page from "));
    drop((page, echo));
    e.stop()
}

#[test]
fn egress_each_file_has_to_allow() -> Result<()> {
    const OTHER: &str = "/home/tester/admin.toml";
    let b = kit::boot()?;
    write(&b, OTHER, "[[rule]]\nname = 'eleven'\naction = 'deny'\nto = '10.77.0.11'\n")?;
    let policy = r#"
        [[rule]]
        name = "too much"
        action = "allow"
        to = "10.77.0.11"
        [[rule]]
        name = "twelve"
        action = "deny"
        to = "10.77.0.12"
    "#;
    write(&b, FILE, policy)?;
    let _servers = egress::serve(&b)?;
    let net =
        Net::with(&b, &format!("{} --egress-policy={OTHER} --egress-policy={FILE}", kit::FLAGS))?;
    let targets = "tcp/10.77.0.11:7000 tcp/10.77.0.12:7000 tcp/10.77.0.13:7000";
    let found = outcomes(&net.inside(&format!("fixture probe 60 {targets}")).ok()?)?;
    assert_eq!(found, ["denied", "denied", "open"]);
    for (to, file) in [("10.77.0.11", OTHER), ("10.77.0.12", FILE)] {
        let said = net.ctl(&format!("policy test --from daemon --to {to}:7000")).fails_with(1)?;
        ensure!(said.contains(file), "{to}: {said}");
    }
    net.ctl("policy test --from daemon --to 10.77.0.13:7000").ok()?;
    let show = net.ctl("policy show").ok()?;
    for part in [OTHER, FILE, "eleven", "twelve", "too much"] {
        ensure!(show.contains(part), "no {part} in {show}");
    }
    b.user(&format!("rm {OTHER} {FILE}")).ok()?;
    net.stop()
}

/// Without Docker, any address could be any container's.
#[test]
fn egress_rules_for_containers_fail_closed_without_docker() -> Result<()> {
    let b = kit::boot()?;
    let policy = r#"
        [[rule]]
        name = "web"
        action = "deny"
        from = { container = "web" }
        to = "10.77.0.11"
        [[rule]]
        name = "shop"
        action = "allow"
        from = { label = "shop" }
        to = "10.77.0.12"
        [[rule]]
        name = "all others"
        action = "deny"
        to = "10.77.0.12"
    "#;
    let e = Egress::start(&b, "", policy)?;
    e.expect(
        Who::One,
        &[
            ("tcp/10.77.0.11:7000", "denied"),
            ("tcp/10.77.0.12:7000", "denied"),
            ("tcp/10.77.0.13:7000", "open"),
        ],
    )?;
    // The namespace is no container.
    e.expect(
        Who::Namespace,
        &[("tcp/10.77.0.11:7000", "open"), ("tcp/10.77.0.12:7000", "denied")],
    )?;
    e.stop()
}

/// An open port of the host's loopback is judged by its address in the namespace, and a driver by another name too.
#[test]
fn egress_open_ports_of_the_host_and_other_name_servers_are_judged() -> Result<()> {
    let b = kit::boot()?;
    let policy = "default = 'deny'\n[[rule]]\nname = 'page of the host'\naction = 'allow'\nto = '10.0.2.2'\nports = 7001\n\
                  [[rule]]\nname = 'shop'\naction = 'allow'\nto = 'shop.test'\n";
    let _server = egress::name_server(&b, "shop.test 10.77.0.11\n")?;
    let other = kit::serve(&b, As::User, "http 127.0.0.1:7002 other")?;
    let e = Egress::start(&b, "--host-loopback-allow=tcp:7001-7002", policy)?;
    for who in [Who::Namespace, Who::One] {
        e.expect(who, &[("tcp/10.0.2.2:7001", "open"), ("tcp/10.0.2.2:7002", "denied")])?;
    }
    assert_eq!(e.net.inside("fixture get 10.0.2.2:7001").ok()?, "loopback from 127.0.0.1\n");
    drop(other);
    e.stop()?;
    write(&b, FILE, policy)?;
    egress::write(&b, egress::ZONE, "shop.test 10.77.0.11\n")?;
    let base = "--disable-host-loopback --copy-up=/etc --egress-policy=/home/tester/egress.toml";
    for (flags, server) in [
        ("--net=gvisor-tap-vsock --port-driver=gvisor-tap-vsock", "10.0.2.1"),
        ("--net=gateway --port-driver=builtin --cidr=10.50.0.0/16", "10.50.0.3"),
    ] {
        let net = Net::with(&b, &format!("{flags} {base}"))?;
        let eleven = [("tcp/10.77.0.11:7000", "denied")];
        egress::expect(|line| net.inside(line), &eleven)?;
        let answer = net.inside(&format!("dig +short shop.test @{server}")).ok()?;
        assert_eq!(answer, "10.77.0.11\n", "{flags}");
        egress::expect(|line| net.inside(line), &[("tcp/10.77.0.11:7000", "open")])?;
        net.kit.signal("TERM")?;
        net.kit.wait(PATIENCE)?;
    }
    b.user("rm egress.toml zone").ok()?;
    b.assert_clean(&[])
}
