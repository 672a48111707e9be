//! The page that all this becomes.

use std::fmt::Write as _;

use tests::{Context as _, Result, ensure};

use crate::facts::DETACHED;
use crate::live::LIVE;
use crate::network::IPV6;
use crate::ports::{SEEN, SEEN_FULL};
use crate::{Column, PORTS};

/// The order of the page.
const ORDER: [&str; 8] = [
    "host",
    "none",
    "gateway",
    "pasta",
    "slirp4netns",
    "vpnkit",
    "lxc-user-nic",
    "gvisor-tap-vsock",
];

const HEAD: &str = "\
# Network and port drivers: what each pair does

The tables show what each network driver (`--net`) does with each port driver (`--port-driver`). Text after \"detached:\"
applies with `--detach-netns`; everything else is the same with and without it. A number in brackets refers to the
[error message](#refusals).

All supported pairs also have these properties:

- A published port answers as soon as the request to publish it returns, and is closed as soon as the request to remove it
  returns. `implicit` has no such requests: pasta looks for listening sockets once a second.
- If a helper or gateway process is killed, it is replaced. The addresses stay the same, and published ports work again.
- The API reports the drivers, addresses and ports that are in use.
- When rootlesskit exits, it leaves no process, file or mount behind.

A test suite runs every pair, attached and detached, on a Debian sid host without Docker, and generates this page. Run
`cargo test -p tests --test conformance` to verify the page, or add `UPDATE=1` to regenerate it.
";

/// Refusals, by number.
#[derive(Default)]
struct Refusals(Vec<String>);

impl Refusals {
    /// The cell with a number in place of the text.
    fn number(&mut self, cell: &str) -> String {
        let one = |cell: &str| match cell.strip_prefix("refused: ") {
            None => cell.to_owned(),
            Some(text) => {
                let known = self.0.iter().position(|known| known == text);
                let at = known.unwrap_or_else(|| {
                    self.0.push(text.to_owned());
                    self.0.len() - 1
                });
                format!("refused [{}]", at + 1)
            }
        };
        let parts: Vec<_> = cell.split(DETACHED).map(one).collect();
        parts.join(DETACHED)
    }
}

/// The whole page.
///
/// # Errors
/// A cell is empty.
pub(crate) fn render(found: &[Column]) -> Result<String> {
    let columns: Vec<_> =
        ORDER.iter().filter_map(|name| found.iter().find(|c| c.network == *name)).collect();
    ensure!(columns.len() == ORDER.len(), "not every network was looked at");
    let mut refusals = Refusals::default();
    let mut text = HEAD.to_owned();
    text.push_str("\n## Supported combinations\n\n");
    pairs(&mut text, &columns, &mut refusals)?;
    text.push_str(NETWORKS);
    networks(&mut text, &columns, &mut refusals)?;
    text.push_str(PUBLISHING);
    let names = ["`-p`", "API, `rootlessctl`", "child address 127.0.0.1", LIVE];
    ports(&mut text, &columns, &names, &mut refusals)?;
    for (client, before) in [OTHER_HOST, LOOPBACK].into_iter().enumerate() {
        text.push_str(before);
        let names = SEEN.iter().chain(&SEEN_FULL[2..]).map(|names| names[client]);
        ports(&mut text, &columns, &names.collect::<Vec<_>>(), &mut refusals)?;
    }
    text.push_str("\n## Notes\n\n");
    for reason in REASONS {
        writeln!(text, "- {}", reason.text(&columns)?)?;
    }
    text.push_str(
        "\n## Refusals\n\nNETWORK and DRIVER stand for the values given on the command line.\n\n",
    );
    for (index, refusal) in refusals.0.iter().enumerate() {
        writeln!(text, "{}. `{refusal}`", index + 1)?;
    }
    Ok(text)
}

fn head(text: &mut String, names: impl Iterator<Item = String>) {
    let names: Vec<_> = names.collect();
    let line = "|---".repeat(names.len());
    text.push_str(&format!("| {} |\n{line}|\n", names.join(" | ")));
}

fn pairs(text: &mut String, columns: &[&Column], refusals: &mut Refusals) -> Result<()> {
    let names = PORTS.iter().map(|port| format!("`{port}`"));
    head(text, ["`--net`".to_owned()].into_iter().chain(names));
    for column in columns {
        write!(text, "| `{}` |", column.network)?;
        for port in PORTS {
            let pair = column.pairs.iter().find(|(name, _)| *name == port);
            let cell = match &pair.context("a pair was not looked at")?.1 {
                Ok(_) => "yes".to_owned(),
                Err(refusal) => {
                    let net = format!("--net={}", column.network);
                    // The last one: the first may be the one that is needed.
                    let refusal = match refusal.rsplit_once(&net) {
                        Some((before, after)) => format!("{before}--net=NETWORK{after}"),
                        None => refusal.clone(),
                    };
                    let refusal = refusal.replace(&format!("{port:?}"), "\"DRIVER\"");
                    refusals.number(&format!("refused: {refusal}"))
                }
            };
            write!(text, " {cell} |")?;
        }
        text.push('\n');
    }
    Ok(())
}

fn networks(text: &mut String, columns: &[&Column], refusals: &mut Refusals) -> Result<()> {
    let names = columns.iter().map(|column| format!("`{}`", column.network));
    head(text, [String::new()].into_iter().chain(names));
    for name in columns[0].facts.names() {
        write!(text, "| {name} |")?;
        for column in columns {
            write!(text, " {} |", refusals.number(column.facts.get(name)?))?;
        }
        text.push('\n');
    }
    Ok(())
}

fn ports(
    text: &mut String,
    columns: &[&Column],
    names: &[&str],
    refusals: &mut Refusals,
) -> Result<()> {
    let short = names.iter().map(|name| name.trim_end_matches(", loopback").to_owned());
    head(text, ["`--net`".to_owned(), "`--port-driver`".to_owned()].into_iter().chain(short));
    for column in columns {
        for (port, facts) in &column.pairs {
            let Ok(facts) = facts else { continue };
            write!(text, "| `{}` | `{port}` |", column.network)?;
            for name in names {
                write!(text, " {} |", refusals.number(facts.get(name)?))?;
            }
            text.push('\n');
        }
    }
    Ok(())
}

const NETWORKS: &str = "
## Networks

These results do not depend on the port driver. 10.77.0.1 and fd77::1 are addresses of the test host. The router is the next hop
of the default route. \"As the host\" means that the traffic passes through a network driver, and that remote servers see the
host's address. \"Directly\" means that the traffic does not pass through a network driver.

";

const PUBLISHING: &str = "
## Publishing

";

const OTHER_HOST: &str = "
The next table shows the source address that the server in the namespace sees when the client is on **another host** and the
port is published on all of the host's addresses (`0.0.0.0`, `::`). \"Own\" is the client's own address and port. \"Not served\" means that the client
cannot connect.

";

const LOOPBACK: &str = "
The next table shows the source address that the server sees when the client is on the **host itself** and connects to
127.0.0.1 or ::1:

";

/// What explains some cells. One that the suite finds otherwise is an error: the reason is none any more.
struct Reason {
    network: &'static str,
    /// That of the pair, or nothing for what is said of the network.
    port: &'static str,
    name: &'static str,
    cell: &'static str,
    text: &'static str,
}

impl Reason {
    fn text(&self, columns: &[&Column]) -> Result<&'static str> {
        let column = columns.iter().find(|column| column.network == self.network);
        let column = column.context("no such network")?;
        let pair = column.pairs.iter().find(|(port, _)| *port == self.port);
        let facts = pair.and_then(|(_, facts)| facts.as_ref().ok()).unwrap_or(&column.facts);
        let found = facts.get(self.name)?;
        ensure!(found == self.cell, "{} no longer holds: {found}", self.text);
        Ok(self.text)
    }
}

