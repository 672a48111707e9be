//! Docker's kinds of networks: of the host, of the user, closed ones, and how they are kept apart.

use std::collections::BTreeMap;

use tests::docker::{Docker, LEFT_BY_DOCKERD};
use tests::{As, Error, Result, Suite, TestBox, ensure};

use crate::support::{
    FIXTURE, HOST, PEER, bare, detached, inside, page, peer_serves, refused, serve, start,
    ways_out, ways_out_but_ping,
};

/// The address of a container in its one network.
fn address(d: &Docker<'_>, name: &str) -> Result<String> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    Ok(d.run(&format!("inspect -f '{format}' {name}"))?.trim().to_owned())
}

/// `--net=host` is the network of the namespace: every way out, no way in but by a published port. Where the namespace is
/// detached it is the host's own, which decides who may ping.
fn host_network(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    ways_out_but_ping(d, "--network=host")?;
    serve(d, "hostnet", "--network=host", "http 0.0.0.0:8085 page")?;
    if detached(b)? {
        assert_eq!(page(b, As::Peer, &format!("{HOST}:8085"))?, format!("page from {PEER}\n"));
        assert_eq!(page(b, As::User, "127.0.0.1:8085")?, "page from 127.0.0.1\n");
    } else {
        d.run(&format!("run --rm --network=host bb ping -c 1 -W 5 {PEER}"))?;
        let links = d.output("--network=host bb ip -o addr show dev tap0")?;
        ensure!(links.contains("10.0.2.100/24"), "{links}");
        refused(b, As::Peer, &format!("{HOST}:8085"))?;
        refused(b, As::User, "127.0.0.1:8085")?;
    }
    d.run("rm -f hostnet").map(drop)
}

/// F089: containers find each other by name, the world by name and address, and the world finds them.
fn custom_network(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    d.run("network create own")?;
    ways_out(d, "--network=own")?;
    serve(d, "srv", "--network=own -p 8081:80", "http 0.0.0.0:80 page")?;
    ensure!(inside(d, "--network=own", "get srv:80")?.starts_with("page from 172."));
    assert_eq!(page(b, As::Peer, &format!("{HOST}:8081"))?, format!("page from {PEER}\n"));
    Ok(())
}

/// A container reaches the published ports of others by the host's outside address, whatever network they are in.
fn hairpin(d: &Docker<'_>) -> Result<()> {
    for options in ["", "--network=own"] {
        for port in [8081, 8082] {
            let seen = inside(d, options, &format!("get {HOST}:{port}"))?;
            ensure!(seen.starts_with("page from "), "{options} to port {port}: {seen}");
        }
        let seen = inside(d, options, &format!("udp-ask {HOST}:9998 hi"))?;
        ensure!(seen.ends_with(" hi\n"), "{options}: {seen}");
    }
    Ok(())
}

/// Runs containers that all have to succeed or all have to fail, at the same time: most of those that fail wait for an
/// answer until they give up.
fn all(d: &Docker<'_>, succeed: bool, options: &str, commands: &[String]) -> Result<()> {
    std::thread::scope(|scope| {
        let run = |command| {
            let line = format!("{options} {command}");
            // A silent success is none for those that have to print, and no failure for the others.
            scope.spawn(move || match succeed {
                true => d.output(&line),
                false => d.run(&format!("run --rm {line}")),
            })
        };
        let threads: Vec<_> = commands.iter().map(|command| (command, run(command))).collect();
        for (command, thread) in threads {
            let out = thread.join().map_err(|_| Error::msg("a run panicked"))?;
            ensure!(out.is_ok() == succeed, "docker run {options} {command}: {out:?}");
        }
        Ok(())
    })
}

/// Containers of different networks do not reach each other by their addresses; in one network they do.
fn isolated(d: &Docker<'_>) -> Result<()> {
    let mut across: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (server, its, others, probe) in [
        ("srv", "--network=own", "", "get ADDRESS:80"),
        ("other", "", "--network=own", "get ADDRESS:80"),
        ("ask", "", "--network=own", "udp-ask ADDRESS:9998 hi"),
    ] {
        let ip = address(d, server)?;
        let probe = format!("{FIXTURE} bb fixture {}", probe.replace("ADDRESS", &ip));
        let probes = [probe, format!("bb ping -c 1 -W 2 {ip}")];
        all(d, true, its, &probes)?;
        across.entry(others).or_default().extend(probes);
    }
    across.iter().try_for_each(|(options, probes)| all(d, false, options, probes))
}

