//! Other drivers by name: `--net=gvisor-tap-vsock`, as the launcher of Docker 29.5 falls back to it, is served by the
//! gateway, and its network goes together with the ports of `builtin`.

use tests::docker::{Docker, LEFT_BY_DOCKERD};
use tests::{As, Context as _, Result, Suite, TestBox, UPSTREAM_LAUNCHER, ensure};

use crate::support::{
    HOST, PEER, bare, drivers, inside, page, peer_serves, refused, serve, ways_out,
};

/// A daemon under the launcher that Docker ships, told what that of 29.5 chooses where no helper is installed.
fn under_upstreams_launcher(port_driver: &str) -> Result<()> {
    let b = bare(Suite::Sid)?;
    peer_serves(&b, "udp-echo 0.0.0.0:9000")?;
    let d = Docker::start_with(
        &b,
        UPSTREAM_LAUNCHER,
        &[
            ("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "gvisor-tap-vsock"),
            ("DOCKERD_ROOTLESS_ROOTLESSKIT_MTU", "65520"),
            ("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", port_driver),
        ],
    )?;
    drivers(&b, "gvisor-tap-vsock", port_driver)?;
    let argv = command_line(&b, &d)?;
    for flag in [
        "--net=gvisor-tap-vsock",
        "--mtu=65520",
        "--slirp4netns-sandbox=auto",
        "--disable-host-loopback",
    ] {
        ensure!(argv.contains(flag), "no {flag} in {argv}");
    }
    d.import()?;
    ways_out(&d, "")?;
    let link = d.output("--network=host bb ip -o link show dev tap0")?;
    ensure!(link.contains(" mtu 65520 "), "{link}");
    // The addresses of that driver: the gateway, which is the name server as well, is the first.
    let route = d.output("--network=host bb ip route show default")?;
    ensure!(route.starts_with("default via 10.0.2.1 "), "{route}");
    let names = d.output("bb nslookup foo.test 10.0.2.1")?;
    ensure!(names.contains("10.9.8.7"), "{names}");
    let loopback = inside(&d, "", "get 10.0.2.1:7001");
    ensure!(loopback.is_err(), "the host's loopback is open: {loopback:?}");
    serve(&d, "web", "-p 8080:80", "http 0.0.0.0:80 page")?;
    serve(&d, "udp", "-p 9999:9999/udp", "udp-echo 0.0.0.0:9999")?;
    for (who, host) in [(As::User, "127.0.0.1"), (As::User, HOST), (As::Peer, HOST)] {
        let got = page(&b, who, &format!("{host}:8080"))?;
        ensure!(got.starts_with("page from "), "{got}");
        let got = b.argv(who, &["fixture", "udp-ask", &format!("{host}:9999"), "hi"]).ok()?;
        ensure!(got.ends_with(" hi\n"), "{got}");
    }
    if port_driver == "gvisor-tap-vsock" {
        assert_eq!(page(&b, As::Peer, &format!("{HOST}:8080"))?, format!("page from {PEER}\n"));
    }
    d.run("rm -f web udp")?;
    refused(&b, As::Peer, &format!("{HOST}:8080"))?;
    d.stop()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}

/// The command line of rootlesskit, into which the launcher turned itself.
fn command_line(b: &TestBox, d: &Docker<'_>) -> Result<String> {
    let pid = d.daemon().pid();
    let found = b.processes().into_iter().find(|process| process.pid == pid);
    Ok(found.context("the launcher ended")?.command)
}

#[test]
fn gvisor_tap_vsock_with_builtin_ports() -> Result<()> {
    under_upstreams_launcher("builtin")
}

#[test]
fn gvisor_tap_vsock_with_ports_of_its_own() -> Result<()> {
    under_upstreams_launcher("gvisor-tap-vsock")
}

/// The way out for those who need ports on IPv6 addresses, which the port driver `gateway` cannot offer to dockerd.
#[test]
fn builtin_ports_on_the_gateway_network_take_ipv6_addresses() -> Result<()> {
    let b = bare(Suite::Sid)?;
    let d = Docker::start(&b, &[("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "builtin")])?;
    drivers(&b, "gateway", "builtin")?;
    d.import()?;
    serve(&d, "web", "-p 8080:80 -p '[::1]:8081:80'", "http 0.0.0.0:80 page")?;
    for (who, host) in [
        (As::User, "127.0.0.1:8080"),
        (As::User, "[::1]:8080"),
        (As::User, "[::1]:8081"),
        (As::Peer, "10.77.0.1:8080"),
        (As::Peer, "[fd77::1]:8080"),
    ] {
        let got = page(&b, who, host)?;
        ensure!(got.starts_with("page from "), "{host}: {got}");
    }
    refused(&b, As::User, "127.0.0.1:8081")?;
    refused(&b, As::Peer, "[fd77::1]:8081")?;
    d.run("rm -f web")?;
    d.stop()?;
    b.assert_clean(LEFT_BY_DOCKERD)
}
