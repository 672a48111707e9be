//! What scenarios of the egress policy have in common: servers to reach, attempts, and the rules' counters.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{As, Cmd, PATIENCE, Running, TestBox, kit, wait};

/// What the other machine has besides its own address; the last one is that of the metadata service in most clouds.
pub const SERVERS: [&str; 7] = [
    "10.77.0.11",
    "10.77.0.12",
    "10.77.0.13",
    "10.77.0.21",
    "10.77.0.22",
    "[fd77::11]",
    "169.254.169.254",
];

/// Where the launcher looks for the user's policy.
pub const FILE: &str = "/home/tester/.config/docker-rootless/egress.toml";

/// What the name server of the host says, see `fixture zone`.
pub const ZONE: &str = "/home/tester/zone";

/// Servers of TCP streams (7010) and datagrams (7011) at the addresses of [`SERVERS`]. Pages (7000) are there anyway.
///
/// # Errors
/// One of them ends.
pub fn serve(b: &TestBox) -> Result<Vec<Running<'_>>> {
    let mut all = vec![kit::serve(b, As::Peer, "tcp-echo [::]:7010")?];
    for server in SERVERS {
        let (family, ip) = match server.trim_matches(['[', ']']) {
            ip if ip.contains(':') => ("-6", format!("{ip}/64 nodad")),
            ip => ("-4", format!("{ip}/32")),
        };
        b.peer(&format!("ip {family} addr replace {ip} dev eth1")).ok()?;
        all.push(kit::serve(b, As::Peer, &format!("udp-echo {server}:7011"))?);
    }
    Ok(all)
}

/// The name server of the host, over UDP and TCP, with these names to begin with.
///
/// # Errors
/// It ends, or the usual one does not.
pub fn name_server<'b>(b: &'b TestBox, zone: &str) -> Result<Running<'b>> {
    b.stop_name_server()?;
    write(b, ZONE, zone)?;
    kit::serve(b, As::Peer, &format!("zone 10.77.0.2:53 {ZONE}"))
}

/// Replaces a file at once, as an editor does, and makes its folder if there is none.
///
/// # Errors
/// It cannot be written.
pub fn write(b: &TestBox, path: &str, text: &str) -> Result<()> {
    let line = format!("mkdir -p $(dirname {path}) && cat >{path}.new && mv {path}.new {path}");
    b.user(&line).input(text).ok().map(drop)
}

/// What `fixture probe` printed, a word for each attempt: `open`, `denied`, or an error. Who is refused hears it at once,
/// and not after a minute.
///
/// # Errors
/// It printed something else.
pub fn outcomes(printed: &str) -> Result<Vec<String>> {
    let outcome = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, what, took] = words[..] else { bail!("{printed}") };
        let took = Duration::from_millis(took.parse()?);
        Ok(match what {
            "connected" | "answered" => "open".to_owned(),
            // What an ICMP message "administratively prohibited" is, by family (RFC 1122, RFC 4443).
            "EHOSTUNREACH" | "EACCES" if took < PATIENCE / 4 => "denied".to_owned(),
            other => format!("{other} after {took:?}"),
        })
    };
    printed.lines().map(outcome).collect()
}

/// Fails unless attempts such as `tcp/10.77.0.11:7000` have these outcomes; `command` makes a shell line one of the sender.
///
/// # Errors
/// They have others.
pub fn expect<'b>(command: impl Fn(&str) -> Cmd<'b>, expected: &[(&str, &str)]) -> Result<()> {
    let targets: Vec<_> = expected.iter().map(|(target, _)| *target).collect();
    let found = outcomes(&command(&format!("fixture probe 60 {}", targets.join(" "))).ok()?)?;
    let found: Vec<_> = targets.into_iter().zip(found.iter().map(String::as_str)).collect();
    ensure!(found == expected, "{found:?}\nand not {expected:?}");
    Ok(())
}

/// Waits until an attempt has an outcome; `expect` fails while it has another one.
///
/// # Errors
/// It keeps that.
pub fn becomes(
    expect: impl Fn(&[(&str, &str)]) -> Result<()>,
    target: &str,
    outcome: &str,
) -> Result<()> {
    let expected = [(target, outcome)];
    wait::until_true(&format!("{target} is {outcome}"), PATIENCE, || Ok(expect(&expected).is_ok()))
        .with_context(|| format!("{:?}", expect(&expected)))
}

/// Starts `fixture keep`, and waits until it goes on.
///
/// # Errors
/// It ends.
pub fn keep<'b>(
    command: impl Fn(&str) -> Cmd<'b>,
    how: &str,
    address: &str,
) -> Result<Running<'b>> {
    let mut kept = command(&format!("exec fixture keep {how} {address}")).spawn()?;
    goes_on(&mut kept)?;
    Ok(kept)
}

/// Waits until it has gone on a few times more.
///
/// # Errors
/// It ends.
pub fn goes_on(kept: &mut Running<'_>) -> Result<()> {
    let before = kept.printed()?.lines().count();
    wait::until_true("it goes on", PATIENCE, || {
        ensure!(kept.alive()?, "it ended: {}", kept.printed()?);
        Ok(kept.printed()?.lines().count() > before + 5)
    })
}

/// How often a rule decided, by its name, in the answer to `GET /v1/policy`; of the first file that has it.
///
/// # Errors
/// There is no such rule.
pub fn matched(show: &Value, rule: &str) -> Result<u64> {
    let files = show["files"].as_array().into_iter().flatten();
    let mut rules = files.flat_map(|file| file["rules"].as_array().into_iter().flatten());
    let found = rules.find(|found| found["name"] == rule);
    Ok(kit::number(found.with_context(|| format!("no rule {rule} in {show}"))?, &["matched"]))
}