const REASONS: [Reason; 12] = [
    Reason {
        network: "host",
        port: "",
        name: "TCP to another host",
        cell: "yes, directly; detached: no",
        text: "`host`, detached: the namespace that `--detach-netns` creates is not connected to any network.",
    },
    Reason {
        network: "vpnkit",
        port: "",
        name: "TCP to another host",
        cell: "not in the stand-in",
        text: "`vpnkit`: VPNKit is not packaged by any distribution, so the suite uses a stand-in that implements its \
               protocol. The stand-in carries UDP and answers pings to the router; it implements neither TCP nor other \
               pings.",
    },
    Reason {
        network: "lxc-user-nic",
        port: "",
        name: "host's loopback at the router's address",
        cell: "closed",
        text: "`lxc-user-nic`: the router is a bridge on the host. Services that listen on all of the host's \
               addresses are reachable at the router's address; services that listen on the host's loopback are not.",
    },
    Reason {
        network: "pasta",
        port: "",
        name: "host's loopback at 127.0.0.1",
        cell: "open",
        text: "`pasta`: without `--disable-host-loopback`, services on the host's loopback also appear on the \
               namespace's loopback.",
    },
    Reason {
        network: "pasta",
        port: "",
        name: IPV6,
        cell: "fd77::1/64",
        text: "`pasta`, IPv6: the namespace has the same address as the host.",
    },
    Reason {
        network: "pasta",
        port: "implicit",
        name: SEEN[2][0],
        cell: "not served",
        text: "`implicit`: without `--ipv6`, pasta ignores IPv6. pasta looks for listening sockets once a second, and has \
               no option to change that. A port therefore opens and closes up to about a second after its server starts \
               and stops listening. If you need ports immediately, use `pesto`.",
    },
    Reason {
        network: "gateway",
        port: "gateway",
        name: SEEN[2][0],
        cell: "10.0.2.2",
        text: "`gateway` as port driver without `--ipv6`, and `gvisor-tap-vsock` as port driver: the namespace has only \
               IPv4, so servers see the gateway's address instead of an IPv6 client's. They also see it if the client \
               is on the host's loopback, because in the namespace, 127.0.0.1 means the namespace itself.",
    },
    Reason {
        network: "none",
        port: "builtin",
        name: SEEN[1][0],
        cell: "127.0.0.1",
        text: "`builtin`: TCP servers see their clients' addresses; UDP servers see a loopback address.",
    },
    Reason {
        network: "pasta",
        port: "pesto",
        name: LIVE,
        cell: "stay open",
        text: "`pesto`: to remove a port, pasta only stops listening, so open connections stay open.",
    },
    Reason {
        network: "pasta",
        port: "pesto",
        name: SEEN[0][1],
        cell: "10.0.2.100",
        text: "`pesto`, clients on the host's loopback: pasta forwards a port to the namespace's own address, where \
               dockerd listens. Connections to that address cannot have a loopback source address.",
    },
    Reason {
        network: "slirp4netns",
        port: "slirp4netns",
        name: LIVE,
        cell: "stay open",
        text: "`slirp4netns` as port driver: to remove a port, slirp4netns also only stops listening, so open \
               connections stay open.",
    },
    Reason {
        network: "slirp4netns",
        port: "slirp4netns",
        name: SEEN[1][1],
        cell: "not served",
        text: "`slirp4netns` as port driver, UDP: clients on the host's loopback get replies only without \
               `--disable-host-loopback`, and only until a client on another host has used the port. In this test, \
               a client on another host uses the port first, so the table says \"not served\". If several UDP ports forward to the \
               same port in the namespace, only the last one published works.",
    },
];
