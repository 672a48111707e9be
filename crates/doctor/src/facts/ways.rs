//! The ways out of the host, and those that the daemon is told to take: routes, the network of the namespace, proxies.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use drivers::Cidr;
use hostenv::routes::Routes;
use hostenv::vars;
use serde_json::Value;

use super::variables::{Flags, UserSettings};
use crate::place::World;

/// The first dockerd that stays in the network namespace of the host (see the launcher).
const DETACHES_SINCE: (u32, u32) = (29, 5);

/// Variables that dockerd takes a proxy from. They count in both spellings.
const VARIABLES: [&str; 2] = ["HTTP_PROXY", "HTTPS_PROXY"];

/// A proxy on a loopback address, which is another one in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name there, and its value.
    pub setting: String,
    pub file: PathBuf,
    /// The address on loopback.
    pub address: IpAddr,
    /// The port if it is a number. Without one, programs disagree about the port.
    pub port: Option<u16>,
}

#[derive(Debug, Clone)]
pub struct Ways {
    pub routes: Routes,
    pub cidr: Cidr,
    /// The namespace has IPv6, if its driver supports that.
    pub ipv6: bool,
    /// daemon.json gives bridges IPv6.
    pub bridges_have_ipv6: bool,
    /// Proxies of a daemon in the namespace.
    pub of_daemon: Vec<Proxy>,
    /// Proxies that the docker command gives to containers.
    pub of_containers: Vec<Proxy>,
}

impl Ways {
    pub(super) fn gather(
        world: &World,
        settings: &UserSettings<'_>,
        dockerd_version: Option<[u32; 3]>,
    ) -> Self {
        let config = world.daemon_json().unwrap_or_default();
        let flags = &settings.flags;
        let routes = Routes::read(&world.root);
        let mut of_daemon = of_daemon(world, settings, &config);
        // It is on the host's network then.
        if detaches(settings, dockerd_version) {
            of_daemon.clear();
        }
        Self {
            cidr: cidr(flags).unwrap_or(Cidr::DEFAULT),
            // The launcher adds it on a host without IPv4.
            ipv6: flags.last_bool("ipv6").map_or(routes.only_v6(), |(value, _)| value),
            routes,
            bridges_have_ipv6: config["ipv6"] == true,
            of_daemon,
            of_containers: of_containers(world),
        }
    }
}

/// The last `--cidr` in the user's flags for rootlesskit.
fn cidr(flags: &Flags) -> Option<Cidr> {
    flags.last("cidr")?.value.parse().ok()
}

fn of_daemon(world: &World, settings: &UserSettings<'_>, config: &Value) -> Vec<Proxy> {
    let mut found = Vec::new();
    if let (Some(proxies), Some((file, _))) = (config["proxies"].as_object(), world.daemon_config())
    {
        for name in ["http-proxy", "https-proxy"] {
            let url = proxies.get(name).and_then(Value::as_str).unwrap_or_default();
            found.extend(proxy(&file, name, url));
        }
    }
    for (file, name, url) in settings.assigned() {
        if VARIABLES.contains(&name.to_ascii_uppercase().as_str()) {
            found.extend(proxy(file, name, url));
        }
    }
    found
}

/// `proxies` in the configuration of the docker command, for all daemons or for this one.
fn of_containers(world: &World) -> Vec<Proxy> {
    let Some(file) = world.cli_config().map(|dir| dir.join("config.json")) else {
        return Vec::new();
    };
    let config = world.cli_json().unwrap_or_default();
    let sets = config["proxies"].as_object().into_iter().flatten();
    let mut found = Vec::new();
    for name in ["httpProxy", "httpsProxy"] {
        for (_, set) in sets.clone() {
            found.extend(proxy(&file, name, set[name].as_str().unwrap_or_default()));
        }
    }
    found
}

/// A proxy if it is on loopback: `http://user:word@127.0.0.1:3128/`, with or without what is around the address.
fn proxy(file: &Path, name: &str, url: &str) -> Option<Proxy> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    let (host, port) = match host_port.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => host_port.split_at(host_port.find(':').unwrap_or(host_port.len())),
    };
    let address = match host {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse::<IpAddr>().ok().filter(IpAddr::is_loopback)?,
    };
    // The value may have a password in it.
    Some(Proxy {
        setting: format!("{name}={host_port}"),
        file: file.to_owned(),
        address,
        port: port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port != 0),
    })
}

pub(super) fn detaches(settings: &UserSettings<'_>, dockerd_version: Option<[u32; 3]>) -> bool {
    if let Some((detaches, _)) = settings.flags.last_bool("detach-netns") {
        return detaches;
    }
    let set = settings.variable(vars::DOCKERD_ROOTLESS_DETACH_NETNS);
    match set.as_ref().map(|setting| setting.value.as_str()) {
        Some("true" | "1") => return true,
        Some("false" | "0") => return false,
        _ => {}
    }
    dockerd_version.is_some_and(|[major, minor, _]| (major, minor) >= DETACHES_SINCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn proxies_on_loopback_are_known_in_every_spelling() {
        for (url, shown) in [
            ("http://127.0.0.1:3128", Some("127.0.0.1:3128")),
            ("127.1.2.3:8080/", Some("127.1.2.3:8080")),
            ("https://jo:secret@localhost:3128/x", Some("localhost:3128")),
            ("socks5://[::1]:1080", Some("[::1]:1080")),
            ("http://localhost", Some("localhost")),
            ("http://proxy.example.org:3128", None),
            ("http://127.0.0.1.example.org", None),
            ("http://192.0.2.1:3128", None),
            ("", None),
        ] {
            let found = proxy(Path::new("/f"), "P", url).map(|proxy| proxy.setting);
            assert_eq!(found, shown.map(|shown| format!("P={shown}")), "{url}");
        }
    }

    #[test]
    fn the_address_and_port_of_a_proxy_are_those_that_are_written() {
        for (url, address, port) in [
            ("http://127.0.0.1:3128", "127.0.0.1", Some(3128)),
            ("http://localhost:80/", "127.0.0.1", Some(80)),
            ("127.1.2.3:8080", "127.1.2.3", Some(8080)),
            ("http://[::1]:3128", "::1", Some(3128)),
            ("http://[::1]", "::1", None),
            ("http://localhost", "127.0.0.1", None),
            ("http://localhost:", "127.0.0.1", None),
            ("http://localhost:0", "127.0.0.1", None),
            ("http://localhost:65536", "127.0.0.1", None),
            ("http://localhost:3128,udp:1-65535", "127.0.0.1", None),
        ] {
            let found = proxy(Path::new("/f"), "P", url).unwrap();
            assert_eq!((found.address.to_string().as_str(), found.port), (address, port), "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "\\PC{0,40}") {
            let _ = proxy(Path::new("/"), "n", &text);
        }
    }
}
