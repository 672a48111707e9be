//! `rootlessctl policy test`: what would become of an attempt.

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use api::client::Client;
use clap::{ArgAction, ArgMatches};
use egress::{
    Action, Attempt, Decision, Directory, File, Policies, Protocol, RuleId, Source, Target,
};
use hostenv::Env;

use super::own::own;
use super::view;
use crate::docker::Docker;
use crate::policy_file;
use crate::visible::{visible, visible_lines};

/// A destination as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    Address(IpAddr),
    /// In lower case, without a final dot.
    Name(String),
}

/// Judges an attempt, says so, and gives whether it would be allowed.
pub(super) fn run(
    matches: &ArgMatches,
    arguments: &[OsString],
    socket: impl Fn() -> anyhow::Result<PathBuf>,
    env: &Env,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<bool> {
    if let Some(argument) = arguments.first() {
        bail!(
            "unexpected argument {argument:?}\nhint: use policy test --from WHO --to DESTINATION"
        );
    }
    let protocol = protocol(once(matches, "protocol")?.unwrap_or_default())?;
    let from = once(matches, "from")?
        .context("no sender\nhint: add --from with a container, an address or daemon")?;
    let to = once(matches, "to")?
        .context("no destination\nhint: add --to, such as --to 192.0.2.7:443")?;
    let (destination, port) = destination(to, protocol)?;
    let docker = Docker::of(&socket().unwrap_or_default(), env);
    let files: Vec<_> = matches.get_many::<String>("file").into_iter().flatten().collect();
    let (own, policies) = if files.is_empty() {
        let client = Client::new(socket()?);
        let status = client.policy()?;
        for warning in status.files.iter().filter_map(view::outdated) {
            // The answer counts for more.
            writeln!(err, "{warning}").ok();
        }
        let own = match (&status.gateway, &destination) {
            (Some(gateway), Destination::Address(ip)) => own(gateway, protocol, *ip, port),
            _ => Ok(None),
        };
        (own, status.policies())
    } else {
        (Ok(None), of_files(&files, &docker)?)
    };
    if let Ok(Some(reason)) = own {
        writeln!(out, "allowed: {reason}")?;
        return Ok(true);
    }
    let senders = senders(from, &destination, || docker.directory())?;
    let judged = senders
        .iter()
        .map(|(who, source)| Ok((who, judge(&policies, *source, protocol, &destination, port)?)));
    let judged: Vec<_> = judged.collect::<anyhow::Result<_>>()?;
    let mut allowed = true;
    let mut before = "";
    if let Err(reason) = own {
        writeln!(out, "denied by the gateway, whatever the policy says: {reason}")?;
        (allowed, before) = (false, "note: by the policy alone, ");
    }
    for (who, decision) in &judged {
        let who = if judged.len() > 1 { format!("{who}: ") } else { String::new() };
        write!(out, "{}", visible_lines(&format!("{before}{who}{}", told(&policies, decision))))?;
        allowed &= decision.is_allowed();
    }
    Ok(allowed)
}

/// The flags that can be given once. They collect what is given, so that [`once`] can see it.
pub(super) fn collecting(command: clap::Command) -> clap::Command {
    let flags = ["from", "to", "protocol"].into_iter();
    flags
        .fold(command, |command, flag| command.mut_arg(flag, |flag| flag.action(ArgAction::Append)))
}

/// The value of a flag of [`collecting`].
fn once<'a>(matches: &'a ArgMatches, flag: &str) -> anyhow::Result<Option<&'a str>> {
    let mut values = matches.get_many::<String>(flag).into_iter().flatten();
    let value = values.next().map(String::as_str);
    if values.next().is_some() {
        bail!("--{flag} is given twice\nhint: ask one question at a time");
    }
    Ok(value)
}

fn protocol(text: &str) -> anyhow::Result<Protocol> {
    let mut known = Protocol::WORDS.iter();
    let found = known.find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, of)| *of);
    found
        .with_context(|| format!("invalid value {text:?} for --protocol: must be tcp, udp or icmp"))
}

