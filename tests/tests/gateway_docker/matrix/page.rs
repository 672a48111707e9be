//! The page that the matrix becomes.

use std::fmt::Write as _;

use tests::{Result, ensure};

use super::{Bridge, Case, Column, DOCKERS, Proto, Seen};

/// Why cells are wrong: which, for which reason.
struct Fault {
    holds: fn(&str, Case, &Seen) -> bool,
    cells: &'static str,
    reason: &'static str,
}

const FAULTS: [Fault; 3] = [
    Fault {
        holds: |docker, case, seen| docker != "28.5" && !case.proxy && *seen == Seen::Nothing,
        cells: "Docker 20.10 and 26.1, userland proxy off: not served",
        reason: "Before release 28 dockerd does not ask for ports by itself. It is `rootlesskit-docker-proxy`, started in place \
                 of the userland proxy, that does; without a userland proxy nobody does. Leave `userland-proxy` on.",
    },
    Fault {
        holds: |docker, case, seen| {
            let bridge = Seen::Other("172.17.0.1".to_owned());
            docker != "28.5" && case.one() && case.proxy && *seen == bridge
        },
        cells: "Docker 20.10 and 26.1, port published on one address: the address of Docker's bridge",
        reason: "Before release 28 Docker's own rule leads packets to the container only if they are for that address of the host, \
                 which the namespace does not have, so the userland proxy takes the connection. Publish the port on all \
                 addresses where the server has to know its clients, or use Docker 28.",
    },
    Fault {
        holds: |_, case, seen| case.one() && case.client.is_v6() && *seen == Seen::Nothing,
        cells: "Port published on an IPv6 address: not served, though `docker port` lists it",
        reason: "dockerd maps an IPv6 port to the one address that the namespace has, as it does with the IPv4 port of the same \
                 number, and one would be in the way of the other. So the port driver does not offer the IPv6 \
                 protocols, and `docker run` passes over such a port without an error. Publish on all addresses (`-p 8080:80`), which \
                 includes IPv6, or use `DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=builtin`.",
    },
];

const HEAD: &str = "\
# Whose address a server in a container sees

With `--net=gateway --port-driver=gateway` (what the launcher chooses by itself where it works) a client of a published port
is seen by the server in the container with

- **own**: its own address and its own port,
- **gateway**: 10.0.2.2, the address of the gateway. Clients on the host's loopback are shown so, because 127.0.0.1 would mean
  the container itself, and clients that come over IPv6, because containers have IPv4 addresses only.

The userland proxy is not in the path, whether it is on (Docker's default) or off, except where this page says otherwise.

This page is made and checked by a scenario with real daemons, each on a host without any network helper:
`cargo test -p tests --test gateway_docker matrix` compares, with `UPDATE=1` it writes the page anew.
";

/// The whole page.
///
/// # Errors
/// A cell is wrong and no reason is known.
pub(super) fn render(columns: &[Column]) -> Result<String> {
    let mut text = HEAD.to_owned();
    text.push_str("\n## Clients that come over IPv4\n\n");
    table(&mut text, columns, |case| !case.one() && !case.client.is_v6())?;
    text.push_str("\nThe port is published on one address (`-p 127.0.0.1:8080:80`):\n\n");
    table(&mut text, columns, |case| case.one() && !case.client.is_v6())?;
    text.push_str(
        "\n## Clients that come over IPv6\n\nThey are served because the launcher passes `--gateway-dual-stack`: a port of \
         0.0.0.0 is one of `::`, too.\n\n",
    );
    table(&mut text, columns, |case| !case.one() && case.client.is_v6())?;
    text.push_str("\nThe port is published on one address (`-p '[::1]:8080:80'`):\n\n");
    table(&mut text, columns, |case| case.one() && case.client.is_v6())?;
    text.push_str("\n## Cells that are not as they should be\n\n");
    let found = faults(columns)?;
    if found.is_empty() {
        text.push_str("None.\n");
    }
    for fault in found {
        writeln!(text, "- {}. {}", fault.cells, fault.reason)?;
    }
    Ok(text)
}

fn table(text: &mut String, columns: &[Column], rows: fn(&Case) -> bool) -> Result<()> {
    text.push_str("| protocol | network | userland proxy | client |");
    for (_, version) in DOCKERS {
        write!(text, " Docker {version} |")?;
    }
    text.push_str("\n|---|---|---|---|");
    text.push_str(&"---|".repeat(DOCKERS.len()));
    text.push('\n');
    for case in super::cases().into_iter().filter(rows) {
        write!(text, "| {} |", words(case).join(" | "))?;
        for column in columns {
            write!(text, " {} |", cell(case, seen(column, case)?))?;
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
        Seen::Other(ip) => ip,
        Seen::Nothing => "not served",
    };
    if case.right(seen) { text.to_owned() } else { format!("*wrong:* {text}") }
}

/// The faults that wrong cells show.
fn faults(columns: &[Column]) -> Result<Vec<&'static Fault>> {
    let mut found = vec![false; FAULTS.len()];
    let mut unknown = String::new();
    for ((_, docker), column) in DOCKERS.iter().zip(columns) {
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
