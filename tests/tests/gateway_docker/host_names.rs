//! What containers know of the host by name: its loopback, or some ports of it, as `host-gateway`, and its name servers,
//! which they follow.

use tests::docker::Docker;
use tests::{As, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::support::{FIXTURE, bare, detached, drivers, inside, serve, start};

/// `host-gateway` is an address of the host where its loopback may be reached.
fn host_gateway(suite: Suite) -> Result<()> {
    let b = bare(suite)?;
    let d = Docker::start(&b, &[("DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK", "false")])?;
    drivers(&b, "gateway", "gateway")?;
    d.import()?;
    let add = "--add-host=host.docker.internal:host-gateway";
    let seen = inside(&d, add, "get host.docker.internal:7001")?;
    ensure!(seen.starts_with("loopback from 127.0.0.1"), "{seen}");
    d.run("network create own")?;
    let seen = inside(&d, &format!("{add} --network=own"), "get host.docker.internal:7001")?;
    ensure!(seen.starts_with("loopback from 127.0.0.1"), "{seen}");
    d.run("network rm own")?;
    d.stop()
}

#[test]
fn host_gateway_leads_to_the_hosts_loopback_with_docker_20_10() -> Result<()> {
    host_gateway(Suite::Bookworm)
}

#[test]
fn host_gateway_leads_to_the_hosts_loopback_with_docker_26_1() -> Result<()> {
    host_gateway(Suite::Trixie)
}

#[test]
fn host_gateway_leads_to_the_hosts_loopback_with_the_newest_docker() -> Result<()> {
    host_gateway(Suite::Sid)
}

/// The arguments of `docker run` that fetch a page of the host as `host-gateway`.
fn fetches(options: &str, port: u16) -> String {
    format!(
        "--add-host=host.docker.internal:host-gateway {options} {FIXTURE} bb /usr/bin/curl -sS -m 60 http://host.docker.internal:{port}/"
    )
}

/// One line of configuration opens a port of the host's loopback, and `host-gateway` leads there.
fn host_gateway_with_some_ports(suite: Suite) -> Result<()> {
    let b = bare(suite)?;
    let _closed = tests::kit::serve(&b, As::User, "http 127.0.0.1:7002 closed")?;
    let allow = ("DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW", "tcp:7001");
    let d = Docker::start(&b, &[allow])?;
    drivers(&b, "gateway", "gateway")?;
    d.import()?;
    d.run("network create own")?;
    for network in ["", "--network=own"] {
        let seen = d.output(&fetches(network, 7001))?;
        ensure!(seen.starts_with("loopback from 127.0.0.1"), "{network}: {seen}");
        // curl's status of a connection that was refused, which comes before its own patience ends.
        b.user(&format!("docker run --rm {}", fetches(network, 7002))).fails_with(7)?;
    }
    d.run("network rm own")?;
    d.stop()
}

#[test]
fn host_gateway_leads_to_open_ports_of_the_hosts_loopback_with_docker_20_10() -> Result<()> {
    host_gateway_with_some_ports(Suite::Bookworm)
}

#[test]
fn host_gateway_leads_to_open_ports_of_the_hosts_loopback_with_docker_26_1() -> Result<()> {
    host_gateway_with_some_ports(Suite::Trixie)
}

#[test]
fn host_gateway_leads_to_open_ports_of_the_hosts_loopback_with_the_newest_docker() -> Result<()> {
    host_gateway_with_some_ports(Suite::Sid)
}

/// dockerd takes one address of each family since release 28.
#[test]
fn host_gateway_leads_to_open_ports_of_both_families_with_the_newest_docker() -> Result<()> {
    let b = bare(Suite::Sid)?;
    let _six = tests::kit::serve(&b, As::User, "http [::1]:7004 six")?;
    let d = Docker::start(
        &b,
        &[
            ("DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW", "tcp:7001,tcp:7004"),
            ("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--ipv6"),
        ],
    )?;
    d.import()?;
    d.run("network create --ipv6 --subnet fd00:d0c::/64 own")?;
    for (port, seen) in [(7001, "loopback from 127.0.0.1"), (7004, "six from ::1")] {
        let text = d.output(&fetches("--network=own", port))?;
        ensure!(text.starts_with(seen), "{text}");
    }
    d.run("network rm own")?;
    d.stop()
}

/// An address that the user has chosen stays.
#[test]
fn host_gateway_is_what_the_user_says() -> Result<()> {
    let b = bare(Suite::Sid)?;
    b.user("mkdir -p ~/.config/docker; echo '{\"host-gateway-ip\": \"10.77.0.2\"}' > ~/.config/docker/daemon.json")
        .ok()?;
    let allow = ("DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW", "tcp:7001");
    let d = Docker::start(&b, &[allow])?;
    d.import()?;
    let add = "--add-host=host.docker.internal:host-gateway";
    ensure!(inside(&d, add, "get host.docker.internal:7000")?.starts_with("peer from "));
    ensure!(inside(&d, "", "get 10.0.2.2:7001")?.starts_with("loopback from "));
    d.stop()
}

/// Two name servers of the other machine, with different answers to `TXT tag.test`.
fn name_servers(b: &TestBox) -> Result<()> {
    b.stop_name_server()?;
    for (address, tag) in [("10.77.0.3", "before"), ("10.77.0.4", "after")] {
        let log = format!("/run/box/names-{tag}.log");
        b.peer(&format!(
            "ip addr add {address}/24 dev eth1
             setsid -f fixture names {address}:53 {tag} >{log} 2>&1 </dev/null"
        ))
        .ok()?;
        wait::until_true("a name server listens", PATIENCE, || {
            Ok(std::fs::read_to_string(b.path(&log)).is_ok_and(|text| text.contains("ready")))
        })?;
    }
    Ok(())
}

/// Which of them answers programs in the network of a running container that use its `resolv.conf`.
fn tag(b: &TestBox, d: &Docker<'_>, name: &str) -> Result<String> {
    let resolv = d.run(&format!("exec {name} cat /etc/resolv.conf"))?;
    let server = resolv.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server = server.unwrap_or_default().trim();
    let pid = d.run(&format!("inspect -f '{{{{.State.Pid}}}}' {name}"))?;
    let ask =
        format!("nsenter -t {} -n dig +short +tries=1 +time=5 TXT tag.test @{server}", pid.trim());
    Ok(b.argv(As::Root, &["sh", "-c", &ask]).run()?.stdout)
}

/// Containers that run on while the host's `/etc/resolv.conf` gets another server, and is replaced. In a detached namespace
/// dockerd itself hands out servers on the LAN, and `--dns` is the remedy.
fn running_containers_follow(suite: Suite) -> Result<()> {
    let b = bare(suite)?;
    name_servers(&b)?;
    b.root(
        "mkdir /run/r; echo nameserver 10.77.0.3 > /run/r/resolv.conf; rm /etc/resolv.conf
         ln -s /run/r/resolv.conf /etc/resolv.conf",
    )
    .ok()?;
    let d = start(&b)?;
    let remedy = if detached(&b)? { "--dns=10.0.2.3" } else { "" };
    d.run("network create own")?;
    serve(&d, "plain", remedy, "http 0.0.0.0:80 page")?;
    serve(&d, "custom", &format!("--network=own {remedy}"), "http 0.0.0.0:80 page")?;
    for (how, expected, script) in [
        ("none", "before", ":"),
        ("behind the link", "after", "echo nameserver 10.77.0.4 > /run/r/resolv.conf"),
        (
            "the link becomes a file",
            "before",
            "echo nameserver 10.77.0.3 > /etc/new; mv -T /etc/new /etc/resolv.conf",
        ),
    ] {
        b.root(script).ok()?;
        for name in ["plain", "custom"] {
            wait::until_true(&format!("{name} follows: {how}"), PATIENCE, || {
                Ok(tag(&b, &d, name)? == format!("\"{expected}\"\n"))
            })?;
        }
    }
    d.run("rm -f plain custom")?;
    d.run("network rm own")?;
    d.stop()
}

#[test]
fn running_containers_follow_the_hosts_name_servers_with_docker_20_10() -> Result<()> {
    running_containers_follow(Suite::Bookworm)
}

#[test]
fn running_containers_follow_the_hosts_name_servers_with_docker_26_1() -> Result<()> {
    running_containers_follow(Suite::Trixie)
}

#[test]
fn running_containers_follow_the_hosts_name_servers_with_the_newest_docker() -> Result<()> {
    running_containers_follow(Suite::Sid)
}
