//! The ways out of the host, and those that the daemon is told to take: routes, the network of the namespace, proxies.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use drivers::Cidr;
use hostenv::routes::Routes;
use hostenv::{shellwords, vars};
use serde_json::Value;

use crate::place::World;
use crate::probe::Prober;

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
    /// The port, with a colon, or nothing.
    pub port: String,
}

#[derive(Debug, Clone)]
pub struct Ways {
    pub routes: Routes,
    pub cidr: Cidr,
    /// daemon.json gives bridges IPv6.
    pub bridges_have_ipv6: bool,
    /// Proxies of a daemon in the namespace.
    pub of_daemon: Vec<Proxy>,
    /// Proxies that the docker command gives to containers.
    pub of_containers: Vec<Proxy>,
}

impl Ways {
    pub fn gather(world: &World, dockerd: Option<&Path>, prober: &dyn Prober) -> Self {
        let config = world.daemon_json().unwrap_or_default();
        let flags = world.env.nonempty(vars::DOCKERD_ROOTLESS_FLAGS).unwrap_or_default();
        let mut of_daemon = of_daemon(world, &config);
        // It is on the host's network then.
        if !of_daemon.is_empty() && dockerd.is_some_and(|program| detaches(world, program, prober))
        {
            of_daemon.clear();
        }
        Self {
            routes: Routes::read(&world.root),
            cidr: cidr(flags).unwrap_or(Cidr::DEFAULT),
            bridges_have_ipv6: config["ipv6"] == true,
            of_daemon,
            of_containers: of_containers(world),
        }
    }
}

/// The last `--cidr` in the user's flags for rootlesskit.
fn cidr(flags: &OsStr) -> Option<Cidr> {
    let words = shellwords::split(flags).ok()?;
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let value = |at: usize| {
        let flag = words[at].trim_start_matches('-');
        match flag.split_once('=') {
            Some(("cidr", value)) => Some(value),
            None if flag == "cidr" => words.get(at + 1).map(|word| &**word),
            _ => None,
        }
    };
    (0..words.len()).rev().find_map(value)?.parse().ok()
}

fn of_daemon(world: &World, config: &Value) -> Vec<Proxy> {
    let mut found = Vec::new();
    if let (Some(proxies), Some((file, _))) = (config["proxies"].as_object(), world.daemon_config())
    {
        for name in ["http-proxy", "https-proxy"] {
            let url = proxies.get(name).and_then(Value::as_str).unwrap_or_default();
            found.extend(proxy(&file, name, url));
        }
    }
    // A unit, its drop-ins, and what systemd gives to all units of the user (environment.d(5)).
    let unit = world.unit();
    let drop_ins = unit.as_deref().map(|unit| unit.with_extension("service.d"));
    let for_all = world.config_home().map(|dir| dir.join("environment.d"));
    let files = unit.into_iter().chain(configurations(drop_ins)).chain(configurations(for_all));
    for file in files {
        let text = hostenv::file::text(&file).unwrap_or_default();
        for word in text.lines().flat_map(assignments) {
            let Some((name, url)) = word.split_once('=') else { continue };
            if VARIABLES.contains(&name.to_ascii_uppercase().as_str()) {
                found.extend(proxy(&file, name, url));
            }
        }
    }
    found
}

pub(super) fn configurations(dir: Option<PathBuf>) -> Vec<PathBuf> {
    let entries = dir.and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|file| file.extension() == Some("conf".as_ref()) && file.is_file())
        .collect();
    files.sort();
    files
}

/// The variables that a line sets: `Environment=A=b "C=d e"` in a unit, `A=b` elsewhere.
pub(super) fn assignments(line: &str) -> Vec<String> {
    let line = line.trim();
    let words = line.strip_prefix("Environment=").unwrap_or(line);
    let words = shellwords::split(words.as_ref()).unwrap_or_default();
    words.into_iter().filter_map(|word: OsString| word.into_string().ok()).collect()
}

/// `proxies` in the configuration of the docker command, for all daemons or for this one.
fn of_containers(world: &World) -> Vec<Proxy> {
    let Some(file) = world.cli_config().map(|dir| dir.join("config.json")) else {
        return Vec::new();
    };
    let config: Value = hostenv::file::read(&file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
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
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    // The value may have a password in it.
    loopback.then(|| Proxy {
        setting: format!("{name}={host_port}"),
        file: file.to_owned(),
        port: port.to_owned(),
    })
}

pub(super) fn detaches(world: &World, dockerd: &Path, prober: &dyn Prober) -> bool {
    match world.env.text(vars::DOCKERD_ROOTLESS_DETACH_NETNS).ok().flatten() {
        Some("true" | "1") => return true,
        Some("false" | "0") => return false,
        _ => {}
    }
    let version = || {
        let said = prober.ask(dockerd, "--version").ok()?;
        let rest = said.split_once("Docker version ")?.1;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    version().is_some_and(|version: (u32, u32)| version >= DETACHES_SINCE)
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
    fn the_network_is_that_of_the_last_flag() {
        let of = |flags: &str| cidr(flags.as_ref()).map(|cidr| cidr.to_string());
        assert_eq!(
            of("--cidr=10.1.0.0/24 --debug -cidr 10.2.0.0/24").as_deref(),
            Some("10.2.0.0/24")
        );
        assert_eq!(of("--cidr"), None);
        assert_eq!(of("--debug"), None);
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "\\PC{0,40}") {
            let _ = (proxy(Path::new("/"), "n", &text), cidr(text.as_ref()), assignments(&text));
        }
    }
}
