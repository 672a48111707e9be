//! The host's loopback is closed unless it is asked for; everything else that the user could reach stays reachable.

use tests::{As, PATIENCE, Result, ensure};

use crate::kit::{self, Net, number};

#[test]
fn isolation_the_hosts_loopback_is_closed_however_it_is_spelled() -> Result<()> {
    let b = kit::boot()?;
    let server = kit::serve(&b, As::User, "streams [::]:7002")?;
    let log = kit::serve(&b, As::User, "udp-log [::]:7003")?;
    let net = Net::start(&b)?;
    // The namespace's own routing is in the hands of whoever is root in there: it may send all of this to the gateway.
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
    .ok()?;
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
    // Packets that no socket would send.
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
        net.inside(&format!("fixture smuggle {from} '{to}:7003' {via}")).run()?;
    }
    // Here a datagram would be in the log by now: this one is.
    b.user("fixture probe 0.1 udp/127.0.0.1:7003").ok()?;
    tests::wait::until_true("the log works", PATIENCE, || Ok(log.printed()?.lines().count() > 1))?;
    let logged = log.printed()?;
    assert_eq!(logged.lines().count(), 2, "{logged}");
    assert_eq!(number(&net.stats()?, &["tcp", "opened"]), 0);
    drop((server, log));
    net.stop()
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
