//! Docker with every pair of network and port driver that its launchers can be told and that no other scenario has: a
//! daemon comes up, ports answer, containers reach out, and a stop leaves nothing.
//!
//! `docker.rs` has the usual pairs with our launcher, `gateway_docker` those of the gateway. Most launchers here are
//! Debian's own, which differ: that of 20.10 has no fixed state directory; Docker before 28 publishes ports through
//! `rootlesskit-docker-proxy`, 28.5 through the API.

use tests::containers::{
    HOST, PEER, drivers, inside, page, peer_serves, refused, rootlessctl, serve,
};
use tests::docker::{Docker, LEFT_BY_DOCKERD};
use tests::networks::{LEFT_BY_LXC, RANGE, dhcp_server, lxc_bridge, vpnkit};
use tests::{As, Context as _, PATIENCE, Result, Suite, TestBox, UPSTREAM_LAUNCHER, ensure, wait};

const OURS: &str = "dockerd-rootless.sh";
/// A host on which every network driver of the suite works, with a server on the other machine.
fn host(suite: Suite) -> Result<TestBox> {
    let mut builder = TestBox::builder(suite);
    if suite == Suite::Bookworm {
        // Debian 12's own does not open ports by itself.
        builder = builder.pasta_of(Suite::Trixie);
    }
    let b = builder.boot()?;
    vpnkit(&b)?;
    peer_serves(&b, "udp-echo 0.0.0.0:9000")?;
    Ok(b)
}

/// A daemon's life with these drivers. The first on a host imports the image, which stays.
fn life(b: &TestBox, launcher: &str, net: &str, port: &str) -> Result<()> {
    let d = Docker::start_with(
        b,
        launcher,
        &[
            ("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", net),
            ("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", port),
        ],
    )?;
    drivers(b, net, port)?;
    if d.run("images -q bb")?.is_empty() {
        d.import()?;
    }
    serve(&d, "web", "-p 8080:80", "http 0.0.0.0:80 page")?;
    serve(&d, "udp", "-p 9999:9999/udp", "udp-echo 0.0.0.0:9999")?;
    if port == "none" {
        closed(b, &d)?;
    } else {
        published(b, port)?;
    }
    reaches_out(&d, net)?;
    d.run("rm -f web udp")?;
    wait::until_true("the port is closed", PATIENCE, || {
        Ok(refused(b, As::Peer, &format!("{HOST}:8080")).is_ok())
    })?;
    if !["none", "implicit"].contains(&port) {
        ensure!(rootlessctl(b, "list-ports --json")?.is_empty(), "ports are left");
    }
    d.stop()?;
    let left: Vec<&str> = LEFT_BY_DOCKERD.iter().chain(LEFT_BY_LXC).copied().collect();
    b.assert_clean(&left)
}

/// Both containers answer on each address of the host. pasta looks for new listeners about once a second. slirp4netns
/// shows clients of the host's loopback as its gateway and, as that is closed, drops datagrams to them.
fn published(b: &TestBox, port: &str) -> Result<()> {
    for (who, host) in [(As::User, "127.0.0.1"), (As::User, HOST), (As::Peer, HOST)] {
        let got = wait::until(&format!("{who:?} gets the page of {host}"), PATIENCE, || {
            Ok(page(b, who, &format!("{host}:8080")).ok())
        })?;
        ensure!(got.starts_with("page from "), "{who:?} at {host}: {got}");
        if port == "slirp4netns" && host == "127.0.0.1" {
            continue;
        }
        let ask = ["fixture", "udp-ask", &format!("{host}:9999"), "hi"];
        let got = wait::until(&format!("{who:?} gets a datagram of {host}"), PATIENCE, || {
            Ok(b.argv(who, &ask).ok().ok())
        })?;
        ensure!(got.ends_with(" hi\n"), "{who:?} at {host}: {got}");
    }
    Ok(())
}

/// Without a port driver dockerd's own proxy listens in the namespace, and nobody on the host.
fn closed(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    let got = inside(d, "--network=host", "get 127.0.0.1:8080")?;
    ensure!(got.starts_with("page from "), "{got}");
    refused(b, As::User, "127.0.0.1:8080")?;
    refused(b, As::Peer, &format!("{HOST}:8080"))
}

/// Names, datagrams and connections from a container. The stand-in for vpnkit passes no connections on.
fn reaches_out(d: &Docker<'_>, net: &str) -> Result<()> {
    let names = d.output("bb nslookup foo.test")?;
    ensure!(names.contains("10.9.8.7"), "{names}");
    let answer = inside(d, "", &format!("udp-ask {PEER}:9000 out"))?;
    ensure!(answer.starts_with(&format!("{HOST}:")) && answer.ends_with(" out\n"), "{answer}");
    if net != "vpnkit" {
        let got = inside(d, "", &format!("get {PEER}:7000"))?;
        ensure!(got == format!("peer from {HOST}\n"), "{got}");
    }
    Ok(())
}

/// One daemon after the other on one host, as somebody has it who tries out drivers.
fn lives(b: &TestBox, pairs: &[(&str, &str, &str)]) -> Result<()> {
    pairs.iter().try_for_each(|(launcher, net, port)| {
        life(b, launcher, net, port)
            .with_context(|| format!("--net={net} --port-driver={port} under {launcher}"))
    })
}

/// The pairs that Docker before 28 has beside those of the other files.
const BEFORE_28: [(&str, &str, &str); 8] = [
    (UPSTREAM_LAUNCHER, "slirp4netns", "builtin"),
    (UPSTREAM_LAUNCHER, "slirp4netns", "slirp4netns"),
    (UPSTREAM_LAUNCHER, "pasta", "implicit"),
    (UPSTREAM_LAUNCHER, "vpnkit", "builtin"),
    (UPSTREAM_LAUNCHER, "gateway", "builtin"),
    (UPSTREAM_LAUNCHER, "gvisor-tap-vsock", "builtin"),
    (UPSTREAM_LAUNCHER, "gvisor-tap-vsock", "gvisor-tap-vsock"),
    (OURS, "slirp4netns", "none"),
];

#[test]
fn docker_20_10_with_the_other_pairs() -> Result<()> {
    lives(&host(Suite::Bookworm)?, &BEFORE_28)
}

#[test]
fn docker_26_1_with_the_other_pairs() -> Result<()> {
    lives(&host(Suite::Trixie)?, &BEFORE_28)
}

#[test]
fn docker_28_5_with_the_other_pairs() -> Result<()> {
    lives(
        &host(Suite::Sid)?,
        &[
            (UPSTREAM_LAUNCHER, "pasta", "implicit"),
            (UPSTREAM_LAUNCHER, "pasta", "pesto"),
            (UPSTREAM_LAUNCHER, "vpnkit", "builtin"),
            (UPSTREAM_LAUNCHER, "gateway", "gateway"),
            (OURS, "slirp4netns", "none"),
            (OURS, "pasta", "none"),
        ],
    )
}

#[test]
fn docker_28_5_with_lxc_user_nic() -> Result<()> {
    let b = host(Suite::Sid)?;
    lxc_bridge(&b)?;
    let _server = dhcp_server(&b, RANGE)?;
    lives(&b, &[(OURS, "lxc-user-nic", "builtin"), (UPSTREAM_LAUNCHER, "lxc-user-nic", "builtin")])
}
