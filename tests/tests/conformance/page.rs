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

This page is made and checked by a suite that runs every `--net` with every `--port-driver`, attached and with
`--detach-netns`, on a Debian sid host without Docker: `cargo test -p tests --test conformance` compares, with `UPDATE=1` it
writes the page anew. Where a cell says \"detached\", what follows is what `--detach-netns` changes; everything else is the same
with and without it. Numbers in brackets are the [texts of refusals](#refusals).

The suite also asserts, for every pair that is not refused: a port answers when the request that publishes it returns, and is
closed when the request that withdraws it returns (`implicit` has no requests: pasta looks once a second for what listens); a
killed helper is replaced, with the same addresses, and published ports are served again; the API describes what is
there; no process, file or mount is left behind.
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
    text.push_str("\n## Which go together\n\n");
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
    text.push_str("\n## Why\n\n");
    for reason in REASONS {
        writeln!(text, "- {}", reason.text(&columns)?)?;
    }
    text.push_str("\n## Refusals\n\nNETWORK and DRIVER stand for what was given.\n\n");
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

The same with every port driver. \"As the host\" is whom a server elsewhere sees.

";

const PUBLISHING: &str = "
## Publishing

";

const OTHER_HOST: &str = "
Whom the server in the namespace sees, or that it is not served, when the client is on **another host** and asks the port on
all addresses (`0.0.0.0`, `::`) of the host. \"Own\" is the client's own address and port.

";

const LOOPBACK: &str = "
When the client is on the **host itself** and asks 127.0.0.1 or ::1:

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
        cell: "yes, as itself; detached: no",
        text: "`host`, detached: the namespace that `--detach-netns` makes is connected with nothing.",
    },
    Reason {
        network: "vpnkit",
        port: "",
        name: "TCP to another host",
        cell: "not in the stand-in",
        text: "`vpnkit`: no distribution has it, so what runs here is a stand-in that speaks its protocol. It carries UDP and \
               answers pings of the router; TCP and other pings are VPNKit's own business.",
    },
    Reason {
        network: "lxc-user-nic",
        port: "",
        name: "host's loopback at the router's address",
        cell: "closed",
        text: "`lxc-user-nic`: the router is a bridge of the host. What listens on all addresses of the host is reachable \
               there, what listens on its loopback is not.",
    },
    Reason {
        network: "pasta",
        port: "",
        name: "host's loopback at 127.0.0.1",
        cell: "open",
        text: "`pasta`: without `--disable-host-loopback` it makes what listens on the host's loopback appear on that of the \
               namespace, too.",
    },
    Reason {
        network: "pasta",
        port: "",
        name: IPV6,
        cell: "fd77::1/64",
        text: "`pasta`, IPv6: the namespace has the host's own address.",
    },
    Reason {
        network: "pasta",
        port: "implicit",
        name: SEEN[2][0],
        cell: "not served",
        text: "`implicit`: without `--ipv6` pasta is told to leave IPv6 alone. Ports open and close up to about a second after \
               servers do, because that is how often pasta looks, and it has no option for that. `pesto` is for \
               those who cannot wait.",
    },
    Reason {
        network: "gateway",
        port: "gateway",
        name: SEEN[2][0],
        cell: "10.0.2.2",
        text: "`gateway` without `--ipv6`, and `gvisor-tap-vsock`: the namespace has IPv4 only, so IPv6 clients appear as the \
               gateway; so do clients on the host's loopback, because 127.0.0.1 means the namespace itself.",
    },
    Reason {
        network: "none",
        port: "builtin",
        name: SEEN[1][0],
        cell: "127.0.0.1",
        text: "`builtin`: TCP servers see their clients, UDP servers see a loopback address.",
    },
    Reason {
        network: "pasta",
        port: "pesto",
        name: LIVE,
        cell: "go on",
        text: "`pesto` has pasta stop listening; connections that are open are left alone.",
    },
    Reason {
        network: "pasta",
        port: "pesto",
        name: SEEN[0][1],
        cell: "10.0.2.100",
        text: "`pesto`, clients on the host's loopback: a port leads to the namespace's address, where dockerd listens, and a \
               loopback address cannot come from there.",
    },
    Reason {
        network: "slirp4netns",
        port: "slirp4netns",
        name: LIVE,
        cell: "go on",
        text: "`slirp4netns` as port driver stops listening as well, and no more.",
    },
    Reason {
        network: "slirp4netns",
        port: "slirp4netns",
        name: SEEN[1][1],
        cell: "not served",
        text: "`slirp4netns` as port driver, UDP: with `--disable-host-loopback` it drops answers to clients on the host's \
               loopback; without, they get answers only until a client of another host has used the port. Of several UDP ports \
               that lead to the same port of the namespace only the one that was published last is served.",
    },
];
