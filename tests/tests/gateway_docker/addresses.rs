//! Ports that are published on single addresses of the host: of IPv6, and on several of them.

use tests::docker::{Docker, version};
use tests::{As, Result, Suite, TestBox, ensure};

use crate::support::{
    ATTACHED, FIXTURE, GATEWAY, HOST, PEER, bare, detached, drivers, page, refused, serve,
};

/// Asks every address that a port is published on; the page says which container it is of.
fn answers(b: &TestBox, who: As, host: &str, server: &str) -> Result<()> {
    let got = page(b, who, host)?;
    ensure!(got.starts_with(&format!("{server} from ")), "{host}: {got:?} and not {server}");
    Ok(())
}

/// Ports of IPv6 addresses alone start a container and are served there, and only there.
fn ipv6_alone(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    serve(d, "loopback", "-p '[::1]:8082:80'", "http 0.0.0.0:80 loopback")?;
    serve(d, "outside", "-p '[fd77::1]:8083:80'", "http 0.0.0.0:80 outside")?;
    serve(d, "all", "-p '[::]:8084:80'", "http 0.0.0.0:80 all")?;
    answers(b, As::User, "[::1]:8082", "loopback")?;
    answers(b, As::Peer, "[fd77::1]:8083", "outside")?;
    answers(b, As::User, "[::1]:8084", "all")?;
    answers(b, As::Peer, "[fd77::1]:8084", "all")?;
    for host in ["127.0.0.1:8082", "127.0.0.1:8083", "127.0.0.1:8084"] {
        refused(b, As::User, host)?;
    }
    refused(b, As::Peer, "[fd77::1]:8082")?;
    d.run("rm -f loopback outside all")?;
    refused(b, As::User, "[::1]:8082")
}

/// One port of the host belongs to different containers on IPv4 and on IPv6.
fn each_family_its_own(b: &TestBox, d: &Docker<'_>) -> Result<()> {
    serve(d, "four", "-p 0.0.0.0:8086:80", "http 0.0.0.0:80 four")?;
    serve(d, "six", "-p '[::]:8086:80'", "http 0.0.0.0:80 six")?;
    answers(b, As::User, "127.0.0.1:8086", "four")?;
    answers(b, As::User, "[::1]:8086", "six")?;
    answers(b, As::Peer, "[fd77::1]:8086", "six")?;
    d.run("rm -f six")?;
    answers(b, As::Peer, &format!("{HOST}:8086"), "four")?;
    d.run("rm -f four").map(drop)
}

/// One port on several addresses, for one container and for several. Before 29.6 dockerd 28 and later knew no two IPv4
/// addresses apart, and all of them but loopback addresses still have one place in the namespace.
fn several_addresses(b: &TestBox, d: &Docker<'_>, suite: Suite) -> Result<()> {
    serve(d, "both", "-p 127.0.0.1:8094:80 -p '[::1]:8094:80'", "http 0.0.0.0:80 both")?;
    answers(b, As::User, "127.0.0.1:8094", "both")?;
    answers(b, As::User, "[::1]:8094", "both")?;
    let version = version(suite)?;
    let mut numbers = version.split('.').map_while(|n| n.parse::<u32>().ok());
    let release = (numbers.next().unwrap_or(99), numbers.next().unwrap_or(0));
    if !((28, 0)..(29, 6)).contains(&release) {
        serve(d, "one", "-p 127.0.0.1:8095:80 -p 127.0.0.2:8095:80", "http 0.0.0.0:80 one")?;
        serve(d, "two", "-p 127.0.0.3:8095:80", "http 0.0.0.0:80 two")?;
        answers(b, As::User, "127.0.0.1:8095", "one")?;
        answers(b, As::User, "127.0.0.2:8095", "one")?;
        answers(b, As::User, "127.0.0.3:8095", "two")?;
        d.run("rm -f one two")?;
    }
    if release < (28, 0) {
        let options = format!("-p 127.0.0.1:8096:80 -p {HOST}:8096:80");
        serve(d, "one", &options, "http 0.0.0.0:80 one")?;
        answers(b, As::User, "127.0.0.1:8096", "one")?;
        answers(b, As::Peer, &format!("{HOST}:8096"), "one")?;
        d.run("rm -f one")?;
    }
    d.run("rm -f both").map(drop)
}

