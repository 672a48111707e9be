//! The page that the matrix becomes.

use std::fmt::Write as _;

use tests::{Result, ensure};

use super::{Bridge, Case, Column, DOCKERS, NEWEST, Proto, Seen};

/// Why cells are wrong: which, for which reason.
struct Fault {
    holds: fn(&str, Case, &Seen) -> bool,
    cells: &'static str,
    reason: &'static str,
}

const FAULTS: [Fault; 2] = [
    Fault {
        holds: |docker, case, seen| {
            super::needs_proxy(docker) && !case.proxy && *seen == Seen::Refused
        },
        cells: "Docker 20.10 and 26.1, userland proxy off: dockerd-rootless.sh refuses to start",
        reason: "Before release 28, dockerd itself does not ask RootlessKit to publish ports. Instead, it starts \
                 `rootlesskit-docker-proxy` as its userland proxy, and that program publishes the port and starts Docker's \
                 own proxy. Without a userland proxy, no port would be published. dockerd-rootless.sh therefore refuses to start \
                 these versions, except with two port drivers: with `implicit`, pasta publishes every port that a program \
                 listens on, and with `none`, no ports are published. Keep `\"userland-proxy\": true`: most IPv4 traffic \
                 does not pass through it.",
    },
    Fault {
        holds: |docker, case, seen| {
            super::needs_proxy(docker)
                && case.one()
                && !case.client.is_v6()
                && *seen == Seen::Bridge
        },
        cells: "Docker 20.10 and 26.1, port published on one address that is not a loopback address: bridge",
        reason: "Before release 28, Docker's own NAT rule forwards packets to the container only if they are \
                 addressed to that host address. The namespace does not have this address, so the userland proxy \
                 takes the connection. If the server needs its clients' addresses, publish the port on all \
                 addresses, or use Docker 28 or later.",
    },
];

/// What precedes the version of the dockerd that the last column was made with.
pub(super) const SEEN_WITH: &str = "Last generated with: dockerd ";

const HEAD: &str = "\
# Source addresses that containers see

