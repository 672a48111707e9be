//! What the Docker daemon of the namespace knows: containers and networks, with names and addresses.
//!
//! rootlessctl shows names ([`Docker`]). The parent needs them for an egress policy and follows them ([`follow`]).

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
use ipnet::IpNet;
use nix::unistd::geteuid;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::visible::visible_lines;

/// The network through which Docker leads containers out of overlay networks, which have no gateway. It lists their
/// addresses there in no place but the network itself.
const GATEWAY_BRIDGE: &str = "docker_gwbridge";

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
    /// Addresses in [`GATEWAY_BRIDGE`].
    #[serde(skip)]
    bridged: Vec<IpAddr>,
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
        let endpoints = self.endpoints().flat_map(|(network, endpoint)| {
            let texts = [&endpoint.v4, &endpoint.v6].into_iter();
            texts.filter_map(|text| text.parse().ok()).map(move |ip| (ip, network))
        });
        endpoints.chain(self.bridged.iter().map(|ip| (*ip, GATEWAY_BRIDGE)))
    }

    /// Where it is in each of its networks.
    fn endpoints(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        let networks = self.network_settings.iter().filter_map(|all| all.networks.as_ref());
        let endpoints = networks.flatten();
        endpoints.filter_map(|(network, endpoint)| Some((network.as_str(), endpoint.as_ref()?)))
    }

    /// Whether it may send through [`GATEWAY_BRIDGE`]: it has an address in a network without a gateway.
    fn may_be_bridged(&self) -> bool {
        let has_address = |e: &Endpoint| !e.v4.is_empty() || !e.v6.is_empty();
        self.endpoints().any(|(_, e)| has_address(e) && e.gateway.is_empty())
    }

    /// Whether it can send to others from its addresses in this network.
    fn leaves_by(&self, network: &str) -> bool {
        let mut endpoints = self.endpoints().filter(|(name, _)| *name == network);
        let leads_out = |e: &Endpoint| !e.gateway.is_empty() || !e.gateway_v6.is_empty();
        network == GATEWAY_BRIDGE || endpoints.any(|(_, endpoint)| leads_out(endpoint))
    }
}

/// An element of `GET /networks` of Docker's API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    name: String,
    driver: String,
    internal: bool,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
}

impl Network {
    fn subnets(&self) -> Vec<IpNet> {
        let config = self.ipam.iter().filter_map(|ipam| ipam.config.as_ref()).flatten();
        config.filter_map(|part| part.subnet.parse().ok()).collect()
    }

    /// Whether its containers send through [`GATEWAY_BRIDGE`], if they can send to others at all.
    fn is_overlay(&self) -> bool {
        self.driver == "overlay"
    }
}

/// The answer to `GET /networks/NAME` of Docker's API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Members {
    /// By the ID of the container. Others are Docker's own, such as `ingress-sbox`.
    containers: Option<HashMap<String, Member>>,
}

/// Addresses with the lengths of their networks, or nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Member {
    #[serde(rename = "IPv4Address")]
    v4: String,
    #[serde(rename = "IPv6Address")]
    v6: String,
}