fn published(suite: Suite) -> Result<()> {
    published_with(suite, &[])
}

fn published_with(suite: Suite, env: &[(&str, &str)]) -> Result<()> {
    let b = bare(suite)?;
    let d = Docker::start(&b, env)?;
    drivers(&b, "gateway", "gateway")?;
    d.import()?;
    ensure!(!env.contains(&ATTACHED) || !detached(&b)?, "{env:?} has no effect");
    ipv6_alone(&b, &d)?;
    each_family_its_own(&b, &d)?;
    several_addresses(&b, &d, suite)?;
    // The common case is what it was: clients are seen as they are.
    serve(&d, "web", "-p 8080:80", "http 0.0.0.0:80 page")?;
    assert_eq!(page(&b, As::Peer, &format!("{HOST}:8080"))?, format!("page from {PEER}\n"));
    assert_eq!(page(&b, As::User, "127.0.0.1:8080")?, format!("page from {GATEWAY}\n"));
    answers(&b, As::User, "[::1]:8080", "page")?;
    answers(&b, As::Peer, "[fd77::1]:8080", "page")?;
    d.run("rm -f web")?;
    d.stop()
}

#[test]
fn ports_of_single_addresses_with_docker_20_10() -> Result<()> {
    published(Suite::Bookworm)
}

#[test]
fn ports_of_single_addresses_with_docker_26_1() -> Result<()> {
    published(Suite::Trixie)
}

#[test]
fn ports_of_single_addresses_with_the_newest_docker() -> Result<()> {
    published(Suite::Sid)
}

/// The newest dockerd takes the detached namespace by itself.
#[test]
fn ports_of_single_addresses_with_the_newest_docker_in_an_attached_namespace() -> Result<()> {
    published_with(Suite::Sid, &[ATTACHED])
}

/// A container with an IPv6 address sees IPv6 clients as they are; one without is served by Docker's proxy.
#[test]
fn ipv6_clients_keep_their_addresses_with_ipv6() -> Result<()> {
    let b = bare(Suite::Sid)?;
    let d = Docker::start(&b, &[("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "--ipv6")])?;
    d.import()?;
    d.run("network create --ipv6 --subnet fd99::/64 six")?;
    serve(&d, "six", "--network=six -p 8080:80", "http [::]:80 page")?;
    assert_eq!(page(&b, As::Peer, "[fd77::1]:8080")?, "page from fd77::2\n");
    assert_eq!(page(&b, As::User, "[::1]:8080")?, "page from fd00::2\n");
    let four = page(&b, As::Peer, &format!("{HOST}:8080"))?;
    ensure!(four.contains(PEER), "{four}");
    let udp = format!("--network=six -p 9998:9998/udp {FIXTURE}");
    serve(&d, "ask", &udp, "udp-echo [::]:9998")?;
    let seen = b.argv(As::Peer, &["fixture", "udp-ask", "[fd77::1]:9998", "hi"]).ok()?;
    ensure!(seen.starts_with("fd77::2:"), "{seen}");
    serve(&d, "four", "-p 8081:80 -p '[::1]:8082:80'", "http 0.0.0.0:80 four")?;
    answers(&b, As::Peer, "[fd77::1]:8081", "four")?;
    answers(&b, As::User, "[::1]:8082", "four")?;
    assert_eq!(page(&b, As::Peer, &format!("{HOST}:8081"))?, format!("four from {PEER}\n"));
    d.run("rm -f six four ask")?;
    d.stop()
}
