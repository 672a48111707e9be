//! A container with a VXLAN link of its own, to the link of another host's root.

use tests::containers::{FIXTURE, rootlessctl};
use tests::docker::Docker;
use tests::kit::{number, serve, wrong_checksums};
use tests::{As, Result, Suite, TestBox, ensure, lan};

use crate::swarm::Hosts;

/// As much as each stream carries.
const BYTES: u64 = 100_000_000;

/// A link from one host to another, and its address.
fn link(remote: &str, number: u8) -> String {
    format!(
        "ip link add vx0 type vxlan id 42 remote {remote} dstport 4789 && ip link set vx0 mtu 1430 up &&
         ip addr add 192.168.77.{number}/24 dev vx0"
    )
}

/// Streams both ways, begun on both sides, and many connections.
fn carries(d: &Docker<'_>, other: &TestBox) -> Result<()> {
    let inside = |command: &str| d.run(&format!("exec linked {command}"));
    d.run("exec -d linked fixture streams 192.168.77.1:80")?;
    let servers = [
        serve(other, As::Root, "streams 192.168.77.2:80")?,
        serve(other, As::Root, "http 192.168.77.2:81 page")?,
    ];
    for kind in ["sink", "source"] {
        let out = inside(&format!("fixture stream 192.168.77.2:80 {kind} {BYTES}"))?;
        ensure!(out.starts_with(&format!("{BYTES} ok")), "begun inside, {kind}: {out}");
        let out = other.root(&format!("fixture stream 192.168.77.1:80 {kind} {BYTES}"));
        ensure!(out.limit(120).ok()?.starts_with(&format!("{BYTES} ok")), "begun outside, {kind}");
    }
    assert_eq!(inside("fixture load 192.168.77.2:81 3000 8")?, "3000\n");
    let counters = [inside("cat /proc/net/snmp")?, other.root("cat /proc/net/snmp").ok()?];
    for text in counters {
        assert_eq!(wrong_checksums(&text), 0, "{text}");
    }
    drop(servers);
    Ok(())
}

#[test]
fn a_vxlan_link_of_a_container_reaches_that_of_another_hosts_root() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid])?;
    let [b, other] = &hosts.boxes[..] else { unreachable!("two hosts") };
    other.root(&format!("fixture card {}", lan::DEVICE)).ok()?;
    let d = Docker::start(b, &[])?;
    d.import()?;
    let options = "--cap-add NET_ADMIN --stop-signal KILL -p 4789:4789/udp";
    d.run(&format!("run -d --name linked {FIXTURE} {options} bb sleep 1000000"))?;
    d.run(&format!(
        "exec linked sh -c '{}'",
        link("10.78.0.2", 1).replace("ip ", "/usr/sbin/ip ")
    ))?;
    other.root(&link("10.78.0.1", 2)).ok()?;
    carries(&d, other)?;
    let stats = serde_json::from_str(&rootlessctl(b, "stats --json")?)?;
    ensure!(number(&stats, &["events", "evicted"]) == 0, "{stats}");
    ensure!(number(&stats, &["udp", "opened"]) <= 4, "a flow for each connection: {stats}");
    d.stop()?;
    b.assert_no_processes()
}
