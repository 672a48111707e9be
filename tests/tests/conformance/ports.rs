//! Ports: published by flag, by the API and by rootlessctl; whom the server sees; removed.

use serde_json::{Value, json};
use tests::{As, Context as _, PATIENCE, Result, ensure, wait};

use crate::facts::Facts;
use crate::kit::{Host, Kit, SERVER, Seen};
use crate::live::{LIVE, Live};
use crate::refused::reason;

/// What is published: protocol, parent's address, and the rest of the port's number on the host.
pub(crate) const SPECS: [(&str, &str, u16); 4] =
    [("tcp4", "0.0.0.0", 1), ("udp4", "0.0.0.0", 2), ("tcp6", "::", 3), ("udp6", "::", 4)];

/// Where the numbers of the ports begin for each of the ways.
const BY_FLAG: u16 = 5100;
const BY_API: u16 = 5200;
const BY_CTL: u16 = 5300;

/// The answer to anything about ports where none are managed.
const NO_DRIVER: &str = "no PortDriver is available";

/// Names of what is found out for each of [`SPECS`]: with a client on another host, on the host's loopback.
pub(crate) const SEEN: [[&str; 2]; 4] = [
    ["TCP, IPv4", "TCP, IPv4, loopback"],
    ["UDP, IPv4", "UDP, IPv4, loopback"],
    ["TCP, IPv6", "TCP, IPv6, loopback"],
    ["UDP, IPv6", "UDP, IPv6, loopback"],
];
pub(crate) const SEEN_FULL: [[&str; 2]; 4] = [
    SEEN[0],
    SEEN[1],
    ["TCP, IPv6 with `--ipv6`", "TCP, IPv6 with `--ipv6`, loopback"],
    ["UDP, IPv6 with `--ipv6`", "UDP, IPv6 with `--ipv6`, loopback"],
];

fn names(kit: &Kit<'_>) -> [[&'static str; 2]; 4] {
    if kit.full && !kit.host.refuses_ipv6() { SEEN_FULL } else { SEEN }
}

/// The server that a port leads to: each way has one.
fn server(base: u16) -> u16 {
    SERVER + (base - BY_FLAG) / 100 + 1
}

fn spec(index: usize, base: u16) -> String {
    let (proto, ip, rest) = SPECS[index];
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!("{ip}:{}:{}/{proto}", base + rest, server(base))
}

/// What became of the ports of the command line.
#[derive(Clone)]
pub(crate) struct ByFlags {
    /// For each of [`SPECS`] the refusal.
    refused: Vec<Option<String>>,
    /// The flags for the others.
    pub(crate) flags: String,
}

/// Tries each port by itself.
pub(crate) fn by_flags(host: &Host, flags: &str) -> Result<ByFlags> {
    let mut all = ByFlags { refused: Vec::new(), flags: String::new() };
    for index in 0..SPECS.len() {
        let flag = format!("-p {} ", spec(index, BY_FLAG));
        let out = host.b.user(&format!("rootlesskit {flags} {flag} true")).run()?;
        if out.code == 0 {
            all.flags.push_str(&flag);
            all.refused.push(None);
        } else {
            let text = reason(&out.stderr, out.code, &out.to_string())?;
            all.refused.push(Some(bare(&text, &spec(index, BY_FLAG))));
        }
    }
    host.assert_clean()?;
    Ok(all)
}

/// A refusal without the spec that it is about.
fn bare(text: &str, spec: &str) -> String {
    let marker = format!("{spec}: ");
    let text = text.rfind(&marker).map_or(text, |at| &text[at + marker.len()..]);
    text.trim_end_matches([';', ' ']).replace(";hint", "; hint")
}

/// A port that was published: which of [`SPECS`], its number on the host, and its id.
struct Published {
    index: usize,
    port: u16,
    id: String,
}

/// Everything about the ports.
pub(crate) fn facts(kit: &Kit<'_>) -> Result<Facts> {
    let mut facts = Facts::default();
    match kit.port {
        "none" | "implicit" => unmanaged(kit, &mut facts)?,
        _ => managed(kit, &mut facts)?,
    }
    if kit.host.refuses_ipv6() {
        for name in SEEN_FULL[2..].iter().flatten() {
            facts.add(name, crate::network::REFUSED)?;
        }
    }
    Ok(facts)
}