This page shows which source address a server in a container sees when a client connects to a published port. It applies to
`--net=gateway --port-driver=gateway` on hosts with Linux before 7.3 ([later versions](../network.md#linux-73-and-later)).
dockerd-rootless.sh selects these drivers by default if the host supports them. Each
cell of the tables contains one of these values:

- **own**: the client's own address and port.
- **gateway**: 10.0.2.2, the gateway's address. IPv4 clients on the host's loopback appear this way, because in the container,
  127.0.0.1 means the container itself. IPv6 clients also appear this way if Docker's userland proxy is off.
- **bridge**: 172.17.0.1, the address of Docker's bridge. If a container has only an IPv4 address and the userland proxy is on,
  IPv6 clients reach the container through the proxy, as with rootful Docker.
- *Italics*: a limitation, explained under [Known limitations](#known-limitations). \"Does not start\" means that
  dockerd-rootless.sh refuses to start.

Even if the userland proxy is on, which is Docker's default, IPv4 traffic does not pass through it. [Known
limitations](#known-limitations) describes the only exception. With `--ipv6` (`DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--ipv6`) and a network that has IPv6
(`docker network create --ipv6`), a container also sees IPv6 clients' own addresses.

A test with real daemons, each on a host without any network helper, generates this page. Run
`cargo test -p tests --test gateway_docker matrix` to verify the page, or add `UPDATE=1` to regenerate it.

";

/// The whole page. `newest` is the version that the last column was made with, if that is to be written anew.
///
/// # Errors
/// A cell is wrong and no reason is known.
pub(super) fn render(columns: &[Column], newest: Option<&str>) -> Result<String> {
    let mut text = HEAD.to_owned();
    let kept = super::kept::read()?;
    let seen = newest.or(kept.seen_with.as_deref()).unwrap_or("none so far");
    writeln!(
        text,
        "Debian does not package Docker {NEWEST}. The test verifies its column only if `DOCKERD_UNDER_TEST=PATH` \
         names a dockerd {NEWEST}\nwith its docker-proxy in the same directory; every other run keeps the column \
         unchanged. {SEEN_WITH}{seen}."
    )?;
    let mut kept = kept.cells.into_iter();
    let kept = &mut kept;
    text.push_str("\n## IPv4 clients\n\n");
    table(&mut text, columns, kept, |case| !case.one() && !case.client.is_v6())?;
    text.push_str("\nIn the next table, the port is published on one address only: `-p 127.0.0.1:8080:80` for clients on loopback, `-p ADDRESS_OF_THE_HOST:8080:80` for other hosts.\n\n");
    table(&mut text, columns, kept, |case| case.one() && !case.client.is_v6())?;
    text.push_str(
        "\n## IPv6 clients\n\nWithout the userland proxy, IPv6 clients can connect because dockerd-rootless.sh \
         passes `--gateway-dual-stack`: a port published on 0.0.0.0 is also published on `::`.\n\n",
    );
    table(&mut text, columns, kept, |case| !case.one() && case.client.is_v6())?;
    text.push_str("\nIn the next table, the port is published on one address only: `-p '[::1]:8080:80'` for clients on loopback, `-p '[ADDRESS_OF_THE_HOST]:8080:80'` for other hosts.\n\n");
    table(&mut text, columns, kept, |case| case.one() && case.client.is_v6())?;
    text.push_str("\n## Known limitations\n\n");
    let found = faults(columns)?;
    if found.is_empty() {
        text.push_str("None.\n");
    }
    for fault in found {
        writeln!(text, "- {}. {}", fault.cells, fault.reason)?;
    }
    Ok(text)
}

fn table(
    text: &mut String,
    columns: &[Column],
    kept: &mut impl Iterator<Item = String>,
    rows: fn(&Case) -> bool,
) -> Result<()> {
    text.push_str("| protocol | network | userland proxy | client |");
    for version in DOCKERS.map(|(_, version)| version).into_iter().chain([NEWEST]) {
        write!(text, " Docker {version} |")?;
    }
    text.push_str("\n|---|---|---|---|");
    text.push_str(&"---|".repeat(DOCKERS.len() + 1));
    text.push('\n');
    for case in super::cases().into_iter().filter(rows) {
        write!(text, "| {} |", words(case).join(" | "))?;
        for column in columns {
            write!(text, " {} |", cell(case, seen(column, case)?))?;
        }
        let was = kept.next();
        if columns.len() == DOCKERS.len() {
            write!(text, " {} |", was.unwrap_or_else(|| "not tried".to_owned()))?;
        }
        text.push('\n');
    }
    Ok(())
}

fn words(case: Case) -> [&'static str; 4] {
    [
        if case.proto == Proto::Tcp { "TCP" } else { "UDP" },
        if case.bridge == Bridge::Default { "default bridge" } else { "custom bridge" },
        if case.proxy { "on" } else { "off" },
        if case.client.asks().0 == tests::As::User { "loopback" } else { "another host" },
    ]
}

fn seen(column: &Column, case: Case) -> Result<&Seen> {
    let found = column.iter().find(|(asked, _)| *asked == case);
    let (_, seen) = found.ok_or_else(|| tests::Error::msg(format!("{case:?} was not asked")))?;
    Ok(seen)
}

fn cell(case: Case, seen: &Seen) -> String {
    let text = match seen {
        Seen::Own => "own",
        Seen::OwnAddress => "own address, another port",
        Seen::Gateway => "gateway",
        Seen::Bridge => "bridge",
        Seen::Refused => return "*does not start*".to_owned(),
        Seen::Other(ip) => ip,
        Seen::Nothing => "not served",
    };
    if case.right(seen) { text.to_owned() } else { format!("*{text}*") }
}

/// The faults that wrong cells show.
fn faults(columns: &[Column]) -> Result<Vec<&'static Fault>> {
    let mut found = vec![false; FAULTS.len()];
    let mut unknown = String::new();
    let dockers = DOCKERS.map(|(_, docker)| docker).into_iter().chain([NEWEST]);
    for (docker, column) in dockers.zip(columns) {
        for (case, seen) in column.iter().filter(|(case, seen)| !case.right(seen)) {
            match FAULTS.iter().position(|fault| (fault.holds)(docker, *case, seen)) {
                Some(known) => found[known] = true,
                None => writeln!(unknown, "Docker {docker}: {case:?}: {seen:?}")?,
            }
        }
    }
    ensure!(unknown.is_empty(), "wrong cells, and nobody knows why:\n{unknown}");
    Ok(FAULTS.iter().zip(found).filter(|(_, found)| *found).map(|(fault, _)| fault).collect())
}
