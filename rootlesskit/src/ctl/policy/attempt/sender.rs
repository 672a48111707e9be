//! `--from`: who sends.

use std::net::{IpAddr, SocketAddr};

use anyhow::{anyhow, bail};
use egress::{Directory, Source};

use super::destination::Destination;
use crate::ctl::policy::own::Addresses;

/// Whom an attempt may come from, each with what people call it.
pub(super) type Senders = Vec<(String, Source)>;

/// Whom the attempt may come from: a container has an address in each of its networks.
pub(super) fn senders(
    from: &str,
    destination: &Destination,
    own: impl FnOnce() -> Addresses,
    directory: impl FnOnce() -> anyhow::Result<Directory>,
) -> anyhow::Result<Senders> {
    if from == "daemon" {
        return Ok(vec![(from.to_owned(), Source::Namespace)]);
    }
    let bare = from.strip_prefix('[').and_then(|from| from.strip_suffix(']')).unwrap_or(from);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![(from.to_owned(), at(from, address.to_canonical(), &own())?)]);
    }
    if from.parse::<SocketAddr>().is_ok() {
        bail!("invalid value {from:?} for --from: a port is not supported\nhint: omit the port");
    }
    if from.contains('/') {
        bail!("invalid value {from:?} for --from: this is a network\nhint: use a single address");
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
            "docker ps shows the names; for a container that is not running, use an address of its network",
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

/// Whoever has this address.
fn at(from: &str, address: IpAddr, own: &Addresses) -> anyhow::Result<Source> {
    if own.namespace.contains(&address) {
        return Ok(Source::Namespace);
    }
    let reason = if own.gateway.contains(&address) {
        "this is an address of the gateway, which no policy applies to"
    } else if address.is_loopback() {
        "packets from a loopback address do not leave their network namespace"
    } else if address.is_unspecified() || address.is_multicast() || is_broadcast(address) {
        "no container can have this address"
    } else {
        return Ok(Source::Container(address));
    };
    bail!(
        "invalid value {from:?} for --from: {reason}\n\
         hint: use the name or an address of a container, or \"daemon\" for traffic that does not come from a container"
    )
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use egress::Protocol;

    use super::super::destination::destination;
    use super::*;

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
            let senders =
                senders(from, &to, Addresses::default, directory).map_err(|e| format!("{e:#}"))?;
            Ok::<_, String>(senders.into_iter().map(|(_, source)| source).collect::<Vec<_>>())
        };
        let at = |ip: &str| Source::Container(ip.parse().unwrap());
        assert_eq!(found("daemon", "x"), Ok(vec![Source::Namespace]));
        assert_eq!(found("172.30.0.9", "x"), Ok(vec![at("172.30.0.9")]));
        assert_eq!(found("::ffff:172.30.0.9", "x"), Ok(vec![at("172.30.0.9")]));
        assert_eq!(found("[fd99::9]", "x"), Ok(vec![at("fd99::9")]));
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
        assert!(error.ends_with(": this is a network\nhint: use a single address"), "{error}");
        assert!(found("nobody", "x").unwrap_err().contains("\"nobody\"\nhint: docker ps"));
        assert!(
            found("open", "x").unwrap_err().contains("hint: for a container with --network=host")
        );
    }

    #[test]
    fn an_address_of_the_namespace_is_no_container_and_others_cannot_send() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        for (namespace, gateway) in [
            (["10.0.2.100", "fd00::64"], ["10.0.2.2", "10.0.2.3", "fd00::2", "fd00::3"]),
            (["10.9.0.100", "fd00::64"], ["10.9.0.2", "10.9.0.3", "fd00::2", "fd00::3"]),
        ] {
            let own =
                || Addresses { namespace: addresses(&namespace), gateway: addresses(&gateway) };
            let found = |from: &str| {
                let (to, _) = destination("192.0.2.7", Protocol::Icmp).unwrap();
                let found = senders(from, &to, own, || bail!("Docker is not asked"));
                found.map(|senders| senders[0].1).map_err(|e| format!("{e:#}"))
            };
            for from in namespace {
                assert_eq!(found(from), Ok(Source::Namespace), "{from}");
            }
            assert_eq!(found(&format!("::ffff:{}", namespace[0])), Ok(Source::Namespace));
            assert_eq!(found("[fd00::64]"), Ok(Source::Namespace));
            let container = "10.77.0.100".parse().unwrap();
            assert_eq!(found("10.77.0.100"), Ok(Source::Container(container)));
            let others = gateway.map(|from| (from, "an address of the gateway"));
            for (from, part) in others.into_iter().chain([
                ("127.0.0.1", "a loopback address"),
                ("127.8.8.8", "a loopback address"),
                ("::1", "a loopback address"),
                ("::ffff:127.0.0.1", "a loopback address"),
                ("0.0.0.0", "no container can have"),
                ("::", "no container can have"),
                ("224.0.0.1", "no container can have"),
                ("ff02::1", "no container can have"),
                ("255.255.255.255", "no container can have"),
            ]) {
                let error = found(from).unwrap_err();
                let start = format!("invalid value {from:?} for --from: ");
                assert!(
                    error.starts_with(&start) && error.contains(part) && error.contains("\nhint: "),
                    "{error}"
                );
            }
            let error = found("172.18.0.2:80").unwrap_err();
            assert!(error.ends_with("a port is not supported\nhint: omit the port"), "{error}");
        }
    }
}
