//! Files, and what becomes of attempts.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers as well")]

mod compact;
mod policies;
mod reference;
mod rules;
mod unreachable;

use std::net::{IpAddr, SocketAddr};

use egress::{Attempt, Container, Directory, File, Network, Policies, Policy, Protocol, Source};

fn container(name: &str, labels: &[(&str, &str)], addresses: &[(&str, &str)]) -> Container {
    Container {
        name: name.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        addresses: addresses.iter().map(|(net, ip)| ((*net).into(), ip.parse().unwrap())).collect(),
    }
}

/// Two containers in a network of two families, one of them also in `bridge`.
fn directory() -> Directory {
    let network = |name: &str, subnets: &[&str]| Network {
        name: name.to_owned(),
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        is_shared: false,
    };
    Directory {
        containers: vec![
            container(
                "web-1",
                &[("tier", "front"), ("team", "")],
                &[("bridge", "172.17.0.2"), ("back", "172.18.0.2"), ("back", "fd00::2")],
            ),
            container("db", &[("tier", "store")], &[("back", "172.18.0.3")]),
        ],
        networks: vec![
            network("bridge", &["172.17.0.0/16"]),
            network("back", &["172.18.0.0/16", "fd00::/64"]),
            network("none", &[]),
        ],
    }
}

fn policy(text: &str, directory: &Directory) -> Policy {
    File::parse(text).expect(text).resolve("egress.toml", directory)
}

fn in_force(policies: &[Policy], directory: &Directory) -> Policies {
    Policies { policies: policies.to_vec(), known: directory.known(), ..Policies::default() }
}

/// `172.17.0.2 tcp 192.0.2.1:443`, `daemon icmp 2001:db8::1`
fn attempt(text: &str) -> Attempt {
    let words: Vec<_> = text.split(' ').collect();
    let [source, protocol, destination] = words[..] else { panic!("{text}") };
    let source = match source {
        "daemon" => Source::Namespace,
        address => Source::Container(address.parse().unwrap()),
    };
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        other => panic!("{other}"),
    };
    let (destination, port) = match destination.parse::<SocketAddr>() {
        Ok(at) => (at.ip(), at.port()),
        Err(_) => (destination.parse::<IpAddr>().expect(text), 443),
    };
    Attempt { source, protocol, destination, port }
}