impl Member {
    fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let networks = [self.v4, self.v6].into_iter().map(|text| text.parse::<IpNet>());
        networks.filter_map(|network| Some(network.ok()?.addr()))
    }
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
    /// An IPv4 address, or nothing.
    #[serde(rename = "Gateway")]
    gateway: String,
    /// An IPv6 address, or nothing.
    #[serde(rename = "IPv6Gateway")]
    gateway_v6: String,
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
    pub(crate) fn at(socket: &Socket, timeout: Duration) -> Self {
        Self { client: Some(socket.client(timeout)), told: Cell::new(false) }
    }

    /// What rules of an egress policy may name.
    pub(crate) fn directory(&self) -> anyhow::Result<Directory> {
        let all = self.containers()?;
        let networks = self.get::<Vec<Network>>("/networks", "networks")?;
        let overlay: HashMap<&str, &Network> = networks
            .iter()
            .filter_map(|network| network.is_overlay().then_some((&*network.name, network)))
            .collect();
        let containers = all.iter().map(|container| {
            // What it sends has the addresses of the other container.
            let sender = container.network_of(&all).unwrap_or(container);
            let own = sender.addresses().filter(|(_, name)| !overlay.contains_key(name));
            let networks = sender
                .endpoints()
                .filter(|(name, _)| overlay.get(name).is_some_and(|network| !network.internal));
            let bridged =
                networks.flat_map(|(name, _)| sender.bridged.iter().map(move |ip| (*ip, name)));
            egress::Container {
                name: container.name().unwrap_or_default().to_owned(),
                addresses: own.chain(bridged).map(|(ip, name)| (name.to_owned(), ip)).collect(),
                labels: container.labels.clone().unwrap_or_default(),
            }
        });
        let containers = containers.collect();
        let bridge = networks.iter().find(|network| network.name == GATEWAY_BRIDGE);
        let bridge = bridge.map(Network::subnets).unwrap_or_default();
        let networks = networks.iter().map(|network| {
            let is_shared = network.is_overlay();
            let subnets = if is_shared { bridge.clone() } else { network.subnets() };
            egress::Network { name: network.name.clone(), subnets, is_shared }
        });
        Ok(Directory { containers, networks: networks.collect() })
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
                    let warning = format!(
                        "warning: showing addresses instead of the names of containers: {error:#}"
                    );
                    write!(io::stderr(), "{}", visible_lines(&warning)).ok();
                }
                None
            }
        }
    }

    /// Container and network by address.
    fn names(&self) -> anyhow::Result<HashMap<IpAddr, (String, String)>> {
        let mut names = HashMap::new();
        // Without what is in the bridge, other names are as good as ever.
        for container in self.containers_with(|| Ok(self.members().unwrap_or_default()))? {
            let Some(own) = container.name() else { continue };
            // In an overlay network, it may have the address of somebody else here, such as the namespace.
            for (ip, network) in container.addresses().filter(|(_, name)| container.leaves_by(name))
            {
                names.insert(ip, (own.to_owned(), network.to_owned()));
            }
        }
        Ok(names)
    }

    /// The running containers.
    pub(crate) fn containers(&self) -> anyhow::Result<Vec<Container>> {
        self.containers_with(|| self.members())
    }

    fn containers_with(
        &self,
        members: impl FnOnce() -> anyhow::Result<HashMap<String, Member>>,
    ) -> anyhow::Result<Vec<Container>> {
        let mut all = self.get::<Vec<Container>>("/containers/json", "containers")?;
        if all.iter().any(Container::may_be_bridged) {
            let mut members = members()?;
            for container in all.iter_mut().filter(|container| container.may_be_bridged()) {
                let bridged = members.remove(&container.id).unwrap_or_default().addresses();
                container.bridged = bridged.collect();
            }
        }
        Ok(all)
    }

    /// What is in [`GATEWAY_BRIDGE`], by the ID of the container.
    fn members(&self) -> anyhow::Result<HashMap<String, Member>> {
        let client = self.client()?;
        match client.get::<Members>(&format!("/networks/{GATEWAY_BRIDGE}")) {
            Ok(members) => Ok(members.containers.unwrap_or_default()),
            // There is no such network before there is an overlay network.
            Err(ClientError::Refused { status: 404, .. }) => Ok(HashMap::new()),
            Err(error) => Err(explain(client.socket(), "networks", error)),
        }
    }

    fn client(&self) -> anyhow::Result<&Client> {
        self.client.as_ref().context("no Docker socket found")
    }

    fn get<T: DeserializeOwned + Default>(&self, path: &str, what: &str) -> anyhow::Result<T> {
        let client = self.client()?;
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