/// A destination, and its port if the protocol has ports.
fn destination(text: &str, protocol: Protocol) -> anyhow::Result<(Destination, u16)> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let (host, port) = match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => (Destination::Address(address.ip()), Some(address.port())),
        (_, Ok(ip)) => (Destination::Address(ip), None),
        _ => {
            let (name, port) = match text.rsplit_once(':') {
                Some((name, port)) if !text.contains("://") => (name, Some(port)),
                _ => (text, None),
            };
            let name =
                self::name(name).with_context(|| format!("invalid value {text:?} for --to"))?;
            let port = port.map(|port| {
                port.parse().ok().with_context(|| {
                    format!("invalid value {text:?} for --to: the port {port:?} is not a number from 1 to 65535")
                })
            });
            (Destination::Name(name), port.transpose()?)
        }
    };
    match (protocol, port) {
        (Protocol::Icmp, None) => Ok((host, 0)),
        (Protocol::Icmp, Some(_)) => {
            bail!("invalid value {text:?} for --to: icmp has no ports\nhint: omit the port")
        }
        (_, Some(port @ 1..)) => Ok((host, port)),
        (_, Some(0)) => bail!(
            "invalid value {text:?} for --to: 0 is not a port\nhint: use a port from 1 to 65535"
        ),
        (_, None) => {
            bail!("invalid value {text:?} for --to: no port\nhint: add a port, such as :443")
        }
    }
}

/// A host name as files have it, in lower case and without a final dot.
fn name(text: &str) -> anyhow::Result<String> {
    if text.is_empty() || (text.contains(':') && !text.contains("://")) {
        bail!(
            "{text:?} is neither an address nor a host name\n\
             hint: use a form such as 192.0.2.7:443, [2001:db8::7]:443 or registry.example.org:443"
        );
    }
    match text.parse()? {
        Target::Network(_) => bail!("{text:?} is a network\nhint: use one address of it"),
        Target::Name(name) if name.starts_with('*') => {
            bail!("{text:?} is a pattern\nhint: use one of the names that it is for")
        }
        Target::Name(name) => Ok(name),
    }
}

/// What the files say, with the containers that Docker has now.
fn of_files(files: &[&String], docker: &Docker) -> anyhow::Result<Policies> {
    let read = files.iter().map(|file| Ok((*file, policy_file::read(Path::new(file))?)));
    let files = read.collect::<anyhow::Result<Vec<(&String, File)>>>()?;
    let directory = if files.iter().any(|(_, file)| file.names_containers()) {
        docker.directory().context("the files name containers")?
    } else {
        Directory::default()
    };
    Ok(Policies {
        policies: files.iter().map(|(path, file)| file.resolve(path, &directory)).collect(),
        known: directory.known(),
        ..Policies::default()
    })
}

/// Whom the attempt may come from: a container has an address in each of its networks.
fn senders(
    from: &str,
    destination: &Destination,
    directory: impl FnOnce() -> anyhow::Result<Directory>,
) -> anyhow::Result<Vec<(String, Source)>> {
    if from == "daemon" {
        return Ok(vec![(from.to_owned(), Source::Namespace)]);
    }
    if let Ok(address) = from.parse::<IpAddr>() {
        return Ok(vec![(from.to_owned(), Source::Container(address))]);
    }
    if from.contains('/') {
        bail!("invalid value {from:?} for --from: a network is no sender\nhint: write one address");
    }
    let is_daemon = ["daemon", "dockerd"].iter().any(|word| from.eq_ignore_ascii_case(word));
    let hint = |otherwise| if is_daemon { "did you mean daemon?" } else { otherwise };
    let directory = directory().map_err(|error| {
        let hint = hint("start Docker, or use an address or daemon");
        anyhow!("cannot look up container {from:?}: {error:#}\nhint: {hint}")
    })?;
    let Some(container) = directory.containers.iter().find(|container| container.name == from)
    else {
        let hint = hint(
            "docker ps shows the names; for a container that does not run, use an address of its network",
        );
        bail!("no running container is called {from:?}\nhint: {hint}");
    };
    let suits = |address: &IpAddr| match destination {
        Destination::Address(to) => to.to_canonical().is_ipv4() == address.to_canonical().is_ipv4(),
        Destination::Name(_) => true,
    };
    // A task of a swarm has the same one for each of its networks.
    let mut addresses: Vec<(IpAddr, String)> = Vec::new();
    for (network, address) in container.addresses.iter().filter(|(_, address)| suits(address)) {
        match addresses.iter_mut().find(|(known, _)| known == address) {
            Some((_, networks)) => *networks += &format!(", {network}"),
            None => addresses.push((*address, network.clone())),
        }
    }
    let sender = |(address, networks)| {
        (format!("{from} at {address} ({networks})"), Source::Container(address))
    };
    let senders: Vec<_> = addresses.into_iter().map(sender).collect();
    if senders.is_empty() {
        bail!(
            "container {from:?} has no address that can reach this destination\n\
             hint: for a container with --network=host, use --from daemon"
        );
    }
    Ok(senders)
}

