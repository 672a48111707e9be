//! The container whose packets are wanted: its addresses, from Docker or as typed.

use std::net::IpAddr;

use anyhow::bail;

use crate::docker::{Container, Docker};

/// Most names that an error lists.
const LISTED: usize = 20;

/// A container as the network sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// For people: `container "web"`.
    pub(super) label: String,
    /// Its addresses, each with the name of its network if that is known.
    pub(super) addresses: Vec<(IpAddr, Option<String>)>,
}

/// Finds the container that has this name, ID or address.
pub(super) fn find(name: &str, docker: &Docker) -> anyhow::Result<Wanted> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(Wanted { label: format!("container at {ip}"), addresses: vec![(ip, None)] });
    }
    let all = docker.containers().map_err(|error| {
        anyhow::anyhow!(
            "cannot look up container {name:?}: {error:#}\n\
             hint: start Docker, or use the IP address of the container"
        )
    });
    among(name, &all?)
}

fn among(name: &str, all: &[Container]) -> anyhow::Result<Wanted> {
    let with_id: Vec<&Container> = all.iter().filter(|one| one.id.starts_with(name)).collect();
    let named = all.iter().find(|one| one.names().any(|own| own == name));
    let container = match (named, &with_id[..]) {
        (Some(one), _) => one,
        (None, [one]) => *one,
        (None, [_, _, ..]) => {
            bail!(
                "the IDs of several containers begin with {name:?}\nhint: use a longer ID, or the name"
            )
        }
        (None, []) => {
            let mut names: Vec<String> = all
                .iter()
                .filter_map(|one| one.names().next().map(|own| format!("{own:?}")))
                .collect();
            names.sort();
            let more = if names.len() > LISTED { ", …" } else { "" };
            names.truncate(LISTED);
            let hint = if names.is_empty() {
                "no container is running".to_owned()
            } else {
                format!("running containers are {}{more}", names.join(", "))
            };
            bail!("no running container is called {name:?}\nhint: {hint}");
        }
    };
    let mode = &*container.host_config.network_mode;
    match mode {
        "host" => bail!(
            "container {name:?} uses the network of the namespace or of the host (--network=host), so it has no \
             address\n\
             hint: omit --container, and select its packets with --port or --host"
        ),
        "none" => bail!("container {name:?} has no network (--network=none)"),
        _ => {}
    }
    if mode.starts_with("container:") {
        let owner = container.network_of(all).and_then(|one| one.names().next());
        let hint =
            owner.map(|owner| format!("\nhint: use --container {owner:?}")).unwrap_or_default();
        bail!("container {name:?} shares the network of another container{hint}");
    }
    let mut addresses: Vec<_> =
        container.addresses().map(|(ip, network)| (ip, Some(network.to_owned()))).collect();
    addresses.sort();
    if addresses.is_empty() {
        bail!(
            "container {name:?} has no IP address\nhint: connect it to a network, or omit --container"
        );
    }
    Ok(Wanted { label: format!("container {name:?}"), addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINERS: &str = r#"[
        {"Id": "abc111", "Names": ["/web", "/other/alias"], "HostConfig": {"NetworkMode": "bridge"},
         "NetworkSettings": {"Networks": {"one": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd99::2"},
            "bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": ""}, "none": null}}},
        {"Id": "abc222", "Names": ["/open"], "HostConfig": {"NetworkMode": "host"},
         "NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}},
        {"Id": "def333", "Names": ["/shut"], "HostConfig": {"NetworkMode": "none"}},
        {"Id": "fff444", "Names": ["/guest"], "HostConfig": {"NetworkMode": "container:abc111"}},
        {"Id": "eee555", "Names": ["/bare"], "HostConfig": {"NetworkMode": "x"}, "NetworkSettings": null},
        {"Id": "web666", "Names": null}]"#;

    fn found(name: &str) -> Result<Wanted, String> {
        let all: Vec<Container> = serde_json::from_str(CONTAINERS).unwrap();
        among(name, &all).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_container_has_names_an_id_and_addresses_in_all_its_networks() {
        for name in ["web", "other/alias", "abc111", "abc1"] {
            let found = found(name).unwrap();
            assert_eq!(found.label, format!("container {name:?}"));
            let texts: Vec<String> = found
                .addresses
                .iter()
                .map(|(ip, network)| format!("{ip} {}", network.as_deref().unwrap()))
                .collect();
            assert_eq!(texts, ["172.17.0.2 bridge", "172.18.0.2 one", "fd99::2 one"]);
        }
    }

    #[test]
    fn what_has_no_packets_of_its_own_is_explained() {
        for (name, parts) in [
            ("open", &["--network=host", "hint: omit --container"][..]),
            ("shut", &["--network=none"]),
            ("guest", &["shares", "hint: use --container \"web\""]),
            ("bare", &["no IP address", "hint"]),
            ("abc", &["several containers", "hint"]),
            (
                "nobody",
                &["\"nobody\"", "hint: running containers are \"bare\", \"guest\"", "\"web\""],
            ),
        ] {
            let error = found(name).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
        }
        let error = format!("{:#}", among("web", &[]).unwrap_err());
        assert!(error.contains("no container is running"), "{error}");
    }

    #[test]
    fn an_address_needs_no_docker() {
        let docker = Docker::of(std::path::Path::new("/api.sock"), &hostenv::Env::default());
        let wanted = find("fd99::7", &docker).unwrap();
        assert_eq!(wanted.addresses, [("fd99::7".parse().unwrap(), None)]);
        let error = format!("{:#}", find("web", &docker).unwrap_err());
        assert!(
            error.contains("no Docker socket") && error.contains("hint: start Docker"),
            "{error}"
        );
    }
}
