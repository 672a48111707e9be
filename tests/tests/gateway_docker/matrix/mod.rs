//! F088, F165: whose address a server in a container sees; `docs/reference/source-addresses.md` is what these scenarios found.
//!
//! Every combination of protocol, network, userland proxy, client and Docker is asked. The page has to say the same;
//! `UPDATE=1` writes it anew. A cell that is not as it should be needs a reason in [`page`], or the test fails whatever
//! the page says.

mod kept;
mod page;

use std::thread::{Scope, ScopedJoinHandle};

use tests::docker::{Docker, version};
use tests::page::{compare, updates};
use tests::{As, Context as _, Error, PATIENCE, Result, Suite, TestBox, ensure, wait};

use crate::support::{FIXTURE, GATEWAY, HOST, PEER, bare, bare_debian, drivers};

/// The generations of Docker in Debian, as the page names them.
const DOCKERS: [(Suite, &str); 3] =
    [(Suite::Bookworm, "20.10"), (Suite::Trixie, "26.1"), (Suite::Sid, "28.5")];

/// The generation that no Debian has: its column is made with `DOCKERD_UNDER_TEST` and otherwise kept as it is.
const NEWEST: &str = "29";

/// Ports of the host.
const EVERY: u16 = 8001;
const EVERY_CUSTOM: u16 = 8002;
const ONE_LOOPBACK: u16 = 8003;
const ONE_OUTSIDE: u16 = 8004;
const ONE_LOOPBACK6: u16 = 8005;
const ONE_OUTSIDE6: u16 = 8006;

/// Port of both servers in a container.
const SERVER: u16 = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proto {
    Tcp,
    Udp,
}

/// The network of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bridge {
    Default,
    Custom,
}

/// On which addresses of the host the port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binding {
    Every,
    /// The one that the client asks.
    One,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Loopback,
    OtherHost,
    Loopback6,
    OtherHost6,
}

impl Client {
    /// Who asks, and under which address of the host.
    fn asks(self) -> (As, &'static str) {
        match self {
            Self::Loopback => (As::User, "127.0.0.1"),
            Self::OtherHost => (As::Peer, HOST),
            Self::Loopback6 => (As::User, "[::1]"),
            Self::OtherHost6 => (As::Peer, "[fd77::1]"),
        }
    }

    fn is_v6(self) -> bool {
        matches!(self, Self::Loopback6 | Self::OtherHost6)
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    proto: Proto,
    bridge: Bridge,
    binding: Binding,
    proxy: bool,
    client: Client,
}

/// All cases; the order is that of the page.
fn cases() -> Vec<Case> {
    use Bridge::{Custom, Default};
    use Client::{Loopback, Loopback6, OtherHost, OtherHost6};
    let mut cases = Vec::new();
    for (binding, bridges, proxies, clients) in [
        (Binding::Every, &[Default, Custom][..], &[true, false][..], [Loopback, OtherHost]),
        // Without its proxy a dockerd before 28 does not even start such a container.
        (Binding::One, &[Default], &[true], [Loopback, OtherHost]),
        (Binding::Every, &[Default, Custom], &[true, false], [Loopback6, OtherHost6]),
        (Binding::One, &[Default], &[true], [Loopback6, OtherHost6]),
    ] {
        for client in clients {
            for proto in [Proto::Tcp, Proto::Udp] {
                for &bridge in bridges {
                    let case = |proxy| Case { proto, bridge, binding, proxy, client };
                    cases.extend(proxies.iter().copied().map(case));
                }
            }
        }
    }
    cases
}

/// What the server saw.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The client's own address and port.
    Own,
    /// The client's own address with another port.
    OwnAddress,
    Gateway,
    /// The bridge's, from which Docker's userland proxy comes.
    Bridge,
    Other(String),
    /// Nothing: the launcher does not start such a daemon.
    Refused,
    /// Nothing: the client got no answer.
    Nothing,
}

impl Case {
    /// The port that the client asks.
    fn port(self) -> u16 {
        match (self.binding, self.bridge, self.client) {
            (Binding::Every, Bridge::Default, _) => EVERY,
            (Binding::Every, Bridge::Custom, _) => EVERY_CUSTOM,
            (Binding::One, _, Client::Loopback) => ONE_LOOPBACK,
            (Binding::One, _, Client::OtherHost) => ONE_OUTSIDE,
            (Binding::One, _, Client::Loopback6) => ONE_LOOPBACK6,
            (Binding::One, _, Client::OtherHost6) => ONE_OUTSIDE6,
        }
    }

    /// Whether the port is published on one address only.
    fn one(self) -> bool {
        self.binding == Binding::One
    }

    /// Whether that is what the server ought to see.
    fn right(self, seen: &Seen) -> bool {
        match self.client {
            // Docker's proxy leads from IPv6 to a container that has IPv4 only.
            Client::Loopback6 | Client::OtherHost6 if self.proxy => *seen == Seen::Bridge,
            Client::OtherHost => {
                *seen == Seen::Own || self.proto == Proto::Udp && *seen == Seen::OwnAddress
            }
            _ => *seen == Seen::Gateway,
        }
    }

