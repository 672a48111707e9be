//! What cannot be reached looks from inside as it does on the host.

use std::time::Instant;

use tests::{As, PATIENCE, Result, TestBox, ensure, wait};

use crate::kit::{self, Net};

/// A line of `fixture probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    target: String,
    result: String,
    millis: u64,
}

fn parse(text: &str) -> Vec<Outcome> {
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (target, result) = (words.next()?, words.next()?);
        Some(Outcome { target, result, millis: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}

/// Destinations that fail in every way that a network knows.
fn broken_network(b: &TestBox) -> Result<()> {
    b.root(
        "ip route add unreachable 10.88.0.1; ip -6 route add unreachable fd88::1
         ip route add prohibit 10.88.0.2; ip -6 route add prohibit fd88::2
         ip rule add to 10.88.0.3 pref 100 unreachable; ip -6 rule add to fd88::3 pref 100 unreachable
         ip route add blackhole 10.88.0.4
         sysctl -qw net.ipv4.tcp_syn_retries=2",
    )
    .ok()?;
    // The other machine forwards nothing: what goes beyond it is never answered.
    b.peer(
        "nft add table inet t; nft add chain inet t in '{ type filter hook input priority 0; }'
         for proto in tcp udp; do
             nft add rule inet t in $proto dport 81 reject with icmpx type admin-prohibited
             nft add rule inet t in $proto dport 82 drop
         done",
    )
    .ok()
    .map(drop)
}

/// A target, what the host gets, and what the namespace gets.
///
/// They differ where a packet cannot carry the host's error: the kernel of a sender makes EHOSTUNREACH of every "prohibited"
/// of IPv4 (`icmp_err_convert` in `net/ipv4/icmp.c`), tells a datagram socket only of errors that it takes for final, and
/// has none for EINVAL, with which the host's kernel refuses a black hole in its own routing table.
const TARGETS: [(&str, &str, &str); 30] = [
    ("tcp/10.77.0.2:7000", "connected", "connected"),
    ("tcp/[fd77::2]:7000", "connected", "connected"),
    ("udp/10.77.0.2:85", "answered", "answered"),
    ("udp/[fd77::2]:85", "answered", "answered"),
    // Nobody listens.
    ("tcp/10.77.0.2:7", "ECONNREFUSED", "ECONNREFUSED"),
    ("tcp/[fd77::2]:7", "ECONNREFUSED", "ECONNREFUSED"),
    ("udp/10.77.0.2:7", "ECONNREFUSED", "ECONNREFUSED"),
    ("udp/[fd77::2]:7", "ECONNREFUSED", "ECONNREFUSED"),
    // The host has no way.
    ("tcp/10.88.0.1:80", "EHOSTUNREACH", "EHOSTUNREACH"),
    ("tcp/[fd88::1]:80", "EHOSTUNREACH", "EHOSTUNREACH"),
    ("tcp/10.88.0.2:80", "EACCES", "EHOSTUNREACH"),
    ("tcp/[fd88::2]:80", "EACCES", "EACCES"),
    ("udp/[fd88::2]:80", "EACCES", "EACCES"),
    ("tcp/10.88.0.3:80", "ENETUNREACH", "ENETUNREACH"),
    ("tcp/[fd88::3]:80", "ENETUNREACH", "ENETUNREACH"),
    ("tcp/10.88.0.4:80", "EINVAL", "EHOSTUNREACH"),
    // Nobody has that address.
    ("tcp/10.77.0.99:80", "EHOSTUNREACH", "EHOSTUNREACH"),
    ("tcp/[fd77::99]:80", "EHOSTUNREACH", "EHOSTUNREACH"),
    ("udp/10.77.0.99:80", "silent", "silent"),
    ("udp/[fd77::99]:80", "silent", "silent"),
    // A packet filter on the way says no.
    ("tcp/10.77.0.2:81", "EHOSTUNREACH", "EHOSTUNREACH"),
    ("tcp/[fd77::2]:81", "EACCES", "EACCES"),
    ("udp/10.77.0.2:81", "EHOSTUNREACH", "EHOSTUNREACH"),
    ("udp/[fd77::2]:81", "EACCES", "EACCES"),
    // Nobody says anything.
    ("tcp/10.77.0.2:82", "ETIMEDOUT", "ETIMEDOUT"),
    ("tcp/[fd77::2]:82", "ETIMEDOUT", "ETIMEDOUT"),
    ("udp/10.77.0.2:82", "silent", "silent"),
    ("udp/[fd77::2]:82", "silent", "silent"),
    ("tcp/10.99.0.1:80", "ETIMEDOUT", "ETIMEDOUT"),
    ("udp/10.99.0.1:80", "silent", "silent"),
];

/// How much longer or shorter something may take inside than on the host, in milliseconds. A refusal takes next to none, a
/// neighbour that is not there three seconds, and SYNs that nobody answers seven; a busy machine adds to each.
const TOLERANCE: u64 = 2500;

#[test]
fn failures_look_as_on_the_host_in_error_and_time() -> Result<()> {
    let b = kit::boot()?;
    broken_network(&b)?;
    let _echo = kit::serve(&b, As::Peer, "udp-echo [::]:85")?;
    let net = Net::start(&b)?;
    net.inside("sysctl -qw net.ipv4.tcp_syn_retries=2").ok()?;
    let targets: Vec<&str> = TARGETS.iter().map(|(target, ..)| *target).collect();
    let command = format!("exec fixture probe 15 {}", targets.join(" "));
    let outside = b.user(&command).spawn()?;
    let inside = net.inside(&command).spawn()?;
    let outside = parse(&outside.wait(PATIENCE)?.stdout);
    let inside = parse(&inside.wait(PATIENCE)?.stdout);
    ensure!(
        outside.len() == TARGETS.len() && inside.len() == TARGETS.len(),
        "{outside:?} {inside:?}"
    );
    let mut wrong = String::new();
    for ((target, without, with), (outside, inside)) in
        TARGETS.iter().zip(outside.iter().zip(&inside))
    {
        let late = outside.millis.abs_diff(inside.millis) > TOLERANCE;
        if outside.result != *without || inside.result != *with || late {
            wrong += &format!(
                "{target}: outside {} after {} ms (expected {without}), inside {} after {} ms (expected {with})\n",
                outside.result, outside.millis, inside.result, inside.millis
            );
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    net.stop()
}

#[test]
fn failures_nothing_is_connected_before_the_destination_is() -> Result<()> {
    let b = kit::boot()?;
    b.peer(
        "nft add table inet t; nft add chain inet t in '{ type filter hook input priority 0; }'
         nft add rule inet t in tcp dport 7000 counter drop",
    )
    .ok()?;
    let net = Net::start(&b)?;
    let probe =
        net.inside("exec fixture probe 60 tcp/10.77.0.2:7000 tcp/[fd77::2]:7000").spawn()?;
    let dropped_syns = |least: u32| {
        wait::until_true("SYNs are dropped", PATIENCE, || {
            let rules = b.peer("nft list table inet t").ok()?;
            let count = rules.split("counter packets ").nth(1).and_then(|r| r.split(' ').next());
            Ok(count.and_then(|c| c.parse::<u32>().ok()).is_some_and(|count| count >= least))
        })
    };
    // Both run by now, and have begun before.
    dropped_syns(2)?;
    let started = Instant::now();
    // Each has repeated its SYN at least once, so that an early answer would have come.
    dropped_syns(4)?;
    ensure!(net.stats()?["events"]["dialing"] == 2, "{}", net.stats()?);
    let dropped = started.elapsed();
    b.peer("nft flush ruleset").ok()?;
    for outcome in parse(&probe.wait(PATIENCE)?.stdout) {
        ensure!(outcome.result == "connected", "{outcome:?}");
        let early = u128::from(outcome.millis) < dropped.as_millis();
        ensure!(!early, "{outcome:?}, but SYNs were dropped for {dropped:?}");
    }
    net.stop()
}
