//! The networks of containers: those that Docker has, those that daemon.json sets, and the pools of addresses for others.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use serde_json::Value;

use crate::place::World;
use crate::probe::Prober;
use crate::swarm::Membership;

/// What a swarm takes the addresses of networks from, unless it was created with others.
pub const DEFAULT_SWARM_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);

/// A network that Docker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerNetwork {
    pub name: String,
    /// Such as `bridge` or `overlay`.
    pub driver: String,
    /// Its addresses, which are several networks if it has IPv6.
    pub subnets: Vec<IpNet>,
}

/// A setting of daemon.json that names addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSetting {
    pub name: &'static str,
    pub file: PathBuf,
    pub subnet: IpNet,
}

/// All that is known about them. If the daemon does not run, only its settings and its swarm are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerNetworks {
    pub settings: Vec<NetworkSetting>,
    pub existing: Vec<DockerNetwork>,
    /// What overlay networks get addresses from. Empty if this node does not know that: only managers do.
    pub swarm_pool: Vec<IpNet>,
}

impl DockerNetworks {
    pub(super) fn gather(world: &World, prober: &dyn Prober) -> Self {
        let mut found = Self { settings: settings(world), ..Self::default() };
        let member = Membership::read(world);
        let socket = world.runtime_dir().map(|dir| dir.join("docker.sock"));
        // Connecting to the socket of a unit would start the daemon.
        let socket = socket.filter(|_| world.daemon_runs());
        let ask = |path| prober.docker(socket.as_deref()?, path);
        if let Some(list) = ask("/networks") {
            found.existing = existing(list);
        }
        if let Some(member) = member {
            found.swarm_pool = match ask("/info") {
                Some(info) => pool_of_manager(&info),
                None => pool_of_founder(&member),
            };
        }
        found
    }
}

fn settings(world: &World) -> Vec<NetworkSetting> {
    let (Some(config), Some((file, _))) = (world.daemon_json(), world.daemon_config()) else {
        return Vec::new();
    };
    let setting = |name: &'static str| {
        let subnet: IpNet = config[name].as_str()?.parse().ok()?;
        Some(NetworkSetting { name, file: file.clone(), subnet: subnet.trunc() })
    };
    ["bip", "bip6", "fixed-cidr", "fixed-cidr-v6"].into_iter().filter_map(setting).collect()
}

/// An element of `GET /networks`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    name: String,
    driver: String,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    config: Option<Vec<Range>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Range {
    subnet: String,
}

fn existing(list: Value) -> Vec<DockerNetwork> {
    let list: Vec<Listed> = serde_json::from_value(list).unwrap_or_default();
    let network = |Listed { name, driver, ipam }: Listed| DockerNetwork {
        name,
        driver,
        subnets: parse(ipam.config.iter().flatten().map(|range| range.subnet.as_str())),
    };
    list.into_iter().map(network).collect()
}

/// The pool in `GET /info`. A node that is no manager knows none.
fn pool_of_manager(info: &Value) -> Vec<IpNet> {
    let cluster = &info["Swarm"]["Cluster"];
    if cluster["ID"].as_str().is_none_or(str::is_empty) {
        return Vec::new();
    }
    let pool = cluster["DefaultAddrPool"].as_array().into_iter().flatten();
    or_default(parse(pool.filter_map(Value::as_str)))
}

/// The pool of the swarm that this daemon created. One that joined a swarm has no record of its pool.
fn pool_of_founder(member: &Membership) -> Vec<IpNet> {
    if !member.remote_addr.is_empty() {
        return Vec::new();
    }
    let pool = member.default_address_pool.iter().flatten();
    or_default(parse(pool.map(String::as_str)))
}

fn or_default(pool: Vec<IpNet>) -> Vec<IpNet> {
    if pool.is_empty() { vec![DEFAULT_SWARM_POOL.into()] } else { pool }
}

fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpNet> {
    texts.filter_map(|text| text.parse::<IpNet>().ok()).map(|subnet| subnet.trunc()).collect()
}