/// Runs a script on the host's side that has functions for the API: `api METHOD PATH [BODY]` prints the status and the
/// answer on one line, `ctl ARGUMENTS` of rootlessctl the exit status and what it prints.
fn script(kit: &Kit<'_>, lines: &[String]) -> Result<Vec<(u16, String)>> {
    let functions = r#"
        api() { curl -sS --unix-socket /tmp/s/api.sock -X $1 ${3:+--json} ${3:+"$3"} -o /tmp/answer -w '%{http_code} ' \
            http://x/v1/$2; tr '\n' ' ' </tmp/answer; echo; rm -f /tmp/answer; }
        ctl() { rootlessctl --socket /tmp/s/api.sock "$@" >/tmp/answer 2>&1; echo "$? $(tr '\n' ';' </tmp/answer)"
            rm -f /tmp/answer; }"#;
    let out = kit.host.b.user(&format!("{functions}\n{}", lines.join("\n"))).run()?;
    let answer = |line: &str| -> Result<(u16, String)> {
        let (status, text) = line.split_once(' ').with_context(|| out.to_string())?;
        Ok((status.parse().with_context(|| out.to_string())?, text.to_owned()))
    };
    let answers = out.stdout.lines().map(answer).collect::<Result<Vec<_>>>()?;
    ensure!(answers.len() == lines.len(), "{out}");
    Ok(answers)
}

fn by_api(index: usize) -> String {
    let (proto, ip, rest) = SPECS[index];
    let port = BY_API + rest;
    let body =
        json!({ "proto": proto, "parentIP": ip, "parentPort": port, "childPort": server(BY_API) });
    format!("api POST ports '{body}'")
}

fn by_ctl(index: usize) -> String {
    format!("ctl add-ports '{}'", spec(index, BY_CTL))
}

/// The message of the API's error.
fn message(answer: &str) -> Result<String> {
    let value: Value = serde_json::from_str(answer).with_context(|| answer.to_owned())?;
    Ok(value["message"].as_str().with_context(|| answer.to_owned())?.replace('\n', "; "))
}

/// Ports that nobody manages: requests are refused, and what listens is there or not.
fn unmanaged(kit: &Kit<'_>, facts: &mut Facts) -> Result<()> {
    for (status, text) in script(kit, &[by_api(0), by_ctl(0)])? {
        ensure!(matches!(status, 400 | 1) && text.contains(NO_DRIVER), "{status}: {text}");
    }
    let refused = &kit.published.refused;
    ensure!(refused.iter().all(|r| r.is_none() == refused[0].is_none()), "{refused:?}");
    let flag = match &refused[0] {
        None => "no effect".to_owned(),
        Some(text) => format!("refused: {text}"),
    };
    facts.add("`-p`", flag)?;
    for name in ["API, `rootlessctl`", "child address 127.0.0.1"] {
        facts.add(name, format!("refused: {NO_DRIVER}"))?;
    }
    facts.add(LIVE, "nothing to remove")?;
    let all: Vec<_> = (0..SPECS.len())
        .map(|index| Published { index, port: SERVER, id: String::new() })
        .collect();
    if kit.port == "implicit" {
        // pasta looks once a second for what listens.
        wait::until_true("pasta finds the servers", PATIENCE, || {
            Ok(ask(kit, As::User, &all[..2])?.iter().all(Seen::answered))
        })?;
    }
    served(kit, &all, facts)
}

/// Ports that are published and removed.
fn managed(kit: &Kit<'_>, facts: &mut Facts) -> Result<()> {
    let names = names(kit);
    let loopback = format!("ctl add-ports {LOOPBACK_CHILD}");
    let indices = 0..SPECS.len();
    let lines: Vec<_> = indices.flat_map(|i| [by_api(i), by_ctl(i)]).chain([loopback]).collect();
    let mut answers = script(kit, &lines)?.into_iter();
    let mut next = || answers.next().context("an answer for each line");
    let (mut all, mut flags) = (Vec::new(), 0);
    for (index, flag) in kit.published.refused.iter().enumerate() {
        let mut refusals: Vec<_> = flag.iter().cloned().collect();
        let port = |base| base + SPECS[index].2;
        if flag.is_none() {
            flags += 1;
            all.push(Published { index, port: port(BY_FLAG), id: flags.to_string() });
        }
        match next()? {
            (201, answer) => {
                let value: Value = serde_json::from_str(&answer)?;
                all.push(Published { index, port: port(BY_API), id: value["id"].to_string() });
            }
            (400, answer) => refusals.push(bare(&message(&answer)?, &spec(index, BY_API))),
            (status, answer) => tests::bail!("{status}: {answer}"),
        }
        match next()? {
            (0, id) => {
                let id = id.trim_end_matches(';').to_owned();
                all.push(Published { index, port: port(BY_CTL), id });
            }
            (_, text) => refusals.push(bare(&text, &spec(index, BY_CTL))),
        }
        if let [one, rest @ ..] = &refusals[..] {
            ensure!(
                rest.len() == 2 && rest.iter().all(|r| r == one),
                "not one answer: {refusals:?}"
            );
            for name in names[index] {
                facts.add(name, format!("refused: {one}"))?;
            }
        }
    }
    facts.add("`-p`", "yes")?;
    facts.add("API, `rootlessctl`", "yes")?;
    loopback_child(kit, next()?, facts)?;
    served(kit, &all, facts)?;
    let tcp = |port: &Published| match SPECS[port.index].0 {
        "tcp4" => Some(format!("10.77.0.1:{}", port.port)),
        "tcp6" => Some(format!("fd77::1:{}", port.port)),
        _ => None,
    };
    let live = Live::open(kit.host, all.iter().filter_map(tcp))?;
    remove(kit, &all)?;
    facts.add(LIVE, live.ended()?)
}

/// A port that leads to the namespace's loopback.
const LOOPBACK_CHILD: &str = "0.0.0.0:5250:127.0.0.1:5080/tcp4";

/// Whether such a port is accepted, which the API tells clients beforehand.
fn loopback_child(kit: &Kit<'_>, (status, answer): (u16, String), facts: &mut Facts) -> Result<()> {
    let told = script(kit, &["api GET info".to_owned()])?.remove(0).1;
    let told: Value = serde_json::from_str(&told)?;
    let refused = told["portDriver"]["disallowLoopbackChildIP"].as_bool().unwrap_or(false);
    if status == 0 {
        script(kit, &[format!("ctl remove-ports {}", answer.trim_end_matches(';'))])?;
    }
    let cell = match (status, refused) {
        (0, false) => "yes".to_owned(),
        (0, true) => "yes, though the API says no".to_owned(),
        (_, true) => format!("refused: {}", bare(&answer, LOOPBACK_CHILD)),
        (_, false) => format!("refused, though the API says yes: {answer}"),
    };
    facts.add("child address 127.0.0.1", cell)
}

fn ask(kit: &Kit<'_>, who: As, ports: &[Published]) -> Result<Vec<Seen>> {
    let target = |p: &Published| {
        let (proto, ip, _) = SPECS[p.index];
        let host = match (who, ip) {
            (As::Peer, "::") => "[fd77::1]",
            (As::Peer, _) => "10.77.0.1",
            (_, "::") => "[::1]",
            _ => "127.0.0.1",
        };
        format!("{}/{host}:{}", &proto[..3], p.port)
    };
    kit.ask(who, &ports.iter().map(target).collect::<Vec<_>>())
}

/// Whom the server sees. There is no second try: a port that is published answers.
fn served(kit: &Kit<'_>, all: &[Published], facts: &mut Facts) -> Result<()> {
    let names = names(kit);
    for (client, who) in [As::Peer, As::User].into_iter().enumerate() {
        for (port, seen) in all.iter().zip(ask(kit, who, all)?) {
            let cell = match seen {
                Seen::Own => "own".to_owned(),
                Seen::OwnAddress => "own address, another port".to_owned(),
                Seen::Other(ip) => ip,
                Seen::Nothing => "not served".to_owned(),
            };
            facts.add(names[port.index][client], cell).with_context(|| port.port.to_string())?;
        }
    }
    Ok(())
}

/// Each port goes by another way than it came, and is closed when the answer is there.
fn remove(kit: &Kit<'_>, all: &[Published]) -> Result<()> {
    let line = |port: &Published| match port.port {
        BY_CTL.. => format!("api DELETE ports/{}", port.id),
        _ => format!("ctl remove-ports {}", port.id),
    };
    let answers = script(kit, &all.iter().map(line).collect::<Vec<_>>())?;
    ensure!(answers.iter().all(|(status, _)| matches!(status, 0 | 200)), "{answers:?}");
    for who in [As::Peer, As::User] {
        let seen = ask(kit, who, all)?;
        ensure!(!seen.iter().any(Seen::answered), "removed, but served: {seen:?}");
    }
    let left = script(kit, &["api GET ports".to_owned()])?.remove(0).1;
    ensure!(matches!(left.trim(), "[]" | "null"), "still listed: {left}");
    Ok(())
}
