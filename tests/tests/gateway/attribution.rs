//! Which container has sent something, without Docker: a namespace behind a masquerade is as good as one.

use serde_json::Value;
use tests::{As, Context as _, PATIENCE, Result, ensure, wait};

use crate::kit::{self, FLAGS, Net, gateways, number};

/// Makes a namespace behind a masquerade, in which it runs its arguments.
pub(crate) const BEGIN: &str = "
    set -e
    unshare -n sleep 1000 >/dev/null 2>&1 & c=$!
    trap 'kill $c 2>/dev/null || true' EXIT
    until [ \"$(readlink /proc/$c/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
    ip link add c0 type veth peer name eth0 netns $c
    ip addr add 172.20.0.1/24 dev c0 && ip link set c0 up
    inside() { nsenter -t $c -n \"$@\"; }
    inside ip addr add 172.20.0.2/24 dev eth0 && inside ip link set eth0 up
    inside ip route add default via 172.20.0.1
    echo 1 >/proc/sys/net/ipv4/ip_forward
    nft 'add table ip m; add chain ip m out { type nat hook postrouting priority srcnat; }'
    nft 'add rule ip m out oifname tap0 masquerade'";
pub(crate) const END: &str = "
    nft delete table ip m
    kill $c
    until ! ip link show c0 >/dev/null 2>&1; do sleep 0.01; done";

/// What it does.
const TALK: &str = "
    inside fixture get 10.77.0.2:7000
    ! inside fixture get 10.77.0.2:1
    inside ping -c 3 -i 0.2 -W 60 10.77.0.2
    inside dig +short foo.test @10.0.2.3";

/// TCP connections, refused ones, pings and DNS queries over UDP that are counted for an address.
fn counted(stats: &Value, ip: &str) -> [u64; 4] {
    let all = stats["containers"].as_array().into_iter().flatten();
    let one = all.into_iter().find(|one| one["ip"] == ip).cloned().unwrap_or_default();
    let paths = [&["tcp", "opened"][..], &["tcp", "failed"], &["echoRequests"], &["dnsQueries"]];
    paths.map(|path| number(&one, path))
}

#[test]
fn attribution_works_in_attached_and_detached_namespaces_and_after_a_kill() -> Result<()> {
    let b = kit::boot()?;
    for flags in [FLAGS.to_owned(), format!("{FLAGS} --detach-netns")] {
        let net = Net::with(&b, &flags)?;
        for round in 0..3 {
            // Nothing is tracked before the first round.
            net.inside("fixture get 10.77.0.2:7000").ok()?;
            net.inside(&format!("{BEGIN}\n{TALK}\n{END}")).ok()?;
            let right = |stats: &Value| {
                counted(stats, "172.20.0.2") == [1, 1, 3, 1]
                    && counted(stats, "10.0.2.100") == [1, 0, 0, 0]
            };
            wait::until_true("it is counted", PATIENCE, || Ok(right(&net.stats()?)))
                .with_context(|| format!("round {round} with {flags}: {:?}", net.stats()))?;
            ensure!(number(&net.stats()?, &["events", "unattributed"]) == 0, "{:?}", net.stats());
            let old = net.gateway()?.0;
            b.signal(old.pid, "KILL")?;
            wait::until_true("it is replaced", PATIENCE, || {
                Ok(gateways(&b).iter().any(|new| new.pid != old.pid)
                    && net.stats().is_ok_and(|stats| number(&stats, &["restarts"]) == round + 1))
            })?;
        }
        let said = net.kit.printed()?;
        ensure!(!said.contains("statistics per container"), "{said}");
        net.stop()?;
    }
    Ok(())
}

/// Two containers send from one port of the namespace, one after the other, when the connection tracking has forgotten the
/// first one.
#[test]
fn a_port_that_another_container_has_got_is_counted_for_that_one() -> Result<()> {
    let b = kit::boot()?;
    let _echo = kit::serve(&b, As::Peer, "udp-echo 0.0.0.0:9000")?;
    let net = Net::with(&b, FLAGS)?;
    let script = format!(
        "{BEGIN}
         inside ip addr add 172.20.0.3/24 dev eth0
         inside fixture each 10.77.0.2:9000 172.20.0.2:5000 1
         ping_from() {{ inside ping -q -c 1 -W 60 -e 77 -I $1 10.77.0.2; }}
         ping_from 172.20.0.2
         sleep 32
         inside fixture each 10.77.0.2:9000 172.20.0.3:5000 1
         ping_from 172.20.0.3
         {END}"
    );
    net.inside(&script).ok()?;
    let each = |stats: &Value, ip: &str| {
        let all = stats["containers"].as_array().into_iter().flatten();
        let one = all.into_iter().find(|one| one["ip"] == ip).cloned().unwrap_or_default();
        [&["udp", "opened"][..], &["udp", "bytesOut"], &["udp", "bytesIn"], &["echoRequests"]]
            .map(|path| number(&one, path))
    };
    let stats = net.stats()?;
    let right = |ip| {
        let [opened, bytes_out, bytes_in, pings] = each(&stats, ip);
        (opened, bytes_out, pings) == (1, 1, 1) && bytes_in > 0
    };
    ensure!(number(&stats, &["udp", "opened"]) == 1, "it is one flow: {stats}");
    ensure!(right("172.20.0.2") && right("172.20.0.3"), "{stats}");
    net.stop()
}