/// Fails if the decision on a name depends on its address.
fn judge(
    policies: &Policies,
    source: Source,
    protocol: Protocol,
    destination: &Destination,
    port: u16,
) -> anyhow::Result<Decision> {
    let name = match destination {
        Destination::Address(address) => {
            let attempt = Attempt { source, protocol, destination: *address, port };
            return Ok(policies.judge(&attempt, &[]));
        }
        Destination::Name(name) => name,
    };
    let attempt = Attempt { source, protocol, destination: Ipv4Addr::UNSPECIFIED.into(), port };
    let decision = with_addresses(policies, |_, _| false).judge(&attempt, &[name]);
    // What would decide otherwise if the name had such an address.
    let contrary = |policy: usize, action| {
        decision.verdicts.get(policy).is_some_and(|(_, decided)| *decided != action)
    };
    let other = with_addresses(policies, contrary).judge(&attempt, &[name]);
    let mut both = decision.verdicts.iter().zip(&other.verdicts);
    if let Some((_, (id, _))) = both.find(|(decided, other)| decided != other) {
        bail!(
            "cannot tell: {} is for addresses\nhint: ask again with an address of the name",
            visible(&called(policies, *id))
        );
    }
    Ok(decision)
}

/// The same rules, by their places, but those that lead to addresses match either every address or none, as `all` says for
/// the place of the policy and the action.
fn with_addresses(policies: &Policies, all: impl Fn(usize, Action) -> bool) -> Policies {
    let is_address = |target: &Target| matches!(target, Target::Network(_));
    let mut policies = policies.clone();
    for (index, policy) in policies.policies.iter_mut().enumerate() {
        for rule in policy.rules.iter_mut().filter(|rule| rule.to.iter().any(is_address)) {
            if all(index, rule.action) {
                rule.to.clear();
            }
            for target in rule.to.iter_mut().filter(|target| is_address(target)) {
                // No name is empty.
                *target = Target::Name(String::new());
            }
        }
    }
    policies
}

/// A rule, or a default, and its file.
fn called(policies: &Policies, id: RuleId) -> String {
    let file = policies.policies.get(id.policy).map_or("", |policy| &policy.file);
    match id.rule {
        Some(_) => format!("rule {:?} of {file}", policies.name_of(id)),
        None => format!("the default of {file}"),
    }
}

