//! What the Docker daemon of the namespace knows: containers and networks, with names and addresses.
//!
//! rootlessctl shows names ([`Docker`]). The parent needs them for an egress policy and follows them ([`follow`]).

#[cfg(feature = "gateway")]
pub(crate) mod follow;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use api::Stats;
use api::client::{Client, ClientError};
use egress::Directory;
use hostenv::{Env, vars};
use nix::unistd::geteuid;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What the daemon may take to answer. Statistics are worth more than names.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A socket and whose daemon has to serve it. The state directory may be in a directory in which everybody may make a
/// `docker.sock`, such as /tmp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    path: PathBuf,
    /// User ID. The daemon runs as the user of the namespace, as seen from outside.
    owner: u32,
}

impl Socket {
    /// Beside the state directory of this process (`$XDG_RUNTIME_DIR/docker.sock`).
    #[cfg(feature = "gateway")]
    pub(crate) fn beside(state_dir: &Path) -> Self {
        Self { path: beside(state_dir), owner: geteuid().as_raw() }
    }

    /// The one of the namespace whose API is at `api`, whose owner is that of the namespace. If there is none, the one that
    /// `docker` would use, as far as that is a unix socket.
    fn of(api: &Path, env: &Env) -> Option<Self> {
        let owner = fs::metadata(api).map_or_else(|_| geteuid().as_raw(), |api| api.uid());
        Some(Self { path: socket(api, env)?, owner })
    }

    fn client(&self, timeout: Duration) -> Client {
        Client::new(&self.path).with_timeout(timeout).served_by(self.owner)
    }
}

/// The daemon that has made the containers.
#[derive(Debug)]
pub(crate) struct Docker {
    client: Option<Client>,
    /// Whether the user knows that there are no names.
    told: Cell<bool>,
}

/// An element of `GET /containers/json` of Docker's API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Container {
    pub(crate) id: String,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    pub(crate) host_config: HostConfig,
    network_settings: Option<Settings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HostConfig {
    pub(crate) network_mode: String,
}

impl Container {
    /// Its own name, without the slash. Others are those that legacy links gave it.
    pub(crate) fn name(&self) -> Option<&str> {
        let mut names = self.names();
        names.clone().find(|name| !name.contains('/')).or_else(|| names.next())
    }

    /// All names, without the slash.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.iter().flatten().map(|name| name.trim_start_matches('/'))
    }

    /// Whose network it uses instead of one of its own (`--network=container:…`), if that is one of `all`. Docker gives the ID.
    pub(crate) fn network_of<'a>(&self, all: &'a [Self]) -> Option<&'a Self> {
        let other = self.host_config.network_mode.strip_prefix("container:")?;
        let named = || all.iter().find(|one| one.names().any(|name| name == other));
        all.iter().find(|one| one.id == other).or_else(named)
    }

    /// Its addresses, with the names of the networks.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        let networks =
            self.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let endpoints = networks.into_iter().flatten();
        endpoints.flat_map(|(network, endpoint)| {
            let texts = endpoint.iter().flat_map(|Endpoint { v4, v6 }| [v4, v6]);
            texts.filter_map(|text| text.parse().ok()).map(move |ip| (ip, network.as_str()))
        })
    }
}

/// An element of `GET /networks` of Docker's API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    name: String,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    config: Option<Vec<Subnet>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Subnet {
    subnet: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Settings {
    networks: Option<HashMap<String, Option<Endpoint>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "IPAddress")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address")]
    v6: String,
}

impl Docker {
    /// The daemon that runs in the namespace whose API is at `api`: its socket is beside the state directory
    /// (`$XDG_RUNTIME_DIR/docker.sock`). If there is none, the daemon that `docker` would talk to, as far as that is one
    /// at a unix socket.
    pub(crate) fn of(api: &Path, env: &Env) -> Self {
        let client = Socket::of(api, env).map(|socket| socket.client(TIMEOUT));
        Self { client, told: Cell::new(false) }
    }

    /// The daemon at this socket, which may take so long to answer.
    #[cfg(feature = "gateway")]
    pub(crate) fn at(socket: &Socket, timeout: Duration) -> Self {
        Self { client: Some(socket.client(timeout)), told: Cell::new(false) }
    }

