//! The values in a file, each from its text.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::{PortRange, Target};

/// Why a text is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong: the value and the reason.
    pub problem: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.problem, self.hint)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    pub(super) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: hint.into() }
    }

    /// `reason` goes on with the value: `is too long`.
    fn of(value: &str, reason: &str, hint: impl Into<String>) -> Self {
        Self::new(format!("{} {reason}", quoted(value)), hint)
    }
}

/// A value in messages: on one line, and not too long.
pub(super) fn quoted(value: &str) -> String {
    const SHOWN: usize = 80;
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}

/// The key that was probably meant.
pub(super) fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distance = |known: &str| {
        // The beginning of a word, such as `prot`, is nearer to it than any other word.
        let begun = word.len() >= 3 && known.starts_with(&word);
        if begun { 0 } else { distance(&word, known) }
    };
    let (distance, known) = known.into_iter().map(|known| (distance(known), known)).min()?;
    (distance <= 2 && distance < known.len() / 2 + 1).then_some(known)
}

/// How many letters have to be put in, left out or replaced to get from one word to the other one. Of a long word, only
/// the beginning counts.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (index, letter) in from.chars().take(64).enumerate() {
        let mut above = row[0];
        row[0] = index + 1;
        for (column, other) in to.chars().enumerate() {
            let replaced = above + usize::from(letter != other);
            above = row[column + 1];
            row[column + 1] = replaced.min(above + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// One of some words.
pub(super) fn choice<T: Copy>(word: &str, choices: &[(&str, T)]) -> Result<T, Problem> {
    let found = choices.iter().find(|(known, _)| *known == word);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let meant = choices.iter().find(|(known, _)| known.eq_ignore_ascii_case(word));
        let hint = one_of(meant.map_or(choices, std::slice::from_ref));
        Problem::of(word, "is not a valid value for this key", hint)
    })
}

/// The hint to write one of some words.
pub(super) fn one_of<T>(choices: &[(&str, T)]) -> String {
    let all: Vec<_> = choices.iter().map(|(known, _)| format!("\"{known}\"")).collect();
    format!("write {}", all.join(" or "))
}

/// The name of a rule.
pub(super) fn rule(name: &str) -> Result<String, Problem> {
    const LONGEST: usize = 64;
    let hint = "give the rule a name of 1 to 64 characters";
    if name.is_empty() || name.chars().count() > LONGEST {
        let reason = if name.is_empty() { "is empty" } else { "is longer than 64 characters" };
        return Err(Problem::of(name, reason, hint));
    }
    if name.chars().any(char::is_control) {
        return Err(Problem::of(name, "contains a control character", hint));
    }
    if name == "default" {
        let hint =
            "choose another name, because `default` stands for what happens if no rule matches";
        return Err(Problem::of(name, "cannot be the name of a rule", hint));
    }
    Ok(name.to_owned())
}

/// An address, or a network with the length of its prefix.
pub(super) fn network(text: &str) -> Result<IpNet, Problem> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let Ok(network) = text.parse::<IpNet>() else {
        let hint = "write an address such as 192.0.2.7, or a network such as 10.0.0.0/8";
        return Err(Problem::of(text, "is neither an IP address nor a network", hint));
    };
    if network.addr() != network.network() {
        let hint = format!(
            "write {} for the network, or {} for the address",
            network.trunc(),
            network.addr()
        );
        return Err(Problem::of(text, "is an address within a network", hint));
    }
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        let hint = "write the IPv4 network, which also matches mapped addresses";
        return Err(Problem::of(text, "is an IPv4-mapped IPv6 network", hint));
    }
    Ok(network)
}

/// A destination: an address, a network, or a name.
pub(super) fn target(text: &str) -> Result<Target, Problem> {
    if text.parse::<IpAddr>().is_ok() || (text.contains('/') && !text.contains("://")) {
        return network(text).map(Target::Network);
    }
    host(text).map(Target::Name)
}

/// A host name, or `*.` and one.
fn host(text: &str) -> Result<String, Problem> {
    let bad = |reason: &str, hint: &str| Err(Problem::of(text, reason, hint));
    if text.contains("://") {
        return bad("is a URL", "write only the host name");
    }
    if text.contains(':') {
        let hint = "write an IPv6 address without brackets, and ports as `ports = [443]`";
        return bad("is neither an address nor a host name", hint);
    }
    if !text.is_ascii() {
        return bad("is not in ASCII", "write the name in its DNS form, which begins with xn--");
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name == "*" {
        return bad("is not a host name", "remove `to` to match all destinations");
    }
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    if labels.contains('*') {
        let hint = "write *.example.org for all names below example.org";
        return bad("can have a * only at the beginning, before a dot", hint);
    }
    if name.len() > 253 {
        return bad("is longer than 253 characters", "write a shorter name");
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    for label in labels.split('.') {
        if label.is_empty() || label.len() > 63 {
            let hint = "write 1 to 63 characters between two dots";
            return bad("is not a host name: a label is empty or too long", hint);
        }
        if !label.bytes().all(fits) {
            return bad("is not a host name", "use letters, digits, -, _ and dots, and no spaces");
        }
    }
    // No top-level domain is a number (RFC 3696, 2), so this is an address that somebody has mistyped.
    if labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        let hint = "write an address such as 192.0.2.7, or a network such as 10.0.0.0/8";
        return bad("is neither an IP address nor a host name", hint);
    }
    Ok(name)
}

/// The name of containers, with stars.
pub(super) fn container(text: &str) -> Result<String, Problem> {
    if let Some(name) = text.strip_prefix('/') {
        return Err(Problem::of(text, "begins with a slash", format!("write {}", quoted(name))));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-*".contains(&byte);
    if text.is_empty() || !text.bytes().all(fits) {
        let hint = "write a name as `docker ps` shows it, or a pattern such as \"web-*\"";
        return Err(Problem::of(text, "is not a valid container name", hint));
    }
    Ok(text.to_owned())
}

/// The name of a network of Docker.
pub(super) fn docker_network(text: &str) -> Result<String, Problem> {
    if text == "host" {
        let hint =
            "write `daemon = true`; containers with `--network=host` have no address of their own";
        return Err(Problem::of(text, "is a network without addresses", hint));
    }
    if text.trim().is_empty() || text.contains('*') || text.chars().any(char::is_control) {
        let hint = "write the names of networks as `docker network ls` shows them";
        return Err(Problem::of(text, "is not a network name", hint));
    }
    Ok(text.to_owned())
}

/// A key, or a key and a value.
pub(super) fn label(text: &str) -> Result<(String, Option<String>), Problem> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.trim().is_empty() {
        let hint = "write \"key\", or \"key=value\"";
        return Err(Problem::of(text, "is a label without a key", hint));
    }
    Ok((key.to_owned(), value))
}

/// A port, or the first and the last one with a hyphen between.
pub(super) fn ports(text: &str) -> Result<PortRange, Problem> {
    let port = |text: &str| text.trim().parse().ok().filter(|port: &u16| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        let hint = "write ports from 1 to 65535, such as 443 or \"8000-8100\"";
        return Err(Problem::of(text, "is neither a port nor a range of ports", hint));
    };
    if first > last {
        let hint = format!("write \"{last}-{first}\"");
        return Err(Problem::of(text, "ends before it begins", hint));
    }
    Ok(PortRange { first, last })
}