/// The decision in words, on lines.
fn told(policies: &Policies, decision: &Decision) -> String {
    let by = |id: &RuleId| called(policies, *id);
    let allowing = decision.verdicts.iter().filter(|(_, action)| *action == Action::Allow);
    let allowing: Vec<_> = allowing.map(|(id, _)| by(id)).collect();
    let mut text = match (&decision.denied_by, &allowing[..]) {
        (Some(id), _) => format!("denied by {}\n", by(id)),
        (None, []) => "allowed\n".to_owned(),
        (None, allowing) => format!("allowed by {}\n", allowing.join(" and ")),
    };
    if let Some(id) = &decision.dry_run {
        text += &format!("note: without dry-run mode, it would be denied by {}\n", by(id));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_addresses_or_names() {
        let address = |text: &str| Destination::Address(text.parse().unwrap());
        let name = |text: &str| Destination::Name(text.to_owned());
        for (text, protocol, expected) in [
            ("192.0.2.7:443", Protocol::Tcp, (address("192.0.2.7"), 443)),
            ("[2001:db8::7]:53", Protocol::Udp, (address("2001:db8::7"), 53)),
            ("2001:db8::7", Protocol::Icmp, (address("2001:db8::7"), 0)),
            ("[2001:db8::7]", Protocol::Icmp, (address("2001:db8::7"), 0)),
            ("WWW.Example.org.:80", Protocol::Tcp, (name("www.example.org"), 80)),
            ("example.org", Protocol::Icmp, (name("example.org"), 0)),
        ] {
            assert_eq!(destination(text, protocol).unwrap(), expected, "{text}");
        }
        for (text, protocol, part) in [
            ("192.0.2.7", Protocol::Tcp, "no port"),
            ("192.0.2.7:0", Protocol::Tcp, "0 is not a port"),
            ("example.org:0", Protocol::Tcp, "0 is not a port"),
            ("192.0.2.7:1", Protocol::Icmp, "icmp has no ports"),
            ("example.org:https", Protocol::Tcp, "the port \"https\""),
            ("10.0.0.0/8:80", Protocol::Tcp, "\"10.0.0.0/8\" is a network"),
            ("*.example.org:80", Protocol::Tcp, "\"*.example.org\" is a pattern"),
            ("300.0.2.2:443", Protocol::Tcp, "\"300.0.2.2\" is neither an IP address nor"),
            ("192.0.2.02:7443", Protocol::Tcp, "\"192.0.2.02\" is neither an IP address nor"),
            ("192.0.2.2 :7443", Protocol::Tcp, "\"192.0.2.2 \" is no host name\nhint: use letters"),
            (
                "example..org:443",
                Protocol::Tcp,
                "\"example..org\" is no host name: a part of it is",
            ),
            ("bücher.de:443", Protocol::Tcp, "\"bücher.de\" is not in ASCII\nhint: "),
            ("https://example.org", Protocol::Tcp, "is a URL\nhint: write only the host name"),
            ("https://example.org:443", Protocol::Tcp, "is a URL\nhint: write only the host name"),
            ("[2001:db8::g]:443", Protocol::Tcp, "neither an address nor a host name"),
            (":80", Protocol::Tcp, "neither an address nor a host name"),
        ] {
            let error = format!("{:#}", destination(text, protocol).unwrap_err());
            assert!(error.contains(part) && error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn a_container_sends_from_each_address_that_suits() {
        let directory = || {
            let one = |network: &str, ip: &str| (network.to_owned(), ip.parse().unwrap());
            let container = |name: &str, addresses| egress::Container {
                name: name.to_owned(),
                addresses,
                ..egress::Container::default()
            };
            let web = vec![one("a", "172.18.0.2"), one("a", "fd99::2"), one("b", "172.19.0.2")];
            let task = vec![one("a", "172.20.0.2"), one("b", "172.20.0.2")];
            let containers =
                vec![container("web", web), container("task", task), container("open", Vec::new())];
            Ok(Directory { containers, networks: Vec::new() })
        };
        let found = |from: &str, to: &str| {
            let (to, _) = destination(to, Protocol::Icmp).unwrap();
            let senders = senders(from, &to, directory).map_err(|e| format!("{e:#}"))?;
            Ok::<_, String>(senders.into_iter().map(|(_, source)| source).collect::<Vec<_>>())
        };
        let at = |ip: &str| Source::Container(ip.parse().unwrap());
        assert_eq!(found("daemon", "x"), Ok(vec![Source::Namespace]));
        assert_eq!(found("172.30.0.9", "x"), Ok(vec![at("172.30.0.9")]));
        let v4 = vec![at("172.18.0.2"), at("172.19.0.2")];
        assert_eq!(found("web", "192.0.2.7"), Ok(v4));
        assert_eq!(found("web", "2001:db8::7"), Ok(vec![at("fd99::2")]));
        assert_eq!(found("web", "x").unwrap().len(), 3);
        assert_eq!(found("task", "x"), Ok(vec![at("172.20.0.2")]));
        for daemon in ["Daemon", "dockerd"] {
            let error = found(daemon, "x").unwrap_err();
            assert!(error.ends_with(&format!("{daemon:?}\nhint: did you mean daemon?")), "{error}");
        }
        let error = found("172.18.0.0/16", "x").unwrap_err();
        assert!(error.ends_with("a network is no sender\nhint: write one address"), "{error}");
        assert!(found("nobody", "x").unwrap_err().contains("\"nobody\"\nhint: docker ps"));
        assert!(
            found("open", "x").unwrap_err().contains("hint: for a container with --network=host")
        );
    }
}