    /// What rules of an egress policy may name.
    pub(crate) fn directory(&self) -> anyhow::Result<Directory> {
        let all = self.containers()?;
        let containers = all.iter().map(|container| {
            // What it sends has the addresses of the other container.
            let addresses = container.network_of(&all).unwrap_or(container).addresses();
            egress::Container {
                name: container.name().unwrap_or_default().to_owned(),
                addresses: addresses.map(|(ip, name)| (name.to_owned(), ip)).collect(),
                labels: container.labels.clone().unwrap_or_default(),
            }
        });
        let networks = self.get::<Vec<Network>>("/networks", "networks")?;
        let networks = networks.into_iter().map(|network| {
            let config = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
            let subnets = config.iter().filter_map(|part| part.subnet.parse().ok()).collect();
            egress::Network { name: network.name, subnets }
        });
        Ok(Directory { containers: containers.collect(), networks: networks.collect() })
    }

    /// Gives the containers their names. Says once why there are none.
    pub(crate) fn name(&self, stats: &mut Stats) {
        let Some(names) = self.known_names() else { return };
        for container in &mut stats.containers {
            if let Some((name, network)) = names.get(&container.ip) {
                container.container = Some(name.clone());
                container.network = Some(network.clone());
            }
        }
    }

    /// Container and network by address. Says once why there are none.
    pub(crate) fn known_names(&self) -> Option<HashMap<IpAddr, (String, String)>> {
        match self.names() {
            Ok(names) => Some(names),
            Err(error) => {
                if !self.told.replace(true) {
                    // Nothing is left to do if this fails.
                    writeln!(
                        io::stderr(),
                        "warning: showing addresses instead of the names of containers: {error:#}"
                    )
                    .ok();
                }
                None
            }
        }
    }

    /// Container and network by address.
    fn names(&self) -> anyhow::Result<HashMap<IpAddr, (String, String)>> {
        let mut names = HashMap::new();
        for container in self.containers()? {
            let Some(own) = container.name() else { continue };
            for (ip, network) in container.addresses() {
                names.insert(ip, (own.to_owned(), network.to_owned()));
            }
        }
        Ok(names)
    }

    /// The running containers.
    pub(crate) fn containers(&self) -> anyhow::Result<Vec<Container>> {
        self.get("/containers/json", "containers")
    }

    fn get<T: DeserializeOwned + Default>(&self, path: &str, what: &str) -> anyhow::Result<T> {
        let client = self.client.as_ref().context("no Docker socket found")?;
        client.get(path).map_err(|error| explain(client.socket(), what, error))
    }
}

/// Errors of the client speak of RootlessKit.
fn explain(socket: &Path, what: &str, error: ClientError) -> anyhow::Error {
    let reason = match error {
        ClientError::NoSocket { reason, .. } | ClientError::Connect { reason, .. } => {
            reason.to_string()
        }
        ClientError::Foreign { user, owner, .. } if owner == geteuid().as_raw() => {
            format!("it belongs to user {user}, not to you")
        }
        ClientError::Foreign { user, owner, .. } => {
            format!("it belongs to user {user}, not to user {owner}")
        }
        ClientError::Timeout { timeout, .. } => format!("no answer within {timeout:?}"),
        ClientError::Answer { reason, .. } => reason,
        ClientError::Refused { message, .. } => message,
        // Only for ports.
        ClientError::ServesEverybody => error.to_string(),
    };
    anyhow::anyhow!("cannot list the {what} of the Docker daemon at {}: {reason}", socket.display())
}

fn beside(state_dir: &Path) -> PathBuf {
    state_dir.parent().unwrap_or(state_dir).join("docker.sock")
}

fn socket(api: &Path, env: &Env) -> Option<PathBuf> {
    if let Some(socket) = api.parent().map(beside).filter(|socket| socket.exists()) {
        return Some(socket);
    }
    match env.nonempty(vars::DOCKER_HOST) {
        Some(host) => host.to_str()?.strip_prefix("unix://").map(PathBuf::from),
        None => env.nonempty(vars::XDG_RUNTIME_DIR).map(|dir| Path::new(dir).join("docker.sock")),
    }
}

#[cfg(test)]
mod tests;