    fn ask(self, b: &TestBox) -> Result<Seen> {
        let (who, host) = self.client.asks();
        let proto = if self.proto == Proto::Tcp { "tcp" } else { "udp" };
        let address = format!("{host}:{}", self.port());
        let out = b.argv(who, &["fixture", "who", proto, &address]).run()?;
        if out.code != 0 {
            return Ok(Seen::Nothing);
        }
        let (own, seen) = out.stdout.trim().split_once(' ').context("two addresses")?;
        let (ip, port) = seen.rsplit_once(':').context("an address with a port")?;
        let same_port = own.rsplit_once(':').is_some_and(|(_, own)| own == port);
        Ok(match ip {
            GATEWAY => Seen::Gateway,
            PEER if same_port => Seen::Own,
            PEER => Seen::OwnAddress,
            "172.17.0.1" | "172.18.0.1" => Seen::Bridge,
            _ => Seen::Other(ip.to_owned()),
        })
    }

    /// Asks again for a while if it is not as it ought to be: a wrong cell is one that stays wrong.
    fn settled(self, b: &TestBox) -> Result<Seen> {
        let mut last = Seen::Nothing;
        let _ = wait::until_true("a right answer", PATIENCE, || {
            last = self.ask(b)?;
            Ok(self.right(&last))
        });
        Ok(last)
    }
}

/// What one Docker did.
type Column = Vec<(Case, Seen)>;

/// Whether a dockerd publishes nothing without its userland proxy.
fn needs_proxy(version: &str) -> bool {
    ["20.10", "26.1"].contains(&version)
}

/// The launcher says why such a daemon does not start.
fn refused_to_start(b: &TestBox) -> Result<()> {
    let out = b.user("dockerd-rootless.sh").fails_with(1)?;
    ensure!(out.contains("\"userland-proxy\" is false"), "{out}");
    Ok(())
}

fn column(suite: Suite, version: &str) -> Result<Column> {
    let b = if version == NEWEST { bare(suite)? } else { bare_debian(suite)? };
    let mut column = Vec::new();
    for proxy in [true, false] {
        let config = format!("{{\"userland-proxy\": {proxy}}}\n");
        b.user("mkdir -p ~/.config/docker; cat > ~/.config/docker/daemon.json")
            .input(config)
            .ok()?;
        if !proxy && needs_proxy(version) {
            refused_to_start(&b)?;
            let all = cases().into_iter().filter(|case| !case.proxy);
            column.extend(all.map(|case| (case, Seen::Refused)));
            continue;
        }
        let d = Docker::start(&b, &[])?;
        drivers(&b, "gateway", "gateway")?;
        ensure!(d.run("version --format '{{.Server.Version}}'")?.starts_with(version));
        d.import()?;
        d.run("network create own")?;
        let mut ports = vec![EVERY.to_string()];
        if proxy {
            ports.extend([
                format!("127.0.0.1:{ONE_LOOPBACK}"),
                format!("{HOST}:{ONE_OUTSIDE}"),
                format!("[::1]:{ONE_LOOPBACK6}"),
                format!("[fd77::1]:{ONE_OUTSIDE6}"),
            ]);
        }
        servers(&d, "bridge", &ports)?;
        servers(&d, "own", &[EVERY_CUSTOM.to_string()])?;
        for case in cases().into_iter().filter(|case| case.proxy == proxy) {
            column.push((case, case.settled(&b)?));
        }
        d.run("rm -f on-bridge on-own")?;
        d.run("network rm own")?;
        d.stop()?;
    }
    Ok(column)
}

/// A container that tells over both protocols who asks.
fn servers(d: &Docker<'_>, network: &str, published: &[String]) -> Result<()> {
    let name = format!("on-{network}");
    let ports: String =
        published.iter().map(|p| format!(" -p '{p}:{SERVER}' -p '{p}:{SERVER}/udp'")).collect();
    let (udp, tcp) = (
        format!("fixture udp-echo 0.0.0.0:{SERVER}"),
        format!("fixture tcp-echo 0.0.0.0:{SERVER}"),
    );
    d.run(&format!(
        "run -d --name {name} --network={network}{ports} {FIXTURE} bb sh -c '{udp} & exec {tcp}'"
    ))?;
    wait::until_true(&format!("{name} listens"), PATIENCE, || {
        Ok(d.run(&format!("logs {name}"))?.matches("ready").count() == 2)
    })
}

#[test]
fn the_address_matrix_is_as_the_page_says() -> Result<()> {
    let given = version(Suite::Sid)?;
    let is_newest = given.split('.').next() == Some(NEWEST);
    let newest = is_newest.then_some((Suite::Sid, NEWEST));
    let columns = std::thread::scope(|scope| -> Result<Vec<Column>> {
        let start = |(suite, version)| spawn(scope, suite, version);
        let threads: Vec<_> = DOCKERS.into_iter().chain(newest).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Error::msg("a column panicked"))?)
            .collect()
    })?;
    // Another release of the same generation has to give the same cells, and nothing else on the page changes.
    let text = page::render(&columns, Some(given.as_str()).filter(|_| is_newest && updates()))?;
    compare("reference/source-addresses.md", &text)
}

/// A box ends with the thread that booted it, so each Docker has one.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    suite: Suite,
    version: &'static str,
) -> ScopedJoinHandle<'scope, Result<Column>> {
    scope.spawn(move || column(suite, version).with_context(|| format!("Docker {version}")))
}