/// An internal network leads nowhere and nobody gets in, though its containers talk to each other.
fn internal_network(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    d.run("network create --internal closed")?;
    let closed = "--network=closed";
    serve(d, "inner", "--network=closed -p 8083:80", "http 0.0.0.0:80 page")?;
    ensure!(inside(d, closed, "get inner:80")?.starts_with("page from "));
    let mut out =
        vec![format!("bb ping -c 1 -W 2 {PEER}"), "bb ping -c 1 -W 2 10.0.2.2".to_owned()];
    for verb in ["get 10.77.0.2:7000", "get peer.test:7000", "udp-ask 10.77.0.2:9000 hi"] {
        out.push(format!("{FIXTURE} bb fixture {verb}"));
    }
    for server in ["", "10.0.2.3", PEER] {
        out.push(format!("bb sh -c 'timeout 4 nslookup foo.test {server} | grep 10.9.8.7'"));
    }
    all(d, true, "", &out)?;
    all(d, false, closed, &out)?;
    for (who, host) in [(As::User, "127.0.0.1"), (As::User, HOST), (As::Peer, HOST)] {
        let got = page(b, who, &format!("{host}:8083"));
        ensure!(got.is_err(), "{who:?} at {host}: {got:?}");
    }
    Ok(())
}

#[test]
fn networks_of_the_host_of_the_user_and_closed_ones() -> Result<()> {
    let b = bare(Suite::Sid)?;
    peer_serves(&b, "udp-echo 0.0.0.0:9000")?;
    let d = start(&b)?;
    host_network(&b, &d)?;
    custom_network(&b, &d)?;
    serve(&d, "other", "-p 8082:80", "http 0.0.0.0:80 page")?;
    serve(&d, "ask", "-p 9998:9998/udp", "udp-echo 0.0.0.0:9998")?;
    hairpin(&d)?;
    isolated(&d)?;
    internal_network(&b, &d)?;
    d.run("rm -f srv other ask inner")?;
    d.run("network rm own closed")?;
    d.stop()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

/// The launcher adds `--ipv6`, and with what the doctor proposes for daemon.json containers find out.
#[test]
fn on_a_host_with_ipv6_only_containers_reach_the_outside() -> Result<()> {
    let b = bare(Suite::Sid)?;
    b.root("ip route del default").ok()?;
    let check = "dockerd-rootless-setuptool.sh check --json";
    let said = b.user(check).run()?.stdout;
    let proposed = r#"\"ipv6\": true and \"fixed-cidr-v6\": \"fd00:d0c:1::/64\""#;
    ensure!(said.contains("\"ipv6-only\"") && said.contains(proposed), "{said}");
    let config = proposed.replace('\\', "").replace(" and ", ", ");
    b.user(&format!("mkdir -p .config/docker; echo '{{{config}}}' > .config/docker/daemon.json"))
        .ok()?;
    let said = b.user(check).run()?.stdout;
    ensure!(!said.contains("\"ipv6-only\""), "{said}");
    let d = start(&b)?;
    let seen = inside(&d, "", "get [fd77::2]:7000")?;
    ensure!(seen.starts_with("peer from fd77::1"), "{seen}");
    d.stop()
}

/// `check` reports networks that do not work and swarms that may create such networks, and its remedy makes them work.
#[test]
fn networks_with_the_addresses_of_the_gateway_are_found_and_work_with_another_cidr() -> Result<()> {
    const FLAGS: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS";
    let b = bare(Suite::Sid)?;
    let d = start(&b)?;
    let said = |flags: &str| {
        let check = b.user("dockerd-rootless-setuptool.sh check --json").env(FLAGS, flags);
        Ok::<_, Error>(check.run()?.stdout)
    };
    d.run("network create --subnet 10.0.3.0/24 good")?;
    let found = said("")?;
    ensure!(!found.contains("overlap") && !found.contains("swarm-pool"), "{found}");
    // The ingress network, and two more.
    d.run(&format!("swarm init --advertise-addr {HOST}"))?;
    ensure!(said("")?.contains("\"swarm-pool\""));
    for name in ["front", "back"] {
        d.run(&format!("network create -d overlay {name}"))?;
    }
    let found = said("")?;
    ensure!(found.contains("\\\"back\\\" (overlay, 10.0.2.0/24)"), "{found}");
    d.run("swarm leave --force")?;

    d.run("network create --subnet 10.0.2.0/24 clash")?;
    let outside = |d: &Docker<'_>| inside(d, "--network=clash", &format!("get {PEER}:7000"));
    ensure!(outside(&d).is_err(), "the network works");
    let found = said("")?;
    ensure!(found.contains("\\\"clash\\\" (bridge, 10.0.2.0/24)"), "{found}");
    d.stop()?;

    let flags = "--cidr=10.41.0.0/24";
    ensure!(found.contains(&format!("add {flags} to {FLAGS}")), "{found}");
    let d = Docker::start(&b, &[(FLAGS, flags)])?;
    let found = said(flags)?;
    ensure!(!found.contains("\"docker-network-overlap\""), "{found}");
    ensure!(outside(&d)?.starts_with(&format!("peer from {HOST}")));
    d.stop()
}
